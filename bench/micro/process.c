/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Processes: what a fork costs while files are open, and what a preloaded library costs.  Figures
 * are microseconds a process, or a read.
 *
 * The parent's descriptors stay as they are for all forks of a run; a child never returns from
 * here.
 */
#include "bench/micro/micro.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define READ_SIZE 4096
#define FORKS_MAX 5000
#define FORKS_MIN 5

/* A child that is not asked to do anything else. */
static const char program_that_ends[] = "/bin/true";

enum fork_mode { FORK_EXIT, FORK_EXEC, FORK_TOUCH };

static void raise_limit(unsigned files)
{
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
                give_up("getrlimit", "RLIMIT_NOFILE");
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
                give_up("setrlimit", "RLIMIT_NOFILE");
        if (limit.rlim_cur < files + 16) {
                errno = EMFILE;
                give_up("limit of open files", "RLIMIT_NOFILE");
        }
}

_Noreturn static void be_child(enum fork_mode mode, const int *fds, unsigned files)
{
        char byte;

        switch (mode) {
        case FORK_EXIT:
                break;
        case FORK_EXEC:
                execl(program_that_ends, program_that_ends, NULL);
                _exit(127);
        case FORK_TOUCH:
                for (unsigned i = 0; i < files; i++)
                        if (pread(fds[i], &byte, 1, 0) < 0)
                                _exit(1);
                break;
        }
        _exit(0);
}

static void fork_once(enum fork_mode mode, const int *fds, unsigned files)
{
        const pid_t child = fork();
        int status;

        if (child < 0)
                give_up("fork", "");
        if (child == 0)
                be_child(mode, fds, files);
        if (waitpid(child, &status, 0) != child)
                give_up("waitpid", "");
        if (status != 0) {
                fprintf(stderr, "the child ended with status %#x\n", (unsigned)status);
                exit(1);
        }
}

/* Not O_CLOEXEC: that a new image inherits the descriptors is what `exec` measures. */
static int *open_set(const char *dir, unsigned files)
{
        int *fds = calloc(files + 1, sizeof(*fds));

        if (!fds)
                give_up("calloc", "");
        for (unsigned i = 0; i < files; i++) {
                char name[PATH_MAX];

                set_name(name, sizeof(name), dir, i);
                fds[i] = open(name, O_RDONLY);
                if (fds[i] < 0)
                        give_up("open", name);
        }
        return fds;
}

int measure_fork(int argc, char **argv)
{
        const unsigned files = strcmp(argv[2], "0") == 0 ? 0 : parse_count(argv[2]);
        const double span = parse_count(argv[3]) * 1e-3;
        static double figures[FORKS_MAX];
        enum fork_mode mode = FORK_EXIT;
        unsigned forks = 0;
        double start;
        int *fds;

        if (strcmp(argv[0], "exec") == 0)
                mode = FORK_EXEC;
        else if (strcmp(argv[0], "touch") == 0)
                mode = FORK_TOUCH;
        raise_limit(files);
        fds = open_set(argv[1], files);
        fork_once(mode, fds, files); /* the first one pays for page tables and page cache */
        start = now();
        do {
                const double before = now();

                fork_once(mode, fds, files);
                figures[forks++] = (now() - before) * 1e6;
        } while (forks < FORKS_MAX && (now() - start < span || forks < FORKS_MIN));
        put_figure("fork", median(figures, forks));
        put_figure("forks", forks);
        free(fds);
        return 0;
}

struct read_set {
        int fd;
        off_t size;
};

static void read_one(const void *data, unsigned i)
{
        const struct read_set *set = data;
        char buffer[READ_SIZE];

        if (pread(set->fd, buffer, READ_SIZE, (off_t)i * READ_SIZE % set->size) != READ_SIZE)
                give_up("pread", "");
}

static void measure_reads(const char *name, int fd, unsigned reads)
{
        struct read_set set = {.fd = fd};
        char buffer[READ_SIZE];

        if (set.fd < 0)
                give_up("open", name);
        while (pread(set.fd, buffer, READ_SIZE, set.size) == READ_SIZE)
                set.size += READ_SIZE; /* everything is cached from here on */
        if (set.size == 0)
                give_up("a file of 4096 bytes and more", name);
        put_figure("read", time_batches(reads, read_one, &set));
}

int measure_read(int argc, char **argv)
{
        measure_reads(argv[0], open(argv[0], O_RDONLY | O_CLOEXEC), parse_count(argv[1]));
        return 0;
}

/* The same in a child, on what it has inherited. */
int measure_child_read(int argc, char **argv)
{
        const unsigned reads = parse_count(argv[1]);
        const int fd = open(argv[0], O_RDONLY | O_CLOEXEC);
        const pid_t child = fork();
        int status;

        if (child < 0)
                give_up("fork", "");
        if (child == 0) {
                measure_reads(argv[0], fd, reads);
                fflush(stdout);
                _exit(0);
        }
        if (waitpid(child, &status, 0) != child || status != 0) {
                fprintf(stderr, "the child ended with status %#x\n", (unsigned)status);
                return 1;
        }
        return 0;
}

static double start_once(const char *program, char **environment)
{
        char *const arguments[] = {(char *)program, NULL};
        const double start = now();
        int status, r;
        pid_t child;

        r = posix_spawn(&child, program, NULL, NULL, arguments, environment);
        if (r != 0) {
                errno = r;
                give_up("posix_spawn", program);
        }
        if (waitpid(child, &status, 0) != child || status != 0)
                give_up("waitpid", program);
        return (now() - start) * 1e6;
}

/* Starts the program with and without the preload in turns, so that what the machine does beside it
 * meets both; the cost is the median of the pairs' differences. */
int measure_start(int argc, char **argv)
{
        const unsigned times = parse_count(argv[1]);
        char preload[PATH_MAX + 16];
        char *without[] = {NULL};
        char *with[] = {preload, NULL};
        double *plain = calloc(times, sizeof(*plain));
        double *cost = calloc(times, sizeof(*cost));

        if (!plain || !cost)
                give_up("calloc", "");
        snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", argv[2]);
        start_once(argv[0], without);
        start_once(argv[0], with);
        for (unsigned i = 0; i < times; i++) {
                double preloaded = i % 2 ? start_once(argv[0], with) : 0;

                plain[i] = start_once(argv[0], without);
                if (i % 2 == 0)
                        preloaded = start_once(argv[0], with);
                cost[i] = preloaded - plain[i];
        }
        put_figure("plain", median(plain, times));
        put_figure("cost", median(cost, times));
        free(plain);
        free(cost);
        return 0;
}

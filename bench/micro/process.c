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
        int *fds = calloc(files, sizeof(*fds));

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
        enum fork_mode mode = FORK_EXIT;
        unsigned forks = 0;
        double start;
        int *fds;

        if (strcmp(argv[0], "exec") == 0)
                mode = FORK_EXEC;
        else if (strcmp(argv[0], "touch") == 0)
                mode = FORK_TOUCH;
        raise_limit(files);
        fds = open_set(argv[1], files > 0 ? files : 1);
        if (files == 0)
                close(fds[0]);
        fork_once(mode, fds, files); /* the first one pays for page tables and page cache */
        start = now();
        do {
                fork_once(mode, fds, files);
                forks++;
        } while (now() - start < span || forks < 3);
        put_figure("fork", (now() - start) / forks * 1e6);
        put_figure("forks", forks);
        free(fds);
        return 0;
}

int measure_read(int argc, char **argv)
{
        const double span = parse_count(argv[1]) * 1e-3;
        const int fd = open(argv[0], O_RDONLY | O_CLOEXEC);
        char buffer[READ_SIZE];
        unsigned long reads = 0;
        off_t size;
        double start;

        if (fd < 0)
                give_up("open", argv[0]);
        for (size = 0; pread(fd, buffer, sizeof(buffer), size) == READ_SIZE; size += READ_SIZE)
                ; /* everything is cached from here on */
        if (size == 0)
                give_up("a file of 4096 bytes and more", argv[0]);
        start = now();
        do {
                for (unsigned i = 0; i < 1000; i++, reads++)
                        if (pread(fd, buffer, sizeof(buffer), (off_t)(reads * READ_SIZE) % size) !=
                            READ_SIZE)
                                give_up("pread", argv[0]);
        } while (now() - start < span);
        put_figure("read", (now() - start) / (double)reads * 1e6);
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

static int compare(const void *a, const void *b)
{
        const double x = *(const double *)a, y = *(const double *)b;

        return (x > y) - (x < y);
}

/* Starts the program with and without the preload in turns, so that what the machine does beside it
 * meets both. */
int measure_start(int argc, char **argv)
{
        const unsigned times = parse_count(argv[1]);
        char preload[PATH_MAX + 16];
        char *plain[] = {NULL};
        char *preloaded[] = {preload, NULL};
        double *figures = calloc(2 * (size_t)times, sizeof(*figures));

        if (!figures)
                give_up("calloc", "");
        snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", argv[2]);
        start_once(argv[0], plain);
        start_once(argv[0], preloaded);
        for (unsigned i = 0; i < times; i++) {
                figures[i] = start_once(argv[0], plain);
                figures[times + i] = start_once(argv[0], preloaded);
        }
        qsort(figures, times, sizeof(*figures), compare);
        qsort(figures + times, times, sizeof(*figures), compare);
        put_figure("plain", figures[times / 2]);
        put_figure("preloaded", figures[times + times / 2]);
        free(figures);
        return 0;
}

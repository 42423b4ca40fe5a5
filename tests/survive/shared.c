/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Each process counts for itself how often it has raised each counter and how many lines it has appended, in a
 * file of its own that is not on the mount's critical path: a line "flock posix lines" at its end.  The
 * counters must be the sums, and the log must have every process's lines, once and in order.
 */
#include "shared.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LISTED 200
#define LINE   64

static volatile sig_atomic_t ended;

static void on_term(int sig)
{
        ended = 1;
}

static int complain(const char *what)
{
        fprintf(stderr, "WRONG: process %d: %s: %s\n", (int)getpid(), what, strerror(errno));
        return -1;
}

static int make_file(int dir, const char *name)
{
        int fd = openat(dir, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);

        if (fd < 0)
                return complain(name);
        close(fd);
        return 0;
}

int shared_prepare(const char *directory)
{
        int dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), listed;
        char name[32];

        if (dir < 0 || mkdirat(dir, "listed", 0755) < 0)
                return complain(directory);
        listed = openat(dir, "listed", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        for (int i = 0; i < LISTED; i++) {
                snprintf(name, sizeof name, "f%d", i);
                if (make_file(listed, name) < 0)
                        return -1;
        }
        close(listed);
        if (make_file(dir, "flock") < 0 || make_file(dir, "posix") < 0 || make_file(dir, "log") < 0)
                return -1;
        close(dir);
        return 0;
}

/* Adds one to the number in the file; its lock is held. */
static int raise_counter(int fd)
{
        char text[32] = "";
        long number;

        if (pread(fd, text, sizeof text - 1, 0) < 0)
                return complain("pread of a counter");
        number = strtol(text, NULL, 10) + 1;
        snprintf(text, sizeof text, "%-20ld\n", number);
        if (pwrite(fd, text, strlen(text), 0) != (ssize_t)strlen(text))
                return complain("pwrite of a counter");
        return 0;
}

static int raise_by_flock(int fd)
{
        int r;

        while (flock(fd, LOCK_EX) < 0)
                if (errno != EINTR)
                        return complain("flock");
        r = raise_counter(fd);
        flock(fd, LOCK_UN);
        return r;
}

static int raise_by_posix(int fd)
{
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        int r;

        while (fcntl(fd, F_SETLKW, &lock) < 0)
                if (errno != EINTR)
                        return complain("fcntl(F_SETLKW)");
        r = raise_counter(fd);
        lock.l_type = F_UNLCK;
        fcntl(fd, F_SETLK, &lock);
        return r;
}

static unsigned sum_of(const char *text, size_t length)
{
        unsigned sum = 0;

        for (size_t i = 0; i < length; i++)
                sum = sum * 31 + (unsigned char)text[i];
        return sum & 0xffffff;
}

static int append_line(int fd, unsigned number, long line)
{
        char text[LINE + 1], body[LINE - 8];
        const int length = snprintf(body, sizeof body, "%u %08ld %0*ld", number, line,
                                    (int)(sizeof body - 13), line * 7919);

        snprintf(text, sizeof text, "%-*s%06x\n", LINE - 7, body, sum_of(body, (size_t)length));
        if (write(fd, text, LINE) != LINE)
                return complain("write to the log");
        return 0;
}

static int list(int dir)
{
        bool seen[LISTED] = {false};
        int fd = openat(dir, "listed", O_RDONLY | O_DIRECTORY | O_CLOEXEC), n = 0, i;
        struct dirent *entry;
        DIR *stream = fd >= 0 ? fdopendir(fd) : NULL;

        if (!stream)
                return complain("opendir");
        errno = 0;
        while ((entry = readdir(stream))) {
                if (sscanf(entry->d_name, "f%d", &i) == 1 && i >= 0 && i < LISTED && !seen[i]) {
                        seen[i] = true;
                        n++;
                }
                errno = 0;
        }
        closedir(stream);
        return errno != 0 ? complain("readdir") : n == LISTED ? 0 : complain("names are missing");
}

int shared_process(const char *directory, unsigned number)
{
        int dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), by_flock, by_posix, log, out;
        struct sigaction action = {.sa_handler = on_term};
        long counts[3] = {0};
        char text[128];

        sigaction(SIGTERM, &action, NULL);
        by_flock = openat(dir, "flock", O_RDWR | O_CLOEXEC);
        by_posix = openat(dir, "posix", O_RDWR | O_CLOEXEC);
        log = openat(dir, "log", O_WRONLY | O_APPEND | O_CLOEXEC);
        snprintf(text, sizeof text, "counts.%u", number);
        out = openat(dir, text, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
        if (by_flock < 0 || by_posix < 0 || log < 0 || out < 0) {
                complain("open");
                return 1;
        }
        while (!ended) {
                if (raise_by_flock(by_flock) < 0 || raise_by_posix(by_posix) < 0 ||
                    append_line(log, number, counts[2]) < 0)
                        return 1;
                counts[0]++, counts[1]++, counts[2]++;
                if (counts[0] % 16 == 0 && list(dir) < 0)
                        return 1;
        }
        snprintf(text, sizeof text, "%ld %ld %ld\n", counts[0], counts[1], counts[2]);
        if (write(out, text, strlen(text)) != (ssize_t)strlen(text)) {
                complain("write of the counts");
                return 1;
        }
        return 0;
}

static long read_number(int dir, const char *name)
{
        char text[32] = "";
        int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;

        if (fd >= 0)
                close(fd);
        return n < 0 ? -1 : strtol(text, NULL, 10);
}

static int check_log(int dir, const long *lines, unsigned processes)
{
        long next[SHARED_MAX] = {0}, line;
        char text[LINE + 1] = "", body[LINE];
        unsigned number, sum;
        FILE *log = fdopen(openat(dir, "log", O_RDONLY | O_CLOEXEC), "r");

        if (!log)
                return complain("the log");
        while (fread(text, 1, LINE, log) == LINE) {
                if (text[LINE - 1] != '\n' || sscanf(text, "%u %ld", &number, &line) != 2 ||
                    number >= processes || sscanf(text + LINE - 7, "%x", &sum) != 1) {
                        fprintf(stderr, "WRONG: the log has '%s'\n", text);
                        return -1;
                }
                snprintf(body, sizeof body, "%.*s", LINE - 7, text);
                for (size_t i = strlen(body); i > 0 && body[i - 1] == ' '; i--)
                        body[i - 1] = '\0';
                if (sum != sum_of(body, strlen(body)) || line != next[number]) {
                        fprintf(stderr, "WRONG: the log has line %ld of %u where %ld is due\n",
                                line, number, next[number]);
                        return -1;
                }
                next[number]++;
        }
        fclose(log);
        for (unsigned i = 0; i < processes; i++) {
                if (next[i] == lines[i])
                        continue;
                fprintf(stderr, "WRONG: the log has %ld lines of %u, which wrote %ld\n", next[i], i,
                        lines[i]);
                return -1;
        }
        return 0;
}

int shared_check(const char *directory, unsigned processes)
{
        int dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        long sums[2] = {0}, lines[SHARED_MAX] = {0};
        char name[32];

        if (dir < 0)
                return complain(directory);
        for (unsigned i = 0; i < processes; i++) {
                char text[128] = "";
                long a = 0, b = 0;
                int fd;

                snprintf(name, sizeof name, "counts.%u", i);
                fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
                if (fd < 0 || read(fd, text, sizeof text - 1) < 0 ||
                    sscanf(text, "%ld %ld %ld", &a, &b, &lines[i]) != 3)
                        return complain(name);
                close(fd);
                sums[0] += a;
                sums[1] += b;
        }
        if (read_number(dir, "flock") != sums[0] || read_number(dir, "posix") != sums[1]) {
                fprintf(stderr, "WRONG: counters are %ld and %ld, expected %ld and %ld\n",
                        read_number(dir, "flock"), read_number(dir, "posix"), sums[0], sums[1]);
                return -1;
        }
        if (check_log(dir, lines, processes) < 0)
                return -1;
        printf("shared: %ld + %ld locked counts\n", sums[0], sums[1]);
        close(dir);
        return 0;
}

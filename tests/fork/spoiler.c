/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * spoiler: what a bad shim would do, to see that the matrix notices.  A preloaded library that acts
 * at the first read of a descriptor that the process did not open itself; SPOIL says how:
 *
 *   private   replaces the descriptor by one with an offset of its own
 *   offset    moves the offset on and back again, by one too few
 *   close     opens and closes the file, which drops the process's POSIX locks on it
 *   leak      keeps a descriptor open
 *   flags     clears O_APPEND and sets O_NONBLOCK
 *   bad       fails with EBADF when nobody answers
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool seen[1024];
static pid_t seen_by, first;

/* Images that the first process starts find its id in the environment. */
static __attribute__((constructor)) void remember_the_first(void)
{
        char number[12];

        snprintf(number, sizeof(number), "%d", (int)getpid());
        setenv("SPOIL_FIRST", number, 0);
        first = atoi(getenv("SPOIL_FIRST"));
}

static int open_again(int fd)
{
        char path[40];

        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        return open(path, (fcntl(fd, F_GETFL) & ~O_CREAT) | O_CLOEXEC);
}

static int spoil(int fd, const char *how)
{
        int other = -1;

        if (!strcmp(how, "bad")) {
                errno = EBADF;
                return -1;
        }
        if (!strcmp(how, "offset")) {
                lseek(fd, 1, SEEK_CUR);
                return 0;
        }
        if (!strcmp(how, "flags")) {
                fcntl(fd, F_SETFL, (fcntl(fd, F_GETFL) & ~O_APPEND) | O_NONBLOCK);
                return 0;
        }
        other = open_again(fd);
        if (!strcmp(how, "private"))
                dup2(other, fd);
        if (strcmp(how, "leak"))
                close(other);
        return 0;
}

static int before(int fd)
{
        const char *how = getenv("SPOIL");
        struct stat st;

        if (seen_by != getpid()) {
                memset(seen, 0, sizeof(seen));
                seen_by = getpid();
        }
        if (!how || getpid() == first || fd < 0 || fd >= 1024 || seen[fd] || fstat(fd, &st) < 0 ||
            !S_ISREG(st.st_mode))
                return 0;
        seen[fd] = true;
        return spoil(fd, how);
}

ssize_t read(int fd, void *buf, size_t count)
{
        ssize_t (*next)(int, void *, size_t);

        *(void **)&next = dlsym(RTLD_NEXT, "read");
        return before(fd) < 0 ? -1 : next(fd, buf, count);
}

ssize_t write(int fd, const void *buf, size_t count)
{
        ssize_t (*next)(int, const void *, size_t);

        *(void **)&next = dlsym(RTLD_NEXT, "write");
        return before(fd) < 0 ? -1 : next(fd, buf, count);
}

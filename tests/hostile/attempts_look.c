/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From outside: the VICTIM's memory and descriptors. */
#include "attempts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static long try_vm_read(void)
{
        char c = 0;
        const struct iovec local = {&c, 1}, remote = {(void *)(held.map + 4096), 1};
        const long r = process_vm_readv(held.victim, &local, 1, &remote, 1, 0);

        return got(r, c);
}

static long mem(int flags, long (*fn)(int fd, off_t at), long at)
{
        char path[64];
        long r;
        int fd;

        snprintf(path, sizeof path, "/proc/%d/mem", (int)held.victim);
        fd = open(path, flags);
        if (fd < 0)
                return -errno;
        r = fn(fd, (off_t)(unsigned long)held.map + at);
        close(fd);
        return r;
}

static long mem_read(int fd, off_t at)
{
        char c = 0;
        const long r = pread(fd, &c, 1, at);

        return got(r, c);
}

static long mem_write(int fd, off_t at)
{
        const char mark = MARK;

        return raw(pwrite(fd, &mark, 1, at));
}

static long try_mem_read(void) { return mem(O_RDONLY, mem_read, 8192); }
static long try_mem_write(void) { return mem(O_RDWR, mem_write, 12288); }

static long try_ptrace(void)
{
        long word;

        if (ptrace(PTRACE_ATTACH, held.victim, NULL, NULL) < 0)
                return -errno;
        waitpid(held.victim, NULL, __WALL);
        errno = 0;
        word = ptrace(PTRACE_PEEKDATA, held.victim, (void *)(held.map + 4096), NULL);
        word = errno ? -errno : got(1, (char)word);
        ptrace(PTRACE_DETACH, held.victim, NULL, NULL);
        return word;
}

static long stolen(long (*fn)(int fd))
{
        const int pidfd = (int)syscall(SYS_pidfd_open, held.victim, 0);
        const int fd = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, held.fd, 0);
        const long r = fd < 0 ? -errno : fn(fd);

        close(pidfd);
        if (fd >= 0)
                close(fd);
        return r;
}

static long read_it(int fd)
{
        char c = 0;
        const long r = pread(fd, &c, 1, 0);

        return got(r, c);
}

static long write_it(int fd)
{
        const char mark = MARK;

        return raw(pwrite(fd, &mark, 1, 100));
}

static long try_steal_read(void) { return stolen(read_it); }
static long try_steal_write(void) { return stolen(write_it); }

static long try_their_fd(void)
{
        char path[64];

        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)held.victim, held.fd);
        return read_from(open(path, O_RDWR));
}

static long try_their_map(void)
{
        const unsigned long at = (unsigned long)held.map;
        char path[96];

        snprintf(path, sizeof path, "/proc/%d/map_files/%lx-%lx", (int)held.victim, at, at + SIZE);
        return read_from(open(path, O_RDWR));
}

const struct attempt look_attempts[] = {
        {"process_vm_readv of its mapping", MASTER, try_vm_read},
        {"/proc/PID/mem, read of its mapping", MASTER, try_mem_read},
        {"/proc/PID/mem, write to its mapping", MASTER, try_mem_write},
        {"ptrace, look at its mapping", MASTER, try_ptrace},
        {"pidfd_getfd, read", MASTER, try_steal_read},
        {"pidfd_getfd, write", MASTER, try_steal_write},
        {"open /proc/PID/fd", MASTER, try_their_fd},
        {"open /proc/PID/map_files", MASTER, try_their_map},
        {NULL, WHO, NULL},
};

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fresh [--limit=SECONDS] [--cached] [--spoil] FILE SOURCE
 *
 * Changes FILE, which is SOURCE behind the mount, in all ways that a descriptor has, and looks each
 * time at once at size, modification time, blocks and the rest: on the descriptor, on another one,
 * by name, by the name of a hard link, and in another process by both.  All of them have to say
 * what SOURCE says, and the change has to be in it.  Before each change all of them have been
 * asked, so that whoever believes old answers gives one; and the file's times have been set to a
 * day long ago.
 *
 * Then the same for the access time after a read, and for the modification time after a store into
 * a mapping: when it comes is printed, and more than --limit (default 0) after the msync is an
 * error.
 *
 * --cached: reads may come from pages that the kernel has, and need not change an access time then.
 * --spoil: compares with what SOURCE said before the change.
 *
 * Two processes: the other one answers a byte on its socket (which of the two names) with a struct
 * stat.
 */
#include "data.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { BLOCK = 4096, LINK_NAME = 4200, LONG_AGO = 1000000000 };

static struct {
        const char *file, *source;
        char link[LINK_NAME];
        double limit;
        bool cached, spoil, spoiling, atimes; /* atimes: reads change the access time in SOURCE */
        struct stat spoilt;
        int fd, second, append, read_only, other; /* other: the socket */
        char *buf;                                /* two blocks, aligned */
        unsigned compared;
} t;

/* --- who can be asked */

enum { BY_FD, BY_SECOND_FD, BY_NAME, BY_LINK, OTHERS_NAME, OTHERS_LINK, N_WAYS };
static const char *const ways[] = {"fstat",
                                   "fstat of the second descriptor",
                                   "stat",
                                   "stat of the hard link",
                                   "another process's stat",
                                   "another process's stat of the hard link"};

static _Noreturn void answer(int socket)
{
        struct stat st;
        char which;

        while (read(socket, &which, 1) == 1) {
                if (stat(which ? t.link : t.file, &st) < 0)
                        die("the other process: stat: %m");
                if (write(socket, &st, sizeof st) != sizeof st)
                        die("the other process: write: %m");
        }
        exit(0);
}

static struct stat look(int way)
{
        char which = way == OTHERS_LINK;
        struct stat st;
        int bad;

        switch (way) {
        case BY_FD:
                bad = fstat(t.fd, &st);
                break;
        case BY_SECOND_FD:
                bad = fstat(t.second, &st);
                break;
        case BY_NAME:
                bad = stat(t.file, &st);
                break;
        case BY_LINK:
                bad = stat(t.link, &st);
                break;
        default:
                bad = write(t.other, &which, 1) != 1 || read(t.other, &st, sizeof st) != sizeof st;
        }
        if (bad)
                die("%s: %m", ways[way]);
        return st;
}

static struct stat look_behind(void)
{
        struct stat st;

        if (stat(t.source, &st) < 0)
                die("%s: stat: %m", t.source);
        return st;
}

static void compare(const char *what, int way, const struct stat *got, const struct stat *want)
{
        if (got->st_size != want->st_size)
                die("%s: %s says size %lld, it is %lld", what, ways[way], (long long)got->st_size,
                    (long long)want->st_size);
        if (got->st_nlink != want->st_nlink || got->st_mode != want->st_mode)
                die("%s: %s says %lu links, mode %o; it is %lu, %o", what, ways[way],
                    (unsigned long)got->st_nlink, got->st_mode, (unsigned long)want->st_nlink,
                    want->st_mode);
        if (got->st_blocks != want->st_blocks)
                die("%s: %s says %lld blocks, it is %lld", what, ways[way],
                    (long long)got->st_blocks, (long long)want->st_blocks);
        if (compare_times(&got->st_mtim, &want->st_mtim) != 0)
                die("%s: %s says mtime %lld.%09ld, it is %lld.%09ld", what, ways[way],
                    (long long)got->st_mtim.tv_sec, got->st_mtim.tv_nsec,
                    (long long)want->st_mtim.tv_sec, want->st_mtim.tv_nsec);
        if (compare_times(&got->st_ctim, &want->st_ctim) != 0)
                die("%s: %s says ctime %lld.%09ld, it is %lld.%09ld", what, ways[way],
                    (long long)got->st_ctim.tv_sec, got->st_ctim.tv_nsec,
                    (long long)want->st_ctim.tv_sec, want->st_ctim.tv_nsec);
        t.compared++;
}

/* --- the changes */

static int by_write(void)
{
        return lseek(t.fd, 0, SEEK_SET) < 0 || write(t.fd, t.buf, 100) != 100;
}

static int by_pwrite_further(void)
{
        struct stat st = look(BY_FD);

        return pwrite(t.fd, t.buf, 3000, st.st_size + 5000) != 3000;
}

static int by_pwritev(void)
{
        struct iovec iov[2] = {{t.buf, 10}, {t.buf + 10, 20}};

        return pwritev(t.fd, iov, 2, 7) != 30;
}

static int by_append(void)
{
        return write(t.append, t.buf, 321) != 321;
}

static int by_direct(void)
{
        int fd = open(t.file, O_RDWR | O_DIRECT | O_CLOEXEC);
        bool bad;

        if (fd < 0)
                return errno == EINVAL ? -1 : 1;
        bad = pwrite(fd, t.buf, BLOCK, 20 * BLOCK) != BLOCK;
        return close(fd) || bad;
}

static int by_ftruncate_less(void)
{
        return ftruncate(t.fd, 5000);
}

static int by_ftruncate_more(void)
{
        return ftruncate(t.fd, 70000);
}

static int by_truncate(void)
{
        return truncate(t.link, 12345);
}

static int by_open_trunc(void)
{
        int fd = open(t.link, O_WRONLY | O_TRUNC | O_CLOEXEC);

        return fd < 0 || close(fd);
}

static int by_sendfile(void)
{
        int in = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
        off_t at = 0;
        bool bad =
                in < 0 || lseek(t.fd, 4000, SEEK_SET) < 0 || sendfile(t.fd, in, &at, 9000) != 9000;

        return close(in) || bad;
}

static int by_copy(void)
{
        off_t from = 0, to = 100000;

        return copy_file_range(t.second, &from, t.fd, &to, 4000, 0) != 4000;
}

static int allocate(int mode, off_t offset, off_t len)
{
        if (fallocate(t.fd, mode, offset, len) == 0)
                return 0;
        return errno == EOPNOTSUPP ? -1 : 1;
}

static int by_fallocate(void)
{
        return allocate(0, 0, 200000);
}

static int by_fallocate_keep(void)
{
        return allocate(FALLOC_FL_KEEP_SIZE, 300000, 100000);
}

static int by_punch(void)
{
        return allocate(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, 50000);
}

static int by_zero_range(void)
{
        return allocate(FALLOC_FL_ZERO_RANGE, 150000, 200000);
}

/* mtime: the change must give the file a new one.  (What fallocate does to it is the file system's
 * affair.) */
static const struct {
        const char *name;
        int (*change)(void); /* 0 done, -1 not on this file system, else failed */
        bool mtime;
} changes[] = {
        {"write", by_write, true},
        {"pwrite behind the end", by_pwrite_further, true},
        {"pwritev", by_pwritev, true},
        {"append", by_append, true},
        {"write with O_DIRECT", by_direct, true},
        {"ftruncate, shorter", by_ftruncate_less, true},
        {"ftruncate, longer", by_ftruncate_more, true},
        {"truncate of the hard link", by_truncate, true},
        {"sendfile", by_sendfile, true},
        {"copy_file_range", by_copy, true},
        {"fallocate", by_fallocate, false},
        {"fallocate KEEP_SIZE", by_fallocate_keep, false},
        {"fallocate PUNCH_HOLE", by_punch, false},
        {"fallocate ZERO_RANGE", by_zero_range, false},
        {"open with O_TRUNC", by_open_trunc, true},
};
#define N_CHANGES (sizeof changes / sizeof *changes)

static void set_long_ago(void)
{
        struct timespec times[2] = {{LONG_AGO, 0}, {LONG_AGO, 0}};

        if (futimens(t.fd, times) < 0)
                die("futimens: %m");
}

/* Who is asked this way has to say what SOURCE says.  SOURCE's blocks and ctime can change when the
 * file system writes back: then once more. */
static struct stat compare_one(const char *what, int way)
{
        struct stat before, got, after;

        do {
                before = look_behind();
                got = look(way);
                after = look_behind();
        } while (before.st_blocks != after.st_blocks ||
                 compare_times(&before.st_ctim, &after.st_ctim) != 0);
        compare(what, way, &got, t.spoiling ? &t.spoilt : &before);
        return got;
}

static void compare_all(const char *what)
{
        for (int way = 0; way < N_WAYS; way++)
                compare_one(what, way);
}

static void one_change(size_t i, int first)
{
        struct timespec begin, end;
        struct stat st;
        int got;

        set_long_ago();
        compare_all("before");
        t.spoilt = look_behind();
        t.spoiling = t.spoil;
        clock_gettime(CLOCK_REALTIME_COARSE, &begin);
        got = changes[i].change();
        clock_gettime(CLOCK_REALTIME, &end);
        if (got < 0) {
                printf("SKIP %s: not on this file system\n", changes[i].name);
                return;
        }
        if (got)
                die("%s: %m", changes[i].name);
        st = compare_one(changes[i].name, first);
        if (changes[i].mtime &&
            (compare_times(&st.st_mtim, &begin) < 0 || compare_times(&st.st_mtim, &end) > 0))
                die("%s: mtime is %lld.%09ld", changes[i].name, (long long)st.st_mtim.tv_sec,
                    st.st_mtim.tv_nsec);
        compare_all(changes[i].name);
}

/* relatime: an access time that is older than the modification time follows the read. */
static void one_read(bool by_map)
{
        const char *what = by_map ? "load from a mapping" : "read";
        struct timespec times[2] = {{LONG_AGO, 0}, {LONG_AGO + 100, 0}};
        struct stat got, want;
        char byte;

        if (futimens(t.fd, times) < 0)
                die("futimens: %m");
        compare_all("before");
        if (by_map) {
                volatile char *p = mmap(NULL, BLOCK, PROT_READ, MAP_SHARED, t.read_only, 0);

                if (p == MAP_FAILED)
                        die("mmap: %m");
                byte = *p;
                munmap((void *)p, BLOCK);
        } else if (pread(t.read_only, &byte, 1, 0) != 1) {
                die("read: %m");
        }
        for (int way = 0; way < N_WAYS; way++) {
                got = look(way);
                want = look_behind();
                if (compare_times(&got.st_atim, &want.st_atim) != 0)
                        die("%s: %s says atime %lld.%09ld, it is %lld.%09ld", what, ways[way],
                            (long long)got.st_atim.tv_sec, got.st_atim.tv_nsec,
                            (long long)want.st_atim.tv_sec, want.st_atim.tv_nsec);
        }
        printf("atime after a %s: %s\n", what,
               got.st_atim.tv_sec == LONG_AGO ? "as before" : "new");
        if (!t.cached && t.atimes && got.st_atim.tv_sec == LONG_AGO)
                die("%s: the access time has not changed", what);
}

/* Does a read behind the mount change an access time? */
static bool has_atimes(void)
{
        struct timespec times[2] = {{LONG_AGO, 0}, {LONG_AGO + 100, 0}};
        int fd = open(t.source, O_RDONLY | O_CLOEXEC);
        bool changed;
        char byte;

        if (fd < 0 || futimens(fd, times) < 0 || pread(fd, &byte, 1, 0) != 1)
                die("%s: %m", t.source);
        changed = look_behind().st_atim.tv_sec != LONG_AGO;
        if (!changed)
                printf("SKIP atime: SOURCE is mounted with noatime\n");
        close(fd);
        return changed;
}

/* Stores, msyncs, and asks until the time is new.  The mapping is there before, because the kernel
 * asks anew after mmap. */
static void one_store(int way)
{
        struct timespec begin;
        double start, delay;
        struct stat st;
        char *p;

        p = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, t.fd, 0);
        if (p == MAP_FAILED)
                die("mmap: %m");
        set_long_ago();
        compare_all("before");
        clock_gettime(CLOCK_REALTIME_COARSE, &begin);
        p[17]++;
        if (msync(p, BLOCK, MS_SYNC) < 0)
                die("msync: %m");
        start = now();
        while (st = look(way), delay = now() - start, compare_times(&st.st_mtim, &begin) < 0) {
                if (delay > t.limit)
                        die("mtime after a store and msync: %s says %lld after %.2f s; SOURCE says "
                            "%lld",
                            ways[way], (long long)st.st_mtim.tv_sec, delay,
                            (long long)look_behind().st_mtim.tv_sec);
                usleep(1000);
        }
        printf("mtime after a store and msync: %s has it after %.3f s\n", ways[way], delay);
        munmap(p, BLOCK);
}

static int open_or_die(const char *path, int flags)
{
        int fd = open(path, flags | O_CLOEXEC, 0600);

        if (fd < 0)
                die("%s: open: %m", path);
        return fd;
}

static void parse(int argc, char **argv)
{
        const char *v;

        for (int i = 1; i < argc; i++) {
                if ((v = option_value(argv[i], "--limit")))
                        t.limit = strtod(v, NULL);
                else if (strcmp(argv[i], "--cached") == 0)
                        t.cached = true;
                else if (strcmp(argv[i], "--spoil") == 0)
                        t.spoil = true;
                else if (!t.file)
                        t.file = argv[i];
                else if (!t.source)
                        t.source = argv[i];
                else
                        die("what is %s?", argv[i]);
        }
        if (!t.source)
                die("a file, and the file behind it");
        snprintf(t.link, sizeof t.link, "%s.link", t.file);
}

/* The other process begins before any file is open. */
static void start_the_other(void)
{
        int sockets[2];

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
                die("socketpair: %m");
        switch (fork()) {
        case -1:
                die("fork: %m");
        case 0:
                close(sockets[0]);
                answer(sockets[1]);
        default:
                close(sockets[1]);
                t.other = sockets[0];
        }
}

int main(int argc, char **argv)
{
        parse(argc, argv);
        start_the_other();
        if (posix_memalign((void **)&t.buf, BLOCK, 2 * BLOCK))
                die("no memory");
        memset(t.buf, 'x', 2 * BLOCK);
        t.fd = open_or_die(t.file, O_RDWR | O_CREAT | O_EXCL);
        if (link(t.file, t.link) < 0)
                die("link: %m");
        t.second = open_or_die(t.link, O_RDONLY);
        t.read_only = open_or_die(t.file, O_RDONLY);
        t.append = open_or_die(t.file, O_WRONLY | O_APPEND);
        if (write(t.fd, t.buf, BLOCK) != BLOCK)
                die("write: %m");
        compare_all("the beginning");
        for (size_t i = 0; i < N_CHANGES; i++)
                for (int first = 0; first < N_WAYS; first++)
                        one_change(i, first);
        if (t.spoil)
                die("nobody has seen the wrong size");
        if (write(t.append, t.buf, 2 * BLOCK) != 2 * BLOCK)
                die("append: %m");
        t.atimes = has_atimes();
        one_read(false);
        one_read(true);
        one_store(OTHERS_NAME);
        printf("%u comparisons\n", t.compared);
        if (unlink(t.file) < 0 || unlink(t.link) < 0)
                die("unlink: %m");
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * read and write in all their forms, append, offsets shared and not, O_DIRECT, and which times they
 * change.
 */
#include "parity.h"

#include <sys/uio.h>
#include <sys/xattr.h>

static char big[1 << 20];

void group_read(struct run *r)
{
        static const struct {
                size_t n;
                off_t at;
        } reads[] = {{0, 0},        {1, 0},       {10, 5},          {4096, 0},
                     {4096, 4096},  {4097, 4095}, {100, 99990},     {100, 100000},
                     {100, 200000}, {1 << 20, 0}, {65536, 1},       {131072, 12345},
                     {1, 99999},    {100, -1},    {100, INT64_MAX}, {100, INT64_MAX - 100}};
        char buffer[64];
        size_t i;
        ssize_t n;
        int fd, wr, dir;

        put_n(r, "file", 100000);
        put(r, "empty", "");
        SET(r, mkdir("dir", 0755));
        fd = FD(r, open("file", O_RDONLY | O_CLOEXEC), "open");
        wr = open("file", O_WRONLY | O_CLOEXEC);
        dir = open("dir", O_RDONLY | O_CLOEXEC);
        for (i = 0; i < N_ELEMENTS(reads); i++) {
                n = SAY(r, pread(fd, big, reads[i].n, reads[i].at), "pread %zu at %lld", reads[i].n,
                        (long long)reads[i].at);
                rec_data(r, big, n);
        }
        n = SAY(r, read(fd, buffer, 10), "read 10");
        rec_data(r, buffer, n);
        n = SAY(r, read(fd, buffer, 10), "read the next 10");
        rec_data(r, buffer, n);
        SAY(r, lseek(fd, 0, SEEK_CUR), "offset after it");
        SAY(r, lseek(fd, -5, SEEK_END), "seek to 5 before the end");
        n = SAY(r, read(fd, buffer, 10), "read across the end");
        rec_data(r, buffer, n);
        SAY(r, read(fd, buffer, 10), "read at the end");
        SAY(r, lseek(fd, 1000, SEEK_END), "seek behind the end");
        SAY(r, read(fd, buffer, 10), "read behind the end");
        SAY(r, lseek(fd, 0, SEEK_SET), "rewind");
        SAY(r, read(fd, bad_address(), 10), "read to a bad address");
        SAY(r, lseek(fd, 0, SEEK_CUR), "offset after the bad address");
        SAY(r, read(fd, bad_address(), 0), "read nothing to a bad address");
        SAY(r, read(wr, buffer, 10), "read of O_WRONLY");
        SAY(r, pread(wr, buffer, 10, 0), "pread of O_WRONLY");
        SAY(r, read(dir, buffer, 10), "read of a directory");
        SAY(r, pread(dir, buffer, 10, 0), "pread of a directory");
        SAY(r, read(77, buffer, 10), "read of no descriptor");
        close(fd);
        fd = open("empty", O_RDONLY | O_CLOEXEC);
        SAY(r, read(fd, buffer, 10), "read of an empty file");
        SAY(r, pread(fd, buffer, 10, 10), "pread behind an empty file");
        put(r, "empty", "not any more");
        n = SAY(r, read(fd, buffer, 20), "read what another descriptor wrote");
        rec_data(r, buffer, n);
        SAY(r, posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), "fadvise");
        SAY(r, posix_fadvise(fd, 0, -1, POSIX_FADV_DONTNEED), "fadvise negative");
        SAY(r, posix_fadvise(fd, 0, 0, 99), "fadvise unknown");
        SAY(r, readahead(fd, 0, 4096), "readahead");
        SAY(r, readahead(wr, 0, 4096), "readahead of O_WRONLY");
}

void group_write(struct run *r)
{
        static const struct {
                size_t n;
                off_t at;
        } writes[] = {
                {10, 0},         {1, 4095},           {4096, 4096},        {4097, 1},    {0, 99999},
                {100, 50000},    {1, 199999},         {65536, 333},        {1 << 20, 7}, {10, -1},
                {10, INT64_MAX}, {10, INT64_MAX - 5}, {10, (off_t)1 << 62}};
        size_t i;
        int fd, ro, dir;

        SET(r, mkdir("dir", 0755));
        fd = FD(r, open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0644), "create");
        ro = open("file", O_RDONLY | O_CLOEXEC);
        dir = open("dir", O_RDONLY | O_CLOEXEC);
        for (i = 0; i < N_ELEMENTS(writes); i++) {
                pattern(big, writes[i].n, i * 1000);
                SAY(r, pwrite(fd, big, writes[i].n, writes[i].at), "pwrite %zu at %lld",
                    writes[i].n, (long long)writes[i].at);
                rec_fstat(r, fd);
                rec_file(r, "file");
        }
        SAY(r, lseek(fd, 0, SEEK_CUR), "offset after pwrite");
        SAY(r, ftruncate(fd, 0), "ftruncate 0");
        SAY(r, write(fd, "one", 3), "write one");
        SAY(r, write(fd, "two", 3), "write two");
        SAY(r, lseek(fd, 0, SEEK_CUR), "offset after both");
        rec_file(r, "file");
        SAY(r, write(fd, "", 0), "write nothing");
        SAY(r, write(fd, bad_address(), 10), "write from a bad address");
        rec_fstat(r, fd);
        SAY(r, write(fd, bad_address(), 0), "write nothing from a bad address");
        SAY(r, write(ro, "x", 1), "write to O_RDONLY");
        SAY(r, pwrite(ro, "x", 1, 0), "pwrite to O_RDONLY");
        SAY(r, write(dir, "x", 1), "write to a directory");
        SAY(r, lseek(fd, 100, SEEK_END), "seek behind the end");
        SAY(r, write(fd, "far", 3), "write behind the end");
        rec_fstat(r, fd);
        rec_file(r, "file");
        close(ro);
        ro = FD(r, open("file", O_WRONLY | O_TRUNC | O_CLOEXEC), "truncate by open");
        rec_fstat(r, fd);
        SAY(r, write(fd, "behind", 6), "write at an offset behind the new end");
        rec_fstat(r, fd);
        rec_file(r, "file");
        close(fd);
        fd = FD(r, open("sync", O_RDWR | O_CREAT | O_SYNC | O_CLOEXEC, 0644), "create O_SYNC");
        SAY(r, write(fd, "synced", 6), "write O_SYNC");
        close(fd);
        fd = FD(r, open("sync", O_RDWR | O_DSYNC | O_CLOEXEC, 0644), "open O_DSYNC");
        SAY(r, write(fd, "SY", 2), "write O_DSYNC");
        rec_file(r, "sync");
}

void group_append(struct run *r)
{
        int one = FD(r, open("file", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644), "open one");
        int two = FD(r, open("file", O_RDWR | O_APPEND | O_CLOEXEC), "open two");
        int plain = FD(r, open("file", O_RDWR | O_CLOEXEC), "open plainly");
        int copy = dup(one);
        char buffer[64];
        int i;

        SAY(r, write(one, "1111", 4), "append by one");
        SAY(r, lseek(one, 0, SEEK_CUR), "offset of one");
        SAY(r, write(two, "2222", 4), "append by two");
        SAY(r, lseek(two, 0, SEEK_CUR), "offset of two");
        SAY(r, lseek(one, 0, SEEK_SET), "seek one to 0");
        SAY(r, write(one, "33", 2), "append by one all the same");
        SAY(r, lseek(one, 0, SEEK_CUR), "offset of one after it");
        rec_file(r, "file");
        SAY(r, pwrite(one, "44", 2, 0), "pwrite at 0 appends");
        SAY(r, lseek(one, 0, SEEK_CUR), "offset of one after pwrite");
        rec_file(r, "file");
        SAY(r, write(plain, "P", 1), "plain write at 0");
        rec_file(r, "file");
        SAY(r, fcntl(plain, F_SETFL, O_APPEND), "F_SETFL O_APPEND");
        rec(r, "flags %o", fcntl(plain, F_GETFL));
        SAY(r, write(plain, "55", 2), "write after F_SETFL O_APPEND");
        rec_file(r, "file");
        SAY(r, fcntl(plain, F_SETFL, 0), "F_SETFL without O_APPEND");
        rec(r, "flags %o", fcntl(plain, F_GETFL));
        SAY(r, pwrite(plain, "66", 2, 1), "pwrite after F_SETFL 0");
        rec_file(r, "file");
        SAY(r, fcntl(copy, F_SETFL, 0), "O_APPEND off by the dup");
        rec(r, "flags %o", fcntl(one, F_GETFL));
        SAY(r, pwrite(one, "7", 1, 0), "pwrite by the other copy");
        rec_file(r, "file");
        SAY(r, fcntl(copy, F_SETFL, O_APPEND | O_NONBLOCK), "O_APPEND and O_NONBLOCK by the dup");
        rec(r, "flags %o", fcntl(one, F_GETFL));
        SAY(r, pwrite(one, "8", 1, 0), "appends again");
        rec_file(r, "file");
        SAY(r, lseek(two, 0, SEEK_SET), "read by two: rewind");
        rec_data(r, buffer, SAY(r, read(two, buffer, 6), "read by two"));
        SAY(r, write(two, "99", 2), "append by two after reading");
        SAY(r, lseek(two, 0, SEEK_CUR), "offset of two at the end");
        SAY(r, ftruncate(one, 3), "truncate below the append");
        SAY(r, write(one, "A", 1), "append after truncate");
        rec_file(r, "file");
        for (i = 0; i < 200; i++) {
                SET(r, write(i % 2 ? one : two, "0123456789abcdef", (size_t)(i % 16) + 1));
        }
        step(r, "200 appends in turn");
        rec_file(r, "file");
        rec_fstat(r, plain);
}

void group_vectors(struct run *r)
{
        static const struct {
                const char *name;
                int flag;
        } rwf[] = {{"none", 0},        {"HIPRI", 1},        {"DSYNC", 2},     {"SYNC", 4},
                   {"NOWAIT", 8},      {"APPEND", 16},      {"NOAPPEND", 32}, {"ATOMIC", 64},
                   {"DONTCACHE", 128}, {"unknown", 1 << 20}};
        static volatile int minus_one = -1; /* or the compiler warns */
        static struct iovec many[1025];
        char a[10], b[20], c[30];
        struct iovec three[3] = {{a, sizeof a}, {b, sizeof b}, {c, sizeof c}};
        struct iovec odd[3] = {{a, sizeof a}, {NULL, 0}, {bad_address(), 5}};
        size_t i;
        int fd;

        for (i = 0; i < N_ELEMENTS(many); i++)
                many[i] = (struct iovec){big + i, 1};
        pattern(a, sizeof a, 0);
        pattern(b, sizeof b, 10);
        pattern(c, sizeof c, 30);
        fd = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        SAY(r, writev(fd, three, 3), "writev");
        SAY(r, pwritev(fd, three, 3, 100), "pwritev at 100");
        rec_file(r, "file");
        SAY(r, pwritev(fd, three, 3, -1), "pwritev at -1");
        SAY(r, writev(fd, three, 0), "writev of no vectors");
        SAY(r, writev(fd, three, minus_one), "writev of -1 vectors");
        SAY(r, writev(fd, many, 1024), "writev of 1024 vectors");
        SAY(r, writev(fd, many, 1025), "writev of 1025 vectors");
        SAY(r, writev(fd, odd, 3), "writev with a bad address last");
        rec_fstat(r, fd);
        memset(a, 0, sizeof a);
        memset(b, 0, sizeof b);
        memset(c, 0, sizeof c);
        SET(r, lseek(fd, 0, SEEK_SET));
        SAY(r, readv(fd, three, 3), "readv");
        rec_data(r, a, sizeof a);
        rec_data(r, c, sizeof c);
        SAY(r, preadv(fd, three, 3, 95), "preadv at 95");
        rec_data(r, b, sizeof b);
        SET(r, lseek(fd, 0, SEEK_SET));
        SAY(r, readv(fd, odd, 3), "readv with a bad address last");
        SAY(r, lseek(fd, 0, SEEK_CUR), "offset after it");
        for (i = 0; i < N_ELEMENTS(rwf); i++) {
                pattern(a, sizeof a, 0);
                pattern(b, sizeof b, 10);
                pattern(c, sizeof c, 30);
                put_n(r, "file", 1000);
                SET(r, lseek(fd, 3, SEEK_SET));
                SAY(r, preadv2(fd, three, 3, 0, rwf[i].flag), "preadv2 RWF_%s", rwf[i].name);
                SAY(r, preadv2(fd, three, 3, -1, rwf[i].flag), "preadv2 here RWF_%s", rwf[i].name);
                rec(r, "offset %ld", (long)lseek(fd, 0, SEEK_CUR));
                SET(r, lseek(fd, 3, SEEK_SET));
                SAY(r, pwritev2(fd, three, 3, 5, rwf[i].flag), "pwritev2 RWF_%s", rwf[i].name);
                rec_file(r, "file");
                SET(r, lseek(fd, 3, SEEK_SET));
                SAY(r, pwritev2(fd, three, 3, -1, rwf[i].flag), "pwritev2 here RWF_%s",
                    rwf[i].name);
                rec(r, "offset %ld", (long)lseek(fd, 0, SEEK_CUR));
                rec_file(r, "file");
                SET(r, fcntl(fd, F_SETFL, O_APPEND));
                SAY(r, pwritev2(fd, three, 1, 2, rwf[i].flag), "appending pwritev2 RWF_%s",
                    rwf[i].name);
                rec_file(r, "file");
                SET(r, fcntl(fd, F_SETFL, 0));
        }
}

void group_direct(struct run *r)
{
        static const struct {
                size_t n;
                off_t at;
                size_t shift; /* of the buffer, from alignment */
        } io[] = {{4096, 0, 0}, {8192, 4096, 0}, {512, 512, 0},    {100, 0, 0}, {4096, 100, 0},
                  {4096, 0, 1}, {4096, 8192, 0}, {4096, 12288, 0}, {0, 0, 0}};
        char *buffer;
        size_t i;
        int fd;

        if (posix_memalign((void **)&buffer, 4096, 65536) != 0)
                abort();
        put_n(r, "file", 10000);
        fd = FD(r, open("file", O_RDWR | O_DIRECT | O_CLOEXEC), "open");
        if (fd < 0)
                return;
        for (i = 0; i < N_ELEMENTS(io); i++) {
                rec_data(r, buffer + io[i].shift,
                         SAY(r, pread(fd, buffer + io[i].shift, io[i].n, io[i].at),
                             "pread %zu at %lld, shifted %zu", io[i].n, (long long)io[i].at,
                             io[i].shift));
        }
        for (i = 0; i < N_ELEMENTS(io); i++) {
                put_n(r, "file", 10000);
                pattern(buffer, 16384, i * 777);
                SAY(r, pwrite(fd, buffer + io[i].shift, io[i].n, io[i].at),
                    "pwrite %zu at %lld, shifted %zu", io[i].n, (long long)io[i].at, io[i].shift);
                rec_file(r, "file");
        }
        put_n(r, "file", 10000);
        SAY(r, fcntl(fd, F_SETFL, 0), "F_SETFL without O_DIRECT");
        rec(r, "flags %o", fcntl(fd, F_GETFL));
        SAY(r, pwrite(fd, "plain", 5, 3), "pwrite after it");
        rec_file(r, "file");
        SAY(r, fcntl(fd, F_SETFL, O_DIRECT), "F_SETFL O_DIRECT");
        rec(r, "flags %o", fcntl(fd, F_GETFL));
        SAY(r, pread(fd, buffer, 4096, 0), "pread after it");
        rec_data(r, buffer, 4096);
        free(buffer);
}

static void read_three(struct run *r, void *data)
{
        char buffer[3];

        SAY(r, read(*(int *)data, buffer, sizeof buffer), "the child reads 3");
        rec_data(r, buffer, sizeof buffer);
}

void group_offsets(struct run *r)
{
        static const struct {
                off_t at;
                int whence;
        } seeks[] = {{0, SEEK_SET},
                     {5, SEEK_SET},
                     {-1, SEEK_SET},
                     {10, SEEK_CUR},
                     {-100, SEEK_CUR},
                     {0, SEEK_END},
                     {-3, SEEK_END},
                     {-11, SEEK_END},
                     {INT64_MAX, SEEK_SET},
                     {1, SEEK_CUR},
                     {(off_t)1 << 50, SEEK_SET},
                     {INT64_MAX, SEEK_END},
                     {0, 5},
                     {0, 99},
                     {0, -1}};
        char buffer[16];
        size_t i;
        int fd, copy, other, dir;

        put(r, "file", "0123456789");
        fd = open("file", O_RDONLY | O_CLOEXEC);
        for (i = 0; i < N_ELEMENTS(seeks); i++) {
                SET(r, lseek(fd, 7, SEEK_SET));
                SAY(r, lseek(fd, seeks[i].at, seeks[i].whence), "lseek %lld, %d",
                    (long long)seeks[i].at, seeks[i].whence);
                rec(r, "now %lld", (long long)lseek(fd, 0, SEEK_CUR));
        }
        dir = open(".", O_RDONLY | O_CLOEXEC);
        SAY(r, lseek(dir, 0, SEEK_SET), "lseek of a directory");
        SAY(r, lseek(dir, -1, SEEK_SET), "lseek of a directory to -1");
        copy = dup(fd);
        other = open("file", O_RDONLY | O_CLOEXEC);
        SAY(r, lseek(fd, 2, SEEK_SET), "seek to 2");
        SAY(r, lseek(copy, 0, SEEK_CUR), "the copy's offset");
        SAY(r, lseek(other, 0, SEEK_CUR), "another open's offset");
        rec_data(r, buffer, SAY(r, read(copy, buffer, 2), "the copy reads 2"));
        rec_data(r, buffer, SAY(r, read(fd, buffer, 2), "the original reads 2"));
        STATUS(r, in_child(r, read_three, &fd), "a child");
        SAY(r, lseek(fd, 0, SEEK_CUR), "the offset after the child");
}

void group_times(struct run *r)
{
        struct remembered t;
        char buffer[16];
        int fd = SET(r, open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0644));

#define TIMED(path, call, ...)                                                                     \
        do {                                                                                       \
                t = remember(path);                                                                \
                SAY(r, call, __VA_ARGS__);                                                         \
                rec_changes(r, &t, path);                                                          \
        } while (0)
        TIMED("file", write(fd, "0123456789", 10), "write");
        TIMED("file", write(fd, "", 0), "write nothing");
        TIMED("file", pread(fd, buffer, 4, 0), "first read");
        TIMED("file", pread(fd, buffer, 4, 0), "second read");
        TIMED("file", pread(fd, buffer, 4, 100), "read behind the end");
        TIMED("file", pwrite(fd, "x", 1, 0), "pwrite");
        TIMED("file", ftruncate(fd, 10), "ftruncate to the same size");
        TIMED("file", truncate("file", 10), "truncate to the same size");
        TIMED("file", ftruncate(fd, 5), "ftruncate down");
        TIMED("file", ftruncate(fd, 50), "ftruncate up");
        TIMED("file", fchmod(fd, 0644), "fchmod to the same mode");
        TIMED("file", fchmod(fd, 0600), "fchmod");
        TIMED("file", fchown(fd, (uid_t)-1, (gid_t)-1), "fchown to nobody");
        TIMED("file", fchown(fd, geteuid(), getegid()), "fchown to ourselves");
        TIMED("file", link("file", "other"), "link");
        TIMED(".", unlink("other"), "unlink, of the directory");
        TIMED("file", rename("file", "renamed"), "rename away");
        TIMED("renamed", rename("renamed", "file"), "rename, of the file");
        TIMED(".", rename("file", "renamed"), "rename, of the directory");
        TIMED("renamed", close(open("renamed", O_RDONLY | O_CLOEXEC)), "open and close");
        TIMED("renamed", close(open("renamed", O_WRONLY | O_TRUNC | O_CLOEXEC)), "open O_TRUNC");
        TIMED("renamed", close(open("renamed", O_WRONLY | O_TRUNC | O_CLOEXEC)),
              "O_TRUNC of an empty file");
        TIMED("renamed", close(open("renamed", O_WRONLY | O_CREAT | O_CLOEXEC, 0600)),
              "open O_CREAT");
        TIMED(".", close(open("new", O_WRONLY | O_CREAT | O_CLOEXEC, 0600)),
              "create, of the directory");
        TIMED(".", mkdir("dir", 0755), "mkdir, of the directory");
        TIMED("dir", mkdir("dir/in", 0755), "mkdir in it");
        TIMED("dir", mkdir("dir/in", 0755), "mkdir that fails");
        TIMED("dir", rmdir("dir/in"), "rmdir in it");
        TIMED(".", symlink("x", "link"), "symlink, of the directory");
        TIMED("link", readlink("link", buffer, sizeof buffer), "readlink");
        TIMED(".", mkfifo("fifo", 0600), "mkfifo, of the directory");
        TIMED("renamed", setxattr("renamed", "user.x", "y", 1, 0), "setxattr");
        TIMED(".", chmod(".", 0755), "chmod of the directory");
        TIMED("renamed", fallocate(fd, 0, 0, 100), "fallocate");
        TIMED("renamed", fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 20000), "fallocate KEEP_SIZE");
        TIMED("renamed", fsync(fd), "fsync");
        TIMED("renamed", access("renamed", R_OK), "access");
        step(r, "reading the directory");
        t = remember("dir");
        rec_listing(r, "dir");
        rec_changes(r, &t, "dir");
#undef TIMED
}

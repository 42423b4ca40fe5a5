/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What changes the size and the blocks of a file: truncate, fallocate, holes, copying in the
 * kernel, limits.
 */
#include "parity.h"

#include <linux/falloc.h>
#include <sys/resource.h>
#include <sys/sendfile.h>

void group_truncate(struct run *r)
{
        static const off_t sizes[] = {0,  1,    4095, 4096,      4097,      100000,         10,
                                      12, 5000, -1,   INT64_MIN, INT64_MAX, (off_t)1 << 50, 3};
        static const char *const others[] = {"dir",  "absent", "link", "dangling",
                                             "fifo", "file/x", ""};
        size_t i;
        int fd, ro, dir, path;

        put_n(r, "file", 9000);
        SET(r, mkdir("dir", 0755));
        SET(r, symlink("file", "link"));
        SET(r, symlink("nowhere", "dangling"));
        SET(r, mkfifo("fifo", 0644));
        for (i = 0; i < N_ELEMENTS(sizes); i++) {
                SAY(r, truncate("file", sizes[i]), "truncate %lld", (long long)sizes[i]);
                rec_lstat(r, "file");
                rec_file(r, "file");
        }
        put_n(r, "file", 9000);
        fd = open("file", O_RDWR | O_CLOEXEC);
        for (i = 0; i < N_ELEMENTS(sizes); i++) {
                SAY(r, ftruncate(fd, sizes[i]), "ftruncate %lld", (long long)sizes[i]);
                rec_fstat(r, fd);
                rec_blocks(r, fd);
                rec_file(r, "file");
        }
        for (i = 0; i < N_ELEMENTS(others); i++)
                SAY(r, truncate(others[i], 5), "truncate of '%s'", others[i]);
        rec_file(r, "file");
        ro = open("file", O_RDONLY | O_CLOEXEC);
        dir = open("dir", O_RDONLY | O_CLOEXEC);
        path = open("file", O_PATH | O_CLOEXEC);
        SAY(r, ftruncate(ro, 1), "ftruncate of O_RDONLY");
        SAY(r, ftruncate(dir, 1), "ftruncate of a directory");
        SAY(r, ftruncate(path, 1), "ftruncate of O_PATH");
        SET(r, chmod("file", 0444));
        SAY(r, truncate("file", 2), "truncate of a read-only file");
        SAY(r, ftruncate(fd, 2), "ftruncate of a read-only file opened before");
        rec_fstat(r, fd);
        rec_blocks(r, fd);
        SET(r, unlink("file"));
        SAY(r, ftruncate(fd, 77), "ftruncate of an unlinked file");
        rec_fstat(r, fd);
        rec_blocks(r, fd);
        put_n(r, "file", 9000);
        fd = open("file", O_RDWR | O_CLOEXEC);
        SAY(r, ftruncate(fd, 100), "down to 100");
        SAY(r, ftruncate(fd, 9000), "and up: zeroes, not old data");
        rec_file(r, "file");
        SAY(r, pwrite(fd, "x", 1, 4095), "write in the middle of zeroes");
        SAY(r, ftruncate(fd, 4096), "cut behind it");
        rec_file(r, "file");
}

void group_fallocate(struct run *r)
{
        static const struct {
                const char *name;
                int mode;
        } modes[] = {
                {"plain", 0},
                {"KEEP_SIZE", FALLOC_FL_KEEP_SIZE},
                {"PUNCH_HOLE", FALLOC_FL_PUNCH_HOLE},
                {"PUNCH_HOLE|KEEP_SIZE", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE},
                {"ZERO_RANGE", FALLOC_FL_ZERO_RANGE},
                {"ZERO_RANGE|KEEP_SIZE", FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE},
                {"COLLAPSE_RANGE", FALLOC_FL_COLLAPSE_RANGE},
                {"INSERT_RANGE", FALLOC_FL_INSERT_RANGE},
                {"UNSHARE_RANGE", FALLOC_FL_UNSHARE_RANGE},
                {"NO_HIDE_STALE", 4},
                {"COLLAPSE|INSERT", FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE},
                {"unknown", 0x4000},
        };
        static const struct {
                off_t at, n;
        } ranges[] = {{0, 4096}, {4096, 8192}, {100, 50},     {0, 0},        {-1, 10},
                      {0, -1},   {20000, 100}, {16384, 4096}, {40960, 4096}, {INT64_MAX - 10, 100},
                      {0, 20000}};
        size_t i, k;
        int fd, ro, dir;

        for (i = 0; i < N_ELEMENTS(modes); i++) {
                for (k = 0; k < N_ELEMENTS(ranges); k++) {
                        put_n(r, "file", 20000);
                        fd = SET(r, open("file", O_RDWR | O_CLOEXEC));
                        SET(r, fsync(fd)); /* the same extents on both sides */
                        SAY(r, fallocate(fd, modes[i].mode, ranges[k].at, ranges[k].n),
                            "%s %lld+%lld", modes[i].name, (long long)ranges[k].at,
                            (long long)ranges[k].n);
                        rec_fstat(r, fd);
                        rec_blocks(r, fd);
                        rec_file(r, "file");
                        close(fd);
                        unlink("file");
                }
        }
        put_n(r, "file", 100);
        ro = open("file", O_RDONLY | O_CLOEXEC);
        dir = open(".", O_RDONLY | O_CLOEXEC);
        fd = open("file", O_RDWR | O_APPEND | O_CLOEXEC);
        SAY(r, fallocate(ro, 0, 0, 1000), "of O_RDONLY");
        SAY(r, fallocate(dir, 0, 0, 1000), "of a directory");
        SAY(r, posix_fallocate(fd, 0, 1000), "posix_fallocate");
        rec_fstat(r, fd);
        rec_blocks(r, fd);
        SAY(r, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 50), "punch, O_APPEND");
        rec_file(r, "file");
}

static void seek_all(struct run *r, int fd, const char *what)
{
        static const off_t from[] = {0,     1,     4095,   4096,   8192,   65535, 65536,
                                     65537, 69632, 100000, 131072, 200000, -1};
        size_t i;

        for (i = 0; i < N_ELEMENTS(from); i++) {
                SAY(r, lseek(fd, from[i], SEEK_DATA), "%s: SEEK_DATA from %lld", what,
                    (long long)from[i]);
                SAY(r, lseek(fd, from[i], SEEK_HOLE), "%s: SEEK_HOLE from %lld", what,
                    (long long)from[i]);
        }
        rec(r, "offset %lld", (long long)lseek(fd, 0, SEEK_CUR));
}

void group_holes(struct run *r)
{
        static char page[4096];
        int fd, dir;

        fd = SET(r, open("empty", O_RDWR | O_CREAT | O_CLOEXEC, 0644));
        seek_all(r, fd, "empty");
        close(fd);
        put_n(r, "full", 70000);
        fd = SET(r, open("full", O_RDWR | O_CLOEXEC));
        SET(r, fsync(fd));
        seek_all(r, fd, "full");
        close(fd);
        fd = SET(r, open("sparse", O_RDWR | O_CREAT | O_CLOEXEC, 0644));
        pattern(page, sizeof page, 0);
        SET(r, pwrite(fd, page, sizeof page, 65536));
        SET(r, pwrite(fd, page, sizeof page, 4096));
        SET(r, ftruncate(fd, 131072));
        SET(r, fsync(fd));
        step(r, "sparse");
        rec_fstat(r, fd);
        rec_blocks(r, fd);
        rec_file(r, "sparse");
        seek_all(r, fd, "sparse");
        close(fd);
        fd = SET(r, open("hole", O_RDWR | O_CREAT | O_CLOEXEC, 0644));
        SET(r, ftruncate(fd, 131072));
        seek_all(r, fd, "only a hole");
        close(fd);
        dir = open(".", O_RDONLY | O_CLOEXEC);
        SAY(r, lseek(dir, 0, SEEK_DATA), "SEEK_DATA of a directory");
        fd = open("sparse", O_WRONLY | O_CLOEXEC);
        SAY(r, lseek(fd, 0, SEEK_DATA), "SEEK_DATA of O_WRONLY");
}

void group_copy_range(struct run *r)
{
        static const struct {
                off_t from, to;
                size_t n;
                bool same;
        } copies[] = {{0, 0, 100, false},
                      {50, 200, 100, false},
                      {0, 0, 20000, false},
                      {9990, 0, 100, false},
                      {10000, 0, 100, false},
                      {20000, 0, 100, false},
                      {0, 30000, 4096, false},
                      {0, 0, 0, false},
                      {-1, 0, 10, false},
                      {0, -1, 10, false},
                      {0, 5000, 1000, true},
                      {0, 50, 100, true},
                      {100, 50, 100, true},
                      {0, 0, 10, true},
                      {0, 20000, 100, true},
                      {4096, 8192, 4096, false},
                      {0, INT64_MAX - 5, 100, false}};
        size_t i;
        loff_t from, to;
        int in, out, ro, append, dir;

        put_n(r, "in", 10000);
        in = SET(r, open("in", O_RDWR | O_CLOEXEC));
        for (i = 0; i < N_ELEMENTS(copies); i++) {
                put_n(r, "in", 10000);
                put(r, "out", "previous content");
                out = SET(r, open("out", O_RDWR | O_CLOEXEC));
                from = copies[i].from;
                to = copies[i].to;
                SAY(r, copy_file_range(in, &from, copies[i].same ? in : out, &to, copies[i].n, 0),
                    "%lld to %lld, %zu%s", (long long)from, (long long)to, copies[i].n,
                    copies[i].same ? ", same file" : "");
                rec(r, "now %lld %lld", (long long)from, (long long)to);
                rec_file(r, copies[i].same ? "in" : "out");
                close(out);
        }
        put_n(r, "in", 10000);
        put(r, "out", "previous content");
        out = open("out", O_RDWR | O_CLOEXEC);
        ro = open("out", O_RDONLY | O_CLOEXEC);
        append = open("out", O_WRONLY | O_APPEND | O_CLOEXEC);
        dir = open(".", O_RDONLY | O_CLOEXEC);
        SET(r, lseek(in, 10, SEEK_SET));
        SET(r, lseek(out, 5, SEEK_SET));
        SAY(r, copy_file_range(in, NULL, out, NULL, 30, 0), "by the offsets");
        rec(r, "now %ld %ld", (long)lseek(in, 0, SEEK_CUR), (long)lseek(out, 0, SEEK_CUR));
        rec_file(r, "out");
        SAY(r, copy_file_range(in, NULL, ro, NULL, 30, 0), "to O_RDONLY");
        SAY(r, copy_file_range(append, NULL, out, NULL, 30, 0), "from O_WRONLY");
        SAY(r, copy_file_range(in, NULL, append, NULL, 30, 0), "to O_APPEND");
        SAY(r, copy_file_range(in, NULL, dir, NULL, 30, 0), "to a directory");
        SAY(r, copy_file_range(dir, NULL, out, NULL, 30, 0), "from a directory");
        SAY(r, copy_file_range(in, NULL, out, NULL, 30, 1), "with a flag");
        rec_file(r, "out");
}

void group_sendfile(struct run *r)
{
        char buffer[5000];
        off_t at = 100;
        loff_t from = 50, to = 7;
        int in, out, append, ends[2];

        put_n(r, "in", 10000);
        in = SET(r, open("in", O_RDONLY | O_CLOEXEC));
        out = SET(r, open("out", O_RDWR | O_CREAT | O_CLOEXEC, 0644));
        SAY(r, sendfile(out, in, NULL, 500), "sendfile by the offset");
        rec(r, "now %ld %ld", (long)lseek(in, 0, SEEK_CUR), (long)lseek(out, 0, SEEK_CUR));
        SAY(r, sendfile(out, in, &at, 500), "sendfile from 100");
        rec(r, "now %ld %ld", (long)at, (long)lseek(in, 0, SEEK_CUR));
        rec_file(r, "out");
        at = 9900;
        SAY(r, sendfile(out, in, &at, 500), "sendfile across the end");
        SAY(r, sendfile(out, in, &at, 500), "sendfile at the end");
        rec_file(r, "out");
        append = open("out", O_WRONLY | O_APPEND | O_CLOEXEC);
        SAY(r, sendfile(append, in, NULL, 10), "sendfile to O_APPEND");
        SAY(r, sendfile(in, out, NULL, 10), "sendfile to O_RDONLY");
        SAY(r, sendfile(out, append, NULL, 10), "sendfile from O_WRONLY");
        SET(r, pipe2(ends, O_CLOEXEC));
        SAY(r, sendfile(ends[1], in, NULL, 2000), "sendfile to a pipe");
        rec_data(r, buffer, SAY(r, read(ends[0], buffer, sizeof buffer), "from the pipe"));
        SAY(r, splice(in, &from, ends[1], NULL, 3000, 0), "splice to a pipe");
        rec(r, "now %ld", (long)from);
        SAY(r, splice(ends[0], NULL, out, &to, 3000, 0), "splice from the pipe");
        rec(r, "now %ld", (long)to);
        rec_file(r, "out");
        SAY(r, splice(in, NULL, out, NULL, 10, 0), "splice without a pipe");
        SET(r, write(ends[1], "tail", 4));
        SAY(r, splice(ends[0], NULL, append, NULL, 4, 0), "splice to O_APPEND");
        SAY(r, splice(in, &(loff_t){20000}, ends[1], NULL, 10, SPLICE_F_NONBLOCK),
            "splice behind the end");
}

/* Far above anything that the transcript, a file too, can reach. */
#define LIMIT ((off_t)64 << 20)

static void write_over_limit(struct run *r, void *data)
{
        struct rlimit limit = {LIMIT, LIMIT};
        static char page[8192];
        int fd;

        pattern(page, sizeof page, 0);
        SET(r, setrlimit(RLIMIT_FSIZE, &limit));
        if (data != NULL)
                signal(SIGXFSZ, SIG_IGN);
        fd = SET(r, open("limited", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
        SAY(r, pwrite(fd, page, sizeof page, LIMIT - 5000), "write across the limit");
        rec_fstat(r, fd);
        rec_data(r, page, pread(fd, page, sizeof page, LIMIT - 5000));
        if (data != NULL) {
                SAY(r, ftruncate(fd, LIMIT + 1000), "ftruncate over the limit, ignored");
                SAY(r, ftruncate(fd, LIMIT), "ftruncate to the limit");
                SAY(r, fallocate(fd, 0, LIMIT - 5000, 6000), "fallocate over the limit");
                SAY(r, pwrite(fd, "x", 1, LIMIT - 1), "pwrite below the limit");
                SAY(r, pwrite(fd, "x", 1, LIMIT + 2000), "pwrite over the limit, ignored");
                SAY(r, pwrite(fd, "x", 0, LIMIT + 2000), "pwrite of nothing over the limit");
                SAY(r, copy_file_range(fd, &(loff_t){0}, fd, &(loff_t){LIMIT - 500}, 1000, 0),
                    "copy_file_range across the limit");
                rec_fstat(r, fd);
                return;
        }
        flush_step(r);
        SAY(r, pwrite(fd, "x", 1, LIMIT + 2000), "pwrite over the limit");
}

static void truncate_over_limit(struct run *r, void *data)
{
        struct rlimit limit = {LIMIT, LIMIT};

        put(r, "limited", "x");
        SET(r, setrlimit(RLIMIT_FSIZE, &limit));
        SAY(r, truncate("limited", LIMIT + 1000), "truncate over the limit");
}

void group_limits(struct run *r)
{
        static const off_t far[] = {((off_t)1 << 31) - 1,    (off_t)1 << 32,       (off_t)1 << 43,
                                    ((off_t)1 << 44) - 4097, ((off_t)1 << 44) - 1, (off_t)1 << 44,
                                    (off_t)1 << 60};
        size_t i;
        int fd, status;

        status = in_child(r, write_over_limit, (void *)"ignored");
        step(r, "SIGXFSZ ignored");
        rec_status(r, status);
        status = in_child(r, write_over_limit, NULL);
        step(r, "SIGXFSZ not ignored");
        rec_status(r, status);
        rec_lstat(r, "limited");
        status = in_child(r, truncate_over_limit, NULL);
        step(r, "SIGXFSZ by truncate");
        rec_status(r, status);
        for (i = 0; i < N_ELEMENTS(far); i++) {
                fd = SET(r, open("far", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
                SAY(r, pwrite(fd, "0123456789", 10, far[i]), "pwrite at %lld", (long long)far[i]);
                rec(r, "size %ld", (long)lseek(fd, 0, SEEK_END));
                SAY(r, ftruncate(fd, far[i]), "ftruncate to %lld", (long long)far[i]);
                rec(r, "size %ld", (long)lseek(fd, 0, SEEK_END));
                close(fd);
        }
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is done with a file's bytes.  All but the two that say so are async-signal-safe.  Each
 * operation ends with the offset that the descriptor has afterwards: that is where a child and its
 * parent can see each other.
 */
#include "matrix.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define WHO(cell) ((cell)->child ? "<child>" : "(paren)")

static void do_read(struct cell *cell, int fd, struct out *out)
{
        char buf[8];

        put_bytes(out, "", buf, read(fd, buf, 7));
        put_bytes(out, "then", buf, read(fd, buf, 5));
        put_offset(out, fd);
}

/* A system call of its own is what a preloaded library cannot see. */
static void do_raw_read(struct cell *cell, int fd, struct out *out)
{
        char buf[8];

        put_bytes(out, "", buf, syscall(SYS_read, fd, buf, 7));
        put_number(out, "off", syscall(SYS_lseek, fd, 0L, (long)SEEK_CUR));
}

static void do_readv(struct cell *cell, int fd, struct out *out)
{
        char buf[8];
        struct iovec iov[2] = {{buf, 3}, {buf + 3, 4}};

        put_bytes(out, "", buf, readv(fd, iov, 2));
        put_offset(out, fd);
}

static void do_pread(struct cell *cell, int fd, struct out *out)
{
        char buf[8];

        put_bytes(out, "", buf, pread(fd, buf, 7, 4092));
        put_bytes(out, "at-end", buf, pread(fd, buf, 7, 5997));
        put_bytes(out, "behind", buf, pread(fd, buf, 7, 7000));
        put_offset(out, fd);
}

static void do_preadv(struct cell *cell, int fd, struct out *out)
{
        char buf[8];
        struct iovec iov[2] = {{buf, 1}, {buf + 1, 6}};

        put_bytes(out, "", buf, preadv(fd, iov, 2, 66));
        put_bytes(out, "2", buf, preadv2(fd, iov, 2, -1, 0));
        put_offset(out, fd);
}

static void do_write(struct cell *cell, int fd, struct out *out)
{
        put_result(out, "wrote", write(fd, WHO(cell), 7));
        put_offset(out, fd);
}

static void do_writev(struct cell *cell, int fd, struct out *out)
{
        struct iovec iov[2] = {{(void *)WHO(cell), 7}, {(void *)"++", 2}};

        put_result(out, "wrote", writev(fd, iov, 2));
        put_offset(out, fd);
}

static void do_pwrite(struct cell *cell, int fd, struct out *out)
{
        struct iovec iov = {(void *)WHO(cell), 7};

        put_result(out, "wrote", pwrite(fd, WHO(cell), 7, cell->child ? 4093 : 4097));
        put_result(out, "v", pwritev(fd, &iov, 1, cell->child ? 100 : 103));
        put_offset(out, fd);
}

static void do_append(struct cell *cell, int fd, struct out *out)
{
        put_offset(out, fd);
        put_result(out, "wrote", write(fd, WHO(cell), 7));
        put_offset(out, fd);
        put_result(out, "seek", lseek(fd, 3, SEEK_SET));
        put_result(out, "wrote", write(fd, WHO(cell), 2));
        put_offset(out, fd);
}

static void do_lseek(struct cell *cell, int fd, struct out *out)
{
        put_result(out, "cur", lseek(fd, 5, SEEK_CUR));
        put_result(out, "end", lseek(fd, -3, SEEK_END));
        put_result(out, "data", lseek(fd, 10, SEEK_DATA));
        put_result(out, "hole", lseek(fd, 10, SEEK_HOLE));
        put_result(out, "nxio", lseek(fd, 6000, SEEK_DATA));
        put_result(out, "negative", lseek(fd, -1, SEEK_SET));
        put_result(out, "set", lseek(fd, cell->child ? 1000 : 2000, SEEK_SET));
        put_offset(out, fd);
}

static void map(struct cell *cell, int fd, struct out *out, int protection, int flags)
{
        char *p = mmap(NULL, 8192, protection, flags, fd, 0);

        if (p == MAP_FAILED) {
                put_result(out, "mmap", -1);
                return;
        }
        put_bytes(out, "", p + 4092, 7);
        put_number(out, "behind-end", p[6000]);
        if (protection & PROT_WRITE) {
                char buf[8];
                memcpy(p + (cell->child ? 4090 : 4099), WHO(cell), 7);
                put_result(out, "msync", msync(p, 8192, MS_SYNC));
                put_bytes(out, "seen", buf, pread(fd, buf, 7, cell->child ? 4090 : 4099));
        }
        put_result(out, "munmap", munmap(p, 8192));
        put_offset(out, fd);
}

static void do_mmap(struct cell *cell, int fd, struct out *out)
{
        map(cell, fd, out, PROT_READ, MAP_SHARED);
}

static void do_mmap_write(struct cell *cell, int fd, struct out *out)
{
        map(cell, fd, out, PROT_READ | PROT_WRITE, MAP_SHARED);
}

static void do_mmap_private(struct cell *cell, int fd, struct out *out)
{
        map(cell, fd, out, PROT_READ | PROT_WRITE, MAP_PRIVATE);
}

static void do_poll(struct cell *cell, int fd, struct out *out)
{
        struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
        struct timespec none = {0};

        put_result(out, "poll", poll(&p, 1, 0));
        put_number(out, "revents", p.revents);
        put_result(out, "ppoll", ppoll(&p, 1, &none, NULL));
        put_offset(out, fd);
}

static void through_pipe(int fd, struct out *out, bool by_splice)
{
        char buf[8];
        int ends[2];

        if (pipe2(ends, O_CLOEXEC) < 0) {
                put_result(out, "pipe", -1);
                return;
        }
        if (by_splice)
                put_result(out, "splice", splice(fd, NULL, ends[1], NULL, 7, 0));
        else
                put_result(out, "sendfile", sendfile(ends[1], fd, NULL, 7));
        fcntl(ends[0], F_SETFL, O_NONBLOCK);
        put_bytes(out, "", buf, read(ends[0], buf, 7));
        put_offset(out, fd);
        close(ends[0]);
        close(ends[1]);
}

static void do_sendfile(struct cell *cell, int fd, struct out *out)
{
        through_pipe(fd, out, false);
}

static void do_splice(struct cell *cell, int fd, struct out *out)
{
        through_pipe(fd, out, true);
}

static void do_splice_into(struct cell *cell, int fd, struct out *out)
{
        int ends[2];

        if (pipe2(ends, O_CLOEXEC) < 0 || write(ends[1], WHO(cell), 7) != 7) {
                put_result(out, "pipe", -1);
                return;
        }
        put_result(out, "splice", splice(ends[0], NULL, fd, NULL, 7, 0));
        put_offset(out, fd);
        close(ends[0]);
        close(ends[1]);
}

static void do_copy_range(struct cell *cell, int fd, struct out *out)
{
        off_t to = cell->child ? 5000 : 5010;

        put_result(out, "copied", copy_file_range(fd, NULL, fd, &to, 7, 0));
        put_number(out, "to", to);
        put_offset(out, fd);
}

static void do_truncate(struct cell *cell, int fd, struct out *out)
{
        struct stat st = {0};

        put_result(out, "ftruncate", ftruncate(fd, cell->child ? 1234 : 4321));
        put_result(out, "fstat", fstat(fd, &st));
        put_number(out, "size", st.st_size);
        put_offset(out, fd);
}

static void do_allocate(struct cell *cell, int fd, struct out *out)
{
        struct stat st = {0};

        put_result(out, "fallocate", fallocate(fd, 0, 6000, cell->child ? 500 : 900));
        put_result(out, "keep", fallocate(fd, FALLOC_FL_KEEP_SIZE, 9000, 500));
        put_result(out, "fstat", fstat(fd, &st));
        put_number(out, "size", st.st_size);
        put_offset(out, fd);
}

static void do_sync(struct cell *cell, int fd, struct out *out)
{
        put_result(out, "wrote", write(fd, WHO(cell), 7));
        put_result(out, "fsync", fsync(fd));
        put_result(out, "fdatasync", fdatasync(fd));
        put_offset(out, fd);
}

const struct op matrix_io_ops[] = {
        {.name = "read", .flags = O_RDONLY, .start = 10, .run = do_read},
        {.name = "raw-read", .flags = O_RDONLY, .start = 10, .run = do_raw_read},
        {.name = "readv", .flags = O_RDONLY, .start = 10, .run = do_readv},
        {.name = "pread", .flags = O_RDONLY, .start = 10, .run = do_pread},
        {.name = "preadv", .flags = O_RDONLY, .start = 10, .run = do_preadv},
        {.name = "write", .flags = O_RDWR, .start = 10, .run = do_write},
        {.name = "writev", .flags = O_WRONLY, .start = 10, .run = do_writev},
        {.name = "pwrite", .flags = O_RDWR, .start = 10, .run = do_pwrite},
        {.name = "append", .flags = O_WRONLY | O_APPEND, .start = 10, .run = do_append},
        {.name = "lseek", .flags = O_RDONLY, .start = 10, .run = do_lseek},
        {.name = "mmap", .flags = O_RDONLY, .start = 10, .run = do_mmap},
        {.name = "mmap-write", .flags = O_RDWR, .start = 10, .run = do_mmap_write},
        {.name = "mmap-private", .flags = O_RDONLY, .start = 10, .run = do_mmap_private},
        {.name = "poll", .flags = O_RDWR, .start = 10, .run = do_poll},
        {.name = "sendfile", .flags = O_RDONLY, .start = 10, .run = do_sendfile},
        {.name = "splice", .flags = O_RDONLY, .start = 10, .run = do_splice},
        {.name = "splice-into", .flags = O_RDWR, .start = 10, .run = do_splice_into},
        {.name = "copy_file_range", .flags = O_RDWR, .start = 10, .run = do_copy_range},
        {.name = "ftruncate", .flags = O_RDWR, .start = 10, .run = do_truncate},
        {.name = "fallocate", .flags = O_RDWR, .start = 10, .run = do_allocate},
        {.name = "fsync", .flags = O_RDWR, .start = 10, .run = do_sync},
};
const size_t matrix_io_ops_count = sizeof(matrix_io_ops) / sizeof(matrix_io_ops[0]);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * random_io [--seed=N] [--seconds=N] [--ops=N] [--source=PATH] [--spoil=N] [--sync-maps]
 *           [--verbose] FILE
 *
 * Random operations on one file, through up to three descriptors of different kinds at once, and
 * the same on a model in memory.  Every result, every byte that is read, the size after every
 * operation and the modification time are compared.  Now and then, and at the end, everything is
 * compared: through a fresh descriptor or mapping, and, after fsync and msync, with what PATH
 * shows, which is the same file in the directory behind the mount.  FILE is made, and removed at
 * the end when all was right.
 *
 * The operations follow from the seed, which is printed: --seed=N --ops=M does the first M of them
 * again.
 * --sync-maps lets SEEK_DATA and SEEK_HOLE follow msync: where mappings are kept in pages of FUSE,
 * the kernel asks the daemon for holes without writing back first what was stored.
 * --spoil=N writes a wrong bit with every write from operation N on; that has to be found.
 *
 * One process, one thread; all state is in `t`.  The model is `t.model`, of which the first
 * `t.size` bytes are the file; what is behind them is always 0, so that a file that grows has zeros
 * there.
 *
 * What is not done, because it is a documented limit: F_SETFL, COLLAPSE_RANGE, INSERT_RANGE,
 * O_DIRECT with odd alignment.
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
#include <sys/uio.h>
#include <unistd.h>

enum {
        MAX_SIZE = 512 * 1024,
        BLOCK = 4096,
        N_HANDLES = 3,
        LOG_LINES = 40,
        LOG_LINE = 160,
};

typedef struct Handle {
        int fd; /* -1: closed */
        int flags;
        off_t offset;
        uint8_t *map; /* MAX_SIZE bytes, or NULL */
} Handle;

static struct {
        Rng rng;
        uint64_t seed, op, max_ops, spoil;
        double seconds;
        const char *file, *source;
        bool verbose, sync_maps, direct; /* direct: this file system has O_DIRECT */
        bool has_mode[8];                /* by fallocate mode's place in `modes` */
        uint8_t *model, *buf;            /* buf: MAX_SIZE, aligned */
        size_t size;
        Handle h[N_HANDLES];
        int scratch;  /* a memfd */
        bool changed; /* this operation must be seen in the modification time */
        struct timespec mtime;
        char log[LOG_LINES][LOG_LINE];
        uint64_t counts[32];
} t;

static const int modes[] = {
        0,
        FALLOC_FL_KEEP_SIZE,
        FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
        FALLOC_FL_ZERO_RANGE,
        FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
};

static const char *flags_text(int flags)
{
        static char text[64];
        static const char *const access[] = {"r", "w", "rw", "?"};

        snprintf(text, sizeof text, "%s%s%s%s", access[flags & O_ACCMODE],
                 flags & O_APPEND ? "+append" : "", flags & O_DIRECT ? "+direct" : "",
                 flags & O_TRUNC ? "+trunc" : "");
        return text;
}

/* What this operation does, for the report at a mismatch. */
static void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *format, ...)
{
        char *line = t.log[t.op % LOG_LINES];
        int n = snprintf(line, LOG_LINE, "%llu: ", (unsigned long long)t.op);
        va_list args;

        va_start(args, format);
        vsnprintf(line + n, (size_t)(LOG_LINE - n), format, args);
        va_end(args);
        if (t.verbose)
                fprintf(stderr, "%s\n", line);
}

/* A mismatch: the last operations and the seed, and the end. */
static _Noreturn void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
static _Noreturn void wrong(const char *format, ...)
{
        char text[512];
        va_list args;

        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        for (uint64_t i = t.op >= LOG_LINES ? t.op - LOG_LINES + 1 : 0; i <= t.op; i++)
                fprintf(stderr, "  %s\n", t.log[i % LOG_LINES]);
        die("%s: MISMATCH at operation %llu: %s\nagain with --seed=%llu --ops=%llu", t.file,
            (unsigned long long)t.op, text, (unsigned long long)t.seed,
            (unsigned long long)t.op + 1);
}

static void expect(const char *what, ssize_t got, ssize_t want)
{
        if (got != want)
                wrong("%s gave %zd (%s), not %zd", what, got, got < 0 ? strerror(errno) : "", want);
}

static void expect_bytes(const char *what, const uint8_t *got, size_t offset, size_t n)
{
        size_t i, m;

        if (memcmp(got, t.model + offset, n) == 0)
                return;
        for (i = 0; got[i] == t.model[offset + i]; i++)
                ;
        for (m = i; m < n && got[m] != t.model[offset + m]; m++)
                ;
        wrong("%s of %zu bytes at %#zx: byte %#zx is %02x, not %02x; %zu wrong in a row; size %#zx",
              what, n, offset, offset + i, got[i], t.model[offset + i], m - i, t.size);
}

static uint64_t below(uint64_t n)
{
        return rng_below(&t.rng, n);
}

/* A random handle with all of `want` that has none of `without`; NULL if there is none. */
enum { READS = 1, WRITES = 2, APPENDS = 4, DIRECT = 8, MAPS = 16 };
static Handle *some_handle(int want, int without)
{
        for (size_t i = 0, first = below(N_HANDLES); i < N_HANDLES; i++) {
                Handle *h = &t.h[(first + i) % N_HANDLES];
                int access = h->flags & O_ACCMODE;
                int is = (access != O_WRONLY ? READS : 0) | (access != O_RDONLY ? WRITES : 0) |
                         (h->flags & O_APPEND ? APPENDS : 0) | (h->flags & O_DIRECT ? DIRECT : 0) |
                         (h->map ? MAPS : 0);

                if (h->fd >= 0 && (is & want) == want && !(is & without))
                        return h;
        }
        return NULL;
}

static int number(const Handle *h)
{
        return (int)(h - t.h);
}

static size_t some_length(size_t max)
{
        static const size_t most[] = {16, 300, 5000, 20000, 140000};
        size_t n = 1 + below(most[below(5)]);

        return n < max ? n : max;
}

/* A range for `h` with at least a byte below MAX_SIZE; it may begin behind the end of the file. */
static void some_range(const Handle *h, size_t *ret_offset, size_t *ret_len)
{
        size_t limit = t.size + below(3) * below(20000) + 1, offset, len;

        offset = below(limit < MAX_SIZE ? limit : MAX_SIZE);
        if (rng_one_in(&t.rng, 3))
                offset &= ~(size_t)(BLOCK - 1);
        len = some_length(MAX_SIZE - offset);
        if (h->flags & O_DIRECT) {
                offset &= ~(size_t)(BLOCK - 1);
                len = (len + BLOCK - 1) & ~(size_t)(BLOCK - 1);
        }
        *ret_offset = offset;
        *ret_len = len;
}

/* Fresh bytes into the buffer; each write has its own, so that an old one is seen. */
static void fill(size_t n)
{
        uint64_t word = rng_next(&t.rng);

        for (size_t i = 0; i < n; i += sizeof word) {
                memcpy(t.buf + i, &word, sizeof word);
                word = word * 0x9e3779b97f4a7c15 + 1;
        }
}

static void model_resize(size_t size)
{
        if (size < t.size)
                memset(t.model + size, 0, t.size - size);
        t.size = size;
}

/* The first n bytes of the buffer are about to be written at offset. */
static void model_write(size_t offset, size_t n)
{
        memcpy(t.model + offset, t.buf, n);
        if (offset + n > t.size)
                t.size = offset + n;
        if (t.spoil && t.op >= t.spoil)
                t.buf[n / 2] ^= 0x10;
        t.changed = true;
}

static size_t readable(size_t offset, size_t n)
{
        if (offset >= t.size)
                return 0;
        return n < t.size - offset ? n : t.size - offset;
}

/* Splits the first n bytes of the buffer; for O_DIRECT at blocks only. */
static int some_iov(const Handle *h, struct iovec iov[5], size_t n)
{
        size_t done = 0;
        int i;

        for (i = 0; i < 5 && done < n; i++) {
                size_t part = i == 4 ? n - done : below(n - done + 1);

                if (h->flags & O_DIRECT && i < 4)
                        part &= ~(size_t)(BLOCK - 1);
                iov[i] = (struct iovec){t.buf + done, part};
                done += part;
        }
        return i;
}

/* --- the operations.  Each returns false when it did nothing, for want of a descriptor that can.
 */

static bool op_pread(void)
{
        Handle *h = some_handle(READS, 0);
        struct iovec iov[5];
        size_t offset, len;
        ssize_t got;
        bool v = below(2);

        if (!h)
                return false;
        some_range(h, &offset, &len);
        note("pread%s %d at %#zx, %#zx bytes", v ? "v" : "", number(h), offset, len);
        memset(t.buf, 0xaa, len);
        if (v)
                got = preadv(h->fd, iov, some_iov(h, iov, len), (off_t)offset);
        else
                got = pread(h->fd, t.buf, len, (off_t)offset);
        expect("pread", got, (ssize_t)readable(offset, len));
        expect_bytes("pread", t.buf, offset, (size_t)got);
        return true;
}

static bool op_read(void)
{
        Handle *h = some_handle(READS, DIRECT);
        size_t offset, len;
        ssize_t got;

        if (!h)
                return false;
        some_range(h, &offset, &len);
        offset = (size_t)h->offset;
        note("read %d at %#zx, %#zx bytes", number(h), offset, len);
        got = read(h->fd, t.buf, len);
        expect("read", got, (ssize_t)readable(offset, len));
        expect_bytes("read", t.buf, offset, (size_t)got);
        h->offset += got;
        return true;
}

static bool op_pwrite(void)
{
        Handle *h = some_handle(WRITES, 0);
        struct iovec iov[5];
        size_t offset, len;
        int how = (int)below(5);
        ssize_t put;

        if (!h)
                return false;
        some_range(h, &offset, &len);
        if (h->flags & O_APPEND || (how == 4 && !(h->flags & O_DIRECT))) {
                if (t.size + len > MAX_SIZE)
                        return false;
                offset = t.size;
        }
        note("pwrite%s %d at %#zx, %#zx bytes",
             how == 4 ? "v2"
             : how    ? "v"
                      : "",
             number(h), offset, len);
        fill(len);
        model_write(offset, len);
        if (how == 4 && !(h->flags & O_DIRECT))
                put = pwritev2(h->fd, iov, some_iov(h, iov, len), 0, RWF_APPEND);
        else if (how)
                put = pwritev(h->fd, iov, some_iov(h, iov, len), (off_t)offset);
        else
                put = pwrite(h->fd, t.buf, len, (off_t)offset);
        expect("pwrite", put, (ssize_t)len);
        return true;
}

static bool op_write(void)
{
        Handle *h = some_handle(WRITES, DIRECT);
        size_t offset, len;

        if (!h)
                return false;
        some_range(h, &offset, &len);
        offset = h->flags & O_APPEND ? t.size : (size_t)h->offset;
        if (offset + len > MAX_SIZE)
                return false;
        note("write %d at %#zx, %#zx bytes", number(h), offset, len);
        fill(len);
        model_write(offset, len);
        expect("write", write(h->fd, t.buf, len), (ssize_t)len);
        h->offset = (off_t)(offset + len);
        return true;
}

static bool op_seek(void)
{
        Handle *h = some_handle(0, 0);
        int whence = (int)below(3);
        off_t base, want;

        if (!h)
                return false;
        want = (off_t)below(t.size + 1000 < MAX_SIZE ? t.size + 1000 : MAX_SIZE);
        base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? h->offset : (off_t)t.size;
        note("lseek %d to %#llx, whence %d", number(h), (long long)want, whence);
        expect("lseek", lseek(h->fd, want - base, whence), want);
        h->offset = want;
        return true;
}

static bool all_zero(size_t from, size_t to)
{
        for (size_t i = from; i < to; i++)
                if (t.model[i])
                        return false;
        return true;
}

static void sync_maps(void)
{
        for (int i = 0; i < N_HANDLES; i++)
                if (t.h[i].map)
                        expect("msync", msync(t.h[i].map, MAX_SIZE, MS_SYNC), 0);
}

/* Where holes are is the file system's affair; but a hole has no data in it. */
static bool op_seek_data(void)
{
        Handle *h = some_handle(0, 0);
        size_t from = below(t.size + 10);
        off_t data, hole;

        if (!h)
                return false;
        note("lseek %d SEEK_DATA and SEEK_HOLE from %#zx", number(h), from);
        if (t.sync_maps)
                sync_maps();
        data = lseek(h->fd, (off_t)from, SEEK_DATA);
        if (data < 0 && errno != ENXIO)
                wrong("SEEK_DATA: %m");
        if (data >= 0 && (data < (off_t)from || data >= (off_t)t.size))
                wrong("SEEK_DATA gave %#llx, size %#zx", (long long)data, t.size);
        if (!all_zero(from, data < 0 ? t.size : (size_t)data))
                wrong("SEEK_DATA gave %#llx, but there is data before", (long long)data);
        hole = lseek(h->fd, (off_t)from, SEEK_HOLE);
        if (from >= t.size) {
                if (hole >= 0 || errno != ENXIO || data >= 0)
                        wrong("behind the end: SEEK_DATA %lld, SEEK_HOLE %lld", (long long)data,
                              (long long)hole);
        } else if (hole < (off_t)from || hole > (off_t)t.size) {
                wrong("SEEK_HOLE gave %lld, size %#zx", (long long)hole, t.size);
        } else if ((size_t)hole < t.size) {
                data = lseek(h->fd, hole, SEEK_DATA);
                if (data == hole)
                        wrong("%#llx is a hole and data", (long long)hole);
                if (!all_zero((size_t)hole, data < 0 ? t.size : (size_t)data))
                        wrong("there is data in the hole at %#llx", (long long)hole);
        }
        expect("lseek back", lseek(h->fd, h->offset, SEEK_SET), h->offset);
        return true;
}

static bool op_truncate(void)
{
        Handle *h = some_handle(WRITES, 0);
        size_t size = below(2) ? below(MAX_SIZE + 1) : below(t.size + 5000);
        bool by_path = !h || below(3) == 0;

        if (size > MAX_SIZE)
                size = MAX_SIZE;
        if (rng_one_in(&t.rng, 10))
                size = 0;
        note("%struncate %d from %#zx to %#zx", by_path ? "" : "f", by_path ? -1 : number(h),
             t.size, size);
        t.changed = size != t.size;
        model_resize(size);
        expect("truncate", by_path ? truncate(t.file, (off_t)size) : ftruncate(h->fd, (off_t)size),
               0);
        return true;
}

static bool op_fallocate(void)
{
        Handle *h = some_handle(WRITES, 0);
        size_t which = below(sizeof modes / sizeof *modes), offset, len, end;
        Handle any = {.flags = 0};
        int mode = modes[which];

        if (!h || !t.has_mode[which])
                return false;
        some_range(&any, &offset, &len);
        end = offset + len;
        note("fallocate %d mode %#x at %#zx, %#zx bytes", number(h), (unsigned)mode, offset, len);
        if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
                if (offset < t.size) {
                        memset(t.model + offset, 0, readable(offset, len));
                        t.changed = true;
                }
        }
        if (!(mode & FALLOC_FL_KEEP_SIZE) && end > t.size) {
                model_resize(end);
                t.changed = true;
        }
        expect("fallocate", fallocate(h->fd, mode, (off_t)offset, (off_t)len), 0);
        return true;
}

static bool op_copy(void)
{
        Handle *from = some_handle(READS, DIRECT), *to = some_handle(WRITES, DIRECT | APPENDS);
        size_t in, out, len, n;
        off_t in_off, out_off;
        ssize_t done;

        if (!from || !to)
                return false;
        some_range(from, &in, &len);
        some_range(to, &out, &n);
        if (len > MAX_SIZE - out)
                len = MAX_SIZE - out;
        if (in < out + len && out < in + len)
                return false;
        note("copy_file_range %d at %#zx to %d at %#zx, %#zx bytes", number(from), in, number(to),
             out, len);
        in_off = (off_t)in;
        out_off = (off_t)out;
        n = readable(in, len);
        done = copy_file_range(from->fd, &in_off, to->fd, &out_off, len, 0);
        if (done < 0 || (size_t)done > n || (n && !done))
                wrong("copy_file_range gave %zd (%s), not %zu", done,
                      done < 0 ? strerror(errno) : "", n);
        if (in_off != (off_t)in + done || out_off != (off_t)out + done)
                wrong("copy_file_range moved to %lld and %lld", (long long)in_off,
                      (long long)out_off);
        if (!done)
                return true;
        memmove(t.model + out, t.model + in, (size_t)done);
        if (out + (size_t)done > t.size)
                t.size = out + (size_t)done;
        t.changed = true;
        return true;
}

static bool op_sendfile(void)
{
        bool write_to = below(2);
        Handle *h = write_to ? some_handle(WRITES, DIRECT | APPENDS) : some_handle(READS, DIRECT);
        size_t offset, len;
        off_t at;

        if (!h || ftruncate(t.scratch, 0) < 0 || lseek(t.scratch, 0, SEEK_SET) < 0)
                return false;
        some_range(h, &offset, &len);
        at = (off_t)offset;
        if (write_to) {
                offset = (size_t)h->offset;
                if (offset + len > MAX_SIZE)
                        return false;
                note("sendfile to %d at %#zx, %#zx bytes", number(h), offset, len);
                fill(len);
                model_write(offset, len);
                expect("write to scratch", write(t.scratch, t.buf, len), (ssize_t)len);
                at = 0;
                expect("sendfile", sendfile(h->fd, t.scratch, &at, len), (ssize_t)len);
                h->offset += (off_t)len;
                return true;
        }
        note("sendfile from %d at %#zx, %#zx bytes", number(h), offset, len);
        len = readable(offset, len);
        expect("sendfile", sendfile(t.scratch, h->fd, &at, len), (ssize_t)len);
        expect("pread of scratch", pread(t.scratch, t.buf, len, 0), (ssize_t)len);
        expect_bytes("sendfile", t.buf, offset, len);
        return true;
}

/* A mapping of its own for this operation. */
static bool op_map(void)
{
        bool stores = below(2), private = !stores && below(2);
        Handle *h = some_handle(READS | (stores ? WRITES : 0), 0);
        size_t offset, len, start;
        uint8_t *p;

        if (!h || !t.size)
                return false;
        offset = below(t.size);
        len = readable(offset, some_length(MAX_SIZE));
        start = offset & ~(size_t)(BLOCK - 1);
        note("mmap %d%s, %s at %#zx, %#zx bytes", number(h), private ? " private" : "",
             stores ? "store" : "load", offset, len);
        p = mmap(NULL, offset - start + len, PROT_READ | (stores ? PROT_WRITE : 0),
                 private ? MAP_PRIVATE : MAP_SHARED, h->fd, (off_t)start);
        if (p == MAP_FAILED)
                wrong("mmap: %m");
        if (below(2) || !stores)
                expect_bytes("mapping", p + (offset - start), offset, len);
        if (stores) {
                fill(len);
                model_write(offset, len);
                t.changed = false; /* the time of a store is another matter: see fresh.c */
                memcpy(p + (offset - start), t.buf, len);
                if (below(2))
                        expect("msync",
                               msync(p, offset - start + len, below(2) ? MS_SYNC : MS_ASYNC), 0);
        }
        expect("munmap", munmap(p, offset - start + len), 0);
        return true;
}

static bool op_held_map(void)
{
        Handle *h = some_handle(MAPS, 0);
        size_t offset, len;

        if (!h) {
                h = some_handle(READS | WRITES, 0);
                if (!h)
                        return false;
                note("mmap %d, to keep", number(h));
                h->map = mmap(NULL, MAX_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, h->fd, 0);
                if (h->map == MAP_FAILED)
                        wrong("mmap: %m");
                return true;
        }
        if (!t.size)
                return false;
        offset = below(t.size);
        len = readable(offset, some_length(MAX_SIZE));
        if (below(2)) {
                note("load from the mapping of %d at %#zx, %#zx bytes", number(h), offset, len);
                expect_bytes("kept mapping", h->map + offset, offset, len);
                return true;
        }
        note("store to the mapping of %d at %#zx, %#zx bytes", number(h), offset, len);
        fill(len);
        model_write(offset, len);
        t.changed = false;
        memcpy(h->map + offset, t.buf, len);
        return true;
}

static void let_go(Handle *h)
{
        if (h->map)
                expect("munmap", munmap(h->map, MAX_SIZE), 0);
        h->map = NULL;
        expect("close", close(h->fd), 0);
        h->fd = -1;
}

static bool op_reopen(void)
{
        static const int access[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR};
        Handle *h = &t.h[below(N_HANDLES)];
        int flags = access[below(4)], kind = (int)below(4);

        if (h->fd >= 0)
                let_go(h);
        if (rng_one_in(&t.rng, 6)) {
                note("close %d", number(h));
                return true;
        }
        if (kind == 0)
                flags |= O_APPEND;
        if (kind == 1 && t.direct)
                flags |= O_DIRECT;
        if (flags & O_ACCMODE && rng_one_in(&t.rng, 12)) {
                flags |= O_TRUNC;
                t.changed = true;
                model_resize(0);
        }
        note("open %d %s", number(h), flags_text(flags));
        h->flags = flags & ~O_TRUNC;
        h->offset = 0;
        h->fd = open(t.file, flags | O_CLOEXEC);
        if (h->fd < 0)
                wrong("open %s: %m", flags_text(flags));
        return true;
}

static bool op_sync(void)
{
        Handle *h = some_handle(0, 0);

        if (!h || below(4))
                return false;
        note("fsync %d", number(h));
        expect("fsync", below(2) ? fsync(h->fd) : fdatasync(h->fd), 0);
        return true;
}

static void expect_errno(const char *what, ssize_t got, int want)
{
        if (got != -1 || errno != want)
                wrong("%s gave %zd (%s), not %s", what, got, got < 0 ? strerror(errno) : "",
                      strerror(want));
}

/* What has to fail, and to change nothing. */
static bool op_refused(void)
{
        Handle *h = some_handle(0, 0);
        int access = h ? h->flags & O_ACCMODE : 0;

        if (!h)
                return false;
        note("what is refused, on %d", number(h));
        if (access == O_RDONLY) {
                expect_errno("write", write(h->fd, t.buf, BLOCK), EBADF);
                expect_errno("ftruncate", ftruncate(h->fd, 0), EINVAL);
                expect_errno("fallocate", fallocate(h->fd, 0, 0, 10), EBADF);
        } else {
                expect_errno("fallocate of nothing", fallocate(h->fd, 0, 0, 0), EINVAL);
                expect_errno("ftruncate to -1", ftruncate(h->fd, -1), EINVAL);
                expect_errno("pwrite at -1", pwrite(h->fd, t.buf, BLOCK, -1), EINVAL);
        }
        if (access == O_WRONLY)
                expect_errno("read", read(h->fd, t.buf, BLOCK), EBADF);
        else
                expect_errno("pread at -1", pread(h->fd, t.buf, BLOCK, -1), EINVAL);
        return true;
}

/* The times are long ago: then nobody can take an old time for the one of the next change. */
static bool op_age(void)
{
        struct timespec times[2] = {{1000000000, 0}, {1000000000, (long)below(1000) * 1000000}};

        note("utimensat");
        expect("utimensat", utimensat(AT_FDCWD, t.file, times, 0), 0);
        t.mtime = times[1];
        return true;
}

/* Compares the whole file as `path` shows it. */
static void compare_all(const char *path, const char *what, bool by_map)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        struct stat st;

        if (fd < 0)
                wrong("open %s: %m", path);
        expect("fstat", fstat(fd, &st), 0);
        expect("st_size", (ssize_t)st.st_size, (ssize_t)t.size);
        if (by_map && t.size) {
                uint8_t *p = mmap(NULL, t.size, PROT_READ, MAP_SHARED, fd, 0);

                if (p == MAP_FAILED)
                        wrong("mmap %s: %m", path);
                expect_bytes(what, p, 0, t.size);
                munmap(p, t.size);
        } else {
                expect(what, pread(fd, t.buf, MAX_SIZE, 0), (ssize_t)t.size);
                expect_bytes(what, t.buf, 0, t.size);
        }
        close(fd);
}

static bool op_compare(void)
{
        bool by_map = below(2);

        if (below(5))
                return false;
        note("compare everything%s", by_map ? ", mapped" : "");
        compare_all(t.file, "everything", by_map);
        return true;
}

/* What was synchronised is in SOURCE. */
static bool op_compare_source(void)
{
        Handle *h = some_handle(0, 0);

        if (!h || (below(10) && t.op))
                return false;
        note("msync, fsync %d, and compare with the file behind the mount", number(h));
        sync_maps();
        expect("fsync", fsync(h->fd), 0);
        compare_all(t.source, "the file behind", false);
        return true;
}

static const struct {
        const char *name;
        unsigned weight;
        bool (*run)(void);
} ops[] = {
        {"pread", 12, op_pread},      {"read", 8, op_read},
        {"pwrite", 12, op_pwrite},    {"write", 10, op_write},
        {"seek", 3, op_seek},         {"seek_data", 4, op_seek_data},
        {"truncate", 5, op_truncate}, {"fallocate", 6, op_fallocate},
        {"copy", 4, op_copy},         {"sendfile", 5, op_sendfile},
        {"map", 8, op_map},           {"held_map", 8, op_held_map},
        {"reopen", 6, op_reopen},     {"sync", 1, op_sync},
        {"refused", 2, op_refused},   {"age", 2, op_age},
        {"compare", 2, op_compare},   {"source", 2, op_compare_source},
};
#define N_OPS (sizeof ops / sizeof *ops)

/* Size and times, on a descriptor or by name. */
static void check_stat(const struct timespec *before)
{
        Handle *h = some_handle(0, 0);
        bool by_fd = h && below(2);
        struct timespec after;
        struct stat st;

        expect("stat", by_fd ? fstat(h->fd, &st) : stat(t.file, &st), 0);
        clock_gettime(CLOCK_REALTIME, &after);
        if (st.st_size != (off_t)t.size)
                wrong("%s says size %#llx, not %#zx", by_fd ? "fstat" : "stat",
                      (long long)st.st_size, t.size);
        if (t.changed && compare_times(&st.st_mtim, before) < 0)
                wrong("the modification time is %lld.%09ld, before the change at %lld.%09ld",
                      (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (long long)before->tv_sec,
                      before->tv_nsec);
        if (compare_times(&st.st_mtim, &t.mtime) < 0)
                wrong("the modification time went back from %lld.%09ld to %lld.%09ld",
                      (long long)t.mtime.tv_sec, t.mtime.tv_nsec, (long long)st.st_mtim.tv_sec,
                      st.st_mtim.tv_nsec);
        if (compare_times(&st.st_mtim, &after) > 0)
                wrong("the modification time is in the future");
        t.mtime = st.st_mtim;
}

static void one_operation(void)
{
        struct timespec before;
        uint64_t total = 0, pick;
        size_t i;

        for (i = 0; i < N_OPS; i++)
                total += ops[i].weight;
        do {
                t.changed = false;
                pick = below(total);
                for (i = 0; pick >= ops[i].weight; i++)
                        pick -= ops[i].weight;
                clock_gettime(CLOCK_REALTIME_COARSE, &before);
        } while (!ops[i].run());
        t.counts[i]++;
        check_stat(&before);
}

/* What the file system behind can do, the mount has to. */
static void probe(void)
{
        int fd = open(t.source, O_RDWR | O_CLOEXEC), direct;

        if (fd < 0)
                die("%s: open: %m", t.source);
        for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
                t.has_mode[i] = fallocate(fd, modes[i], 0, BLOCK) == 0;
                if (!t.has_mode[i])
                        printf("SKIP fallocate mode %#x: not on this file system\n",
                               (unsigned)modes[i]);
        }
        if (ftruncate(fd, 0) < 0)
                die("%s: ftruncate: %m", t.source);
        close(fd);
        direct = open(t.source, O_RDWR | O_DIRECT | O_CLOEXEC);
        t.direct = direct >= 0;
        if (!t.direct)
                printf("SKIP O_DIRECT: not on this file system\n");
        else
                close(direct);
}

static void parse(int argc, char **argv)
{
        const char *v;

        t.seed = (uint64_t)time(NULL) * 1000 + (uint64_t)getpid();
        for (int i = 1; i < argc; i++) {
                if ((v = option_value(argv[i], "--seed")))
                        t.seed = strtoull(v, NULL, 10);
                else if ((v = option_value(argv[i], "--seconds")))
                        t.seconds = strtod(v, NULL);
                else if ((v = option_value(argv[i], "--ops")))
                        t.max_ops = strtoull(v, NULL, 10);
                else if ((v = option_value(argv[i], "--spoil")))
                        t.spoil = strtoull(v, NULL, 10);
                else if ((v = option_value(argv[i], "--source")))
                        t.source = v;
                else if (strcmp(argv[i], "--sync-maps") == 0)
                        t.sync_maps = true;
                else if (strcmp(argv[i], "--verbose") == 0)
                        t.verbose = true;
                else if (!t.file && *argv[i] != '-')
                        t.file = argv[i];
                else
                        die("what is %s?", argv[i]);
        }
        if (!t.file || (!t.seconds && !t.max_ops))
                die("a file, and --seconds=N or --ops=N");
        if (!t.source)
                t.source = t.file;
}

int main(int argc, char **argv)
{
        double end;
        int fd;

        parse(argc, argv);
        t.rng.state = t.seed;
        printf("seed %llu\n", (unsigned long long)t.seed);
        fflush(stdout);
        t.model = calloc(1, MAX_SIZE);
        t.scratch = memfd_create("random_io", MFD_CLOEXEC);
        if (!t.model || t.scratch < 0 || posix_memalign((void **)&t.buf, BLOCK, MAX_SIZE + BLOCK))
                die("no memory");
        fd = open(t.file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
                die("%s: create: %m", t.file);
        close(fd);
        probe();
        for (int i = 0; i < N_HANDLES; i++)
                t.h[i].fd = -1;
        end = t.seconds ? now() + t.seconds : 0;
        for (; (!t.max_ops || t.op < t.max_ops) && (!end || now() < end); t.op++)
                one_operation();
        note("the end");
        for (int i = 0; i < N_HANDLES; i++)
                if (t.h[i].fd >= 0)
                        let_go(&t.h[i]);
        fd = open(t.file, O_RDWR | O_CLOEXEC);
        if (fd < 0 || fsync(fd) < 0 || close(fd) < 0)
                wrong("fsync at the end: %m");
        compare_all(t.file, "everything at the end", false);
        compare_all(t.source, "the file behind at the end", false);
        if (unlink(t.file) < 0)
                wrong("unlink: %m");
        for (size_t i = 0; i < N_OPS; i++)
                printf("%s %llu%s", ops[i].name, (unsigned long long)t.counts[i],
                       i + 1 < N_OPS ? ", " : "\n");
        printf("%llu operations\n", (unsigned long long)t.op);
        return 0;
}

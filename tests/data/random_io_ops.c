/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "random_io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

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
        size_t which = below((uint64_t)N_MODES), offset, len, end;
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

void let_go(Handle *h)
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

const struct operation ops[] = {
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

const size_t n_ops = sizeof ops / sizeof *ops;

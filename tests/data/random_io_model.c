/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "random_io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct state t;

const int modes[N_MODES] = {
        0,
        FALLOC_FL_KEEP_SIZE,
        FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
        FALLOC_FL_ZERO_RANGE,
        FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
};

const char *flags_text(int flags)
{
        static char text[64];
        static const char *const access[] = {"r", "w", "rw", "?"};

        snprintf(text, sizeof text, "%s%s%s%s", access[flags & O_ACCMODE],
                 flags & O_APPEND ? "+append" : "", flags & O_DIRECT ? "+direct" : "",
                 flags & O_TRUNC ? "+trunc" : "");
        return text;
}

/* What this operation does, for the report at a mismatch. */
void note(const char *format, ...)
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
_Noreturn void wrong(const char *format, ...)
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

void expect(const char *what, ssize_t got, ssize_t want)
{
        if (got != want)
                wrong("%s gave %zd (%s), not %zd", what, got, got < 0 ? strerror(errno) : "", want);
}

void expect_bytes(const char *what, const uint8_t *got, size_t offset, size_t n)
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

uint64_t below(uint64_t n)
{
        return rng_below(&t.rng, n);
}

/* A random handle with all of `want` that has none of `without`; NULL if there is none. */
Handle *some_handle(int want, int without)
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

int number(const Handle *h)
{
        return (int)(h - t.h);
}

size_t some_length(size_t max)
{
        static const size_t most[] = {16, 300, 5000, 20000, 140000};
        size_t n = 1 + below(most[below(5)]);

        return n < max ? n : max;
}

/* A range for `h` with at least a byte below MAX_SIZE; it may begin behind the end of the file. */
void some_range(const Handle *h, size_t *ret_offset, size_t *ret_len)
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
void fill(size_t n)
{
        uint64_t word = rng_next(&t.rng);

        for (size_t i = 0; i < n; i += sizeof word) {
                memcpy(t.buf + i, &word, sizeof word);
                word = word * 0x9e3779b97f4a7c15 + 1;
        }
}

void model_resize(size_t size)
{
        if (size < t.size)
                memset(t.model + size, 0, t.size - size);
        t.size = size;
}

/* The first n bytes of the buffer are about to be written at offset. */
void model_write(size_t offset, size_t n)
{
        memcpy(t.model + offset, t.buf, n);
        if (offset + n > t.size)
                t.size = offset + n;
        if (t.spoil && t.op >= t.spoil)
                t.buf[n / 2] ^= 0x10;
        t.changed = true;
}

size_t readable(size_t offset, size_t n)
{
        if (offset >= t.size)
                return 0;
        return n < t.size - offset ? n : t.size - offset;
}

/* Splits the first n bytes of the buffer; for O_DIRECT at blocks only. */
int some_iov(const Handle *h, struct iovec iov[5], size_t n)
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

/* Compares the whole file as `path` shows it. */
void compare_all(const char *path, const char *what, bool by_map)
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

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * random_io in three parts: random_io_model.c has what the file has to be, random_io_ops.c what can
 * be done with it, and random_io.c does it.
 *
 * One process, one thread; all state is in `t`.  The model is `t.model`, of which the first
 * `t.size` bytes are the file; what is behind them is always 0, so that a file that grows has zeros
 * there.
 */
#include "data.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

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

extern struct state {
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

/* The modes of fallocate() that are tried. */
enum { N_MODES = 5 };
extern const int modes[N_MODES];

/* --- the model --- */

/* What this operation does, for the report at a mismatch. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A mismatch: the last operations and the seed, and the end. */
_Noreturn void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* wrong() unless `what` gave what was wanted; errno is that of the call, if `got` is negative. */
void expect(const char *what, ssize_t got, ssize_t want);
/* wrong() unless these n bytes are the model's at `offset`. */
void expect_bytes(const char *what, const uint8_t *got, size_t offset, size_t n);
/* Compares the whole file as `path` shows it. */
void compare_all(const char *path, const char *what, bool by_map);

/* A random number less than n. */
uint64_t below(uint64_t n);
/* A random handle with all of `want` that has none of `without`; NULL if there is none. */
enum { READS = 1, WRITES = 2, APPENDS = 4, DIRECT = 8, MAPS = 16 };
Handle *some_handle(int want, int without);
/* Its place in t.h, for note(). */
int number(const Handle *h);
const char *flags_text(int flags);
/* From 1 to `max`, more often short than long. */
size_t some_length(size_t max);
/* A range for `h` with at least a byte below MAX_SIZE; it may begin behind the end of the file. */
void some_range(const Handle *h, size_t *ret_offset, size_t *ret_len);
/* Splits the first n bytes of the buffer; for O_DIRECT at blocks only.  The number of parts. */
int some_iov(const Handle *h, struct iovec iov[5], size_t n);

/* Fresh bytes into the buffer; each write has its own, so that an old one is seen. */
void fill(size_t n);
void model_resize(size_t size);
/* The first n bytes of the buffer are about to be written at offset. */
void model_write(size_t offset, size_t n);
/* How many of n bytes at `offset` the file has. */
size_t readable(size_t offset, size_t n);

/* --- the operations --- */

/* One of them: how often, against the others, and what it does.  False when it did nothing, for
 * want of a descriptor that can. */
struct operation {
        const char *name;
        unsigned weight;
        bool (*run)(void);
};

extern const struct operation ops[];
extern const size_t n_ops;

/* Unmaps and closes a handle. */
void let_go(Handle *h);

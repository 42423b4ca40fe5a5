/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * hash: a hash table whose links are embedded in what it holds, so that putting something in cannot
 * fail.  (GHashTable allocates, and aborts when it cannot.)
 *
 * It grows when it can get the memory and is slower when it cannot.  No lock of its own: whoever
 * has the table says which lock protects it.  Zeroed memory is an empty table.
 */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct hash_link {
        struct hash_link *next;
        uint64_t hash;
};

struct hash {
        struct hash_link **buckets; /* 2^bits of them; NULL while `single` does */
        struct hash_link *single;   /* the only bucket of a small table */
        unsigned bits;
        size_t count;
};

/* Puts `link` in, under `hash`; several with the same hash are no problem. */
void hash_insert(struct hash *table, struct hash_link *link, uint64_t hash);

/* Takes `link`, which must be in, out. */
void hash_remove(struct hash *table, struct hash_link *link);

/* The first link with `hash`, or NULL; and the next one after `link` with the same hash. */
struct hash_link *hash_first(const struct hash *table, uint64_t hash);
struct hash_link *hash_next(const struct hash_link *link);

/* Frees the buckets; the table must be empty. */
void hash_clear(struct hash *table);

/* Mixes 64 bits well enough that any of the result's bits can choose a bucket. */
static inline uint64_t hash_mix(uint64_t x)
{
        x ^= x >> 32;
        x *= UINT64_C(0xd6e8feb86659fd93);
        x ^= x >> 32;
        x *= UINT64_C(0xd6e8feb86659fd93);
        x ^= x >> 32;
        return x;
}

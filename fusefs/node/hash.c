/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The caller owns the links and what they are embedded in; the table owns its buckets. */
#include "fusefs/node/hash.h"

#include <stdlib.h>

#define FIRST_BITS 4 /* a directory with few children needs no array at all */

static struct hash_link **bucket_of(const struct hash *table, uint64_t hash)
{
        if (!table->buckets)
                return (struct hash_link **)&table->single;
        return &table->buckets[hash & ((UINT64_C(1) << table->bits) - 1)];
}

/* Doubles the table.  Without memory it stays as it is: longer chains, nothing worse. */
static void grow(struct hash *table)
{
        const unsigned bits = table->buckets ? table->bits + 1 : FIRST_BITS;
        const size_t n_old = table->buckets ? (size_t)1 << table->bits : 1;
        struct hash_link **old = table->buckets ? table->buckets : &table->single;
        struct hash_link **new = calloc((size_t)1 << bits, sizeof *new);
        const uint64_t mask = (UINT64_C(1) << bits) - 1;

        if (!new)
                return;
        for (size_t i = 0; i < n_old; i++) {
                struct hash_link *link = old[i];

                while (link) {
                        struct hash_link *next = link->next;

                        link->next = new[link->hash & mask];
                        new[link->hash & mask] = link;
                        link = next;
                }
        }
        free(table->buckets);
        table->buckets = new;
        table->single = NULL;
        table->bits = bits;
}

void hash_insert(struct hash *table, struct hash_link *link, uint64_t hash)
{
        struct hash_link **bucket;

        if (table->count >= (table->buckets ? (size_t)1 << table->bits : 4))
                grow(table);
        bucket = bucket_of(table, hash);
        link->hash = hash;
        link->next = *bucket;
        *bucket = link;
        table->count++;
}

void hash_remove(struct hash *table, struct hash_link *link)
{
        struct hash_link **p = bucket_of(table, link->hash);

        while (*p && *p != link)
                p = &(*p)->next;
        if (!*p)
                return;
        *p = link->next;
        link->next = NULL;
        table->count--;
}

static struct hash_link *find_from(struct hash_link *link, uint64_t hash)
{
        while (link && link->hash != hash)
                link = link->next;
        return link;
}

struct hash_link *hash_first(const struct hash *table, uint64_t hash)
{
        return find_from(*bucket_of(table, hash), hash);
}

struct hash_link *hash_next(const struct hash_link *link)
{
        return find_from(link->next, link->hash);
}

void hash_clear(struct hash *table)
{
        free(table->buckets);
        *table = (struct hash){.buckets = NULL};
}

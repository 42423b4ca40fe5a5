/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The word: 44 bits of a hash and 20 bits of the second in which it was written. */
#include "fusefs/node/contents.h"

#include <glib.h>
#include <stdatomic.h>

#include "fusefs/node/hash.h"

#define AGE_US       (2 * G_USEC_PER_SEC) /* the largest step of a file system's clock: FAT's */
#define SETTLED_S    2                    /* at least one whole second */
#define SECONDS_BITS 20
#define SECONDS_MASK ((UINT64_C(1) << SECONDS_BITS) - 1)

static int64_t us_of(const struct timespec *t)
{
        return (int64_t)t->tv_sec * G_USEC_PER_SEC + t->tv_nsec / 1000;
}

static uint64_t nanoseconds(const struct timespec *t)
{
        return (uint64_t)t->tv_sec * UINT64_C(1000000000) + (uint64_t)t->tv_nsec;
}

/* Never 0 in its upper bits. */
static uint64_t hash_of(const struct stat *st)
{
        uint64_t hash = hash_mix(nanoseconds(&st->st_mtim));

        hash = hash_mix(hash ^ nanoseconds(&st->st_ctim));
        hash = hash_mix(hash ^ (uint64_t)st->st_size);
        return (hash | (UINT64_C(1) << 63)) & ~SECONDS_MASK;
}

enum contents contents_look(contents_word *word, const struct fs_stat *st, int64_t now)
{
        const int64_t changed = MAX(us_of(&st->st.st_mtim), us_of(&st->st.st_ctim));
        const uint64_t second = (uint64_t)(now / G_USEC_PER_SEC) & SECONDS_MASK;
        const uint64_t hash = hash_of(&st->st);
        const uint64_t known = atomic_load(word);

        /* A time in the future says nothing either. */
        if (now - changed < AGE_US) {
                atomic_store(word, 0);
                return CONTENTS_YOUNG;
        }
        if ((known & ~SECONDS_MASK) != hash) {
                atomic_store(word, hash | second);
                return CONTENTS_NEW;
        }
        return ((second - known) & SECONDS_MASK) >= SETTLED_S ? CONTENTS_KEPT : CONTENTS_NEW;
}

void contents_forget(contents_word *word)
{
        atomic_store(word, 0);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The index has linear probing and is at most half full.  A place that is emptied is filled from those
 * behind it that were pushed there, so there are no tombstones; the entry's own place is filled with the
 * last one.
 */
#include "fusefs/holder/parked.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define MOST ((size_t)1 << 20)

static void *reserve(size_t bytes)
{
        return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                    -1, 0);
}

int parked_init(struct parked *parked, size_t most)
{
        size_t size = 64;

        while (size / 2 < most && size / 2 < MOST)
                size *= 2;
        *parked = (struct parked){.size = size, .most = size / 2};
        parked->entries = reserve(parked->most * sizeof *parked->entries);
        if (parked->entries == MAP_FAILED)
                return -errno;
        parked->index = reserve(size * sizeof *parked->index);
        if (parked->index == MAP_FAILED) {
                const int r = -errno;

                munmap(parked->entries, parked->most * sizeof *parked->entries);
                return r;
        }
        return 0;
}

static size_t home_of(const struct parked *parked, uint64_t key)
{
        return (size_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (parked->size - 1);
}

static uint64_t key_at(const struct parked *parked, size_t at)
{
        return parked->entries[parked->index[at] - 1].key;
}

/* Where the key is in the index, or the free place where it would be. */
static size_t find(const struct parked *parked, uint64_t key)
{
        size_t at = home_of(parked, key);

        while (parked->index[at] != 0 && key_at(parked, at) != key)
                at = (at + 1) & (parked->size - 1);
        return at;
}

void parked_put(struct parked *parked, uint64_t key, int fd)
{
        const size_t at = find(parked, key);

        if (parked->index[at] != 0) {
                struct parked_entry *entry = &parked->entries[parked->index[at] - 1];

                close(entry->fd);
                entry->fd = fd;
        } else if (key == 0 || parked->used == parked->most) {
                close(fd);
        } else {
                parked->entries[parked->used++] = (struct parked_entry){key, fd};
                parked->index[at] = (uint32_t)parked->used;
        }
}

/* Takes one place out of the index. */
static void empty(struct parked *parked, size_t hole)
{
        const size_t mask = parked->size - 1;

        for (size_t at = (hole + 1) & mask; parked->index[at] != 0; at = (at + 1) & mask) {
                const size_t home = home_of(parked, key_at(parked, at));

                if (((at - home) & mask) < ((at - hole) & mask))
                        continue; /* its home lies behind the hole: it would not be found there */
                parked->index[hole] = parked->index[at];
                hole = at;
        }
        parked->index[hole] = 0;
}

void parked_drop(struct parked *parked, uint64_t key)
{
        const size_t at = find(parked, key);
        const uint32_t number = parked->index[at];
        struct parked_entry *entry, *last;

        if (number == 0)
                return;
        entry = &parked->entries[number - 1];
        last = &parked->entries[parked->used - 1];
        close(entry->fd);
        empty(parked, at);
        if (entry != last) {
                parked->index[find(parked, last->key)] = number;
                *entry = *last;
        }
        parked->used--;
}

void parked_drop_all(struct parked *parked)
{
        while (parked->used > 0)
                parked_drop(parked, parked->entries[parked->used - 1].key);
}

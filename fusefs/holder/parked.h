/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * parked: the descriptors that workers leave with the holder, by key.
 *
 * A list and an index to it, with room for as many as the process may have descriptors, in memory that is
 * reserved at the start and touched as it is used: nothing is allocated later.  The holder's only thread
 * uses it.
 */
#include <stddef.h>
#include <stdint.h>

struct parked_entry {
        uint64_t key; /* never 0 */
        int fd;
};

struct parked {
        struct parked_entry *entries; /* `used` of them, without gaps */
        uint32_t *index;              /* by the key's hash: 1 + the number of an entry, 0: free */
        size_t size;                  /* of the index, a power of two */
        size_t used, most;
};

/* Reserves room for `most` descriptors (it may take less).  Returns 0 or -errno. */
int parked_init(struct parked *parked, size_t most);

/* Keeps `fd`, which is the table's from now on; what was there with this key is closed. */
void parked_put(struct parked *parked, uint64_t key, int fd);
void parked_drop(struct parked *parked, uint64_t key); /* closes it; a key that is not there is ignored */
void parked_drop_all(struct parked *parked);


/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * ops_guard: what every operation on data passes.
 *
 * An operation enters the fence (lazy/fence.h) before it looks at rights, and leaves it when it has
 * been answered: so who takes something away can wait for those that are under way.  Pages that the
 * kernel writes back pass in any case: they were stored when that was allowed, and a page whose write is refused
 * stays dirty for ever.
 */
#include "fusefs/mount.h"
#include "lazy/rights.h"

struct server_file;

struct ops_guard {
        struct fence *fence; /* NULL: not entered */
        unsigned ticket;
};

/* Declares `name`, left at the end of its scope. */
#define OPS_GUARD(name)                                                                            \
        __attribute__((cleanup(ops_guard_leave))) struct ops_guard name = {.fence = NULL}
void ops_guard_leave(struct ops_guard *guard);

/* Enters, and asks whether the caller may do what needs `needed`.  False: no, and the request is answered. */
bool ops_guard_enter(struct ops_guard *guard, fuse_req_t req, struct description *description,
                     access_rights needed);

/* Enters without asking: for pages that the kernel writes back, and what is everybody's. */
void ops_guard_enter_unasked(struct ops_guard *guard, fuse_req_t req,
                             const struct description *description);

/* Enters for an open of `file`, or a change of its size without a descriptor.  Returns 0 or -errno, see
 * blocked_may_open(). */
int ops_guard_enter_open(struct ops_guard *guard, fuse_req_t req, struct server_file *file);

/* What a READ needs.  The kernel says whose read(2) it is, but for the pages of a mapping: those can be
 * stored to, and nobody asks again before the store.  So, where all else that is read is said
 * (class counted), they are for those who may write, if the descriptor is open for that. */
access_rights ops_guard_read_rights(const struct description *description,
                                    const struct fuse_file_info *fi);

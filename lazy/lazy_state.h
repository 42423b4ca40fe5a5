/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * lazy_state: what is kept for a description on behalf of processes that have not touched it yet.
 *
 * In K42 this is the kernel process object's LazyState with a StubFileLinuxServerHolder for each
 * descriptor (os/kernel/bilge/LazyState.H): before a fork the parent leaves a copy of its access
 * there, and the child takes it at the first touch.  Here the kernel's own descriptor table does the
 * carrying, so nothing is left behind *at fork*; but when a process ends (or closes) while its
 * children still have the descriptor, its handle is freed, and with it would go what a child's handle
 * derives from: the rights and the lineage.  That is what lazy_give_access() leaves behind, one
 * *holder* a handle, and lazy_reopen() looks up.
 *
 * A server with many short-lived children would leave a holder for each: only the newest
 * LAZY_HOLDERS_MAX are kept, but never one is dropped whose rights had been restricted (a child of it
 * must not get more than it had).  A dropped one costs a line of lineage, nothing else.
 *
 * A holder is the record of the handle that left it (struct kept_handle), which became a KEEP_HOLDER at
 * the same moment: so it survives the daemon, and at no time is there neither the one nor the other.  The
 * bound is in the description's record.
 *
 * Ownership: a lazy_state is reference counted with one atomic decrement whose returned value decides
 * (K42 read the count again after dropping the lock: a double free).  The description has one
 * reference, a lazy_reopen() under way another.  Its lock is a leaf.
 */
#include <glib.h>
#include <stdbool.h>

#include "cobj/xobj.h"

#define LAZY_HOLDERS_MAX 64

struct lazy_state;

struct lazy_holder {
        xhandle token;         /* the handle that was freed */
        xhandle parent;        /* its parent */
        pid_t pid;             /* its owner */
        uint64_t start_time;   /* of its owner */
        access_rights match, nomatch;
};

/* Holders are freed to `keep` (may be NULL).  `bound`: where it is, with a value, as long as anybody leaves
 * access behind; NULL: in the lazy_state, and `full` at first.  NULL if out of memory. */
struct lazy_state *lazy_state_new(struct keep *keep, access_rights full,
                                  _Atomic access_rights *bound);
struct lazy_state *lazy_state_ref(struct lazy_state *state);
void lazy_state_unref(struct lazy_state *state);
typedef struct lazy_state K42LazyState; /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42LazyState, lazy_state_unref)

/* Leaves access behind: the record of a handle, which is taken over in any case (as KEEP_HOLDER, or
 * freed).  Returns 0, or -ENOMEM if it was not possible (the lineage is then poorer;
 * rights that had been restricted are remembered as a bound for everybody instead). */
int lazy_give_access(struct lazy_state *state, struct kept_handle *kept);

/* Finds what was left by the handle `token`, or by process (pid, start_time; start_time 0 matches
 * any).  Returns true and a copy. */
bool lazy_state_find_token(struct lazy_state *state, xhandle token, struct lazy_holder *ret_holder);
bool lazy_state_find_pid(struct lazy_state *state, pid_t pid, uint64_t start_time,
                         struct lazy_holder *ret_holder);

/* The most that a caller whose parent is not known may get. */
access_rights lazy_state_bound(struct lazy_state *state);

unsigned lazy_state_holders(struct lazy_state *state);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * rights: what a process may do with a description, and how that shrinks.
 *
 * The rights are on the object handles (cobj/access_rights.h): `match` for its owner, `nomatch` for
 * what derives from it.  A handle that derives gets match & nomatch of its parent, and none at all if the parent
 * has not got DUPLICATE.  All that is done here only takes away.
 *
 * As long as nothing was taken from anybody on a description the kernel's own check of the access mode
 * says it all, and nothing is looked at.  From the first restriction on the description is *guarded*:
 * each operation is checked with the handle of its caller.  A process that has none yet (it has no
 * shim, or makes system calls of its own) gets one then, by the same rules as if it had sent
 * LAZY_REOPEN: so rights hold for whatever inherits, whether it knows of them or not.  On a guarded
 * description the sender's hint is not believed; the process tree is.  Who descends from nobody that
 * ever had a handle (a descriptor that was passed over a socket; an orphan) gets what nobody was denied,
 * lazy_state_bound().
 *
 * The order that makes a change complete: rights (or the limits of a process) shrink; then `guarded`
 * is set; then lazy_fence() is waited for.  Every operation that is not over by then, or begins later,
 * sees all of it.  A handle that was derived meanwhile may have missed it: so the change is made once
 * more after the wait.
 *
 * Locks: description.reopen_lock while a handle is looked for; nothing is held between calls.
 */
#include "lazy/description.h"
#include "lazy/protocol.h"

/* May thread `tid` do what needs all of `needed`?  Call it inside of lazy_fence().  Returns 0, or -EBADF as
 * for a descriptor that was not opened for it, or that is closed. */
int description_may(struct description *d, pid_t tid, access_rights needed);

/* Shrinks the handle's rights to `rights`, and what derives from it with them.  -EPERM if that is not a
 * subset of what it has; then nothing has changed. */
int handle_restrict(struct xobj *xobj, access_rights rights);
/* The same for those of `rights` that it has.  True if it had more. */
bool handle_shrink(struct xobj *xobj, access_rights rights);

/* From now on only this is given to what derives from the handle. */
void handle_withhold(struct xobj *xobj, access_rights rights);

/* Those of whom nobody knows from whom they have the description have `rights` at most. */
void description_limit(struct description *d, access_rights rights);

/* Nobody may do anything with the description any more.  Whoever touches it first now still gets a handle,
 * without rights: what he finds in the page cache, until that is taken away, is counted like anybody's. */
void description_revoke(struct description *d);
/* … and that is done: no more handles. */
void description_revoked(struct description *d);

/* Rights on all descriptions are looked at from now on: for a limit of a process, which can have any. */
void lazy_guard_all(struct lazy *lazy);

/* For descriptions and handles that an earlier daemon made: finds out what is to be guarded.  Before
 * there are threads. */
void lazy_guard_resumed(struct lazy *lazy);

/* The whole of WITHHOLD, as lazy/protocol.h specifies it. */
int lazy_withhold(struct lazy *lazy, pid_t tid, struct k42_withhold *message);

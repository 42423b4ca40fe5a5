/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * revoke: takes rights back, and returns when it is true.
 *
 * After one of these has returned with `done` no byte moves any more for whom it was taken from: what was
 * under way has been answered, later operations fail with EBADF, and no page that a mapping showed is
 * mapped any more: the next access asks the daemon, is refused, and is SIGBUS.  The steps, always in
 * this order:
 *
 *   1. rights are taken, so that operations that begin now are refused;
 *   2. the fence is waited for, so that those that began before are over; and 1 once more for handles
 *      that were derived meanwhile, until there are none;
 *   3. the kernel drops the pages of the files.  Dirty ones are written first, which is not refused: they
 *      were stored before.  A fault that was answered before 2 is over in the sense that its page is there, and
 *      dropped; one that comes later is refused.
 *
 * One thing cannot be done for a process or a handle: its mapping stays, and if somebody else who may, has
 * the file mapped, too, then a page that he brings in is there for both.  `mapped` says of how many files that
 * is so; revoking the file ends it.
 *
 * What can be taken depends on how data moves.  Where the kernel reads and writes by itself nothing
 * can; where it serves reads from its page cache only a file as a whole, for the cache knows no callers.
 *
 * Call these from a thread that serves no requests, with no lock held.  They wait up to `deadline`
 * (monotonic µs) for operations under way; `done` is false when some were not over then: everything
 * is taken all the same, and the call can be made again to go on waiting.
 */
#include "fusefs/mount.h"

struct revocation {
        /* who asks */
        uid_t uid;
        bool may_all;
        /* what */
        bool tree;  /* what descends from it, too */
        bool block; /* nor may it be opened (or open anything) any more */
        access_rights rights; /* to leave */
        bool strict; /* fail if that is not a subset (one handle only) */
        int64_t deadline;
        /* answers */
        unsigned handles, descriptions, processes; /* that something was taken from */
        bool done;
        unsigned mapped; /* files of which somebody else maps, and brings back, what was dropped */
        const char *error; /* words for what is returned, or NULL */
};

/* One handle, with `tree` all that derives from it by now as well.  Returns 0; -ENOENT; -EPERM; -EOPNOTSUPP. */
int revoke_handle(struct k42_mount *mount, xhandle token, struct revocation *what);

/* A process: all its handles, and what it has inherited and not touched yet.  With `tree` its
 * descendants, too.  Returns 0; -ESRCH; -EPERM; -EOPNOTSUPP; -ENOMEM. */
int revoke_process(struct k42_mount *mount, pid_t pid, struct revocation *what);

/* All that is open of a file; `path` is relative to the mount, without links.  Returns 0, or -errno. */
int revoke_file(struct k42_mount *mount, const char *path, struct revocation *what);

/* Ends what `block` began.  Return 0; -ENOENT if there was nothing; -EPERM; another -errno. */
int revoke_allow_file(struct k42_mount *mount, const char *path, struct revocation *what);
int revoke_allow_process(struct k42_mount *mount, pid_t pid, struct revocation *what);

/* WITHHOLD (lazy/protocol.h), for the process of thread `tid`.  Returns 0, or -errno as the message does. */
struct k42_withhold;
int revoke_withhold(struct k42_mount *mount, pid_t tid, struct k42_withhold *message);

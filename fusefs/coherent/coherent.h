/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * coherent: what others change in SOURCE, not through the mount, is seen through it at once.
 *
 * A fanotify mark on the backing file system tells of every change there.  A thread of its own
 * turns those that concern a node that the kernel knows into the invalidation of just that.  So the
 * kernel may believe for long what it knows, see timeouts.h.
 *
 * What is covered is decided per file system, when the first node on it is looked up: root, and
 * ext2, ext3, ext4, xfs, f2fs or tmpfs.  Others keep the short timeouts.
 *
 * What leaves no event (fanotify(7)), and what is done about it:
 *   stores into a mapping     the last close of the file does (FAN_CLOSE_WRITE), and timeouts.h
 *                             bounds how long regular files' attributes are believed
 *   access times              seen when the attributes are asked for the next time
 *   mounts below SOURCE       the thread polls /proc/self/mountinfo
 *   what happened while no daemon served the mount: the next one takes back everything that the
 *                             kernel believes, when it begins, like after a queue that overflowed
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fusefs/mount.h"

struct coherent;
struct server_file;

/* Marks SOURCE's file system and remembers what happens from here on; before the session, so that
 * nothing is told to the kernel that could change unseen.  *ret_coherent is NULL, and that is
 * logged if `-o coherent` was said, where it does not work.  mount->nodes is there.  Returns 0 or
 * -ENOMEM. */
int coherent_new(struct k42_mount *mount, struct coherent **ret_coherent);

/* Starts the thread; mount->channel is there.  Returns 0 or -errno; then coherent_active() is
 * false. */
int coherent_start(struct coherent *coherent);

/* Ends the thread; before the session ends, because the thread may wait for requests that are under
 * way.  If it waits too long (a request is stuck) the connection is ended; but not `for_good`, if the mount
 * goes on without this worker: then the thread is left to its fate.  NULL is ignored. */
void coherent_stop(struct coherent *coherent, bool for_good);
void coherent_free(
        struct coherent *coherent); /* when nobody serves requests any more; NULL is ignored */

/* True if changes by others in SOURCE's file system are seen.  All that follow take NULL, too. */
bool coherent_active(struct coherent *coherent);

/* True if they are in the file system of `file`.  May mark it: then the answer is false this time.
 */
bool coherent_covers(struct coherent *coherent, struct server_file *file);

/* The kernel itself writes to `file`, which is open as `fd`, for our callers (passthrough), or has stopped to:
 * what it writes would be told as if strangers did, at the price of an event and an invalidation for
 * each.  So while that is so nobody's writes to that file are told; see timeouts_opened_fast() for how
 * long its attributes are believed. */
void coherent_written_by_kernel(struct coherent *coherent, const struct server_file *file, int fd,
                                bool written);

/* A reply that lets the kernel believe something for long must not be out of date when it is sent,
 * for the invalidation may have gone past it.  So:
 *
 *     seen = coherent_seen(c);  look at the backing file;  make its node known;
 *     if (coherent_changed(c, node, seen)) then believe nothing of it: timeout 0
 *
 * The thread notes a change first and looks for the node afterwards; so one of both sees the other.
 */
uint64_t coherent_seen(struct coherent *coherent);
bool coherent_changed(struct coherent *coherent, const struct server_file *file, uint64_t seen);

/* How many messages to the kernel made it forget something; how many events were of others; how often
 * events were lost, or something was mounted, so that everything was taken back. */
uint64_t coherent_invalidations(struct coherent *coherent);
uint64_t coherent_foreign_events(struct coherent *coherent);
uint64_t coherent_resets(struct coherent *coherent);

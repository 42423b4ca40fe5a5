/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * resume: what was under way when the last daemon died is brought to its end.
 *
 * In this order, by one thread, before anybody else serves:
 *
 *   1. libfuse sees the mount's INIT again (channel_replay_init()).
 *   2. Replies that had been made are sent once more.  The kernel takes one, or does not wait for it any
 *      more: then it had got it before.  So nothing is in doubt about it, unless requests had been sent
 *      again since: a request that was dropped from the queue, because its caller was killed, looks the
 *      same.
 *   3. The kernel sends all again that it has no answer to, and they are served: an orphan that has a
 *      reply gives that; any other one takes back what it had raised or made, and runs again, with the facts in
 *      its slot (intent.h).  Until there is a request of another kind, or none.
 *   4. What has not come again has nobody who waits for it, and is resolved: what it had done is made true
 *      here, the rest is taken back; FORGETs are applied, which the kernel never sends again.
 *
 * A kernel that cannot send again (before Linux 6.9) waits for the answers all the same; the requests are
 * then served out of the buffers that the dead daemon had them read into.
 *
 * A request that was under way when REQUEST_CRASHES daemons crashed is answered with EIO: it may be what
 * crashes them.  So is one that was under way in REQUEST_KILLS daemons that somebody killed, which is mostly
 * mere chance, but may be its hunger for memory.
 */
#include "fusefs/mount.h"

/* mount->channel is new, and no thread serves yet.  Returns 0; -ENODEV if the mount has ended; or -errno, after
 * one line was logged. */
int resume_requests(struct k42_mount *mount, struct fuse_session *se);

/* A request that is executed again is counted once: its slot knows. */
extern const struct count_observer resume_count_observer;

/* The parts of it, for tests without a kernel. */
struct request;

/* Takes back the lookup counts that `request` has raised and the description that it made, of which the
 * kernel has not been told. */
void resume_undo(struct k42_mount *mount, struct request *request);

/* The kernel may have been told: lookup counts and description stay, and are in doubt. */
void resume_doubt(struct k42_mount *mount, struct request *request);

/* Applies what is left of a FORGET or BATCH_FORGET. */
void resume_forget(struct k42_mount *mount, struct request *request);

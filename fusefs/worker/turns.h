/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * turns: which of the session's threads reads the next request.
 *
 * The kernel gives requests to the threads that wait in read() in turn.  If all of them waited, one
 * request after the other would wake a thread whose caches are cold, on another processor as often
 * as not; so only a few wait there, and the others are parked.
 *
 * And while requests follow each other closely nobody waits there at all: to wake a thread costs
 * more than most requests do.  One thread, the poller, looks for the next request for a few
 * microseconds after each one (the network's word for that is busy polling, see SO_BUSY_POLL in
 * socket(7)); it stays the only reader while it serves a short one, as the leader does in the
 * Leader/Followers pattern (Schmidt et al., Pattern-Oriented Software Architecture 2).
 */
#include <stdbool.h>
#include <stdint.h>

struct turns;

/* A thread's own, all zero at first. */
struct turn {
        uint64_t polls; /* nonzero: it is the poller, and the word that says so */
};

/* `fd` is /dev/fuse; the caller's, for longer than the turns.  `busy_poll`: how long to look for the next
 * request, in microseconds; 0: never, nor is it done where there is one processor only.  `over` is asked, by
 * any thread and often, whether the session ends.  Starts a thread of its own, which takes no signals.
 * Returns 0 or -errno. */
int turns_new(int fd, unsigned busy_poll, bool (*over)(void *data), void *data,
              struct turns **ret_turns);

/* Ends the thread that turns_new() has started; from then on there is no poller.  Before turns_free(). */
void turns_stop(struct turns *turns);

/* Nobody uses them any more.  NULL is ignored. */
void turns_free(struct turns *turns);

/* Waits until the calling thread is to read: it then says turns_read() as soon as it has, whatever came of
 * that.  Returns as well when the session is over. */
void turns_wait(struct turns *turns, struct turn *turn);

/* The read has returned.  `may_last`: what it brought is a request that may take long by its nature, for
 * which nobody else is to wait. */
void turns_read(struct turns *turns, struct turn *turn, bool may_last);

/* What was read is done with. */
void turns_served(struct turns *turns, struct turn *turn);

/* The calling thread will not come back. */
void turns_leave(struct turns *turns, struct turn *turn);

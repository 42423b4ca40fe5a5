/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * teller: the thread that tells the kernel what the kernel may have to wait for.
 *
 * To take back a name or contents the kernel needs a lock that a process can hold while it waits for an
 * answer of ours.  It waits for it uninterruptibly: a worker that is killed meanwhile would never be dead,
 * because only the next worker can give that answer.  So this one thread does it, with a table of
 * descriptors of its own in which there is nothing but /dev/fuse: when the others are gone everything else
 * that the process had is closed, its locks are free, and the holder knows that the worker is as good as dead
 * (it looks for TELLER_NAME).
 */
#include <sys/uio.h>

#define TELLER_NAME "k42-teller"

struct teller;

/* Starts the thread on the /dev/fuse descriptor `fd`, which stays the caller's.  Returns 0 or -errno. */
int teller_start(int fd, struct teller **ret_teller);

/* Has the thread write a message, and waits for it, after those of others who came before.  Returns what writev()
 * does, or -errno.  Thread-safe; but not from a thread that serves a request: one of the others may wait for a
 * lock that the caller of that request holds. */
ssize_t teller_write(struct teller *teller, const struct iovec *iov, int count);

/* Ends the thread, after what it is doing.  NULL is ignored. */
void teller_stop(struct teller *teller);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * private_reopen: makes a description that a forked process has opened for itself take the place, for
 * the daemon, of the one that it inherited (K42: NON_SHARED, the process's own copy of the client
 * state).
 *
 * After a LAZY_REOPEN the process has a handle on the shared description, which derives from its
 * parent's.  Here its lineage and its rights go over to a new handle on the process's own description,
 * and the old one ends.  Nothing is taken on trust: the old handle must be the caller's.
 */
#include "lazy/description.h"
#include "lazy/protocol.h"

/* The whole of PRIVATE_REOPEN, as lazy/protocol.h specifies it: thread `tid` sent it on the new
 * description `d`.  `message` is checked, and filled in on success.  Returns 0 or -errno.  Takes
 * d->reopen_lock. */
int private_reopen(struct description *d, pid_t tid, struct k42_private_reopen *message);

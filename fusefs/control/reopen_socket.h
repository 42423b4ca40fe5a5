/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * reopen_socket: REOPEN_BY_DAEMON (lazy/protocol.h), opens a file again for a process that still has it
 * open but has dropped the privileges to open it.
 *
 * A daemon that is a client of its own mount can deadlock: killed in the middle of such an open it
 * cannot end before its successor answers, which waits for its end.  So the daemon never has a
 * descriptor of its own mount, not even for a moment: when a datagram is there, a child process is
 * forked, which takes it, opens, answers and ends.  The child has nothing of the daemon but the
 * socket.
 *
 * At most WORKING_MAX children work at a time; datagrams wait in the socket then, and when that is full,
 * their senders.  Those that a descriptor keeps from ending are taken out of that number (reopen_socket.c).
 */
#include "fusefs/mount.h"

struct reopen_socket;

/* Makes the socket in the state directory and starts the thread; only a privileged daemon can open more
 * than its callers can, so for others nothing is done and *ret_socket is NULL.  Returns 0 or -errno, which
 * has been logged. */
int reopen_socket_start(struct k42_mount *mount, struct reopen_socket **ret_socket);

/* Ends it; while the mount is still served, as children may be in the middle of an open.  NULL is
 * ignored. */
void reopen_socket_stop(struct reopen_socket *reopen_socket);

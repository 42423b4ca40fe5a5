/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * session: the threads that serve the mount, and the mount's end.
 *
 * The threads are our own, a fixed number of them around fuse_session_receive_buf() and
 * fuse_session_process_buf(): each has a buffer for its life, and they can be ended at a request
 * boundary, which loop_mt (that cancels threads) cannot promise.
 */
#include "fusefs/mount.h"

/* Starts the threads on mount->fuse_fd, which is the session's from then on; returns when the kernel has
 * taken the INIT reply, so that the mount answers.  `ended` is called once, from a thread of the session,
 * when the mount is gone (umount, abort).  Returns 0, or -errno with one line already logged and nothing left
 * mounted; -ENODEV, and no line, if the mount has ended while there was no worker. */
int session_start(struct k42_mount *mount, void (*ended)(void *data), void *data,
                  struct session **ret_session);

/* Waits for the requests under way and ends the threads; the mount stays, for the next worker.  Nothing
 * but the end of this process may follow. */
void session_pause(struct session *session);

/* Unmounts if that has not happened (lazily: open files answer ENOTCONN from then on), waits for the
 * requests under way, ends the threads and frees the session.  NULL is ignored. */
void session_stop(struct session *session);

/* The FUSE connection's number in /sys/fs/fuse/connections. */
unsigned session_connection(struct session *session);

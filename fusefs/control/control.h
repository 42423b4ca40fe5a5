/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * control: the socket in the state directory that k42ctl talks to; the protocol is in
 * ctl/control_protocol.h.
 *
 * Served by the main thread's GMainContext with GSocketService; verbs that may block (they all wait
 * for the store) run in a small thread pool.  Peers are known by SO_PEERCRED: root and the mount's
 * owner see and may do everything, others see what belongs to their own uid.  A peer that sends
 * nonsense, too much, or nothing gets one error line, or is dropped; it never holds up another.
 */
#include "fusefs/mount.h"

/* Serves `fd`, the listening socket (control_listen.h), which is control's from then on.  `quit` asks main
 * to end the daemon (verb umount).  Returns 0 or -errno with one line logged. */
int control_start(struct k42_mount *mount, int fd, void (*quit)(void *data), void *data,
                  struct control **ret_control);

/* Takes no requests any more; those that were begun go on.  NULL is ignored, in all three. */
void control_shut(struct control *control);

/* After control_shut(): waits for the requests that were begun, for `timeout_us` at most.  False if one is
 * stuck (in /proc, where a process that hangs in a file system of its own can hold it up). */
bool control_settle(struct control *control, int64_t timeout_us);

void control_stop(struct control *control);

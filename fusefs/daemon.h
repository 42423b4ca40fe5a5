/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * daemon: going into the background, and where messages go.
 */
#include <stdbool.h>

struct daemon_start;

/* Messages (g_warning() and the like) become lines "k42fs: MESSAGE" on stderr, and in syslog(3) once
 * the daemon is in the background.  Call it first. */
void daemon_log_init(void);

/* Says a line in the same place, for the holder's loop: allocates nothing (syslog(3) aside) and knows
 * no GLib. */
void daemon_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Messages go to syslog(3) from now on, and the terminal is let go. */
void daemon_detach(void);

/* Forks unless `foreground`.  In the parent it does not return: the parent waits until the child says
 * daemon_started() or ends, and exits with the status that this gives.  Call it before there are
 * threads, descriptors that must not be shared, or a database. */
struct daemon_start *daemon_fork(bool foreground);

/* In the child: tells the waiting parent that all is well, after daemon_detach(). In the foreground
 * nothing but an end of `start`. */
void daemon_started(struct daemon_start *start);

/* In the child, when it could not start: tells the parent the exit status. */
void daemon_failed(struct daemon_start *start, int status);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * holder: the process that owns the mount and outlives those who serve it.
 *
 * It makes what must outlive a worker (state directory, control socket, mount, /dev/fuse), starts a worker
 * by executing its own program again, and does nothing but wait: for the worker's death, after which it
 * starts the next one; for signals; and for what the worker says on the link (link.h).
 *
 * From the start of the first worker to the end of the mount it is a state machine (holder_machine.c) with
 * one thread, no memory allocation, no GLib and no SQLite, so that no bug of a worker's can reach it.
 *
 * Beside the worker that serves there is one in waiting (holder_waiting.c), started ahead, which takes over
 * when that one dies: starting a program takes longer than all that it has to do then.
 *
 * Deaths.  A worker that dies is replaced at once, unless deaths are in a row.  There are two rows:
 *
 *   counter    one more when a worker                          0 again when a worker
 *   early      died before it had answered a request           has answered one
 *   failures   (of those) was not killed from outside          has answered one
 *   crashes    died of anything but SIGKILL, in less than      has been ready for 10 s
 *              10 s after it was ready
 *
 * From the sixth early death or crash on the next worker is started after a pause that doubles each time.
 * After HOLDER_FAILURES_MAX failures or crashes, or HOLDER_EARLY_MAX early deaths of any kind, the holder gives
 * up: it unmounts, removes the state directory and exits with status 1.  A SIGKILL that it did not send is
 * somebody outside.  That says nothing of the worker, and on a busy machine it meets many that have only begun.
 *
 * The holder's own end.  SIGTERM and SIGINT (SIGHUP in the foreground) end the mount cleanly; with -o
 * fdstore SIGTERM ends only the daemon, and a new holder that gets the descriptors from the service manager goes
 * on with the mount (service.h).  If the holder is killed the worker ends the mount, or, with -o fdstore,
 * only itself.
 */
#include "fusefs/daemon.h"
#include "fusefs/mount.h"

#define HOLDER_FAILURES_MAX 15
#define HOLDER_EARLY_MAX    100 /* with the pauses more than seven minutes */

/* The daemon's life.  `program`: argv[0].  `start`: from daemon_fork(), its end is the holder's.  Returns
 * the exit status, after a line if it is not 0. */
int holder_run(struct k42_options *options, const char *program, struct daemon_start *start);

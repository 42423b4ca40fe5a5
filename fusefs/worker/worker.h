/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * worker: the process that serves the mount, from the descriptors that the holder started it with (link.h)
 * to the mount's end, or its own.
 *
 * A worker that is asked to end (SIGTERM, SIGINT, SIGHUP in the foreground, `k42ctl umount`) passes that on
 * to the holder, which tells it to end the mount.  When the holder dies before it, the worker ends the mount
 * cleanly and clears up, so that no dead mount is left: nobody would start the next worker.
 *
 * The holder starts a worker before it needs it.  What does not depend on the mount's state is done at once;
 * then the worker waits for its turn, under the name WORKER_WAITING_NAME, with no part in the mount.
 */

#define WORKER_WAITING_NAME "k42fs-waiting"

/* `argc`, `argv`: as k42_options_format() made them, without the mode.  Returns the exit status. */
int worker_run(int argc, char **argv);

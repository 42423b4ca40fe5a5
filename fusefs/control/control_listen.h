/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * control_listen: the control socket and the link by which k42ctl finds it.
 *
 * Both are the holder's and outlive the workers: a request that comes while there is no worker waits in the
 * socket's queue for the next one.
 */
#include <sys/types.h>

#include "fusefs/state_dir.h"

#define CONTROL_BACKLOG 64

/* Makes the socket `control` in the state directory and listens on it.  Returns 0 and the descriptor
 * (non-blocking, the caller's), or -errno with one line logged and nothing left. */
int control_listen(struct state_dir *dir, int *ret_fd);

/* Takes the socket's name away: whoever comes now learns that there is no daemon. */
void control_unlisten(struct state_dir *dir);

/* The link control_device_link() to the directory of the mount with st_dev `dev`.  That it cannot be made
 * is no error: k42ctl asks the mount then. */
void control_make_device_link(struct state_dir *dir, dev_t dev);
void control_remove_device_link(struct state_dir *dir, dev_t dev); /* if it is ours */

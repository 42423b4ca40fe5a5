/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * mount_point: checks, mounts and unmounts.  libfuse could mount too; but then it also owns the
 * mount, prints its own lines and unmounts whatever is at the path in the end.
 */
#include "fusefs/mount.h"

/* Resolves and checks SOURCE and MOUNTPOINT as the user gave them, and sets options->source and
 * options->mountpoint.  Returns 0, or -errno with one line logged: missing or not a directory, a dead
 * FUSE mount (the line says how to clear it), already a k42fs mount, or MOUNTPOINT inside SOURCE. */
int mount_point_check(struct k42_options *options, const char *source, const char *mountpoint);

/* Mounts options->source's mirror: mount(2) for root, fusermount3 else.  On success the connection's
 * /dev/fuse descriptor (the caller's) and the mount's own st_dev.  Returns 0, or -errno with one line
 * logged and nothing mounted. */
int mount_point_mount(const struct k42_options *options, int *ret_fd, dev_t *ret_dev);

/* Takes the mount with st_dev `dev` off the mount point, lazily; if something else is mounted over
 * it, or it is gone already, nothing happens.  `ended`: the connection has ended, by umount (then the
 * number may belong to somebody else's new mount by now) or by abort (then a dead mount is left): only
 * a dead mount is taken off. */
void mount_point_unmount(const char *mountpoint, dev_t dev, bool ended);

/* Has the mount whose connection is open as `fuse_fd` (-1: as nothing) been taken off, or aborted?  Its number may
 * be somebody else's then. */
bool mount_point_ended(int fuse_fd);

/* Ends the connection of the mount with st_dev `dev`, which must not have ended: every request that waits fails, with
 * ECONNABORTED or ENOTCONN.  By fusectl (Documentation/filesystems/fuse.rst), or if nobody has mounted that, by a
 * forced umount.  For root.  Returns 0 or -errno. */
int mount_point_abort(const char *mountpoint, dev_t dev);

/* True if the topmost mount at `mountpoint` has st_dev `dev`.  Asks the kernel only. */
bool mount_point_is(const char *mountpoint, dev_t dev);

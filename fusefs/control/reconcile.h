/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * reconcile: makes the handles equal to what processes have open, where the daemon was not told.
 *
 * RELEASE comes when the last copy of a descriptor is closed.  With FLUSH off the daemon hears
 * nothing when a process closes its copy while another process keeps one, so that process would go
 * on having a handle.  This looks at /proc and ends such handles.
 *
 * When it cannot be decided (a process has two handles on one inode, opened alike, and one
 * descriptor is left) all are kept; a handle goes when no descriptor of its inode and access mode,
 * and no mapping of the inode, is left in its process.  Processes that /proc does not show us are
 * left alone.
 */
#include "fusefs/mount.h"

/* Blocks, mostly for as long as it takes to read /proc of the processes that have handles, at most
 * for a quarter of a second more.  Any thread that serves no FUSE requests; callers that come while
 * another one is at work share the next round. */
void reconcile_handles(struct k42_mount *mount);

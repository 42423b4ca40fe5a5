/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * state_files: what a daemon has in its state directory, and how to clear up after a dead one.
 */
#include <stdbool.h>

/* Names, ended by NULL.  The first are of no use once the mount has ended; the database can be somebody
 * else's, see fusefs/state_dir.c. */
extern const char *const state_mount_files[];
extern const char *const state_db_files[];

#define STATE_LOCK_NAME "lock"
#define STATE_MADE      "made\n" /* what `lock` says if the daemon made the directory */

/* Removes what a dead daemon left in the directory `dirfd`.  Returns 0; -ENOENT when there is no lock, so
 * that no daemon of ours was here (any more); -EBUSY when one lives; another -errno.  `ret_made`: the
 * directory was made by the daemon, and is to be removed with rmdir() (it may not be empty). */
int state_files_clear_dead(int dirfd, bool *ret_made);

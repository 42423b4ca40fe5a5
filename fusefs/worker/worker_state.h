/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * worker_state: the files of the state directory, as a worker opens or goes on with them.
 *
 * What a mount goes on with is never worth its end: a file that is damaged, gone, or cannot be made
 * where it should be (a full disk, a directory that was removed) is made anew, in memory if need be,
 * and what was only there is stale.  One line of the log says so.  Only the file of a newer version is
 * left alone, because another program can go on with it.
 */
struct k42_mount;
struct requests;

/* Opens all of it: state_dir, requests, keep, journal, cobj, lazy and store of `mount`.  `requests_ahead`: from
 * requests_map_ahead() or NULL; it is used up.  Returns 0, or -errno after one line was logged.  Main thread,
 * before there are others. */
int worker_state_open(struct k42_mount *mount, struct requests *requests_ahead);

/* The session has begun: what only now is known is left with the holder. */
void worker_state_begun(struct k42_mount *mount);

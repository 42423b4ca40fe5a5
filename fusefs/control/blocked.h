/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * blocked: what is refused from now on, and remembered: files and processes that may not be opened, or
 * open, anything (`k42ctl revoke --block`, until `k42ctl allow`), what was withheld by processes, and nodes
 * that were withdrawn.
 *
 * A *withdrawn* node is one whose file was revoked.  Whoever opens the file later gets another node, and so
 * another inode of the kernel with pages of its own: mappings and descriptors of the old one must
 * never see bytes that were read on behalf of somebody else.  A withdrawn node is in no table of
 * identities, and opening it again (by a name that the kernel still believes, or through
 * /proc/self/fd) is answered with ESTALE, which makes the kernel look the name up once more.
 *
 * When all pages of it have been dropped once, it is *sealed*.  Processes that still map it can fill new
 * pages of its page cache, class cached: the kernel takes the data of a write(2) of whole pages into a page before it asks
 * us, and a refusal does not unmap it.  There is nothing of the file in such a page, and what it writes back
 * is acknowledged and thrown away.  (Refusing it would leave the page dirty for ever.)
 *
 * All of it must survive the daemon.  What belongs to handles, descriptions and nodes is in their records
 * (struct kept_handle, kept_description, kept_node) and comes back with them; the rest is in the file `blocked` of the state directory, which is replaced as a whole at every change:
 *
 *   k42fs blocked 1
 *   file DEV INO BTIME                      (decimal; BTIME in ns or "-")
 *   process PID START RIGHTS BEFORE INHERIT BLOCKED_BY
 *
 * A line that makes no sense is ignored and said; a process that has ended means nothing.
 *
 * Thread-safe; the lock is a leaf but for the file's system calls.
 */
#include "fusefs/mount.h"

struct server_file;
struct fs_stat;
struct blocked;

/* Reads the file if there is one.  Call it when nodes, descriptions and handles of an earlier daemon are back,
 * before there are threads.  Returns 0 or -ENOMEM. */
int blocked_new(struct k42_mount *mount, struct blocked **ret_blocked);
void blocked_free(struct blocked *blocked); /* NULL is ignored */

/* May the caller of `req` open `file`, or change its size?  0; -EACCES: it is blocked, or the caller is; -ESTALE: it was
 * withdrawn.  Call it inside of the fence.  With nothing blocked it costs three loads. */
int blocked_may_open(fuse_req_t req, struct server_file *file);

/* The file with this identity is blocked, or not any more.  Return 0 (allow: -ENOENT if it was not), or -ENOMEM. */
int blocked_add_file(struct blocked *blocked, const struct fs_stat *st);
int blocked_allow_file(struct blocked *blocked, const struct fs_stat *st);

/* Writes the file.  Returns 0 or -errno, what was there before being left. */
int blocked_save(struct blocked *blocked);

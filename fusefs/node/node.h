/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * What the rest of the daemon may know about nodes: the server objects that the kernel, or a handle,
 * knows.  The objects themselves are in server_file.h (everything) and dir_linux_fs.h (directories);
 * how they reach the backing store is in fs_file.h.
 */
#include "fusefs/mount.h"

/* Opens SOURCE as the root node.  Returns 0 or -errno with one line logged. */
int node_table_new(struct k42_mount *mount, struct node_table **ret_table);

/* Forgets everything that the kernel knew, and frees.  No handle may be left. */
void node_table_free(struct node_table *table);

uint32_t node_table_count(struct node_table *table);     /* instantiated server objects */
uint32_t node_table_fds(struct node_table *table);       /* node fds held now */
uint32_t node_table_fds_limit(struct node_table *table); /* the cache's bound */
uint32_t node_table_parked(struct node_table *table);    /* descriptors left with the holder */

/* The device and inode of the backing file behind a node's server object, as fstat on the mount and
 * /proc/PID/fdinfo show it. */
void node_identity(struct server_object *object, dev_t *ret_dev, ino_t *ret_ino);

/* The path of the node with this id (free with g_free()), or NULL if nobody knows it any more.  Any thread; takes
 * the locks of links only. */
char *node_table_describe(struct node_table *table, uint64_t id);

/* The operations, for fuse_session_new(). */
extern const struct fuse_lowlevel_ops k42_ops;

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * node_table: all nodes of the mount, by the kernel's id and by identity.  For the files that
 * implement nodes; everybody else has node.h.
 *
 * Looking up an id takes no lock.  Identities are in shards, each with its own lock, so that
 * lookups in different directories do not wait for each other.
 */
#include "cobj/id_table.h"
#include "fusefs/resume/doubt.h"
#include "fusefs/node/node.h"
#include "fusefs/resume/park.h"
#include "fusefs/node/plus_advice.h"
#include "fusefs/node/server_file.h"

#define NODE_SHARDS 64 /* a power of two */

struct node_shard {
        GMutex lock;
        struct hash files; /* struct server_file.by_identity; under lock */
};

struct node_table {
        struct k42_mount *mount; /* constant */
        struct id_table *ids;    /* constant */
        struct node_shard shards[NODE_SHARDS];
        struct node_fds fds;
        struct server_file *root; /* a reference; constant */
        atomic_uint count;        /* nodes */
        struct plus_advice plus_advice;
        struct parks parks;
        struct doubts doubts;
};

/* The node that the kernel calls `ino`, or NULL.  No reference, see server_file.h. */
struct server_file *node_table_file(struct node_table *table, fuse_ino_t ino);

/* The node that is known by this identity, with a reference, or NULL.  Takes a shard's lock only.
 */
struct server_file *node_table_find(struct node_table *table, dev_t dev, ino_t ino);

/* Steps through all nodes but the root: the next one, with a reference, or NULL at the end.
 * *cursor is 0 before the first call.  What is there all the time is met exactly once. */
struct server_file *node_table_next(struct node_table *table, uint32_t *cursor);

/* The node of the file with `st`, found or made, with a reference.  `fd` is O_PATH of that very
 * file and is taken over on success.  Returns 0 or -errno. */
int node_table_instantiate(struct node_table *table, const struct fs_stat *st, int fd,
                           struct server_file **ret_file);

/* The same for a new file that is open as `fd`, which stays the caller's.  Returns 1; 0 if file handles
 * do not work here, or the file is known already; or -errno. */
int node_table_instantiate_by_handle(struct node_table *table, const struct fs_stat *st, int fd,
                                     struct server_file **ret_file);

/* The node that `name` in the directory `dir`, whose descriptor is `dirfd`, is by now: found or made, with
 * a reference, and what it looks like.  Returns 0 or -errno. */
int node_table_lookup(struct node_table *table, const struct server_file *dir, int dirfd,
                      const char *name, struct fs_stat *ret_st, struct server_file **ret_file);

/* O_PATH of `name` in `dirfd`, where a mount may begin: a new descriptor or -errno, -ELOOP if it is
 * our own mount.  That is found out without asking a mount anything, for asking ourselves could
 * take the last thread that could answer. */
int node_table_open_at(struct node_table *table, int dirfd, const char *name);

/* Where files with this identity are. */
struct node_shard *node_table_shard(struct node_table *table, dev_t dev, ino_t ino);

/* Puts a node that came back into the table of identities; before there are threads. */
void node_table_rehash(struct server_file *file);

/* Takes the file out of the table of identities; a file that is not in it is ignored. */
void node_table_unhash(struct server_file *file);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * park: descriptors that are left with the holder, because what they refer to could not be opened again
 * when this daemon is gone.
 *
 * A node's, O_PATH:
 *   - its last name is about to be removed while somebody has it open; a directory always, as it may be
 *     somebody's working directory;
 *   - it is opened after that, or found to be in use a moment after that (an O_PATH descriptor or a
 *     watch on it does not need an open);
 *   - an O_TMPFILE that has no name yet.
 * A description's own, where there are no file handles to open its file by and rights or names may have
 * changed since: on an ordinary user's mount, and on file systems without handles.
 *
 * NODE_PARKED in the node's record is set before a descriptor is sent and cleared after it was taken
 * back, so that the next daemon asks for every one that there may be.  All of this is done before the
 * reply that makes it necessary.
 *
 * Nothing here fails: what cannot be parked does not survive this daemon, and is ESTALE then.
 */
#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct description;
struct node_table;
struct server_file;

/* Parks the node's descriptor `fd`, if it is not parked yet. */
void park_node(struct server_file *file, int fd);

/* Takes it back.  The node must not have been deleted meanwhile, or be being freed. */
void park_node_over(struct server_file *file);

/* What an earlier daemon parked of the node: a descriptor, or -ENOENT.  Before there are threads. */
int park_take_node(struct server_file *file);

/* The last name of `file` is about to be removed, or may be; `fd` is its descriptor.  Parks it if
 * somebody has it open. */
void park_before_removal(struct server_file *file, int fd);

/* The last name is gone; parks the descriptor `fd`, which is pinned, now or when the node is still there a
 * moment later. */
void park_after_removal(struct server_file *file, int fd);

/* A description of `file` was made, with the backing descriptor `fd` (-1: none, which only a file has that can be
 * opened by its handle); and is over. */
void park_opened(struct server_file *file, const struct description *description, int fd);
void park_released(struct server_file *file, const struct description *description);

/* A description of an earlier daemon has come back: it gets the descriptor that was parked for it, if there
 * is one.  Before there are threads. */
void park_resume_description(struct server_file *file, struct description *description);

/* Part of struct node_table. */
#define PARK_LATER_MAX 4096
struct parks {
        atomic_uint n;   /* descriptors that are parked */
        GSource *timer;  /* of the main context; NULL without a holder */
        GMutex lock;     /* a leaf; protects what follows */
        unsigned first, n_later;
        struct {
                uint64_t id;
                int64_t since; /* monotonic µs */
        } later[PARK_LATER_MAX]; /* removed, and perhaps not known any more; oldest first */
};

/* Main thread, before and after requests are served. */
void parks_init(struct node_table *table);
void parks_clear(struct node_table *table);

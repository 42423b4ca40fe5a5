/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * idle_backing: backing files whose last open is over, kept registered with the kernel for a moment in
 * case that the file is opened again, which saves two ioctls then.
 *
 * A registered file holds its inode, so that what others remove in SOURCE would not free its blocks: it
 * is kept for IDLE_SECONDS at most, and only IDLE_MAX of them.  What is removed through the mount is
 * let go at once (file_opens_drop()).  So many that a build, or who goes through a tree again and again,
 * finds them all; what they cost is memory of the kernel, no descriptors.
 *
 * The ring has a reference on each node in it.  A node is in it at most once (file_opens.idle), also
 * while it is open again, and knows where (server_file.idle_slot): it leaves a gap when it is removed.
 */
#include <glib.h>
#include <stdint.h>

struct k42_mount;
struct server_file;

#define IDLE_MAX     8192 /* server_file.idle_slot has room for it */
#define IDLE_SECONDS 1

struct idle_backing {
        GMutex lock; /* a leaf */
        struct {
                struct server_file *file; /* a reference; NULL: a gap */
                int64_t since;            /* monotonic µs */
        } ring[IDLE_MAX];
        unsigned first, n; /* oldest first, gaps included; all under lock */
        GSource *timer;    /* of the main context; looks at what is too old */
};

/* Main thread; before and after requests are served.  Ending gives the references back. */
void idle_backing_init(struct k42_mount *mount);
void idle_backing_clear(struct k42_mount *mount);

/* The node is out of the ring from now on, whether it was in it or not. */
void idle_backing_remove(struct k42_mount *mount, struct server_file *file);

/* The node's last use of its backing file is over; its file_opens.idle was just set. */
void idle_backing_add(struct k42_mount *mount, struct server_file *file);

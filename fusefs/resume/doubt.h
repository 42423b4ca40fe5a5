/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * doubt: nodes that the kernel may know less often than they were counted.
 *
 * When the daemon is killed around a reply, or with a FORGET in its hands, nobody can say whether the
 * kernel counted what we did.  Lookups are counted before the reply, so the count is never too low;
 * but it may be too high by a number that is known, the node's *doubt*, and then the last FORGET would
 * leave the node behind for ever.
 *
 * So when a FORGET leaves no more than the doubt, the node is watched.  If nothing happens to it for
 * DOUBT_QUIET_S, and no request that is under way names it, the kernel is asked (an invalidation of an inode
 * that it does not know is answered with ENOENT), and if it does not know the node, all that is left of
 * the count is given up, provided that it has not changed since.
 *
 * Why it is quiet for so long before: the kernel takes a reply from us, and wakes the caller, who puts
 * the node into the kernel's table when he gets to run.  In between the kernel does not know it yet.
 *
 * A list with a reference on each node; the timer is the main context's.  `lock` is a leaf.
 */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct k42_mount;
struct server_file;

#define DOUBT_QUIET_S 10

struct doubt_entry;

struct doubts {
        GMutex lock;
        struct doubt_entry *first; /* under lock */
        unsigned n;                /* under lock */
        GSource *timer;            /* NULL: there is none, as in tests */

        /* True if a request that is under way may make the kernel know the node; NULL: never.  Set before
         * requests are served. */
        bool (*raising)(void *data, uint64_t id);
        void *data;
};

/* The part of the mount's node table.  init: main thread; `timer`: look by oneself. */
void doubts_init(struct doubts *doubts, struct k42_mount *mount, bool timer);
void doubts_clear(struct doubts *doubts); /* gives the references up; requests are over */

/* `n` of the node's lookups may be none. */
void server_file_doubt(struct server_file *file, unsigned n);

/* The node's count is not more than its doubt. */
void doubt_add(struct server_file *file);

/* Looks at all nodes in doubt at the time `now` (monotonic µs); what the timer does. */
void doubts_look(struct k42_mount *mount, int64_t now);

unsigned doubts_count(struct doubts *doubts);

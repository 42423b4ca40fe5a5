/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * kept_node: what of a node and of its names outlives the daemon, as records of cobj/keep.h.
 *
 * What is in a record is nowhere else: the node points at its record and uses it in place.  So
 * there is nothing to write down before a reply but what the node does anyway, and the next daemon
 * finds the numbers as they were at the moment of the kill.
 *
 * Who may change what: everything without _Atomic is constant once the record is committed, with
 * two exceptions that are said below.  What is atomic is changed by single stores.
 *
 * What a kill can leave behind, and what the next daemon makes of it (node_resume.h):
 *   a node that no reply has named      its count is 0: freed when all requests are resolved
 *   a node that was being freed         NODE_DEAD: freed at once
 *   a link without its node             freed
 *   two links with one name             the backing directory is asked which one is right
 *   a name that is not true any more    harmless: names are verified when they are used
 *   a backing id that is not recorded   found by the number that was stored before, see
 * passthrough.c
 *
 * The root has a record, which is never committed: it is made anew each time.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "fusefs/node/fs_file.h"

enum node_flag {
        NODE_DELETED = 1 << 0,       /* its last name was removed through the mount */
        NODE_NAMELESS = 1 << 1,      /* an O_TMPFILE without a name yet: its descriptor is pinned */
        NODE_STORES_UNSEEN = 1 << 2, /* what changes it may go past us, see timeouts.h */
        NODE_UNHASHED = 1 << 3,      /* not in the table of identities any more */
        NODE_PARKED = 1 << 4,        /* its descriptor is with the holder, or about to be */
        NODE_BY_PATH = 1 << 5, /* the backing id is of an O_PATH descriptor, see passthrough.h */
        NODE_BACKING_CLOSING = 1 << 6, /* the backing id is being given back */
        NODE_DEAD = 1 << 7,            /* being freed: its id may be another's already */
        NODE_WITHDRAWN = 1 << 8, /* its file was revoked: nobody opens this node again, see blocked.h */
        NODE_SEALED = 1 << 9,    /* … and what is written back from it is not for the file any more */
        NODE_FAST = 1 << 10,     /* open with a backing file; what lost the opens is seen by it */
};

struct kept_node {
        uint64_t id;                /* what the kernel calls it */
        uint64_t dev, ino;          /* of the backing file */
        _Atomic int64_t btime;      /* changed under the shard's lock */
        _Atomic uint64_t nlookup;   /* how often replies have named it, less what was forgotten */
        _Atomic int32_t backing_id; /* > 0: registered with the kernel; < 0: about to be, as one
                                       above its negative.  Under file_opens.lock */
        _Atomic uint16_t flags;     /* of enum node_flag */
        _Atomic uint16_t doubt;     /* so many of nlookup the kernel may not know of, see doubt.h */
        uint16_t type;              /* S_IFMT; constant, like the room */
        uint8_t handle_room;        /* bytes in `handle` */
        _Atomic uint8_t handle_bytes; /* used of them; 0: no handle.  Under node_fd.lock, like the
                                         next two */
        int32_t handle_type;          /* changes only while handle_bytes is 0 */
        unsigned char handle[];       /* likewise */
};

/* A smaller record would not take less room in the keep. */
#define KEPT_NODE_SIZE 112

struct kept_link {
        uint64_t child, parent; /* node ids */
        atomic_bool listed;     /* false: the name was removed */
        char name[];            /* terminated */
};

static inline bool kept_node_has(const struct kept_node *kept, enum node_flag flag)
{
        return atomic_load((_Atomic uint16_t *)&kept->flags) & flag;
}

/* Both return whether it was set before. */
static inline bool kept_node_set(struct kept_node *kept, enum node_flag flag)
{
        return atomic_fetch_or(&kept->flags, (uint16_t)flag) & flag;
}

static inline bool kept_node_clear(struct kept_node *kept, enum node_flag flag)
{
        return atomic_fetch_and(&kept->flags, (uint16_t)~flag) & flag;
}

/* The handle; node_fd.lock is held, or nobody else knows the node yet. */
static inline bool kept_node_has_handle(const struct kept_node *kept)
{
        return atomic_load((_Atomic uint8_t *)&kept->handle_bytes) > 0;
}

/* False if it has no room for it. */
static inline bool kept_node_set_handle(struct kept_node *kept, const union fs_handle *handle)
{
        if (handle->handle.handle_bytes > kept->handle_room)
                return false;
        kept->handle_type = handle->handle.handle_type;
        memcpy(kept->handle, handle->handle.f_handle, handle->handle.handle_bytes);
        atomic_store(&kept->handle_bytes, (uint8_t)handle->handle.handle_bytes);
        return true;
}

static inline void kept_node_drop_handle(struct kept_node *kept)
{
        atomic_store(&kept->handle_bytes, 0);
}

static inline void kept_node_get_handle(const struct kept_node *kept, union fs_handle *ret_handle)
{
        ret_handle->handle.handle_bytes = atomic_load((_Atomic uint8_t *)&kept->handle_bytes);
        ret_handle->handle.handle_type = kept->handle_type;
        memcpy(ret_handle->handle.f_handle, kept->handle, ret_handle->handle.handle_bytes);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * Server objects, object handles and xhandles: K42's COBJ layer (lib/libc/cobj).
 *
 * A *server object* is something that clients can hold (here: a file or directory, but this layer
 * does not know).  Holding it means to have an *object handle* for it: (server, xhandle).  The
 * *xhandle* is the 8-byte token of an entry in one table, the xobj: index and sequence number
 * (id_table.h).  A token that was freed, or forged, never resolves; one that is presented by another
 * process than its owner resolves with the `nomatch` rights instead of the `match` rights.
 *
 * With an xobj the server keeps *client data*: whatever it wants to know about this one client's use
 * of this one object.  Its common part is struct client_data; the server embeds it in its own.
 *
 * How a client gets a handle, as in K42:
 *
 *   give_access_by_server()        whoever decides that `client` gets access calls this
 *     -> ops->give_access_set_client_data()   the object makes client data of its own kind
 *       -> give_access_internal()    and has the xobj made, listed and journalled
 *
 * What survives the daemon of an xobj is its record (struct kept_handle), and the record is the only place
 * where it is: counters, sharing and rights are changed there and nowhere else, so they are exact
 * whenever the daemon is killed.  It is committed before anybody can find the handle, and ended before
 * xobj_free() returns, or it becomes what the handle leaves behind (ops->leaves()).
 *
 * How it goes: xobj_free() makes the token stale, takes the xobj off the lists, calls
 * ops->being_freed() exactly once, the last act, after which the client data is gone; and when it was
 * the object's last one, ops->exported_xobject_list_empty().
 *
 * Who keeps what alive: an xobj has a reference on its server object and on its client.  Its own
 * references: one for being in the table (dropped by xobj_free()), one for whoever got it from
 * xhandle_trans().  `being_freed` runs when the last one goes, so client data is safe to use while a
 * reference is held.
 *
 * Locks: server_object.xobj_lock protects the object's list, the client's list has a lock of its own
 * inside xobj.c; neither is held while ops are called.
 */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "cobj/access_rights.h"
#include "cobj/client.h"
#include "cobj/id_table.h"
#include "cobj/keep.h"

typedef uint64_t xhandle;
#define XHANDLE_NONE ID_NONE

struct server_object;
struct xobj;
struct cobj;

/* What a client holds. */
struct object_handle {
        struct server_object *server; /* borrowed: alive as long as the xhandle resolves */
        xhandle xh;
};

/* K42's useType (FileLinux.H), see lazy/lazy_reopen.h for the transitions. */
enum sharing {
        SHARING_LAZY_INIT,  /* re-opened, undecided */
        SHARING_NON_SHARED, /* one client uses the description */
        SHARING_SHARED,     /* several do */
};

enum io_class {
        IO_CLASS_CACHED,
        IO_CLASS_COUNTED,
        IO_CLASS_FAST,
};

enum xobj_type {
        XOBJ_FILE,
        XOBJ_DIR,
};

enum told {
        TOLD_READS,
        TOLD_READ_BYTES,
        TOLD_WRITES,
        TOLD_WRITE_BYTES,
        TOLD_MAPPINGS,
        TOLD_MAPPED_BYTES,
        TOLD,
};

/* What survives of a handle: a KEEP_HANDLE record.  The counters, `sharing` and `rights` are atomic, the
 * rest is constant after give_access_internal(). */
struct kept_handle {
        /* Filled in by give_access_internal(). */
        xhandle token;
        uint64_t client;         /* id of the client; ID_NONE: pid 0 */
        uint64_t start_time;     /* of the client's process, for when the client is gone */
        _Atomic uint64_t rights; /* KEPT_RIGHTS() */
        int32_t pid;             /* of the client */

        /* Filled in by the server before. */
        int32_t flags;       /* open(2) flags of the description */
        xhandle parent;      /* lineage: the handle that this one was derived from, or XHANDLE_NONE */
        uint64_t description; /* for the server: by what it finds again what this is a handle on */
        int64_t opened;      /* µs since the epoch */
        _Atomic uint64_t reads, read_bytes, writes, write_bytes; /* what the server saw itself */
        _Atomic uint32_t sharing; /* enum sharing */
        uint8_t type;        /* enum xobj_type */
        uint8_t io_class;    /* enum io_class */
        _Atomic uint8_t says;     /* 1: the client counts what it does itself, from some time on */
        uint8_t reserved;
        _Atomic uint64_t told[TOLD]; /* what the client says that it did besides */
};
G_STATIC_ASSERT(sizeof(struct kept_handle) <= 176); /* 192 bytes of the keep */

/* The sum of both, as everybody is shown it. */
struct counters {
        uint64_t reads, read_bytes, writes, write_bytes, mappings, mapped_bytes;
};
struct counters kept_handle_counters(const struct kept_handle *kept);


#define KEPT_RIGHTS(match, nomatch) ((uint64_t)(match) << 32 | (nomatch))
#define KEPT_MATCH(rights)          ((access_rights)((rights) >> 32))
#define KEPT_NOMATCH(rights)        ((access_rights)(rights))

/* The part of the client data that every server has.  client_data_init() makes the record, the server
 * fills in parent, description, flags, opened, sharing, type and io_class, then calls
 * give_access_internal(). */
struct client_data {
        struct kept_handle *kept; /* owned; constant */
        _Atomic bool dirty;       /* counters, sharing or rights changed since the store last looked */
};

struct server_object_ops {
        /* Makes client data of the object's own kind from `how` (what give_access_by_server() was
         * given) and calls give_access_internal().  Returns 0 or -errno, nothing left behind. */
        int (*give_access_set_client_data)(struct server_object *object, struct client *client,
                                           access_rights match, access_rights nomatch,
                                           const void *how, struct object_handle *ret_handle);
        /* The xobj's last act: frees its client data, the record included.  The token is stale already; everything else of
         * the xobj can still be read.  No lock held. */
        void (*being_freed)(struct server_object *object, const struct xobj *xobj);
        /* The handle is being ended: the last moment for its counters.  Called once, before the observer is
         * told.  No lock held; may be NULL. */
        void (*ending)(struct server_object *object, const struct xobj *xobj);

        /* The handle is being ended: what becomes of its record at the same moment.  KEEP_NONE (as if
         * this was NULL), or KEEP_HOLDER if the next daemon shall know that it was there; being_freed
         * then decides what becomes of the memory.  No lock held. */
        enum keep_type (*leaves)(struct server_object *object, const struct xobj *xobj);
        /* The object's last client is gone.  No lock held; may be NULL. */
        void (*exported_xobject_list_empty)(struct server_object *object);
        /* Reference counting of whatever the server object is embedded in. */
        void (*ref)(struct server_object *object);
        void (*unref)(struct server_object *object);
        /* Opens what the object stands for, which must be the very same, once more; `flags` as it was opened with
         * the first time, and never what they would create or change.  A new descriptor, or -errno, -ESTALE if
         * it cannot be found again.  May be NULL: -ESTALE. */
        int (*open_again)(struct server_object *object, int flags);
        /* By what the next daemon finds the object again; NULL, or 0: by nothing. */
        uint64_t (*id)(struct server_object *object);
        /* A name for people (a path relative to the mount's root, beginning with '/'); free with
         * g_free().  Never NULL; may be out of date the moment it is returned. */
        char *(*describe)(struct server_object *object);
};

/* Embedded in whatever clients can hold; server_object_init() before, server_object_clear() after. */
struct server_object {
        const struct server_object_ops *ops;
        GMutex xobj_lock;
        GQueue xobjs; /* of struct xobj.object_link, under xobj_lock */
};

void server_object_init(struct server_object *object, const struct server_object_ops *ops);
void server_object_clear(struct server_object *object); /* no xobj may be left */

/* Notices of the COBJ layer, for the journal; any may be NULL.  Called before the change can be seen
 * by the client (give) or after it cannot be used any more (freed); no lock held. */
struct cobj_observer {
        void (*client_new)(const struct client *client, void *data);
        void (*client_exited)(const struct client *client, void *data);
        void (*handle_given)(const struct xobj *xobj, void *data);
        void (*handle_freed)(const struct xobj *xobj, void *data);
        void *data;
};

/* The COBJ layer of one mount: the xhandle table and the clients.  The records are in `keep` (borrowed;
 * NULL: nothing survives).  Returns 0 or -errno. */
int cobj_new(const struct cobj_observer *observer, struct keep *keep, struct cobj **ret_cobj);
/* All handles must be gone.  NULL is ignored. */
void cobj_free(struct cobj *cobj);
typedef struct cobj K42Cobj; /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Cobj, cobj_free)

struct client_table *cobj_clients(struct cobj *cobj);
struct keep *cobj_keep(struct cobj *cobj); /* NULL if there is none */
uint32_t cobj_handle_count(struct cobj *cobj);

/* Gives `client` a handle of its own on `object`.  `how` is passed through to the object's
 * give_access_set_client_data(); `nomatch` must be a subset of `match` (-EINVAL).  The client must be
 * alive, or pid 0: -ESRCH otherwise.  Returns 0 or -errno, `ret_handle` set on success only. */
int give_access_by_server(struct server_object *object, struct client *client, access_rights match,
                          access_rights nomatch, const void *how, struct object_handle *ret_handle);

/* Makes the record of new client data, zeroed.  Returns 0 or -ENOMEM.  client_data_clear() frees it, if
 * it is still there. */
int client_data_init(struct cobj *cobj, struct client_data *data);
void client_data_clear(struct cobj *cobj, struct client_data *data);

/* For give_access_set_client_data() only: makes the xobj, commits its record, tells the observer, puts it
 * on the lists.  Takes over `data` on success. */
int give_access_internal(struct cobj *cobj, struct server_object *object, struct client *client,
                         access_rights match, access_rights nomatch, struct client_data *data,
                         struct object_handle *ret_handle);

/* Makes the xobj of a handle that an earlier daemon gave, under the same token; `data` is like that of
 * give_access_internal(), with the committed record.  The observer is not told.  Before there are other
 * threads; the client may have ended.  Returns 0, or -errno and nothing has changed. */
int xobj_resume(struct cobj *cobj, struct server_object *object, struct client *client,
                struct client_data *data);

/* The xobj behind `token`, if `caller` has all of `needed` on it: the match rights count if the
 * caller's process owns the handle, else the nomatch rights.  A reference is passed to the caller.
 * Returns 0, -ESTALE (freed, forged or none), or -EACCES. */
int xhandle_trans(struct cobj *cobj, xhandle token, const struct client *caller,
                  access_rights needed, struct xobj **ret_xobj);

/* As above, for the server's own purposes: without a caller and without a check of rights.  NULL if
 * the token is stale. */
struct xobj *cobj_get_xobj(struct cobj *cobj, xhandle token);

struct xobj *xobj_ref(struct xobj *xobj);
void xobj_unref(struct xobj *xobj);
typedef struct xobj K42Xobj; /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Xobj, xobj_unref)

xhandle xobj_token(const struct xobj *xobj);
struct server_object *xobj_object(const struct xobj *xobj);
struct client *xobj_client(const struct xobj *xobj);
struct client_data *xobj_client_data(const struct xobj *xobj);
void xobj_get_rights(const struct xobj *xobj, access_rights *ret_match, access_rights *ret_nomatch);

/* Shrinks the rights.  -EPERM if a new set is not a subset of the old one; -EINVAL if `nomatch` is
 * not a subset of `match`. */
int xobj_restrict(struct xobj *xobj, access_rights match, access_rights nomatch);

/* Ends the handle.  Returns false if the token was stale (somebody else ended it first). */
bool xobj_free(struct cobj *cobj, xhandle token);

/* Ends all handles of a client, as when its process has exited.  Returns how many. */
unsigned client_free_handles(struct cobj *cobj, struct client *client);

/* Calls fn with every handle; a reference is held meanwhile, no lock.  Handles that are there from
 * beginning to end are met exactly once, others at most once. */
void cobj_foreach_handle(struct cobj *cobj, void (*fn)(struct xobj *xobj, void *data), void *data);

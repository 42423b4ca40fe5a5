/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The xobj table and the two lists that every xobj is on: its object's and its client's.
 *
 * The life of an xobj:
 *
 *   give_access_internal()  makes it with two references, the table's and its own; lists it; looks
 *                           once more whether the client still lives, and ends it if not
 *   xobj_free()             whoever sets `ended` takes it off the lists, ends its record, then takes
 *                           the token out of the table (not before: its index may be another's from
 *                           then on, and two records would claim it) and drops the table's reference
 *   xobj_unref()            the last reference, decided by the value that the one decrement
 * returned, runs being_freed() and drops the references on object and client
 *
 * A client that exits is marked dead before its handles are ended, and a new handle is listed
 * before its client is checked: whichever comes first, one of the two sides sees the other.
 *
 * Locks: server_object.xobj_lock for the object's list; cobj.lock for all clients' lists, which are
 * touched once at the beginning and once at the end of a handle; rights are atomic.  None is held
 * while another is taken, or while ops or the observer are called.
 */
#include "cobj/xobj.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "cobj/client_private.h"

#define XHANDLES_MAX (1u << 30)

struct xobj {
        xhandle token;                /* constant once given */
        struct cobj *cobj;            /* constant */
        struct server_object *object; /* a reference */
        struct client *client;        /* a reference */
        struct client_data *data;     /* owned by the server object's ops */
        atomic_int refs;
        atomic_bool ended; /* by whoever sets it; then the token does not resolve any more */
        GList object_link; /* in server_object.xobjs, under its xobj_lock */
        GList client_link; /* in client.handles, under cobj.lock */
};

struct cobj {
        struct cobj_observer observer; /* constant */
        struct keep *keep;             /* borrowed; constant; may be NULL */
        struct id_table *xobjs;
        struct client_table *clients;
        GMutex lock; /* protects client.handles of all clients */
};

void server_object_init(struct server_object *object, const struct server_object_ops *ops)
{
        object->ops = ops;
        g_mutex_init(&object->xobj_lock);
        g_queue_init(&object->xobjs);
}

void server_object_clear(struct server_object *object)
{
        g_mutex_clear(&object->xobj_lock);
}

static void on_client_new(struct client *client, void *data)
{
        struct cobj *cobj = data;

        if (cobj->observer.client_new)
                cobj->observer.client_new(client, cobj->observer.data);
}

static void on_client_exited(struct client *client, void *data)
{
        struct cobj *cobj = data;

        client_free_handles(cobj, client);
        if (cobj->observer.client_exited)
                cobj->observer.client_exited(client, cobj->observer.data);
}

int cobj_new(const struct cobj_observer *observer, struct keep *keep, struct cobj **ret_cobj)
{
        struct cobj *cobj = calloc(1, sizeof *cobj);
        int r = -ENOMEM;

        if (!cobj)
                return -ENOMEM;
        g_mutex_init(&cobj->lock);
        cobj->observer = *observer;
        cobj->keep = keep;
        cobj->xobjs = id_table_new(1, XHANDLES_MAX);
        if (cobj->xobjs)
                r = client_table_new(on_client_new, on_client_exited, cobj, keep, &cobj->clients);
        if (r < 0) {
                cobj_free(cobj);
                return r;
        }
        keep_ids(cobj->xobjs, keep, KEEP_WORD_HANDLE_IDS);
        *ret_cobj = cobj;
        return 0;
}

void cobj_free(struct cobj *cobj)
{
        if (!cobj)
                return;
        client_table_free(cobj->clients);
        id_table_unref(cobj->xobjs);
        g_mutex_clear(&cobj->lock);
        free(cobj);
}

struct client_table *cobj_clients(struct cobj *cobj)
{
        return cobj->clients;
}

struct keep *cobj_keep(struct cobj *cobj)
{
        return cobj->keep;
}

uint32_t cobj_handle_count(struct cobj *cobj)
{
        return id_table_count(cobj->xobjs);
}

int give_access_by_server(struct server_object *object, struct client *client, access_rights match,
                          access_rights nomatch, const void *how, struct object_handle *ret_handle)
{
        if (!access_rights_subset(nomatch, match))
                return -EINVAL;
        if (!client_alive(client))
                return -ESRCH;
        return object->ops->give_access_set_client_data(object, client, match, nomatch, how,
                                                        ret_handle);
}

static void xobj_list(struct xobj *xobj)
{
        g_mutex_lock(&xobj->object->xobj_lock);
        g_queue_push_tail_link(&xobj->object->xobjs, &xobj->object_link);
        g_mutex_unlock(&xobj->object->xobj_lock);

        g_mutex_lock(&xobj->cobj->lock);
        g_queue_push_tail_link(&xobj->client->handles, &xobj->client_link);
        g_mutex_unlock(&xobj->cobj->lock);
}

/* Returns true if it was the object's last one. */
static bool xobj_unlist(struct xobj *xobj)
{
        bool last;

        g_mutex_lock(&xobj->cobj->lock);
        g_queue_unlink(&xobj->client->handles, &xobj->client_link);
        g_mutex_unlock(&xobj->cobj->lock);

        g_mutex_lock(&xobj->object->xobj_lock);
        g_queue_unlink(&xobj->object->xobjs, &xobj->object_link);
        last = g_queue_is_empty(&xobj->object->xobjs);
        g_mutex_unlock(&xobj->object->xobj_lock);
        return last;
}

int client_data_init(struct cobj *cobj, struct client_data *data)
{
        data->kept = keep_alloc(cobj->keep, sizeof *data->kept);
        return data->kept ? 0 : -ENOMEM;
}

void client_data_clear(struct cobj *cobj, struct client_data *data)
{
        keep_free(cobj->keep, g_steal_pointer(&data->kept));
}

/* An xobj with references on object and client and no id, on no list. */
static struct xobj *xobj_new(struct cobj *cobj, struct server_object *object, struct client *client,
                             struct client_data *data, int refs)
{
        struct xobj *xobj = calloc(1, sizeof *xobj);

        if (!xobj)
                return NULL;
        xobj->cobj = cobj;
        xobj->object = object;
        xobj->client = client;
        xobj->data = data;
        xobj->object_link.data = xobj;
        xobj->client_link.data = xobj;
        atomic_init(&xobj->refs, refs);
        object->ops->ref(object);
        client_ref(client);
        return xobj;
}

/* As if it had not been made. */
static void xobj_unmake(struct xobj *xobj)
{
        xobj->object->ops->unref(xobj->object);
        client_unref(xobj->client);
        free(xobj);
}

/* What the next daemon needs to know, from the moment on that somebody may know the token. */
static void commit_handle(struct xobj *xobj, access_rights match, access_rights nomatch)
{
        const struct client_info *info = client_info(xobj->client);
        struct kept_handle *kept = xobj->data->kept;

        kept->token = xobj->token;
        kept->client = info->id;
        kept->pid = info->pid;
        kept->start_time = info->start_time;
        atomic_store_explicit(&kept->rights, KEPT_RIGHTS(match, nomatch), memory_order_relaxed);
        keep_commit(kept, KEEP_HANDLE);
}

int give_access_internal(struct cobj *cobj, struct server_object *object, struct client *client,
                         access_rights match, access_rights nomatch, struct client_data *data,
                         struct object_handle *ret_handle)
{
        struct xobj *xobj = xobj_new(cobj, object, client, data, 2);
        int r;

        if (!xobj)
                return -ENOMEM;
        r = id_table_reserve(cobj->xobjs, &xobj->token);
        if (r < 0) {
                xobj_unmake(xobj);
                return r;
        }
        commit_handle(xobj, match, nomatch);
        /* Everybody who can find it finds it whole, listed, kept and in the journal. */
        if (cobj->observer.handle_given)
                cobj->observer.handle_given(xobj, cobj->observer.data);
        xobj_list(xobj);
        id_table_publish(cobj->xobjs, xobj->token, xobj);

        *ret_handle = (struct object_handle){.server = object, .xh = xobj->token};
        if (!client_alive(client))
                xobj_free(cobj, xobj->token);
        xobj_unref(xobj);
        return 0;
}

int xobj_resume(struct cobj *cobj, struct server_object *object, struct client *client,
                struct client_data *data)
{
        struct xobj *xobj = xobj_new(cobj, object, client, data, 1);
        int r;

        if (!xobj)
                return -ENOMEM;
        xobj->token = data->kept->token;
        r = id_table_restore(cobj->xobjs, xobj->token, xobj);
        if (r < 0) {
                xobj_unmake(xobj);
                return r;
        }
        atomic_store(&data->dirty, true);
        xobj_list(xobj);
        return 0;
}

static bool xobj_try_ref(void *object)
{
        struct xobj *xobj = object;

        if (atomic_load(&xobj->ended))
                return false;
        xobj_ref(xobj); /* in the table, so the table's reference is still there */
        return true;
}

struct xobj *cobj_get_xobj(struct cobj *cobj, xhandle token)
{
        return id_table_get_ref(cobj->xobjs, token, xobj_try_ref);
}

int xhandle_trans(struct cobj *cobj, xhandle token, const struct client *caller,
                  access_rights needed, struct xobj **ret_xobj)
{
        struct xobj *xobj = cobj_get_xobj(cobj, token);
        access_rights match, nomatch;

        if (!xobj)
                return -ESTALE;
        xobj_get_rights(xobj, &match, &nomatch);
        if (!access_rights_subset(needed, xobj->client == caller ? match : nomatch)) {
                xobj_unref(xobj);
                return -EACCES;
        }
        *ret_xobj = xobj;
        return 0;
}

struct xobj *xobj_ref(struct xobj *xobj)
{
        atomic_fetch_add_explicit(&xobj->refs, 1, memory_order_relaxed);
        return xobj;
}

void xobj_unref(struct xobj *xobj)
{
        struct server_object *object;

        /* q6: the value that the decrement returned decides, nothing that is read afterwards. */
        if (!xobj || atomic_fetch_sub_explicit(&xobj->refs, 1, memory_order_acq_rel) != 1)
                return;
        object = xobj->object;
        object->ops->being_freed(object, xobj);
        object->ops->unref(object);
        client_unref(xobj->client);
        free(xobj);
}

struct counters kept_handle_counters(const struct kept_handle *kept)
{
        uint64_t told[TOLD];

        for (unsigned i = 0; i < TOLD; i++)
                told[i] = atomic_load_explicit(&kept->told[i], memory_order_relaxed);
        return (struct counters){
                .reads = atomic_load(&kept->reads) + told[TOLD_READS],
                .read_bytes = atomic_load(&kept->read_bytes) + told[TOLD_READ_BYTES],
                .writes = atomic_load(&kept->writes) + told[TOLD_WRITES],
                .write_bytes = atomic_load(&kept->write_bytes) + told[TOLD_WRITE_BYTES],
                .mappings = told[TOLD_MAPPINGS],
                .mapped_bytes = told[TOLD_MAPPED_BYTES],
        };
}

xhandle xobj_token(const struct xobj *xobj)
{
        return xobj->token;
}

struct server_object *xobj_object(const struct xobj *xobj)
{
        return xobj->object;
}

struct client *xobj_client(const struct xobj *xobj)
{
        return xobj->client;
}

struct client_data *xobj_client_data(const struct xobj *xobj)
{
        return xobj->data;
}

void xobj_get_rights(const struct xobj *xobj, access_rights *ret_match, access_rights *ret_nomatch)
{
        const uint64_t rights = atomic_load(&xobj->data->kept->rights);

        *ret_match = KEPT_MATCH(rights);
        *ret_nomatch = KEPT_NOMATCH(rights);
}

int xobj_restrict(struct xobj *xobj, access_rights match, access_rights nomatch)
{
        _Atomic uint64_t *rights = &xobj->data->kept->rights;
        uint64_t old = atomic_load(rights);

        if (!access_rights_subset(nomatch, match))
                return -EINVAL;
        do {
                if (!access_rights_subset(match, KEPT_MATCH(old)) ||
                    !access_rights_subset(nomatch, KEPT_NOMATCH(old)))
                        return -EPERM;
        } while (!atomic_compare_exchange_weak(rights, &old, KEPT_RIGHTS(match, nomatch)));
        atomic_store(&xobj->data->dirty, true); /* the store shows the rights, too */
        return 0;
}

bool xobj_free(struct cobj *cobj, xhandle token)
{
        struct xobj *xobj = cobj_get_xobj(cobj, token);
        struct server_object *object;
        bool last;

        if (!xobj)
                return false;
        if (atomic_exchange(&xobj->ended, true)) {
                xobj_unref(xobj); /* somebody else was first */
                return false;
        }
        object = xobj->object;
        object->ops->ref(object); /* the notice below comes after the last act */
        last = xobj_unlist(xobj);
        if (object->ops->ending)
                object->ops->ending(object, xobj);
        if (cobj->observer.handle_freed)
                cobj->observer.handle_freed(xobj, cobj->observer.data);
        /* After that: a record of its end whose handle came back is not believed (store_rows.c), and
         * nothing tells of a handle that ended without one. */
        keep_commit(xobj->data->kept,
                    object->ops->leaves ? object->ops->leaves(object, xobj) : KEEP_NONE);
        id_table_free(cobj->xobjs, token);
        xobj_unref(xobj);
        xobj_unref(xobj); /* the table's */
        if (last && object->ops->exported_xobject_list_empty)
                object->ops->exported_xobject_list_empty(object);
        object->ops->unref(object);
        return true;
}

/* The token of a client's first handle, or XHANDLE_NONE. */
static xhandle first_handle(struct cobj *cobj, struct client *client)
{
        xhandle token = XHANDLE_NONE;
        GList *link;

        g_mutex_lock(&cobj->lock);
        link = g_queue_peek_head_link(&client->handles);
        if (link)
                token = ((struct xobj *)link->data)->token;
        g_mutex_unlock(&cobj->lock);
        return token;
}

unsigned client_free_handles(struct cobj *cobj, struct client *client)
{
        unsigned n = 0;
        xhandle token;

        while ((token = first_handle(cobj, client)) != XHANDLE_NONE) {
                if (xobj_free(cobj, token))
                        n++;
                else
                        g_thread_yield(); /* somebody else is taking it off the list right now */
        }
        return n;
}

void cobj_foreach_handle(struct cobj *cobj, void (*fn)(struct xobj *xobj, void *data), void *data)
{
        struct xobj *xobj;
        uint32_t cursor = 0;

        while ((xobj = id_table_next_ref(cobj->xobjs, &cursor, xobj_try_ref))) {
                fn(xobj, data);
                xobj_unref(xobj);
        }
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Descriptions and the client data of the handles on them.  Who owns what is in description.h.
 *
 * The delicate moment is the end of a handle, which can come from four sides at once: RELEASE (the
 * last copy of the descriptor is closed), the exit of the owner (the client table's watcher),
 * k42ctl (a row whose process no longer has the descriptor), and give_access_internal() itself when
 * the owner died meanwhile.  xobj_free() lets exactly one of them win, and
 * description_being_freed() runs once, as the last act.  What it finds decides what it leaves
 * behind: while the kernel still has the description somebody may inherit it, so the access is left
 * for them; after RELEASE nobody can.
 */
#include "lazy/description.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "lazy/lazy_private.h"
#include "lazy/lazy_state.h"

/* Ids are 32-bit indices; memory runs out long before this does. */
#define DESCRIPTIONS_MAX (1u << 30)

int lazy_new(struct cobj *cobj, struct lazy **ret_lazy)
{
        struct lazy *lazy = calloc(1, sizeof *lazy);

        if (!lazy)
                return -ENOMEM;
        lazy->cobj = cobj;
        lazy->descriptions = id_table_new(1, DESCRIPTIONS_MAX);
        if (!lazy->descriptions) {
                free(lazy);
                return -ENOMEM;
        }
        *ret_lazy = lazy;
        return 0;
}

void lazy_free(struct lazy *lazy)
{
        if (!lazy)
                return;
        id_table_unref(lazy->descriptions);
        free(lazy);
}

struct cobj *lazy_cobj(struct lazy *lazy)
{
        return lazy->cobj;
}

uint32_t lazy_description_count(struct lazy *lazy)
{
        return id_table_count(lazy->descriptions);
}

uint64_t lazy_reopens(struct lazy *lazy)
{
        return atomic_load_explicit(&lazy->reopens, memory_order_relaxed);
}

uint64_t lazy_gives(struct lazy *lazy)
{
        return atomic_load_explicit(&lazy->gives, memory_order_relaxed);
}

struct description *description_from_fh(struct lazy *lazy, uint64_t fh)
{
        return id_table_get(lazy->descriptions, fh);
}

struct description *description_ref(struct description *d)
{
        atomic_fetch_add_explicit(&d->refs, 1, memory_order_relaxed);
        return d;
}

void description_unref(struct description *d)
{
        if (!d || atomic_fetch_sub_explicit(&d->refs, 1, memory_order_acq_rel) != 1)
                return;
        if (atomic_load(&d->fd) >= 0)
                close(atomic_load(&d->fd));
        lazy_state_unref(d->left);
        d->object->ops->unref(d->object);
        g_mutex_clear(&d->dir_lock);
        g_mutex_clear(&d->reopen_lock);
        g_mutex_clear(&d->lock);
        free(d);
}

int description_install_fd(struct description *d, int fd)
{
        int none = -1;

        if (atomic_compare_exchange_strong(&d->fd, &none, fd))
                return fd;
        close(fd);
        return none; /* somebody was quicker */
}

int description_open_again(struct description *d)
{
        const struct server_object_ops *ops = d->object->ops;
        const int fd = ops->open_again ? ops->open_again(d->object, d->flags) : -ESTALE;

        return fd < 0 ? fd : description_install_fd(d, fd);
}

struct foreach {
        void (*fn)(struct description *d, void *data);
        void *data;
};

static void call_fn(uint64_t id, void *object, void *data)
{
        const struct foreach *foreach = data;

        foreach->fn(object, foreach->data);
}

void lazy_foreach_description(struct lazy *lazy, void (*fn)(struct description *d, void *data),
                              void *data)
{
        struct foreach foreach = {fn, data};

        id_table_foreach(lazy->descriptions, call_fn, &foreach);
}

/* A description with one reference and no fd, id or handle yet. */
static struct description *description_new(struct lazy *lazy, struct server_object *object,
                                           const struct description_how *how)
{
        struct description *d = calloc(1, sizeof *d);

        if (!d)
                return NULL;
        d->left = lazy_state_new(access_rights_from_open_flags(how->flags));
        if (!d->left) {
                free(d);
                return NULL;
        }
        atomic_init(&d->refs, 1);
        g_mutex_init(&d->dir_lock);
        g_mutex_init(&d->reopen_lock);
        g_mutex_init(&d->lock);
        g_queue_init(&d->handles);
        d->lazy = lazy;
        atomic_init(&d->fd, -1);
        d->flags = how->flags;
        d->type = how->type;
        d->io_class = how->io_class;
        d->opened = g_get_real_time();
        d->kernel_has_it = true;
        object->ops->ref(object);
        d->object = object;
        return d;
}

/* Gives the opener's handle.  A client that is gone by now, or was never visible, is pid 0: the
 * open itself is the kernel's affair, it only has no owner. */
static int description_give_opener(struct description *d, pid_t tid)
{
        struct client_table *clients = cobj_clients(d->lazy->cobj);
        const access_rights match = access_rights_from_open_flags(d->flags);
        const struct open_how how = {.description = d, .parent = XHANDLE_NONE};
        struct object_handle oh;
        int r = -ESRCH;

        for (int attempt = 0; r == -ESRCH && attempt < 2; attempt++) {
                g_autoptr(K42Client) client = NULL;

                r = client_table_get(clients, attempt == 0 ? tid : 0, &client);
                if (r < 0)
                        continue;
                r = give_access_by_server(d->object, client, match, match & RIGHT_DUPLICATE, &how,
                                          &oh);
                if (r == 0) {
                        d->opener = oh.xh;
                        d->opener_pid = client_info(client)->pid;
                }
        }
        return r;
}

int description_open(struct lazy *lazy, struct server_object *object,
                     const struct description_how *how, struct description **ret_description)
{
        struct description *d = description_new(lazy, object, how);
        int r;

        if (!d)
                return -ENOMEM;
        r = id_table_alloc(lazy->descriptions, d, &d->id);
        if (r < 0) {
                description_unref(d);
                return r;
        }
        r = description_give_opener(d, how->tid);
        if (r < 0) {
                id_table_free(lazy->descriptions, d->id);
                description_unref(d);
                return r;
        }
        atomic_store_explicit(&d->fd, how->fd, memory_order_release);
        *ret_description = d;
        return 0;
}

void description_release(struct description *d)
{
        GList *link;

        g_mutex_lock(&d->lock);
        d->kernel_has_it = false;
        g_mutex_unlock(&d->lock);
        id_table_free(d->lazy->descriptions, d->id);

        for (;;) {
                xhandle token = XHANDLE_NONE;

                g_mutex_lock(&d->lock);
                link = g_queue_pop_head_link(&d->handles);
                if (link) {
                        struct open_client_data *data = link->data;

                        data->linked = false;
                        token = data->token;
                }
                g_mutex_unlock(&d->lock);
                if (!link)
                        break;
                /* False when somebody else is ending it at this moment; then they finish it. */
                (void)xobj_free(d->lazy->cobj, token);
        }
        description_unref(d);
}

static void collect_one(uint64_t id, void *object, void *data)
{
        struct description **ret_one = data;

        *ret_one = object;
}

void lazy_release_all(struct lazy *lazy)
{
        for (;;) {
                struct description *d = NULL;

                id_table_foreach(lazy->descriptions, collect_one, &d);
                if (!d)
                        return;
                description_release(d);
        }
}

/* Sharing after a change of the number of handles; see lazy_reopen.h.  `added` is the new handle,
 * or NULL after one has gone. */
static void locked_update_sharing(struct description *d, struct open_client_data *added)
{
        const unsigned n = g_queue_get_length(&d->handles);

        if (added && n > 2) { /* the others are SHARED already */
                description_set_sharing(added, SHARING_SHARED);
        } else if (n == 2 && added) {
                for (GList *l = d->handles.head; l; l = l->next)
                        description_set_sharing(l->data, SHARING_SHARED);
        } else if (n == 1) {
                struct open_client_data *last = d->handles.head->data;

                if (atomic_load(&last->base.sharing) == SHARING_SHARED)
                        description_set_sharing(last, SHARING_NON_SHARED);
        }
}

void description_set_sharing(struct open_client_data *data, enum sharing sharing)
{
        if (atomic_exchange(&data->base.sharing, (int)sharing) != (int)sharing)
                atomic_store(&data->base.dirty, true);
}

/* Takes the client data off its description, if it is still on it. */
static void open_client_data_unlink(struct open_client_data *data)
{
        struct description *d = data->description;

        g_mutex_lock(&d->lock);
        if (data->linked) {
                g_queue_unlink(&d->handles, &data->link);
                data->linked = false;
                locked_update_sharing(d, NULL);
        }
        g_mutex_unlock(&d->lock);
}

int description_give_access_set_client_data(struct server_object *object, struct client *client,
                                            access_rights match, access_rights nomatch,
                                            const void *how, struct object_handle *ret_handle)
{
        const struct open_how *open_how = how;
        struct description *d = open_how->description;
        struct open_client_data *data = calloc(1, sizeof *data);
        struct object_handle oh;
        g_autoptr(K42Xobj) xobj = NULL;
        int r;

        if (!data)
                return -ENOMEM;
        data->base.parent = open_how->parent;
        data->base.flags = d->flags;
        data->base.type = d->type;
        data->base.io_class = d->io_class;
        data->base.opened = g_get_real_time();
        atomic_init(&data->base.sharing,
                    open_how->parent == XHANDLE_NONE ? SHARING_NON_SHARED : SHARING_LAZY_INIT);
        data->description = description_ref(d);
        data->client = client;
        data->link.data = data;

        r = give_access_internal(d->lazy->cobj, object, client, match, nomatch, &data->base, &oh);
        if (r < 0) {
                description_unref(d);
                free(data);
                return r;
        }
        /* From here on the handle can end at any time (its process exits), and `data` with it: only
         * a reference on the xobj makes it safe to go on. */
        r = xhandle_trans(d->lazy->cobj, oh.xh, client, RIGHTS_NONE, &xobj);
        if (r < 0)
                return -ESRCH;
        g_mutex_lock(&d->lock);
        data->token = oh.xh;
        data->linked = true;
        g_queue_push_tail_link(&d->handles, &data->link);
        locked_update_sharing(d, data);
        g_mutex_unlock(&d->lock);
        *ret_handle = oh;
        return 0;
}

void description_being_freed(struct server_object *object, const struct xobj *xobj)
{
        struct open_client_data *data = (struct open_client_data *)xobj_client_data(xobj);
        struct description *d = data->description;
        bool inheritable;

        open_client_data_unlink(data);
        g_mutex_lock(&d->lock);
        inheritable = d->kernel_has_it;
        g_mutex_unlock(&d->lock);
        if (inheritable) {
                const struct client_info *info = client_info(xobj_client(xobj));
                struct lazy_holder holder = {
                        .token = xobj_token(xobj),
                        .parent = data->base.parent,
                        .pid = info->pid,
                        .start_time = info->start_time,
                };

                xobj_get_rights(xobj, &holder.match, &holder.nomatch);
                if (lazy_give_access(d->left, &holder) == 0)
                        atomic_fetch_add_explicit(&d->lazy->gives, 1, memory_order_relaxed);
        }
        description_unref(d);
        free(data);
}

/* The handle that an operation of thread `tid` is accounted to; the caller holds d->lock. */
static struct open_client_data *locked_accountable(struct description *d, struct client *client)
{
        for (GList *l = d->handles.head; client && l; l = l->next) {
                struct open_client_data *data = l->data;

                if (data->client == client)
                        return data;
        }
        return d->handles.head ? d->handles.head->data : NULL;
}

static void description_count(struct description *d, pid_t tid, uint64_t bytes, bool is_write)
{
        g_autoptr(K42Client) client = NULL;
        struct open_client_data *data;

        g_mutex_lock(&d->lock);
        if (g_queue_get_length(&d->handles) > 1) {
                g_mutex_unlock(&d->lock);
                client = client_table_peek(cobj_clients(d->lazy->cobj), tid);
                g_mutex_lock(&d->lock);
        }
        data = locked_accountable(d, client);
        if (data) {
                int undecided = SHARING_LAZY_INIT;

                atomic_fetch_add_explicit(is_write ? &data->base.writes : &data->base.reads, 1,
                                          memory_order_relaxed);
                atomic_fetch_add_explicit(is_write ? &data->base.write_bytes
                                                   : &data->base.read_bytes,
                                          bytes, memory_order_relaxed);
                atomic_compare_exchange_strong(&data->base.sharing, &undecided,
                                               (int)SHARING_NON_SHARED);
                atomic_store_explicit(&data->base.dirty, true, memory_order_release);
        }
        g_mutex_unlock(&d->lock);
}

void description_count_read(struct description *d, pid_t tid, uint64_t bytes)
{
        description_count(d, tid, bytes, false);
}

void description_count_write(struct description *d, pid_t tid, uint64_t bytes)
{
        description_count(d, tid, bytes, true);
}

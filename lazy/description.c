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

#include "lazy/account.h"
#include "lazy/lazy_private.h"
#include "lazy/lazy_state.h"
#include "lazy/lineage.h"

/* Ids are 32-bit indices; memory runs out long before this does. */
#define DESCRIPTIONS_MAX (1u << 30)

int lazy_new(struct cobj *cobj, struct lazy **ret_lazy)
{
        struct lazy *lazy = calloc(1, sizeof *lazy);

        if (!lazy)
                return -ENOMEM;
        lazy->cobj = cobj;
        g_mutex_init(&lazy->dead_lock);
        g_mutex_init(&lazy->account_lock);
        g_mutex_init(&lazy->account_looks.lock);
        g_cond_init(&lazy->account_looks.ended);
        lazy->descriptions = id_table_new(1, DESCRIPTIONS_MAX);
        lazy->fence = fence_new();
        lazy->limits = process_limits_new();
        if (!lazy->descriptions || !lazy->fence || !lazy->limits) {
                lazy_free(lazy);
                return -ENOMEM;
        }
        keep_ids(lazy->descriptions, cobj_keep(cobj), KEEP_WORD_DESCRIPTION_IDS);
        *ret_lazy = lazy;
        return 0;
}

void lazy_free(struct lazy *lazy)
{
        if (!lazy)
                return;
        while (lazy->dead) {
                struct description *d = lazy->dead;

                lazy->dead = d->next_dead;
                free(d);
        }
        g_mutex_clear(&lazy->dead_lock);
        g_mutex_clear(&lazy->account_lock);
        g_mutex_clear(&lazy->account_looks.lock);
        g_cond_clear(&lazy->account_looks.ended);
        id_table_unref(lazy->descriptions);
        fence_free(lazy->fence);
        process_limits_free(lazy->limits);
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

struct fence *lazy_fence(struct lazy *lazy)
{
        return lazy->fence;
}

struct process_limits *lazy_limits(struct lazy *lazy)
{
        return lazy->limits;
}

uint64_t lazy_reopens(struct lazy *lazy)
{
        return atomic_load_explicit(&lazy->reopens, memory_order_relaxed);
}

uint64_t lazy_gives(struct lazy *lazy)
{
        return atomic_load_explicit(&lazy->gives, memory_order_relaxed);
}

/* For a state that is new. */
static void set_state(struct description *d, uint32_t state)
{
        atomic_store(&d->state, state);
        atomic_store(&d->kept->state, state);
}

/* The kernel named it, so it has it, if it was not released just before. */
static bool prove_held(struct description *d)
{
        uint32_t state = DESCRIPTION_HELD | DESCRIPTION_DOUBTFUL;

        if (!atomic_compare_exchange_strong(&d->state, &state, DESCRIPTION_HELD))
                return state == DESCRIPTION_HELD; /* somebody else was faster */
        atomic_store(&d->kept->state, DESCRIPTION_HELD);
        return true;
}

struct description *description_from_fh(struct lazy *lazy, uint64_t fh)
{
        struct description *d = id_table_get(lazy->descriptions, fh);

        if (!d || G_LIKELY(atomic_load_explicit(&d->state, memory_order_relaxed) ==
                           DESCRIPTION_HELD))
                return d;
        return prove_held(d) ? d : NULL;
}

struct description *description_ref(struct description *d)
{
        atomic_fetch_add_explicit(&d->refs, 1, memory_order_relaxed);
        return d;
}

/* The memory of one that was doubtful stays, see lazy_private.h. */
static void free_memory(struct description *d)
{
        struct lazy *lazy = d->lazy;

        if (!d->was_doubtful) {
                free(d);
                return;
        }
        g_mutex_lock(&lazy->dead_lock);
        d->next_dead = lazy->dead;
        lazy->dead = d;
        g_mutex_unlock(&lazy->dead_lock);
}

void description_unref(struct description *d)
{
        if (!d || atomic_fetch_sub_explicit(&d->refs, 1, memory_order_acq_rel) != 1)
                return;
        if (atomic_load(&d->fd) >= 0)
                close(atomic_load(&d->fd));
        lazy_state_unref(d->left);
        lineage_unref(atomic_exchange(&d->lineage, NULL));
        d->object->ops->unref(d->object);
        g_mutex_clear(&d->dir_lock);
        g_mutex_clear(&d->reopen_lock);
        g_mutex_clear(&d->lock);
        keep_free(cobj_keep(d->lazy->cobj), d->kept);
        free_memory(d);
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

struct description *description_make(struct lazy *lazy, struct server_object *object,
                                     struct kept_description *kept)
{
        struct description *d = calloc(1, sizeof *d);

        if (!d)
                return NULL;
        d->left = lazy_state_new(cobj_keep(lazy->cobj), access_rights_from_open_flags(kept->flags),
                                 &kept->bound);
        if (!d->left) {
                free(d);
                return NULL;
        }
        atomic_init(&d->refs, 1);
        atomic_init(&d->state, atomic_load(&kept->state));
        g_mutex_init(&d->dir_lock);
        g_mutex_init(&d->reopen_lock);
        g_mutex_init(&d->lock);
        g_queue_init(&d->handles);
        d->lazy = lazy;
        atomic_init(&d->fd, -1);
        d->object = object;
        d->kept = kept;
        d->id = kept->id;
        d->flags = kept->flags;
        d->type = (enum xobj_type)kept->type;
        d->io_class = (enum io_class)kept->io_class;
        d->opened = kept->opened;
        d->opener = atomic_load(&kept->opener);
        d->opener_pid = atomic_load(&kept->opener_pid);
        return d;
}

/* A new description and its record, without an id, which nobody sees yet. */
static struct description *description_new(struct lazy *lazy, struct server_object *object,
                                           const struct description_how *how)
{
        struct keep *keep = cobj_keep(lazy->cobj);
        struct kept_description *kept = keep_alloc(keep, sizeof *kept);
        struct description *d;

        if (!kept)
                return NULL;
        kept->object = object->ops->id ? object->ops->id(object) : 0;
        kept->opened = g_get_real_time();
        kept->flags = how->flags;
        kept->type = (uint8_t)how->type;
        kept->io_class = (uint8_t)how->io_class;
        atomic_init(&kept->state, DESCRIPTION_HELD);
        atomic_init(&kept->bound, access_rights_from_open_flags(how->flags));
        d = description_make(lazy, object, kept);
        if (d)
                object->ops->ref(object);
        else
                keep_free(keep, kept);
        return d;
}

void description_set_opener(struct description *d, xhandle token, const struct client *client)
{
        d->opener = token;
        d->opener_pid = client_info(client)->pid;
        atomic_store(&d->kept->opener_pid, d->opener_pid);
        atomic_store(&d->kept->opener, token);
}

/* What others get of a handle is what it has itself, unless its process withholds some of it. */
access_rights description_inherited(struct description *d, const struct client *client,
                                    access_rights match)
{
        const access_rights inherited =
                match & process_limits_inherit(d->lazy->limits, client_info(client)->pid);

        if (inherited != match) {
                lazy_state_limit(d->left, inherited);
                atomic_store(&d->guarded, true);
        }
        return inherited;
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
                r = give_access_by_server(d->object, client, match,
                                          description_inherited(d, client, match), &how, &oh);
                if (r == 0)
                        description_set_opener(d, oh.xh, client);
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
        d->kept->id = d->id;
        if (how->made)
                *how->made = d->id;
        /* Before its handle: there is never a handle without one. */
        keep_commit(d->kept, KEEP_DESCRIPTION);
        r = description_give_opener(d, how->tid);
        if (r < 0) {
                keep_commit(d->kept, KEEP_NONE);
                if (how->made)
                        *how->made = ID_NONE;
                id_table_free(lazy->descriptions, d->id);
                description_unref(d);
                return r;
        }
        atomic_store_explicit(&d->fd, how->fd, memory_order_release);
        *ret_description = d;
        return 0;
}

void description_end(struct description *d)
{
        GList *link;

        /* One that came back only to be released has none, and its id may be another's. */
        if (id_table_get(d->lazy->descriptions, d->id) == d)
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
        keep_commit(d->kept, KEEP_NONE);
        description_unref(d);
}

void description_release(struct description *d)
{
        set_state(d, 0);
        description_end(d);
}

void description_set_doubtful(struct description *d)
{
        d->was_doubtful = true;
        set_state(d, DESCRIPTION_HELD | DESCRIPTION_DOUBTFUL);
}

bool description_release_doubtful(struct description *d)
{
        uint32_t state = DESCRIPTION_HELD | DESCRIPTION_DOUBTFUL;

        if (!atomic_compare_exchange_strong(&d->state, &state, 0))
                return false;
        atomic_store(&d->kept->state, 0);
        description_end(d);
        return true;
}

static bool description_try_ref(void *object)
{
        struct description *d = object;
        int refs = atomic_load(&d->refs);

        /* In the table, but the kernel's reference may just be given back. */
        while (refs > 0)
                if (atomic_compare_exchange_weak(&d->refs, &refs, refs + 1))
                        return true;
        return false;
}

static bool description_try_ref_doubtful(void *object)
{
        const struct description *d = object;

        return (atomic_load(&d->state) & DESCRIPTION_DOUBTFUL) && description_try_ref(object);
}

struct description *lazy_next_description(struct lazy *lazy, uint32_t *cursor)
{
        return id_table_next_ref(lazy->descriptions, cursor, description_try_ref);
}

struct description *lazy_next_doubtful(struct lazy *lazy, uint32_t *cursor)
{
        return id_table_next_ref(lazy->descriptions, cursor, description_try_ref_doubtful);
}

static void collect_one(uint64_t id, void *object, void *data)
{
        struct description **ret_one = data;

        *ret_one = object;
}

void lazy_release_all(struct lazy *lazy)
{
        client_table_stop(cobj_clients(lazy->cobj));
        for (;;) {
                struct description *d = NULL;

                id_table_foreach(lazy->descriptions, collect_one, &d);
                if (!d)
                        return;
                description_release(d);
        }
}

void description_locked_update_sharing(struct description *d, struct open_client_data *added)
{
        const unsigned n = g_queue_get_length(&d->handles);

        if (added && n > 2) { /* the others are SHARED already */
                description_set_sharing(added, SHARING_SHARED);
        } else if (n == 2 && added) {
                for (GList *l = d->handles.head; l; l = l->next)
                        description_set_sharing(l->data, SHARING_SHARED);
        } else if (n == 1) {
                struct open_client_data *last = d->handles.head->data;

                if (atomic_load(&last->base.kept->sharing) == SHARING_SHARED)
                        description_set_sharing(last, SHARING_NON_SHARED);
        }
}

void description_set_sharing(struct open_client_data *data, enum sharing sharing)
{
        if (atomic_exchange(&data->base.kept->sharing, sharing) != sharing)
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
                description_locked_update_sharing(d, NULL);
        }
        g_mutex_unlock(&d->lock);
}

/* Client data on the description, with a reference on it and no record yet. */
static struct open_client_data *open_client_data_new(struct description *d, struct client *client)
{
        struct open_client_data *data = calloc(1, sizeof *data);

        if (!data)
                return NULL;
        data->description = description_ref(d);
        data->client = client;
        data->link.data = data;
        return data;
}

/* With the record, if it has one. */
static void open_client_data_free(struct open_client_data *data)
{
        client_data_clear(data->description->lazy->cobj, &data->base);
        description_unref(data->description);
        free(data);
}

static void fill_record(struct kept_handle *kept, const struct description *d, xhandle parent)
{
        kept->parent = parent;
        kept->description = d->id;
        kept->flags = d->flags;
        kept->type = (uint8_t)d->type;
        kept->io_class = (uint8_t)d->io_class;
        kept->opened = g_get_real_time();
        atomic_init(&kept->sharing,
                    parent == XHANDLE_NONE ? SHARING_NON_SHARED : SHARING_LAZY_INIT);
}

/* The handle can be found by its description. */
static void link_handle(struct description *d, struct open_client_data *data, xhandle token)
{
        g_mutex_lock(&d->lock);
        data->token = token;
        data->linked = true;
        g_queue_push_tail_link(&d->handles, &data->link);
        description_locked_update_sharing(d, data);
        g_mutex_unlock(&d->lock);
}

int description_give_access_set_client_data(struct server_object *object, struct client *client,
                                            access_rights match, access_rights nomatch,
                                            const void *how, struct object_handle *ret_handle)
{
        const struct open_how *open_how = how;
        struct description *d = open_how->description;
        struct open_client_data *data = open_client_data_new(d, client);
        struct object_handle oh;
        g_autoptr(K42Xobj) xobj = NULL;
        int r;

        if (!data)
                return -ENOMEM;
        r = client_data_init(d->lazy->cobj, &data->base);
        if (r < 0) {
                open_client_data_free(data);
                return r;
        }
        fill_record(data->base.kept, d, open_how->parent);
        r = give_access_internal(d->lazy->cobj, object, client, match, nomatch, &data->base, &oh);
        if (r < 0) {
                open_client_data_free(data);
                return r;
        }
        /* From here on the handle can end at any time (its process exits), and `data` with it: only
         * a reference on the xobj makes it safe to go on. */
        r = xhandle_trans(d->lazy->cobj, oh.xh, client, RIGHTS_NONE, &xobj);
        if (r < 0)
                return -ESRCH;
        link_handle(d, data, oh.xh);
        *ret_handle = oh;
        return 0;
}

int description_resume_handle(struct description *d, struct client *client,
                              struct kept_handle *kept)
{
        struct open_client_data *data = open_client_data_new(d, client);
        int r;

        if (!data)
                return -ENOMEM;
        data->base.kept = kept;
        r = xobj_resume(d->lazy->cobj, d->object, client, &data->base);
        if (r < 0) {
                data->base.kept = NULL; /* the caller's */
                open_client_data_free(data);
                return r;
        }
        link_handle(d, data, kept->token);
        return 0;
}

/* While the kernel has the description somebody may inherit it. */
static bool inheritable(const struct description *d)
{
        return atomic_load(&d->state) & DESCRIPTION_HELD;
}

enum keep_type description_leaves(struct server_object *object, const struct xobj *xobj)
{
        const struct open_client_data *data = (const void *)xobj_client_data(xobj);

        return inheritable(data->description) ? KEEP_HOLDER : KEEP_NONE;
}

void description_ending(struct server_object *object, const struct xobj *xobj)
{
        account_end((struct open_client_data *)xobj_client_data(xobj));
}

void description_being_freed(struct server_object *object, const struct xobj *xobj)
{
        struct open_client_data *data = (struct open_client_data *)xobj_client_data(xobj);
        struct description *d = data->description;

        open_client_data_unlink(data);
        if (inheritable(d) &&
            lazy_give_access(d->left, g_steal_pointer(&data->base.kept)) == 0)
                atomic_fetch_add_explicit(&d->lazy->gives, 1, memory_order_relaxed);
        open_client_data_free(data);
}

/* The client's own handle, or NULL; the caller holds d->lock. */
static struct open_client_data *locked_own(struct description *d, const struct client *client)
{
        for (GList *l = d->handles.head; client && l; l = l->next) {
                struct open_client_data *data = l->data;

                if (data->client == client)
                        return data;
        }
        return NULL;
}

/* The counters are changed here only, under d->lock. */
static void locked_count(struct description *d, struct client_data *data, uint64_t bytes,
                         bool is_write)
{
        const struct count_observer *observer = d->lazy->observer;
        struct kept_handle *kept = data->kept;
        _Atomic uint64_t *ops_word = is_write ? &kept->writes : &kept->reads;
        _Atomic uint64_t *bytes_word = is_write ? &kept->write_bytes : &kept->read_bytes;
        const uint64_t ops = atomic_load_explicit(ops_word, memory_order_relaxed) + 1;
        const uint64_t all_bytes = atomic_load_explicit(bytes_word, memory_order_relaxed) + bytes;
        uint32_t undecided = SHARING_LAZY_INIT;

        if (observer && !observer->count(kept, is_write, ops, all_bytes, observer->data))
                return;
        atomic_store_explicit(ops_word, ops, memory_order_relaxed);
        atomic_store_explicit(bytes_word, all_bytes, memory_order_relaxed);
        if (observer)
                observer->counted(observer->data);
        atomic_compare_exchange_strong(&kept->sharing, &undecided, SHARING_NON_SHARED);
        atomic_store_explicit(&data->dirty, true, memory_order_release);
}

void lazy_set_count_observer(struct lazy *lazy, const struct count_observer *observer)
{
        lazy->observer = observer;
}

void lazy_set_count(struct lazy *lazy, xhandle token, bool is_write, uint64_t ops, uint64_t bytes)
{
        g_autoptr(K42Xobj) xobj = cobj_get_xobj(lazy->cobj, token);
        struct kept_handle *kept;

        if (!xobj)
                return;
        kept = xobj_client_data(xobj)->kept;
        atomic_store(is_write ? &kept->writes : &kept->reads, ops);
        atomic_store(is_write ? &kept->write_bytes : &kept->read_bytes, bytes);
        atomic_store(&xobj_client_data(xobj)->dirty, true);
}

/* Whose operation it is: NULL if that does not matter, as the only handle gets it, or cannot be found out. */
static struct client *caller_of(struct description *d, pid_t tid)
{
        struct client_table *clients = cobj_clients(d->lazy->cobj);
        struct client *client = NULL;
        bool several;

        if (d->io_class == IO_CLASS_COUNTED)
                return tid > 0 && client_table_get(clients, tid, &client) == 0 ? client : NULL;
        g_mutex_lock(&d->lock);
        several = g_queue_get_length(&d->handles) > 1;
        g_mutex_unlock(&d->lock);
        return several ? client_table_peek(clients, tid) : NULL;
}

/* Whether the client says itself what he does here. */
static bool is_told(const struct description *d, struct open_client_data *data, bool pages)
{
        return (pages || d->io_class != IO_CLASS_COUNTED) && atomic_load(&data->slot) != 0;
}

static void description_count(struct description *d, pid_t tid, uint64_t bytes, bool is_write,
                              bool pages)
{
        g_autoptr(K42Client) client = caller_of(d, tid);
        struct open_client_data *data;

        g_mutex_lock(&d->lock);
        data = locked_own(d, client);
        if (!data && client && d->io_class == IO_CLASS_COUNTED) {
                g_mutex_unlock(&d->lock);
                lazy_reopen_unasked(d, client);
                g_mutex_lock(&d->lock);
                data = locked_own(d, client);
        }
        if (!data && d->handles.head)
                data = d->handles.head->data;
        if (data && !is_told(d, data, pages))
                locked_count(d, &data->base, bytes, is_write);
        g_mutex_unlock(&d->lock);
}

void description_count_read(struct description *d, pid_t tid, uint64_t bytes)
{
        description_count(d, tid, bytes, false, false);
}

void description_count_write(struct description *d, pid_t tid, uint64_t bytes)
{
        description_count(d, tid, bytes, true, false);
}

void description_count_pages(struct description *d, pid_t tid, uint64_t bytes)
{
        description_count(d, tid, bytes, false, true);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Puts descriptions, handles and holders together again.  Records are taken in the order of their
 * age, because the lists that they are on have one: the first handle on a description is the one
 * that is accounted to in doubt, and the newest holders are the ones that stay.
 */
#include "lazy/lazy_resume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "lazy/lazy_private.h"
#include "lazy/account.h"
#include "lazy/lazy_state.h"

/* Pointers that grow. */
struct list {
        void **items;
        size_t n, room;
};

struct resume {
        struct lazy *lazy;
        struct keep *keep;
        struct list descriptions; /* by id */
        struct lazy_resumed done;
};

static int list_add(struct list *list, void *item)
{
        if (list->n == list->room) {
                const size_t room = list->room ? 2 * list->room : 256;
                void **items = reallocarray(list->items, room, sizeof *items);

                if (!items)
                        return -ENOMEM;
                list->items = items;
                list->room = room;
        }
        list->items[list->n++] = item;
        return 0;
}

static void list_sort(struct list *list, int (*compare)(const void *, const void *))
{
        if (list->n > 1)
                qsort(list->items, list->n, sizeof *list->items, compare);
}

static void drop(struct resume *resume, void *record)
{
        keep_free(resume->keep, record);
        resume->done.dropped++;
}

static int by_id(const void *a, const void *b)
{
        const struct description *one = *(struct description *const *)a;
        const struct description *other = *(struct description *const *)b;

        return (one->id > other->id) - (one->id < other->id);
}

static struct description *find_description(struct resume *resume, uint64_t id)
{
        struct description key = {.id = id}, *const key_pointer = &key;
        void **found = resume->descriptions.n == 0
                               ? NULL
                               : bsearch(&key_pointer, resume->descriptions.items,
                                         resume->descriptions.n, sizeof *found, by_id);

        return found ? *found : NULL;
}

static bool plausible_description(const struct kept_description *kept)
{
        return kept->id != ID_NONE && kept->type <= XOBJ_DIR && kept->io_class <= IO_CLASS_FAST;
}

/* Takes over the record on success. */
static int resume_description(struct resume *resume, struct kept_description *kept,
                              lazy_object_of object_of, void *data)
{
        struct server_object *object;
        struct description *d;
        int r;

        if (!plausible_description(kept))
                return -EBADMSG;
        object = object_of(kept->object, data);
        if (!object)
                return -ESTALE;
        d = description_make(resume->lazy, object, kept);
        if (!d) {
                object->ops->unref(object);
                return -ENOMEM;
        }
        d->dir_at = -1; /* a descriptor that was parked is where the dead daemon left it */
        d->was_doubtful = atomic_load(&d->state) & DESCRIPTION_DOUBTFUL;
        r = list_add(&resume->descriptions, d);
        /* The id of one whose RELEASE had begun may be another's already. */
        if (r == 0 && (atomic_load(&d->state) & DESCRIPTION_HELD)) {
                r = id_table_restore(resume->lazy->descriptions, d->id, d);
                if (r < 0)
                        resume->descriptions.n--;
        }
        if (r < 0) {
                d->kept = NULL; /* the caller's */
                description_unref(d);
        }
        return r;
}

static void resume_descriptions(struct resume *resume, lazy_object_of object_of, void *data)
{
        struct kept_description *kept;
        uint64_t cursor = 0;
        size_t size;

        while ((kept = keep_next(resume->keep, KEEP_DESCRIPTION, &cursor, &size))) {
                if (size < sizeof *kept || resume_description(resume, kept, object_of, data) < 0)
                        drop(resume, kept);
        }
        list_sort(&resume->descriptions, by_id);
}

static int by_age(const void *a, const void *b)
{
        const struct kept_handle *one = *(struct kept_handle *const *)a;
        const struct kept_handle *other = *(struct kept_handle *const *)b;

        return (one->opened > other->opened) - (one->opened < other->opened);
}

/* All records of handles of that type, the oldest first; what is not plausible is dropped. */
static void collect(struct resume *resume, enum keep_type type, struct list *list)
{
        struct kept_handle *kept;
        uint64_t cursor = 0;
        size_t size;

        while ((kept = keep_next(resume->keep, type, &cursor, &size))) {
                if (size < sizeof *kept || kept->token == XHANDLE_NONE || kept->type > XOBJ_DIR ||
                    kept->io_class > IO_CLASS_FAST ||
                    atomic_load(&kept->sharing) > SHARING_SHARED || list_add(list, kept) < 0)
                        drop(resume, kept);
        }
        list_sort(list, by_age);
}

static void resume_holders(struct resume *resume)
{
        struct list holders = {.items = NULL};

        collect(resume, KEEP_HOLDER, &holders);
        for (size_t i = 0; i < holders.n; i++) {
                struct kept_handle *kept = holders.items[i];
                struct description *d = find_description(resume, kept->description);

                if (!d)
                        drop(resume, kept);
                else if (lazy_give_access(d->left, kept) == 0)
                        resume->done.holders++;
                else
                        resume->done.dropped++;
        }
        free(holders.items);
}

/* Takes over the record in any case. */
static void resume_handle(struct resume *resume, struct kept_handle *kept)
{
        g_autoptr(K42Client) client =
                client_table_resumed(cobj_clients(resume->lazy->cobj), kept->client);
        struct description *d = find_description(resume, kept->description);

        if (d && client && description_resume_handle(d, client, kept) == 0) {
                resume->done.handles++;
                return;
        }
        /* Whose it was inherits no more than it had. */
        if (d) {
                (void)lazy_give_access(d->left, kept);
                resume->done.dropped++;
        } else {
                drop(resume, kept);
        }
}

static void resume_handles(struct resume *resume)
{
        struct list handles = {.items = NULL};

        collect(resume, KEEP_HANDLE, &handles);
        for (size_t i = 0; i < handles.n; i++)
                resume_handle(resume, handles.items[i]);
        free(handles.items);
}

/* When all are there: what a kill may have come before. */
static void settle_description(struct resume *resume, struct description *d)
{
        if (!(atomic_load(&d->state) & DESCRIPTION_HELD)) {
                description_end(d);
                return;
        }
        g_mutex_lock(&d->lock);
        description_locked_update_sharing(d, NULL);
        g_mutex_unlock(&d->lock);
        resume->done.descriptions++;
}

void lazy_resume(struct lazy *lazy, lazy_object_of object_of, void *data,
                 struct lazy_resumed *ret_resumed)
{
        struct resume resume = {.lazy = lazy, .keep = cobj_keep(lazy->cobj)};

        resume_descriptions(&resume, object_of, data);
        resume_holders(&resume);
        resume_handles(&resume);
        account_resume(lazy); /* before any of them ends */
        for (size_t i = 0; i < resume.descriptions.n; i++)
                settle_description(&resume, resume.descriptions.items[i]);
        free(resume.descriptions.items);
        if (resume.done.dropped > 0)
                g_warning("%u records of open files could not be used again, and were dropped",
                          resume.done.dropped);
        *ret_resumed = resume.done;
}

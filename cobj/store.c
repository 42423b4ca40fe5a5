/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The store's public functions, and the observer that feeds the journal.
 *
 * A caller never touches the database.  It puts a job on the writer's queue, wakes it through the
 * journal, and waits on `changed` until the job is done.  The observer runs on request threads: it
 * fills one record on its stack and appends it, no lock, no allocation.
 */
#include "cobj/store_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cobj/own_thread.h"

#define SPARSE 4 /* slots of an id map for each record of a batch */

static void client_record(struct journal *journal, enum journal_type type,
                          const struct client *client)
{
        const struct client_info *info = client_info(client);
        struct journal_record record = {.type = type};

        record.client.id = info->id;
        record.client.start_time = info->start_time;
        record.client.pid = info->pid;
        record.client.ppid = info->ppid;
        record.client.uid = info->uid;
        client_copy_names(client, record.client.comm, sizeof record.client.comm, record.client.exe,
                          sizeof record.client.exe);
        journal_append(journal, &record);
}

static void handle_record(struct journal *journal, enum journal_type type, const struct xobj *xobj,
                          int64_t closed)
{
        const struct kept_handle *data = xobj_client_data(xobj)->kept;
        struct journal_record record = {.type = type};
        const struct counters counters = kept_handle_counters(data);
        struct server_object *object = xobj_object(xobj);
        access_rights match, nomatch;

        xobj_get_rights(xobj, &match, &nomatch);
        record.handle.handle = xobj_token(xobj);
        record.handle.parent = data->parent;
        record.handle.client = client_info(xobj_client(xobj))->id;
        record.handle.opened = data->opened;
        record.handle.closed = closed;
        record.handle.reads = counters.reads;
        record.handle.read_bytes = counters.read_bytes;
        record.handle.writes = counters.writes;
        record.handle.write_bytes = counters.write_bytes;
        record.handle.mappings = counters.mappings;
        record.handle.mapped_bytes = counters.mapped_bytes;
        record.handle.says = atomic_load(&data->says);
        record.handle.object = object->ops->id ? object->ops->id(object) : 0;
        record.handle.flags = data->flags;
        record.handle.match = match;
        record.handle.type = data->type;
        record.handle.io_class = data->io_class;
        record.handle.sharing = (uint8_t)atomic_load(&data->sharing);
        journal_append(journal, &record);
}

static void on_client_new(const struct client *client, void *data)
{
        client_record(data, JOURNAL_CLIENT_NEW, client);
}

static void on_client_exited(const struct client *client, void *data)
{
        client_record(data, JOURNAL_CLIENT_EXITED, client);
}

static void on_handle_given(const struct xobj *xobj, void *data)
{
        handle_record(data, JOURNAL_HANDLE_GIVEN, xobj, 0);
}

static void on_handle_freed(const struct xobj *xobj, void *data)
{
        handle_record(data, JOURNAL_HANDLE_FREED, xobj, g_get_real_time());
}

void store_observer_init(struct cobj_observer *observer, struct journal *journal)
{
        *observer = (struct cobj_observer){
                .client_new = on_client_new,
                .client_exited = on_client_exited,
                .handle_given = on_handle_given,
                .handle_freed = on_handle_freed,
                .data = journal,
        };
}

/* Frees what store_alloc() and opening made; the writer is not running. */
static void store_destroy(struct store *s)
{
        store_close_db(s, false);
        id_map_clear(&s->given);
        id_map_clear(&s->new_clients);
        free(s->came_back);
        free(s->spilled);
        free(s->skip);
        free(s->batch);
        pthread_cond_destroy(&s->changed);
        pthread_mutex_destroy(&s->lock);
        g_free(s->path);
        g_free(s->wal_path);
        g_free(s->mountpoint);
        g_free(s->source);
        free(s);
}

static struct store *store_alloc(const struct store_config *config)
{
        struct store *s = calloc(1, sizeof *s);

        if (!s)
                return NULL;
        pthread_mutex_init(&s->lock, NULL);
        pthread_cond_init(&s->changed, NULL);
        s->path = g_strdup(config->path);
        s->wal_path = g_strconcat(config->path, "-wal", NULL);
        s->mountpoint = g_strdup(config->mountpoint);
        s->source = g_strdup(config->source);
        s->journal = config->journal;
        s->cobj = config->cobj;
        s->history = config->history;
        s->describe = config->describe;
        s->describe_data = config->describe_data;
        s->resume = s->adopting = config->resume;
        s->started = g_get_real_time();
        s->batch = calloc(STORE_BATCH, sizeof *s->batch);
        s->skip = calloc(STORE_BATCH, sizeof *s->skip);
        if (!s->batch || !s->skip || id_map_init(&s->given, SPARSE * STORE_BATCH) < 0 ||
            id_map_init(&s->new_clients, SPARSE * STORE_BATCH) < 0) {
                store_destroy(s);
                return NULL;
        }
        return s;
}

void store_init_process(void)
{
        sqlite3_initialize();
}

int store_open(const struct store_config *config, struct store **ret_store, char **ret_error)
{
        struct store *s = store_alloc(config);
        char *error = NULL;
        uint64_t head;
        bool exists = false;
        int r;

        if (!s) {
                *ret_error = g_strdup_printf("%s: cannot open the database: %s", config->path,
                                             g_strerror(ENOMEM));
                return -ENOMEM;
        }
        /* What is in the journal already counts as pending; others may be appending meanwhile. */
        do {
                head = journal_head(s->journal);
                s->consumed = head - journal_pending(s->journal);
        } while (head != journal_head(s->journal));

        r = s->resume ? 0 : store_check_file(s, &exists, &error);
        if (r == 0 && !s->resume)
                r = store_open_file(s, exists, &error);
        if (r == 0) {
                /* Handles that live already, should there be any. */
                s->refill = !s->resume && cobj_handle_count(s->cobj) > 0;
                r = own_thread_start(&s->thread, "k42-store", store_writer_main, s);
                if (r < 0)
                        error = g_strdup_printf("%s: cannot start the writer: %s", config->path,
                                                g_strerror(-r));
        }
        if (r < 0) {
                store_destroy(s);
                *ret_error = error;
                return r;
        }
        *ret_store = s;
        return 0;
}

void store_resume(struct store *s)
{
        store_resume_handles(s);
        pthread_mutex_lock(&s->lock);
        s->resumed = true;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
}

void store_close(struct store *s)
{
        if (!s)
                return;
        pthread_mutex_lock(&s->lock);
        s->stopping = true;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
        journal_wake(s->journal);
        pthread_join(s->thread, NULL);
        store_destroy(s);
}

static int run_job(struct store *s, struct store_job *job)
{
        job->target = journal_head(s->journal);
        pthread_mutex_lock(&s->lock);
        job->next = s->jobs;
        s->jobs = job;
        pthread_mutex_unlock(&s->lock);
        journal_wake(s->journal);

        pthread_mutex_lock(&s->lock);
        while (!job->done)
                pthread_cond_wait(&s->changed, &s->lock);
        pthread_mutex_unlock(&s->lock);
        return job->result;
}

int store_sync(struct store *s)
{
        struct store_job job = {0};

        return run_job(s, &job);
}

int store_foreach_open_handle(struct store *s, uid_t uid_filter,
                              void (*fn)(const struct store_handle_row *row, void *data),
                              void *data)
{
        struct store_job job = {
                .rows = STMT_OPEN_HANDLES, .uid_filter = uid_filter, .fn = fn, .data = data};

        return run_job(s, &job);
}

int store_foreach_closed_handle(struct store *s, uid_t uid_filter,
                                void (*fn)(const struct store_handle_row *row, void *data),
                                void *data)
{
        struct store_job job = {
                .rows = STMT_CLOSED_HANDLES, .uid_filter = uid_filter, .fn = fn, .data = data};

        return run_job(s, &job);
}

enum store_state store_state(struct store *s)
{
        return (enum store_state)atomic_load(&s->state);
}

uint64_t store_rows(struct store *s)
{
        return atomic_load(&s->rows);
}

uint64_t store_history_rows(struct store *s)
{
        return atomic_load(&s->history_rows);
}

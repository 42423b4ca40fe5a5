/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The clients of an earlier daemon.
 *
 * They are taken over without a system call for each: whether their processes are still there is
 * looked at by the watcher afterwards, when the mount is served already.  Until then such a client
 * has no pidfd, and whoever looks it up compares start times (client.c), so no other process is
 * taken for it.
 *
 * A client that had ended, but not all of its handles, when the daemon was killed is not in the
 * maps; its handles are given back to it, and then it ends once more.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "cobj/client_private.h"

static int by_start_time(const void *a, const void *b)
{
        const struct client_info *one = &(*(struct client *const *)a)->info;
        const struct client_info *other = &(*(struct client *const *)b)->info;

        return (one->start_time > other->start_time) - (one->start_time < other->start_time);
}

static int by_id(const void *a, const void *b)
{
        const struct client_info *one = &(*(struct client *const *)a)->info;
        const struct client_info *other = &(*(struct client *const *)b)->info;

        return (one->id > other->id) - (one->id < other->id);
}

static int make_room(struct client_resume *resume)
{
        const unsigned room = resume->room ? 2 * resume->room : 64;
        struct client **clients;

        if (resume->n < resume->room)
                return 0;
        clients = reallocarray(resume->clients, room, sizeof *clients);
        if (!clients)
                return -ENOMEM;
        resume->clients = clients;
        resume->room = room;
        return 0;
}

/* The client of one record, which is taken over on success. */
static int resume_one(struct client_table *table, struct kept_client *kept)
{
        struct client_resume *resume = &table->resume;
        const bool ended = atomic_load(&kept->ended);
        struct client *client;
        int r;

        if (kept->info.id == ID_NONE || kept->info.pid <= 0)
                return -EBADMSG;
        r = make_room(resume);
        if (r < 0)
                return r;
        client = client_make(table, kept, -1);
        if (!client)
                return -ENOMEM;
        r = ended ? 0 : id_table_restore(table->ids, kept->info.id, client);
        if (r < 0) {
                client->kept = NULL; /* the caller's */
                client_unref(client);
                return r;
        }
        client->ended_before = ended;
        if (ended) {
                atomic_store(&client->alive, false);
        } else {
                client_ref(client); /* the table's own */
                atomic_fetch_add(&table->living, 1);
        }
        resume->clients[resume->n++] = client;
        return 0;
}

unsigned client_table_resume(struct client_table *table)
{
        struct client_resume *resume = &table->resume;
        struct kept_client *kept;
        uint64_t cursor = 0;
        unsigned dropped = 0;
        size_t size;

        while ((kept = keep_next(table->keep, KEEP_CLIENT, &cursor, &size))) {
                if (size >= sizeof *kept && resume_one(table, kept) == 0)
                        continue;
                keep_free(table->keep, kept);
                dropped++;
        }
        if (resume->n == 0)
                return dropped;
        /* Of two with the same process id the younger one is found first. */
        qsort(resume->clients, resume->n, sizeof *resume->clients, by_start_time);
        g_mutex_lock(&table->lock);
        for (unsigned i = 0; i < resume->n; i++)
                if (client_alive(resume->clients[i]))
                        client_table_locked_add_pid(table, resume->clients[i]);
        g_mutex_unlock(&table->lock);
        qsort(resume->clients, resume->n, sizeof *resume->clients, by_id);
        return dropped;
}

struct client *client_table_resumed(struct client_table *table, uint64_t id)
{
        struct client key = {.info.id = id}, *const key_pointer = &key;
        struct client **found;

        if (id == ID_NONE)
                return client_ref(table->nobody);
        if (table->resume.n == 0 || table->resume.settling)
                return NULL;
        found = bsearch(&key_pointer, table->resume.clients, table->resume.n,
                        sizeof *table->resume.clients, by_id);
        return found ? client_ref(*found) : NULL;
}

void client_table_settle(struct client_table *table)
{
        if (table->resume.n == 0 || table->resume.settling)
                return;
        table->resume.settling = true;
        eventfd_write(table->wake_fd, 1);
}

/* Looks whether its process is still there. */
static void settle_one(struct client_table *table, struct client *client)
{
        int pidfd = -1;

        if (client->ended_before)
                table->exited(client, table->data);
        if (!client_alive(client))
                return; /* somebody else has noticed */
        if (client_pin_process(table, client->info.pid, &client->info, &pidfd) < 0) {
                client_end(client);
                return;
        }
        atomic_store(&client->pidfd, pidfd);
        client_watch(client);
        client_refresh(client);
}

void client_resume_settle(struct client_table *table)
{
        for (unsigned i = 0; i < table->resume.n && !atomic_load(&table->stopping); i++)
                settle_one(table, table->resume.clients[i]);
        client_resume_clear(table);
}

void client_resume_clear(struct client_table *table)
{
        for (unsigned i = 0; i < table->resume.n; i++)
                client_unref(table->resume.clients[i]);
        free(table->resume.clients);
        table->resume = (struct client_resume){.clients = NULL};
}

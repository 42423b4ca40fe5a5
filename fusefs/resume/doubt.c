/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fusefs/resume/doubt.h"

#include <errno.h>
#include <stdlib.h>

#include "fusefs/worker/channel.h"
#include "fusefs/node/node_table.h"

#define LOOK_EVERY_US (2 * G_USEC_PER_SEC)

struct doubt_entry {
        struct doubt_entry *next;
        struct server_file *file; /* a reference */
        uint64_t nlookup;         /* when it was looked at last */
        int64_t since;            /* it has been so since; monotonic µs */
};

static gboolean on_timer(void *data)
{
        struct k42_mount *mount = data;
        const int64_t now = g_get_monotonic_time();
        struct doubts *doubts = &mount->nodes->doubts;

        doubts_look(mount, now);
        g_mutex_lock(&doubts->lock);
        g_source_set_ready_time(doubts->timer, doubts->n > 0 ? now + LOOK_EVERY_US : -1);
        g_mutex_unlock(&doubts->lock);
        return G_SOURCE_CONTINUE;
}

static gboolean dispatch(GSource *source, GSourceFunc fn, void *data)
{
        return fn(data);
}

static GSourceFuncs timer_funcs = {.dispatch = dispatch};

void doubts_init(struct doubts *doubts, struct k42_mount *mount, bool timer)
{
        g_mutex_init(&doubts->lock);
        if (!timer)
                return;
        doubts->timer = g_source_new(&timer_funcs, sizeof(GSource));
        g_source_set_callback(doubts->timer, on_timer, mount, NULL);
        g_source_attach(doubts->timer, NULL);
}

static void entry_free(struct doubt_entry *entry)
{
        server_file_unref(entry->file);
        free(entry);
}

void doubts_clear(struct doubts *doubts)
{
        if (doubts->timer) {
                g_source_destroy(doubts->timer);
                g_source_unref(doubts->timer);
                doubts->timer = NULL;
        }
        while (doubts->first) {
                struct doubt_entry *entry = doubts->first;

                doubts->first = entry->next;
                entry_free(entry);
        }
        doubts->n = 0;
        g_mutex_clear(&doubts->lock);
}

unsigned doubts_count(struct doubts *doubts)
{
        unsigned n;

        g_mutex_lock(&doubts->lock);
        n = doubts->n;
        g_mutex_unlock(&doubts->lock);
        return n;
}

static void put_back(struct doubts *doubts, struct doubt_entry *entry)
{
        g_mutex_lock(&doubts->lock);
        entry->next = doubts->first;
        doubts->first = entry;
        if (doubts->n++ == 0 && doubts->timer)
                g_source_set_ready_time(doubts->timer, g_get_monotonic_time() + LOOK_EVERY_US);
        g_mutex_unlock(&doubts->lock);
}

/* A node that is watched twice over costs a look more.  Without memory it stays in doubt until its
 * next FORGET, or until the mount's end. */
void doubt_add(struct server_file *file)
{
        struct doubt_entry *entry = calloc(1, sizeof *entry);

        if (!entry)
                return;
        entry->file = server_file_ref(file);
        entry->nlookup = atomic_load(&file->kept->nlookup);
        entry->since = g_get_monotonic_time();
        put_back(&file->table->doubts, entry);
}

void server_file_doubt(struct server_file *file, unsigned n)
{
        _Atomic uint16_t *doubt = &file->kept->doubt;
        uint16_t before = atomic_load(doubt);
        uint64_t nlookup;

        while (!atomic_compare_exchange_weak(doubt, &before, (uint16_t)MIN(before + n, UINT16_MAX)))
                ;
        nlookup = atomic_load(&file->kept->nlookup);
        if (nlookup > 0 && nlookup <= atomic_load(doubt))
                doubt_add(file);
}

/* True if it need not be watched any more. */
static bool look_at(struct k42_mount *mount, struct doubt_entry *entry, int64_t now)
{
        struct doubts *doubts = &mount->nodes->doubts;
        struct server_file *file = entry->file;
        const uint64_t n = atomic_load(&file->kept->nlookup);

        if (n == 0 || n > atomic_load(&file->kept->doubt))
                return true; /* over, or a FORGET will come */
        if (n != entry->nlookup || (doubts->raising && doubts->raising(doubts->data, file->id))) {
                entry->nlookup = n;
                entry->since = now;
        }
        if (now - entry->since < DOUBT_QUIET_S * G_USEC_PER_SEC)
                return false;
        /* Known: its FORGET will come. */
        if (channel_inval_inode(mount->channel, file->id, false) != -ENOENT)
                return true;
        if (!server_file_forget_all(file, n))
                return false;
        atomic_store(&file->kept->doubt, 0);
        return true;
}

void doubts_look(struct k42_mount *mount, int64_t now)
{
        struct doubts *doubts = &mount->nodes->doubts;
        struct doubt_entry *entry, *next;

        g_mutex_lock(&doubts->lock);
        next = doubts->first;
        doubts->first = NULL;
        doubts->n = 0;
        g_mutex_unlock(&doubts->lock);
        while ((entry = next)) {
                next = entry->next;
                if (look_at(mount, entry, now))
                        entry_free(entry);
                else
                        put_back(doubts, entry);
        }
}

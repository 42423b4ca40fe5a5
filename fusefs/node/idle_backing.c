/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fusefs/node/idle_backing.h"

#include "fusefs/mount.h"
#include "fusefs/node/passthrough.h"
#include "fusefs/node/server_file.h"

G_STATIC_ASSERT(IDLE_MAX - 1 <= UINT16_MAX);

/* NULL if that was a gap; there is something in the ring. */
static struct server_file *locked_take_oldest(struct idle_backing *idle)
{
        struct server_file *file = idle->ring[idle->first].file;

        idle->first = (idle->first + 1) % IDLE_MAX;
        idle->n--;
        return file;
}

static void let_go(struct server_file *file)
{
        if (!file)
                return;
        file_opens_idle_is_over(file);
        server_file_unref(file);
}

/* The oldest one if it is too old; else NULL, and when to look again in `ret_next`, -1: not at all.
 */
static struct server_file *take_expired(struct idle_backing *idle, int64_t *ret_next)
{
        struct server_file *file = NULL;

        g_mutex_lock(&idle->lock);
        while (idle->n > 0 && !idle->ring[idle->first].file)
                locked_take_oldest(idle);
        *ret_next = -1;
        if (idle->n > 0) {
                *ret_next = idle->ring[idle->first].since + IDLE_SECONDS * G_USEC_PER_SEC;
                if (*ret_next <= g_get_monotonic_time())
                        file = locked_take_oldest(idle);
        }
        /* Under the lock, so that the time that idle_backing_add() sets is not overwritten. */
        if (!file)
                g_source_set_ready_time(idle->timer, *ret_next);
        g_mutex_unlock(&idle->lock);
        return file;
}

static gboolean on_timer(void *data)
{
        struct k42_mount *mount = data;
        struct server_file *file;
        int64_t next;

        while ((file = take_expired(&mount->idle_backing, &next)))
                let_go(file);
        return G_SOURCE_CONTINUE;
}

static gboolean dispatch(GSource *source, GSourceFunc fn, void *data)
{
        return fn(data);
}

static GSourceFuncs timer_funcs = {.dispatch = dispatch};

void idle_backing_init(struct k42_mount *mount)
{
        struct idle_backing *idle = &mount->idle_backing;

        g_mutex_init(&idle->lock);
        idle->timer = g_source_new(&timer_funcs, sizeof(GSource));
        g_source_set_callback(idle->timer, on_timer, mount, NULL);
        g_source_attach(idle->timer, NULL);
}

void idle_backing_clear(struct k42_mount *mount)
{
        struct idle_backing *idle = &mount->idle_backing;

        if (!idle->timer)
                return;
        g_source_destroy(idle->timer);
        g_source_unref(idle->timer);
        idle->timer = NULL;
        while (idle->n > 0)
                let_go(locked_take_oldest(idle));
        g_mutex_clear(&idle->lock);
}

void idle_backing_remove(struct k42_mount *mount, struct server_file *file)
{
        struct idle_backing *idle = &mount->idle_backing;
        bool found;

        g_mutex_lock(&idle->lock);
        found = idle->ring[file->idle_slot].file == file;
        if (found)
                idle->ring[file->idle_slot].file = NULL;
        g_mutex_unlock(&idle->lock);
        if (found)
                let_go(file);
}

void idle_backing_add(struct k42_mount *mount, struct server_file *file)
{
        struct idle_backing *idle = &mount->idle_backing;
        const int64_t now = g_get_monotonic_time();
        struct server_file *victim = NULL;
        unsigned slot;

        server_file_ref(file);
        g_mutex_lock(&idle->lock);
        if (idle->n == IDLE_MAX)
                victim = locked_take_oldest(idle);
        if (idle->n == 0)
                g_source_set_ready_time(idle->timer, now + IDLE_SECONDS * G_USEC_PER_SEC);
        slot = (idle->first + idle->n++) % IDLE_MAX;
        idle->ring[slot].file = file;
        idle->ring[slot].since = now;
        file->idle_slot = (uint16_t)slot;
        g_mutex_unlock(&idle->lock);
        let_go(victim);
}

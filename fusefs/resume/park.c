/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A node's descriptor is parked and taken back under node_fd.lock, so that who takes it back
 * because a removal failed cannot undo what another removal of the same file has just done.
 *
 * A removal asks whether somebody has the file open, and an open whether the file has been removed;
 * both say first what they do themselves (NODE_DELETED; file_opens.all), so one of them sees the
 * other.
 *
 * A file that nobody has open is usually forgotten by the kernel right after its last name has
 * gone.  So only its number is put into a ring, and those that are still known PARK_LATER_MS later
 * are parked then.  The ring keeps nothing alive.
 */
#include "fusefs/resume/park.h"

#include <errno.h>

#include "fusefs/holder/link.h"
#include "fusefs/node/node_table.h"

#define PARK_LATER_MS 50

static bool try_ref(void *object)
{
        return server_file_try_ref(object);
}

static void locked_park(struct server_file *file, int fd)
{
        struct node_table *table = file->table;
        int r;

        if (!table->mount->link || kept_node_set(file->kept, NODE_PARKED))
                return;
        r = link_send_park(table->mount->link, park_key(PARK_NODE, file->id), fd);
        if (r == 0) {
                atomic_fetch_add(&table->parks.n, 1);
        } else {
                kept_node_clear(file->kept, NODE_PARKED);
                g_debug("node %" G_GUINT64_FORMAT ": cannot be parked: %s", file->id,
                        g_strerror(-r));
        }
}

/* Also for a node that is being freed: nobody has the lock, and nobody is left who could want it.
 */
static void unlocked_unpark(struct server_file *file)
{
        struct node_table *table = file->table;

        if (!server_file_has(file, NODE_PARKED))
                return;
        link_unpark(table->mount->link, park_key(PARK_NODE, file->id));
        kept_node_clear(file->kept, NODE_PARKED);
        atomic_fetch_sub(&table->parks.n, 1);
}

void park_node(struct server_file *file, int fd)
{
        if (server_file_has(file, NODE_PARKED))
                return;
        g_mutex_lock(&file->fd.lock);
        locked_park(file, fd);
        g_mutex_unlock(&file->fd.lock);
}

void park_node_over(struct server_file *file)
{
        if (server_file_has(file, NODE_DEAD)) {
                unlocked_unpark(file);
                return;
        }
        if (!server_file_has(file, NODE_PARKED))
                return;
        g_mutex_lock(&file->fd.lock);
        if (!server_file_has(file, NODE_DELETED))
                unlocked_unpark(file);
        g_mutex_unlock(&file->fd.lock);
}

int park_take_node(struct server_file *file)
{
        struct node_table *table = file->table;
        int fd = -ENOENT;

        if (server_file_has(file, NODE_PARKED)) {
                fd = link_take_parked(table->mount->link, park_key(PARK_NODE, file->id));
                if (fd < 0)
                        kept_node_clear(file->kept, NODE_PARKED);
                else
                        atomic_fetch_add(&table->parks.n, 1);
        }
        return fd;
}

/* A descriptor to park is there: a node without a name has it pinned, unless it could not be
 * opened. */
static void park_pinned(struct server_file *file)
{
        const int fd = node_fd_get_open(file);

        if (fd < 0)
                return;
        park_node(file, fd);
        node_fd_put(file);
}

static bool in_use(struct server_file *file)
{
        return server_file_is_dir(file) || atomic_load(&file->opens.all) > 0;
}

void park_before_removal(struct server_file *file, int fd)
{
        if (in_use(file))
                park_node(file, fd);
}

/* ---- a moment later ---- */

static void park_one_later(struct node_table *table, uint64_t id)
{
        struct server_file *file =
                id_table_get(table->ids, id) /* hardly ever: so ask without a lock */
                        ? id_table_get_ref(table->ids, id, try_ref)
                        : NULL;

        if (!file)
                return;
        if (server_file_has(file, NODE_DELETED))
                park_pinned(file);
        server_file_unref(file);
}

/* The oldest one if it is old enough; else 0, and the timer is set for it. */
static uint64_t take_due(struct parks *parks)
{
        uint64_t id = 0;
        int64_t next = -1;

        g_mutex_lock(&parks->lock);
        if (parks->n_later > 0) {
                next = parks->later[parks->first].since + PARK_LATER_MS * 1000;
                if (next <= g_get_monotonic_time()) {
                        id = parks->later[parks->first].id;
                        parks->first = (parks->first + 1) % PARK_LATER_MAX;
                        parks->n_later--;
                }
        }
        if (id == 0)
                g_source_set_ready_time(parks->timer, next);
        g_mutex_unlock(&parks->lock);
        return id;
}

static gboolean on_timer(void *data)
{
        struct node_table *table = data;
        uint64_t id;

        while ((id = take_due(&table->parks)))
                park_one_later(table, id);
        return G_SOURCE_CONTINUE;
}

static gboolean dispatch(GSource *source, GSourceFunc fn, void *data)
{
        return fn(data);
}

static GSourceFuncs timer_funcs = {.dispatch = dispatch};

void parks_init(struct node_table *table)
{
        struct parks *parks = &table->parks;

        g_mutex_init(&parks->lock);
        if (!table->mount->link)
                return;
        parks->timer = g_source_new(&timer_funcs, sizeof(GSource));
        g_source_set_callback(parks->timer, on_timer, table, NULL);
        g_source_attach(parks->timer, NULL);
}

void parks_clear(struct node_table *table)
{
        struct parks *parks = &table->parks;

        if (parks->timer) {
                g_source_destroy(parks->timer);
                g_source_unref(parks->timer);
        }
        g_mutex_clear(&parks->lock);
}

static void park_later(struct server_file *file)
{
        struct parks *parks = &file->table->parks;
        const int64_t now = g_get_monotonic_time();
        uint64_t due = 0;
        unsigned at;

        if (!parks->timer)
                return;
        g_mutex_lock(&parks->lock);
        if (parks->n_later == PARK_LATER_MAX) {
                due = parks->later[parks->first].id;
                parks->first = (parks->first + 1) % PARK_LATER_MAX;
                parks->n_later--;
        }
        at = (parks->first + parks->n_later) % PARK_LATER_MAX;
        parks->later[at].id = file->id;
        parks->later[at].since = now;
        if (parks->n_later++ == 0)
                g_source_set_ready_time(parks->timer, now + PARK_LATER_MS * 1000);
        g_mutex_unlock(&parks->lock);
        if (due)
                park_one_later(file->table, due);
}

void park_after_removal(struct server_file *file, int fd)
{
        if (in_use(file))
                park_node(file, fd);
        else
                park_later(file);
}

/* ---- descriptions ---- */

/* There is no other way back to its file than the names that it has by chance. */
static bool needs_own(struct server_file *file)
{
        return file->table->mount->link && !node_fd_by_handle(file);
}

void park_opened(struct server_file *file, const struct description *description, int fd)
{
        struct node_table *table = file->table;

        atomic_fetch_add(&file->opens.all, 1);
        if (server_file_has(file, NODE_DELETED) || server_file_has(file, NODE_NAMELESS))
                park_pinned(file);
        if (needs_own(file) && link_send_park(table->mount->link,
                                              park_key(PARK_DESCRIPTION, description->id), fd) == 0)
                atomic_fetch_add(&table->parks.n, 1);
}

void park_released(struct server_file *file, const struct description *description)
{
        struct node_table *table = file->table;

        atomic_fetch_sub(&file->opens.all, 1);
        if (!needs_own(file))
                return;
        link_unpark(table->mount->link, park_key(PARK_DESCRIPTION, description->id));
        atomic_fetch_sub(&table->parks.n, 1);
}

void park_resume_description(struct server_file *file, struct description *description)
{
        struct node_table *table = file->table;
        struct fs_stat st;
        int fd;

        atomic_fetch_add(&file->opens.all, 1);
        if (!needs_own(file))
                return;
        atomic_fetch_add(&table->parks.n, 1); /* or as good as: it is unparked at its end */
        fd = link_take_parked(table->mount->link, park_key(PARK_DESCRIPTION, description->id));
        if (fd < 0)
                return;
        if (fs_stat(fd, &st) == 0 && st.st.st_dev == file->kept->dev &&
            st.st.st_ino == file->kept->ino && (st.st.st_mode & S_IFMT) == file->type)
                description_install_fd(description, fd);
        else
                fs_close(fd);
}

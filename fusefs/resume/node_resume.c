/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A record is the last daemon's work, and the file may be damaged: everything in it is checked
 * before it is believed.  What is wrong is freed, so that it is not met again.
 */
#include "fusefs/resume/node_resume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fusefs/node/dir_linux_fs.h"
#include "fusefs/holder/link.h"
#include "fusefs/node/node_table.h"
#include "lazy/description.h"

/* The layout is documented in schema(5); a change of it needs another KEEP_VERSION. */
G_STATIC_ASSERT(offsetof(struct kept_node, nlookup) == 32);
G_STATIC_ASSERT(offsetof(struct kept_node, backing_id) == 40);
G_STATIC_ASSERT(offsetof(struct kept_node, type) == 48);
G_STATIC_ASSERT(offsetof(struct kept_node, handle) == 56);
G_STATIC_ASSERT(offsetof(struct kept_link, name) == 17);

#define NLOOKUP_MAX (UINT64_C(1) << 56) /* nobody counts that far */

/* A name that two nodes claim to have, or one of several names of a directory. */
struct contested {
        uint64_t parent, child;
        char *name;
};

struct resuming {
        struct node_table *table;
        GArray *contested; /* of struct contested */
        unsigned nodes, links, dropped;
        int error;
};

static bool node_makes_sense(const struct kept_node *kept, size_t size)
{
        return size > offsetof(struct kept_node, handle) &&
               kept->handle_room <= size - offsetof(struct kept_node, handle) &&
               kept->handle_bytes <= kept->handle_room && kept->nlookup < NLOOKUP_MAX &&
               (kept->type & ~S_IFMT) == 0 && kept->id != FUSE_ROOT_ID &&
               !kept_node_has(kept, NODE_DEAD);
}

/* The descriptor that was parked: the node keeps it for as long as it lives, or until it turns out
 * not to have been removed. */
static void take_parked(struct server_file *file)
{
        const int fd = park_take_node(file);
        struct fs_stat st;

        if (fd < 0)
                return;
        if (fs_stat(fd, &st) < 0 || !server_file_is(file, &st)) {
                fs_close(fd);
                return;
        }
        node_fd_install(file, fd);
        node_fd_pin(file);
}

static void resume_node(struct resuming *r, struct kept_node *kept, size_t size)
{
        struct server_file *file;
        int error = -EBADMSG;

        if (node_makes_sense(kept, size))
                error = server_file_restore(r->table, kept, &file);
        if (error == -ENOMEM) {
                r->error = error;
                return;
        }
        if (error < 0) {
                if (!kept_node_has(kept, NODE_DEAD))
                        r->dropped++;
                keep_free(r->table->mount->keep, kept);
                return;
        }
        file->held = true;
        if (!kept_node_has(kept, NODE_UNHASHED) && !kept_node_has(kept, NODE_WITHDRAWN))
                node_table_rehash(file);
        take_parked(file);
        file_backing_resume(file);
        r->nodes++;
}

static void contest(struct resuming *r, const struct kept_link *kept)
{
        const struct contested contested = {kept->parent, kept->child, strdup(kept->name)};

        if (contested.name)
                g_array_append_val(r->contested, contested);
}

static void resume_link(struct resuming *r, struct kept_link *kept, size_t size)
{
        struct node_table *table = r->table;
        const size_t room = size - offsetof(struct kept_link, name);
        struct server_file *child = NULL, *parent = NULL;
        int error = -EBADMSG;

        if (size > offsetof(struct kept_link, name) && memchr(kept->name, '\0', room) &&
            fs_name_check(kept->name) == 0) {
                child = id_table_get(table->ids, kept->child);
                parent = node_table_file(table, kept->parent);
                if (!child || !parent || !server_file_is_dir(parent))
                        error = -ENOENT; /* usual: the node was being freed */
                else
                        error = dir_restore_link(dir_linux_fs_of(parent), kept, child);
        }
        if (error == -ENOMEM) {
                r->error = error;
                return;
        }
        if (error == -EEXIST || (error == 0 && server_file_is_dir(child) && child->n_links > 1))
                contest(r, kept);
        if (error == 0) {
                r->links++;
                return;
        }
        if (error == -EBADMSG)
                r->dropped++;
        keep_free(table->mount->keep, kept);
}

/* What the name is now, if that can be told. */
static int look_at_name(struct node_table *table, struct server_file *dir, const char *name,
                        struct fs_stat *ret_st)
{
        NODE_FD(at, dir);
        bool mount_root;

        return at.fd < 0 ? at.fd
                         : fs_stat_name(at.fd, name, table->mount->noflush, ret_st, &mount_root);
}

/* Every other link of a directory is older or newer: those that are not true go. */
static void check_names_of(struct node_table *table, struct server_file *child)
{
        for (unsigned n = 0; child->n_links > 1;) {
                SERVER_FILE(dir);
                g_autofree char *name = file_nth_name(child, n, &dir);
                struct fs_stat st;

                if (!name)
                        return;
                if (look_at_name(table, dir, name, &st) < 0 || !server_file_is(child, &st))
                        dir_not_child(dir_linux_fs_of(dir), name, child);
                else
                        n++;
        }
}

/* Two claim the name: the one that has it gets it, and if nobody has it, nobody. */
static void settle_name(struct node_table *table, const struct contested *c)
{
        struct server_file *other = node_table_file(table, c->child);
        SERVER_FILE(parent);
        SERVER_FILE(first);
        struct fs_stat st;
        int r;

        parent = node_table_file(table, c->parent);
        if (!parent || !other)
                return;
        server_file_ref(parent);
        first = dir_child(dir_linux_fs_of(parent), c->name);
        if (first == other)
                return; /* two links of one directory */
        r = look_at_name(table, parent, c->name, &st);
        if (r < 0 && r != -ENOENT)
                return; /* cannot be told: the first one keeps it, and it is verified when it is
                           used */
        if (r == 0 && server_file_is(other, &st) && !server_file_has(other, NODE_WITHDRAWN))
                dir_saw(dir_linux_fs_of(parent), c->name, other);
        else if (first && (r < 0 || !server_file_is(first, &st)))
                dir_not_child(dir_linux_fs_of(parent), c->name, first);
}

static void settle_names(struct resuming *r)
{
        for (guint i = 0; i < r->contested->len; i++) {
                struct contested *c = &g_array_index(r->contested, struct contested, i);
                struct server_file *child = node_table_file(r->table, c->child);

                settle_name(r->table, c);
                if (child && server_file_is_dir(child))
                        check_names_of(r->table, child);
                free(c->name);
        }
}

int node_table_resume(struct node_table *table)
{
        struct keep *keep = table->mount->keep;
        struct resuming r = {
                .table = table,
                .contested = g_array_new(FALSE, FALSE, sizeof(struct contested)),
        };
        uint64_t cursor = 0;
        size_t size;
        void *record;

        while (r.error == 0 && (record = keep_next(keep, KEEP_NODE, &cursor, &size)))
                resume_node(&r, record, size);
        cursor = 0;
        while (r.error == 0 && (record = keep_next(keep, KEEP_LINK, &cursor, &size)))
                resume_link(&r, record, size);
        settle_names(&r);
        g_array_free(r.contested, TRUE);
        if (r.dropped > 0)
                g_warning("%s: %u records of files are damaged and were dropped",
                          table->mount->options.mountpoint, r.dropped);
        g_debug("%u nodes and %u names came back", r.nodes, r.links);
        return r.error;
}

struct server_object *node_table_object(uint64_t id, void *table)
{
        struct server_file *file = node_table_file(table, id);

        return file ? &server_file_ref(file)->object : NULL;
}

static void resume_description(struct description *description, void *data)
{
        struct server_file *file = server_file_of(description->object);

        park_resume_description(file, description);
        if (description->type == XOBJ_FILE)
                file_opens_resume(file, description->io_class, description->flags);
}

void node_table_resume_descriptions(struct node_table *table)
{
        lazy_foreach_description(table->mount->lazy, resume_description, NULL);
}

/* It was parked because its last name was about to go; did it? */
static void settle_parked(struct server_file *file)
{
        const int fd = node_fd_get_open(file);
        struct fs_stat st;

        if (fd >= 0 && fs_stat(fd, &st) == 0 && st.st.st_nlink == 0) {
                server_file_set_deleted(file);
        } else {
                park_node_over(file);
                if (fd >= 0)
                        node_fd_unpin(file);
        }
        if (fd >= 0)
                node_fd_put(file);
}

void node_table_resumed(struct node_table *table)
{
        struct server_file *file;
        uint32_t cursor = 0;

        passthrough_resumed(table->mount);
        while ((file = node_table_next(table, &cursor))) {
                const uint64_t n = atomic_load(&file->kept->nlookup);

                if (file->fd.pins > 0 && !server_file_has(file, NODE_DELETED) &&
                    !server_file_has(file, NODE_NAMELESS))
                        settle_parked(file);
                if (n > 0 && n <= atomic_load(&file->kept->doubt))
                        doubt_add(file);
                if (file->held) {
                        file->held = false;
                        server_file_unref(file);
                }
                server_file_unref(file);
        }
        link_drop_parked(table->mount->link);
}

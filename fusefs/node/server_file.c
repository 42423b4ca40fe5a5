/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The ownership essay is in the header. */
#include "fusefs/node/server_file.h"

#include <stdlib.h>
#include <string.h>

#include "fusefs/node/dir_linux_fs.h"
#include "fusefs/resume/doubt.h"
#include "fusefs/node/node_table.h"
#include "fusefs/resume/park.h"
#include "lazy/description.h"

#define DEPTH_MAX      65536 /* of names to walk up: stale ones could lead in a circle */
#define PATH_SHOWN_MAX 65536

static void object_ref(struct server_object *object)
{
        server_file_ref(server_file_of(object));
}

static void object_unref(struct server_object *object)
{
        server_file_unref(server_file_of(object));
}

static uint64_t object_id(struct server_object *object)
{
        return server_file_of(object)->id;
}

static char *object_describe(struct server_object *object)
{
        return server_file_describe(server_file_of(object));
}

static int object_open_again(struct server_object *object, int flags)
{
        return server_file_open_again(server_file_of(object), flags);
}

static const struct server_object_ops file_ops = {
        .give_access_set_client_data = description_give_access_set_client_data,
        .ending = description_ending,
        .leaves = description_leaves,
        .being_freed = description_being_freed,
        .ref = object_ref,
        .unref = object_unref,
        .open_again = object_open_again,
        .id = object_id,
        .describe = object_describe,
};

/* A record that the next daemon does not see yet. */
static struct kept_node *new_record(struct keep *keep, const struct fs_stat *st,
                                    const union fs_handle *handle)
{
        const size_t head = offsetof(struct kept_node, handle);
        const size_t room = MAX(KEPT_NODE_SIZE - head, handle ? handle->handle.handle_bytes : 0);
        struct kept_node *kept = keep_alloc(keep, head + room);

        if (!kept)
                return NULL;
        kept->dev = st->st.st_dev;
        kept->ino = st->st.st_ino;
        kept->btime = st->btime;
        kept->type = st->st.st_mode & S_IFMT;
        kept->handle_room = (uint8_t)room;
        if (handle)
                kept_node_set_handle(kept, handle);
        return kept;
}

/* The node of a record, whose it is then; with one reference, no id, and NULL if out of memory. */
static struct server_file *new_node(struct node_table *table, struct kept_node *kept)
{
        const bool is_dir = S_ISDIR(kept->type);
        struct server_file *file =
                calloc(1, is_dir ? sizeof(struct dir_linux_fs) : sizeof(struct server_file));

        if (!file)
                return NULL;
        file->table = table;
        file->kept = kept;
        file->type = kept->type;
        file->refs = 1;
        server_object_init(&file->object, &file_ops);
        node_fd_init(&file->fd);
        g_mutex_init(&file->links_lock);
        file_opens_init(&file->opens);
        if (is_dir)
                g_mutex_init(&dir_linux_fs_of(file)->children_lock);
        return file;
}

/* Frees what new_node() made. */
static void free_node(struct server_file *file)
{
        server_object_clear(&file->object);
        g_mutex_clear(&file->links_lock);
        file_opens_clear(&file->opens);
        if (server_file_is_dir(file)) {
                hash_clear(&dir_linux_fs_of(file)->children);
                g_mutex_clear(&dir_linux_fs_of(file)->children_lock);
        }
        free(file);
}

int server_file_new(struct node_table *table, const struct fs_stat *st, const union fs_handle *handle,
                    int fd, struct server_file **ret_file)
{
        struct keep *keep = table->root ? table->mount->keep : NULL; /* the root's is not kept */
        struct kept_node *kept = new_record(keep, st, handle);
        struct server_file *file = kept ? new_node(table, kept) : NULL;
        int r = file ? 0 : -ENOMEM;

        if (r == 0) {
                file->id = FUSE_ROOT_ID;
                if (table->root)
                        r = id_table_alloc(table->ids, file, &file->id);
                if (r < 0) {
                        node_fd_clear(file);
                        free_node(file);
                }
        }
        if (r < 0) {
                keep_free(keep, kept);
                return r;
        }
        kept->id = file->id;
        if (table->root)
                keep_commit(kept, KEEP_NODE);
        atomic_fetch_add(&table->count, 1);
        if (fd >= 0)
                node_fd_install(file, fd);
        *ret_file = file;
        return 0;
}

int server_file_restore(struct node_table *table, struct kept_node *kept,
                        struct server_file **ret_file)
{
        struct server_file *file = new_node(table, kept);
        int r;

        if (!file)
                return -ENOMEM;
        file->id = kept->id;
        file->refs = 1 + atomic_load(&kept->nlookup);
        r = id_table_restore(table->ids, file->id, file);
        if (r < 0) {
                node_fd_clear(file);
                free_node(file);
                return r;
        }
        atomic_fetch_add(&table->count, 1);
        *ret_file = file;
        return 0;
}

/* Frees a node without references.  A directory whose last reference one of its links had is left
 * to the caller, by `ret_next`, so that a deep tree does not become a deep stack. */
static void destroy(struct server_file *file, struct server_file **ret_next)
{
        struct node_table *table = file->table;
        struct server_file *parent;

        /* From here on the id may be another's in the next daemon; the record is free last. */
        kept_node_set(file->kept, NODE_DEAD);
        node_table_unhash(file);
        if (file->id != FUSE_ROOT_ID)
                id_table_free(table->ids, file->id);
        while ((parent = dir_take_link_of(file)))
                if (atomic_fetch_sub(&parent->refs, 1) == 1) {
                        parent->next = *ret_next;
                        *ret_next = parent;
                }
        node_fd_clear(file);
        park_node_over(file);
        keep_free(table->mount->keep, file->kept);
        free_node(file);
        atomic_fetch_sub(&table->count, 1);
}

static void drop_refs(struct server_file *file, uint64_t n)
{
        struct server_file *dead;

        if (atomic_fetch_sub(&file->refs, n) != n)
                return;
        file->next = NULL;
        dead = file;
        while (dead) {
                file = dead;
                dead = file->next;
                destroy(file, &dead);
        }
}

struct server_file *server_file_ref(struct server_file *file)
{
        atomic_fetch_add(&file->refs, 1);
        return file;
}

bool server_file_try_ref(struct server_file *file)
{
        uint64_t refs = atomic_load(&file->refs);

        while (refs > 0)
                if (atomic_compare_exchange_weak(&file->refs, &refs, refs + 1))
                        return true;
        return false;
}

void server_file_unref(struct server_file *file)
{
        drop_refs(file, 1);
}

void server_file_unrefp(struct server_file **file)
{
        if (*file)
                server_file_unref(*file);
}

void server_file_known(struct server_file *file)
{
        atomic_fetch_add(&file->kept->nlookup, 1);
}

void server_file_forget(struct server_file *file, uint64_t n)
{
        _Atomic uint64_t *nlookup = &file->kept->nlookup;
        uint64_t known = atomic_load(nlookup), k;

        do
                k = MIN(n, known);
        while (!atomic_compare_exchange_weak(nlookup, &known, known - k));
        if (k < n)
                g_warning("node %" G_GUINT64_FORMAT ": forgotten %" G_GUINT64_FORMAT
                          " times more often than it was looked up",
                          file->id, n - k);
        if (known > k && known - k <= atomic_load(&file->kept->doubt))
                doubt_add(file);
        if (k > 0)
                drop_refs(file, k);
}

bool server_file_forget_all(struct server_file *file, uint64_t n)
{
        if (!atomic_compare_exchange_strong(&file->kept->nlookup, &n, 0))
                return false;
        if (n > 0)
                drop_refs(file, n);
        return true;
}

bool server_file_is(struct server_file *file, const struct fs_stat *st)
{
        struct node_shard *shard;
        bool same;

        if (st->st.st_dev != file->kept->dev || st->st.st_ino != file->kept->ino ||
            (st->st.st_mode & S_IFMT) != file->type)
                return false;
        shard = node_table_shard(file->table, file->kept->dev, file->kept->ino);
        g_mutex_lock(&shard->lock);
        same = st->btime == file->kept->btime;
        g_mutex_unlock(&shard->lock);
        return same;
}

void server_file_set_deleted(struct server_file *file)
{
        kept_node_set(file->kept, NODE_DELETED);
        file_opens_drop(file);
        node_table_unhash(file);
}

/* The names from an ancestor whose descriptor is open down to a file, the first one first. */
struct name_path {
        struct name_path *next;
        char name[];
};

static void name_path_free(struct name_path *path)
{
        while (path) {
                struct name_path *next = path->next;

                free(path);
                path = next;
        }
}

/* Puts the name of `file`'s n-th link before `path`; its directory, with a reference, in
 * `ret_parent`.  -ENOENT if there is no such link. */
static int step_up(struct server_file *file, unsigned n, struct name_path **path,
                   struct server_file **ret_parent)
{
        struct name_path *step = NULL;
        struct file_link *link;
        int r = -ENOENT;

        g_mutex_lock(&file->links_lock);
        for (link = file->links; link && (n > 0 || !link->kept->listed); link = link->next)
                if (link->kept->listed)
                        n--;
        if (link) {
                const size_t size = strlen(link->kept->name) + 1;

                step = malloc(sizeof *step + size);
                r = step ? 0 : -ENOMEM;
                if (step) {
                        memcpy(step->name, link->kept->name, size);
                        *ret_parent = server_file_ref(&link->parent->file);
                }
        }
        g_mutex_unlock(&file->links_lock);
        if (step) {
                step->next = *path;
                *path = step;
        }
        return r;
}

/* Walks down from `dirfd` (borrowed); the last name's O_PATH descriptor. */
static int walk_down(struct node_table *table, int dirfd, const struct name_path *path)
{
        int at = dirfd;

        for (; path; path = path->next) {
                int fd = node_table_open_at(table, at, path->name);

                if (at != dirfd)
                        fs_close(at);
                if (fd < 0)
                        return node_fds_exhausted(fd) || fd == -ENOMEM ? fd : -ESTALE;
                at = fd;
        }
        return at;
}

/* By the n-th name of the file. */
static int open_by_nth_name(struct server_file *file, unsigned n)
{
        struct server_file *at = server_file_ref(file), *parent;
        struct name_path *path = NULL;
        int fd = -ESTALE, dirfd = -EBADF, r;

        for (unsigned depth = 0; dirfd < 0 && depth < DEPTH_MAX; depth++) {
                r = step_up(at, at == file ? n : 0, &path, &parent);
                if (r < 0) {
                        fd = r == -ENOENT && at != file ? -ESTALE : r;
                        break;
                }
                server_file_unref(at);
                at = parent;
                dirfd = node_fd_get_open(at);
        }
        if (dirfd >= 0) {
                fd = walk_down(file->table, dirfd, path);
                node_fd_put(at);
        }
        server_file_unref(at);
        name_path_free(path);
        return fd;
}

int server_file_open_by_name(struct server_file *file)
{
        for (unsigned n = 0;; n++) {
                struct fs_stat st;
                int fd = open_by_nth_name(file, n);

                if (fd >= 0) {
                        const bool is_it = fs_stat(fd, &st) == 0 && server_file_is(file, &st);

                        if (is_it && node_fd_locked_same_handle(file, fd))
                                return fd;
                        /* Another file has its number and its birth time, or what we know of its handle is
                         * wrong: who looks that one up must not find this node again. */
                        if (is_it)
                                node_table_unhash(file);
                        fs_close(fd);
                } else if (fd == -ENOENT) {
                        return -ESTALE; /* no name is left to try */
                } else if (fd == -ENOMEM || node_fds_exhausted(fd)) {
                        return fd;
                }
                if (n >= FILE_LINKS_MAX)
                        return -ESTALE;
        }
}

int server_file_open_again(struct server_file *file, int flags)
{
        /* O_TMPFILE has the bit of O_DIRECTORY in it. */
        int again = fs_open_flags(flags & ~(O_TMPFILE | O_TRUNC)), fd;
        NODE_FD(node, file);

        if (server_file_is_dir(file))
                again |= O_DIRECTORY;
        if (node.fd < 0)
                return node.fd;
        fd = fs_reopen(node.fd, again);
        if (node_fds_exhausted(fd) && node_fds_shrink(&file->table->fds) > 0)
                fd = fs_reopen(node.fd, again);
        if (fd == -EPERM && (flags & O_APPEND)) /* a file that can only be appended to */
                fd = fs_reopen(node.fd, again | O_APPEND);
        return fd;
}

/* The parts of a path, the last one first, joined. */
static char *join(GPtrArray *parts, bool deleted)
{
        GString *path = g_string_new(parts->len > 0 ? NULL : "/");

        for (unsigned i = parts->len; i > 0; i--) {
                g_string_append_c(path, '/');
                g_string_append(path, g_ptr_array_index(parts, i - 1));
        }
        if (deleted)
                g_string_append(path, " (deleted)");
        return g_string_free(path, FALSE);
}

char *server_file_describe(struct server_file *file)
{
        g_autoptr(GPtrArray) parts = g_ptr_array_new_with_free_func(g_free);
        struct server_file *at = server_file_ref(file);
        bool deleted = false;
        size_t length = 0;

        while (at->id != FUSE_ROOT_ID) {
                struct server_file *parent = NULL;

                g_mutex_lock(&at->links_lock);
                if (at->links) {
                        deleted |= !at->links->kept->listed;
                        length += strlen(at->links->kept->name) + 1;
                        g_ptr_array_add(parts, g_strdup(at->links->kept->name));
                        parent = server_file_ref(&at->links->parent->file);
                }
                g_mutex_unlock(&at->links_lock);
                server_file_unref(at);
                at = parent;
                if (!parent || length > PATH_SHOWN_MAX) {
                        g_ptr_array_add(parts, g_strdup("…")); /* not known how it goes on */
                        break;
                }
        }
        if (at)
                server_file_unref(at);
        return join(parts, deleted);
}

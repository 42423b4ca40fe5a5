/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table owns the id table, the shards and one reference on the root; the nodes belong to who
 * has references on them, see server_file.h.
 */
#include "fusefs/node/node_table.h"

#include <stdlib.h>
#include <unistd.h>

#include "fusefs/node/creds.h"
#include "fusefs/node/dir_linux_fs.h"

#define FIRST_INDEX 2 /* 1 would be the root's, which has no entry */

static uint64_t identity_hash(dev_t dev, ino_t ino)
{
        return hash_mix(ino ^ hash_mix(dev));
}

/* The shard is chosen by the upper bits, the bucket by the lower ones. */
struct node_shard *node_table_shard(struct node_table *table, dev_t dev, ino_t ino)
{
        return &table->shards[identity_hash(dev, ino) >> 32 & (NODE_SHARDS - 1)];
}

static struct node_shard *shard_of(struct server_file *file)
{
        return node_table_shard(file->table, file->kept->dev, file->kept->ino);
}

static struct server_file *file_of_identity(struct hash_link *link)
{
        return (struct server_file *)((char *)link - offsetof(struct server_file, by_identity));
}

static struct server_file *locked_find(struct node_shard *shard, dev_t dev, ino_t ino)
{
        struct hash_link *link = hash_first(&shard->files, identity_hash(dev, ino));

        for (; link; link = hash_next(link)) {
                struct server_file *file = file_of_identity(link);

                if (file->kept->dev == dev && file->kept->ino == ino && server_file_try_ref(file))
                        return file;
        }
        return NULL;
}

static void locked_insert(struct node_shard *shard, struct server_file *file)
{
        hash_insert(&shard->files, &file->by_identity, identity_hash(file->kept->dev, file->kept->ino));
        file->hashed = true;
}

void node_table_rehash(struct server_file *file)
{
        locked_insert(shard_of(file), file);
}

void node_table_unhash(struct server_file *file)
{
        struct node_shard *shard = shard_of(file);

        g_mutex_lock(&shard->lock);
        if (file->hashed)
                hash_remove(&shard->files, &file->by_identity);
        file->hashed = false;
        kept_node_set(file->kept, NODE_UNHASHED);
        g_mutex_unlock(&shard->lock);
}

struct server_file *node_table_find(struct node_table *table, dev_t dev, ino_t ino)
{
        struct node_shard *shard = node_table_shard(table, dev, ino);
        struct server_file *file;

        g_mutex_lock(&shard->lock);
        file = locked_find(shard, dev, ino);
        g_mutex_unlock(&shard->lock);
        return file;
}

static bool try_ref(void *object)
{
        return server_file_try_ref(object);
}

struct server_file *node_table_next(struct node_table *table, uint32_t *cursor)
{
        return id_table_next_ref(table->ids, cursor, try_ref);
}

/* The node's descriptor proves that the inode's number is still its own: then the file is the same
 * whatever its birth time says (overlayfs changes it when it copies a file up). */
static bool same_by_descriptor(struct server_file *file, const struct fs_stat *st)
{
        const int open_fd = node_fd_get_open(file);
        struct node_shard *shard;
        struct fs_stat mine;
        bool same;

        if (open_fd < 0)
                return false;
        same = fs_stat(open_fd, &mine) == 0 && mine.st.st_dev == st->st.st_dev &&
               mine.st.st_ino == st->st.st_ino && mine.btime == st->btime &&
               (st->st.st_mode & S_IFMT) == file->type;
        node_fd_put(file);
        if (same) {
                shard = shard_of(file);
                g_mutex_lock(&shard->lock);
                file->kept->btime = st->btime;
                g_mutex_unlock(&shard->lock);
        }
        return same;
}

/* True if the file that was found, with the node's number, is the node's. */
static bool is_same(struct server_file *file, const struct fs_stat *st, int fd)
{
        if (!server_file_is(file, st))
                return same_by_descriptor(file, st);
        return node_fd_same_handle(file, fd);
}

int node_table_instantiate(struct node_table *table, const struct fs_stat *st, int fd,
                           struct server_file **ret_file)
{
        const dev_t dev = st->st.st_dev;
        const ino_t ino = st->st.st_ino;
        struct node_shard *shard = node_table_shard(table, dev, ino);
        struct server_file *found, *made = NULL;
        int r;

        for (;;) {
                g_mutex_lock(&shard->lock);
                found = locked_find(shard, dev, ino);
                if (!found && made)
                        locked_insert(shard, made);
                g_mutex_unlock(&shard->lock);

                if (found && is_same(found, st, fd)) {
                        if (made)
                                server_file_unref(made); /* and `fd`: somebody else was quicker */
                        else
                                node_fd_install(found, fd);
                        *ret_file = found;
                        return 0;
                }
                if (found) { /* the number has a new owner */
                        node_table_unhash(found);
                        server_file_unref(found);
                        continue;
                }
                if (made) {
                        *ret_file = made;
                        return 0;
                }
                r = server_file_new(table, st, NULL, fd, &made);
                if (r < 0)
                        return r;
        }
}

struct server_file *node_table_file(struct node_table *table, fuse_ino_t ino)
{
        return ino == FUSE_ROOT_ID ? table->root : id_table_get(table->ids, ino);
}

char *node_table_describe(struct node_table *table, uint64_t id)
{
        SERVER_FILE(file);

        if (id == FUSE_ROOT_ID)
                file = server_file_ref(table->root);
        else
                file = id_table_get_ref(table->ids, id, try_ref);
        return file ? server_file_describe(file) : NULL;
}

/* A mount below SOURCE may have forbidden what ours allows; all of ours is one mount, so what lies
 * there is refused.  (An ordinary user's mount never has setuid programs or devices.) */
static int check_mount_flags(const struct k42_options *options, int fd)
{
        struct statvfs st;
        int r = fs_statvfs(fd, &st);

        if (r < 0)
                return r;
        if (!geteuid() && (((st.f_flag & ST_NOSUID) && !options->nosuid) ||
                           ((st.f_flag & ST_NODEV) && !options->nodev)))
                return -EXDEV;
        return (st.f_flag & ST_NOEXEC) && !options->noexec ? -EXDEV : 0;
}

int node_table_open_at(struct node_table *table, int dirfd, const char *name)
{
        dev_t dev;
        int fd = fs_open_node(dirfd, name), r;

        if (node_fds_exhausted(fd) && node_fds_shrink(&table->fds) > 0)
                fd = fs_open_node(dirfd, name);
        if (fd != -EXDEV)
                return fd;
        fd = fs_open_node_xdev(dirfd, name);
        if (fd < 0)
                return fd;
        r = fs_device_cached(fd, &dev);
        if (r == 0 && table->mount->dev != 0 && dev == table->mount->dev)
                r = -ELOOP;
        if (r == 0)
                r = check_mount_flags(&table->mount->options, fd);
        if (r < 0) {
                fs_close(fd);
                return r;
        }
        return fd;
}

/* The node of a file that is not opened: its handle opens it when it is needed.  What has got the
 * name between `st` and the handle will be seen by its identity then, and the node goes by name
 * from then on.  `name` "": `dirfd` is the file. */
static int instantiate_by_handle(struct node_table *table, const struct fs_stat *st, int dirfd,
                                 const char *name, struct server_file **ret_file)
{
        struct node_shard *shard = node_table_shard(table, st->st.st_dev, st->st.st_ino);
        struct server_file *made, *found;
        union fs_handle handle;
        int r;

        if (!node_fds_handle(&table->fds, dirfd, name, &handle))
                return 0;
        r = server_file_new(table, st, &handle, -1, &made);
        if (r < 0)
                return r;
        g_mutex_lock(&shard->lock);
        found = locked_find(shard, st->st.st_dev, st->st.st_ino);
        if (!found)
                locked_insert(shard, made);
        g_mutex_unlock(&shard->lock);
        if (found) { /* somebody was quicker, with this file or with another one */
                server_file_unref(made);
                server_file_unref(found);
                return 0;
        }
        *ret_file = made;
        return 1;
}

int node_table_instantiate_by_handle(struct node_table *table, const struct fs_stat *st, int fd,
                                     struct server_file **ret_file)
{
        return st->btime == FS_BTIME_UNKNOWN || table->fds.mount_fd < 0
                       ? 0
                       : instantiate_by_handle(table, st, fd, "", ret_file);
}

/* Most of what is looked up need not be opened: what is known, and files that have a handle.
 * Returns 1, 0 if it has to be looked at more closely, or -errno. */
static int lookup_unopened(struct node_table *table, const struct server_file *dir, int dirfd,
                           const char *name, struct fs_stat *ret_st, struct server_file **ret_file)
{
        struct node_shard *shard;
        struct server_file *found;
        /* What SOURCE's file system is says nothing about those that are mounted below. */
        const bool local = table->mount->noflush && dir->kept->dev == table->root->kept->dev;
        bool mount_root;
        int r = fs_stat_name(dirfd, name, local, ret_st, &mount_root);

        if (r < 0)
                return r;
        if (mount_root || ret_st->st.st_dev != dir->kept->dev || ret_st->btime == FS_BTIME_UNKNOWN)
                return 0;
        shard = node_table_shard(table, ret_st->st.st_dev, ret_st->st.st_ino);
        g_mutex_lock(&shard->lock);
        found = locked_find(shard, ret_st->st.st_dev, ret_st->st.st_ino);
        g_mutex_unlock(&shard->lock);
        if (!found)
                return S_ISDIR(ret_st->st.st_mode) || table->fds.mount_fd < 0
                               ? 0
                               : instantiate_by_handle(table, ret_st, dirfd, name, ret_file);
        if (!server_file_is(found, ret_st)) {
                server_file_unref(found);
                return 0;
        }
        *ret_file = found;
        return 1;
}

int node_table_lookup(struct node_table *table, const struct server_file *dir, int dirfd,
                      const char *name, struct fs_stat *ret_st, struct server_file **ret_file)
{
        int fd, r = lookup_unopened(table, dir, dirfd, name, ret_st, ret_file);

        if (r != 0)
                return MIN(r, 0);
        fd = node_table_open_at(table, dirfd, name);
        if (fd < 0)
                return fd;
        r = fs_stat(fd, ret_st);
        if (r == 0)
                r = node_table_instantiate(table, ret_st, fd, ret_file);
        if (r < 0)
                fs_close(fd);
        return r;
}

static int open_root(struct node_table *table)
{
        const struct k42_mount *mount = table->mount;
        struct fs_stat st;
        int fd, r;

        /* The path may lead to the mount by now. */
        fd = mount->link ? fs_reopen_path(mount->source_fd) : fs_open_root(mount->options.source);
        if (fd < 0)
                return fd;
        r = fs_stat(fd, &st);
        if (r < 0) {
                fs_close(fd);
                return r;
        }
        node_fds_init(&table->fds, fd, table->mount->privileged);
        r = server_file_new(table, &st, NULL, fd, &table->root);
        if (r < 0) {
                fs_close(fd);
                node_fds_clear(&table->fds);
                return r;
        }
        locked_insert(node_table_shard(table, st.st.st_dev, st.st.st_ino), table->root);
        return MIN(node_fd_pin(table->root), 0);
}

int node_table_new(struct k42_mount *mount, struct node_table **ret_table)
{
        struct node_table *table = calloc(1, sizeof *table);
        int r = table ? fs_file_init() : -ENOMEM;

        if (r == 0)
                r = creds_init(mount);
        if (r == 0) {
                table->mount = mount;
                table->ids = id_table_new(FIRST_INDEX, UINT32_MAX - FIRST_INDEX);
                r = table->ids ? 0 : -ENOMEM;
                if (table->ids)
                        keep_ids(table->ids, mount->keep, KEEP_WORD_NODE_IDS);
        }
        if (r == 0) {
                for (unsigned i = 0; i < NODE_SHARDS; i++)
                        g_mutex_init(&table->shards[i].lock);
                r = open_root(table);
        }
        if (r < 0) {
                g_warning("%s: cannot be opened: %s", mount->options.source, g_strerror(-r));
                if (table)
                        id_table_unref(table->ids);
                free(table);
                return r;
        }
        parks_init(table);
        doubts_init(&table->doubts, mount, mount->link);
        *ret_table = table;
        return 0;
}

static void collect(uint64_t id, void *object, void *data)
{
        struct server_file **list = data, *file = object;

        if (server_file_try_ref(file)) {
                file->next = *list;
                *list = file;
        }
}

/* Nobody serves requests any more.  All links first: stale ones might hold each other in a circle.
 */
static void forget_all(struct node_table *table)
{
        struct server_file *list = NULL, *file, *parent;

        id_table_foreach(table->ids, collect, &list);
        for (file = list; file; file = file->next)
                while ((parent = dir_take_link_of(file)))
                        server_file_unref(parent);
        while (list) {
                file = list;
                list = file->next;
                server_file_forget(file, atomic_load(&file->kept->nlookup));
                server_file_unref(file);
        }
}

void node_table_free(struct node_table *table)
{
        uint32_t left;

        if (!table)
                return;
        parks_clear(table);
        doubts_clear(&table->doubts);
        forget_all(table);
        server_file_unref(table->root);
        left = node_table_count(table);
        if (left > 0)
                g_warning("%s: %u nodes are still in use at the end", table->mount->options.source,
                          left);
        id_table_unref(table->ids);
        for (unsigned i = 0; i < NODE_SHARDS; i++) {
                if (left == 0)
                        hash_clear(&table->shards[i].files);
                g_mutex_clear(&table->shards[i].lock);
        }
        node_fds_clear(&table->fds);
        if (left == 0) /* else somebody still points here */
                free(table);
}

uint32_t node_table_count(struct node_table *table)
{
        return atomic_load(&table->count);
}

uint32_t node_table_parked(struct node_table *table)
{
        return atomic_load(&table->parks.n);
}

uint32_t node_table_fds(struct node_table *table)
{
        return atomic_load(&table->fds.open);
}

uint32_t node_table_fds_limit(struct node_table *table)
{
        return table->fds.limit;
}

void node_identity(struct server_object *object, dev_t *ret_dev, ino_t *ret_ino)
{
        const struct server_file *file = server_file_of(object);

        *ret_dev = file->table->mount->dev;
        *ret_ino = file->kept->ino;
}

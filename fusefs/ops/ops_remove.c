/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What takes a name away.  A file whose last name goes while it is in use has to stay reachable:
 * its descriptor is pinned *before*, for afterwards there is no way to open it; and is let go again
 * when the file turns out to have other names.
 */
#include <errno.h>
#include <linux/fs.h>

#include "fusefs/worker/channel.h"
#include "fusefs/resume/intent.h"
#include "fusefs/ops/ops.h"

/* The node of what the request's n-th name was, with a reference, if it is known: by its name it
 * may not be found any more, when the daemon that made the change is dead. */
static struct server_file *node_that_was(struct node_table *table, unsigned which)
{
        dev_t dev;
        ino_t ino;

        return intent_name_was(which, &dev, &ino) ? node_table_find(table, dev, ino) : NULL;
}

/* Pins what is about to lose a name, and parks it if it is in use (park.h).  A node that does not
 * exist any more in that place (somebody was quicker behind the mount) is not what will be removed:
 * `*file` becomes NULL. */
static int before_removal(struct server_file **file)
{
        int r = *file ? node_fd_pin(*file) : 0;

        if (r < 0) {
                server_file_unref(*file);
                *file = NULL;
        } else if (*file)
                park_before_removal(*file, r);
        FAILPOINT("pinned");
        return r == -ESTALE || r == -ENOENT ? 0 : MIN(r, 0);
}

/* After the name's removal, or the failure of it: true if the file has no name any more. */
static bool after_removal(struct server_file *file, bool removed)
{
        struct fs_stat st;
        const int fd = node_fd_get_open(file); /* it is pinned */
        const bool gone = removed && (server_file_is_dir(file) ||
                                      (fs_stat(fd, &st) == 0 && st.st.st_nlink == 0));

        if (gone) {
                server_file_set_deleted(file);
                park_after_removal(file, fd);
        } else {
                park_node_over(file);
                node_fd_unpin(file);
        }
        node_fd_put(file);
        return gone;
}

/* What `name` in `dir` is about to lose it, pinned; or has lost it (`removed`, by a daemon that is
 * dead). */
static int child_to_remove(struct dir_linux_fs *dir, const char *name, bool removed,
                           struct server_file **ret_child)
{
        *ret_child = dir_child(dir, name);
        if (removed && !*ret_child)
                *ret_child = node_that_was(dir->file.table, 0);
        return before_removal(ret_child);
}

static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name,
                        int (*remove)(int dirfd, const char *name))
{
        struct dir_linux_fs *dir = ops_dir(req, parent, name);

        if (dir) {
                NODE_FD(at, &dir->file);
                SERVER_FILE(child);
                bool gone = false;
                int64_t r = MIN(at.fd, 0);

                if (r == 0)
                        r = intent_remove(dir, at.fd, name);
                if (r == 0 || r == INTENT_RUN) {
                        const int pinned = child_to_remove(dir, name, r == 0, &child);

                        if (r == INTENT_RUN && pinned < 0)
                                r = pinned;
                }
                INTENT_CALL("remove", r, remove(at.fd, name));
                if (child)
                        gone = after_removal(child, r == 0);
                FAILPOINT("removed");
                if (r == 0)
                        dir_unlink(dir, name, gone);
                ops_reply(req, (int)r);
        }
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
        remove_name(req, parent, name, fs_unlink);
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
        remove_name(req, parent, name, fs_rmdir);
}

/* One of the two names of a rename. */
struct place {
        struct dir_linux_fs *dir;
        int dirfd;
        const char *name;
};

/* A directory that has got another parent has another "..", which changes neither its times nor
 * anything else by which the kernel could tell that a listing that it has cached is out of date.
 * Nobody waits for us with a page of it: so this may, and must, be done while the rename is being served and its
 * caller has the locks of both parents. */
static void moved(struct server_file *file, const struct place *from, const struct place *to)
{
        if (server_file_is_dir(file) && from->dir != to->dir) {
                contents_forget(&file->contents);
                channel_inval_listing(file->table->mount->channel, file->id);
        }
}

static int exchange(const struct place *a, const struct place *b)
{
        SERVER_FILE(file_a);
        SERVER_FILE(file_b);
        FILE_LINK(link_a, a->dir, a->name);
        FILE_LINK(link_b, b->dir, b->name);
        struct node_table *table = a->dir->file.table;
        bool made;
        int64_t r;

        if (!link_a || !link_b)
                return -ENOMEM;
        r = intent_rename(a->dir, a->dirfd, a->name, b->dir, b->dirfd, b->name, true);
        made = r != INTENT_RUN;
        INTENT_CALL("exchange", r,
                    fs_rename(a->dirfd, a->name, b->dirfd, b->name, RENAME_EXCHANGE));
        if (r < 0)
                return (int)r;
        file_a = made ? node_that_was(table, 0) : dir_child(a->dir, a->name);
        file_b = made ? node_that_was(table, 1) : dir_child(b->dir, b->name);
        FAILPOINT("exchanged");
        if (file_a && file_b) {
                dir_link_two(g_steal_pointer(&link_a), file_b, g_steal_pointer(&link_b), file_a);
                moved(file_a, a, b);
                moved(file_b, b, a);
                return 0;
        }
        if (file_a) {
                dir_link(g_steal_pointer(&link_b), file_a);
                moved(file_a, a, b);
        }
        if (file_b) {
                dir_link(g_steal_pointer(&link_a), file_b);
                moved(file_b, b, a);
        }
        if (!file_b)
                dir_unlink(a->dir, a->name, false);
        if (!file_a)
                dir_unlink(b->dir, b->name, false);
        return 0;
}

/* The node that is renamed and the one that loses its name by it, with references, or NULL. `made`:
 * by a daemon that is dead, which may have changed the names already, or not, or in part. */
static void find_both(const struct place *from, const struct place *to, unsigned flags, bool made,
                      struct server_file **ret_file, struct server_file **ret_replaced)
{
        struct node_table *table = from->dir->file.table;

        *ret_file = made ? node_that_was(table, 0) : dir_child(from->dir, from->name);
        if (flags & RENAME_NOREPLACE)
                *ret_replaced = NULL;
        else
                *ret_replaced = made ? node_that_was(table, 1) : dir_child(to->dir, to->name);
}

static int move(const struct place *from, const struct place *to, unsigned flags)
{
        SERVER_FILE(file);
        SERVER_FILE(replaced);
        FILE_LINK(link, to->dir, to->name);
        bool gone = false, made;
        int64_t r;
        int pinned;

        if (!link)
                return -ENOMEM;
        r = intent_rename(from->dir, from->dirfd, from->name, to->dir, to->dirfd, to->name, false);
        made = r == 0;
        find_both(from, to, flags, made, &file, &replaced);
        if (replaced && replaced == file && !made) { /* two names of one file: nothing happens */
                if (r == INTENT_RUN)
                        r = fs_rename(from->dirfd, from->name, to->dirfd, to->name, flags);
                return (int)r;
        }
        pinned = r == 0 || r == INTENT_RUN ? before_removal(&replaced) : 0;
        if (r == INTENT_RUN && pinned < 0)
                return pinned;
        INTENT_CALL("rename", r, fs_rename(from->dirfd, from->name, to->dirfd, to->name, flags));
        if (replaced)
                gone = after_removal(replaced, r == 0);
        if (r < 0)
                return (int)r;
        FAILPOINT("renamed");
        dir_unlink(to->dir, to->name, gone);
        FAILPOINT("rename-unlinked");
        if (file) {
                dir_link(g_steal_pointer(&link), file);
                moved(file, from, to);
        }
        dir_unlink(from->dir, from->name, false);
        return 0;
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
               const char *new_name, unsigned flags)
{
        struct dir_linux_fs *dir = ops_dir(req, parent, name);
        struct dir_linux_fs *new_dir = dir ? ops_dir(req, new_parent, new_name) : NULL;

        if (new_dir) {
                NODE_FD(at, &dir->file);
                NODE_FD(new_at, &new_dir->file);
                const struct place from = {dir, at.fd, name}, to = {new_dir, new_at.fd, new_name};
                int r = at.fd < 0 ? at.fd : MIN(new_at.fd, 0);

                if (r == 0 && flags == RENAME_EXCHANGE)
                        r = exchange(&from, &to);
                else if (r == 0)
                        r = flags & ~RENAME_NOREPLACE ? -EINVAL : move(&from, &to, flags);
                ops_reply(req, r);
        }
}

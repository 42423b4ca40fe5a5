/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What makes a name.  The backing file system does it as the caller (creds.h), so that owner,
 * group, mode, default ACLs and setgid directories are its affair.
 *
 * When something was made but cannot be answered (no memory, no descriptor) it is removed again: a
 * caller that gets an error must be able to try once more.
 */
#include <errno.h>

#include "fusefs/worker/channel.h"
#include "fusefs/coherent/coherent.h"
#include "fusefs/node/creds.h"
#include "fusefs/resume/intent.h"
#include "fusefs/ops/ops.h"
#include "fusefs/ops/ops_guard.h"

/* Answers a request that made `name`, or failed to with `r`; `undo` removes the name. */
static void reply_made(fuse_req_t req, struct dir_linux_fs *dir, int dirfd, const char *name, int r,
                       int (*undo)(int dirfd, const char *name))
{
        struct node_table *table = dir->file.table;
        struct fuse_entry_param entry;

        if (r == 0) {
                r = ops_lookup(dir, dirfd, name, &entry);
                if (r < 0 && r != -ENOENT) {
                        intent_take_back();
                        undo(dirfd, name);
                }
        }
        if (r < 0)
                ops_reply(req, r);
        else if (fuse_reply_entry(req, &entry) < 0)
                ops_entry_undo(table, &entry);
}

/* Before the backing call: what intent_make() says, and the thread acts for the caller.  `mode`
 * with the type. */
static int64_t begin_make(fuse_req_t req, struct dir_linux_fs *dir, int dirfd, const char *name,
                          mode_t mode, struct creds *ret_creds)
{
        const mode_t type = mode & S_IFMT ? mode & S_IFMT : S_IFREG; /* mknod(2) */
        int r = MIN(dirfd, 0);

        if (r == 0)
                r = creds_for_caller(req, mode & ~(mode_t)S_IFMT, ret_creds);
        return r < 0 ? r : intent_make(dir, dirfd, name, type, -1);
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
        struct dir_linux_fs *dir = ops_dir(req, parent, name);

        if (dir) {
                NODE_FD(at, &dir->file);
                CREDS(creds);
                int64_t r = begin_make(req, dir, at.fd, name, mode, &creds);

                INTENT_CALL("mknod", r, fs_mknod(at.fd, name, mode, rdev));
                creds_restore(&creds);
                reply_made(req, dir, at.fd, name, (int)r, fs_unlink);
        }
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
        struct dir_linux_fs *dir = ops_dir(req, parent, name);

        if (dir) {
                NODE_FD(at, &dir->file);
                CREDS(creds);
                int64_t r = begin_make(req, dir, at.fd, name, mode | S_IFDIR, &creds);

                INTENT_CALL("mkdir", r, fs_mkdir(at.fd, name, mode));
                creds_restore(&creds);
                reply_made(req, dir, at.fd, name, (int)r, fs_rmdir);
        }
}

void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
        struct dir_linux_fs *dir = ops_dir(req, parent, name);

        if (dir) {
                NODE_FD(at, &dir->file);
                CREDS(creds);
                int64_t r = begin_make(req, dir, at.fd, name, S_IFLNK, &creds);

                INTENT_CALL("symlink", r, fs_symlink(target, at.fd, name));
                creds_restore(&creds);
                reply_made(req, dir, at.fd, name, (int)r, fs_unlink);
        }
}

/* The node itself gets the name; a lookup could find what another has put in its place. */
static int make_link(struct server_file *file, int fd, struct dir_linux_fs *dir, int dirfd,
                     const char *name, struct fuse_entry_param *ret_entry)
{
        const uint64_t seen = coherent_seen(file->table->mount->coherent);
        FILE_LINK(link, dir, name);
        struct fs_stat st;
        int64_t r = link ? intent_make(dir, dirfd, name, 0, fd) : -ENOMEM;

        INTENT_CALL("link", r, fs_link(fd, dirfd, name));
        if (r == 0)
                r = fs_stat(fd, &st);
        if (r < 0)
                return (int)r;
        dir_link(g_steal_pointer(&link), file);
        FAILPOINT("linked");
        if (kept_node_clear(file->kept, NODE_NAMELESS)) { /* an O_TMPFILE that gets a name now */
                park_node_over(file);
                node_fd_unpin(file);
        }
        ops_entry(dir, file, &st, seen, ret_entry);
        return 0;
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
        struct server_file *file = ops_file(req, ino);
        struct dir_linux_fs *dir = file ? ops_dir(req, new_parent, new_name) : NULL;

        if (dir) {
                struct node_table *table = dir->file.table;
                struct fuse_entry_param entry;
                NODE_FD(node, file);
                NODE_FD(at, &dir->file);
                int r = node.fd < 0 ? node.fd : MIN(at.fd, 0);

                if (r == 0)
                        r = make_link(file, node.fd, dir, at.fd, new_name, &entry);
                if (r < 0)
                        ops_reply(req, r);
                else if (fuse_reply_entry(req, &entry) < 0)
                        ops_entry_undo(table, &entry);
        }
}

/* Opens the file that a daemon made, and died: no name of it has got to anybody.  Its mode is for
 * those who come after who made it; where we have no more rights than he, it is made once more.
 * Returns the descriptor, -errno, or INTENT_RUN if that is to be done. */
static int64_t open_made(struct dir_linux_fs *dir, int dirfd, const char *name, int flags)
{
        const int fd = fs_open_node(dirfd, name);
        int r = fd;

        FAILPOINT("open-made");
        if (fd >= 0)
                r = ops_reopen(dir->file.table, fd, fs_open_flags(flags));
        fs_close(fd);
        if (r != -EACCES && r != -ENOENT)
                return r;
        intent_take_back();
        FAILPOINT("make-again");
        r = r == -EACCES ? fs_unlink(dirfd, name) : 0;
        return r < 0 ? r : intent_make(dir, dirfd, name, S_IFREG, -1);
}

/* Makes the file and opens it: its descriptor for I/O, or -errno.  Always exclusively: the kernel
 * asks for a name that it believes to be free, and has checked no right on a file that came to be
 * meanwhile behind the mount.  ESTALE lets it look again. */
static int create_open(fuse_req_t req, struct dir_linux_fs *dir, int dirfd, const char *name,
                       mode_t mode, int flags)
{
        struct node_table *table = dir->file.table;
        const bool tmpfile = channel_request()->tmpfile;
        int64_t intent = INTENT_RUN;
        CREDS(creds);
        int fd, r = creds_for_caller(req, mode, &creds);

        if (r < 0)
                return r;
        if (!tmpfile)
                intent = intent_make(dir, dirfd, name, S_IFREG, -1);
        if (intent == 0)
                intent = open_made(dir, dirfd, name, flags);
        if (intent != INTENT_RUN)
                return (int)intent;
        FAILPOINT("create-before");
        for (bool again = false;; again = true) {
                fd = tmpfile ? fs_tmpfile(dirfd, flags, mode) : fs_create(dirfd, name, flags, mode);
                if (again || !node_fds_exhausted(fd) || node_fds_shrink(&table->fds) == 0)
                        break;
        }
        FAILPOINT("create-called");
        if (fd == -EEXIST && !tmpfile && !(flags & O_EXCL))
                fd = -ESTALE;
        if (!tmpfile)
                request_done(request_current(), MIN(fd, 0));
        FAILPOINT("create-done");
        return fd;
}

/* As node_table_instantiate(), for the file that is open as `io_fd`, which stays the caller's. */
static int instantiate_open(struct node_table *table, int io_fd, const struct fs_stat *st,
                            struct server_file **ret_file)
{
        int fd, r = node_table_instantiate_by_handle(table, st, io_fd, ret_file);

        if (r != 0)
                return MIN(r, 0);
        fd = fs_reopen_path(io_fd);
        if (node_fds_exhausted(fd) && node_fds_shrink(&table->fds) > 0)
                fd = fs_reopen_path(io_fd);
        if (fd < 0)
                return fd;
        r = node_table_instantiate(table, st, fd, ret_file);
        if (r < 0)
                fs_close(fd);
        return r;
}

/* The node of the new file that is open as `io_fd`. */
static int created_node(struct dir_linux_fs *dir, const char *name, int io_fd,
                        struct fs_stat *ret_st, struct server_file **ret_file)
{
        SERVER_FILE(file);
        int r = fs_stat(io_fd, ret_st);

        if (r == 0)
                r = instantiate_open(dir->file.table, io_fd, ret_st, &file);
        if (r < 0)
                return r;
        if (name) {
                r = dir_saw(dir, name, file);
        } else {
                r = node_fd_pin(file); /* no name: it could not be opened again */
                if (r >= 0) {
                        kept_node_set(file->kept, NODE_NAMELESS);
                        park_node(file, r);
                        r = 0;
                }
        }
        if (r == 0)
                *ret_file = g_steal_pointer(&file);
        return r;
}

/* As ops_describe().  The backing file stays with the kernel as long as anybody has the file open,
 * perhaps longer than who makes it here: so it must not be the descriptor for writing, which would
 * keep others from running the file.  A nameless one nobody can run. */
static int describe_created(fuse_req_t req, struct server_file *file, int io_fd, mode_t mode,
                            struct fuse_file_info *fi, struct description **ret_description)
{
        const bool writes = (fi->flags & O_ACCMODE) != O_RDONLY && !channel_request()->tmpfile;
        const bool fast = k42_mount_of(req)->io_class == IO_CLASS_FAST;
        const int path_fd = fast && writes ? node_fd_get_like(file, io_fd) : -1; /* failed: goes without */
        const struct file_open open = {
                .fd = io_fd, .path_fd = path_fd, .flags = fi->flags, .mode = mode};
        int r = ops_describe(req, file, &open, fi, ret_description);

        if (path_fd >= 0)
                node_fd_put(file);
        return r;
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
               struct fuse_file_info *fi)
{
        const bool tmpfile = channel_request()->tmpfile;
        struct dir_linux_fs *dir = ops_dir(req, parent, tmpfile ? "-" : name);

        if (dir) {
                struct node_table *table = dir->file.table;
                const uint64_t seen = coherent_seen(table->mount->coherent);
                struct description *description;
                struct fuse_entry_param entry;
                struct fs_stat st;
                OPS_GUARD(guard);
                SERVER_FILE(file);
                NODE_FD(at, &dir->file);
                int io_fd = at.fd < 0 ? at.fd : ops_may_open(req), r;

                if (io_fd >= 0)
                        io_fd = ops_guard_enter_open(&guard, req, &dir->file);
                if (io_fd >= 0)
                        io_fd = create_open(req, dir, at.fd, name, mode, fi->flags);
                if (io_fd < 0) {
                        ops_reply(req, io_fd);
                        return;
                }
                r = created_node(dir, tmpfile ? NULL : name, io_fd, &st, &file);
                if (r == 0)
                        r = describe_created(req, file, io_fd, st.st.st_mode, fi, &description);
                else
                        fs_close(io_fd);
                if (r < 0) {
                        if (!tmpfile) { /* made with O_EXCL: ours */
                                intent_take_back();
                                fs_unlink(at.fd, name);
                        }
                        ops_reply(req, r);
                        return;
                }
                ops_entry(dir, file, &st, seen, &entry);
                if (fuse_reply_create(req, &entry, fi) < 0) {
                        ops_not_taken(file, description);
                        ops_entry_undo(table, &entry);
                }
        }
}

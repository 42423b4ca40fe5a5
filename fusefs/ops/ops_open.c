/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From OPEN to RELEASE.  What an open makes is a description (lazy/description.h), which owns the
 * backing descriptor, if there is need of one; its id is fi->fh.
 */
#include <errno.h>

#include "fusefs/worker/channel.h"
#include "fusefs/coherent/coherent.h"
#include "fusefs/node/creds.h"
#include "fusefs/resume/intent.h"
#include "fusefs/ops/ops.h"
#include "fusefs/ops/ops_guard.h"
#include "fusefs/resume/park.h"
#include "fusefs/node/timeouts.h"
#include "lazy/account.h"

#define DIR_CACHE_TIMEOUT                                                                          \
        60 /* seconds that names are believed, from which on listings are cached */

/* What the kernel has cached is kept if it is still right.  A directory's names are cached only
 * where they are believed for long: else who lists it would get the names at once and then ask for
 * each of them, instead of getting all that with READDIRPLUS. */
static void keep_cache(struct server_file *file, int fd, struct fuse_file_info *fi)
{
        const struct k42_mount *mount = file->table->mount;
        const uint64_t seen = coherent_seen(mount->coherent);
        const bool is_dir = server_file_is_dir(file);
        struct fs_stat st;
        enum contents contents;

        if (is_dir && timeouts_entry(dir_linux_fs_of(file), seen) < DIR_CACHE_TIMEOUT)
                return;
        /* A store into a mapping changes the times at its first fault only: that the times are the
         * same proves something only where we are told of the last close, or nobody else stores. */
        if (!is_dir && !mount->options.exclusive && !coherent_covers(mount->coherent, file))
                return;
        contents = fs_stat(fd, &st) == 0 ? contents_look(&file->contents, &st, g_get_real_time())
                                         : CONTENTS_YOUNG;
        fi->keep_cache = contents == CONTENTS_KEPT;
        fi->cache_readdir = is_dir && contents != CONTENTS_YOUNG;
}

int ops_describe(fuse_req_t req, struct server_file *file, const struct file_open *open,
                 struct fuse_file_info *fi, struct description **ret_description)
{
        const struct k42_mount *mount = k42_mount_of(req);
        const bool is_file = !server_file_is_dir(file);
        struct request *request = request_current();
        const struct description_how how = {
                .fd = open->fd,
                .flags = fi->flags,
                .type = is_file ? XOBJ_FILE : XOBJ_DIR,
                .io_class = is_file ? file_opens_begin(file, open) : IO_CLASS_CACHED,
                .tid = fuse_req_ctx(req)->pid,
                .made = request ? &request->description : NULL,
        };
        int r;

        FAILPOINT("describing");
        r = description_open(mount->lazy, &file->object, &how, ret_description);
        FAILPOINT("described");
        if (r == 0 && is_file) {
                file_opens_recorded(file);
                account_post(*ret_description, how.tid, (*ret_description)->opener);
        }
        if (r < 0) {
                if (is_file)
                        file_opens_end(file, how.io_class, how.flags, open->fd);
                if (open->fd >= 0)
                        fs_close(open->fd);
                return r;
        }
        park_opened(file, *ret_description, open->fd);
        fi->fh = (*ret_description)->id;
        if (is_file && mount->io_class == IO_CLASS_FAST && how.io_class != IO_CLASS_CACHED)
                timeouts_opened_fast(file, fi->flags, how.io_class);
        if (is_file) {
                fi->direct_io = how.io_class == IO_CLASS_COUNTED;
                fi->noflush = mount->noflush;
        }
        if (how.io_class == IO_CLASS_CACHED)
                keep_cache(file, open->fd, fi);
        return 0;
}

void ops_not_taken(struct server_file *file, struct description *description)
{
        contents_forget(&file->contents);
        ops_release(file, description);
}

/* What the node knows of the description. */
static void release_from_node(struct server_file *file, const struct description *description)
{
        const int fd = atomic_load(&description->fd);

        park_released(file, description);
        if (description->type == XOBJ_FILE && (fd >= 0 || (description->flags & O_ACCMODE) == O_RDONLY)) {
                file_opens_end(file, description->io_class, description->flags, fd);
        } else if (description->type == XOBJ_FILE) { /* an earlier daemon's for writing, that nobody used */
                NODE_FD(node, file);

                file_opens_end(file, description->io_class, description->flags, node.fd);
        }
}

void ops_release(struct server_file *file, struct description *description)
{
        release_from_node(file, description);
        description_release(description);
}

bool ops_release_doubtful(struct server_file *file, struct description *description)
{
        if (!description_release_doubtful(description))
                return false;
        release_from_node(file, description);
        return true;
}

static bool has_suidgid(int fd)
{
        struct fs_stat st;

        return fs_stat(fd, &st) == 0 && (st.st.st_mode & (S_ISUID | S_ISGID));
}

/* A file that can only be appended to refuses to be opened for anything else. */
static int open_file(fuse_req_t req, struct server_file *file, int fd, int flags)
{
        bool loses_bits = false;
        int64_t truncated = 0;
        CREDS(creds);
        int io_fd;

        if (!S_ISREG(file->type)) /* the kernel opens the others itself */
                return server_file_is_dir(file) ? -EISDIR : -ENXIO;
        if (flags & O_TRUNC) {
                int r = creds_for_change(req, fd, channel_request()->kill_suidgid, &creds);

                if (r < 0)
                        return r;
                loses_bits = has_suidgid(fd);
        }
        if (flags & O_TRUNC)
                truncated = intent_once();
        if (truncated < 0)
                return (int)truncated;
        if ((flags & O_TRUNC) && truncated != INTENT_RUN) { /* that was done already */
                flags &= ~O_TRUNC;
                loses_bits = true; /* perhaps */
        }
        FAILPOINT("open-before");
        io_fd = ops_reopen(file->table, fd, fs_open_flags(flags));
        if (io_fd == -EPERM && (flags & O_APPEND))
                io_fd = ops_reopen(file->table, fd, fs_open_flags(flags) | O_APPEND);
        FAILPOINT("open-called");
        if (truncated == INTENT_RUN)
                request_done(request_current(), MIN(io_fd, 0));
        /* The kernel knows what O_TRUNC does to the size, but not what it does to the mode. */
        if (io_fd >= 0 && loses_bits)
                channel_forget_attributes(k42_mount_of(req)->channel, file->id);
        return io_fd;
}

/* Takes open->fd, which may be -errno. */
static void reply_open(fuse_req_t req, struct server_file *file, const struct file_open *open,
                       struct fuse_file_info *fi)
{
        struct description *description;
        int r = open->fd < 0 && !open->joined ? open->fd : ops_describe(req, file, open, fi, &description);

        if (r < 0)
                ops_reply(req, r);
        else if (fuse_reply_open(req, fi) < 0)
                ops_not_taken(file, description);
}

static void open_by_node(fuse_req_t req, struct server_file *file, struct fuse_file_info *fi,
                         enum xobj_type type, int may)
{
        NODE_FD(node, file);
        struct file_open open = {.path_fd = node.fd, .flags = fi->flags};

        open.fd = node.fd < 0 ? node.fd : may;
        if (open.fd >= 0 && type == XOBJ_DIR)
                open.fd = ops_reopen(file->table, node.fd, fs_open_flags(fi->flags) | O_DIRECTORY);
        else if (open.fd >= 0)
                open.fd = open_file(req, file, node.fd, fi->flags);
        reply_open(req, file, &open, fi);
}

/* A file that is only read needs no descriptor of its node.  One that is open for reading keeps nobody
 * from anything but from a write lease, as the backing file for the kernel as well. */
static int open_unopened(struct server_file *file, int flags)
{
        if (!S_ISREG(file->type) || (flags & (O_ACCMODE | O_TRUNC)) != O_RDONLY)
                return -EBADF;
        return node_fd_open_unopened(file, fs_open_flags(flags));
}

/* Where the kernel has the backing file, one that is only read needs no descriptor at all: whoever asks us for
 * something after all (to sync it, where its data is) has it opened then, see description_fd(). */
static bool join_unopened(struct server_file *file, int flags)
{
        return S_ISREG(file->type) && node_fd_by_handle(file) && file_opens_join(file, flags);
}

static void open_node(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
                      enum xobj_type type)
{
        struct server_file *file = ops_file(req, ino);

        if (file) {
                OPS_GUARD(guard);
                struct file_open open = {.fd = -1, .path_fd = -1, .flags = fi->flags};
                const int r = ops_guard_enter_open(&guard, req, file), may = ops_may_open(req);

                if (r < 0) {
                        ops_reply(req, r);
                        return;
                }
                open.joined = may == 0 && join_unopened(file, fi->flags);
                if (may == 0 && !open.joined)
                        open.fd = open.path_fd = open_unopened(file, fi->flags);
                if (open.joined || open.fd >= 0)
                        reply_open(req, file, &open, fi);
                else
                        open_by_node(req, file, fi, type, may);
        }
}

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        open_node(req, ino, fi, XOBJ_FILE);
}

void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        open_node(req, ino, fi, XOBJ_DIR);
}

/* On a local file system close() has nothing to tell; a kernel that does not know noflush learns it
 * from the ENOSYS and asks no more. */
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        int fd;

        if (k42_mount_of(req)->noflush)
                fuse_reply_err(req, ENOSYS);
        else if (ops_description_fd(req, fi, &fd))
                ops_reply(req, fs_close_error(fd));
}

/* RELEASEDIR too. */
void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        struct description *description = ops_description(req, fi);

        if (description) {
                SERVER_FILE(file);

                file = server_file_ref(server_file_of(description->object));
                FAILPOINT("release");
                ops_release(file, description);
                FAILPOINT("released");
                ops_reply(req, 0);
        }
}

/* FSYNCDIR too. */
void op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
        int fd;

        if (ops_description_fd(req, fi, &fd))
                ops_reply(req, fs_sync(fd, data_only));
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Data.  Bytes are counted before the answer: whoever has got the answer finds them in the count.
 *
 * The backing descriptor has no O_APPEND: a write says itself whether it appends, as the
 * descriptor's flags are at the time of the call (F_SETFL), and a store of a dirty mapped page
 * never does.  An appending write goes to the real end of the file, even when somebody else has
 * moved it behind the mount.
 */
#include <errno.h>
#include <string.h>

#include "fusefs/worker/channel.h"
#include "fusefs/node/creds.h"
#include "fusefs/resume/intent.h"
#include "fusefs/ops/ops.h"
#include "fusefs/ops/ops_guard.h"

/* O_DIRECT of the backing descriptor was refused; true if the caller has turned it off since (then
 * it is off here, too) and the call can be made again. */
static bool direct_is_over(const struct description *description, int fd,
                           const struct fuse_file_info *fi, ssize_t r)
{
        return r == -EINVAL && (description->flags & O_DIRECT) && !(fi->flags & O_DIRECT) &&
               fs_clear_direct(fd) == 0;
}

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
        OPS_GUARD(guard);
        int fd;
        struct description *description = ops_description_fd(req, fi, &fd);

        if (description && ops_guard_enter(&guard, req, description,
                                           ops_guard_read_rights(description, fi))) {
                char *data = ops_buffer(size);
                ssize_t n = data ? fs_pread(fd, data, size, offset) : -ENOMEM;

                if (direct_is_over(description, fd, fi, n))
                        n = fs_pread(fd, data, size, offset);
                if (n < 0) {
                        ops_reply(req, (int)n);
                        return;
                }
                /* Only the page cache reads without the owner of a system call. */
                if (description->io_class == IO_CLASS_COUNTED && fi->lock_owner == 0)
                        description_count_pages(description, fuse_req_ctx(req)->pid, (uint64_t)n);
                else
                        description_count_read(description, fuse_req_ctx(req)->pid, (uint64_t)n);
                fuse_reply_buf(req, data, (size_t)n);
        }
}

/* libfuse's buffer is not aligned: what goes past the page cache goes through one that is. */
static const char *aligned(const struct description *description, const char *data, size_t size)
{
        char *copy;

        if (!(description->flags & O_DIRECT))
                return data;
        copy = ops_buffer(size);
        if (copy)
                memcpy(copy, data, size);
        return copy;
}

static bool may_write(struct ops_guard *guard, fuse_req_t req, struct description *description,
                      const struct fuse_file_info *fi)
{
        if (!fi->writepage)
                return ops_guard_enter(guard, req, description, RIGHT_WRITE);
        ops_guard_enter_unasked(guard, req, description);
        return true;
}

/* Pages of a file that was revoked, stored to after that: see blocked.h. */
static bool thrown_away(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi, size_t size)
{
        const struct server_file *file =
                fi->writepage ? node_table_file(k42_mount_of(req)->nodes, ino) : NULL;

        if (!file || !server_file_has(file, NODE_SEALED))
                return false;
        fuse_reply_write(req, size);
        return true;
}

/* Where a WRITE goes. */
struct output {
        const struct description *description;
        const struct fuse_file_info *fi;
        int fd;
        off_t offset;
        bool append;
};

static ssize_t put(const struct output *to, const char *data, size_t size)
{
        ssize_t n;

        data = aligned(to->description, data, size);
        if (!data)
                return -ENOMEM;
        n = fs_pwrite(to->fd, data, size, to->offset, to->append);
        if (direct_is_over(to->description, to->fd, to->fi, n))
                n = fs_pwrite(to->fd, data, size, to->offset, to->append);
        return n;
}

/* What a dead daemon has appended is not appended again: `before` bytes of the data, all there is
 * to the count. */
static ssize_t put_rest(const struct output *to, const char *data, size_t size, size_t before)
{
        const ssize_t n = put(to, data + before, size - before);

        return n >= 0 ? n + (ssize_t)before : before > 0 ? (ssize_t)before : n;
}

static int64_t write_once(const struct output *to, const char *data, size_t size)
{
        size_t before = 0;
        int64_t r = to->append ? intent_append(to->fd, data, size, &before) : intent_once();

        INTENT_CALL("write", r, put_rest(to, data, size, before));
        return r;
}

void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
              struct fuse_file_info *fi)
{
        OPS_GUARD(guard);
        int fd;
        /* Whoever throws it away needs no descriptor, which there may be none of any more. */
        struct description *description =
                thrown_away(req, ino, fi, size) ? NULL : ops_description_fd(req, fi, &fd);

        if (description && may_write(&guard, req, description, fi)) {
                const struct output output = {
                        .description = description,
                        .fi = fi,
                        .fd = fd,
                        .offset = offset,
                        .append = (fi->flags & O_APPEND) && !fi->writepage,
                };
                CREDS(creds);
                int64_t n = creds_for_change(req, fd, channel_request()->kill_suidgid, &creds);

                if (n == 0)
                        n = write_once(&output, data, size);
                creds_restore(&creds);
                if (n < 0) {
                        ops_reply(req, (int)n);
                        return;
                }
                /* A mapping's pages are written back by nobody: what is counted by caller are calls. */
                if (!fi->writepage || description->io_class != IO_CLASS_COUNTED)
                        description_count_write(description, fuse_req_ctx(req)->pid, (uint64_t)n);
                fuse_reply_write(req, (size_t)n);
        }
}

/* The kernel does not tell for these two whether the caller may keep setuid bits: root may. */
static int for_change_by_uid(fuse_req_t req, int fd, struct creds *ret_creds)
{
        return creds_for_change(req, fd, fuse_req_ctx(req)->uid != 0, ret_creds);
}

#define MOVES_DATA (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE)

void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                  struct fuse_file_info *fi)
{
        OPS_GUARD(guard);
        int fd;
        struct description *description = ops_description_fd(req, fi, &fd);

        if (description && ops_guard_enter(&guard, req, description, RIGHT_WRITE)) {
                CREDS(creds);
                int64_t r = for_change_by_uid(req, fd, &creds);

                if (r == 0)
                        r = mode & MOVES_DATA ? intent_resize(fd) : intent_once();
                INTENT_CALL("fallocate", r, fs_fallocate(fd, mode, offset, length));
                creds_restore(&creds);
                ops_reply(req, (int)r);
        }
}

/* EXDEV (two file systems below SOURCE) makes the kernel copy by reading and writing. */
void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t offset_in,
                        struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t offset_out,
                        struct fuse_file_info *fi_out, size_t size, int flags)
{
        OPS_GUARD(reading);
        OPS_GUARD(writing);
        int in_fd, out_fd;
        struct description *in = ops_description_fd(req, fi_in, &in_fd);
        struct description *out = in ? ops_description_fd(req, fi_out, &out_fd) : NULL;

        if (out && ops_guard_enter(&reading, req, in, RIGHT_READ) &&
            ops_guard_enter(&writing, req, out, RIGHT_WRITE)) {
                const pid_t pid = fuse_req_ctx(req)->pid;
                CREDS(creds);
                int64_t n = for_change_by_uid(req, out_fd, &creds);

                if (n == 0)
                        n = intent_once();
                INTENT_CALL(
                        "copy", n,
                        fs_copy_range(in_fd, offset_in, out_fd, offset_out, size, (unsigned)flags));
                creds_restore(&creds);
                if (n < 0) {
                        ops_reply(req, (int)n);
                        return;
                }
                description_count_read(in, pid, (uint64_t)n);
                description_count_write(out, pid, (uint64_t)n);
                /* The kernel does not know that it changes st_atime of what is read. */
                channel_forget_attributes(k42_mount_of(req)->channel, ino_in);
                fuse_reply_write(req, (size_t)n);
        }
}

/* SEEK_DATA and SEEK_HOLE; the kernel does the others.  The backing descriptor's own offset is of
 * no meaning to anybody. */
void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
        OPS_GUARD(guard);
        int fd;
        struct description *description = ops_description_fd(req, fi, &fd);

        if (description && ops_guard_enter(&guard, req, description, RIGHTS_NONE)) {
                const off_t at = fs_seek(fd, offset, whence);

                if (at < 0)
                        ops_reply(req, (int)at);
                else
                        fuse_reply_lseek(req, at);
        }
}

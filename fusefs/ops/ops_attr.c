/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Attributes, and what else is asked of a node without opening it. */
#include <errno.h>
#include <limits.h>

#include "fusefs/worker/channel.h"
#include "fusefs/coherent/coherent.h"
#include "fusefs/node/creds.h"
#include "fusefs/resume/intent.h"
#include "fusefs/ops/ops.h"
#include "fusefs/ops/ops_guard.h"
#include "fusefs/node/timeouts.h"

/* The descriptor to ask: the open file's, which always works, else the node's. */
struct attr_fd {
        struct server_file *borrowed; /* whose node descriptor it is; a reference */
        int fd;                       /* or -errno */
        int io_fd;                    /* the open file's, or -1 */
};

static struct attr_fd attr_fd(fuse_req_t req, struct server_file *file,
                              const struct fuse_file_info *fi)
{
        struct description *description =
                fi ? description_from_fh(k42_mount_of(req)->lazy, fi->fh) : NULL;

        if (description) {
                const int fd = description_fd(description);

                return (struct attr_fd){.fd = fd, .io_fd = fd};
        }
        return (struct attr_fd){
                .borrowed = server_file_ref(file), .fd = node_fd_get(file), .io_fd = -1};
}

static void attr_fd_done(struct attr_fd *at)
{
        if (at->borrowed && at->fd >= 0)
                node_fd_put(at->borrowed);
        if (at->borrowed)
                server_file_unref(at->borrowed);
}
#define ATTR_FD(name, ...)                                                                         \
        __attribute__((cleanup(attr_fd_done))) struct attr_fd name = attr_fd(__VA_ARGS__)

static void reply_attr(fuse_req_t req, struct server_file *file, int fd)
{
        const uint64_t seen = coherent_seen(k42_mount_of(req)->coherent);
        struct fs_stat st;
        int r = fs_stat(fd, &st);

        if (r < 0)
                ops_reply(req, r);
        else
                fuse_reply_attr(req, &st.st, timeouts_attr(file, &st, seen));
}

void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        struct server_file *file = ops_file(req, ino);

        if (file) {
                ATTR_FD(at, req, file, fi);

                if (at.fd < 0)
                        ops_reply(req, at.fd);
                else
                        reply_attr(req, file, at.fd);
        }
}

static struct timespec time_to_set(int to_set, int bit, int bit_now, struct timespec value)
{
        if (to_set & bit_now)
                value.tv_nsec = UTIME_NOW;
        else if (!(to_set & bit))
                value.tv_nsec = UTIME_OMIT;
        return value;
}

#define SET_OWNER (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)

static int change_owner(fuse_req_t req, int fd, uid_t uid, gid_t gid)
{
        CREDS(creds);
        int r = creds_for_change(req, fd, fuse_req_ctx(req)->uid != 0, &creds);

        return r < 0 ? r : fs_chown(fd, uid, gid);
}

static int set_owner(fuse_req_t req, int fd, const struct stat *attr, int to_set)
{
        const uid_t uid = to_set & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1;
        const gid_t gid = to_set & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1;

        return to_set & SET_OWNER ? change_owner(req, fd, uid, gid) : 0;
}

/* A SETATTR of nothing is a chown(-1, -1), which is not without effect, as it takes setuid and
 * setgid bits off; or the kernel is about to write, and thinks that it has to take them off before.
 * It has not checked whose file it is.  A stranger must not take them off without writing, and when
 * he writes, the write itself does it. */
static int set_nothing(fuse_req_t req, int fd, const struct stat *before)
{
        const uid_t uid = fuse_req_ctx(req)->uid;

        if (k42_mount_of(req)->privileged && uid != 0 && uid != before->st_uid)
                return 0;
        return change_owner(req, fd, (uid_t)-1, (gid_t)-1);
}

static int set_size(fuse_req_t req, int fd, int io_fd, off_t size, int to_set)
{
        CREDS(creds);
        int r;

        if (!(to_set & FUSE_SET_ATTR_SIZE))
                return 0;
        r = creds_for_change(req, fd, channel_request()->kill_suidgid, &creds);
        if (r < 0)
                return r;
        r = io_fd >= 0 ? fs_ftruncate(io_fd, size) : fs_truncate(fd, size);
        return r == -EINVAL && io_fd >= 0 ? fs_truncate(fd, size) : r; /* open for reading only */
}

static int set_times(int fd, const struct stat *attr, int to_set)
{
        const struct timespec times[2] = {
                time_to_set(to_set, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, attr->st_atim),
                time_to_set(to_set, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, attr->st_mtim),
        };

        return times[0].tv_nsec == UTIME_OMIT && times[1].tv_nsec == UTIME_OMIT
                       ? 0
                       : fs_utimens(fd, times);
}

/* The owner first, because nothing else is refused so often; the size before the mode, because it
 * may take bits off the mode; the times last, because the size changes them.  What was done before
 * a failure is taken back, but for the size, which nothing that can fail comes after in one call of
 * Linux. */
static int set_attr(fuse_req_t req, int fd, int io_fd, const struct stat *attr, int to_set)
{
        const int all = SET_OWNER | FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_ATIME |
                        FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW |
                        FUSE_SET_ATTR_CTIME;
        struct fs_stat before;
        int64_t intent;
        int r = fs_stat(fd, &before);

        if (r < 0)
                return r;
        intent = intent_attr(&before.st);
        if (intent != INTENT_RUN)
                return (int)intent;
        if (!(to_set & all))
                return set_nothing(req, fd, &before.st);
        FAILPOINT("set-owner");
        r = set_owner(req, fd, attr, to_set);
        if (r < 0)
                return r;
        FAILPOINT("set-size");
        r = set_size(req, fd, io_fd, attr->st_size, to_set);
        FAILPOINT("set-mode");
        if (r == 0 && (to_set & FUSE_SET_ATTR_MODE)) {
                creds_fsetid(true);
                r = fs_chmod(fd, attr->st_mode & 07777);
        }
        FAILPOINT("set-times");
        if (r == 0)
                r = set_times(fd, attr, to_set);
        if (r < 0) {
                set_owner(req, fd, &before.st, to_set);
                if (to_set & (SET_OWNER | FUSE_SET_ATTR_MODE)) {
                        creds_fsetid(true);
                        fs_chmod(fd, before.st.st_mode & 07777);
                }
        }
        return r;
}

/* May the caller change the size: by its descriptor, or as if it opened the file for that?  False: no, and
 * the request is answered. */
static bool may_set_size(struct ops_guard *guard, fuse_req_t req, struct server_file *file,
                         const struct fuse_file_info *fi)
{
        struct description *description =
                fi ? description_from_fh(k42_mount_of(req)->lazy, fi->fh) : NULL;
        int r;

        if (description)
                return ops_guard_enter(guard, req, description, RIGHT_WRITE);
        r = ops_guard_enter_open(guard, req, file);
        if (r < 0)
                ops_reply(req, r);
        return r == 0;
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
                struct fuse_file_info *fi)
{
        struct server_file *file = ops_file(req, ino);
        OPS_GUARD(guard);

        if (file && (!(to_set & FUSE_SET_ATTR_SIZE) || may_set_size(&guard, req, file, fi))) {
                ATTR_FD(at, req, file, fi);
                int r = at.fd < 0 ? at.fd : set_attr(req, at.fd, at.io_fd, attr, to_set);

                FAILPOINT("attr-called");
                request_done(request_current(), r);
                FAILPOINT("attr-done");
                if (r < 0)
                        ops_reply(req, r);
                else
                        reply_attr(req, file, at.fd);
        }
}

void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
        struct server_file *file = ops_file(req, ino);

        if (file) {
                NODE_FD(node, file);
                char *target = ops_buffer(PATH_MAX + 1); /* Linux makes and shows no longer one */
                ssize_t n = !target ? -ENOMEM : node.fd;

                if (n >= 0)
                        n = fs_readlink(node.fd, target, PATH_MAX);
                if (n < 0) {
                        ops_reply(req, (int)n);
                } else {
                        target[n] = '\0';
                        fuse_reply_readlink(req, target);
                }
        }
}

/* Only asked without default_permissions: then our rights are what counts. */
void op_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
        struct server_file *file = ops_file(req, ino);

        if (file) {
                NODE_FD(node, file);

                ops_reply(req, node.fd < 0 ? node.fd : fs_access(node.fd, mask));
        }
}

void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
        struct server_file *file = ops_file(req, ino);

        if (file) {
                NODE_FD(node, file);
                struct statvfs st;
                int r = node.fd < 0 ? node.fd : fs_statvfs(node.fd, &st);

                if (r < 0)
                        ops_reply(req, r);
                else
                        fuse_reply_statfs(req, &st);
        }
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ioctl: our own messages (lazy/protocol.h), and the attributes that chattr(1) and lsattr(1) show,
 * which are forwarded.  Everything else is not for us: ENOTTY.
 *
 * A request's data come from the caller as they are: sizes are checked against the struct before a
 * byte is read, and it is copied, because it need not be aligned.
 */
#include <errno.h>
#include <linux/fs.h>
#include <string.h>
#include <unistd.h>

#include "fusefs/control/revoke.h"
#include "fusefs/worker/channel.h"
#include "fusefs/control/fork_mode.h"
#include "fusefs/resume/intent.h"
#include "fusefs/ops/ops.h"
#include "fusefs/ops/ops_guard.h"
#include "fusefs/state_dir.h"
#include "lazy/lazy_reopen.h"
#include "lazy/private_reopen.h"

/* One ioctl that is under way. */
struct call {
        fuse_req_t req;
        struct description *description;
        int fd; /* forwarded ones: the backing descriptor */
        unsigned cmd;
        const void *in;
        size_t in_size, out_size;
};

static int do_lazy_reopen(const struct call *call, void *message)
{
        struct k42_lazy_reopen *reopen = message;
        const struct k42_options *options = &k42_mount_of(call->req)->options;
        int r = lazy_reopen(call->description, fuse_req_ctx(call->req)->pid, reopen);

        if (r == 0 && options->fork_private)
                reopen->fork = fork_mode_of(options, call->description->object);
        return r;
}

static int do_private_reopen(const struct call *call, void *message)
{
        return private_reopen(call->description, fuse_req_ctx(call->req)->pid, message);
}

static int do_identify(const struct call *call, void *message)
{
        return lazy_identify(call->description, message);
}

static int do_where(const struct call *call, void *message)
{
        struct k42_where *where = message;
        const char *path = state_dir_path(k42_mount_of(call->req)->state_dir);
        int r = k42_header_check(&where->header, _IOC_SIZE(call->cmd), sizeof *where);

        if (r == 0 && where->reserved != 0)
                r = -EINVAL;
        if (r == 0 && strlen(path) >= sizeof where->state_dir)
                r = -ENAMETOOLONG;
        if (r < 0)
                return r;
        where->worker_pid = getpid();
        memset(where->state_dir, 0, sizeof where->state_dir);
        memcpy(where->state_dir, path, strlen(path));
        return 0;
}

static int do_withhold(const struct call *call, void *message)
{
        return revoke_withhold(k42_mount_of(call->req), fuse_req_ctx(call->req)->pid, message);
}

#define MESSAGE_MAX 1024

static const struct message {
        unsigned cmd;
        int (*run)(const struct call *call, void *message);
} messages[] = {
        {K42_IOC_LAZY_REOPEN, do_lazy_reopen},
        {K42_IOC_IDENTIFY, do_identify},
        {K42_IOC_WHERE, do_where},
        {K42_IOC_WITHHOLD, do_withhold},
        {K42_IOC_PRIVATE_REOPEN, do_private_reopen},
};
G_STATIC_ASSERT(sizeof(struct k42_where) <= MESSAGE_MAX);

static void run_message(const struct call *call, const struct message *message)
{
        _Alignas(16) char data[MESSAGE_MAX];
        const size_t size = _IOC_SIZE(message->cmd);
        int r = -EMSGSIZE;

        if (call->in_size == size && call->out_size == size) {
                memcpy(data, call->in, size);
                FAILPOINT("message");
                r = message->run(call, data);
                FAILPOINT("message-done");
        }
        if (r < 0)
                ops_reply(call->req, r);
        else
                fuse_reply_ioctl(call->req, 0, data, size);
}

/* True if it was one of ours, which is then answered. */
static bool own_message(const struct call *call)
{
        for (unsigned i = 0; i < G_N_ELEMENTS(messages); i++) {
                const struct message *message = &messages[i];

                if (call->cmd == message->cmd) {
                        run_message(call, message);
                        return true;
                }
                if (_IOC_TYPE(call->cmd) == _IOC_TYPE(message->cmd) &&
                    _IOC_NR(call->cmd) == _IOC_NR(message->cmd) &&
                    _IOC_SIZE(call->cmd) != _IOC_SIZE(message->cmd)) {
                        ops_reply(call->req, -EMSGSIZE);
                        return true;
                }
        }
        return false;
}

/* The kernel's size of what these requests carry, which is not the one in their number. */
static size_t forwarded_size(unsigned cmd)
{
        switch (cmd) {
        case FS_IOC_GETFLAGS:
        case FS_IOC32_GETFLAGS:
        case FS_IOC_SETFLAGS:
        case FS_IOC32_SETFLAGS:
        case FS_IOC_GETVERSION:
        case FS_IOC32_GETVERSION:
                return sizeof(int);
        case FS_IOC_FSGETXATTR:
        case FS_IOC_FSSETXATTR:
                return sizeof(struct fsxattr);
        default:
                return 0;
        }
}

static unsigned long forwarded_request(unsigned cmd)
{
        switch (cmd) {
        case FS_IOC32_GETFLAGS:
                return FS_IOC_GETFLAGS;
        case FS_IOC32_SETFLAGS:
                return FS_IOC_SETFLAGS;
        case FS_IOC32_GETVERSION:
                return FS_IOC_GETVERSION;
        default:
                return cmd;
        }
}

/* Kernels before 5.13 leave it all to us: only the owner may, and what makes a file immutable, and
 * its project, are root's.  Later ones have checked already. */
static int may_set_flags(const struct call *call)
{
        const uid_t uid = fuse_req_ctx(call->req)->uid;
        const unsigned guarded = FS_IMMUTABLE_FL | FS_APPEND_FL;
        const unsigned guarded_x = FS_XFLAG_IMMUTABLE | FS_XFLAG_APPEND;
        struct fs_stat st;
        struct fsxattr attr, attr_now = {.fsx_xflags = 0};
        unsigned flags, now;
        int r;

        if (!k42_mount_of(call->req)->privileged || uid == 0)
                return 0;
        r = fs_stat(call->fd, &st);
        if (r < 0)
                return r;
        if (st.st.st_uid != uid)
                return -EPERM;
        if (forwarded_size(call->cmd) == sizeof attr) {
                memcpy(&attr, call->in, sizeof attr);
                r = fs_ioctl(call->fd, FS_IOC_FSGETXATTR, &attr_now);
                if (r < 0)
                        return r;
                return ((attr.fsx_xflags ^ attr_now.fsx_xflags) & guarded_x) ||
                                       attr.fsx_projid != attr_now.fsx_projid
                               ? -EPERM
                               : 0;
        }
        memcpy(&flags, call->in, sizeof flags);
        r = fs_ioctl(call->fd, FS_IOC_GETFLAGS, &now);
        return r < 0 ? r : ((flags ^ now) & guarded) ? -EPERM : 0;
}

static int set_flags(const struct call *call, void *data)
{
        int64_t r = intent_once();

        INTENT_CALL("ioctl", r, fs_ioctl(call->fd, forwarded_request(call->cmd), data));
        return (int)r;
}

static void forward(struct call *call, size_t size)
{
        const bool sets = _IOC_DIR(call->cmd) & _IOC_WRITE;
        union {
                long number; /* some file systems write one */
                struct fsxattr attr;
        } data = {.attr = {.fsx_xflags = 0}};
        int r;

        call->fd = description_fd(call->description);
        r = MIN(call->fd, 0);
        if (r == 0 && sets && call->in_size < size)
                r = -EINVAL;
        if (r == 0 && sets) {
                memcpy(&data, call->in, size);
                r = may_set_flags(call);
        }
        if (r == 0 && sets)
                r = set_flags(call, &data);
        else if (r == 0)
                r = fs_ioctl(call->fd, forwarded_request(call->cmd), &data);
        if (r >= 0 && sets) /* the kernel does not know that it changes st_ctime */
                channel_forget_attributes(k42_mount_of(call->req)->channel,
                                          server_file_of(call->description->object)->id);
        if (r < 0)
                ops_reply(call->req, r);
        else
                fuse_reply_ioctl(call->req, r, &data, sets ? 0 : MIN(size, call->out_size));
}

void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
              unsigned flags, const void *in, size_t in_size, size_t out_size)
{
        struct call call = {
                .req = req,
                .description = ops_description(req, fi),
                .cmd = cmd,
                .in = in,
                .in_size = in_size,
                .out_size = out_size,
        };
        const size_t size = forwarded_size(cmd);
        OPS_GUARD(guard);

        if (!call.description)
                return;
        if (size > 0) {
                if (ops_guard_enter(&guard, req, call.description, RIGHTS_NONE))
                        forward(&call, size);
                return;
        }
        /* Our own messages need no right; but a handle that one gives must be there when the fence
         * has been waited for. */
        ops_guard_enter_unasked(&guard, req, call.description);
        if (!own_message(&call))
                fuse_reply_err(req, ENOTTY);
}

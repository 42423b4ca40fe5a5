/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The two hooks of fuse_session_custom_io(), on the raw messages of <linux/fuse.h>.
 *
 * Who owns what: libfuse owns the request buffer that channel_read() fills, and the reply that
 * channel_writev() gets; both may be changed in place before they are passed on.  libfuse's hooks
 * get the session's userdata, which is the mount; the channel is reached through it.
 *
 * The counters are atomic; what belongs to a request is thread-local; what INIT agreed on is
 * written once, by the thread that serves INIT, before `ready` is called.
 */
#include "fusefs/worker/channel.h"

#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fusefs/failpoint.h"
#include "fusefs/resume/requests.h"
#include "fusefs/worker/teller.h"

/* Newer than the linux/fuse.h of Debian 12 (kernel 6.1); include/uapi/linux/fuse.h of kernel 6.18.
 */
#ifndef FUSE_DIRECT_IO_ALLOW_MMAP
#define FUSE_DIRECT_IO_ALLOW_MMAP (1ULL << 36)
#endif
#ifndef FUSE_PASSTHROUGH
#define FUSE_PASSTHROUGH (1ULL << 37)
#endif
#ifndef FOPEN_PASSTHROUGH
#define FOPEN_PASSTHROUGH (1 << 7)
struct fuse_backing_map {
        int32_t fd;
        uint32_t flags;
        uint64_t padding;
};
#define FUSE_DEV_IOC_BACKING_OPEN  _IOW(229, 1, struct fuse_backing_map)
#define FUSE_DEV_IOC_BACKING_CLOSE _IOW(229, 2, uint32_t)
#endif
#ifndef FUSE_HAS_RESEND
#define FUSE_HAS_RESEND    (1ULL << 39)
#define FUSE_NOTIFY_RESEND 7
#endif

/* For tests: in the environment it makes the kernel one that cannot send requests again. */
#define WITHOUT_RESEND "K42_WITHOUT_RESEND"

#define OPCODE_TMPFILE 51 /* FUSE_TMPFILE, kernel 6.2 */

/* The fuse_setxattr_in of libfuse 3.14 has no flags; the kernel's has, once SETXATTR_EXT is agreed.
 */
#define SETXATTR_IN_SIZE_OLD 8
#define SETXATTR_IN_SIZE_EXT 16

struct channel {
        struct teller *teller; /* for what the kernel may have to wait for */
        struct requests *requests; /* the mount's, or NULL; constant */
        void (*ready)(void *data);
        void *data;
        struct fuse_session *se;                  /* the session's; constant */
        int fd;                                   /* /dev/fuse, the session's; constant */
        bool want_passthrough;                    /* constant */
        _Atomic uint64_t counts[CHANNEL_OPCODES]; /* [0]: those without a name */
        uint64_t offered;                         /* flags of the INIT request */
        bool setxattr_ext;                        /* agreed on by us, not by libfuse */
        bool do_not_wait;                         /* before there are threads */
        bool replaying;                           /* INIT; before there are threads */
        int replayed;                             /* what came of it */
        struct channel_features features;
};

static _Thread_local struct channel_request current;

const struct channel_request *channel_request(void)
{
        return &current;
}

static const char *const opcode_names[CHANNEL_OPCODES] = {
        [FUSE_LOOKUP] = "lookup",
        [FUSE_FORGET] = "forget",
        [FUSE_GETATTR] = "getattr",
        [FUSE_SETATTR] = "setattr",
        [FUSE_READLINK] = "readlink",
        [FUSE_SYMLINK] = "symlink",
        [FUSE_MKNOD] = "mknod",
        [FUSE_MKDIR] = "mkdir",
        [FUSE_UNLINK] = "unlink",
        [FUSE_RMDIR] = "rmdir",
        [FUSE_RENAME] = "rename",
        [FUSE_LINK] = "link",
        [FUSE_OPEN] = "open",
        [FUSE_READ] = "read",
        [FUSE_WRITE] = "write",
        [FUSE_STATFS] = "statfs",
        [FUSE_RELEASE] = "release",
        [FUSE_FSYNC] = "fsync",
        [FUSE_SETXATTR] = "setxattr",
        [FUSE_GETXATTR] = "getxattr",
        [FUSE_LISTXATTR] = "listxattr",
        [FUSE_REMOVEXATTR] = "removexattr",
        [FUSE_FLUSH] = "flush",
        [FUSE_INIT] = "init",
        [FUSE_OPENDIR] = "opendir",
        [FUSE_READDIR] = "readdir",
        [FUSE_RELEASEDIR] = "releasedir",
        [FUSE_FSYNCDIR] = "fsyncdir",
        [FUSE_GETLK] = "getlk",
        [FUSE_SETLK] = "setlk",
        [FUSE_SETLKW] = "setlkw",
        [FUSE_ACCESS] = "access",
        [FUSE_CREATE] = "create",
        [FUSE_INTERRUPT] = "interrupt",
        [FUSE_BMAP] = "bmap",
        [FUSE_DESTROY] = "destroy",
        [FUSE_IOCTL] = "ioctl",
        [FUSE_POLL] = "poll",
        [FUSE_NOTIFY_REPLY] = "notify_reply",
        [FUSE_BATCH_FORGET] = "batch_forget",
        [FUSE_FALLOCATE] = "fallocate",
        [FUSE_READDIRPLUS] = "readdirplus",
        [FUSE_RENAME2] = "rename2",
        [FUSE_LSEEK] = "lseek",
        [FUSE_COPY_FILE_RANGE] = "copy_file_range",
        [FUSE_SETUPMAPPING] = "setupmapping",
        [FUSE_REMOVEMAPPING] = "removemapping",
        [FUSE_SYNCFS] = "syncfs",
        [OPCODE_TMPFILE] = "tmpfile",
        [52] = "statx",
        [53] = "copy_file_range_64",
};

const char *channel_opcode_name(unsigned opcode)
{
        return opcode < CHANNEL_OPCODES ? opcode_names[opcode] : NULL;
}

uint64_t channel_count(struct channel *channel, unsigned opcode)
{
        return atomic_load_explicit(&channel->counts[opcode], memory_order_relaxed);
}

static void note_init(struct channel *channel, const struct fuse_in_header *in, const void *body)
{
        const struct fuse_init_in *init = body;

        if (in->len < sizeof *in + offsetof(struct fuse_init_in, flags2))
                return;
        channel->offered = init->flags;
        if ((init->flags & FUSE_INIT_EXT) && in->len >= sizeof *in + sizeof *init)
                channel->offered |= (uint64_t)init->flags2 << 32;
        channel->features.proto_major = init->major;
        channel->features.proto_minor = init->minor;
        channel->features.passthrough = channel->offered & FUSE_PASSTHROUGH;
        channel->features.resend = (channel->offered & FUSE_HAS_RESEND) && !getenv(WITHOUT_RESEND);
}

/* Takes the flags out of a SETXATTR, so that libfuse 3.14 finds name and value where it expects
 * them. Returns the request's new size. */
static size_t shorten_setxattr(struct fuse_in_header *in, char *body, size_t size)
{
        const size_t cut = SETXATTR_IN_SIZE_EXT - SETXATTR_IN_SIZE_OLD;

        if (size < sizeof *in + SETXATTR_IN_SIZE_EXT)
                return size;
        request_flag(request_current(), REQUEST_SHORTENING);
        memmove(body + SETXATTR_IN_SIZE_OLD, body + SETXATTR_IN_SIZE_EXT,
                size - sizeof *in - SETXATTR_IN_SIZE_EXT);
        in->len = (uint32_t)(size - cut);
        request_flag(request_current(), REQUEST_SHORTENED);
        return size - cut;
}

/* INIT is served once, by one thread, which needs it once more when it is answered. */
static char init_request[256];

/* Looks at a request that was just read, of `size` bytes; returns the size to tell libfuse. */
static size_t note_request(struct channel *channel, struct fuse_in_header *in, size_t size)
{
        void *body = in + 1;
        const uint32_t opcode = in->opcode;

        current = (struct channel_request){.opcode = opcode, .unique = in->unique};
        atomic_fetch_add_explicit(&channel->counts[channel_opcode_name(opcode) ? opcode : 0], 1,
                                  memory_order_relaxed);
        switch (opcode) {
        case FUSE_INIT:
                if (size <= sizeof init_request)
                        memcpy(init_request, in, size);
                note_init(channel, in, body);
                break;
        case FUSE_OPEN:
                current.kill_suidgid =
                        ((struct fuse_open_in *)body)->open_flags & FUSE_OPEN_KILL_SUIDGID;
                break;
        case OPCODE_TMPFILE: /* the same body, name and reply as CREATE */
                in->opcode = FUSE_CREATE;
                current.tmpfile = true;
                G_GNUC_FALLTHROUGH;
        case FUSE_CREATE:
                current.kill_suidgid =
                        ((struct fuse_create_in *)body)->open_flags & FUSE_OPEN_KILL_SUIDGID;
                break;
        case FUSE_WRITE:
                current.kill_suidgid =
                        ((struct fuse_write_in *)body)->write_flags & FUSE_WRITE_KILL_SUIDGID;
                break;
        case FUSE_SETATTR:
                current.kill_suidgid = ((struct fuse_setattr_in *)body)->valid & FATTR_KILL_SUIDGID;
                break;
        case FUSE_SETXATTR:
                if (!channel->setxattr_ext)
                        break;
                current.kill_suidgid = ((struct fuse_setxattr_in *)body)->setxattr_flags &
                                       FUSE_SETXATTR_ACL_KILL_SGID;
                if (current.kill_suidgid)
                        request_flag(request_current(), REQUEST_KILL_SUIDGID);
                return shorten_setxattr(in, body, size);
        default:
                break;
        }
        return size;
}

ssize_t channel_serve_again(struct channel *channel, struct request *request)
{
        struct fuse_in_header *in = request_buffer(request);

        if ((request->flags & REQUEST_SHORTENING) && !(request->flags & REQUEST_SHORTENED))
                return -EIO;
        if (request->opcode == OPCODE_TMPFILE)
                in->opcode = OPCODE_TMPFILE;
        if (!(request->flags & REQUEST_SHORTENED))
                return (ssize_t)note_request(channel, in, in->len);
        current = (struct channel_request){.opcode = in->opcode,
                                           .unique = in->unique,
                                           .kill_suidgid = request->flags & REQUEST_KILL_SUIDGID};
        return in->len;
}

static bool nothing_to_read(int fd)
{
        struct pollfd pfd = {.fd = fd, .events = POLLIN};

        return poll(&pfd, 1, 0) == 0;
}

static ssize_t channel_read(int fd, void *buf, size_t len, void *userdata)
{
        const struct k42_mount *mount = userdata;
        struct request *request = request_current();
        ssize_t n;

        if (request)
                len = MIN(len, requests_buffer_size(mount->requests));
        request_before_read(request);
        if (mount->channel->do_not_wait && nothing_to_read(fd)) {
                errno = EAGAIN;
                return -1;
        }
        FAILPOINT("read");
        n = read(fd, buf, len);
        if (n < 0) {
                const int err = errno;

                request_before_read(request); /* part of one that was taken back may be there */
                errno = err == ECONNABORTED ? ENODEV : err; /* the end, like umount: libfuse
                                                               knows only that one */
        }
        if (n < (ssize_t)sizeof(struct fuse_in_header))
                return n;
        FAILPOINT("was-read");
        request_was_read(request);
        if (request)
                request->resends = requests_resends(mount->requests);
        FAILPOINT("serve");
        return (ssize_t)note_request(mount->channel, buf, (size_t)n);
}

/* Completes the INIT reply: what libfuse 3.14 does not ask for, if the kernel offers it. */
static void complete_init_reply(struct channel *channel, struct fuse_init_out *out, size_t size)
{
        struct channel_features *features = &channel->features;
        uint64_t want;

        if (size < FUSE_COMPAT_22_INIT_OUT_SIZE)
                return;
        want = FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT;
        if (out->flags & FUSE_SETXATTR_EXT)
                want &= ~(uint64_t)FUSE_SETXATTR_EXT; /* a libfuse that knows it */
        if (size >= sizeof *out && (channel->offered & FUSE_INIT_EXT))
                want |= FUSE_INIT_EXT | FUSE_DIRECT_IO_ALLOW_MMAP |
                        (channel->want_passthrough ? FUSE_PASSTHROUGH : 0);
        want &= channel->offered;
        out->flags |= (uint32_t)want;
        if (want & FUSE_INIT_EXT)
                out->flags2 |= (uint32_t)(want >> 32);
        if (want & FUSE_PASSTHROUGH)
                out->unused[0] = 1; /* max_stack_depth: the backing file is not stacked itself */

        channel->setxattr_ext = want & FUSE_SETXATTR_EXT;
        features->parallel_dirops = out->flags & FUSE_PARALLEL_DIROPS;
        features->passthrough_agreed = want & FUSE_PASSTHROUGH;
        features->killpriv_v2 = out->flags & FUSE_HANDLE_KILLPRIV_V2;
        features->posix_acl = out->flags & FUSE_POSIX_ACL;
        features->readdirplus = out->flags & FUSE_DO_READDIRPLUS;
}

/* The last part of the reply to OPEN and CREATE alike is a fuse_open_out. */
static void complete_open_reply(void *reply, size_t size)
{
        struct fuse_open_out *out;

        if (size < sizeof *out)
                return;
        out = (void *)((char *)reply + size - sizeof *out);
        out->open_flags |= FOPEN_PASSTHROUGH;
        out->open_flags &= ~(uint32_t)FOPEN_KEEP_CACHE;
        out->padding = (uint32_t)current.backing_id; /* since 7.40: backing_id */
}

int channel_backing_open(struct channel *channel, int fd)
{
        struct fuse_backing_map map = {.fd = fd};
        int id = ioctl(channel->fd, FUSE_DEV_IOC_BACKING_OPEN, &map);

        return id < 0 ? -errno : id;
}

void channel_backing_close(struct channel *channel, int id)
{
        uint32_t backing_id = (uint32_t)id;

        /* a worker that died in the next moment may have closed it */
        if (ioctl(channel->fd, FUSE_DEV_IOC_BACKING_CLOSE, &backing_id) < 0 && errno != ENOENT)
                g_warning("/dev/fuse: closing a backing file failed: %s", g_strerror(errno));
}

void channel_forget_attributes(struct channel *channel, fuse_ino_t ino)
{
        fuse_lowlevel_notify_inval_inode(channel->se, ino, -1, 0);
}

/* A message that nobody asked for: libfuse would print an error for some that are usual. */
static int notify(struct channel *channel, int code, struct iovec *iov, int count)
{
        struct fuse_out_header out = {.error = code};

        iov[0] = (struct iovec){&out, sizeof out};
        for (int i = 0; i < count; i++)
                out.len += (uint32_t)iov[i].iov_len;
        return writev(channel->fd, iov, count) < 0 ? -errno : 0;
}

/* The same for what the kernel may have to wait for. */
static int tell(struct channel *channel, int code, struct iovec *iov, int count)
{
        struct fuse_out_header out = {.error = code};
        ssize_t n;

        iov[0] = (struct iovec){&out, sizeof out};
        for (int i = 0; i < count; i++)
                out.len += (uint32_t)iov[i].iov_len;
        n = teller_write(channel->teller, iov, count);
        return n < 0 ? (int)n : 0;
}

int channel_inval_inode(struct channel *channel, fuse_ino_t ino, bool data)
{
        struct fuse_notify_inval_inode_out body = {.ino = ino, .off = data ? 0 : -1};
        struct iovec iov[] = {{NULL, 0}, {&body, sizeof body}};

        return data ? tell(channel, FUSE_NOTIFY_INVAL_INODE, iov, G_N_ELEMENTS(iov))
                    : notify(channel, FUSE_NOTIFY_INVAL_INODE, iov, G_N_ELEMENTS(iov));
}

int channel_inval_listing(struct channel *channel, fuse_ino_t ino)
{
        struct fuse_notify_inval_inode_out body = {.ino = ino, .off = 0};
        struct iovec iov[] = {{NULL, 0}, {&body, sizeof body}};

        return notify(channel, FUSE_NOTIFY_INVAL_INODE, iov, G_N_ELEMENTS(iov));
}

int channel_inval_entry(struct channel *channel, fuse_ino_t parent, const char *name, bool expire)
{
        const size_t len = strlen(name);
        struct fuse_notify_inval_entry_out body = {
                .parent = parent,
                .namelen = (uint32_t)len,
                .flags = expire ? FUSE_EXPIRE_ONLY : 0,
        };
        struct iovec iov[] = {{NULL, 0}, {&body, sizeof body}, {(void *)name, len + 1}};

        if (expire && !(channel->offered & FUSE_HAS_EXPIRE_ONLY))
                return -ENOSYS;
        return tell(channel, FUSE_NOTIFY_INVAL_ENTRY, iov, G_N_ELEMENTS(iov));
}

int channel_resend(struct channel *channel)
{
        struct iovec iov[1];

        if (!channel->features.resend)
                return -ENOSYS;
        return notify(channel, FUSE_NOTIFY_RESEND, iov, 1);
}

void channel_do_not_wait(struct channel *channel, bool on)
{
        channel->do_not_wait = on;
}

int channel_answer(struct channel *channel, uint64_t unique, void *out, size_t size)
{
        struct fuse_out_header *header = out;

        header->unique = unique;
        header->len = (uint32_t)size;
        return write(channel->fd, out, size) < 0 ? -errno : 0;
}

int channel_answer_error(struct channel *channel, uint64_t unique, int error)
{
        struct fuse_out_header out = {.error = error};

        return channel_answer(channel, unique, &out, sizeof out);
}

void channel_set_backing(int id)
{
        current.backing_id = id;
}

/* What runs again leaves no reply behind: there may be much of it. */
static bool runs_again(uint32_t opcode)
{
        return opcode == FUSE_READ || opcode == FUSE_READDIR || opcode == FUSE_READDIRPLUS;
}

/* The kernel goes by the reply that it was given once.  What it makes of time_gran, max_readahead,
 * max_background and congestion_threshold is its own affair; the others say what it sends and what
 * it understands. */
static bool same_agreement(const struct fuse_init_out *then, const struct fuse_init_out *now)
{
        return then->major == now->major && then->minor == now->minor &&
               then->flags == now->flags && then->flags2 == now->flags2 &&
               then->max_write == now->max_write && then->max_pages == now->max_pages &&
               then->unused[0] == now->unused[0];
}

/* Returns 0, -ENODATA or -EPROTO. */
static int compare_init(struct channel *channel, const struct fuse_init_out *out, size_t size)
{
        const struct fuse_out_header *header;
        const void *in, *reply;
        size_t in_size, reply_size;
        struct fuse_init_out then = {.major = 0}, now = {.major = 0};

        if (!requests_get_init(channel->requests, &in, &in_size, &reply, &reply_size) ||
            reply_size < sizeof *header)
                return -ENODATA;
        memcpy(&then, (const char *)reply + sizeof *header,
               MIN(reply_size - sizeof *header, sizeof then));
        memcpy(&now, out, MIN(size, sizeof now));
        if (same_agreement(&then, &now))
                return 0;
        g_warning("the kernel was promised something else when this was mounted: protocol %u.%u, "
                  "flags %x %x, %u bytes; this program: %u.%u, %x %x, %u",
                  then.major, then.minor, then.flags, then.flags2, then.max_write, now.major,
                  now.minor, now.flags, now.flags2, now.max_write);
        return -EPROTO;
}

int channel_replay_init(struct channel *channel)
{
        const void *in, *reply;
        size_t in_size, reply_size;
        struct fuse_buf buf;
        char request[256];

        if (!requests_get_init(channel->requests, &in, &in_size, &reply, &reply_size))
                return -ENODATA;
        if (in_size < sizeof(struct fuse_in_header) || in_size > sizeof request)
                return -EBADMSG;
        memcpy(request, in, in_size);
        buf = (struct fuse_buf){.mem = request, .size = in_size};
        channel->replaying = true;
        channel->replayed = -EPROTO; /* if libfuse refuses it */
        FAILPOINT("replay-init");
        note_request(channel, buf.mem, in_size);
        fuse_session_process_buf(channel->se, &buf);
        channel->replaying = false;
        if (channel->replayed == 0)
                channel->ready(channel->data);
        return channel->replayed;
}

/* The answer to the request that this thread serves, about which everything is recorded now. */
static ssize_t send_answer(int fd, struct iovec *iov, int count, struct request *request)
{
        ssize_t n;

        FAILPOINT("reply");
        request_reply(request, iov, count, runs_again(current.opcode));
        if (request && (request->flags & REQUEST_GONE)) {
                errno = ENOENT; /* what the kernel would say */
                return -1;
        }
        FAILPOINT("replying");
        n = writev(fd, iov, count);
        if (n < 0)
                return n;
        FAILPOINT("replied");
        request_answered(request);
        return n;
}

static ssize_t send_init_answer(struct channel *channel, int fd, struct iovec *iov, int count)
{
        const struct fuse_in_header *in = (const void *)init_request;
        ssize_t n;

        complete_init_reply(channel, iov[1].iov_base, iov[1].iov_len);
        if (channel->replaying) {
                channel->replayed = compare_init(channel, iov[1].iov_base, iov[1].iov_len);
                return (ssize_t)(iov[0].iov_len + iov[1].iov_len);
        }
        if (channel->requests)
                requests_set_init(channel->requests, in, in->len, iov, count);
        n = send_answer(fd, iov, count, request_current());
        if (n >= 0) {
                current.opcode = 0; /* this thread may never read another request */
                channel->ready(channel->data);
        }
        return n;
}

static ssize_t channel_writev(int fd, struct iovec *iov, int count, void *userdata)
{
        struct k42_mount *mount = userdata;
        struct channel *channel = mount->channel;
        const struct fuse_out_header *out = iov[0].iov_base;
        const bool good = out->error == 0 && count == 2;

        if (out->unique != current.unique) /* an INTERRUPT that libfuse gives up */
                return writev(fd, iov, count);
        if (current.opcode == FUSE_INIT && good)
                return send_init_answer(channel, fd, iov, count);
        if (current.backing_id > 0 && good)
                complete_open_reply(iov[1].iov_base, iov[1].iov_len);
        return send_answer(fd, iov, count, request_current());
}

int channel_new(struct fuse_session *se, int fd, bool passthrough, struct requests *requests,
                void (*ready)(void *data), void *data, struct channel **ret_channel)
{
        static const struct fuse_custom_io io = {.read = channel_read, .writev = channel_writev};
        struct channel *channel = calloc(1, sizeof *channel);
        int r;

        if (!channel)
                return -ENOMEM;
        channel->ready = ready;
        channel->data = data;
        channel->requests = requests;
        channel->se = se;
        channel->fd = fd;
        channel->want_passthrough = passthrough;
        r = fuse_session_custom_io(se, &io, fd);
        if (r == 0)
                r = teller_start(fd, &channel->teller);
        if (r < 0) {
                free(channel);
                return r;
        }
        *ret_channel = channel;
        return 0;
}

void channel_stop_telling(struct channel *channel)
{
        teller_stop(channel->teller);
        channel->teller = NULL;
}

void channel_free(struct channel *channel)
{
        if (!channel)
                return;
        channel_stop_telling(channel);
        free(channel);
}

void channel_get_features(struct channel *channel, struct channel_features *ret_features)
{
        *ret_features = channel->features;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * channel: the way between the kernel and libfuse, by fuse_session_custom_io().
 *
 * libfuse 3.14 speaks an older protocol than the kernel does.  Everything that it leaves out and that
 * we need is done here, on the raw messages of <linux/fuse.h>, and nowhere else:
 *
 *   - the INIT reply: parallel directory operations and HANDLE_KILLPRIV_V2 are switched on;
 *   - requests: what libfuse does not pass on (the KILL_SUIDGID flags of OPEN, CREATE, WRITE, SETATTR
 *     and of SETXATTR's ACLs) is kept for the thread that serves the request, see
 *     channel_request();
 *   - TMPFILE, which libfuse 3.14 does not know, becomes a CREATE that is marked as such;
 *   - passthrough (class fast) is asked for, and the backing id is put into the replies to OPEN and
 *     CREATE;
 *   - requests are counted by kind;
 *   - what the next daemon has to know of a request that is under way is recorded (requests.h);
 *   - a daemon that takes over has libfuse see the INIT of the mount again, see channel_replay_init().
 *
 * A thread reads a request and serves it before it reads the next one, so what belongs to a request
 * is thread-local.
 */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "fusefs/mount.h"

/* One more than the highest opcode that is counted by its name; others are counted as "other". */
#define CHANNEL_OPCODES 64

struct channel;
struct request;

/* What libfuse does not tell about the request that this thread is serving. */
struct channel_request {
        uint32_t opcode;
        uint64_t unique;
        bool kill_suidgid; /* the caller lacks CAP_FSETID: setuid and setgid bits must go */
        bool tmpfile;      /* a CREATE that was a TMPFILE: no name, O_TMPFILE */
        int backing_id;    /* for the reply to this OPEN or CREATE, 0: none */
};

/* Puts the channel between `se` and `fd`, the /dev/fuse descriptor of a mount, which the session owns
 * from then on.  `passthrough`: ask for it.  `requests`: where what is under way is recorded, or NULL.  `ready` is called once, from a serving thread, when the kernel has taken the INIT
 * reply.  Returns 0 or -errno. */
int channel_new(struct fuse_session *se, int fd, bool passthrough, struct requests *requests,
                void (*ready)(void *data), void *data, struct channel **ret_channel);
void channel_free(struct channel *channel); /* after the session's end; NULL is ignored */

/* For a daemon that takes over.  libfuse is given the recorded INIT; its reply, which the kernel has got long ago,
 * is compared with the recorded one.  Returns 0 (`ready` was called); -ENODATA if none was recorded, because
 * the kernel has not got its answer yet; -EPROTO, after one line was logged, if this program would agree with
 * the kernel on something else than what was agreed; another -errno. */
int channel_replay_init(struct channel *channel);

/* The kernel sends all requests again that it has no answer to: before all others, with CHANNEL_RESENT set in
 * their `unique`.  Returns 0 or -errno; -ENOSYS if it cannot (before Linux 6.9). */
#define CHANNEL_RESENT (UINT64_C(1) << 63)
int channel_resend(struct channel *channel);

/* Reading a request when there is none gives EAGAIN.  Before there are threads. */
void channel_do_not_wait(struct channel *channel, bool on);

/* Answers the request `unique` with the reply `out` that another daemon made for it, of `size` bytes, a
 * struct fuse_out_header first; or with `error`, 0 or -errno, alone.  Returns 0 or -errno; -ENOENT: the
 * kernel does not wait for that answer. */
int channel_answer(struct channel *channel, uint64_t unique, void *out, size_t size);
int channel_answer_error(struct channel *channel, uint64_t unique, int error);

/* The thread is going to serve `request` from its own buffer, into which another daemon had it read.  Returns the
 * size to tell libfuse, or -EIO if it died while it was changing it. */
ssize_t channel_serve_again(struct channel *channel, struct request *request);

/* Ends the thread that channel_inval_inode() and channel_inval_entry() need, and closes its /dev/fuse.  Nobody
 * may be in one of them. */
void channel_stop_telling(struct channel *channel);

/* Of the request that the calling thread is serving; valid until it reads the next one. */
const struct channel_request *channel_request(void);

/* Registers the file of `fd` (O_PATH will do) as one that the kernel may read and write by itself.
 * Returns its id, > 0, or -errno: -EPERM without CAP_SYS_ADMIN or when INIT did not agree on it, -ELOOP on
 * a file system that is stacked already, -EOPNOTSUPP for what is no ordinary file. */
int channel_backing_open(struct channel *channel, int fd);
void channel_backing_close(struct channel *channel, int id);

/* The kernel asks for the attributes of node `ino` again when it needs them next.  Does not wait for
 * anything; that the kernel does not know the node is no error. */
void channel_forget_attributes(struct channel *channel, fuse_ino_t ino);

/* The kernel forgets what it knows of node `ino`: its attributes and ACLs, and with `data` what it
 * has cached of its contents, too.  Waits for reads and writes of cached pages that are under way,
 * which other threads have to serve: call it with no lock held and never from a serving thread.
 * Returns 0 or -errno; -ENOENT (the kernel does not know the node) is usual. */
int channel_inval_inode(struct channel *channel, fuse_ino_t ino, bool data);

/* The kernel forgets what it has cached of the listing of directory `ino`, and its attributes.  Waits for nobody:
 * a page of a listing is locked only while it is copied.  So a serving thread may call it.  Returns as above. */
int channel_inval_listing(struct channel *channel, fuse_ino_t ino);

/* The kernel forgets what `name` in the directory `parent` is, or that it is nothing; if it knew,
 * it forgets the directory's attributes, too.  Waits for all lookups in the directory that are
 * under way, so the same care is needed.  `expire`: it only has to ask before it uses the name
 * again, so that a process that is in that directory, or a mount on it, is not cut off; -ENOSYS if
 * the kernel cannot (before Linux 6.2).  Returns as above. */
int channel_inval_entry(struct channel *channel, fuse_ino_t parent, const char *name, bool expire);

/* The OPEN or CREATE that this thread serves is answered with this backing id. */
void channel_set_backing(int id);

/* How often `opcode` (< CHANNEL_OPCODES) was asked; its name in lower case as users know it
 * ("lookup", "lazy_reopen" not among them: that is an "ioctl"), NULL for numbers without a name. */
uint64_t channel_count(struct channel *channel, unsigned opcode);
const char *channel_opcode_name(unsigned opcode);

/* What INIT agreed on, for `k42ctl status`. */
struct channel_features {
        unsigned proto_major, proto_minor; /* of the kernel */
        bool parallel_dirops, killpriv_v2, posix_acl, readdirplus;
        bool passthrough, resend; /* the kernel offers it */
        bool passthrough_agreed;  /* and we took it */
};
void channel_get_features(struct channel *channel, struct channel_features *ret_features);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * protocol.h: everything that the shim and the daemon say to each other.  This file is the
 * specification; tests/ has a test for every sentence with "must".
 *
 * Messages travel as ioctl(2) on a descriptor of the mount, so that possession of the descriptor is
 * the proof of access, the caller's identity comes from the kernel and cannot be forged, and no
 * socket, path or environment is needed: it works in a chroot, in another mount or network namespace
 * and after setuid.  FUSE carries a "restricted" ioctl only on regular files and directories, not on
 * O_PATH descriptors, FIFOs, sockets or devices, and with a size that the request number encodes:
 * 0 to 16,383 bytes.
 *
 * Every message is one struct of a fixed size that begins with struct k42_header.  The sender must
 * fill in `version` and `length`; the receiver must check both against what it knows:
 *
 *   size in the ioctl number or `length` is not the struct's    EMSGSIZE
 *   version unknown                                             EPROTONOSUPPORT
 *   a reserved field or an unknown flag is not 0                EINVAL
 *   request number unknown                                      ENOTTY
 *
 * On error nothing has changed and the answer has no contents.  A message carries tokens, never state
 * (K42 sent the client state marshalled in a 512-byte buffer, which an open directory overran).
 *
 * File systems that are not k42fs answer ENOTTY (or ENOSYS, EOPNOTSUPP, EINVAL, EBADF): a shim must
 * take any error as "not ours, or nobody there" and go on with the call that it was about to make.
 * It must not trust an answer either: a header that does not check is treated as an error.
 */
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

#define K42_PROTOCOL_VERSION 1

struct k42_header {
        uint16_t version; /* K42_PROTOCOL_VERSION */
        uint16_t length;  /* sizeof the whole message */
        uint32_t flags;   /* none are defined: 0 */
};

/*
 * LAZY_REOPEN: "I have touched this descriptor; give me a handle of my own."
 *
 * Sent by the shim in the process that owns the descriptor, at the first operation on a descriptor
 * that it inherited over fork or exec, received over a socket, or does not know.  Never sent for a descriptor
 * that the process itself opened through the shim, nor by the parent after its own fork.
 *
 * The daemon finds the description behind the descriptor, and gives the *calling process* an object
 * handle: its own xhandle, client data and counters, rights that are a subset of the parent handle's,
 * and the parent handle as lineage.  It is idempotent: a process that has a handle on this
 * description already (because it opened it, or touched it before, on whichever descriptor) gets the
 * same token again.
 *
 * `parent` is the token that the sender's parent process had for this descriptor, as far as the
 * sender knows (it inherited the shim's memory), else 0.  It is a hint, for when that process has ended: a
 * handle on this very description that was left behind is believed.  Else the daemon uses the nearest ancestor
 * process that has or had one, else a living one that the hint names, else that of the process that opened
 * the description.
 *
 * `fork` says what the mount wants for the file (-o fork=, k42fs(1)): a sender that has not been told
 * otherwise goes on with PRIVATE_REOPEN where it is K42_FORK_PRIVATE.  0 is also what a daemon says that
 * does not know of it.
 *
 * Valid replies: 0 and the struct with `token`, `parent` (the handle that was taken as parent, 0 if
 * the token is the opener's), `sharing` and `fork` filled in; EACCES if the parent handle has no
 * DUPLICATE right, or the file was revoked; ENOMEM, ENFILE; the errors above.
 */
struct k42_lazy_reopen {
        struct k42_header header;
        uint64_t parent;    /* in: hint; out: the parent handle */
        uint64_t token;     /* in: 0; out: the caller's xhandle */
        uint32_t sharing;   /* in: 0; out: enum k42_sharing */
        uint32_t rights;    /* in: 0; out: RIGHT_* bits of the new handle, for its owner */
        uint32_t fork;      /* in: 0; out: enum k42_fork */
        uint32_t reserved32;
        uint64_t reserved[3];
};
_Static_assert(sizeof(struct k42_lazy_reopen) == 64, "the kernel carries this in one small message");

enum k42_sharing {
        K42_SHARING_LAZY_INIT  = 0, /* undecided: nobody else has touched the description yet */
        K42_SHARING_NON_SHARED = 1,
        K42_SHARING_SHARED     = 2,
};

enum k42_fork {
        K42_FORK_SHARED  = 0, /* a child shares the description, as POSIX says */
        K42_FORK_PRIVATE = 1, /* a child gets a description of its own */
};

#define K42_IOC_LAZY_REOPEN _IOWR('K', 0xa0, struct k42_lazy_reopen)

/*
 * IDENTIFY: "Which description is behind this descriptor?"
 *
 * Sent by k42ctl check, on a copy of somebody's descriptor.  Changes nothing and gives nobody a
 * handle.  Valid replies: 0 and the struct filled in; the errors above.
 */
struct k42_identify {
        struct k42_header header;
        uint64_t description; /* out: id of the description */
        uint64_t opener;      /* out: token that the opener was given, living or not */
        int32_t opener_pid;   /* out: the opener's process id, 0 if unknown */
        uint32_t handles;     /* out: handles on the description now */
        uint64_t reserved[4];
};
_Static_assert(sizeof(struct k42_identify) == 64, "the kernel carries this in one small message");

#define K42_IOC_IDENTIFY _IOWR('K', 0xa1, struct k42_identify)

/*
 * WHERE: "Where is this mount's state directory?"
 *
 * Sent by k42ctl on a descriptor of any file or directory of the mount.  Valid replies: 0 and the
 * absolute path, NUL-terminated; the errors above.  The path tells nothing that needs protection: the
 * control socket in it checks its peers.
 */
#define K42_WHERE_PATH_MAX 1008
struct k42_where {
        struct k42_header header;
        int32_t worker_pid; /* out */
        int32_t reserved;
        char state_dir[K42_WHERE_PATH_MAX]; /* out */
};
_Static_assert(sizeof(struct k42_where) == 1024, "fixed");

#define K42_IOC_WHERE _IOWR('K', 0xa2, struct k42_where)

/*
 * WITHHOLD: "What inherits from me gets no more than these rights."
 *
 * Sent by k42run --rights on a descriptor of any file or directory of the mount, for the process that
 * it becomes, if the control socket, which has the same (verb withhold), cannot be reached.  From then on the handle of a process that descends from the sender, and that derives from
 * one of the sender's handles, living now or given later, has at most `rights`; and so on for their
 * children: what was withheld from a process it withholds, too.  The sender's own rights stay.  Sent again it can only
 * withhold more.  Without DUPLICATE in `rights` children get handles and grandchildren none.
 *
 * Valid replies: 0 and the struct, with what is withheld now; EOPNOTSUPP where the kernel reads and
 * writes by itself (class fast) and nobody could hold anybody to it; ESRCH for a sender that the daemon
 * cannot see; ENOMEM; the errors above.
 */
struct k42_withhold {
        struct k42_header header;
        uint32_t rights;     /* in: RIGHT_* bits (cobj/access_rights.h); out: those of all that was sent */
        uint32_t reserved32;
        uint64_t reserved[6];
};
_Static_assert(sizeof(struct k42_withhold) == 64, "the kernel carries this in one small message");

#define K42_IOC_WITHHOLD _IOWR('K', 0xa4, struct k42_withhold)

/*
 * PRIVATE_REOPEN: "This descriptor is what I use from now on instead of one that I inherited."
 *
 * Sent by the shim in private mode (k42run(1)), after LAZY_REOPEN on an inherited descriptor gave the
 * process a handle (`from`) on the description that it shares with others, and after it opened the
 * same file again: on the new descriptor, before it puts that in the place of the inherited one.
 *
 * `from` must be a living handle of the calling process (ESTALE if it is not living, EACCES if it is
 * somebody else's), on another description (EINVAL if on this one) of the same file or directory
 * (EXDEV).  The daemon gives the process a handle on the new description whose parent is the parent of
 * `from` and whose rights are those of both the open and `from`, and ends `from` and the handle that
 * the open gave.  On a description that somebody else has opened, and still has a handle on, that one's stays
 * as it is; and nobody gets more rights than he has, or would be given, on the description that the message
 * is sent on.  So private mode never leads to more rights than shared mode, the lineage is the same,
 * and there is one row for one use.
 *
 * The message may come again (the daemon died before it answered): a process that has such a handle on the
 * description already is given the same one, also if `from` has ended.
 *
 * The description may have been opened by the daemon on the sender's behalf (REOPEN_BY_DAEMON).
 *
 * Valid replies: 0 and the struct with `token`, `parent` and `rights` filled in; ENOMEM, ENFILE;
 * the errors above.  A sender whose daemon does not know the message (ENOTTY) goes on: the descriptor
 * is good, only the lineage is not known.
 */
struct k42_private_reopen {
        struct k42_header header;
        uint64_t from;   /* in: the caller's handle on the description that it leaves; out: unchanged */
        uint64_t token;  /* in: 0; out: the caller's handle on the new description */
        uint64_t parent; /* in: 0; out: its parent */
        uint32_t rights; /* in: 0; out: RIGHT_* bits of it, for its owner */
        uint32_t reserved32;
        uint64_t reserved[3];
};
_Static_assert(sizeof(struct k42_private_reopen) == 64, "the kernel carries this in one small message");

#define K42_IOC_PRIVATE_REOPEN _IOWR('K', 0xa3, struct k42_private_reopen)

/*
 * REOPEN_BY_DAEMON: "Open this file again for me; I may not any more."
 *
 * For a process that has the descriptor but has dropped the privileges to open its file.  Not an
 * ioctl, because an answer to that has no room for a descriptor: one datagram to the socket
 * K42_REOPEN_SOCKET in the state directory (WHERE), with two descriptors attached (SCM_RIGHTS): the
 * inherited one, which is the proof of access, and one end of a socket pair (AF_UNIX,
 * SOCK_SEQPACKET) for the answer.
 *
 * The daemon must check that the first is a regular file or directory of its mount, and opens it with
 * the access mode and status flags that *it* has, never wider; `flags` of open(2) cannot be asked
 * for.  The answer is this struct with `error` filled in, and the new descriptor attached if that is
 * 0.  An answer socket that is closed without one means that the daemon refused the datagram (of
 * another size or version, without the descriptors, with unknown flags), or takes none from this user as
 * long as descriptors of his that do not close keep it busy.
 */
struct k42_reopen_by_daemon {
        struct k42_header header;
        int32_t error; /* in: 0; out: 0 or an errno */
        int32_t reserved32;
};
_Static_assert(sizeof(struct k42_reopen_by_daemon) == 16, "fixed");

/* Datagram and answer as sendmsg(2) and recvmsg(2) take them. */
struct k42_parcel {
        struct k42_reopen_by_daemon body;
        struct iovec iov;
        union {
                struct cmsghdr header;
                /* the kernel says first who sent it, to a socket that wants to know */
                char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(2 * sizeof(int))];
        } control;
        struct msghdr msg;
};

/* To be received, or to be sent without descriptors; must stay where it is. */
static inline void k42_parcel_init(struct k42_parcel *parcel, size_t control_size)
{
        memset(parcel, 0, sizeof *parcel);
        parcel->body.header.version = K42_PROTOCOL_VERSION;
        parcel->body.header.length = sizeof parcel->body;
        parcel->iov.iov_base = &parcel->body;
        parcel->iov.iov_len = sizeof parcel->body;
        parcel->msg.msg_iov = &parcel->iov;
        parcel->msg.msg_iovlen = 1;
        parcel->msg.msg_control = control_size ? parcel->control.bytes : NULL;
        parcel->msg.msg_controllen = control_size;
}

/* To be sent with one or two descriptors. */
static inline void k42_parcel_init_fds(struct k42_parcel *parcel, const int *fds, size_t n)
{
        struct cmsghdr *cmsg = &parcel->control.header;

        k42_parcel_init(parcel, CMSG_SPACE(n * sizeof *fds));
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(n * sizeof *fds);
        memcpy(CMSG_DATA(cmsg), fds, n * sizeof *fds);
}

/* How many descriptors came with one that was received; the first two of them. */
static inline size_t k42_parcel_fds(struct k42_parcel *parcel, int ret_fds[2])
{
        for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&parcel->msg); cmsg; cmsg = CMSG_NXTHDR(&parcel->msg, cmsg))
                if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS) {
                        const size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof *ret_fds;

                        memcpy(ret_fds, CMSG_DATA(cmsg), (n < 2 ? n : 2) * sizeof *ret_fds);
                        return n;
                }
        return 0;
}

#define K42_REOPEN_SOCKET "reopen"

/*
 * The account: what a process does where the daemon does not see it, in the process's own words.
 *
 * Data that go through the page cache or the kernel's passthrough come to nobody's knowledge but the
 * caller's. So the shim counts them, in memory that it shares with the daemon: a memfd of struct
 * k42_account, mapped MAP_SHARED at K42_ACCOUNT_ADDRESS, so that nobody has to be told of it.  No message
 * is sent for it.
 *
 *   shim     makes it (F_SEAL_SHRINK | F_SEAL_GROW) in each process before its first open or LAZY_REOPEN,
 *            with `version`, `length`, its process id and a `nonce` that no earlier image of the process
 *            had.  A forked child does not inherit the mapping (MADV_DONTFORK) and makes its own.  Before
 *            each such call it clears the `token` of post[TID % K42_ACCOUNT_POSTS].
 *   daemon   while it serves an OPEN, CREATE, LAZY_REOPEN or PRIVATE_REOPEN of a regular file: if there is
 *            such a mapping in the caller's process it keeps the memfd until the process has ended, gives
 *            the handle a slot, with the counters as they have been so far, and writes thread id, slot and
 *            token to the post.
 *   shim     after the call: if the post has its thread's id and a token, the descriptor's operations are
 *            added to that slot from now on, as long as the slot has that token.
 *   daemon   reads the slot when somebody asks and when the handle ends.  After that its token is 0, and
 *            the slot is another handle's some time.
 *
 * Threads that add to one number wait for each other's caches, so each of the first K42_ACCOUNT_LANES has a lane:
 * counters of its own for the first K42_ACCOUNT_LANE_SLOTS slots, which it alone writes.  A lane counts from the
 * moment on in which its bit is in the slot's flags, and what a slot says is the sum of its own counters and of
 * those in such lanes.
 *
 *   shim     before a thread adds for the first time for a handle: sets its lane's counters of that slot to 0,
 *            then the bit.  Threads without a lane add to the slot itself, with locked instructions.
 *   daemon   clears the bits when it gives the slot, and reads the flags before the lanes.
 *
 * The daemon must not believe anything of it: it only ever reads and writes the file (no mapping, so no
 * SIGBUS), takes only regular files of the kernel's own tmpfs with the right size and seals, and what a
 * slot says changes nothing but the counters of a living handle of that very process, which only grow, up to
 * K42_ACCOUNT_MOST.  The shim must not believe the daemon either: a slot number out of range is none.
 *
 * To come from the mapping to the file (/proc/PID/map_files) takes root's capabilities.  An ordinary user's daemon
 * can look into his own processes and at their descriptors; but the program must not find one that it has not opened
 * itself.  So it is there for one message:
 *
 *   daemon   writes a post with thread id and token and without a slot, by process_vm_writev: it asks for the file.
 *   shim     once in a process, and as long as no slot of the account is used, which it cannot take along: maps a
 *            new file in place of the other, with its descriptor in `fd`, sends LAZY_REOPEN on what it has opened or
 *            touched, and closes the descriptor.
 *   daemon   takes the file by that (/proc/PID/fd), and goes on as above.
 *
 * A daemon that cannot look into its callers at all (another pid namespace, kernel.yama.ptrace_scope=1 for an ordinary
 * user's, programs of others or that are not dumpable) writes no posts, and one of an older protocol neither: then
 * nothing is counted here.
 */
#define K42_ACCOUNT_ADDRESS  UINT64_C(0x4b3432660000)
#define K42_ACCOUNT_VERSION  2
#define K42_ACCOUNT_POSTS    64
#define K42_ACCOUNT_SLOTS    16367 /* slot 0 is no slot */
#define K42_ACCOUNT_LANES    31    /* 1 to 31; lane 0 is the slot itself */
#define K42_ACCOUNT_LANE_SLOTS 4096
/* Memory only as far as it is used. */
#define K42_ACCOUNT_LENGTH   ((1u << 20) + K42_ACCOUNT_LANES * K42_ACCOUNT_LANE_SLOTS * 64u)
#define K42_ACCOUNT_COUNTERS 6
#define K42_ACCOUNT_MOST     (UINT64_C(1) << 62)

enum k42_account_counter {
        K42_READS, /* calls; an end of file is one */
        K42_READ_BYTES,
        K42_WRITES,
        K42_WRITE_BYTES,
        K42_MAPPINGS, /* mmap(2) */
        K42_MAPPED_BYTES,
};

/* The slot's flags: the daemon sees and counts what read(2), write(2) and the like do (class counted); only
 * mappings, and what sendfile(2) and splice(2) read, are to be counted here. */
#define K42_ACCOUNT_CALLS_SEEN 1
/* Lane N (1 to K42_ACCOUNT_LANES) counts for this slot. */
#define K42_ACCOUNT_LANE(n) (UINT64_C(1) << (n))

struct k42_account_post {
        uint32_t tid;
        uint32_t slot;
        uint64_t token;
};

struct k42_account_slot {
        uint64_t token; /* 0: of no handle */
        uint64_t flags;
        uint64_t counters[K42_ACCOUNT_COUNTERS];
};
_Static_assert(sizeof(struct k42_account_slot) == 64, "a cache line");

struct k42_account_lane {
        uint64_t counters[K42_ACCOUNT_COUNTERS];
        uint64_t reserved[2];
};
_Static_assert(sizeof(struct k42_account_lane) == 64, "a cache line");

struct k42_account_head {
        uint32_t version; /* K42_ACCOUNT_VERSION */
        uint32_t length;  /* K42_ACCOUNT_LENGTH */
        int32_t pid;
        int32_t fd;     /* a descriptor of the file, while it is offered; 0: none */
        uint64_t nonce; /* not 0 */
};

struct k42_account {
        struct k42_account_head head;
        uint64_t reserved[5];
        struct k42_account_post post[K42_ACCOUNT_POSTS];
        struct k42_account_slot slot[K42_ACCOUNT_SLOTS];
        struct k42_account_lane lane[K42_ACCOUNT_LANES][K42_ACCOUNT_LANE_SLOTS]; /* lane N at N - 1 */
};
_Static_assert(sizeof(struct k42_account) == K42_ACCOUNT_LENGTH, "fixed");

/*
 * A mount with fork=private:… is marked in its kernel options, so that a shim knows without a message
 * whether there is anything that it must note at fork: the value stands in /proc/self/mountinfo and
 * limits nothing.
 */
#define K42_FORK_MARK "max_read=4294967294"

#ifdef __cplusplus
}
#endif

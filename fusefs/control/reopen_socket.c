/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who sends a descriptor chooses what its close does, and we cannot know what it is before we have it.  A file of a
 * FUSE server that never answers FLUSH keeps the process that closes it for ever, exit and SIGKILL included; a
 * socket that lingers does so for as long as its owner likes, even if it is one too many and only dropped.  So
 *
 *   no descriptor is taken, nor a datagram dropped, but in a process of its own, which ends by it (a helper);
 *   a helper says when it knows that what it has is harmless (vouches): a file of our own mount, looked at without
 *   asking its server, and a unix socket.  One that has not said so SUSPECT_MS after its start, or has not ended
 *   HELP_MS after it, when whoever asked has given up, is stuck: it is killed, and has its place no more;
 *   who sent a datagram is known before it is taken (SO_PASSCRED, MSG_PEEK).  SUSPECTS_OF_ONE helpers that have not
 *   vouched are what one sender can have at a time, and when those are stuck his datagrams are dropped: without room
 *   for descriptors the kernel installs none, so that no FLUSH is sent.  Whoever is in a user namespace, where
 *   anybody may have thousands of user ids, is one sender with all others who are.
 *
 * So nobody takes more than his own places, and others wait for him a few times SUSPECT_MS in all.  A datagram that is
 * dropped can only hold its helper if that has the last reference to a file with unwritten data of a FUSE server's
 * writeback cache, which takes pains to arrange; STUCK_MAX is for that.  A stuck process has nothing of ours: its
 * memory is gone, as it closes by exiting, and so are our descriptors.  The daemon waits for none.
 */
#include "fusefs/control/reopen_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cobj/access_rights.h"
#include "cobj/own_thread.h"
#include "fusefs/state_dir.h"
#include "lazy/protocol.h"

#define WORKING_MAX     8
#define STUCK_MAX       64
#define SUSPECTS_OF_ONE 2
#define SUSPECT_MS      500
#define HELP_MS         10000 /* as long as the shim waits */
#define REAP_EVERY_MS   20
#define PAUSE_US        20000

/* What an open can repeat of the flags that the received descriptor has. */
#define FLAGS (O_ACCMODE | O_APPEND | O_DIRECT | O_SYNC | O_DSYNC | O_NONBLOCK | O_NOATIME)

/* The user, or IN_NAMESPACE. */
typedef uid_t sender_id;
#define IN_NAMESPACE ((uid_t)-1)

struct helper {
        pid_t pid; /* 0: none */
        sender_id sender;
        bool vouched, stuck;
        int64_t started; /* µs, monotonic */
};

struct reopen_socket {
        struct k42_mount *mount;
        int fd, stop_fd;
        pthread_t thread;
        struct helper helpers[WORKING_MAX + STUCK_MAX]; /* the thread's own, like the next */
        bool full;                                      /* that it is was said */
};

/* ---- in the child: only what is allowed between fork and exec in a program with threads ---- */

/* Closes all but two descriptors: /dev/fuse above all, which would keep a dead mount alive. */
static void close_all_but(int one, int other)
{
        const unsigned low = (unsigned)MIN(one, other), high = (unsigned)MAX(one, other);

        if (low > 0)
                close_range(0, low - 1, 0);
        if (high > low + 1)
                close_range(low + 1, high - 1, 0);
        close_range(high + 1, ~0U, 0);
}

/* Takes a datagram.  What it brings is: the descriptor, and where the answer goes. */
static bool take_request(int fd, int ret_fds[2])
{
        struct k42_parcel parcel;
        ssize_t n;

        k42_parcel_init(&parcel, sizeof parcel.control.bytes);
        n = recvmsg(fd, &parcel.msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n != (ssize_t)sizeof parcel.body || (parcel.msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ||
            k42_parcel_fds(&parcel, ret_fds) != 2)
                return false;
        return parcel.body.header.version == K42_PROTOCOL_VERSION &&
               parcel.body.header.length == sizeof parcel.body && parcel.body.header.flags == 0 &&
               parcel.body.error == 0 && parcel.body.reserved32 == 0;
}

/* What cannot hold who closes it.  Nobody is asked: of a file that is not ours whoever serves it may be the sender,
 * who never answers. */
static int check_harmless(const int fds[2], dev_t dev)
{
        const int flags = fcntl(fds[0], F_GETFL);
        struct statx stx;
        socklen_t size = sizeof(int);
        int domain;

        if (flags < 0 || (flags & O_PATH))
                return -EBADF;
        if (statx(fds[0], "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &stx) < 0)
                return -errno;
        if (makedev(stx.stx_dev_major, stx.stx_dev_minor) != dev ||
            !(S_ISREG(stx.stx_mode) || S_ISDIR(stx.stx_mode)))
                return -EXDEV;
        return getsockopt(fds[1], SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX ? 0 : -ENOTSOCK;
}

/* Opens what `fd` is, not wider than it is.  Returns a descriptor or -errno. */
static int open_again(int fd)
{
        struct k42_lazy_reopen may = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof may}};
        const int flags = fcntl(fd, F_GETFL);
        char path[64];
        int r;

        if (ioctl(fd, K42_IOC_LAZY_REOPEN, &may) < 0) /* where it may not be duplicated */
                return -errno;
        /* We descend from nobody who has it, so this is what nobody was denied.  Whoever asks cannot be told from
         * others, and what is opened has all rights. */
        if (!access_rights_subset(access_rights_from_open_flags(flags), may.rights))
                return -EACCES;
        g_snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        r = open(path, (flags & FLAGS) | O_CLOEXEC);
        return r < 0 ? -errno : r;
}

static void answer(int to, int fd)
{
        struct k42_parcel parcel;

        if (fd < 0) {
                k42_parcel_init(&parcel, 0);
                parcel.body.error = -fd;
        } else {
                k42_parcel_init_fds(&parcel, &fd, 1);
        }
        /* A peer that does not want it, or has no room, has itself to blame. */
        (void)!sendmsg(to, &parcel.msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* `vouch_fd` is closed when a datagram was taken; a byte there says that it is harmless.  What was received is left to
 * exit to close, which gives the memory back first. */
static _Noreturn void help(int fd, int vouch_fd, dev_t dev, bool drop)
{
        struct msghdr nothing = {NULL};
        int fds[2], r;
        bool good;

        close_all_but(fd, vouch_fd);
        if (drop) {
                (void)!recvmsg(fd, &nothing, MSG_DONTWAIT);
                _exit(0);
        }
        good = take_request(fd, fds);
        close(fd);
        r = good ? check_harmless(fds, dev) : 0;
        if (good && r == 0)
                (void)!write(vouch_fd, "", 1);
        close(vouch_fd);
        if (good && r != -ENOTSOCK)
                answer(fds[1], r < 0 ? r : open_again(fds[0]));
        _exit(0);
}

/* ---- the thread ---- */

static bool in_our_user_namespace(pid_t pid)
{
        char path[64], its[64], ours[64];
        ssize_t n, m;

        g_snprintf(path, sizeof path, "/proc/%d/ns/user", (int)pid);
        n = readlink(path, its, sizeof its);
        m = readlink("/proc/self/ns/user", ours, sizeof ours);
        return n > 0 && n == m && memcmp(its, ours, (size_t)n) == 0;
}

/* Of the datagram that comes next.  There is no room for descriptors, so none is installed; and what is peeked at is
 * still in the queue, so none is closed.  False if there is no datagram. */
static bool next_sender(int fd, sender_id *ret_sender)
{
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(sizeof(struct ucred))];
        } control;
        struct msghdr msg = {.msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
        const struct cmsghdr *cmsg;
        struct ucred creds;

        *ret_sender = IN_NAMESPACE;
        if (recvmsg(fd, &msg, MSG_PEEK | MSG_DONTWAIT) < 0)
                return false;
        cmsg = CMSG_FIRSTHDR(&msg);
        if (cmsg && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_CREDENTIALS &&
            cmsg->cmsg_len == CMSG_LEN(sizeof creds)) {
                memcpy(&creds, CMSG_DATA(cmsg), sizeof creds);
                if (in_our_user_namespace(creds.pid))
                        *ret_sender = creds.uid;
        }
        return true;
}

/* Starts one.  Returns when it has taken a datagram, so that no second one is started for that, and knows what it has;
 * or when it takes long: then a second one may find nothing. */
static int start_helper(const struct reopen_socket *rs, struct helper *helper, bool drop)
{
        struct pollfd wait = {.events = POLLIN};
        int vouch[2];
        char byte;
        pid_t pid;

        if (pipe2(vouch, O_CLOEXEC) < 0)
                return -errno;
        helper->started = g_get_monotonic_time();
        pid = fork();
        if (pid == 0)
                help(rs->fd, vouch[1], rs->mount->dev, drop);
        close(vouch[1]);
        wait.fd = vouch[0];
        while (pid > 0 && poll(&wait, 1, SUSPECT_MS) < 0 && errno == EINTR)
                ;
        helper->vouched = wait.revents && read(vouch[0], &byte, 1) == 1;
        close(vouch[0]);
        if (pid < 0)
                return -EAGAIN;
        helper->pid = pid;
        return 0;
}

/* Reaps those that have ended, and finds those that are stuck. */
static void look_after(struct reopen_socket *rs, unsigned *ret_working, unsigned *ret_stuck)
{
        const int64_t now = g_get_monotonic_time();

        *ret_working = *ret_stuck = 0;
        for (struct helper *h = rs->helpers; h < rs->helpers + G_N_ELEMENTS(rs->helpers); h++) {
                if (h->pid == 0)
                        continue;
                if (waitpid(h->pid, NULL, WNOHANG) != 0) {
                        *h = (struct helper){0};
                        continue;
                }
                if (!h->stuck && now - h->started > (h->vouched ? HELP_MS : SUSPECT_MS) * INT64_C(1000)) {
                        h->stuck = true;
                        kill(h->pid, SIGKILL);
                }
                *(h->stuck ? ret_stuck : ret_working) += 1;
        }
}

enum turn { TURN_NOW, TURN_LATER, TURN_NEVER };

/* May a datagram of this sender be taken? */
static enum turn turn_of(const struct reopen_socket *rs, sender_id sender)
{
        unsigned suspects = 0, stuck = 0;

        for (const struct helper *h = rs->helpers; h < rs->helpers + G_N_ELEMENTS(rs->helpers); h++) {
                if (h->pid == 0 || h->sender != sender)
                        continue;
                suspects += h->stuck || !h->vouched;
                stuck += h->stuck;
        }
        if (suspects < SUSPECTS_OF_ONE)
                return TURN_NOW;
        return stuck < SUSPECTS_OF_ONE ? TURN_LATER : TURN_NEVER;
}

/* There is a free place.  False if nothing can be done now. */
static bool take_next(struct reopen_socket *rs)
{
        struct helper *place = rs->helpers;
        enum turn turn;
        sender_id sender;

        if (!next_sender(rs->fd, &sender))
                return false;
        turn = turn_of(rs, sender);
        if (turn == TURN_LATER)
                return false;
        while (place->pid != 0)
                place++;
        if (start_helper(rs, place, turn == TURN_NEVER) < 0) /* no memory or descriptors */
                return false;
        place->sender = sender;
        return true;
}

static void *serve(void *data)
{
        struct reopen_socket *rs = data;

        for (;;) {
                unsigned working, stuck;
                struct pollfd fds[] = {
                        {.fd = rs->stop_fd, .events = POLLIN},
                        {.fd = rs->fd, .events = POLLIN},
                };
                bool full;

                look_after(rs, &working, &stuck);
                full = stuck >= STUCK_MAX;
                if (full && !rs->full)
                        g_warning("%s/" K42_REOPEN_SOCKET ": %u processes cannot close what was sent there; nobody is "
                                  "served until one of them has",
                                  state_dir_path(rs->mount->state_dir), stuck);
                rs->full = full;
                if (full || working >= WORKING_MAX)
                        fds[1].fd = -1;
                if (poll(fds, G_N_ELEMENTS(fds), working + stuck > 0 ? REAP_EVERY_MS : -1) < 0 && errno != EINTR)
                        g_usleep(PAUSE_US);
                if (fds[0].revents)
                        break;
                if (fds[1].revents && !take_next(rs))
                        g_usleep(PAUSE_US); /* a little later */
        }
        return NULL;
}

static int make_socket(struct state_dir *dir, int *ret_fd)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        const int on = 1;
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;

        if (fd < 0)
                return -errno;
        /* Before anybody can send: who sends is noted then. */
        if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0) {
                r = -errno;
                close(fd);
                return r;
        }
        unlinkat(state_dir_fd(dir), K42_REOPEN_SOCKET, 0); /* one that is there is a dead daemon's */
        g_snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s",
                   state_dir_fd(dir), K42_REOPEN_SOCKET);
        if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
            fchmodat(state_dir_fd(dir), K42_REOPEN_SOCKET, 0666, 0) < 0) {
                r = -errno;
                close(fd);
                return r;
        }
        *ret_fd = fd;
        return 0;
}

static int start_thread(struct reopen_socket *rs)
{
        int r;

        rs->stop_fd = eventfd(0, EFD_CLOEXEC);
        if (rs->stop_fd < 0)
                return -errno;
        r = own_thread_start(&rs->thread, "k42-reopen", serve, rs);
        if (r < 0) {
                close(rs->stop_fd);
                rs->stop_fd = -1;
        }
        return r;
}

int reopen_socket_start(struct k42_mount *mount, struct reopen_socket **ret_socket)
{
        struct reopen_socket *rs;
        int r;

        *ret_socket = NULL;
        if (!mount->privileged)
                return 0;
        rs = g_new0(struct reopen_socket, 1);
        rs->mount = mount;
        rs->fd = rs->stop_fd = -1;
        r = make_socket(mount->state_dir, &rs->fd);
        if (r == 0)
                r = start_thread(rs);
        if (r < 0) {
                g_warning("%s/" K42_REOPEN_SOCKET ": cannot be served: %s",
                          state_dir_path(mount->state_dir), g_strerror(-r));
                reopen_socket_stop(rs);
                return mount->resume ? 0 : r; /* a mount that is in use goes on without */
        }
        *ret_socket = rs;
        return 0;
}

void reopen_socket_stop(struct reopen_socket *rs)
{
        if (!rs)
                return;
        if (rs->stop_fd >= 0) {
                if (eventfd_write(rs->stop_fd, 1) < 0)
                        g_warning("%s: cannot wake a thread", K42_REOPEN_SOCKET);
                pthread_join(rs->thread, NULL);
                close(rs->stop_fd);
        }
        for (unsigned i = 0; i < G_N_ELEMENTS(rs->helpers); i++)
                if (rs->helpers[i].pid > 0)
                        kill(rs->helpers[i].pid, SIGKILL);
        if (rs->fd >= 0) {
                unlinkat(state_dir_fd(rs->mount->state_dir), K42_REOPEN_SOCKET, 0);
                close(rs->fd);
        }
        g_free(rs);
}

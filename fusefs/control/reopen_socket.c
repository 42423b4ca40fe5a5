/* SPDX-License-Identifier: LGPL-2.1-or-later */
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
#include "fusefs/state_dir.h"
#include "lazy/protocol.h"

#define HELPERS_MAX   8
#define REAP_EVERY_MS 100
#define PAUSE_US      20000

/* What an open can repeat of the flags that the received descriptor has. */
#define FLAGS (O_ACCMODE | O_APPEND | O_DIRECT | O_SYNC | O_DSYNC | O_NONBLOCK | O_NOATIME)

struct reopen_socket {
        struct k42_mount *mount;
        int fd, stop_fd;
        pthread_t thread;
        pid_t helpers[HELPERS_MAX]; /* 0: none; the thread's own */
};

/* ---- in the child: only what is allowed between fork and exec in a program with threads ---- */

/* A message with room for two descriptors. */
struct parcel {
        struct k42_reopen_by_daemon body;
        struct iovec iov;
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(2 * sizeof(int))];
        } control;
        struct msghdr msg;
};

static void parcel_init(struct parcel *parcel, size_t control_size)
{
        memset(parcel, 0, sizeof *parcel);
        parcel->iov = (struct iovec){.iov_base = &parcel->body, .iov_len = sizeof parcel->body};
        parcel->msg.msg_iov = &parcel->iov;
        parcel->msg.msg_iovlen = 1;
        parcel->msg.msg_control = control_size ? parcel->control.bytes : NULL;
        parcel->msg.msg_controllen = control_size;
}

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
        struct parcel parcel;
        const struct cmsghdr *cmsg;
        ssize_t n;

        parcel_init(&parcel, sizeof parcel.control.bytes);
        n = recvmsg(fd, &parcel.msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        cmsg = n < 0 ? NULL : CMSG_FIRSTHDR(&parcel.msg);
        if (n != (ssize_t)sizeof parcel.body || (parcel.msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ||
            !cmsg || cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS ||
            cmsg->cmsg_len != CMSG_LEN(2 * sizeof(int)))
                return false;
        memcpy(ret_fds, CMSG_DATA(cmsg), 2 * sizeof(int));
        return parcel.body.header.version == K42_PROTOCOL_VERSION &&
               parcel.body.header.length == sizeof parcel.body && parcel.body.header.flags == 0 &&
               parcel.body.error == 0 && parcel.body.reserved32 == 0;
}

/* Opens what `fd` is, not wider than it is.  Returns a descriptor or -errno. */
static int open_again(int fd, dev_t dev)
{
        struct k42_lazy_reopen may = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof may}};
        const int flags = fcntl(fd, F_GETFL);
        char path[64];
        struct statx stx;
        int r;

        if (flags < 0 || (flags & O_PATH))
                return -EBADF;
        /* Without asking whoever serves the file: for one that is not ours that may be the sender, who never
         * answers. */
        if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &stx) < 0)
                return -errno;
        if (makedev(stx.stx_dev_major, stx.stx_dev_minor) != dev ||
            !(S_ISREG(stx.stx_mode) || S_ISDIR(stx.stx_mode)))
                return -EXDEV;
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
        struct parcel parcel;

        parcel_init(&parcel, fd < 0 ? 0 : CMSG_SPACE(sizeof fd));
        parcel.body.header.version = K42_PROTOCOL_VERSION;
        parcel.body.header.length = sizeof parcel.body;
        if (fd < 0) {
                parcel.body.error = -fd;
        } else {
                struct cmsghdr *cmsg = &parcel.control.header;

                cmsg->cmsg_level = SOL_SOCKET;
                cmsg->cmsg_type = SCM_RIGHTS;
                cmsg->cmsg_len = CMSG_LEN(sizeof fd);
                memcpy(CMSG_DATA(cmsg), &fd, sizeof fd);
        }
        /* A peer that does not want it, or has no room, has itself to blame. */
        (void)!sendmsg(to, &parcel.msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static _Noreturn void help(int fd, int taken_fd, dev_t dev)
{
        int fds[2];
        bool good;

        close_all_but(fd, taken_fd);
        good = take_request(fd, fds);
        close(fd);
        close(taken_fd);
        if (good)
                answer(fds[1], open_again(fds[0], dev));
        _exit(0);
}

/* ---- the thread ---- */

/* Starts a child; returns when it has taken a datagram, so that no second one is started for that. */
static pid_t start_helper(const struct reopen_socket *rs)
{
        int taken[2];
        char byte;
        pid_t pid;

        if (pipe2(taken, O_CLOEXEC) < 0)
                return -errno;
        pid = fork();
        if (pid == 0)
                help(rs->fd, taken[1], rs->mount->dev);
        close(taken[1]);
        while (pid > 0 && read(taken[0], &byte, 1) < 0 && errno == EINTR)
                ;
        close(taken[0]);
        return pid;
}

/* Where the next child goes, or HELPERS_MAX; those that have ended are reaped. */
static unsigned free_place(struct reopen_socket *rs, bool *ret_any)
{
        unsigned place = HELPERS_MAX;

        *ret_any = false;
        for (unsigned i = 0; i < HELPERS_MAX; i++) {
                if (rs->helpers[i] > 0 && waitpid(rs->helpers[i], NULL, WNOHANG) != 0)
                        rs->helpers[i] = 0;
                if (rs->helpers[i] == 0)
                        place = i;
                else
                        *ret_any = true;
        }
        return place;
}

static void *serve(void *data)
{
        struct reopen_socket *rs = data;

        for (;;) {
                bool any;
                const unsigned place = free_place(rs, &any);
                struct pollfd fds[] = {
                        {.fd = rs->stop_fd, .events = POLLIN},
                        {.fd = place < HELPERS_MAX ? rs->fd : -1, .events = POLLIN},
                };

                if (poll(fds, G_N_ELEMENTS(fds), any ? REAP_EVERY_MS : -1) < 0 && errno != EINTR)
                        g_usleep(PAUSE_US);
                if (fds[0].revents)
                        break;
                if (fds[1].revents) {
                        const pid_t pid = start_helper(rs);

                        if (pid > 0)
                                rs->helpers[place] = pid;
                        else
                                g_usleep(PAUSE_US); /* no memory or descriptors: a little later */
                }
        }
        return NULL;
}

static int make_socket(struct state_dir *dir, int *ret_fd)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;

        if (fd < 0)
                return -errno;
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
        sigset_t all, before;
        int err;

        rs->stop_fd = eventfd(0, EFD_CLOEXEC);
        if (rs->stop_fd < 0)
                return -errno;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, &before);
        err = pthread_create(&rs->thread, NULL, serve, rs);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (err != 0) {
                close(rs->stop_fd);
                rs->stop_fd = -1;
        }
        return -err;
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
        for (unsigned i = 0; i < HELPERS_MAX; i++)
                if (rs->helpers[i] > 0)
                        kill(rs->helpers[i], SIGKILL);
        if (rs->fd >= 0) {
                unlinkat(state_dir_fd(rs->mount->state_dir), K42_REOPEN_SOCKET, 0);
                close(rs->fd);
        }
        g_free(rs);
}

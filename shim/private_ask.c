/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * REOPEN_BY_DAEMON (lazy/protocol.h), for a process that has dropped the privileges to open the file
 * itself: a datagram to the daemon, and an answer on a socket pair, which ends when the daemon does.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "lazy/protocol.h"
#include "shim/private.h"
#include "shim/touch.h"

#define ANSWER_MS 10000

/* A message with descriptors. */
struct parcel {
        struct k42_reopen_by_daemon body;
        struct iovec iov;
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(2 * sizeof(int))];
        } control;
        struct msghdr msg;
};

static void pack(struct parcel *parcel)
{
        memset(parcel, 0, sizeof *parcel);
        parcel->body.header.version = K42_PROTOCOL_VERSION;
        parcel->body.header.length = sizeof parcel->body;
        parcel->iov.iov_base = &parcel->body;
        parcel->iov.iov_len = sizeof parcel->body;
        parcel->msg.msg_iov = &parcel->iov;
        parcel->msg.msg_iovlen = 1;
        parcel->msg.msg_control = parcel->control.bytes;
        parcel->msg.msg_controllen = sizeof parcel->control.bytes;
}

/* The daemon's socket, as an address that is short enough: through the state directory's descriptor. */
static void address_of(int state_dir, struct sockaddr_un *ret_address)
{
        memset(ret_address, 0, sizeof *ret_address);
        ret_address->sun_family = AF_UNIX;
        private_fd_path(ret_address->sun_path, state_dir, "/" K42_REOPEN_SOCKET);
}

static int open_state_dir(int fd)
{
        struct k42_where where = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof where}};
        int r = touch_send(fd, K42_IOC_WHERE, &where);

        if (r < 0)
                return r;
        if (!memchr(where.state_dir, '\0', sizeof where.state_dir))
                return -EPROTO;
        r = (int)syscall(SYS_openat, AT_FDCWD, where.state_dir, O_PATH | O_DIRECTORY | O_CLOEXEC,
                         0);
        return r < 0 ? -errno : r;
}

static int send_request(int fd, int answer, const struct sockaddr_un *address)
{
        const int passed[2] = {fd, answer};
        const int to = (int)syscall(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        struct parcel parcel;
        struct cmsghdr *cmsg;
        int r;

        if (to < 0)
                return -errno;
        pack(&parcel);
        cmsg = CMSG_FIRSTHDR(&parcel.msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof passed);
        memcpy(CMSG_DATA(cmsg), passed, sizeof passed);
        parcel.msg.msg_name = (void *)address;
        parcel.msg.msg_namelen = sizeof *address;
        r = syscall(SYS_sendmsg, to, &parcel.msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
        syscall(SYS_close, to);
        return r;
}

/* A descriptor that came with the answer, or -1. */
static int passed_fd(struct msghdr *msg)
{
        const struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg);
        int fd = -1;

        if (cmsg && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS &&
            cmsg->cmsg_len >= CMSG_LEN(sizeof fd))
                memcpy(&fd, CMSG_DATA(cmsg), sizeof fd);
        return fd;
}

static int take_answer(int answer)
{
        struct pollfd wait = {.fd = answer, .events = POLLIN};
        const struct timespec limit = {.tv_sec = ANSWER_MS / 1000};
        struct parcel parcel;
        long n;
        int fd;

        n = syscall(SYS_ppoll, &wait, 1, &limit, NULL, 0);
        if (n <= 0)
                return n == 0 ? -ETIMEDOUT : -errno;
        pack(&parcel);
        n = syscall(SYS_recvmsg, answer, &parcel.msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (n < 0)
                return -errno;
        fd = passed_fd(&parcel.msg);
        if (n == (long)sizeof parcel.body && parcel.body.error == 0 && fd >= 0)
                return fd;
        if (fd >= 0)
                syscall(SYS_close, fd);
        return n == (long)sizeof parcel.body && parcel.body.error > 0 &&
                               parcel.body.error < 4096
                       ? -parcel.body.error
                       : -EPROTO;
}

int private_ask(int fd)
{
        struct sockaddr_un address;
        int pair[2], state_dir = open_state_dir(fd), r;

        if (state_dir < 0)
                return state_dir;
        address_of(state_dir, &address);
        if (syscall(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
                r = -errno;
                syscall(SYS_close, state_dir);
                return r;
        }
        r = send_request(fd, pair[1], &address);
        syscall(SYS_close, state_dir);
        syscall(SYS_close, pair[1]);
        if (r == 0)
                r = take_answer(pair[0]);
        syscall(SYS_close, pair[0]);
        return r;
}

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
        struct k42_parcel parcel;
        int r;

        if (to < 0)
                return -errno;
        k42_parcel_init_fds(&parcel, passed, 2);
        parcel.msg.msg_name = (void *)address;
        parcel.msg.msg_namelen = sizeof *address;
        r = syscall(SYS_sendmsg, to, &parcel.msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
        syscall(SYS_close, to);
        return r;
}

static int take_answer(int answer)
{
        struct pollfd wait = {.fd = answer, .events = POLLIN};
        const struct timespec limit = {.tv_sec = ANSWER_MS / 1000};
        struct k42_parcel parcel;
        size_t came;
        int fds[2];
        long n;

        n = syscall(SYS_ppoll, &wait, 1, &limit, NULL, 0);
        if (n <= 0)
                return n == 0 ? -ETIMEDOUT : -errno;
        k42_parcel_init(&parcel, CMSG_SPACE(sizeof fds)); /* no more can come */
        n = syscall(SYS_recvmsg, answer, &parcel.msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (n < 0)
                return -errno;
        came = k42_parcel_fds(&parcel, fds);
        if (n == (long)sizeof parcel.body && parcel.body.error == 0 && came == 1)
                return fds[0];
        while (came > 0)
                syscall(SYS_close, fds[--came]);
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

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How the child of a cell gets its descriptor.  Numbers are fixed per operation, so that a copy
 * never lands by chance where another cell expects nothing.
 */
#include "matrix.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

const char *const dup_names[DUP_KINDS] = {
        "fd", "dup", "dup2", "dup3", "F_DUPFD", "SCM_RIGHTS", "reopen", "child-dup", "child-dup2",
};

bool dup_same_stream(enum dup_kind kind)
{
        return kind <= DUP_FCNTL;
}

static int over_a_decoy(int fd, int target, const char *decoy)
{
        int other = open(decoy, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

        if (other < 0)
                return -errno;
        if (dup2(other, target) < 0 || dup2(fd, target) < 0)
                return -errno;
        close(other);
        return target;
}

static int send_descriptor(int sock, int fd)
{
        char byte = 'd';
        struct iovec iov = {&byte, 1};
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int))];
        } control = {0};
        struct msghdr message = {.msg_iov = &iov,
                                 .msg_iovlen = 1,
                                 .msg_control = control.space,
                                 .msg_controllen = sizeof(control.space)};
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);

        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof(int));
        return sendmsg(sock, &message, 0) == 1 ? -1 : -errno;
}

static int receive_descriptor(int sock)
{
        char byte;
        struct iovec iov = {&byte, 1};
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int))];
        } control;
        struct msghdr message = {.msg_iov = &iov,
                                 .msg_iovlen = 1,
                                 .msg_control = control.space,
                                 .msg_controllen = sizeof(control.space)};
        struct cmsghdr *header;
        int fd;

        if (recvmsg(sock, &message, MSG_DONTWAIT) != 1)
                return -errno;
        header = CMSG_FIRSTHDR(&message);
        if (!header || header->cmsg_type != SCM_RIGHTS)
                return -EBADMSG;
        memcpy(&fd, CMSG_DATA(header), sizeof(int));
        return fd;
}

int dup_leave(enum dup_kind kind, const struct cell *cell, int index, const char *decoy, int sock)
{
        int fd = cell->orig;

        switch (kind) {
        case DUP_DUP:
                fd = dup(cell->orig);
                break;
        case DUP_DUP2:
                return over_a_decoy(cell->orig, 300 + index, decoy);
        case DUP_DUP3:
                fd = dup3(cell->orig, 300 + index, 0);
                break;
        case DUP_FCNTL:
                fd = fcntl(cell->orig, F_DUPFD, 300 + index);
                break;
        case DUP_SCM:
                return send_descriptor(sock, cell->orig);
        default:
                break;
        }
        return fd < 0 ? -errno : fd;
}

static int open_again(const struct cell *cell)
{
        char path[40] = "/proc/self/fd/", digits[12];
        int n = 0, i = strlen(path), fd = cell->use;

        do
                digits[n++] = '0' + fd % 10;
        while ((fd /= 10));
        while (n)
                path[i++] = digits[--n];
        path[i] = 0;
        return open(path, cell->op->flags & ~O_CREAT);
}

int dup_take(enum dup_kind kind, const struct cell *cell, int index, int sock)
{
        int fd = cell->use;

        switch (kind) {
        case DUP_SCM:
                return receive_descriptor(sock);
        case DUP_REOPEN:
                fd = open_again(cell);
                break;
        case DUP_CHILD_DUP:
                fd = dup(cell->use);
                break;
        case DUP_CHILD_DUP2:
                fd = dup2(cell->use, 500 + index);
                break;
        default:
                break;
        }
        return fd < 0 ? -errno : fd;
}

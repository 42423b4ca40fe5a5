/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hold-looks FILE PROCESSES UID: so many processes of user UID keep the daemon waiting at the place where an account
 * would be (lazy/protocol.h), in memory that nobody fills in (userfaultfd), while each opens FILE.  Prints "held N"
 * when the daemon is at N of them and does not come to more; lets go, and ends, when its standard input does.
 * Status 77: not possible here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lazy/protocol.h"

#define PROCESSES_MAX 16

static _Noreturn void fail(const char *what)
{
        fprintf(stderr, "hold-looks: %s: %s\n", what, strerror(errno));
        _exit(errno == EPERM || errno == ENOSYS ? 77 : 1);
}

static int lay_out(void)
{
        struct uffdio_api api = {.api = UFFD_API};
        struct uffdio_register range = {.range = {K42_ACCOUNT_ADDRESS, 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};
        const int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

        if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0 ||
            mmap((void *)(uintptr_t)K42_ACCOUNT_ADDRESS, 4096, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ||
            ioctl(fd, UFFDIO_REGISTER, &range) < 0)
                fail("userfaultfd");
        return fd;
}

/* One process.  Who lets go is its parent, which must not wait for the daemon itself: `fd` goes there. */
static _Noreturn void hold(const char *file, uid_t uid, int socket)
{
        char byte = 0, control[CMSG_SPACE(sizeof(int))] = {0};
        struct iovec iov = {&byte, 1};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
        const int fd = lay_out();

        *cmsg = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(cmsg), &fd, sizeof fd);
        if (setresuid(uid, uid, uid) < 0 || sendmsg(socket, &msg, 0) != 1)
                fail("sendmsg");
        close(fd);
        if (open(file, O_RDONLY) < 0)
                fail(file);
        _exit(0);
}

static int receive(int socket)
{
        char byte, control[CMSG_SPACE(sizeof(int))];
        struct iovec iov = {&byte, 1};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        int fd;

        if (recvmsg(socket, &msg, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&msg))
                _exit(77); /* the child said why */
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof fd);
        return fd;
}

int main(int argc, char **argv)
{
        const int n = argc == 4 ? atoi(argv[2]) : 0;
        struct pollfd fds[PROCESSES_MAX];
        int pair[2], held = 0, status, bad = 0;
        char byte;

        if (n < 1 || n > PROCESSES_MAX)
                return 2;
        for (int i = 0; i < n; i++) {
                if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                        fail("socketpair");
                switch (fork()) {
                case -1:
                        fail("fork");
                case 0:
                        for (int other = 0; other < i; other++)
                                close(fds[other].fd);
                        close(pair[0]);
                        hold(argv[1], (uid_t)atoi(argv[3]), pair[1]);
                }
                close(pair[1]);
                fds[i] = (struct pollfd){.fd = receive(pair[0]), .events = POLLIN};
                close(pair[0]);
        }
        usleep(500000);
        (void)poll(fds, (nfds_t)n, 5000);
        for (int i = 0; i < n; i++)
                held += (fds[i].revents & POLLIN) != 0;
        printf("held %d\n", held);
        fflush(stdout);
        while (read(0, &byte, 1) > 0)
                ;
        for (int i = 0; i < n; i++)
                close(fds[i].fd);
        while (wait(&status) > 0)
                bad |= status != 0;
        return bad;
}

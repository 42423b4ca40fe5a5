/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Private mode: other ways to a new process than fork(), and to a descriptor. */
#include "cases.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>

extern char **environ;

void case_exec(void)
{
        const int fd = make(O_RDONLY);
        char number[16];
        pid_t pid;

        CHECK(reads(fd, 0, 100));
        snprintf(number, sizeof number, "%d", fd);
        pid = fork();
        if (pid == 0) {
                execl(self, self, "read-here", number, NULL);
                _exit(1);
        }
        reap(pid);
        CHECK(at(fd) == 110); /* as POSIX says */
        CHECK(posix_spawn(&pid, self, NULL, NULL,
                          (char *[]){(char *)self, (char *)"read-here", number, NULL},
                          environ) == 0);
        reap(pid);
        CHECK(at(fd) == 120);
        pid = vfork();
        if (pid == 0) {
                execl(self, self, "read-here", number, NULL);
                _exit(1);
        }
        reap(pid);
        CHECK(at(fd) == 130 && reads(fd, 130, 5));
        /* what is private already stays so over exec */
        pid = fork();
        if (pid == 0) {
                CHECK(reads(fd, 135, 5));
                execl(self, self, "read-here", number, NULL);
                _exit(1);
        }
        reap(pid);
        CHECK(at(fd) == 135);
}

void case_raw_clone(void)
{
        const int fd = make(O_RDONLY);
        pid_t pid;

        CHECK(reads(fd, 0, 100));
        pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
        if (pid == 0)
                _exit(reads(fd, 100, 10) ? 0 : 1);
        reap(pid);
        CHECK(at(fd) == 110);
        pid = fork(); /* and it has not confused anything */
        if (pid == 0)
                _exit(reads(fd, 110, 10) ? 0 : 1);
        reap(pid);
        CHECK(at(fd) == 110);
}

/* In a program that inherited it over exec: `cases exec-then-fork-2 FD`. */
void fork_after_exec(int fd)
{
        const int64_t where = at(fd);
        pid_t pid;

        CHECK(where == 100);
        pid = fork();
        if (pid == 0)
                _exit(reads(fd, 100, 10) ? 0 : 1);
        reap(pid);
        CHECK(at(fd) == 100);
}

void case_exec_then_fork(void)
{
        const int fd = make(O_RDONLY);
        char number[16];

        CHECK(reads(fd, 0, 100));
        snprintf(number, sizeof number, "%d", fd);
        execl(self, self, "exec-then-fork-2", number, NULL);
        _exit(1);
}

void case_received(void)
{
        const int fd = make(O_RDONLY);
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
        char byte = 'x';
        struct iovec iov = {.iov_base = &byte, .iov_len = 1};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
        struct cmsghdr *cmsg = (struct cmsghdr *)control;
        int pair[2], got;
        pid_t pid;

        CHECK(reads(fd, 0, 100) && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        pid = fork(); /* after a fork, so that what is open has been looked at */
        if (pid == 0)
                _exit(0);
        reap(pid);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(cmsg), &fd, sizeof fd);
        CHECK(sendmsg(pair[0], &msg, 0) == 1 && recvmsg(pair[1], &msg, 0) == 1);
        memcpy(&got, CMSG_DATA(cmsg), sizeof got);
        CHECK(got != fd);
        pid = fork();
        if (pid == 0)
                _exit(reads(got, 100, 10) && at(fd) == 110 ? 0 : 1);
        reap(pid);
        CHECK(at(got) == 100);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Starting a worker, for whoever of the holder's parts wants one. */
#include "fusefs/holder/holder_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int64_t holder_now_ms(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void holder_close_fd(int *fd)
{
        if (*fd >= 0)
                close(*fd);
        *fd = -1;
}

/* In the child: only what is safe after fork(). */
static void become_worker(const struct holder *h, int program_fd, int link_fd)
{
        const int fds[] = {
                [LINK_FD_LINK] = link_fd,
                [LINK_FD_SOURCE] = h->source_fd,
                [LINK_FD_STATE] = h->state_fd,
        };

        for (int fd = LINK_FD_LINK; fd < LINK_FD_END; fd++)
                if (dup2(fds[fd], fd) < 0)
                        _exit(HOLDER_EXEC_FAILED);
        sigprocmask(SIG_SETMASK, &h->worker_mask, NULL);
        execveat(program_fd, "", h->worker_argv, environ, AT_EMPTY_PATH);
        _exit(HOLDER_EXEC_FAILED);
}

int holder_fork_worker(const struct holder *h, int program_fd, pid_t *ret_pid, int *ret_link_fd)
{
        int pair[2], ours, theirs, r = 0;
        pid_t pid;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return -errno;
        ours = fcntl(pair[0], F_DUPFD_CLOEXEC, HOLDER_FD_MIN);
        theirs = fcntl(pair[1], F_DUPFD_CLOEXEC, HOLDER_FD_MIN);
        close(pair[0]);
        close(pair[1]);
        pid = ours >= 0 && theirs >= 0 ? fork() : -1;
        if (pid == 0)
                become_worker(h, program_fd, theirs);
        if (pid < 0)
                r = -errno;
        holder_close_fd(&theirs);
        if (r < 0) {
                holder_close_fd(&ours);
                return r;
        }
        *ret_pid = pid;
        *ret_link_fd = ours;
        return 0;
}

void holder_describe_death(int wait_status, char *ret_text, size_t size)
{
        if (WIFSIGNALED(wait_status))
                snprintf(ret_text, size, "was killed by signal %d (%s)", WTERMSIG(wait_status),
                         sigabbrev_np(WTERMSIG(wait_status)) ?: "?");
        else if (WEXITSTATUS(wait_status) == HOLDER_EXEC_FAILED)
                snprintf(ret_text, size, "could not be run");
        else
                snprintf(ret_text, size, "exited with status %d", WEXITSTATUS(wait_status));
}

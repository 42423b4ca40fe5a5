/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fusefs/run_program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int spawn(const char *const *argv, char **environment, int as_fd, int stderr_fd,
                 pid_t *ret_pid)
{
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attr;
        sigset_t none, all;
        int err;

        sigemptyset(&none);
        sigfillset(&all);
        posix_spawn_file_actions_init(&actions);
        posix_spawnattr_init(&attr);
        posix_spawnattr_setsigmask(&attr, &none);
        posix_spawnattr_setsigdefault(&attr, &all);
        posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        err = posix_spawn_file_actions_adddup2(&actions, stderr_fd, STDERR_FILENO);
        if (err == 0)
                err = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null",
                                                       O_RDONLY, 0);
        if (err == 0 && as_fd >= 0)
                err = posix_spawn_file_actions_adddup2(&actions, as_fd, 3);
        if (err == 0)
                err = posix_spawnp(ret_pid, argv[0], &actions, &attr, (char **)argv, environment);
        posix_spawn_file_actions_destroy(&actions);
        posix_spawnattr_destroy(&attr);
        return -err;
}

int program_start(const char *const *argv, int as_fd, const char *extra, pid_t *ret_pid,
                  int *ret_stderr)
{
        char **environment;
        size_t n = 0;
        int fds[2], r;

        while (environ && environ[n])
                n++;
        environment = calloc(n + 2, sizeof *environment);
        if (!environment)
                return -ENOMEM;
        if (n > 0)
                memcpy(environment, environ, n * sizeof *environment);
        environment[n] = (char *)extra;
        if (pipe2(fds, O_CLOEXEC) < 0) {
                r = -errno;
                free(environment);
                return r;
        }
        r = spawn(argv, environment, as_fd, fds[1], ret_pid);
        free(environment);
        close(fds[1]);
        if (r < 0)
                close(fds[0]);
        else
                *ret_stderr = fds[0];
        return r;
}

int program_wait(pid_t pid, int stderr_fd, char *printed, size_t size)
{
        char dropped[256];
        size_t length = 0;
        int status;

        for (;;) {
                const bool keep = printed && length + 1 < size;
                ssize_t n = keep ? read(stderr_fd, printed + length, size - 1 - length)
                                 : read(stderr_fd, dropped, sizeof dropped);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        break;
                if (keep)
                        length += (size_t)n;
        }
        if (printed)
                printed[length] = '\0';
        close(stderr_fd);
        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Question 2 of 2006: what if other threads do I/O while one forks?  K42 marked the bitmaps in the
 * parent, before the fork; descriptors that others opened in between got lost.
 *
 * Question 3: the parent, too, has to re-open then.
 *
 * Run with the shim preloaded: 8 threads open, read, copy and close while this one forks.
 *
 *   q2 child FORKS    in every child, before anything else, each open descriptor must be unknown,
 * or active and ready: one that is active and not ready would never be re-opened.  And the
 * invariant must hold q2 parent FORKS   in the parent nothing may become ready
 *
 * Exits 0 if all was right, 1 and says what was wrong, or 99 if it could not try.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shim/fd_table.h"

#define THREADS    8
#define LOOK_UP_TO 256

static unsigned (*fd_state)(int fd);
static int (*check)(void);
static atomic_bool stop;

static void *busy_thread(void *data)
{
        char byte;

        while (!atomic_load(&stop)) {
                int fds[4], copy;

                for (int i = 0; i < 4; i++) {
                        fds[i] = open("/dev/zero", O_RDONLY | (i % 2 ? O_CLOEXEC : 0));
                        if (read(fds[i], &byte, 1) != 1)
                                _exit(99);
                }
                copy = fcntl(fds[0], F_DUPFD_CLOEXEC, 100);
                if (dup2(fds[1], fds[2]) < 0 || read(fds[2], &byte, 1) != 1)
                        _exit(99);
                close(copy);
                for (int i = 0; i < 4; i++)
                        close(fds[i]);
        }
        return NULL;
}

static bool is_open(int fd)
{
        return syscall(SYS_fcntl, fd, F_GETFD) >= 0;
}

/* In the child, on the memory of the moment of the fork. */
static int look(void)
{
        int wrong = check();

        if (wrong >= 0) {
                fprintf(stderr, "q2: descriptor %d breaks the invariant\n", wrong);
                return 1;
        }
        for (int fd = 3; fd < LOOK_UP_TO; fd++) {
                const unsigned bits = fd_state(fd);

                if (is_open(fd) && (bits & FD_ACTIVE) && !(bits & FD_READY)) {
                        fprintf(stderr, "q2: descriptor %d is active and not ready\n", fd);
                        return 1;
                }
        }
        return 0;
}

static bool parent_has_ready(void)
{
        for (int fd = 0; fd < LOOK_UP_TO; fd++)
                if (fd_state(fd) & FD_READY)
                        return true;
        return false;
}

/* Forks; the child's verdict, or the parent's.  0 is right. */
static int one_fork(bool ask_child)
{
        const pid_t pid = fork();
        int status;

        if (pid == 0)
                _exit(ask_child ? look() : 0);
        if (pid < 0)
                return 99;
        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return 99;
        if (!ask_child && parent_has_ready()) {
                fprintf(stderr, "q2: the parent has to re-open after its own fork\n");
                return 1;
        }
        return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

int main(int argc, char **argv)
{
        const int forks = argc == 3 ? atoi(argv[2]) : 0;
        const bool ask_child = forks > 0 && strcmp(argv[1], "child") == 0;
        pthread_t threads[THREADS];
        int result = 0;

        *(void **)&fd_state = dlsym(RTLD_DEFAULT, "k42_shim_fd_state");
        *(void **)&check = dlsym(RTLD_DEFAULT, "k42_shim_check");
        if (!fd_state || !check || (!ask_child && (forks <= 0 || strcmp(argv[1], "parent") != 0))) {
                fprintf(stderr, "q2: needs the shim preloaded, child or parent, and a number\n");
                return 99;
        }
        for (int i = 0; i < THREADS; i++)
                if (pthread_create(&threads[i], NULL, busy_thread, NULL) != 0)
                        return 99;
        for (int i = 0; i < forks && result == 0; i++)
                result = one_fork(ask_child);
        atomic_store(&stop, true);
        for (int i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
        return result;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How the child of a group is made and what it becomes.
 *
 * Children on the parent's memory (vfork, CLONE_VM) only do what is async-signal-safe, on a stack
 * of their own or, for vfork, in a frame that does not return.  Every child gets an alarm: a cell
 * that hangs ends as "signal 14", not as a test that never ends.
 */
#include "matrix.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_SECONDS 60

const char *const create_names[CREATIONS] = {
        "fork",     "_Fork",       "clone",  "vfork", "clone-VM-VFORK",
        "clone-VM", "posix_spawn", "system", "popen", "daemon",
};
const char *const after_names[AFTERS] = {"no-exec", "exec", "exec-cleared"};

static char *const empty_environment[] = {NULL};
static char vm_stack[256 * 1024] __attribute__((aligned(64)));

bool create_needs_exec(enum creation how)
{
        return how == CREATE_SPAWN || how == CREATE_SYSTEM || how == CREATE_POPEN;
}

bool create_shares_memory(enum creation how)
{
        return how == CREATE_VFORK || how == CREATE_CLONE_VFORK || how == CREATE_CLONE_VM;
}

static _Noreturn void become(struct group *group)
{
        alarm(CHILD_SECONDS);
        if (group->after == AFTER_NONE) {
                matrix_child(group);
                _exit(0);
        }
        execve(group->argv[0], group->argv,
               group->after == AFTER_EXEC ? environ : empty_environment);
        _exit(127);
}

static int become_on_own_stack(void *data)
{
        become(data);
}

/* Kept to itself, because the child comes back from vfork() in this very frame first. */
static __attribute__((noinline)) pid_t by_vfork(struct group *group)
{
        pid_t pid = vfork();

        if (pid == 0)
                become(group);
        return pid;
}

static pid_t by_clone(struct group *group, int flags)
{
        return clone(become_on_own_stack, vm_stack + sizeof(vm_stack), flags | SIGCHLD, group);
}

/* The middle process is the one that daemon() ends; what it leaves behind is adopted by the matrix.
 */
static pid_t by_daemon(struct group *group)
{
        pid_t pid = fork();

        if (pid == 0) {
                if (daemon(1, 1) < 0)
                        _exit(126);
                become(group);
        }
        return pid;
}

static pid_t by_spawn(struct group *group)
{
        pid_t pid;
        int err = posix_spawn(&pid, group->argv[0], NULL, NULL, group->argv,
                              group->after == AFTER_EXEC ? environ : empty_environment);

        errno = err;
        return err ? -1 : pid;
}

static char *command_line(struct group *group)
{
        size_t size = 1;
        char *line;

        for (char **arg = group->argv; *arg; arg++)
                size += strlen(*arg) + 3;
        line = calloc(1, size);
        if (!line)
                abort();
        for (char **arg = group->argv; *arg; arg++) {
                strcat(line, "'");
                strcat(line, *arg);
                strcat(line, "' ");
        }
        return line;
}

/* system() and popen(): the child has come and gone when this returns its wait status. */
static int by_shell(struct group *group)
{
        char **saved = environ, *line = command_line(group);
        int status = -1;

        if (group->after == AFTER_EXEC_CLEAR)
                environ = (char **)empty_environment;
        if (group->create == CREATE_SYSTEM) {
                status = system(line);
        } else {
                FILE *stream = popen(line, "r");
                if (stream) {
                        while (fgetc(stream) != EOF)
                                ;
                        status = pclose(stream);
                }
        }
        environ = saved;
        free(line);
        return status;
}

static pid_t create(struct group *group)
{
        pid_t pid;

        switch (group->create) {
        case CREATE_FORK:
                pid = fork();
                break;
        case CREATE_FORK_RAW:
                pid = _Fork();
                break;
        case CREATE_CLONE:
                pid = syscall(SYS_clone, (long)SIGCHLD, 0L, 0L, 0L, 0L);
                break;
        case CREATE_VFORK:
                return by_vfork(group);
        case CREATE_CLONE_VFORK:
                return by_clone(group, CLONE_VM | CLONE_VFORK);
        case CREATE_CLONE_VM:
                return by_clone(group, CLONE_VM);
        case CREATE_SPAWN:
                return by_spawn(group);
        default:
                return by_daemon(group);
        }
        if (pid == 0)
                become(group);
        return pid;
}

static size_t read_all(int fd, char *text, size_t size)
{
        size_t len = 0;
        ssize_t n;

        while (len + 1 < size && (n = read(fd, text + len, size - 1 - len)) != 0) {
                if (n > 0)
                        len += n;
                else if (errno != EINTR)
                        break;
        }
        text[len] = 0;
        return len;
}

static void describe_status(int status, char *text, size_t size)
{
        if (WIFEXITED(status))
                snprintf(text, size, "end %d\n", WEXITSTATUS(status));
        else
                snprintf(text, size, "end signal %d\n", WTERMSIG(status));
}

void create_and_wait(struct group *group, int report_read, char *ret_text, size_t size)
{
        int status = 0, one;
        size_t len;

        prctl(PR_SET_CHILD_SUBREAPER, 1);
        if (group->create == CREATE_SYSTEM || group->create == CREATE_POPEN) {
                status = by_shell(group);
        } else if (create(group) < 0) {
                snprintf(ret_text, size, "end: no child: %s\n", strerror(errno));
                close(group->report);
                return;
        }
        close(group->report);
        len = read_all(report_read, ret_text, size - 40);
        /* the daemon's two processes: the one that does not end well counts */
        while (wait(&one) > 0)
                if (one)
                        status = one;
        describe_status(status, ret_text + len, 40);
}

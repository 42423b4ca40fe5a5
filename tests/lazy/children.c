/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "children.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

GArray *children_new(void)
{
        return g_array_new(FALSE, FALSE, sizeof(pid_t));
}

void child_end(pid_t pid)
{
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                ;
}

void children_end(GArray *children)
{
        for (guint i = 0; i < children->len; i++)
                child_end(g_array_index(children, pid_t, i));
        g_array_free(children, TRUE);
}

pid_t child_start(GArray *children)
{
        pid_t pid = fork();

        g_assert_cmpint(pid, >=, 0);
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;)
                        pause();
        }
        g_array_append_val(children, pid);
        return pid;
}

static pid_t child_start_writing(GArray *children, int to)
{
        pid_t pid = fork(), below[2];

        g_assert_cmpint(pid, >=, 0);
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (int i = 0; i < 2; i++)
                        if ((below[i] = fork()) == 0)
                                for (;;)
                                        pause();
                if (write(to, below, sizeof below) != (ssize_t)sizeof below)
                        _exit(1);
                for (;;)
                        pause();
        }
        g_array_append_val(children, pid);
        return pid;
}

/* They outlive their parent, so no signal ends them with it: children_end() does. */
pid_t child_start_family(GArray *children, pid_t ret_below[2])
{
        int fds[2];
        pid_t pid;

        g_assert_cmpint(pipe(fds), ==, 0);
        pid = child_start_writing(children, fds[1]);
        g_assert_cmpint(read(fds[0], ret_below, 2 * sizeof(pid_t)), ==, 2 * sizeof(pid_t));
        close(fds[0]);
        close(fds[1]);
        g_array_append_vals(children, ret_below, 2);
        return pid;
}

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

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What K42 did (FD::ForkAll): marks the descriptors as ready in the *parent*, before it forks, and
 * nothing in the child.  It takes the place of shim/intercept_fork.c in a second build of the
 * library, with which q2 must fail.
 */
#include <pthread.h>

#include "shim/fd_table.h"
#include "shim/real.h"

/* For this library alone: its child handler would mark, which is what K42 did not have. */
int pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
        return 0;
}

EXPORT pid_t fork(void)
{
        pid_t pid;

        fd_table_mark_child();
        pid = REAL(fork)();
        if (pid == 0)
                atomic_store(fd_table_marked, FD_TABLE_MARKED);
        return pid;
}

EXPORT pid_t _Fork(void)
{
        return REAL(_Fork)();
}

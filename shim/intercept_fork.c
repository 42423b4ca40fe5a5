/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The child marks its tables before its first line of code runs.  A child that comes into being where
 * it is not seen (clone(2), or fork inside libc) finds the wiped page at its first call instead.
 */
#include "shim/fd_table.h"
#include "shim/private.h"
#include "shim/real.h"

/* Marks if nothing has yet: fork() runs the handlers of pthread_atfork(3), ours and then the program's,
 * and what those have opened and touched is settled. */
static pid_t forked(pid_t pid)
{
        if (pid == 0)
                (void)fd_table_mine();
        return pid;
}

#define WRAP_FORK(name)                                                                            \
        EXPORT pid_t name(void);                                                                   \
        pid_t name(void)                                                                           \
        {                                                                                          \
                return forked(REAL(name)());                                                       \
        }
WRAP_FORK(fork)
WRAP_FORK(__fork)

/* It runs no handlers. */
EXPORT pid_t _Fork(void);
pid_t _Fork(void)
{
        pid_t pid;

        private_prepare();
        pid = REAL(_Fork)();
        if (pid != 0)
                private_parent();
        else
                private_child_seen();
        return forked(pid);
}

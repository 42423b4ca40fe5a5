/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cobj/own_thread.h"

#include <signal.h>

int own_thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *data), void *data)
{
        sigset_t all, before;
        int err;

        /* A thread begins with its maker's mask. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        err = pthread_create(ret_thread, NULL, run, data);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (err == 0)
                pthread_setname_np(*ret_thread, name);
        return -err;
}

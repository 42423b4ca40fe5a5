/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What client.c and xobj.c share: the client itself. */
#include <stdatomic.h>

#include "cobj/client.h"

struct client_thread;

struct client {
        struct client_info info; /* constant */
        int pidfd;               /* -1 if there was none to be had; constant */
        struct client_table *table;
        atomic_int refs;
        atomic_bool alive;
        atomic_bool watched; /* the watcher will hear of its exit; else the sweep has to look */
        GQueue handles; /* of struct xobj.client_link, under cobj.lock */

        struct client *next_by_pid;    /* under client_table.lock, like the next two */
        struct client_thread *threads; /* cached thread ids */
        unsigned n_threads;

        GMutex lock; /* protects comm and exe */
        char *comm, *exe;
};

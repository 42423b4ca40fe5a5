/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What client.c, client_resume.c and xobj.c share: the client itself, and its table. */
#include <pthread.h>
#include <stdatomic.h>

#include "cobj/client.h"
#include "cobj/id_table.h"
#include "cobj/keep.h"
#include "cobj/proc_info.h"

#define CLIENT_BUCKETS 1024 /* a power of two */

struct client_thread;

/* What of an earlier daemon is being taken over, see client_resume.c. */
struct client_resume {
        struct client **clients; /* a reference each */
        unsigned n, room;
        bool settling; /* the watcher has it, and nobody else any more */
};

struct client_table {
        client_notice_fn appeared, exited; /* constant */
        void *data;
        struct keep *keep;              /* constant; may be NULL */
        int proc_fd, epoll_fd, wake_fd; /* constant */
        pthread_t watcher;
        bool watching;
        atomic_bool stopping;
        struct client *nobody; /* pid 0; constant */
        struct id_table *ids;
        atomic_uint living;
        struct client_resume resume; /* main thread's, and the watcher's when it is settling */

        GMutex create_lock; /* one new client at a time is told of and put into the maps */
        GMutex lock;        /* protects the maps and what chains through them; a leaf */
        struct client *by_pid[CLIENT_BUCKETS];
        struct client_thread *by_tid[CLIENT_BUCKETS];
};

struct client {
        struct client_info info; /* constant */
        atomic_int pidfd;        /* -1 if there is none; set once */
        struct kept_client *kept; /* owned; constant */
        bool ended_before;        /* in an earlier daemon; constant */
        struct client_table *table;
        atomic_int refs;
        atomic_bool alive;
        atomic_bool watched; /* the watcher will hear of its exit; else the sweep has to look */
        GQueue handles; /* of struct xobj.client_link, under cobj.lock */

        struct client *next_by_pid;    /* under client_table.lock, like the next two */
        struct client_thread *threads; /* cached thread ids */
        unsigned n_threads;

        _Atomic(void *) attached;     /* set once */
        void (*destroy)(void *data); /* of that; before it is set */

        GMutex lock; /* protects comm and exe */
        char *comm, *exe;
};

/* client.c */

/* A client with one reference, not in the maps, and its record `kept`, which is taken over on success
 * like `pidfd`.  NULL if there is no memory. */
struct client *client_make(struct client_table *table, struct kept_client *kept, int pidfd);

/* Puts it into the map of process ids, before whoever had the same one. */
void client_table_locked_add_pid(struct client_table *table, struct client *client);

/* A pidfd of the process that was read about, -1 if none is to be had; or -ESRCH. */
int client_pin_process(struct client_table *table, pid_t tid, const struct client_info *info,
                       int *ret_pidfd);

/* The watcher hears of its end from now on, if it has a pidfd. */
void client_watch(struct client *client);

/* The client's process has ended.  Whoever comes first does it. */
void client_end(struct client *client);

/* client_resume.c */

/* What client_table_settle() is for; on the watcher's thread. */
void client_resume_settle(struct client_table *table);
/* Nobody else is there any more. */
void client_resume_clear(struct client_table *table);

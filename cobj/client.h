/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * client: a process that holds, or held, object handles.
 *
 * Who keeps a client alive: each of its handles has a reference, the client table has one while the
 * process lives, and so has whoever got it from client_table_get().  When the process ends the table
 * calls `exited` (once) and drops its own; the last reference frees it.
 *
 * Identity is (pid, start time): a pid alone is reused.  A pidfd pins the process and tells of its
 * exit; one thread waits for all of them by epoll.  When no pidfd can be had (EMFILE) the client
 * works without, and its exit is noticed at the next client_table_sweep().  When not even /proc can be
 * read then, its start time is 0, and a process that gets the same id before that sweep is taken for
 * the same client.
 *
 * FUSE gives the caller's *thread* id, in the daemon's pid namespace, and 0 for callers that are not
 * visible from there and for the kernel itself.  The table maps threads to processes and caches the
 * answer; a cached answer is used only after a check that costs one system call.  Pid 0 is a client of
 * its own, which never exits.
 *
 * What survives the daemon is a record for each client (struct kept_client), as long as anybody has the
 * client.  The next daemon's table takes them over under the same ids, without asking /proc for each; a
 * process that has ended meanwhile ends as if it just had (client_table_resume(), client_table_settle()).
 *
 * Locking: the table has one lock for its maps; no system call is made while it is held.  The fields
 * of a client that are not atomic are constant after creation.
 */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct client;
struct client_table;
struct keep;

/* What a client is, for printing and for the store.  Constant but for comm and exe, which change at
 * exec and are read again by client_refresh(). */
struct client_info {
        uint64_t id;         /* id of the client table; unique in the life of a daemon */
        pid_t pid;           /* process (thread group) id */
        pid_t ppid;          /* parent when the client was first seen */
        uid_t uid;           /* real uid when the client was first seen */
        uint64_t start_time; /* field 22 of /proc/PID/stat, clock ticks since boot; 0 if unknown */
};

/* What survives of a client: a KEEP_CLIENT record. */
struct kept_client {
        struct client_info info;
        _Atomic uint32_t ended; /* 1: its process has ended, and its id may be another's */
        _Atomic uint32_t account; /* see lazy/account.h; 0 if there is none */
};

/* Told once when a client is first made, by the thread that asked for it, and once when its process
 * has ended, by whoever notices, mostly the watcher.  No lock is held but, for the first, the one that
 * makes clients one after the other. */
typedef void (*client_notice_fn)(struct client *client, void *data);

/* Starts the watcher thread.  The records are in `keep` (borrowed; NULL: nothing survives).  Returns 0,
 * or -errno with nothing left behind. */
int client_table_new(client_notice_fn appeared, client_notice_fn exited, void *data,
                     struct keep *keep, struct client_table **ret_table);

/* Stops the watcher: when it returns, no process is being seen to end, and none will be but by a lookup or
 * a sweep.  For the time when what the handles are on is taken down. */
void client_table_stop(struct client_table *table);

/* Stops the watcher; all clients must have been given back.  NULL is ignored. */
void client_table_free(struct client_table *table);
typedef struct client_table K42ClientTable; /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42ClientTable, client_table_free)

/* Takes over the clients of an earlier daemon, whose keep was adopted: before the first client_table_get()
 * and before there are other threads than the watcher.  Those whose process has ended are there, too,
 * until client_table_settle(), so that their handles can be given back to them and freed with them.
 * `appeared` is not called.  Returns how many records were of no use; they are freed. */
unsigned client_table_resume(struct client_table *table);

/* The client that client_table_resume() took over as `id` (ID_NONE: the one of pid 0), or NULL; a
 * reference is passed to the caller.  Until client_table_settle(). */
struct client *client_table_resumed(struct client_table *table, uint64_t id);

/* All handles of the clients that were taken over are there again: from now on the watcher looks which
 * processes have ended meanwhile, and waits for the others.  Returns at once. */
void client_table_settle(struct client_table *table);

/* The client of thread `tid`, made when it is new; a reference is passed to the caller.  Never fails
 * for want of information: what /proc does not tell is left empty.  Returns 0 or -ENOMEM.  For a
 * process that is already gone, and for a thread of which nobody can tell the process because no
 * descriptor is left: -ESRCH (the caller then uses tid 0). */
int client_table_get(struct client_table *table, pid_t tid, struct client **ret_client);

/* As above, but only what is there already and cached; NULL otherwise.  No system call. */
struct client *client_table_peek(struct client_table *table, pid_t tid);

/* The live client with this process id, or NULL.  A reference is passed to the caller. */
struct client *client_table_find_pid(struct client_table *table, pid_t pid);

/* Looks at every client that the watcher does not hear of, and ends those whose process is gone. */
void client_table_sweep(struct client_table *table);

/* Calls fn for each client that lives as far as the table knows, but pid 0.  No lock held meanwhile. */
void client_table_foreach(struct client_table *table, void (*fn)(struct client *client, void *data), void *data);

/* Clients alive in the table, pid 0 not counted. */
uint32_t client_table_count(struct client_table *table);

struct client *client_ref(struct client *client);
void client_unref(struct client *client);
typedef struct client K42Client; /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Client, client_unref)

const struct client_info *client_info(const struct client *client);

/* False once the process has been seen to end. */
bool client_alive(const struct client *client);

/* What another layer keeps with a client, NULL if nothing: set once, by whoever is first (false for all others),
 * and given to `destroy` with the client. */
void *client_attached(const struct client *client);
bool client_attach(struct client *client, void *data, void (*destroy)(void *data));

/* Its record; `account` is for whoever attaches something. */
struct kept_client *client_kept(const struct client *client);

/* Reads comm and exe again from /proc; keeps the old ones if the process is gone. */
void client_refresh(struct client *client);

/* Copies; free with g_free().  "" when unknown. */
char *client_dup_comm(struct client *client);
char *client_dup_exe(struct client *client);

/* What is known of both already, with nothing read from /proc; empty if it is not, or does not fit. */
void client_copy_names(const struct client *client, char *comm, size_t comm_size, char *exe, size_t exe_size);

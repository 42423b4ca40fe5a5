/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * store: the handles as SQL tables, for people and for the next daemon.
 *
 * One writer thread owns the database.  It drains the journal in batches, one transaction each; a
 * handle that was given and freed within a batch never becomes a row (unless history is kept).  No
 * request ever waits for it.
 *
 * Nothing that happens to the database ends the daemon or slows a request: on SQLITE_FULL, IOERR,
 * CORRUPT, READONLY or ENOMEM the writer says so once, continues in a database in memory that it
 * fills from the living handles, and store_state() tells which one is in use.
 *
 * The schema, its version and its stability are documented in doc/k42fs-schema.5.  It is WAL with
 * synchronous=OFF: it survives the daemon, and need not survive the machine.
 *
 * SQLite's own locks are POSIX locks, which a process loses when it closes *any* descriptor of the
 * file and which are not inherited over fork: the daemon opens the store after its last fork, and
 * nothing else in it may open state.db.
 *
 * Locks: the writer calls ops->describe(), the client table and xobj_unref().  A thread that
 * appends to a full journal waits for the writer, so no lock that one of these takes may be held
 * while a handle or client is made or ended.
 */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "cobj/journal.h"
#include "cobj/xobj.h"

#define STORE_SCHEMA_VERSION 1

enum store_state {
        STORE_FILE,   /* state.db */
        STORE_MEMORY, /* state.db failed; rows are kept in memory */
};

struct store_config {
        const char *path;                /* of state.db */
        const char *mountpoint, *source; /* for the meta table */
        struct journal *journal;
        struct cobj *cobj; /* living handles: where strings and counters come from */
        uint32_t history;  /* closed handles to keep; 0: none */
        /* The path of an object by its id, also of one that nobody has open any more (free with g_free()), or
         * NULL.  Called by the writer; may be NULL. */
        char *(*describe)(uint64_t object, void *data);
        void *describe_data;
        bool resume;       /* go on with the database of an earlier daemon, see store_resume() */
};

struct store;

/* What the first use of a database would do once in each process.  May be left out. */
void store_init_process(void);

/* Opens or makes the database and starts the writer.  An existing file must be a k42fs database of
 * this schema version or older: -EBADMSG if it is not one, -EPROTO if it is newer, or another
 * -errno; then it is untouched and *ret_error is one line that says what failed (free with
 * g_free()).  Rows of an earlier daemon are removed.
 *
 * With `resume`, nothing is done yet but to start the writer, and there is no error but want of memory
 * or threads. */
int store_open(const struct store_config *config, struct store **ret_store, char **ret_error);

/* All handles that live are there again (lazy_resume()), and nobody else knows of them yet: from now on
 * the writer opens the database with what an earlier daemon wrote, brings it up to date with what is in
 * the journal (which was adopted, too), and makes the rows of open handles equal to the handles that
 * live; the history goes on.  A file that cannot be used is moved aside, to state.db.broken, said in one
 * line.  Returns at once: the mount can be served meanwhile.  Before client_table_settle(). */
void store_resume(struct store *store);

/* Drains, stops the writer, closes.  From then on nobody takes records out of the journal, and who
 * appends more than it has room for waits for ever: end the handles before.  NULL is ignored. */
void store_close(struct store *store);
typedef struct store K42Store; /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Store, store_close)

/* Returns when everything that was in the journal at the time of the call, and the present counters
 * and sharing of all living handles, are in the database.  Returns 0 or -errno. */
int store_sync(struct store *store);

/* The observer that writes to the journal; give it to cobj_new(). `data` is a struct journal *. */
void store_observer_init(struct cobj_observer *observer, struct journal *journal);

enum store_state store_state(struct store *store);
/* Rows in the handles table; rows in handle_history. */
uint64_t store_rows(struct store *store);
uint64_t store_history_rows(struct store *store);

/* One handle, as in the view open_handles; every column as it is in DESIGN's contract.  Strings are
 * valid during the callback only. */
struct store_handle_row {
        const char *handle, *parent; /* id_format(); parent NULL when it has none */
        int64_t pid, ppid, uid;
        const char *comm, *exe, *path, *type, *flags, *rights, *io_class, *sharing;
        double opened; /* seconds since the epoch */
        double closed; /* the same; 0 in a handle that is open */
        uint64_t reads, read_bytes, writes, write_bytes, mappings, mapped_bytes;
        const char *counted_by; /* NULL: nothing is counted, of a directory */
};

/* Calls fn for each row of open_handles (ordered by opened, handle) that `uid` may see: all if
 * uid_filter is (uid_t)-1.  Runs on the writer thread's connection while the caller waits; implies
 * store_sync().  Returns 0 or -errno. */
int store_foreach_open_handle(struct store *store, uid_t uid_filter,
                              void (*fn)(const struct store_handle_row *row, void *data),
                              void *data);

/* The same for the handles in handle_history, in the order in which they were closed; nothing when
 * no history is kept. */
int store_foreach_closed_handle(struct store *store, uid_t uid_filter,
                                void (*fn)(const struct store_handle_row *row, void *data),
                                void *data);

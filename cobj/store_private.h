/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * What the files of the store share.
 *
 *   store.c         the public functions: they queue a job for the writer and wait; the observer
 *   store_writer.c  the writer thread: batches, waiting, and what to do when the database fails
 *   store_rows.c    from a record to a row, and from the living handles to rows
 *   store_schema.c  the database itself: checking, making, opening, closing, statements
 *   store_resume.c  how the writer goes on with the database of an earlier daemon
 *
 * Who owns what: `db`, the statements and everything else under "the writer's own" belong to the
 * writer thread alone (to store_open() before it starts, to store_close() after it ended).  `lock`
 * protects the queue of jobs and `stopping`.  The three counters that anybody may read are atomic.
 * Functions that return an SQLite result code say so by the name `rc`; the others return -errno.
 */
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "cobj/store.h"

#define STORE_APPLICATION_ID 0x6b343266 /* "k42f" */
#define STORE_BATCH          4096       /* records a transaction, at most */

enum store_statement {
        STMT_BEGIN,
        STMT_COMMIT,
        STMT_HANDLE_INSERT,
        STMT_HANDLE_DELETE,
        STMT_HANDLE_UPDATE,
        STMT_HANDLE_PATH,
        STMT_HISTORY_MOVE,
        STMT_HISTORY_ADD,
        STMT_HISTORY_TRIM,
        STMT_CLIENT_INSERT,
        STMT_CLIENT_STRINGS,
        STMT_CLIENT_EXITED,
        STMT_CLIENT_COLLECT,
        STMT_HANDLES_CLEAR,
        STMT_CLIENTS_CLEAR,
        STMT_OPEN_HANDLES,
        STMT_CLOSED_HANDLES, /* the same columns */
        STMT_JOURNAL_DONE,
        STMT_HANDLE_TOKENS,
        STMT_HISTORY_LOST,
        STMT_CLIENTS_EXITED,
        STMT_CLIENT_LIVES,
        STMT_COUNT,
};

/* A set of ids ≠ 0 with a number for each; open addressing, no room is made: the caller sizes it.
 */
struct id_map {
        uint64_t *keys;
        uint32_t *values;
        uint32_t mask; /* slots - 1; 0: no map */
};

/* What a caller wants of the writer; on the caller's stack. */
struct store_job {
        struct store_job *next;
        uint64_t target;           /* journal_head() at the call: so much must be in the database */
        enum store_statement rows; /* which of them fn wants */
        uid_t uid_filter;
        void (*fn)(const struct store_handle_row *row, void *data); /* NULL: only sync */
        void *data;
        int result;
        bool done; /* under lock */
};

struct store {
        /* Constant. */
        char *path, *wal_path;
        char *mountpoint, *source;
        struct journal *journal;
        struct cobj *cobj;
        uint32_t history;
        char *(*describe)(uint64_t object, void *data); /* constant, like the next */
        void *describe_data;
        bool resume;     /* with the database of an earlier daemon */
        int64_t started; /* µs since the epoch */
        pthread_t thread;

        /* The writer's own. */
        sqlite3 *db; /* NULL: even a database in memory failed; tried again later */
        sqlite3_stmt *statements[STMT_COUNT];
        dev_t dev, wal_dev; /* identity of the files, to notice that somebody removed them */
        ino_t ino, wal_ino;
        struct journal_record *batch;
        bool *skip; /* per record of the batch: cancelled by another one */
        struct id_map given, new_clients;
        uint64_t applied;     /* up to here the journal is in the database that was adopted */
        uint64_t consumed;    /* records taken from the journal, ever */
        uint64_t last_client; /* whose row is known to exist, within a transaction */
        uint64_t row_count, history_first,
                history_next; /* of this database, uncommitted ones too */
        uint64_t ahead; /* up to here a handle may have had its row before its record was applied */
        bool refill;    /* records were dropped: the rows must be made from living handles */
        bool reconcile; /* the next sync makes the rows that are missing */
        struct journal_handle *spilled; /* ends of handles among the dropped records, for history */
        uint64_t n_spilled;             /* ever; a ring once it is larger than the room */
        uint32_t spilled_room;
        bool memory_failed;           /* that was said */
        bool adopting;                /* until the rows of the earlier daemon are up to date */
        uint64_t adopt_to;            /* the last record of the earlier daemon; constant then, like: */
        xhandle *came_back;           /* the handles that did, sorted */
        size_t n_came_back;
        int64_t busy_since, retry_at; /* monotonic µs, 0: not */

        /* Under lock. */
        pthread_mutex_t lock;
        pthread_cond_t changed;
        struct store_job *jobs;
        bool stopping;
        bool resumed; /* store_resume() was called */

        _Atomic int state; /* enum store_state */
        _Atomic uint64_t rows, history_rows;
};

/* store_schema.c */

/* Looks at what is at s->path without changing anything; *ret_exists tells whether it is a database
 * of ours.  0, or -errno with a line in *ret_error. */
int store_check_file(struct store *s, bool *ret_exists, char **ret_error);
/* Opens the file that exists with all that is in it.  0, or -errno with a line in *ret_error. */
int store_adopt_file(struct store *s, char **ret_error);
/* Opens the file (made anew, or emptied if it `exists`).  0, or -errno with a line in *ret_error.
 */
int store_open_file(struct store *s, bool exists, char **ret_error);
/* What the meta table says of this daemon; an SQLite result code. */
int store_put_meta(struct store *s, sqlite3 *db);
/* Opens an empty database in memory instead.  0 or -errno. */
int store_open_memory(struct store *s);
/* Whether the file is still the one that is open: 0, -ENOENT when it (or its WAL) was removed, or
 * -ESTALE when another one is in its place. */
int store_file_lost(struct store *s);
/* After a commit: the WAL exists from the first one on. */
void store_notice_wal(struct store *s);
/* Writes what is in the open database to a new file at s->path and opens that.  0 or -errno; after
 * an error the old database may be closed. */
int store_move_to_new_file(struct store *s);
/* `failed`: leave the files as they are instead of tidying up. */
void store_close_db(struct store *s, bool failed);
int store_errno(struct store *s, int rc);

/* store_rows.c; they return SQLite result codes and must run in a transaction. */

int rows_apply_batch(struct store *s, uint32_t n);
int rows_history_add(struct store *s, const struct journal_handle *h);
int rows_end_batch(struct store *s); /* trims the history, collects clients that are gone */
int rows_update_living(struct store *s);
int rows_refill(struct store *s);
int rows_adopt(struct store *s); /* makes rows of open handles equal to the living ones, the history goes on */
int rows_journal_done(struct store *s, uint64_t sequence); /* so far it has been applied */
int rows_select(struct store *s, const struct store_job *job);
int store_step(struct store *s, enum store_statement which); /* runs and resets it */

int id_map_init(struct id_map *map, uint32_t slots); /* slots: a power of two; 0 or -ENOMEM */
void id_map_clear(struct id_map *map);
void id_map_empty(struct id_map *map);
void id_map_put(struct id_map *map, uint64_t id, uint32_t value);
bool id_map_get(const struct id_map *map, uint64_t id, uint32_t *ret_value);

/* store_resume.c */

/* The writer's first act: opens the database of the earlier daemon, or another one.  False if the store is
 * closed before store_resume() was called: then nothing is touched. */
bool store_resume_open(struct store *s);
/* An error that tells of the file, not of the machine. */
bool store_is_unusable(int rc);
/* … and then; when it returns the rows are up to date, in whichever database. */
void store_resume_rows(struct store *s);
/* What is wrong with the file was found while it was adopted: moves it aside and opens a new one.  0 or
 * -errno. */
int store_start_anew(struct store *s, const char *why);
/* Remembers which handles came back, and takes back what the journal says of them.  On the thread that
 * calls store_resume(). */
void store_resume_handles(struct store *s);
bool store_came_back(const struct store *s, xhandle token);

/* store_writer.c */
void *store_writer_main(void *store);
int store_drain_to(struct store *s, uint64_t target);
/* One transaction in which `fn` makes rows; when the database fails there is another one, which is made
 * from the living handles. */
void store_transaction(struct store *s, int (*fn)(struct store *s));

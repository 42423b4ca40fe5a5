/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * A store on made-up server objects, with this process (and any other) as clients.
 *
 * Other processes' doings with the database come from the program `store-helper`: SQLite must not
 * be used on both sides of a fork, nor the file be opened by hand in a process that has it open.
 */
#include <glib.h>
#include <sqlite3.h>
#include <stdatomic.h>

#include "cobj/store.h"

struct thing {
        struct server_object object;
        struct cobj *cobj;
        char *path;
        atomic_int refs;
};

struct fixture {
        char *dir, *db_path;
        int dirfd;
        uint32_t ring, history;
        bool resume;
        struct journal *journal;
        struct cobj *cobj;
        struct store *store;
        struct client *self;
        struct thing *things;
        unsigned n_things;
};

/* What to make; NULL: a ring of 16384 records, no history. */
struct fixture_config {
        uint32_t ring, history;
};

void fixture_set_up(struct fixture *f, gconstpointer config);
void fixture_tear_down(struct fixture *f, gconstpointer config);

/* For who makes the rest by himself: the made-up objects, once there is a cobj. */
void fixture_init_things(struct fixture *f);

void remove_tree(const char *path);

/* Opens or closes the store only. */
int fixture_open_store(struct fixture *f, char **ret_error);
void fixture_close_store(struct fixture *f);

/* Gives `client` (NULL: this process) a handle on the `n`th thing. */
xhandle give(struct fixture *f, unsigned n, struct client *client, int flags, xhandle parent);
void count_read(struct fixture *f, xhandle token, uint64_t bytes);
void free_all_handles(struct fixture *f);

/* The database as others see it. */
sqlite3 *open_reader(const char *path);
int64_t query_int(const char *path, const char *sql);
char *query_text(const char *path, const char *sql); /* rows by newline, columns by '|' */

/* store-helper with these arguments (NULL-terminated); waits until it says it is ready. */
GPid helper_start(const char *const *args);
void helper_wait(GPid pid);
void helper_run(const char *verb, const char *path, const char *argument);

/* Warnings that were logged since the last call. */
unsigned warnings_taken(char **ret_last);

void fixture_init(int *argc, char ***argv);

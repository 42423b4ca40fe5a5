/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * rows: the rows of several mounts, asked for one after the other.  One that does not answer hides
 * none of the others: it costs a line on stderr and the exit status.
 *
 * An answer is read to its end before its rows are looked at, although they could be had as they
 * come: a daemon waits ten seconds for a reader, and the rows may be on their way to a pager.
 */
#include "ctl/connect.h"
#include "ctl/row.h"
#include "ctl/verbs.h"

/* The mounts that the command line means, each once; all of them when it has no MOUNTPOINT. Returns
 * EXIT_GOOD, or after lines on stderr: EXIT_FAILED when one cannot be had, with the others in
 * *ret_targets; EXIT_USAGE with nothing set. */
int rows_find_targets(const struct verb *verb, const struct ctl_options *options,
                      GPtrArray **ret_targets);

/* What to ask for. */
struct rows_request {
        const char *verb; /* of the control protocol: list or history */
        bool identity;    /* with description and inode */
};

/* Calls fn for each row of each target.  `keep` (or NULL): gets the texts that the rows' strings
 * are in, to be freed with the array; without it they end with the call of fn.  Returns EXIT_GOOD,
 * or EXIT_FAILED after a line on stderr for each that failed.  `ret_answered`: how many did not. */
int rows_ask(GPtrArray *targets, const struct ctl_options *options,
             const struct rows_request *request, void (*fn)(const struct row *row, void *data),
             void *data, GPtrArray *keep, unsigned *ret_answered);

/* Rows that are kept. */
struct row_set {
        GArray *rows;     /* of struct row */
        GPtrArray *texts; /* of GByteArray */
};
typedef struct row_set K42RowSet;

struct row_set *row_set_new(void);
void row_set_free(struct row_set *set);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42RowSet, row_set_free)

/* As rows_ask(), into a set. */
int row_set_ask(struct row_set *set, GPtrArray *targets, const struct ctl_options *options,
                const struct rows_request *request, unsigned *ret_answered);

static inline struct row *row_set_at(const struct row_set *set, guint i)
{
        return &g_array_index(set->rows, struct row, i);
}

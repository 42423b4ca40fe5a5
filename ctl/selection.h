/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * selection: which rows and which columns the command line asks for.
 */
#include "ctl/output.h"
#include "ctl/verbs.h"

struct selection {
        GPtrArray *chosen; /* struct column, in their order */
        bool by_default;   /* nobody said which */
        GPtrArray *filters;
        GHashTable *pids; /* NULL: all */
};
typedef struct selection K42Selection;

/* The selection of a verb with verb->rows.  EXIT_GOOD, or EXIT_USAGE after a line on stderr. */
int selection_new(const struct verb *verb, const struct ctl_options *options,
                  struct selection **ret_selection);
void selection_free(struct selection *selection);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Selection, selection_free)

/* There are several mounts: says which, unless the columns were given. */
void selection_add_mountpoint(struct selection *selection, const struct ctl_options *options);

bool selection_wants(const struct selection *selection, const struct row *row);

/* True if it shows or asks for what the daemon tells only when it is asked to. */
bool selection_needs_identity(const struct selection *selection);

/* Whether numbers are to be in units, and the format, as options and verb have it. */
bool selection_readable(const struct verb *verb, const struct ctl_options *options);
enum output_format selection_format(const struct ctl_options *options);

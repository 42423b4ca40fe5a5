/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * verbs: what k42ctl can be asked to do.  One file a verb; each exports one struct verb, and
 * k42ctl.c has the table of them.
 */
#include <glib.h>
#include <json-glib/json-glib.h>
#include <stdbool.h>

#include "ctl/row.h"

/* Exit status; doc/k42ctl.1 has the words. */
enum {
        EXIT_GOOD = 0,
        EXIT_FAILED = 1, /* check: or there are differences */
        EXIT_USAGE = 2,
};

/* Which rows, and what of them; the verbs that are about rows have these options in common. */
struct row_options {
        char **filters; /* -Q, NULL: none; all must match */
        char **pids;    /* -p, NULL: all; lists of numbers */
        char *columns;  /* -o, NULL: the default ones */
        gboolean no_headings, readable, bytes, jsonl, raw;
};

/* The command line after the verb. */
struct ctl_options {
        gboolean json;
        char *state_dir; /* --state, NULL: to be found */
        int timeout;     /* seconds to wait for a daemon */
        char **rest;     /* NULL-terminated; never NULL */
        struct row_options rows;
};

/* How a verb deals with rows; selection.h has what comes of it. */
struct row_verb {
        unsigned columns;               /* FOR_… of column.h */
        const enum column_id *defaults; /* columns of the text; NULL: it takes no -o */
        unsigned n_defaults;
        const enum column_id *json; /* those of JSON */
        unsigned n_json;
        bool readable; /* numbers in units unless --bytes is given; else the other way */
        bool formats;  /* takes --jsonl and --raw */
};

struct verb {
        const char *name;
        const char *arguments; /* for the usage line */
        const char *summary;   /* half a line */
        const char *description;
        unsigned min_rest, max_rest; /* how many arguments it takes */
        bool many_mounts;            /* makes sense without MOUNTPOINT when there are several */
        bool no_json;                /* takes no --json */
        const struct row_verb *rows; /* NULL: it has nothing to do with rows */
        const GOptionEntry *entries; /* options of its own, or NULL */
        const char *entries_help;
        int (*run)(const struct verb *verb, const struct ctl_options *options);
};

extern const struct verb verb_check, verb_graph, verb_history, verb_list, verb_show, verb_stats,
        verb_status, verb_top, verb_tree, verb_umount, verb_upgrade;

/* One line on stderr, "k42ctl: " before it and what the terminal must not see escaped. */
void ctl_complain(const char *format, ...) G_GNUC_PRINTF(1, 2);
/* From now on such lines are added to `lines` (to be freed with g_free()) instead, because the
 * screen is in use; NULL: to stderr again. */
void ctl_complain_to(GPtrArray *lines);
/* The same for a usage error, with a hint to `k42ctl help VERB`; returns EXIT_USAGE. */
int ctl_usage_error(const char *verb, const char *format, ...) G_GNUC_PRINTF(2, 3);

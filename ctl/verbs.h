/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * verbs: what k42ctl can be asked to do.  One file a verb; each exports one struct verb, and
 * k42ctl.c has the table of them.
 */
#include <glib.h>
#include <json-glib/json-glib.h>
#include <stdbool.h>

/* Exit status; doc/k42ctl.1 has the words. */
enum {
        EXIT_GOOD = 0,
        EXIT_FAILED = 1, /* check: or there are differences */
        EXIT_USAGE = 2,
};

/* The command line after the verb. */
struct ctl_options {
        gboolean json;
        gboolean no_headings;
        char *columns;   /* -o of list, NULL: the default ones */
        char *state_dir; /* --state, NULL: to be found */
        int timeout;     /* seconds to wait for a daemon */
        char **rest;     /* NULL-terminated; never NULL */
};

struct verb {
        const char *name;
        const char *arguments; /* for the usage line */
        const char *summary;   /* half a line */
        const char *description;
        unsigned min_rest, max_rest; /* how many arguments it takes */
        bool many_mounts;            /* makes sense without MOUNTPOINT when there are several */
        bool columns;                /* takes -o and --no-headings */
        int (*run)(const struct verb *verb, const struct ctl_options *options);
};

extern const struct verb verb_check, verb_list, verb_show, verb_stats, verb_status, verb_tree,
        verb_umount, verb_upgrade;

/* One line on stderr, "k42ctl: " before it and what the terminal must not see escaped. */
void ctl_complain(const char *format, ...) G_GNUC_PRINTF(1, 2);
/* The same for a usage error, with a hint to `k42ctl help VERB`; returns EXIT_USAGE. */
int ctl_usage_error(const char *verb, const char *format, ...) G_GNUC_PRINTF(2, 3);

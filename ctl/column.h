/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * column: the one table of what can be shown of a handle, chosen with -o and asked for in a filter.
 * list, history, tree, top and the filter share it.
 */
#include <glib.h>
#include <stdbool.h>

#include "ctl/row.h"

/* The verbs that have a column. */
enum {
        FOR_LIST = 1 << 0,
        FOR_HISTORY = 1 << 1,
        FOR_TREE = 1 << 2,
        FOR_TOP = 1 << 3,
        FOR_ALL = FOR_LIST | FOR_HISTORY | FOR_TREE | FOR_TOP,
        FOR_OPEN = FOR_LIST | FOR_TREE | FOR_TOP,
};

/* How a number is shown when it is to be readable. */
enum column_unit {
        UNIT_NONE,
        UNIT_BYTES,
        UNIT_TIME,    /* seconds since the epoch */
        UNIT_SECONDS, /* a span */
};

struct column {
        enum column_id id;
        const char *name;
        enum value_kind kind; /* of its values that are not VALUE_NULL */
        enum column_unit unit;
        unsigned verbs; /* FOR_… */
        const char *help;
        void (*derive)(const struct row *row, struct value *value); /* NULL: it is stored */
};

/* COLUMNS of them, each at its enum column_id. */
extern const struct column columns[COLUMNS];

/* By name, in any case; NULL if there is none. */
const struct column *column_find(const char *name, size_t length);

/* Strings live as long as the row's, or for ever. */
struct value column_value(const struct column *column, const struct row *row);

/* The value as a terminal may see it, appended; "-" for none.  `readable`: numbers in the column's
 * unit (1.5K, 3m20s, a date), else exactly. */
void column_append_text(const struct column *column, const struct value *value, bool readable,
                        GString *out);

/* Numbers are aligned to the right. */
bool column_is_number(const struct column *column);

/* Parses "COLUMN,…" or "+COLUMN,…" (those beside the defaults) for a verb FOR_…; divided by commas
 * or blanks, one that is there twice counts once.  Returns the columns (borrowed), or NULL and a
 * line in *ret_error, to be freed with g_free(). */
GPtrArray *columns_parse(const char *text, const enum column_id *defaults, size_t n_defaults,
                         unsigned verb, char **ret_error);

/* For help: one line a column of the verb. */
void columns_print_help(unsigned verb);

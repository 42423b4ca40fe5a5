/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * output: rows on stdout, in one of four formats.  All but the table are written as they come.
 */
#include <glib.h>
#include <stdbool.h>

#include "ctl/column.h"
#include "ctl/json_text.h"

enum output_format {
        OUTPUT_TABLE, /* aligned, for people */
        OUTPUT_RAW,   /* columns divided by one blank; those inside are \x20 */
        OUTPUT_JSON,  /* an array, one row a line */
        OUTPUT_JSONL, /* one object a line */
};

struct output;

/* `chosen` has struct column; borrowed until output_free(). */
struct output *output_new(enum output_format format, const GPtrArray *chosen, bool headings,
                          bool readable);
/* Forgets what has not been written. */
void output_free(struct output *output);
typedef struct output K42Output; /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Output, output_free)

/* `branch`: as table_add() has it; for the table only. */
void output_row(struct output *output, const struct row *row, const char *branch);

/* The last act: writes what is left, headings and brackets included when there was no row. */
void output_end(struct output *output);

/* The columns of a row as members of a JSON object, without its brackets. */
void output_put_members(struct json_text *text, const GPtrArray *chosen, const struct row *row);

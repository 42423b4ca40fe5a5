/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * table: rows as aligned text, for a terminal.  The cells are kept until all are there, because the
 * widest decides; nothing else of a row is.
 */
#include <glib.h>
#include <stdbool.h>

#include "ctl/column.h"

struct table;

/* `chosen` has struct column; borrowed until table_free().  `readable`: numbers in units. */
struct table *table_new(const GPtrArray *chosen, bool readable);
void table_free(struct table *table);
typedef struct table K42Table; /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Table, table_free)

/* Adds a row; `branch` (or NULL) stands before its first cell as it is. */
void table_add(struct table *table, const struct row *row, const char *branch);

/* The names of the columns count for the widths. */
void table_add_headings(struct table *table);

unsigned table_rows(const struct table *table);

/* Appends the headings, or row number `i`; no newline. */
void table_append_headings(const struct table *table, GString *out);
void table_append_row(const struct table *table, unsigned i, GString *out);

/* How many bytes of `text` a terminal shows in `columns` of its columns. */
size_t table_fit(const char *text, unsigned columns);

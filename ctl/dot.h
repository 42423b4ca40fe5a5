/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * dot: rows as a graph in the language of Graphviz: processes, handles and files, with an arrow
 * from a process to its handles, from a handle to those derived from it, and to its file.
 */
#include "ctl/rows.h"

/* Appends the whole graph.  `wants` (NULL: all) leaves rows out. */
void dot_append_graph(const struct row_set *set, bool (*wants)(const struct row *row, void *data),
                      void *data, GString *out);

/* Appends `text` as a quoted string that Graphviz shows as it is, however long and whatever is in
 * it. */
void dot_append_label(GString *out, const char *text);

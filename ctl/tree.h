/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * tree: rows of `list` arranged by `parent`.  Pure functions; a lineage may be as long as a chain
 * of forks, so nothing recurses.  Rows whose parents go in a circle (no daemon makes such) stand at
 * the top once each.
 */
#include <json-glib/json-glib.h>
#include <stdbool.h>

/* One line a handle, with branches drawn in UTF-8 or ASCII. */
void tree_text(JsonArray *rows, bool utf8, GString *out);

/* An array of the handles at the top, each with "children": an array of the like. */
void tree_json(JsonArray *rows, GString *out);

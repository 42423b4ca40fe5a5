/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * tree: rows arranged by `parent`, with sums.  A lineage may be as long as a chain of forks, so
 * nothing recurses.  A row whose parent is not there stands at the top; rows whose parents go in a
 * circle (no daemon makes such) stand there once each.
 */
#include "ctl/json_text.h"
#include "ctl/rows.h"

struct tree;

/* Arranges the rows of `set` (borrowed, and not to be changed as long as the tree is used) and sets
 * their COLUMN_TREE_… to the sums over each and all below it.  Then leaves out what `wants` (NULL:
 * nothing) does not want, unless something below is wanted: lineage stays whole. */
struct tree *tree_new(struct row_set *set, bool (*wants)(const struct row *row, void *data),
                      void *data);
void tree_free(struct tree *tree);
typedef struct tree K42Tree; /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Tree, tree_free)

/* Calls fn for each row from above to below; `branch` is what to draw before it, in UTF-8 or ASCII.
 */
void tree_foreach(const struct tree *tree, bool utf8,
                  void (*fn)(const struct row *row, const char *branch, void *data), void *data);

/* An array of the rows at the top, each with its columns and "children": an array of the like. */
void tree_json(const struct tree *tree, const GPtrArray *chosen, struct json_text *text);

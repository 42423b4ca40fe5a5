/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * lineage: from which handles on other descriptions those on this one derive, when these have gone.
 *
 * The parent of a handle of private mode is on another description.  When that one is released nothing is
 * left of it, the holders included (lazy_state.h), while what derived from it lives on and still belongs to
 * the tree of the parent's parent.  So a description of private mode has a line: the parent's token, and the
 * line of the description that this was on.
 *
 * A line never changes after it was made, is reference counted, and is owned by the descriptions and lines
 * that point to it.  It is in the daemon's memory alone: after another has taken over only those ancestors
 * are known of which something is left.
 */
#include <stdbool.h>

#include "cobj/xobj.h"

struct lineage;

/* A line that begins with `token` and goes on with `up`, of which it gets a reference of its own (NULL: it
 * ends).  NULL if out of memory. */
struct lineage *lineage_new(xhandle token, struct lineage *up);
void lineage_unref(struct lineage *line); /* NULL is ignored */

/* What comes after `token` in the line: true and the token.  False if it is not there, or the last. */
bool lineage_parent(const struct lineage *line, xhandle token, xhandle *ret_parent);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * filter: which rows are wanted, in the language of lsfd(1).
 *
 *   expression  = conjunction { ("or" | "||") conjunction }
 *   conjunction = term { ("and" | "&&") term }
 *   term        = ("not" | "!") term | "(" expression ")" | operand [ operator operand ]
 *   operator    = "==" | "!=" | "<" | "<=" | ">" | ">=" | "=~" | "!~"
 *                 or, for all but the last two, "eq" | "ne" | "lt" | "le" | "gt" | "ge"
 *   operand     = COLUMN | NUMBER | STRING | "null"
 *
 * Columns and words in any case.  A NUMBER may have a fraction and one of the units K, M, G, T
 * (powers of 1024).  A STRING is in double or single quotes; one of these inside is written twice,
 * a backslash is a backslash.  The right side of =~ and !~ is a STRING, a Perl-compatible regular
 * expression.
 *
 * Both sides must be numbers or both strings; strings are compared by byte.  A column alone is true
 * when it is neither null nor 0 nor empty.  With a null every comparison is false, but != and !~
 * are the opposites of == and =~ always, and `== null` asks for it.
 *
 * A filter is compiled to a list of steps with one flag, so that a row costs no allocation, and a
 * long expression no stack.
 */
#include <stdbool.h>

#include "ctl/row.h"

struct filter;

/* Compiles `text` for a verb (FOR_… of column.h).  Returns NULL and one line in *ret_error (free
 * with g_free()), which says at which character, from 1 on, what is wrong. */
struct filter *filter_new(const char *text, unsigned verb, char **ret_error);
void filter_free(struct filter *filter);
typedef struct filter K42Filter; /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Filter, filter_free)

/* True if the row is wanted. */
bool filter_match(const struct filter *filter, const struct row *row);

/* True if the filter looks at this column. */
bool filter_uses(const struct filter *filter, enum column_id id);

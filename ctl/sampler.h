/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * sampler: from counters to rates, and the order of top.
 */
#include "ctl/column.h"
#include "ctl/rows.h"

struct sampler;

struct sampler *sampler_new(void);
void sampler_free(struct sampler *sampler);
typedef struct sampler K42Sampler; /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Sampler, sampler_free)

/* Sets the rates of the rows by what they were at the last call, `now` (monotonic µs) being the
 * time of this one.  A handle that is new, or whose counters went back (another daemon's), has none
 * yet. */
void sampler_take(struct sampler *sampler, struct row_set *set, int64_t now);

/* Sorts pointers to rows: numbers from large to small, strings from A to Z, or the other way if
 * `reverse`; what has no value last. */
void rows_sort(GPtrArray *rows, const struct column *column, bool reverse);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * top: what is going on now.  top.c has the state, which is the same for a terminal and for a file;
 * top_screen.c draws it and takes keys; verb_top.c has the loop and the command line.
 */
#include "ctl/sampler.h"
#include "ctl/selection.h"

struct top {
        const struct verb *verb;
        struct ctl_options options; /* with a timeout of not much more than the delay */
        struct selection *selection;
        const struct column *sort;
        bool reverse, readable;
        struct sampler *sampler;
        struct row_set *set; /* as of the last look */
        GPtrArray *shown;    /* rows of it that the selection wants, in order */
        guint mounts;        /* that answered */
        int status;          /* of the last look: EXIT_GOOD or EXIT_FAILED */
};

/* Asks all mounts; lines about those that do not answer go where ctl_complain() sends them.
 * EXIT_USAGE when the command line is wrong; that a mount is gone is only in top->status. */
int top_look(struct top *top);

/* Sorts again, after top->sort or top->reverse was changed. */
void top_sort(struct top *top);

/* Makes the column `step` columns after the present one that to sort by. */
void top_sort_by_next(struct top *top, int step);

/* Appends the line above all: how many, how much. */
void top_append_title(const struct top *top, GString *out);

/* The rows from `first` on, at most `n`, as a table to be freed. */
struct table *top_table(const struct top *top, guint first, guint n);

/* ---- the terminal ---- */

/* Takes the terminal; it is given back by top_screen_close(), which may be called at any time.
 * False after a line on stderr. */
bool top_screen_open(void);
void top_screen_close(void);

enum top_command {
        TOP_NOTHING, /* the time is over */
        TOP_DRAW,    /* something was changed that is to be seen */
        TOP_LOOK,    /* the user wants new figures */
        TOP_QUIT,
};

/* Draws all; `messages` (lines) stand below the title. */
void top_screen_draw(const struct top *top, const GPtrArray *messages);

/* Waits for a key until `deadline` (monotonic µs) and does what it says, as far as it is about what
 * is seen.  A signal that ends programs, or the end of the terminal, is TOP_QUIT. */
enum top_command top_screen_wait(struct top *top, int64_t deadline);

/* The signal that ended it, or 0. */
int top_screen_signal(void);

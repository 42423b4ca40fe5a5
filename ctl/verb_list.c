/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * list and history: who has what open, and who had.
 */
#include "ctl/column.h"
#include "ctl/rows.h"
#include "ctl/selection.h"

struct listing {
        const struct selection *selection;
        struct output *output;
};

static void list_row(const struct row *row, void *data)
{
        struct listing *listing = data;

        if (selection_wants(listing->selection, row))
                output_row(listing->output, row, NULL);
}

static int run(const struct verb *verb, const struct ctl_options *options)
{
        g_autoptr(K42Selection) selection = NULL;
        g_autoptr(GPtrArray) targets = NULL;
        g_autoptr(K42Output) output = NULL;
        struct rows_request request = {.verb = verb->name};
        unsigned answered;
        int r, asked;

        r = selection_new(verb, options, &selection);
        if (r != EXIT_GOOD)
                return r;
        r = rows_find_targets(verb, options, &targets);
        if (r == EXIT_USAGE)
                return r;
        if (targets->len > 1)
                selection_add_mountpoint(selection, options);
        request.identity = selection_needs_identity(selection);
        output = output_new(selection_format(options), selection->chosen,
                            !options->rows.no_headings, selection_readable(verb, options));
        asked = rows_ask(targets, options, &request, list_row, &(struct listing){selection, output},
                         NULL, &answered);
        if (answered > 0) /* an empty document would say that nothing is open */
                output_end(output);
        return r == EXIT_GOOD ? asked : r;
}

static const enum column_id list_columns[] = {
        COLUMN_HANDLE,     COLUMN_PARENT, COLUMN_PID,         COLUMN_USER,
        COLUMN_COMM,       COLUMN_TYPE,   COLUMN_SHARING,     COLUMN_READS,
        COLUMN_READ_BYTES, COLUMN_WRITES, COLUMN_WRITE_BYTES, COLUMN_PATH,
};

static const enum column_id history_columns[] = {
        COLUMN_CLOSED,     COLUMN_DURATION, COLUMN_HANDLE,      COLUMN_PARENT,
        COLUMN_PID,        COLUMN_USER,     COLUMN_COMM,        COLUMN_READS,
        COLUMN_READ_BYTES, COLUMN_WRITES,   COLUMN_WRITE_BYTES, COLUMN_PATH,
};

/* The contract's; history has the last two besides. */
static const enum column_id json_columns[] = {
        COLUMN_HANDLE,     COLUMN_PARENT, COLUMN_PID,         COLUMN_PPID,   COLUMN_UID,
        COLUMN_COMM,       COLUMN_EXE,    COLUMN_PATH,        COLUMN_TYPE,   COLUMN_FLAGS,
        COLUMN_RIGHTS,     COLUMN_CLASS,  COLUMN_SHARING,     COLUMN_OPENED, COLUMN_READS,
        COLUMN_READ_BYTES, COLUMN_WRITES, COLUMN_WRITE_BYTES, COLUMN_MAPPINGS, COLUMN_MAPPED_BYTES,
        COLUMN_COUNTED_BY, COLUMN_CLOSED, COLUMN_DURATION,
};

static const struct row_verb list_rows = {
        .columns = FOR_LIST,
        .defaults = list_columns,
        .n_defaults = G_N_ELEMENTS(list_columns),
        .json = json_columns,
        .n_json = G_N_ELEMENTS(json_columns) - 2,
        .formats = true,
};

static const struct row_verb history_rows = {
        .columns = FOR_HISTORY,
        .defaults = history_columns,
        .n_defaults = G_N_ELEMENTS(history_columns),
        .json = json_columns,
        .n_json = G_N_ELEMENTS(json_columns),
        .readable = true,
        .formats = true,
};

const struct verb verb_list = {
        .name = "list",
        .arguments = "[MOUNTPOINT…]",
        .summary = "who has what open",
        .description = "Lists the handles: one for each process and open file that it uses.\n"
                       "Without MOUNTPOINT all k42fs mounts are listed.",
        .max_rest = G_MAXUINT,
        .many_mounts = true,
        .rows = &list_rows,
        .run = run,
};

const struct verb verb_history = {
        .name = "history",
        .arguments = "[MOUNTPOINT…]",
        .summary = "who had what open",
        .description =
                "Lists the handles that were closed, the last one last: as many as the mount's\n"
                "option history=N says.  A mount without that option keeps none.",
        .max_rest = G_MAXUINT,
        .many_mounts = true,
        .rows = &history_rows,
        .run = run,
};

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tree: the handles by lineage, each below the one that it was derived from, and what they did
 * together.
 */
#include "ctl/tree.h"

#include <errno.h>
#include <stdio.h>

#include "ctl/column.h"
#include "ctl/selection.h"

static bool wants(const struct row *row, void *data)
{
        return selection_wants(data, row);
}

static void tree_row(const struct row *row, const char *branch, void *data)
{
        output_row(data, row, branch);
}

static int print_json_tree(const struct tree *tree, const struct selection *selection)
{
        g_auto(K42JsonText) text = JSON_TEXT_INIT;

        tree_json(tree, selection->chosen, &text);
        json_text_raw(&text, "\n", 1);
        if (text.failed) {
                ctl_complain("tree: %s", g_strerror(ENOMEM));
                return EXIT_FAILED;
        }
        fwrite(text.data, 1, text.length, stdout);
        return EXIT_GOOD;
}

static int run(const struct verb *verb, const struct ctl_options *options)
{
        g_autoptr(K42Selection) selection = NULL;
        g_autoptr(K42RowSet) set = row_set_new();
        g_autoptr(K42Output) output = NULL;
        g_autoptr(GPtrArray) targets = NULL;
        g_autoptr(K42Tree) tree = NULL;
        struct rows_request request = {.verb = "list"};
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
        asked = row_set_ask(set, targets, options, &request, &answered);
        if (answered == 0)
                return EXIT_FAILED;
        tree = tree_new(set, wants, selection);
        if (options->json) {
                if (print_json_tree(tree, selection) != EXIT_GOOD)
                        return EXIT_FAILED;
        } else {
                output = output_new(OUTPUT_TABLE, selection->chosen, !options->rows.no_headings,
                                    selection_readable(verb, options));
                tree_foreach(tree, g_get_charset(NULL), tree_row, output);
                output_end(output);
        }
        return r == EXIT_GOOD ? asked : r;
}

static const enum column_id tree_columns[] = {
        COLUMN_HANDLE,
        COLUMN_PID,
        COLUMN_COMM,
        COLUMN_READ_BYTES,
        COLUMN_TREE_READ_BYTES,
        COLUMN_WRITE_BYTES,
        COLUMN_TREE_WRITE_BYTES,
        COLUMN_PATH,
};

static const enum column_id json_columns[] = {
        COLUMN_HANDLE,      COLUMN_PARENT,
        COLUMN_PID,         COLUMN_PPID,
        COLUMN_UID,         COLUMN_COMM,
        COLUMN_EXE,         COLUMN_PATH,
        COLUMN_TYPE,        COLUMN_FLAGS,
        COLUMN_RIGHTS,      COLUMN_CLASS,
        COLUMN_SHARING,     COLUMN_OPENED,
        COLUMN_READS,       COLUMN_READ_BYTES,
        COLUMN_WRITES,      COLUMN_WRITE_BYTES,
        COLUMN_MAPPINGS,    COLUMN_MAPPED_BYTES,
        COLUMN_COUNTED_BY,
        COLUMN_TREE_READS,  COLUMN_TREE_READ_BYTES,
        COLUMN_TREE_WRITES, COLUMN_TREE_WRITE_BYTES,
        COLUMN_TREE_MAPPINGS, COLUMN_TREE_MAPPED_BYTES,
};

static const struct row_verb tree_rows = {
        .columns = FOR_TREE,
        .defaults = tree_columns,
        .n_defaults = G_N_ELEMENTS(tree_columns),
        .json = json_columns,
        .n_json = G_N_ELEMENTS(json_columns),
        .readable = true,
};

const struct verb verb_tree = {
        .name = "tree",
        .arguments = "[MOUNTPOINT…]",
        .summary = "the handles by lineage, with sums",
        .description = "Prints each handle below the one that it was derived from.  The columns "
                       "tree_… are the\n"
                       "sums of a handle and of all that came from it.  A handle whose parent is "
                       "closed stands at\n"
                       "the top.  With a filter, what it lets through is shown with its ancestors.",
        .max_rest = G_MAXUINT,
        .many_mounts = true,
        .rows = &tree_rows,
        .run = run,
};

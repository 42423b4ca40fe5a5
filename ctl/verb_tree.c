/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tree: the handles by lineage, each below the one that it was derived from.
 */
#include "ctl/tree.h"

#include <stdio.h>

#include "ctl/connect.h"
#include "ctl/print.h"

static int run(const struct verb *verb, const struct ctl_options *options)
{
        g_autoptr(GPtrArray) targets = NULL;
        g_autoptr(JsonNode) result = NULL;
        g_autoptr(GString) text = g_string_new(NULL);
        int r;

        r = targets_find(verb, options, 0, &targets);
        if (r != EXIT_GOOD)
                return r;
        r = target_ask(targets->pdata[0], options, "list", NULL, &result, NULL);
        if (r != EXIT_GOOD)
                return r;
        if (!is_array_of_objects(result)) {
                ctl_complain("the daemon's answer makes no sense");
                return EXIT_FAILED;
        }
        if (options->json)
                tree_json(json_node_get_array(result), text);
        else
                tree_text(json_node_get_array(result), g_get_charset(NULL), text);
        fputs(text->str, stdout);
        return EXIT_GOOD;
}

const struct verb verb_tree = {
        .name = "tree",
        .arguments = "[MOUNTPOINT]",
        .summary = "the handles by lineage",
        .description = "Prints each handle below the one that it was derived from:\n"
                       "  HANDLE PID COMMAND PATH  reads/bytes read  writes/bytes written\n"
                       "A handle whose parent is closed stands at the top.",
        .max_rest = 1,
        .run = run,
};

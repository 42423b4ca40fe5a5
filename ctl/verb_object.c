/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stats and status: the verbs whose answer is one object, printed as it comes.
 */
#include "ctl/connect.h"
#include "ctl/print.h"

static int run(const struct verb *verb, const struct ctl_options *options)
{
        g_autoptr(GPtrArray) targets = NULL;
        g_autoptr(JsonNode) result = NULL;
        int r;

        r = targets_find(verb, options, 0, &targets);
        if (r != EXIT_GOOD)
                return r;
        r = target_ask(targets->pdata[0], options, verb->name, NULL, &result, NULL);
        if (r != EXIT_GOOD)
                return r;
        if (!JSON_NODE_HOLDS_OBJECT(result)) {
                ctl_complain("the daemon's answer makes no sense");
                return EXIT_FAILED;
        }
        if (options->json)
                print_json(result);
        else
                print_object(json_node_get_object(result), 0);
        return EXIT_GOOD;
}

const struct verb verb_stats = {
        .name = "stats",
        .arguments = "[MOUNTPOINT]",
        .summary = "numbers: requests, handles, descriptors",
        .description = "Prints what the daemon counts: requests by kind since the start, and what "
                       "it holds now.",
        .max_rest = 1,
        .run = run,
};

const struct verb verb_status = {
        .name = "status",
        .arguments = "[MOUNTPOINT]",
        .summary = "how the mount is served",
        .description =
                "Prints what the mount is, who serves it and what the kernel and libfuse gave.",
        .max_rest = 1,
        .run = run,
};

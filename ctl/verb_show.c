/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * show: one handle, where it comes from and what comes from it.
 */
#include <stdio.h>

#include "ctl/column.h"
#include "ctl/connect.h"
#include "ctl/json_text.h"
#include "ctl/print.h"

static void print_relatives(JsonObject *handle, const char *key)
{
        JsonNode *node = json_object_get_member(handle, key);
        JsonArray *array;

        if (!node || !is_array_of_objects(node))
                return;
        array = json_node_get_array(node);
        printf("%s:%s\n", key, json_array_get_length(array) ? "" : " -");
        for (guint i = 0; i < json_array_get_length(array); i++) {
                JsonObject *relative = json_array_get_object_element(array, i);
                g_autofree char *id = member_text(relative, "handle");
                g_autofree char *pid = member_text(relative, "pid");
                g_autofree char *comm = member_text(relative, "comm");
                g_autofree char *shown_id = print_escape(id), *shown_comm = print_escape(comm);

                if (json_object_has_member(relative, "pid"))
                        printf("  %s  %s %s\n", shown_id, pid, shown_comm);
                else
                        printf("  %s  (closed, or another user's)\n", shown_id);
        }
}

static void print_handle(JsonObject *handle)
{
        for (unsigned i = 0; i <= COLUMN_COUNTED_BY; i++) {
                g_autofree char *text = member_text(handle, columns[i].name);
                g_autofree char *shown = print_escape(text);

                printf("%s: %s\n", columns[i].name, *shown ? shown : "-");
        }
        print_relatives(handle, "ancestors");
        print_relatives(handle, "children");
}

static int run(const struct verb *verb, const struct ctl_options *options)
{
        g_autoptr(GPtrArray) targets = NULL;
        g_autoptr(JsonNode) result = NULL;
        g_auto(K42JsonText) args = JSON_TEXT_INIT;
        int r;

        r = targets_find(verb, options, 1, &targets);
        if (r != EXIT_GOOD)
                return r;
        json_text_open(&args, '{');
        json_text_key(&args, "handle");
        json_text_string(&args, options->rest[0]);
        json_text_close(&args, '}');
        json_text_raw(&args, "", 1);
        if (args.failed || args.length > 4096)
                return ctl_usage_error(verb->name, "a handle is written INDEX.GENERATION");
        r = target_ask(targets->pdata[0], options, "show", args.data, &result, NULL);
        if (r != EXIT_GOOD)
                return r;
        if (options->json) {
                print_json(result);
        } else if (JSON_NODE_HOLDS_OBJECT(result)) {
                print_handle(json_node_get_object(result));
        } else {
                ctl_complain("the daemon's answer makes no sense");
                return EXIT_FAILED;
        }
        return EXIT_GOOD;
}

const struct verb verb_show = {
        .name = "show",
        .arguments = "HANDLE [MOUNTPOINT]",
        .summary = "one handle, its ancestors and children",
        .description =
                "Shows all that is known of one handle (INDEX.GENERATION, as list prints it),\n"
                "the handles that it was derived from, nearest first, and those derived from it.",
        .min_rest = 1,
        .max_rest = 2,
        .run = run,
};

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * list: who has what open.
 */
#include <string.h>

#include "ctl/connect.h"
#include "ctl/print.h"

static const char *const default_columns[] = {
        "handle", "parent",     "pid",    "uid",         "comm", "type", "sharing",
        "reads",  "read_bytes", "writes", "write_bytes", "path", NULL,
};

/* The columns to show; NULL and a line on stderr when one is unknown. */
static char **parse_columns(const struct ctl_options *options, bool several)
{
        g_autoptr(GStrvBuilder) builder = g_strv_builder_new();
        g_auto(GStrv) words = NULL;

        if (!options->columns) {
                if (several)
                        g_strv_builder_add(builder, "mountpoint");
                g_strv_builder_addv(builder, (const char **)default_columns);
                return g_strv_builder_end(builder);
        }
        words = g_strsplit(options->columns, ",", -1);
        for (char **word = words; *word; word++) {
                g_autofree char *lower = g_ascii_strdown(*word, -1);

                if (!g_strv_contains(handle_columns, lower) && !g_str_equal(lower, "mountpoint")) {
                        ctl_usage_error("list", "unknown column '%s'", *word);
                        return NULL;
                }
                g_strv_builder_add(builder, lower);
        }
        if (!words[0]) {
                ctl_usage_error("list", "--columns takes at least one column");
                return NULL;
        }
        return g_strv_builder_end(builder);
}

/* Adds the rows of one mount to `rows`. */
static int add_rows(struct target *target, const struct ctl_options *options, bool mountpoints,
                    JsonArray *rows)
{
        g_autoptr(JsonNode) result = NULL;
        JsonArray *more;
        int r = target_ask(target, options, "list", NULL, &result, NULL);

        if (r != EXIT_GOOD)
                return r;
        if (!is_array_of_objects(result)) {
                ctl_complain("%s: the daemon's answer makes no sense", target->mountpoint);
                return EXIT_FAILED;
        }
        more = json_node_get_array(result);
        for (guint i = 0; i < json_array_get_length(more); i++) {
                JsonNode *row = json_array_dup_element(more, i);

                if (mountpoints)
                        json_object_set_string_member(json_node_get_object(row), "mountpoint",
                                                      target->mountpoint);
                json_array_add_element(rows, row);
        }
        return EXIT_GOOD;
}

static int run(const struct verb *verb, const struct ctl_options *options)
{
        g_autoptr(GPtrArray) targets = NULL;
        g_autoptr(JsonArray) rows = json_array_new();
        g_auto(GStrv) columns = NULL;
        bool wants_mountpoint;
        int r, result = EXIT_GOOD;

        columns = parse_columns(options, false);
        if (!columns)
                return EXIT_USAGE;
        r = targets_find(verb, options, 0, &targets);
        if (r != EXIT_GOOD)
                return r;
        if (targets->len > 1 && !options->columns) {
                g_strfreev(columns);
                columns = parse_columns(options, true);
        }
        wants_mountpoint =
                !options->json && g_strv_contains((const char *const *)columns, "mountpoint");
        /* one mount that does not answer does not hide the others */
        for (unsigned i = 0; i < targets->len; i++) {
                struct target *target = targets->pdata[i];

                r = add_rows(target, options,
                             target->mountpoint && (targets->len > 1 || wants_mountpoint), rows);
                /* nor is one an error that has been unmounted since they were looked up */
                if (r != EXIT_GOOD && (targets->len == 1 || target_mounted(target)))
                        result = r;
        }
        if (result != EXIT_GOOD && (targets->len == 1 || options->json))
                return result; /* half a JSON document would pass for the whole */
        if (options->json) {
                g_autoptr(JsonNode) node = json_node_new(JSON_NODE_ARRAY);

                json_node_set_array(node, rows);
                print_json(node);
        } else {
                print_table(rows, columns, !options->no_headings);
        }
        return result;
}

const struct verb verb_list = {
        .name = "list",
        .arguments = "[MOUNTPOINT]",
        .summary = "who has what open",
        .description = "Lists the handles: one for each process and open file that it uses.\n"
                       "Without MOUNTPOINT all k42fs mounts are listed.",
        .max_rest = 1,
        .many_mounts = true,
        .columns = true,
        .run = run,
};

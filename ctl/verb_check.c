/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * check: do the handles equal reality?
 *
 * Processes go on while we look, so a difference counts only when it is found in every round.
 */
#include <stdio.h>
#include <sys/sysmacros.h>

#include "ctl/check.h"
#include "ctl/connect.h"
#include "ctl/json_text.h"
#include "ctl/print.h"

#define ROUNDS        4
#define ROUND_WAIT_US 100000

static int one_round(struct target *target, const struct ctl_options *options,
                     struct check_result **ret_result)
{
        g_autoptr(JsonNode) rows = NULL;
        g_autoptr(K42Seen) seen = NULL;
        int r;

        r = target_ask(target, options, "list", "{\"identity\":true}", &rows, NULL);
        if (r != EXIT_GOOD)
                return r;
        if (!is_array_of_objects(rows)) {
                ctl_complain("the daemon's answer makes no sense");
                return EXIT_FAILED;
        }
        seen = seen_scan(target->dev, json_node_get_array(rows));
        if (!seen) {
                ctl_complain("/proc: cannot be read");
                return EXIT_FAILED;
        }
        *ret_result = check_compare(json_node_get_array(rows), seen);
        return EXIT_GOOD;
}

static GList *sorted_differences(struct check_result *result)
{
        return g_list_sort(g_hash_table_get_values(result->differences), (GCompareFunc)g_strcmp0);
}

static void put_count(struct json_text *text, const char *key, unsigned count)
{
        json_text_key(text, key);
        json_text_uint(text, count);
}

static void print_as_json(struct check_result *result)
{
        g_auto(K42JsonText) text = JSON_TEXT_INIT;
        GList *lines = sorted_differences(result);

        json_text_open(&text, '{');
        json_text_key(&text, "equal");
        json_text_bool(&text, !lines);
        put_count(&text, "handles", result->handles);
        put_count(&text, "descriptors", result->descriptors);
        put_count(&text, "processes", result->processes);
        put_count(&text, "untouched", result->untouched);
        put_count(&text, "own", result->own);
        put_count(&text, "unowned", result->unowned);
        put_count(&text, "closed_off", result->closed_off);
        put_count(&text, "inexact", result->inexact);
        json_text_key(&text, "differences");
        json_text_open(&text, '[');
        for (GList *l = lines; l; l = l->next)
                json_text_string(&text, l->data);
        json_text_close(&text, ']');
        json_text_close(&text, '}');
        json_text_raw(&text, "\n", 1);
        fwrite(text.data, 1, text.length, stdout);
        g_list_free(lines);
}

static void print_note(unsigned count, const char *what)
{
        if (count > 0)
                printf("%u %s\n", count, what);
}

static void print_as_text(struct check_result *result)
{
        GList *lines = sorted_differences(result);

        for (GList *l = lines; l; l = l->next) {
                g_autofree char *shown = print_escape(l->data);

                puts(shown);
        }
        print_note(result->untouched,
                   "inherited or received descriptions that were not touched yet");
        print_note(result->own, "descriptors of k42ctl's own");
        print_note(result->unowned, "handles whose owner cannot be seen: not compared");
        print_note(result->closed_off,
                   "handles of processes that may not be looked into: not compared");
        print_note(result->inexact, "descriptors that could be told by their inode only");
        printf("%u handles, %u descriptors of %u processes: ", result->handles, result->descriptors,
               result->processes);
        if (lines)
                printf("%u differences\n", g_list_length(lines));
        else
                puts("equal");
        g_list_free(lines);
}

/* --state names no mount: the daemon tells which it is. */
static int find_device(struct target *target, const struct ctl_options *options)
{
        g_autoptr(JsonNode) status = NULL;
        int r;

        if (target->dev != 0)
                return EXIT_GOOD;
        r = target_ask(target, options, "status", NULL, &status, NULL);
        if (r != EXIT_GOOD)
                return r;
        if (JSON_NODE_HOLDS_OBJECT(status))
                target_complete(target, member_string(json_node_get_object(status), "mountpoint"),
                                member_string(json_node_get_object(status), "device"));
        if (target->dev == 0) {
                ctl_complain("%s: the daemon does not tell its device", target->state_dir);
                return EXIT_FAILED;
        }
        return EXIT_GOOD;
}

static int run(const struct verb *verb, const struct ctl_options *options)
{
        g_autoptr(GPtrArray) targets = NULL;
        g_autoptr(K42CheckResult) result = NULL;
        struct target *target;
        int r;

        r = targets_find(verb, options, 0, &targets);
        if (r != EXIT_GOOD)
                return r;
        target = targets->pdata[0];
        r = find_device(target, options);
        for (int i = 0; r == EXIT_GOOD && i < ROUNDS; i++) {
                g_autoptr(K42CheckResult) earlier = g_steal_pointer(&result);

                if (earlier && g_hash_table_size(earlier->differences) == 0) {
                        result = g_steal_pointer(&earlier);
                        break;
                }
                if (earlier)
                        g_usleep(ROUND_WAIT_US);
                r = one_round(target, options, &result);
                if (r == EXIT_GOOD && earlier)
                        check_keep_common(result, earlier);
        }
        if (r != EXIT_GOOD)
                return r;
        if (options->json)
                print_as_json(result);
        else
                print_as_text(result);
        return g_hash_table_size(result->differences) == 0 ? EXIT_GOOD : EXIT_FAILED;
}

const struct verb verb_check = {
        .name = "check",
        .arguments = "[MOUNTPOINT]",
        .summary = "compare the handles with /proc",
        .description = "Compares the daemon's handles with what the processes really have open, as "
                       "/proc and\n"
                       "the kernel tell.  Exit status 1 if there are differences that stay.",
        .max_rest = 1,
        .run = run,
};

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * upgrade: another program takes over a mount that is in use, and the answer is whether it did.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "ctl/connect.h"
#include "ctl/print.h"

#define LOOK_EVERY_US 50000

static int ask_status(struct target *target, const struct ctl_options *options,
                      JsonNode **ret_status)
{
        int r = target_ask(target, options, "status", NULL, ret_status, NULL);

        if (r == EXIT_GOOD && !JSON_NODE_HOLDS_OBJECT(*ret_status)) {
                ctl_complain("the daemon's answer makes no sense");
                return EXIT_FAILED;
        }
        return r;
}

static int wait_for_outcome(struct target *target, const struct ctl_options *options,
                            JsonObject *before)
{
        const int64_t deadline =
                g_get_monotonic_time() + options->timeout * G_TIME_SPAN_SECOND;

        do {
                g_autoptr(JsonNode) node = NULL;
                JsonObject *now;
                int r;

                g_usleep(LOOK_EVERY_US);
                r = ask_status(target, options, &node);
                if (r != EXIT_GOOD)
                        return r;
                now = json_node_get_object(node);
                if (member_int(now, "upgrades") > member_int(before, "upgrades")) {
                        if (options->json)
                                print_json(node);
                        else
                                print_object(now, 0);
                        return EXIT_GOOD;
                }
                if (member_int(now, "downgrades") > member_int(before, "downgrades")) {
                        g_autofree char *why = member_text(now, "last_death");

                        ctl_complain("the program did not take over (it %s); the one before goes on",
                                     *why ? why : "is not there");
                        return EXIT_FAILED;
                }
        } while (g_get_monotonic_time() < deadline);
        ctl_complain("the program has not taken over in %d seconds", options->timeout);
        return EXIT_FAILED;
}

/* The arguments in either order: a file is the program, anything else is (on) the mount. */
static int split_arguments(const struct ctl_options *options, struct ctl_options *ret_options,
                           char **ret_program)
{
        g_autoptr(GPtrArray) rest = g_ptr_array_new();

        *ret_program = NULL;
        for (char **arg = options->rest; *arg; arg++) {
                struct statx stx;

                if (*ret_program || statx(AT_FDCWD, *arg, AT_STATX_DONT_SYNC, STATX_TYPE, &stx) < 0 ||
                    !S_ISREG(stx.stx_mode)) {
                        g_ptr_array_add(rest, *arg);
                        continue;
                }
                *ret_program = realpath(*arg, NULL);
                if (!*ret_program) {
                        ctl_complain("%s: %s", *arg, g_strerror(errno));
                        return EXIT_FAILED;
                }
        }
        if (rest->len > 1) {
                free(*ret_program);
                *ret_program = NULL;
                ctl_complain("%s: is no program", (char *)rest->pdata[1]);
                return EXIT_FAILED;
        }
        g_ptr_array_add(rest, NULL);
        *ret_options = *options;
        ret_options->rest = (char **)g_ptr_array_free(g_steal_pointer(&rest), FALSE);
        return EXIT_GOOD;
}

static char *format_args(const char *program)
{
        g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
        g_autoptr(JsonObject) args = json_object_new();

        if (program)
                json_object_set_string_member(args, "program", program);
        json_node_set_object(node, args);
        return json_to_string(node, FALSE);
}

static int upgrade(const struct verb *verb, const struct ctl_options *options, const char *program)
{
        g_autoptr(GPtrArray) targets = NULL;
        g_autoptr(JsonNode) before = NULL, result = NULL;
        g_autofree char *args = format_args(program);
        int r = targets_find(verb, options, 0, &targets);

        if (r == EXIT_GOOD)
                r = ask_status(targets->pdata[0], options, &before);
        if (r == EXIT_GOOD)
                r = target_ask(targets->pdata[0], options, "upgrade", args, &result, NULL);
        if (r == EXIT_GOOD)
                r = wait_for_outcome(targets->pdata[0], options, json_node_get_object(before));
        return r;
}

static int run(const struct verb *verb, const struct ctl_options *options)
{
        struct ctl_options split;
        char *program;
        int r = split_arguments(options, &split, &program);

        if (r != EXIT_GOOD)
                return r;
        r = upgrade(verb, &split, program);
        g_free(split.rest);
        free(program);
        return r;
}

const struct verb verb_upgrade = {
        .name = "upgrade",
        .arguments = "[MOUNTPOINT] [PROGRAM]",
        .summary = "let another k42fs take over",
        .description =
                "Lets PROGRAM serve the mount from now on: open files stay open and no system call\n"
                "fails.  Without PROGRAM it is the file that the daemon was started from, as it is\n"
                "now.  If the program does not manage to take over the one before goes on, and\n"
                "the exit status is 1.",
        .max_rest = 2,
        .run = run,
};

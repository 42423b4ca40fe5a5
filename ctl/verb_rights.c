/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * restrict, revoke, allow: take something away, and give leave again.
 *
 * What is meant is told apart by how it is written: 12.1 is a handle, 4711 a process, anything else a
 * path (a file with such a name is ./4711).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/connect.h"
#include "ctl/json_text.h"
#include "ctl/print.h"

/* of revoke */
static gboolean tree, block, wait_for_it;

enum kind {
        KIND_HANDLE,
        KIND_PROCESS,
        KIND_FILE,
};

static enum kind kind_of(const char *text)
{
        const size_t first = strspn(text, "0123456789");
        const size_t second = text[first] == '.' ? strspn(text + first + 1, "0123456789") : 0;

        if (first > 0 && text[first] == '\0')
                return KIND_PROCESS;
        return first > 0 && second > 0 && text[first + 1 + second] == '\0' ? KIND_HANDLE
                                                                            : KIND_FILE;
}

/* The mount point of a target that --state named. */
static int complete(struct target *target, const struct ctl_options *options)
{
        g_autoptr(JsonNode) status = NULL;
        int r;

        if (target->mountpoint)
                return EXIT_GOOD;
        r = target_ask(target, options, "status", NULL, &status, NULL);
        if (r == EXIT_GOOD && JSON_NODE_HOLDS_OBJECT(status))
                target_complete(target, member_string(json_node_get_object(status), "mountpoint"),
                                member_string(json_node_get_object(status), "device"));
        return r;
}

/* `path` as the daemon knows it: from the mount point on, without symbolic links. */
static int path_on_mount(struct target *target, const struct ctl_options *options, const char *path,
                         char **ret_path)
{
        char *real = realpath(path, NULL);
        const char *below = NULL;
        int r;

        if (!real) {
                ctl_complain("%s: %s", path, g_strerror(errno));
                return EXIT_FAILED;
        }
        r = complete(target, options);
        if (r == EXIT_GOOD && target->mountpoint) {
                const size_t length = strlen(target->mountpoint);

                if (strncmp(real, target->mountpoint, length) == 0 && real[length] == '/')
                        below = real + length;
                else
                        ctl_complain("%s: is not below %s", path, target->mountpoint);
        }
        if (below)
                *ret_path = g_strdup(below);
        free(real);
        return r == EXIT_GOOD && !below ? EXIT_FAILED : r;
}

/* JSON has only UTF-8; a name can have any bytes. */
static void put_path(struct json_text *args, const char *path)
{
        g_autoptr(GString) hex = NULL;

        if (g_utf8_validate(path, -1, NULL)) {
                json_text_key(args, "path");
                json_text_string(args, path);
                return;
        }
        hex = g_string_new(NULL);
        for (; *path; path++)
                g_string_append_printf(hex, "%02x", (unsigned char)*path);
        json_text_key(args, "path_hex");
        json_text_string(args, hex->str);
}

static int put_target(struct json_text *args, struct target *target,
                      const struct ctl_options *options, const char *text)
{
        g_autofree char *path = NULL;
        int r = EXIT_GOOD;

        switch (kind_of(text)) {
        case KIND_HANDLE:
                json_text_key(args, "handle");
                json_text_string(args, text);
                break;
        case KIND_PROCESS:
                json_text_key(args, "pid");
                json_text_uint(args, g_ascii_strtoull(text, NULL, 10));
                break;
        case KIND_FILE:
                r = path_on_mount(target, options, text, &path);
                if (r == EXIT_GOOD)
                        put_path(args, path);
                break;
        }
        return r;
}

static int make_args(const struct verb *verb, struct target *target,
                     const struct ctl_options *options, struct json_text *args)
{
        int r;

        json_text_open(args, '{');
        r = put_target(args, target, options, options->rest[0]);
        if (verb == &verb_restrict) {
                json_text_key(args, "rights");
                json_text_string(args, options->rest[1]);
        }
        if (tree) {
                json_text_key(args, "tree");
                json_text_bool(args, true);
        }
        if (block) {
                json_text_key(args, "block");
                json_text_bool(args, true);
        }
        json_text_close(args, '}');
        json_text_raw(args, "", 1);
        if (r == EXIT_GOOD && args->failed) {
                ctl_complain("%s", g_strerror(ENOMEM));
                r = EXIT_FAILED;
        }
        return r;
}

static bool is_done(JsonNode *result)
{
        JsonNode *done = JSON_NODE_HOLDS_OBJECT(result)
                                 ? json_object_get_member(json_node_get_object(result), "done")
                                 : NULL;

        return done && JSON_NODE_HOLDS_VALUE(done) && json_node_get_boolean(done);
}

/* Where an option or a kind of target makes no sense nothing is asked. */
static int check(const struct verb *verb, const struct ctl_options *options)
{
        const enum kind kind = kind_of(options->rest[0]);

        if (verb == &verb_restrict && kind == KIND_FILE)
                return ctl_usage_error(verb->name, "'%s' is neither a process nor a handle",
                                       options->rest[0]);
        if (verb == &verb_allow && kind == KIND_HANDLE)
                return ctl_usage_error(verb->name, "a handle cannot be blocked");
        if (kind == KIND_HANDLE && block)
                return ctl_usage_error(verb->name, "--block takes a process or a file");
        if (kind == KIND_FILE && tree)
                return ctl_usage_error(verb->name, "--tree takes a process or a handle");
        if (kind == KIND_FILE && options->rest[1])
                return ctl_usage_error(verb->name, "too many arguments: '%s'", options->rest[1]);
        return EXIT_GOOD;
}

static int run(const struct verb *verb, const struct ctl_options *options)
{
        g_autoptr(GPtrArray) targets = NULL;
        g_autoptr(JsonNode) result = NULL;
        g_auto(K42JsonText) args = JSON_TEXT_INIT;
        const bool by_path = kind_of(options->rest[0]) == KIND_FILE && !options->state_dir;
        int r = check(verb, options);

        if (r == EXIT_GOOD)
                r = targets_find(verb, options, by_path ? 0 : verb == &verb_restrict ? 2 : 1,
                                 &targets);
        if (r == EXIT_GOOD)
                r = make_args(verb, targets->pdata[0], options, &args);
        if (r != EXIT_GOOD)
                return r;
        do {
                g_clear_pointer(&result, json_node_unref);
                r = target_ask(targets->pdata[0], options, verb->name, args.data, &result, NULL);
                if (r != EXIT_GOOD)
                        return r;
        } while (wait_for_it && !is_done(result));
        if (options->json)
                print_json(result);
        if (is_done(result) && member_int(json_node_get_object(result), "mapped") == 0)
                return EXIT_GOOD;
        if (is_done(result)) {
                ctl_complain("%s: is taken, but has a file mapped that others map, too, and sees "
                             "what they use; revoke the FILE to end that",
                             options->rest[0]);
                return EXIT_FAILED;
        }
        ctl_complain("%s: is taken, but operations that began before are still running (--wait "
                     "waits for them)",
                     options->rest[0]);
        return EXIT_FAILED;
}

const struct verb verb_restrict = {
        .name = "restrict",
        .arguments = "HANDLE|PID RIGHTS [MOUNTPOINT]",
        .summary = "leave a handle or process less rights",
        .description =
                "Leaves a handle only the rights that are named, of rwdc (read, write, duplicate,\n"
                "control; - for none), or all handles of a process those of them that they have.\n"
                "What derives from them later has no more than that.  Rights never come back.\n"
                "See k42fs-semantics(7) for what is enforced in which class.",
        .min_rest = 2,
        .max_rest = 3,
        .run = run,
};

static const GOptionEntry revoke_entries[] = {
        {"tree", 0, 0, G_OPTION_ARG_NONE, &tree, NULL, NULL},
        {"block", 0, 0, G_OPTION_ARG_NONE, &block, NULL, NULL},
        {"wait", 0, 0, G_OPTION_ARG_NONE, &wait_for_it, NULL, NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
};

const struct verb verb_revoke = {
        .name = "revoke",
        .arguments = "HANDLE|PID|FILE [MOUNTPOINT]",
        .summary = "take back what is open",
        .description =
                "Takes a handle, all that a process has open, or all that is open of a file back.\n"
                "When it returns with status 0 no byte moves any more: what was under way is over,\n"
                "later operations fail with EBADF, and mappings with SIGBUS.",
        .min_rest = 1,
        .max_rest = 2,
        .entries = revoke_entries,
        .entries_help =
                "      --tree              also what descends from the process, or derives from the handle\n"
                "      --block             the file cannot be opened, or the process cannot open\n"
                "                          anything, until 'k42ctl allow'\n"
                "      --wait              wait for operations under way as long as they take\n",
        .run = run,
};

const struct verb verb_allow = {
        .name = "allow",
        .arguments = "FILE|PID [MOUNTPOINT]",
        .summary = "end what revoke --block began",
        .description = "Lets a file be opened, or a process open files, again.  What was revoked "
                       "stays revoked.",
        .min_rest = 1,
        .max_rest = 2,
        .run = run,
};

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/rows.h"

#include <string.h>

#include "ctl/control_protocol.h"

/* ---- which mounts ---- */

static bool has_device(GPtrArray *targets, dev_t dev)
{
        for (guint i = 0; dev != 0 && i < targets->len; i++)
                if (((struct target *)targets->pdata[i])->dev == dev)
                        return true;
        return false;
}

static void move_targets(GPtrArray *from, GPtrArray *to)
{
        for (guint i = 0; i < from->len; i++) {
                struct target *target = from->pdata[i];

                if (!has_device(to, target->dev))
                        g_ptr_array_add(to, g_steal_pointer(&from->pdata[i]));
        }
}

int rows_find_targets(const struct verb *verb, const struct ctl_options *options,
                      GPtrArray **ret_targets)
{
        g_autoptr(GPtrArray) targets = g_ptr_array_new_with_free_func((GDestroyNotify)target_free);
        int result = EXIT_GOOD;
        unsigned i = 0;

        do {
                g_autoptr(GPtrArray) found = NULL;
                int r = targets_find(verb, options, i, &found);

                if (r == EXIT_USAGE)
                        return r;
                if (r == EXIT_GOOD)
                        move_targets(found, targets);
                else
                        result = r;
        } while (options->rest[0] && options->rest[++i]);
        *ret_targets = g_steal_pointer(&targets);
        return result;
}

/* ---- one answer ---- */

static int parse_rows(const struct target *target, GByteArray *line,
                      void (*fn)(const struct row *row, void *data), void *data)
{
        const size_t begin = strlen(CONTROL_RESULT_BEGIN);
        g_autoptr(JsonNode) other = NULL;
        g_autofree char *mountpoint = NULL;
        struct row common = {.now = (double)g_get_real_time() / G_USEC_PER_SEC};
        const char *wrong;
        char *text = (char *)line->data;

        if (line->len <= begin || memcmp(text, CONTROL_RESULT_BEGIN, begin) != 0) {
                /* an error, or nonsense */
                if (target_parse_answer(target, line, &other) != EXIT_GOOD)
                        return EXIT_FAILED;
                wrong = "not an answer";
        } else if (!g_utf8_validate_len(text, line->len, NULL)) {
                wrong = "not UTF-8";
        } else if (text[line->len - 1] != '}') {
                wrong = "not an object";
        } else {
                if (target->mountpoint) {
                        /* as many as there are mounts: they may stay */
                        mountpoint = g_utf8_make_valid(target->mountpoint, -1);
                        common.mountpoint = g_intern_string(mountpoint);
                }
                wrong = rows_parse(text + begin, text + line->len - 1, &common, fn, data);
        }
        if (!wrong)
                return EXIT_GOOD;
        ctl_complain("%s: the daemon's answer makes no sense: %s", target_name(target), wrong);
        return EXIT_FAILED;
}

static int ask_one(struct target *target, const struct ctl_options *options,
                   const struct rows_request *request,
                   void (*fn)(const struct row *row, void *data), void *data, GPtrArray *keep)
{
        g_autoptr(GByteArray) line = NULL;
        int r = target_ask_text(target, options, request->verb,
                                request->identity ? "{\"identity\":true}" : NULL, &line, NULL);

        if (r == EXIT_GOOD)
                r = parse_rows(target, line, fn, data);
        if (line && keep)
                g_ptr_array_add(keep, g_steal_pointer(&line));
        return r;
}

int rows_ask(GPtrArray *targets, const struct ctl_options *options,
             const struct rows_request *request, void (*fn)(const struct row *row, void *data),
             void *data, GPtrArray *keep, unsigned *ret_answered)
{
        int result = EXIT_GOOD;

        *ret_answered = 0;
        for (guint i = 0; i < targets->len; i++) {
                struct target *target = targets->pdata[i];
                int r = ask_one(target, options, request, fn, data, keep);

                if (r == EXIT_GOOD)
                        ++*ret_answered;
                /* unmounted since it was looked up: no error, when it was not asked for */
                else if (targets->len == 1 || target_mounted(target))
                        result = r;
        }
        return result;
}

/* ---- kept ---- */

struct row_set *row_set_new(void)
{
        struct row_set *set = g_new0(struct row_set, 1);

        set->rows = g_array_new(FALSE, FALSE, sizeof(struct row));
        set->texts = g_ptr_array_new_with_free_func((GDestroyNotify)g_byte_array_unref);
        return set;
}

void row_set_free(struct row_set *set)
{
        if (!set)
                return;
        g_array_unref(set->rows);
        g_ptr_array_unref(set->texts);
        g_free(set);
}

static void keep_row(const struct row *row, void *data)
{
        struct row_set *set = data;

        g_array_append_vals(set->rows, row, 1);
}

int row_set_ask(struct row_set *set, GPtrArray *targets, const struct ctl_options *options,
                const struct rows_request *request, unsigned *ret_answered)
{
        return rows_ask(targets, options, request, keep_row, set, set->texts, ret_answered);
}

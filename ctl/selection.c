/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/selection.h"

#include <string.h>

#include "ctl/filter.h"

#define PID_MAX G_MAXINT

void selection_free(struct selection *selection)
{
        if (!selection)
                return;
        g_clear_pointer(&selection->chosen, g_ptr_array_unref);
        g_clear_pointer(&selection->filters, g_ptr_array_unref);
        g_clear_pointer(&selection->pids, g_hash_table_unref);
        g_free(selection);
}

static int parse_filters(const struct verb *verb, char **texts, struct selection *selection)
{
        for (; texts && *texts; texts++) {
                g_autofree char *error = NULL;
                struct filter *filter = filter_new(*texts, verb->rows->columns, &error);

                if (!filter)
                        return ctl_usage_error(verb->name, "%s", error);
                g_ptr_array_add(selection->filters, filter);
        }
        return EXIT_GOOD;
}

static int parse_pids(const struct verb *verb, char **lists, struct selection *selection)
{
        if (lists)
                selection->pids = g_hash_table_new(NULL, NULL);
        for (; lists && *lists; lists++) {
                g_auto(GStrv) words = g_strsplit_set(*lists, ", \t\n", -1);

                for (char **word = words; *word; word++) {
                        guint64 pid;

                        if (!**word)
                                continue;
                        if (!g_ascii_string_to_unsigned(*word, 10, 0, PID_MAX, &pid, NULL))
                                return ctl_usage_error(verb->name, "'%s' is no process id", *word);
                        g_hash_table_add(selection->pids, GUINT_TO_POINTER((guint)pid));
                }
        }
        return EXIT_GOOD;
}

static int parse_columns(const struct verb *verb, const struct ctl_options *options,
                         struct selection *selection)
{
        const struct row_verb *rows = verb->rows;
        bool json = options->json || options->rows.jsonl;
        g_autofree char *error = NULL;

        selection->by_default = !options->rows.columns || options->rows.columns[0] == '+';
        selection->chosen =
                columns_parse(options->rows.columns, json ? rows->json : rows->defaults,
                              json ? rows->n_json : rows->n_defaults, rows->columns, &error);
        return selection->chosen ? EXIT_GOOD : ctl_usage_error(verb->name, "%s", error);
}

int selection_new(const struct verb *verb, const struct ctl_options *options,
                  struct selection **ret_selection)
{
        g_autoptr(K42Selection) selection = g_new0(struct selection, 1);
        int r;

        selection->filters = g_ptr_array_new_with_free_func((GDestroyNotify)filter_free);
        r = parse_filters(verb, options->rows.filters, selection);
        if (r == EXIT_GOOD)
                r = parse_pids(verb, options->rows.pids, selection);
        if (r == EXIT_GOOD && verb->rows->defaults)
                r = parse_columns(verb, options, selection);
        if (r == EXIT_GOOD)
                *ret_selection = g_steal_pointer(&selection);
        return r;
}

void selection_add_mountpoint(struct selection *selection, const struct ctl_options *options)
{
        bool json = options->json || options->rows.jsonl;
        void *column = (void *)&columns[COLUMN_MOUNTPOINT];

        if (selection->by_default && !g_ptr_array_find(selection->chosen, column, NULL))
                g_ptr_array_insert(selection->chosen, json ? -1 : 0, column);
}

bool selection_wants(const struct selection *selection, const struct row *row)
{
        if (selection->pids &&
            !g_hash_table_contains(selection->pids,
                                   GUINT_TO_POINTER((guint)row_integer(row, COLUMN_PID))))
                return false;
        for (guint i = 0; i < selection->filters->len; i++)
                if (!filter_match(selection->filters->pdata[i], row))
                        return false;
        return true;
}

bool selection_needs_identity(const struct selection *selection)
{
        static const enum column_id identity[] = {COLUMN_DESCRIPTION, COLUMN_INODE};

        for (size_t i = 0; i < G_N_ELEMENTS(identity); i++) {
                if (selection->chosen &&
                    g_ptr_array_find(selection->chosen, &columns[identity[i]], NULL))
                        return true;
                for (guint n = 0; n < selection->filters->len; n++)
                        if (filter_uses(selection->filters->pdata[n], identity[i]))
                                return true;
        }
        return false;
}

bool selection_readable(const struct verb *verb, const struct ctl_options *options)
{
        return verb->rows->readable ? !options->rows.bytes : options->rows.readable;
}

enum output_format selection_format(const struct ctl_options *options)
{
        if (options->json)
                return OUTPUT_JSON;
        if (options->rows.jsonl)
                return OUTPUT_JSONL;
        return options->rows.raw ? OUTPUT_RAW : OUTPUT_TABLE;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/top.h"

#include <time.h>

#include "ctl/table.h"

void top_sort(struct top *top)
{
        rows_sort(top->shown, top->sort, top->reverse);
}

void top_sort_by_next(struct top *top, int step)
{
        const GPtrArray *chosen = top->selection->chosen;
        guint at;

        if (!g_ptr_array_find((GPtrArray *)chosen, top->sort, &at))
                at = 0;
        else
                at = (guint)(((int)at + step + (int)chosen->len) % (int)chosen->len);
        top->sort = chosen->pdata[at];
        top_sort(top);
}

int top_look(struct top *top)
{
        g_autoptr(GPtrArray) targets = NULL;
        struct rows_request request = {.verb = "list"};
        int found, asked;

        found = rows_find_targets(top->verb, &top->options, &targets);
        if (found == EXIT_USAGE)
                return found;
        if (targets->len > 1)
                selection_add_mountpoint(top->selection, &top->options);
        request.identity = selection_needs_identity(top->selection);
        row_set_free(top->set);
        top->set = row_set_new();
        asked = row_set_ask(top->set, targets, &top->options, &request, &top->mounts);
        top->status = found == EXIT_GOOD ? asked : found;
        sampler_take(top->sampler, top->set, g_get_monotonic_time());

        g_ptr_array_set_size(top->shown, 0);
        for (guint i = 0; i < top->set->rows->len; i++)
                if (selection_wants(top->selection, row_set_at(top->set, i)))
                        g_ptr_array_add(top->shown, row_set_at(top->set, i));
        top_sort(top);
        return EXIT_GOOD;
}

/* In units always: this line is for a glance. */
static void append_rate(const struct top *top, enum column_id id, const char *what, GString *out)
{
        struct value sum = {.kind = VALUE_REAL};

        for (guint i = 0; i < top->shown->len; i++) {
                const struct row *row = top->shown->pdata[i];

                if (row->values[id].kind == VALUE_REAL)
                        sum.real += row->values[id].real;
        }
        g_string_append_printf(out, "  %s ", what);
        column_append_text(&columns[id], &sum, true, out);
        g_string_append(out, "/s");
}

void top_append_title(const struct top *top, GString *out)
{
        g_autoptr(GHashTable) pids = g_hash_table_new(NULL, NULL);
        time_t now = time(NULL);
        struct tm tm;
        char clock[16] = "";

        if (localtime_r(&now, &tm))
                strftime(clock, sizeof(clock), "%T", &tm);
        for (guint i = 0; i < top->shown->len; i++)
                g_hash_table_add(pids, GUINT_TO_POINTER((guint)row_integer(top->shown->pdata[i],
                                                                           COLUMN_PID)));
        g_string_append_printf(out, "k42ctl top %s by %s%s  mounts %u  processes %u  handles %u",
                               clock, top->sort->name, top->reverse ? ", reversed" : "",
                               top->mounts, g_hash_table_size(pids), top->shown->len);
        append_rate(top, COLUMN_OP_RATE, "operations", out);
        append_rate(top, COLUMN_READ_RATE, "read", out);
        append_rate(top, COLUMN_WRITE_RATE, "written", out);
}

struct table *top_table(const struct top *top, guint first, guint n)
{
        struct table *table = table_new(top->selection->chosen, top->readable);

        if (!top->options.rows.no_headings)
                table_add_headings(table);
        for (guint i = first; i < top->shown->len && i - first < n; i++)
                table_add(table, top->shown->pdata[i], NULL);
        return table;
}

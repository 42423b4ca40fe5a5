/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Names of others are only ever labels.  Nodes are named by us: p1, h1, f1.
 */
#include "ctl/dot.h"

#include <inttypes.h>
#include <string.h>

#include "ctl/column.h"
#include "ctl/print.h"

#define LABEL_MAX 120 /* characters; old versions of dot break off at long strings */

struct graph {
        GHashTable *processes, *files, *handles; /* name, with its mount, to number */
        GString *out;
};

/* In a label \N, \G, \n and others have a meaning, and so has &lt;. */
static void append_quoted(GString *out, const char *text, size_t length)
{
        for (size_t i = 0; i < length; i++) {
                if (text[i] == '"' || text[i] == '\\')
                        g_string_append_c(out, '\\');
                if (text[i] == '&')
                        g_string_append(out, "&amp;");
                else
                        g_string_append_c(out, text[i]);
        }
}

/* What is too long loses its middle: the ends of a path tell most. */
static void append_shortened(GString *out, const char *text)
{
        g_autofree char *shown = print_escape(text);
        glong length = g_utf8_strlen(shown, -1);
        const char *tail;

        if (length <= LABEL_MAX) {
                append_quoted(out, shown, strlen(shown));
                return;
        }
        tail = g_utf8_offset_to_pointer(shown, length - LABEL_MAX / 2);
        append_quoted(out, shown, (size_t)(g_utf8_offset_to_pointer(shown, LABEL_MAX / 2) - shown));
        g_string_append(out, " ... ");
        append_quoted(out, tail, strlen(tail));
}

void dot_append_label(GString *out, const char *text)
{
        g_string_append_c(out, '"');
        append_shortened(out, text);
        g_string_append_c(out, '"');
}

/* The number of a name; 0 when it is new, and *ret_number has the one that it got. */
static guint known(GHashTable *table, const struct row *row, const char *name, guint *ret_number)
{
        g_autofree char *key =
                g_strdup_printf("%s\n%s", row->mountpoint ? row->mountpoint : "", name);
        guint number = GPOINTER_TO_UINT(g_hash_table_lookup(table, key));

        *ret_number = number ? number : g_hash_table_size(table) + 1;
        if (!number)
                g_hash_table_insert(table, g_steal_pointer(&key), GUINT_TO_POINTER(*ret_number));
        return number;
}

static guint put_process(struct graph *graph, const struct row *row)
{
        const char *comm = row_string(row, COLUMN_COMM);
        char pid[32];
        guint number;

        /* the same process on two mounts is one node */
        g_snprintf(pid, sizeof(pid), "%" PRId64, row_integer(row, COLUMN_PID));
        if (known(graph->processes, &(struct row){0}, pid, &number))
                return number;
        g_string_append_printf(graph->out,
                               "  p%u [shape=box, style=filled, fillcolor=lightblue, label=\"",
                               number);
        append_shortened(graph->out, comm ? comm : "?");
        g_string_append_printf(graph->out, "\\n%s\"];\n", pid);
        return number;
}

static guint put_file(struct graph *graph, const struct row *row)
{
        const char *path = row_string(row, COLUMN_PATH), *type = row_string(row, COLUMN_TYPE);
        bool dir = type && g_str_equal(type, "DIR");
        guint number;

        if (known(graph->files, row, path ? path : "", &number))
                return number;
        g_string_append_printf(graph->out, "  f%u [shape=%s, label=\"", number,
                               dir ? "folder" : "note");
        append_shortened(graph->out, path ? path : "?");
        if (row->mountpoint) {
                g_string_append(graph->out, "\\n(");
                append_shortened(graph->out, row->mountpoint);
                g_string_append_c(graph->out, ')');
        }
        g_string_append(graph->out, "\"];\n");
        return number;
}

static void append_done(GString *out, const char *what, const struct row *row, enum column_id ops,
                        enum column_id bytes)
{
        struct value value = row->values[bytes];

        if (row_integer(row, ops) == 0 && row_integer(row, bytes) == 0)
                return;
        g_string_append_printf(out, "\\n%s ", what);
        column_append_text(&columns[bytes], &value, true, out);
}

static void put_handle(struct graph *graph, const struct row *row)
{
        const char *handle = row_string(row, COLUMN_HANDLE);
        guint number, process = put_process(graph, row), file = put_file(graph, row);

        if (!handle || known(graph->handles, row, handle, &number))
                return;
        g_string_append_printf(graph->out, "  h%u [shape=ellipse, label=\"", number);
        append_shortened(graph->out, handle);
        append_done(graph->out, "read", row, COLUMN_READS, COLUMN_READ_BYTES);
        append_done(graph->out, "written", row, COLUMN_WRITES, COLUMN_WRITE_BYTES);
        g_string_append_printf(graph->out, "\"];\n  p%u -> h%u;\n  h%u -> f%u [color=gray];\n",
                               process, number, number, file);
}

/* Only to parents that are in the picture. */
static void put_lineage(struct graph *graph, const struct row *row)
{
        const char *parent = row_string(row, COLUMN_PARENT);
        const char *handle = row_string(row, COLUMN_HANDLE);
        const char *mountpoint = row->mountpoint ? row->mountpoint : "";
        g_autofree char *parent_key = g_strdup_printf("%s\n%s", mountpoint, parent ? parent : "");
        g_autofree char *key = g_strdup_printf("%s\n%s", mountpoint, handle ? handle : "");
        guint from = GPOINTER_TO_UINT(g_hash_table_lookup(graph->handles, parent_key));
        guint to = GPOINTER_TO_UINT(g_hash_table_lookup(graph->handles, key));

        if (parent && handle && from && to)
                g_string_append_printf(graph->out, "  h%u -> h%u [style=bold, color=blue];\n", from,
                                       to);
}

static GHashTable *new_names(void)
{
        return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
}

void dot_append_graph(const struct row_set *set, bool (*wants)(const struct row *row, void *data),
                      void *data, GString *out)
{
        g_autoptr(GHashTable) processes = new_names(), files = new_names(), handles = new_names();
        struct graph graph = {processes, files, handles, out};

        g_string_append(out, "digraph k42fs {\n"
                             "  charset=\"UTF-8\"; rankdir=LR; node [fontname=\"sans-serif\"];\n");
        for (guint i = 0; i < set->rows->len; i++)
                if (!wants || wants(row_set_at(set, i), data))
                        put_handle(&graph, row_set_at(set, i));
        for (guint i = 0; i < set->rows->len; i++)
                if (!wants || wants(row_set_at(set, i), data))
                        put_lineage(&graph, row_set_at(set, i));
        g_string_append(out, "}\n");
}

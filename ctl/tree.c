/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rows are numbered; `parent`, `first`, `last` and `next` are row numbers, NONE for none.  The walk
 * goes down by `first`, along by `next` and up by `parent`.
 */
#include "ctl/tree.h"

#include <inttypes.h>
#include <string.h>

#include "ctl/print.h"

#define NONE G_MAXUINT

struct node {
        guint parent, first, last, next;
};

struct tree {
        JsonArray *rows;
        struct node *nodes;
        guint n, first, last; /* of the top */
};

static void append(struct tree *tree, guint parent, guint i)
{
        guint *first = parent == NONE ? &tree->first : &tree->nodes[parent].first;
        guint *last = parent == NONE ? &tree->last : &tree->nodes[parent].last;

        tree->nodes[i].parent = parent;
        tree->nodes[i].next = NONE;
        if (*last == NONE)
                *first = i;
        else
                tree->nodes[*last].next = i;
        *last = i;
}

/* Follows the parents of `i`: true if they end at the top.  What was followed once is known. */
static bool reaches_top(const guint *parents, bool *known, guint n, guint i)
{
        guint at = i;

        for (guint steps = 0; steps <= n; steps++) {
                if (at == NONE || known[at]) {
                        for (at = i; at != NONE && !known[at]; at = parents[at])
                                known[at] = true;
                        return true;
                }
                at = parents[at];
        }
        return false;
}

static void tree_build(JsonArray *rows, struct tree *tree)
{
        g_autoptr(GHashTable) by_handle = g_hash_table_new(g_str_hash, g_str_equal);
        guint n = json_array_get_length(rows);
        g_autofree guint *parents = g_new(guint, n);
        g_autofree bool *known = g_new0(bool, n);

        *tree = (struct tree){
                .rows = rows, .nodes = g_new0(struct node, n), .n = n, .first = NONE, .last = NONE};
        for (guint i = 0; i < n; i++) {
                const char *handle =
                        member_string(json_array_get_object_element(rows, i), "handle");

                if (handle)
                        g_hash_table_insert(by_handle, (void *)handle, GUINT_TO_POINTER(i + 1));
        }
        for (guint i = 0; i < n; i++) {
                const char *parent =
                        member_string(json_array_get_object_element(rows, i), "parent");
                guint found = parent ? GPOINTER_TO_UINT(g_hash_table_lookup(by_handle, parent)) : 0;

                parents[i] = found ? found - 1 : NONE;
                tree->nodes[i] = (struct node){NONE, NONE, NONE, NONE};
        }
        for (guint i = 0; i < n; i++)
                if (!reaches_top(parents, known, n, i))
                        parents[i] = NONE; /* opens the circle */
        for (guint i = 0; i < n; i++)
                append(tree, parents[i], i);
}

/* The number of the node after `i`, from above to below; `*depth` follows. */
static guint walk_next(const struct tree *tree, guint i, guint *depth)
{
        if (tree->nodes[i].first != NONE) {
                ++*depth;
                return tree->nodes[i].first;
        }
        while (i != NONE && tree->nodes[i].next == NONE) {
                i = tree->nodes[i].parent;
                if (i != NONE)
                        --*depth;
        }
        return i == NONE ? NONE : tree->nodes[i].next;
}

static void append_label(JsonObject *row, GString *out)
{
        g_autofree char *handle = member_text(row, "handle");
        g_autofree char *comm = member_text(row, "comm");
        g_autofree char *path = member_text(row, "path");
        g_autofree char *shown_handle = print_escape(handle), *shown_comm = print_escape(comm);
        g_autofree char *shown_path = print_escape(path);

        g_string_append_printf(out,
                               "%s  %" PRId64 " %s %s  reads %" PRId64 "/%" PRId64
                               "  writes %" PRId64 "/%" PRId64 "\n",
                               shown_handle, member_int(row, "pid"), shown_comm, shown_path,
                               member_int(row, "reads"), member_int(row, "read_bytes"),
                               member_int(row, "writes"), member_int(row, "write_bytes"));
}

void tree_text(JsonArray *rows, bool utf8, GString *out)
{
        const char *tee = utf8 ? "├─ " : "|- ", *corner = utf8 ? "└─ " : "`- ";
        const char *bar = utf8 ? "│  " : "|  ", *blank = "   ";
        g_autoptr(GByteArray) more =
                g_byte_array_new(); /* for each level: comes another one there? */
        struct tree tree;
        guint depth = 0;

        tree_build(rows, &tree);
        for (guint i = tree.first; i != NONE; i = walk_next(&tree, i, &depth)) {
                guint8 another = tree.nodes[i].next != NONE;

                g_byte_array_set_size(more, depth);
                for (guint level = 1; level < depth; level++)
                        g_string_append(out, more->data[level] ? bar : blank);
                if (depth > 0)
                        g_string_append(out, another ? tee : corner);
                g_byte_array_append(more, &another, 1);
                append_label(json_array_get_object_element(rows, i), out);
        }
        g_free(tree.nodes);
}

/* The row as text without its closing bracket. */
static void append_open_row(JsonNode *row, GString *out)
{
        g_autofree char *text = json_to_string(row, FALSE);
        size_t length = strlen(text);

        g_string_append_len(out, text, (gssize)length - 1);
        g_string_append(out, length > 2 ? ",\"children\":[" : "\"children\":[");
}

void tree_json(JsonArray *rows, GString *out)
{
        struct tree tree;
        guint depth = 0, next, next_depth;

        tree_build(rows, &tree);
        g_string_append(out, "[");
        if (tree.first != NONE)
                g_string_append_c(out, '\n');
        for (guint i = tree.first; i != NONE; i = next) {
                append_open_row(json_array_get_element(rows, i), out);
                next_depth = depth;
                next = walk_next(&tree, i, &next_depth);
                if (next != NONE && next_depth > depth) {
                        depth = next_depth;
                        continue;
                }
                for (guint close = next == NONE ? depth : depth - next_depth;; close--) {
                        g_string_append(out, "]}");
                        if (close == 0)
                                break;
                }
                if (next != NONE)
                        g_string_append(out, next_depth == 0 ? ",\n" : ",");
                depth = next_depth;
        }
        g_string_append(out, tree.first != NONE ? "\n]\n" : "]\n");
        g_free(tree.nodes);
}

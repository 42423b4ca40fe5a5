/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rows are numbered; `parent`, `first`, `last` and `next` are row numbers, NONE for none.  The walk
 * goes down by `first`, along by `next` and up by `parent`.
 */
#include "ctl/tree.h"

#include <string.h>

#include "ctl/output.h"

#define NONE G_MAXUINT

struct node {
        guint parent, first, last, next;
};

struct tree {
        const struct row_set *set;
        struct node *nodes;
        guint n, first, last; /* of the top */
};

void tree_free(struct tree *tree)
{
        if (!tree)
                return;
        g_free(tree->nodes);
        g_free(tree);
}

/* ---- arranging ---- */

/* Handles of different mounts may have the same number. */
static guint handle_hash(const void *key)
{
        const struct row *row = key;

        return g_str_hash(row_string(row, COLUMN_HANDLE)) ^ g_direct_hash(row->mountpoint);
}

static gboolean handle_equal(const void *a, const void *b)
{
        const struct row *x = a, *y = b;

        return x->mountpoint == y->mountpoint &&
               g_str_equal(row_string(x, COLUMN_HANDLE), row_string(y, COLUMN_HANDLE));
}

static void find_parents(const struct tree *tree, guint *parents)
{
        g_autoptr(GHashTable) by_handle = g_hash_table_new(handle_hash, handle_equal);

        for (guint i = 0; i < tree->n; i++)
                if (row_string(row_set_at(tree->set, i), COLUMN_HANDLE))
                        g_hash_table_insert(by_handle, row_set_at(tree->set, i),
                                            GUINT_TO_POINTER(i + 1));
        for (guint i = 0; i < tree->n; i++) {
                struct row key = *row_set_at(tree->set, i);
                guint found = 0;

                key.values[COLUMN_HANDLE] = key.values[COLUMN_PARENT];
                if (row_string(&key, COLUMN_HANDLE))
                        found = GPOINTER_TO_UINT(g_hash_table_lookup(by_handle, &key));
                parents[i] = found ? found - 1 : NONE;
        }
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

static void open_circles(guint *parents, guint n)
{
        g_autofree bool *known = g_new0(bool, n);

        for (guint i = 0; i < n; i++)
                if (!reaches_top(parents, known, n, i))
                        parents[i] = NONE;
}

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

/* `shown` NULL: all.  Parents of what is shown are shown. */
static void link_nodes(struct tree *tree, const guint *parents, const bool *shown)
{
        tree->first = tree->last = NONE;
        for (guint i = 0; i < tree->n; i++)
                tree->nodes[i] = (struct node){NONE, NONE, NONE, NONE};
        for (guint i = 0; i < tree->n; i++)
                if (!shown || shown[i])
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

/* ---- sums ---- */

static const struct {
        enum column_id own, sum;
} summed[] = {
        {COLUMN_READS, COLUMN_TREE_READS},
        {COLUMN_READ_BYTES, COLUMN_TREE_READ_BYTES},
        {COLUMN_WRITES, COLUMN_TREE_WRITES},
        {COLUMN_WRITE_BYTES, COLUMN_TREE_WRITE_BYTES},
        {COLUMN_MAPPINGS, COLUMN_TREE_MAPPINGS},
        {COLUMN_MAPPED_BYTES, COLUMN_TREE_MAPPED_BYTES},
};

static void add_to(struct row *row, const struct row *child, enum column_id id)
{
        int64_t sum;

        if (__builtin_add_overflow(row_integer(row, id), row_integer(child, id), &sum))
                sum = G_MAXINT64;
        row_set_integer(row, id, sum);
}

/* `order`: all nodes, each after its parent. */
static void sum_up(struct row_set *set, const guint *parents, const guint *order, guint n)
{
        for (guint i = 0; i < n; i++)
                for (size_t s = 0; s < G_N_ELEMENTS(summed); s++)
                        row_set_integer(row_set_at(set, i), summed[s].sum,
                                        row_integer(row_set_at(set, i), summed[s].own));
        for (guint i = n; i-- > 0;)
                for (size_t s = 0; s < G_N_ELEMENTS(summed); s++)
                        if (parents[order[i]] != NONE)
                                add_to(row_set_at(set, parents[order[i]]),
                                       row_set_at(set, order[i]), summed[s].sum);
}

static void mark_shown(const struct row_set *set, const guint *parents, const guint *order, guint n,
                       bool (*wants)(const struct row *row, void *data), void *data, bool *shown)
{
        for (guint i = n; i-- > 0;) {
                guint at = order[i];

                shown[at] = shown[at] || !wants || wants(row_set_at(set, at), data);
                if (shown[at] && parents[at] != NONE)
                        shown[parents[at]] = true;
        }
}

struct tree *tree_new(struct row_set *set, bool (*wants)(const struct row *row, void *data),
                      void *data)
{
        struct tree *tree = g_new0(struct tree, 1);
        guint n = set->rows->len, depth = 0, at = 0;
        g_autofree guint *parents = g_new(guint, n), *order = g_new(guint, n);
        g_autofree bool *shown = g_new0(bool, n);

        tree->set = set;
        tree->n = n;
        tree->nodes = g_new(struct node, n);
        find_parents(tree, parents);
        open_circles(parents, n);
        link_nodes(tree, parents, NULL);
        for (guint i = tree->first; i != NONE; i = walk_next(tree, i, &depth))
                order[at++] = i;
        sum_up(set, parents, order, n);
        mark_shown(set, parents, order, n, wants, data, shown);
        link_nodes(tree, parents, shown);
        return tree;
}

/* ---- what it looks like ---- */

void tree_foreach(const struct tree *tree, bool utf8,
                  void (*fn)(const struct row *row, const char *branch, void *data), void *data)
{
        const char *tee = utf8 ? "├─ " : "|- ", *corner = utf8 ? "└─ " : "`- ";
        const char *bar = utf8 ? "│  " : "|  ", *blank = "   ";
        g_autoptr(GByteArray) more =
                g_byte_array_new(); /* for each level: comes another one there? */
        g_autoptr(GString) branch = g_string_new(NULL);
        guint depth = 0;

        for (guint i = tree->first; i != NONE; i = walk_next(tree, i, &depth)) {
                guint8 another = tree->nodes[i].next != NONE;

                g_byte_array_set_size(more, depth);
                g_string_truncate(branch, 0);
                for (guint level = 1; level < depth; level++)
                        g_string_append(branch, more->data[level] ? bar : blank);
                if (depth > 0)
                        g_string_append(branch, another ? tee : corner);
                g_byte_array_append(more, &another, 1);
                fn(row_set_at(tree->set, i), branch->str, data);
        }
}

void tree_json(const struct tree *tree, const GPtrArray *chosen, struct json_text *text)
{
        guint depth = 0, next, next_depth;

        json_text_open(text, '[');
        for (guint i = tree->first; i != NONE; i = next, depth = next_depth) {
                if (depth == 0) { /* a line for each at the top */
                        json_text_raw(text, text->comma ? ",\n" : "\n", text->comma ? 2 : 1);
                        text->comma = false;
                }
                json_text_open(text, '{');
                output_put_members(text, chosen, row_set_at(tree->set, i));
                json_text_key(text, "children");
                json_text_open(text, '[');
                next_depth = depth;
                next = walk_next(tree, i, &next_depth);
                if (next != NONE && next_depth > depth)
                        continue;
                /* this one ends, and those above it up to the level of the next */
                for (guint level = next == NONE ? 0 : next_depth; level <= depth; level++) {
                        json_text_close(text, ']');
                        json_text_close(text, '}');
                }
        }
        if (tree->first != NONE)
                json_text_raw(text, "\n", 1);
        json_text_close(text, ']');
}

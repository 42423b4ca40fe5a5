/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/sampler.h"

#include <string.h>

enum counter {
        READS,
        READ_BYTES,
        WRITES,
        WRITE_BYTES,
        COUNTERS,
};

static const enum column_id counter_columns[COUNTERS] = {
        COLUMN_READS,
        COLUMN_READ_BYTES,
        COLUMN_WRITES,
        COLUMN_WRITE_BYTES,
};

struct counters {
        int64_t values[COUNTERS];
};

struct sampler {
        GHashTable *last; /* of struct counters, by mount and handle */
        int64_t taken;    /* when; monotonic µs */
};

static GHashTable *new_counters(void)
{
        return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
}

struct sampler *sampler_new(void)
{
        struct sampler *sampler = g_new0(struct sampler, 1);

        sampler->last = new_counters();
        return sampler;
}

void sampler_free(struct sampler *sampler)
{
        if (!sampler)
                return;
        g_hash_table_unref(sampler->last);
        g_free(sampler);
}

static void set_rates(struct row *row, const struct counters *before, const struct counters *now,
                      double seconds)
{
        double rates[COUNTERS];

        for (int i = 0; i < COUNTERS; i++) {
                if (now->values[i] < before->values[i])
                        return;
                rates[i] = (double)(now->values[i] - before->values[i]) / seconds;
        }
        row_set_real(row, COLUMN_OP_RATE, rates[READS] + rates[WRITES]);
        row_set_real(row, COLUMN_RATE, rates[READ_BYTES] + rates[WRITE_BYTES]);
        row_set_real(row, COLUMN_READ_RATE, rates[READ_BYTES]);
        row_set_real(row, COLUMN_WRITE_RATE, rates[WRITE_BYTES]);
}

void sampler_take(struct sampler *sampler, struct row_set *set, int64_t now)
{
        GHashTable *current = new_counters();
        double seconds = (double)(now - sampler->taken) / G_USEC_PER_SEC;

        for (guint i = 0; i < set->rows->len; i++) {
                struct row *row = row_set_at(set, i);
                const char *handle = row_string(row, COLUMN_HANDLE);
                struct counters *counters = g_new(struct counters, 1), *before;
                char *key = g_strdup_printf("%s\n%s", row->mountpoint ? row->mountpoint : "",
                                            handle ? handle : "");

                for (int c = 0; c < COUNTERS; c++)
                        counters->values[c] = row_integer(row, counter_columns[c]);
                before = g_hash_table_lookup(sampler->last, key);
                if (before && seconds > 0)
                        set_rates(row, before, counters, seconds);
                g_hash_table_insert(current, key, counters);
        }
        g_hash_table_unref(sampler->last);
        sampler->last = current;
        sampler->taken = now;
}

/* ---- the order ---- */

struct order {
        const struct column *column;
        bool reverse;
};

static int compare_values(const struct value *a, const struct value *b)
{
        if (a->kind != b->kind) /* one of them has none */
                return 0;
        switch (a->kind) {
        case VALUE_STRING:
                return strcmp(a->string, b->string);
        case VALUE_INTEGER:
                return (a->integer < b->integer) - (a->integer > b->integer);
        case VALUE_REAL:
                return (a->real < b->real) - (a->real > b->real);
        case VALUE_NULL:
                break;
        }
        return 0;
}

/* What is equal stands by its bytes and then its handle, so that lines do not jump about. */
static int compare_ties(const struct row *a, const struct row *b)
{
        struct value x = column_value(&columns[COLUMN_BYTES], a);
        struct value y = column_value(&columns[COLUMN_BYTES], b);
        int r = compare_values(&x, &y);

        if (r == 0)
                r = compare_values(&a->values[COLUMN_HANDLE], &b->values[COLUMN_HANDLE]);
        if (r == 0)
                r = g_strcmp0(a->mountpoint, b->mountpoint);
        return r;
}

static gint compare_rows(gconstpointer a, gconstpointer b, gpointer data)
{
        const struct row *x = *(const struct row *const *)a, *y = *(const struct row *const *)b;
        const struct order *order = data;
        struct value left = column_value(order->column, x);
        struct value right = column_value(order->column, y);
        int r;

        if ((left.kind == VALUE_NULL) != (right.kind == VALUE_NULL))
                return left.kind == VALUE_NULL ? 1 : -1;
        r = compare_values(&left, &right);
        if (r == 0)
                return compare_ties(x, y);
        return order->reverse ? -r : r;
}

void rows_sort(GPtrArray *rows, const struct column *column, bool reverse)
{
        struct order order = {column, reverse};

        g_ptr_array_sort_with_data(rows, compare_rows, &order);
}

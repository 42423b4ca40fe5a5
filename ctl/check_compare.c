/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two kinds of difference: a row without anything behind it, and a process that opened a
 * description itself, still has it, and has no row.  A process that has a description of somebody
 * else and no row has not touched it yet: that is how it is meant to be.
 */
#include "ctl/check.h"

#include <inttypes.h>
#include <stdlib.h>

#include "ctl/print.h"

/* Sets of "PID:NUMBER" */
static char *pair(pid_t pid, uint64_t number)
{
        return g_strdup_printf("%d:%" PRIu64, (int)pid, number);
}

static bool has_pair(GHashTable *set, pid_t pid, uint64_t number)
{
        g_autofree char *key = pair(pid, number);

        return g_hash_table_contains(set, key);
}

static GHashTable *new_set(void)
{
        return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
}

struct seen *seen_new(void)
{
        struct seen *seen = g_new0(struct seen, 1);

        seen->descriptors = g_array_new(FALSE, TRUE, sizeof(struct seen_descriptor));
        seen->mappings = g_array_new(FALSE, TRUE, sizeof(struct seen_mapping));
        seen->living = g_hash_table_new(NULL, NULL);
        seen->closed_off = g_hash_table_new(NULL, NULL);
        return seen;
}

void seen_free(struct seen *seen)
{
        if (!seen)
                return;
        g_array_unref(seen->descriptors);
        g_array_unref(seen->mappings);
        g_hash_table_unref(seen->living);
        g_hash_table_unref(seen->closed_off);
        g_free(seen);
}

struct check_result *check_result_new(void)
{
        struct check_result *result = g_new0(struct check_result, 1);

        result->differences = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
        return result;
}

void check_result_free(struct check_result *result)
{
        if (!result)
                return;
        g_hash_table_unref(result->differences);
        g_free(result);
}

/* What the kernel says, for looking up. */
struct index {
        GHashTable *exact, *inexact, *mapped; /* (pid, description), (pid, ino), (pid, ino) */
        GHashTable *rows, *row_inodes;        /* (pid, description), (pid, ino) */
};

static void index_clear(struct index *index)
{
        g_hash_table_unref(index->exact);
        g_hash_table_unref(index->inexact);
        g_hash_table_unref(index->mapped);
        g_hash_table_unref(index->rows);
        g_hash_table_unref(index->row_inodes);
}

/* "INDEX.GENERATION" as one number; 0 when it is missing. */
static uint64_t row_id(JsonObject *row, const char *key)
{
        const char *text = member_string(row, key);
        char *end;
        uint64_t low;

        if (!text)
                return 0;
        low = strtoull(text, &end, 10);
        return *end == '.' ? strtoull(end + 1, NULL, 10) << 32 | (uint32_t)low : 0;
}

static void index_seen(struct index *index, const struct seen *seen, struct check_result *result)
{
        g_autoptr(GHashTable) processes = g_hash_table_new(NULL, NULL);

        for (guint i = 0; i < seen->descriptors->len; i++) {
                const struct seen_descriptor *d =
                        &g_array_index(seen->descriptors, struct seen_descriptor, i);

                g_hash_table_add(processes, GINT_TO_POINTER(d->pid));
                if (d->exact)
                        g_hash_table_add(index->exact, pair(d->pid, d->description));
                else {
                        g_hash_table_add(index->inexact, pair(d->pid, d->ino));
                        result->inexact++;
                }
        }
        for (guint i = 0; i < seen->mappings->len; i++) {
                const struct seen_mapping *m =
                        &g_array_index(seen->mappings, struct seen_mapping, i);

                g_hash_table_add(index->mapped, pair(m->pid, m->ino));
        }
        result->descriptors = seen->descriptors->len;
        result->processes = g_hash_table_size(processes);
        result->own = seen->own;
}

static void differ(struct check_result *result, char *key, char *line)
{
        g_hash_table_insert(result->differences, key, line);
}

/* Is there anything behind this row? */
static void check_row(JsonObject *row, struct index *index, const struct seen *seen,
                      struct check_result *result)
{
        const char *handle = member_string(row, "handle");
        g_autofree char *comm = member_text(row, "comm"), *path = member_text(row, "path");
        uint64_t description = row_id(row, "description");
        uint64_t ino = (uint64_t)member_int(row, "inode");
        pid_t pid = (pid_t)member_int(row, "pid");

        if (!handle)
                handle = "?";
        result->handles++;
        if (pid <= 0) {
                result->unowned++;
                return;
        }
        if (description)
                g_hash_table_add(index->rows, pair(pid, description));
        g_hash_table_add(index->row_inodes, pair(pid, ino));
        if (!g_hash_table_contains(seen->living, GINT_TO_POINTER(pid))) {
                differ(result, g_strdup_printf("row %s", handle),
                       g_strdup_printf(
                               "handle %s of process %d (%s) on %s: there is no such process",
                               handle, (int)pid, comm, path));
                return;
        }
        if (g_hash_table_contains(seen->closed_off, GINT_TO_POINTER(pid))) {
                result->closed_off++;
                return;
        }
        if (description &&
            (has_pair(index->exact, pid, description) || has_pair(index->inexact, pid, ino) ||
             has_pair(index->mapped, pid, ino)))
                return;
        differ(result, g_strdup_printf("row %s", handle),
               g_strdup_printf(
                       "handle %s of process %d (%s) on %s: the process has no descriptor or "
                       "mapping of it",
                       handle, (int)pid, comm, path));
}

/* Is there a row for this descriptor, if there has to be one? */
static void check_descriptor(const struct seen_descriptor *d, struct index *index,
                             GHashTable *untouched, struct check_result *result)
{
        if (!d->exact) {
                if (!has_pair(index->row_inodes, d->pid, d->ino))
                        g_hash_table_add(untouched, pair(d->pid, d->ino));
                return;
        }
        if (has_pair(index->rows, d->pid, d->description))
                return;
        if (d->opener_pid != d->pid) {
                g_hash_table_add(untouched, pair(d->pid, d->description));
                return;
        }
        differ(result, g_strdup_printf("descriptor %d:%" PRIu64, (int)d->pid, d->description),
               g_strdup_printf("process %d opened descriptor %d (inode %" PRIu64
                               ") itself, but has no handle on it",
                               (int)d->pid, d->fd, d->ino));
}

struct check_result *check_compare(JsonArray *rows, const struct seen *seen)
{
        struct check_result *result = check_result_new();
        g_autoptr(GHashTable) untouched = new_set();
        struct index index = {new_set(), new_set(), new_set(), new_set(), new_set()};

        index_seen(&index, seen, result);
        for (guint i = 0; i < json_array_get_length(rows); i++)
                check_row(json_array_get_object_element(rows, i), &index, seen, result);
        for (guint i = 0; i < seen->descriptors->len; i++)
                check_descriptor(&g_array_index(seen->descriptors, struct seen_descriptor, i),
                                 &index, untouched, result);
        result->untouched = g_hash_table_size(untouched);
        index_clear(&index);
        return result;
}

void check_keep_common(struct check_result *result, const struct check_result *earlier)
{
        GHashTableIter iter;
        void *key;

        g_hash_table_iter_init(&iter, result->differences);
        while (g_hash_table_iter_next(&iter, &key, NULL))
                if (!g_hash_table_contains(earlier->differences, key))
                        g_hash_table_iter_remove(&iter);
}

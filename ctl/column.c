/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table of columns, and how their values are made and written.
 */
#include "ctl/column.h"

#include <inttypes.h>
#include <math.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "ctl/print.h"

#define UNIT_STEP 1024.0

/* ---- derived values; *value is VALUE_NULL when they begin ---- */

static void derive_mountpoint(const struct row *row, struct value *value)
{
        if (row->mountpoint)
                *value = (struct value){.kind = VALUE_STRING, .string = row->mountpoint};
}

/* Names are looked up once a run; with a user directory in the network each costs a while. */
static const char *user_name(int64_t uid)
{
        static GHashTable *names;
        const struct passwd *user;
        char *name;

        if (!names)
                names = g_hash_table_new(g_int64_hash, g_int64_equal);
        name = g_hash_table_lookup(names, &uid);
        if (!name) {
                user = getpwuid((uid_t)uid);
                name = user ? g_utf8_make_valid(user->pw_name, -1)
                            : g_strdup_printf("%" PRId64, uid);
                g_hash_table_insert(names, g_memdup2(&uid, sizeof(uid)), name);
        }
        return name;
}

static void derive_user(const struct row *row, struct value *value)
{
        if (row->values[COLUMN_UID].kind == VALUE_INTEGER)
                *value = (struct value){.kind = VALUE_STRING,
                                        .string = user_name(row_integer(row, COLUMN_UID))};
}

/* From when it was opened to `end`, not below 0: clocks are set back. */
static void derive_span(const struct row *row, double end, struct value *value)
{
        if (row->values[COLUMN_OPENED].kind == VALUE_REAL)
                *value = (struct value){.kind = VALUE_REAL,
                                        .real = MAX(end - row->values[COLUMN_OPENED].real, 0)};
}

static void derive_age(const struct row *row, struct value *value)
{
        derive_span(row, row->now, value);
}

static void derive_duration(const struct row *row, struct value *value)
{
        if (row->values[COLUMN_CLOSED].kind == VALUE_REAL)
                derive_span(row, row->values[COLUMN_CLOSED].real, value);
}

/* The daemon's counters are 64 bits wide, and a lying daemon's sum may be wider. */
static void derive_sum(const struct row *row, enum column_id a, enum column_id b,
                       struct value *value)
{
        int64_t sum;

        if (__builtin_add_overflow(row_integer(row, a), row_integer(row, b), &sum))
                sum = INT64_MAX;
        *value = (struct value){.kind = VALUE_INTEGER, .integer = sum};
}

static void derive_ops(const struct row *row, struct value *value)
{
        derive_sum(row, COLUMN_READS, COLUMN_WRITES, value);
}

static void derive_bytes(const struct row *row, struct value *value)
{
        derive_sum(row, COLUMN_READ_BYTES, COLUMN_WRITE_BYTES, value);
}

/* ---- the table ---- */

#define COLUMN(ID, NAME, KIND, UNIT, VERBS, ...)                                                   \
        [COLUMN_##ID] = {COLUMN_##ID, NAME, VALUE_##KIND, UNIT_##UNIT, FOR_##VERBS, __VA_ARGS__}

/* clang-format off: a table */
const struct column columns[COLUMNS] = {
        COLUMN(HANDLE, "handle", STRING, NONE, ALL, "INDEX.GENERATION"),
        COLUMN(PARENT, "parent", STRING, NONE, ALL, "handle that it was derived from"),
        COLUMN(PID, "pid", INTEGER, NONE, ALL, "process that has it"),
        COLUMN(PPID, "ppid", INTEGER, NONE, ALL, "parent of the process when it was first seen"),
        COLUMN(UID, "uid", INTEGER, NONE, ALL, "real user of the process"),
        COLUMN(COMM, "comm", STRING, NONE, ALL, "name of the process"),
        COLUMN(EXE, "exe", STRING, NONE, ALL, "program of the process"),
        COLUMN(PATH, "path", STRING, NONE, ALL, "file, from the root of the mount"),
        COLUMN(TYPE, "type", STRING, NONE, ALL, "FILE or DIR"),
        COLUMN(FLAGS, "flags", STRING, NONE, ALL, "flags of open(2)"),
        COLUMN(RIGHTS, "rights", STRING, NONE, ALL, "of rwdc: read, write, duplicate, control"),
        COLUMN(CLASS, "class", STRING, NONE, ALL, "cached, counted or fast"),
        COLUMN(SHARING, "sharing", STRING, NONE, ALL, "lazy_init, non_shared or shared"),
        COLUMN(OPENED, "opened", REAL, TIME, ALL, "when it was given; seconds since the epoch"),
        COLUMN(READS, "reads", INTEGER, NONE, ALL, "read operations"),
        COLUMN(READ_BYTES, "read_bytes", INTEGER, BYTES, ALL, "bytes read"),
        COLUMN(WRITES, "writes", INTEGER, NONE, ALL, "write operations"),
        COLUMN(WRITE_BYTES, "write_bytes", INTEGER, BYTES, ALL, "bytes written"),
        COLUMN(MAPPINGS, "mappings", INTEGER, NONE, ALL, "calls of mmap(2), where programs count"),
        COLUMN(MAPPED_BYTES, "mapped_bytes", INTEGER, BYTES, ALL, "bytes that these mapped"),
        COLUMN(COUNTED_BY, "counted_by", STRING, NONE, ALL, "daemon, program, both or nobody"),
        COLUMN(CLOSED, "closed", REAL, TIME, HISTORY,
               "when it was closed; seconds since the epoch"),
        COLUMN(DESCRIPTION, "description", STRING, NONE, OPEN, "open file description behind it"),
        COLUMN(INODE, "inode", INTEGER, NONE, OPEN, "inode number"),
        COLUMN(TREE_READS, "tree_reads", INTEGER, NONE, TREE, "reads, with all that came from it"),
        COLUMN(TREE_READ_BYTES, "tree_read_bytes", INTEGER, BYTES, TREE,
               "read_bytes, with all that came from it"),
        COLUMN(TREE_WRITES, "tree_writes", INTEGER, NONE, TREE,
               "writes, with all that came from it"),
        COLUMN(TREE_WRITE_BYTES, "tree_write_bytes", INTEGER, BYTES, TREE,
               "write_bytes, with all that came from it"),
        COLUMN(TREE_MAPPINGS, "tree_mappings", INTEGER, NONE, TREE,
               "mappings, with all that came from it"),
        COLUMN(TREE_MAPPED_BYTES, "tree_mapped_bytes", INTEGER, BYTES, TREE,
               "mapped_bytes, with all that came from it"),
        COLUMN(OP_RATE, "op_rate", REAL, NONE, TOP, "operations a second"),
        COLUMN(RATE, "rate", REAL, BYTES, TOP, "bytes a second, read and written"),
        COLUMN(READ_RATE, "read_rate", REAL, BYTES, TOP, "bytes read a second"),
        COLUMN(WRITE_RATE, "write_rate", REAL, BYTES, TOP, "bytes written a second"),
        COLUMN(MOUNTPOINT, "mountpoint", STRING, NONE, ALL, "where it is mounted",
               derive_mountpoint),
        COLUMN(USER, "user", STRING, NONE, ALL, "name of the user", derive_user),
        COLUMN(AGE, "age", REAL, SECONDS, ALL, "seconds since it was given", derive_age),
        COLUMN(DURATION, "duration", REAL, SECONDS, HISTORY, "seconds that it was open",
               derive_duration),
        COLUMN(OPS, "ops", INTEGER, NONE, ALL, "reads and writes", derive_ops),
        COLUMN(BYTES, "bytes", INTEGER, BYTES, ALL, "read_bytes and write_bytes", derive_bytes),
};
/* clang-format on */

const struct column *column_find(const char *name, size_t length)
{
        for (unsigned i = 0; i < COLUMNS; i++)
                if (strlen(columns[i].name) == length &&
                    g_ascii_strncasecmp(columns[i].name, name, length) == 0)
                        return &columns[i];
        return NULL;
}

struct value column_value(const struct column *column, const struct row *row)
{
        struct value value = {.kind = VALUE_NULL};

        if (!column->derive)
                return row->values[column->id];
        column->derive(row, &value);
        return value;
}

bool column_is_number(const struct column *column)
{
        return column->kind != VALUE_STRING;
}

/* ---- text ---- */

static void append_bytes(double bytes, GString *out)
{
        static const char units[] = "BKMGTPE";
        unsigned unit = 0;

        while (fabs(bytes) >= UNIT_STEP - (unit ? 0.05 : 0.5) && units[unit + 1]) {
                bytes /= UNIT_STEP;
                unit++;
        }
        if (unit == 0)
                g_string_append_printf(out, "%.0f", bytes);
        else
                g_string_append_printf(out, "%.1f%c", bytes, units[unit]);
}

static void append_span(double seconds, GString *out)
{
        int64_t s = seconds < 1e15 ? (int64_t)seconds : (int64_t)1e15;

        if (seconds < 10)
                g_string_append_printf(out, "%.2fs", seconds);
        else if (s < 60)
                g_string_append_printf(out, "%" PRId64 "s", s);
        else if (s < 3600)
                g_string_append_printf(out, "%" PRId64 "m%02ds", s / 60, (int)(s % 60));
        else if (s < 86400)
                g_string_append_printf(out, "%" PRId64 "h%02dm", s / 3600, (int)(s % 3600 / 60));
        else
                g_string_append_printf(out, "%" PRId64 "d%02dh", s / 86400,
                                       (int)(s % 86400 / 3600));
}

static void append_time(double seconds, GString *out)
{
        time_t t = (time_t)CLAMP(seconds, -1e11, 1e11);
        struct tm tm;
        char text[64];

        if (localtime_r(&t, &tm) && strftime(text, sizeof(text), "%F %T", &tm) > 0)
                g_string_append(out, text);
        else
                g_string_append_c(out, '?');
}

static void append_number(const struct column *column, const struct value *value, bool readable,
                          GString *out)
{
        double number = value->kind == VALUE_REAL ? value->real : (double)value->integer;
        char text[G_ASCII_DTOSTR_BUF_SIZE + 320];

        if (readable && column->unit == UNIT_BYTES)
                append_bytes(number, out);
        else if (readable && column->unit == UNIT_SECONDS)
                append_span(number, out);
        else if (readable && column->unit == UNIT_TIME)
                append_time(number, out);
        else if (value->kind == VALUE_INTEGER)
                g_string_append_printf(out, "%" PRId64, value->integer);
        else
                g_string_append(out, g_ascii_formatd(text, sizeof(text), readable ? "%.1f" : "%.6f",
                                                     number));
}

void column_append_text(const struct column *column, const struct value *value, bool readable,
                        GString *out)
{
        size_t before = out->len;

        if (value->kind == VALUE_STRING)
                print_append_escaped(out, value->string);
        else if (value->kind != VALUE_NULL)
                append_number(column, value, readable, out);
        if (out->len == before)
                g_string_append_c(out, '-');
}

/* ---- the choice of columns ---- */

static void add_once(GPtrArray *chosen, const struct column *column)
{
        if (!g_ptr_array_find(chosen, column, NULL))
                g_ptr_array_add(chosen, (void *)column);
}

GPtrArray *columns_parse(const char *text, const enum column_id *defaults, size_t n_defaults,
                         unsigned verb, char **ret_error)
{
        g_autoptr(GPtrArray) chosen = g_ptr_array_new();
        bool beside = text && *text == '+';
        g_auto(GStrv) words = NULL;

        for (size_t i = 0; (!text || beside) && i < n_defaults; i++)
                add_once(chosen, &columns[defaults[i]]);
        if (!text)
                return g_steal_pointer(&chosen);
        words = g_strsplit_set(text + beside, ", \t\n", -1);
        for (char **word = words; *word; word++) {
                const struct column *column = column_find(*word, strlen(*word));

                if (!**word)
                        continue;
                if (!column) {
                        *ret_error = g_strdup_printf("unknown column '%s'", *word);
                        return NULL;
                }
                if (!(column->verbs & verb)) {
                        *ret_error = g_strdup_printf("column '%s' is not one of this verb", *word);
                        return NULL;
                }
                add_once(chosen, column);
        }
        if (chosen->len == 0) {
                *ret_error = g_strdup("--output takes at least one column");
                return NULL;
        }
        return g_steal_pointer(&chosen);
}

void columns_print_help(unsigned verb)
{
        static const char *const kinds[] = {"", "string", "number", "number"};

        for (unsigned i = 0; i < COLUMNS; i++)
                if (columns[i].verbs & verb)
                        printf("  %-17s %-6s  %s\n", columns[i].name, kinds[columns[i].kind],
                               columns[i].help);
}

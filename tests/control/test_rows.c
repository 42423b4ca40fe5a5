/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a daemon's answer to what is shown: the parser of rows, columns, tables, trees and their
 * sums, rates, and the escaping of Graphviz's labels.
 */
#include <glib.h>
#include <json-glib/json-glib.h>
#include <locale.h>
#include <string.h>

#include "ctl/column.h"
#include "ctl/dot.h"
#include "ctl/rows.h"
#include "ctl/sampler.h"
#include "ctl/table.h"
#include "ctl/tree.h"

/* ---- the parser ---- */

static void keep(const struct row *row, void *data)
{
        struct row_set *set = data;

        g_array_append_vals(set->rows, row, 1);
}

static const char *parse_at(struct row_set *set, const char *mountpoint, const char *text)
{
        GByteArray *copy = g_byte_array_new();
        struct row common = {.mountpoint = mountpoint, .now = 2000};

        g_byte_array_append(copy, (const guint8 *)text, (guint)strlen(text));
        g_ptr_array_add(set->texts, copy);
        return rows_parse((char *)copy->data, (char *)copy->data + copy->len, &common, keep, set);
}

static const char *parse(struct row_set *set, const char *text)
{
        return parse_at(set, NULL, text);
}

static void test_parse(void)
{
        g_autoptr(K42RowSet) set = row_set_new();
        struct row *row;

        g_assert_null(parse(
                set,
                " [ {\"handle\":\"1.1\" , \"parent\":null,\"pid\":-5,\"opened\":12.5,"
                "\"path\":\"/a\\\"b\\\\\\n\\u00e4\\ud83d\\ude00\\/\",\"later\":[{\"x\":\"]\"},[]],"
                "\"more\":true,\"none\":{},\"reads\":18446744073709551615},{},"
                "{\"write_bytes\":7,\"handle\":\"2.1\",\"opened\":3}] "));
        g_assert_cmpuint(set->rows->len, ==, 3);
        row = row_set_at(set, 0);
        g_assert_cmpstr(row_string(row, COLUMN_HANDLE), ==, "1.1");
        g_assert_cmpint(row->values[COLUMN_PARENT].kind, ==, VALUE_NULL);
        g_assert_cmpint(row_integer(row, COLUMN_PID), ==, -5);
        g_assert_cmpfloat(row->values[COLUMN_OPENED].real, ==, 12.5);
        g_assert_cmpstr(row_string(row, COLUMN_PATH), ==, "/a\"b\\\nä\xf0\x9f\x98\x80/");
        g_assert_cmpint(row_integer(row, COLUMN_READS), ==, G_MAXINT64);
        g_assert_cmpint(row_set_at(set, 1)->values[COLUMN_HANDLE].kind, ==, VALUE_NULL);
        g_assert_cmpint(row_integer(row_set_at(set, 2), COLUMN_WRITE_BYTES), ==, 7);
        g_assert_cmpfloat(row_set_at(set, 2)->values[COLUMN_OPENED].real, ==, 3);
}

static void test_parse_surrogates(void)
{
        g_autoptr(K42RowSet) set = row_set_new();

        g_assert_null(parse(set, "[{\"path\":\"\\ud800x\\udc00\\ud800\\u0041\"}]"));
        g_assert_cmpstr(row_string(row_set_at(set, 0), COLUMN_PATH), ==, "�x��A");
}

static void test_parse_nonsense(void)
{
        static const char *const texts[] = {
                "",
                "{}",
                "[",
                "[{]",
                "[{}",
                "[{}] x",
                "[{},]",
                "[{\"pid\"}]",
                "[{\"pid\":}]",
                "[{\"pid\":1,}]",
                "[{\"pid\":\"x\"}]",
                "[{\"pid\":1.5}]",
                "[{\"handle\":5}]",
                "[{\"handle\":\"a\\u0000b\"}]",
                "[{\"handle\":\"a\\x\"}]",
                "[{\"handle\":\"a\\u12\"}]",
                "[{\"handle\":\"a\nb\"}]",
                "[{\"handle\":\"a}]",
                "[{\"handle\":nul}]",
                "[{\"x\":[1}]",
                "[{\"x\":[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]}]",
                "[{\"pid\":--1}]",
                "[{\"opened\":1e}]",
                "[1]",
                "[{}{}]",
        };

        for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
                g_autoptr(K42RowSet) set = row_set_new();

                if (!parse(set, texts[i]))
                        g_error("taken: %s", texts[i]);
        }
}

/* A good answer with some of its bytes changed: whatever it says, no read or write goes astray (the
 * sanitizers look), and what is taken is well-formed. */
static void test_parse_random(void)
{
        static const char good[] = "[{\"handle\":\"1.1\",\"pid\":12,\"path\":\"/"
                                   "a\\u00e4\\ud83d\\ude00\\n\",\"opened\":1.5,"
                                   "\"x\":[1,{\"y\":\"z\"}]},{\"handle\":null,\"reads\":3}]";
        static const char bytes[] = "\"\\{}[],:0123456789.-eunltd \x01";
        GRand *rand = g_rand_new_with_seed(42);

        for (int i = 0; i < 50000; i++) {
                g_autoptr(K42RowSet) set = row_set_new();
                char text[sizeof(good)];

                memcpy(text, good, sizeof(good));
                for (int n = g_rand_int_range(rand, 1, 4); n > 0; n--)
                        text[g_rand_int_range(rand, 0, sizeof(good) - 1)] =
                                bytes[g_rand_int_range(rand, 0, sizeof(bytes) - 1)];
                text[g_rand_int_range(rand, (int)sizeof(good) / 2, sizeof(good))] = '\0';
                parse(set, text);
                for (guint r = 0; r < set->rows->len; r++) {
                        const char *path = row_string(row_set_at(set, r), COLUMN_PATH);

                        g_assert_true(!path || g_utf8_validate(path, -1, NULL));
                }
        }
        g_rand_free(rand);
}

/* ---- columns and the table ---- */

static const enum column_id defaults[] = {COLUMN_PID, COLUMN_PATH};

static void expect_columns(const char *text, const char *expected)
{
        g_autofree char *error = NULL;
        g_autoptr(GPtrArray) chosen =
                columns_parse(text, defaults, G_N_ELEMENTS(defaults), FOR_LIST, &error);
        g_autoptr(GString) names = g_string_new(NULL);

        for (guint i = 0; chosen && i < chosen->len; i++)
                g_string_append_printf(names, "%s%s", i ? " " : "",
                                       ((const struct column *)chosen->pdata[i])->name);
        g_assert_cmpstr(chosen ? names->str : error, ==, expected);
}

static void test_columns_parse(void)
{
        expect_columns(NULL, "pid path");
        expect_columns("comm", "comm");
        expect_columns("COMM,Read_Bytes", "comm read_bytes");
        expect_columns("+comm,uid", "pid path comm uid");
        expect_columns("+pid,comm", "pid path comm");
        expect_columns("comm comm,,comm", "comm");
        expect_columns("comm,nonsense", "unknown column 'nonsense'");
        expect_columns("comma", "unknown column 'comma'");
        expect_columns("closed", "column 'closed' is not one of this verb");
        expect_columns("", "--output takes at least one column");
        expect_columns(",", "--output takes at least one column");
}

/* Each column is at its place, has a name of its own and a word of help. */
static void test_columns_table(void)
{
        for (unsigned i = 0; i < COLUMNS; i++) {
                g_assert_cmpuint(columns[i].id, ==, i);
                g_assert_true(column_find(columns[i].name, strlen(columns[i].name)) == &columns[i]);
                g_assert_true((columns[i].derive != NULL) == (i >= COLUMN_STORED));
                g_assert_true(columns[i].help && *columns[i].help && columns[i].verbs);
        }
}

static void expect_text(enum column_id id, struct value value, bool readable, const char *expected)
{
        g_autoptr(GString) text = g_string_new(NULL);

        column_append_text(&columns[id], &value, readable, text);
        g_assert_cmpstr(text->str, ==, expected);
}

#define INTEGER(n) ((struct value){.kind = VALUE_INTEGER, .integer = (n)})
#define REAL(n)    ((struct value){.kind = VALUE_REAL, .real = (n)})
#define STRING(s)  ((struct value){.kind = VALUE_STRING, .string = (s)})

static void test_units(void)
{
        expect_text(COLUMN_READ_BYTES, INTEGER(1536), false, "1536");
        expect_text(COLUMN_READ_BYTES, INTEGER(0), true, "0");
        expect_text(COLUMN_READ_BYTES, INTEGER(1023), true, "1023");
        expect_text(COLUMN_READ_BYTES, INTEGER(1024), true, "1.0K");
        expect_text(COLUMN_READ_BYTES, INTEGER(1536), true, "1.5K");
        expect_text(COLUMN_READ_BYTES, INTEGER(1048575), true, "1.0M");
        expect_text(COLUMN_READ_BYTES, INTEGER(G_MAXINT64), true, "8.0E");
        expect_text(COLUMN_READS, INTEGER(1536), true, "1536");
        expect_text(COLUMN_AGE, REAL(1.234), true, "1.23s");
        expect_text(COLUMN_AGE, REAL(59.9), true, "59s");
        expect_text(COLUMN_AGE, REAL(200), true, "3m20s");
        expect_text(COLUMN_AGE, REAL(7500), true, "2h05m");
        expect_text(COLUMN_AGE, REAL(100000), true, "1d03h");
        expect_text(COLUMN_AGE, REAL(1e300), true, "11574074074d01h");
        expect_text(COLUMN_AGE, REAL(1.5), false, "1.500000");
        expect_text(COLUMN_PATH, STRING("/a b\n\x1b[2J"), true, "/a b\\u000a\\u001b[2J");
        expect_text(COLUMN_PATH, STRING(""), true, "-");
        expect_text(COLUMN_PATH, (struct value){0}, true, "-");
}

static void test_table(void)
{
        g_autofree char *error = NULL;
        g_autoptr(GPtrArray) chosen = columns_parse("comm,pid,path", NULL, 0, FOR_LIST, &error);
        g_autoptr(K42RowSet) set = row_set_new();
        g_autoptr(K42Table) table = table_new(chosen, false);
        g_autoptr(GString) text = g_string_new(NULL);

        g_assert_null(parse(set, "[{\"comm\":\"漢字\",\"pid\":5,\"path\":\"/x\"},"
                                 "{\"comm\":\"a\",\"pid\":12345,\"path\":\"/longer\"},{}]"));
        for (guint i = 0; i < 3; i++)
                table_add(table, row_set_at(set, i), i == 1 ? "`- " : NULL);
        table_add_headings(table);
        table_append_headings(table, text);
        for (unsigned i = 0; i < table_rows(table); i++) {
                g_string_append_c(text, '\n');
                table_append_row(table, i, text);
        }
        g_assert_cmpstr(text->str, ==,
                        "COMM    PID  PATH\n"
                        "漢字      5  /x\n"
                        "`- a  12345  /longer\n"
                        "-         -  -");
        g_assert_cmpuint(table_fit("a漢b", 2), ==, 1);
        g_assert_cmpuint(table_fit("a漢b", 3), ==, 4);
        g_assert_cmpuint(table_fit("a漢b", 9), ==, 5);
}

/* ---- tree ---- */

#define NODE(handle, parent, read)                                                                 \
        "{\"handle\":\"" handle "\",\"parent\":" parent                                            \
        ",\"pid\":1,\"reads\":1,\"read_bytes\":" read ",\"writes\":0,\"write_bytes\":" read "}"

static void tree_line(const struct row *row, const char *branch, void *data)
{
        g_string_append_printf(data, "%s%s %d/%d\n", branch, row_string(row, COLUMN_HANDLE),
                               (int)row_integer(row, COLUMN_READ_BYTES),
                               (int)row_integer(row, COLUMN_TREE_READ_BYTES));
}

static void expect_tree(const char *rows, bool utf8,
                        bool (*wants)(const struct row *row, void *data), const char *expected)
{
        g_autoptr(K42RowSet) set = row_set_new();
        g_autoptr(GString) text = g_string_new(NULL);
        g_autoptr(K42Tree) tree = NULL;

        g_assert_null(parse(set, rows));
        tree = tree_new(set, wants, NULL);
        tree_foreach(tree, utf8, tree_line, text);
        g_assert_cmpstr(text->str, ==, expected);
}

#define FAMILY                                                                                     \
        "[" NODE("1.1", "null", "1") "," NODE("2.1", "\"1.1\"", "20") "," NODE(                    \
                "3.1", "\"2.1\"", "300") "," NODE("4.1", "\"1.1\"",                                \
                                                  "4000") "," NODE("5.1", "\"9.9\"", "50000") "]"

static void test_tree(void)
{
        expect_tree(FAMILY, false, NULL,
                    "1.1 1/4321\n|- 2.1 20/320\n|  `- 3.1 300/300\n`- 4.1 4000/4000\n5.1 "
                    "50000/50000\n");
        expect_tree(FAMILY, true, NULL,
                    "1.1 1/4321\n├─ 2.1 20/320\n│  └─ 3.1 300/300\n└─ 4.1 4000/4000\n5.1 "
                    "50000/50000\n");
        expect_tree("[]", false, NULL, "");
}

static bool is_three(const struct row *row, void *data)
{
        return g_str_equal(row_string(row, COLUMN_HANDLE), "3.1");
}

static bool is_none(const struct row *row, void *data)
{
        return false;
}

/* Ancestors of what is wanted stay, and the sums are of all that there is. */
static void test_tree_filtered(void)
{
        expect_tree(FAMILY, false, is_three, "1.1 1/4321\n`- 2.1 20/320\n   `- 3.1 300/300\n");
        expect_tree(FAMILY, false, is_none, "");
}

/* A child that comes before its parent, and circles. */
static void test_tree_odd(void)
{
        expect_tree("[" NODE("2.1", "\"1.1\"", "2") "," NODE("1.1", "null", "1") "]", false, NULL,
                    "1.1 1/3\n`- 2.1 2/2\n");
        expect_tree("[" NODE("1.1", "\"1.1\"", "1") "]", false, NULL, "1.1 1/1\n");
        expect_tree("[" NODE("1.1", "\"2.1\"", "1") "," NODE("2.1", "\"1.1\"", "2") "," NODE(
                            "3.1", "\"2.1\"", "4") "]",
                    false, NULL, "1.1 1/7\n`- 2.1 2/6\n   `- 3.1 4/4\n");
        expect_tree(
                "[" NODE("1.1", "null", "9223372036854775807") "," NODE("2.1", "\"1.1\"", "1") "]",
                false, NULL, "1.1 -1/-1\n`- 2.1 1/1\n");
}

/* Two mounts have handles of the same numbers. */
static void test_tree_mounts(void)
{
        g_autoptr(K42RowSet) set = row_set_new();
        g_autoptr(GString) text = g_string_new(NULL);
        g_autoptr(K42Tree) tree = NULL;
        const char *a = g_intern_static_string("/a"), *b = g_intern_static_string("/b");

        g_assert_null(parse_at(set, a, "[" NODE("1.1", "null", "1") "]"));
        g_assert_null(parse_at(set, b, "[" NODE("2.1", "\"1.1\"", "2") "]"));
        tree = tree_new(set, NULL, NULL);
        tree_foreach(tree, false, tree_line, text);
        g_assert_cmpstr(text->str, ==, "1.1 1/1\n2.1 2/2\n");
}

static void test_tree_json(void)
{
        g_autoptr(K42RowSet) set = row_set_new();
        g_autofree char *error = NULL;
        g_autoptr(GPtrArray) chosen =
                columns_parse("handle,tree_read_bytes", NULL, 0, FOR_TREE, &error);
        g_auto(K42JsonText) text = JSON_TEXT_INIT;
        g_autoptr(K42Tree) tree = NULL;

        g_assert_null(parse(set, FAMILY));
        tree = tree_new(set, NULL, NULL);
        tree_json(tree, chosen, &text);
        json_text_raw(&text, "", 1);
        g_assert_cmpstr(text.data, ==,
                        "[\n{\"handle\":\"1.1\",\"tree_read_bytes\":4321,\"children\":["
                        "{\"handle\":\"2.1\",\"tree_read_bytes\":320,\"children\":["
                        "{\"handle\":\"3.1\",\"tree_read_bytes\":300,\"children\":[]}]},"
                        "{\"handle\":\"4.1\",\"tree_read_bytes\":4000,\"children\":[]}]},\n"
                        "{\"handle\":\"5.1\",\"tree_read_bytes\":50000,\"children\":[]}\n]");
}

/* A chain as long as many forks one after the other: nothing recurses. */
static void test_tree_deep(void)
{
        enum { DEEP = 20000 };
        g_autoptr(K42RowSet) set = row_set_new();
        g_autoptr(GString) rows = g_string_new("[");
        g_autofree char *error = NULL;
        g_autoptr(GPtrArray) chosen = columns_parse("handle", NULL, 0, FOR_TREE, &error);
        g_auto(K42JsonText) text = JSON_TEXT_INIT;
        g_autoptr(K42Tree) tree = NULL;

        for (int i = 1; i <= DEEP; i++)
                g_string_append_printf(
                        rows, "%s{\"handle\":\"%d.1\",\"parent\":\"%d.1\",\"read_bytes\":1}",
                        i > 1 ? "," : "", i, i - 1);
        g_string_append_c(rows, ']');
        g_assert_null(parse(set, rows->str));
        tree = tree_new(set, NULL, NULL);
        g_assert_cmpint(row_integer(row_set_at(set, 0), COLUMN_TREE_READ_BYTES), ==, DEEP);
        tree_json(tree, chosen, &text);
        json_text_raw(&text, "", 1);
        g_assert_true(g_str_has_suffix(text.data, "]}]}]}\n]"));
}

/* ---- top ---- */

static struct row *only_row(struct row_set *set, const char *text)
{
        g_assert_null(parse(set, text));
        return row_set_at(set, 0);
}

static void test_rates(void)
{
        g_autoptr(K42Sampler) sampler = sampler_new();
        g_autoptr(K42RowSet) first = row_set_new(), second = row_set_new(), third = row_set_new();
        struct row *row = only_row(first, "[{\"handle\":\"1.1\",\"reads\":1,\"read_bytes\":100}]");

        sampler_take(sampler, first, 5 * G_USEC_PER_SEC);
        g_assert_cmpint(row->values[COLUMN_RATE].kind, ==, VALUE_NULL);
        row = only_row(second, "[{\"handle\":\"1.1\",\"reads\":5,\"read_bytes\":300,\"writes\":2,"
                               "\"write_bytes\":1000},{\"handle\":\"2.1\",\"reads\":9}]");
        sampler_take(sampler, second, 7 * G_USEC_PER_SEC);
        g_assert_cmpfloat(row->values[COLUMN_OP_RATE].real, ==, 3);
        g_assert_cmpfloat(row->values[COLUMN_READ_RATE].real, ==, 100);
        g_assert_cmpfloat(row->values[COLUMN_WRITE_RATE].real, ==, 500);
        g_assert_cmpfloat(row->values[COLUMN_RATE].real, ==, 600);
        g_assert_cmpint(row_set_at(second, 1)->values[COLUMN_RATE].kind, ==, VALUE_NULL);
        /* another daemon's handle of the same number */
        row = only_row(third, "[{\"handle\":\"1.1\",\"reads\":1}]");
        sampler_take(sampler, third, 8 * G_USEC_PER_SEC);
        g_assert_cmpint(row->values[COLUMN_RATE].kind, ==, VALUE_NULL);
}

static void expect_order(struct row_set *set, enum column_id by, bool reverse, const char *expected)
{
        g_autoptr(GPtrArray) rows = g_ptr_array_new();
        g_autoptr(GString) text = g_string_new(NULL);

        for (guint i = 0; i < set->rows->len; i++)
                g_ptr_array_add(rows, row_set_at(set, i));
        rows_sort(rows, &columns[by], reverse);
        for (guint i = 0; i < rows->len; i++)
                g_string_append(text, row_string(rows->pdata[i], COLUMN_HANDLE));
        g_assert_cmpstr(text->str, ==, expected);
}

static void test_order(void)
{
        g_autoptr(K42RowSet) set = row_set_new();

        g_assert_null(parse(
                set, "[{\"handle\":\"a\",\"reads\":1,\"comm\":\"z\"},{\"handle\":\"b\"},"
                     "{\"handle\":\"c\",\"reads\":3,\"comm\":\"y\"},{\"handle\":\"d\",\"reads\":3,"
                     "\"read_bytes\":1}]"));
        expect_order(set, COLUMN_READS, false, "dcab");
        expect_order(set, COLUMN_READS, true, "adcb");
        expect_order(set, COLUMN_COMM, false, "cadb");
        expect_order(set, COLUMN_COMM, true, "acdb");
        expect_order(set, COLUMN_RATE, false, "dabc");
}

/* ---- graph ---- */

static void expect_label(const char *text, const char *expected)
{
        g_autoptr(GString) out = g_string_new(NULL);

        dot_append_label(out, text);
        g_assert_cmpstr(out->str, ==, expected);
}

static void test_dot_labels(void)
{
        g_autofree char *line = g_strnfill(500, 'x');
        g_autoptr(GString) out = g_string_new(NULL);

        expect_label("plain", "\"plain\"");
        expect_label("a\"b", "\"a\\\"b\"");
        expect_label("\\N \\n", "\"\\\\\\\\N \\\\\\\\n\""); /* twice: for us and for Graphviz */
        expect_label("&lt;<b>", "\"&amp;lt;<b>\"");
        expect_label("a\nb", "\"a\\\\u000ab\"");
        expect_label("\xff", "\"\\\\xff\"");
        expect_label("", "\"\"");
        dot_append_label(out, line);
        g_assert_cmpuint(out->len, <, 200);
        g_assert_nonnull(strstr(out->str, "xxx ... xxx"));
}

static void test_dot_graph(void)
{
        g_autoptr(K42RowSet) set = row_set_new();
        g_autoptr(GString) out = g_string_new(NULL);

        g_assert_null(parse(
                set,
                "[{\"handle\":\"1.1\",\"parent\":null,\"pid\":5,\"comm\":\"a\",\"path\":\"/f\"},"
                "{\"handle\":\"2.1\",\"parent\":\"1.1\",\"pid\":6,\"comm\":\"b\","
                "\"path\":\"/f\",\"reads\":1,\"read_bytes\":2048},"
                "{\"handle\":\"3.1\",\"parent\":\"7.7\",\"pid\":6,\"comm\":\"b\","
                "\"path\":\"/d\",\"type\":\"DIR\"}]"));
        dot_append_graph(set, NULL, NULL, out);
        g_assert_nonnull(strstr(out->str, "p1 -> h1;"));
        g_assert_nonnull(strstr(out->str, "p2 -> h2;"));
        g_assert_nonnull(strstr(out->str, "p2 -> h3;"));
        g_assert_nonnull(strstr(out->str, "h1 -> h2 ["));
        g_assert_nonnull(strstr(out->str, "h2 -> f1 ["));
        g_assert_nonnull(strstr(out->str, "h3 -> f2 ["));
        g_assert_nonnull(strstr(out->str, "2.1\\nread 2.0K"));
        g_assert_null(strstr(out->str, "p3"));
        g_assert_null(strstr(out->str, "-> h3 [")); /* its parent is closed */
}

int main(int argc, char **argv)
{
        setlocale(LC_CTYPE, "C.UTF-8");
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/row/parse", test_parse);
        g_test_add_func("/row/surrogates", test_parse_surrogates);
        g_test_add_func("/row/nonsense", test_parse_nonsense);
        g_test_add_func("/row/random", test_parse_random);
        g_test_add_func("/column/parse", test_columns_parse);
        g_test_add_func("/column/table", test_columns_table);
        g_test_add_func("/column/units", test_units);
        g_test_add_func("/table", test_table);
        g_test_add_func("/tree/text", test_tree);
        g_test_add_func("/tree/filtered", test_tree_filtered);
        g_test_add_func("/tree/odd", test_tree_odd);
        g_test_add_func("/tree/mounts", test_tree_mounts);
        g_test_add_func("/tree/json", test_tree_json);
        g_test_add_func("/tree/deep", test_tree_deep);
        g_test_add_func("/top/rates", test_rates);
        g_test_add_func("/top/order", test_order);
        g_test_add_func("/dot/labels", test_dot_labels);
        g_test_add_func("/dot/graph", test_dot_graph);
        return g_test_run();
}

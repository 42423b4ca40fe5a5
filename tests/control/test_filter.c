/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The language of filters: what it means, where it says that something is wrong, and that no text
 * whatever does anything but compile or be refused.
 */
#include <glib.h>
#include <string.h>

#include "ctl/column.h"
#include "ctl/filter.h"

/* 12.1 of process 100 (python3) on /data/model.npz: 5 reads of 2048 bytes, nothing written; no
 * parent. */
static struct row sample(void)
{
        struct row row = {.mountpoint = "/mnt", .now = 1010};

        row.values[COLUMN_HANDLE] = (struct value){.kind = VALUE_STRING, .string = "12.1"};
        row.values[COLUMN_COMM] = (struct value){.kind = VALUE_STRING, .string = "python3"};
        row.values[COLUMN_EXE] = (struct value){.kind = VALUE_STRING, .string = ""};
        row.values[COLUMN_PATH] =
                (struct value){.kind = VALUE_STRING, .string = "/data/it's \"a\" model.npz"};
        row_set_integer(&row, COLUMN_PID, 100);
        row_set_integer(&row, COLUMN_PPID, 99);
        row_set_integer(&row, COLUMN_READS, 5);
        row_set_integer(&row, COLUMN_READ_BYTES, 2048);
        row_set_integer(&row, COLUMN_WRITES, 0);
        row_set_integer(&row, COLUMN_WRITE_BYTES, 0);
        row_set_real(&row, COLUMN_OPENED, 1000.5);
        return row;
}

static void expect(const char *text, bool expected)
{
        struct row row = sample();
        g_autofree char *error = NULL;
        g_autoptr(K42Filter) filter = filter_new(text, FOR_LIST, &error);

        if (!filter)
                g_error("%s: %s", text, error);
        if (filter_match(filter, &row) != expected)
                g_error("%s: is %d", text, !expected);
}

static void test_comparisons(void)
{
        expect("pid == 100", true);
        expect("pid != 100", false);
        expect("pid > 99 and pid < 101", true);
        expect("pid >= 100 and pid <= 100", true);
        expect("pid >= 100.5", false);
        expect("pid > -1", true);
        expect("read_bytes == 2K", true);
        expect("read_bytes == 2k", true);
        expect("read_bytes >= 1.5K and read_bytes < 1M", true);
        expect("opened == 1000.5", true);
        expect("100 == pid", true);
        expect("pid > ppid", true);
        expect("reads > writes", true);
        expect("reads eq 5 and reads ne 6 and reads lt 6 and reads le 5 and reads gt 4 and reads "
               "ge 5",
               true);
        expect("comm == \"python3\"", true);
        expect("comm == 'python3'", true);
        expect("comm < 'q'", true);
        expect("handle == '12.1'", true);
        expect("PID == 100 AND Comm == 'python3'", true);
        expect("path == '/data/it''s \"a\" model.npz'", true);
        expect("path == \"/data/it's \"\"a\"\" model.npz\"", true);
}

static void test_regular_expressions(void)
{
        expect("path =~ '\\.npz$'", true);
        expect("path =~ '^data'", false);
        expect("path !~ '^data'", true);
        expect("comm =~ '(?i)PYTHON\\d'", true);
        /* one that backtracks for ever is given up */
        expect("path =~ '^(([^x])+.)+[A-Z]([^x])+$' or pid == 100", true);
}

static void test_logic(void)
{
        expect("pid == 1 or pid == 100", true);
        expect("pid == 1 || pid == 100", true);
        expect("pid == 100 && pid == 1", false);
        expect("not pid == 1", true);
        expect("!(pid == 1)", true);
        expect("not not pid == 100", true);
        /* and binds more tightly than or, not than both */
        expect("pid == 100 or pid == 100 and pid == 1", true);
        expect("(pid == 100 or pid == 100) and pid == 1", false);
        expect("pid == 1 and pid == 1 or pid == 100", true);
        expect("not pid == 1 and pid == 100", true);
        expect("not (pid == 1 and pid == 100)", true);
        expect("pid == 1 and (pid == 1 or pid == 100)", false);
        expect("(pid == 1 or (pid == 100 and (reads == 5 or reads == 6)))", true);
        expect("not (pid == 1 or not (pid == 100))", true);
}

static void test_nulls_and_truth(void)
{
        expect("parent == null", true);
        expect("parent != NULL", false);
        expect("comm != null", true);
        expect("parent == '1.1'", false);
        expect("parent != '1.1'", true);
        expect("parent < '9'", false);
        expect("parent >= ''", false);
        expect("parent =~ '.*'", false);
        expect("parent !~ '.*'", true);
        expect("parent", false);
        expect("not parent", true);
        expect("reads", true);
        expect("writes", false);
        expect("exe", false);
        expect("comm and not writes", true);
}

static void test_derived(void)
{
        expect("age > 9 and age < 10", true);
        expect("ops == 5 and bytes == 2048", true);
        expect("mountpoint == '/mnt'", true);
}

static void expect_error(const char *text, long where, const char *what)
{
        g_autofree char *error = NULL, *prefix = NULL;
        g_autoptr(K42Filter) filter = filter_new(text, FOR_LIST, &error);

        g_assert_null(filter);
        prefix = g_strdup_printf("the filter, at character %ld: ", where);
        if (!g_str_has_prefix(error, prefix) || !strstr(error, what))
                g_error("%s: %s", text, error);
}

static void test_errors(void)
{
        expect_error("", 1, "the filter ends");
        expect_error("pid ==", 7, "the filter ends");
        expect_error("pid == 100 and", 15, "the filter ends");
        expect_error("pidd == 100", 1, "unknown column 'pidd'");
        expect_error("pid == 100 200", 12, "not '200'");
        expect_error("pid = 100", 5, "not a word");
        expect_error("pid == 'x'", 5, "a string is compared with a number");
        expect_error("comm > 5", 6, "a string is compared with a number");
        expect_error("pid =~ 'x'", 5, "only a string");
        expect_error("comm =~ path", 6, "a string in quotes");
        expect_error("comm =~ '('", 6, "regular expression is wrong");
        expect_error("parent < null", 8, "== and != only");
        expect_error("(pid == 1", 10, "')'");
        expect_error("pid == 1)", 9, "not ')'");
        expect_error("comm == 'x", 9, "closing quote");
        expect_error("pid == 12x", 8, "not a number");
        expect_error("pid == 0x10", 8, "not a number");
        expect_error("pid == 1.2.3", 8, "not a number");
        expect_error("pid == 1e5", 8, "not a number");
        expect_error("pid == -", 8, "not a number");
        expect_error("'x'", 4, "an operator like ==");
        expect_error("and", 1, "not 'and'");
        expect_error("comm == 'ä' und", 13, "not 'und'");
        expect_error("closed > 5", 1, "not one of this verb");
        expect_error("\x01", 1, "not a word");
}

static void test_not_utf8(void)
{
        g_autofree char *error = NULL;

        g_assert_null(filter_new("comm == '\xff'", FOR_LIST, &error));
        g_assert_nonnull(strstr(error, "UTF-8"));
}

static void test_deep(void)
{
        g_autoptr(GString) text = g_string_new(NULL);
        g_autofree char *error = NULL;

        for (int i = 0; i < 100000; i++)
                g_string_append_c(text, i % 2 ? '!' : '(');
        g_assert_null(filter_new(text->str, FOR_LIST, &error));
        g_assert_nonnull(strstr(error, "nested"));
        /* long is not deep */
        g_string_assign(text, "pid == 0");
        for (int i = 0; i < 20000; i++)
                g_string_append(text, i % 2 ? " or pid == 0" : " and pid == 1");
        g_string_append(text, " or pid == 100");
        expect(text->str, true);
}

/* Words of the language and bytes that are not, in any order. */
static void test_random_texts(void)
{
        static const char *const pieces[] = {
                "pid",   "comm",      "parent", "==",   "!=", "=~",       "!~",  "<",  "<=", "(",
                ")",     "and",       "or",     "not",  "!",  "null",     "5",   "1K", "-3", "'x'",
                "\"y\"", "'",         "\"",     "path", " ",  "\xc3\xa4", "&&",  "||", "=",  "'('",
                "'['",   "'a{1000}'", "x",      "\n",   "\\", "%n",       "1.5", ".",
        };
        struct row row = sample();
        GRand *rand = g_rand_new_with_seed(4242);
        unsigned good = 0;

        for (int i = 0; i < 30000; i++) {
                g_autoptr(GString) text = g_string_new(NULL);
                g_autofree char *error = NULL;
                g_autoptr(K42Filter) filter = NULL;

                for (int n = g_rand_int_range(rand, 0, 14); n > 0; n--) {
                        g_string_append(text,
                                        pieces[g_rand_int_range(rand, 0, G_N_ELEMENTS(pieces))]);
                        if (g_rand_boolean(rand))
                                g_string_append_c(text, ' ');
                }
                if (g_rand_int_range(rand, 0, 10) == 0 && text->len > 0)
                        text->str[g_rand_int_range(rand, 0, (int)text->len)] =
                                (char)g_rand_int_range(rand, 1, 256);
                filter = filter_new(text->str, FOR_LIST, &error);
                g_assert_true((filter == NULL) == (error != NULL));
                if (error)
                        g_assert_true(g_utf8_validate(error, -1, NULL));
                if (filter) {
                        filter_match(filter, &row);
                        good++;
                }
        }
        g_rand_free(rand);
        g_assert_cmpuint(good, >, 100); /* it was not all refused at the first word */
}

static void test_uses(void)
{
        g_autofree char *error = NULL;
        g_autoptr(K42Filter) filter = filter_new("pid == 1 or 5 < inode", FOR_LIST, &error);

        g_assert_true(filter_uses(filter, COLUMN_INODE));
        g_assert_true(filter_uses(filter, COLUMN_PID));
        g_assert_false(filter_uses(filter, COLUMN_COMM));
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/filter/comparisons", test_comparisons);
        g_test_add_func("/filter/regular-expressions", test_regular_expressions);
        g_test_add_func("/filter/logic", test_logic);
        g_test_add_func("/filter/nulls-and-truth", test_nulls_and_truth);
        g_test_add_func("/filter/derived", test_derived);
        g_test_add_func("/filter/errors", test_errors);
        g_test_add_func("/filter/not-utf8", test_not_utf8);
        g_test_add_func("/filter/deep", test_deep);
        g_test_add_func("/filter/random-texts", test_random_texts);
        g_test_add_func("/filter/uses", test_uses);
        return g_test_run();
}

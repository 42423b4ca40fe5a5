/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of k42ctl that need no daemon: the comparison of check, mountinfo, escaping.
 */
#include <glib.h>
#include <json-glib/json-glib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "ctl/check.h"
#include "ctl/connect.h"
#include "ctl/print.h"

static JsonNode *parse(const char *text)
{
        g_autoptr(JsonParser) parser = json_parser_new();
        g_autoptr(GError) error = NULL;

        json_parser_load_from_data(parser, text, -1, &error);
        g_assert_no_error(error);
        return json_node_copy(json_parser_get_root(parser));
}

/* ---- check ---- */

#define ROWS                                                                                       \
        "[{\"handle\":\"1.1\",\"pid\":100,\"comm\":\"a\",\"path\":\"/"                             \
        "f\",\"description\":\"7.1\",\"inode\":5},"                                                \
        "{\"handle\":\"2.1\",\"pid\":200,\"comm\":\"b\",\"path\":\"/"                              \
        "f\",\"description\":\"7.1\",\"inode\":5}]"
#define DESCRIPTION ((uint64_t)1 << 32 | 7)

static void add_process(struct seen *seen, pid_t pid)
{
        g_hash_table_add(seen->living, GINT_TO_POINTER(pid));
}

static void add_descriptor(struct seen *seen, pid_t pid, int fd, uint64_t description, pid_t opener)
{
        struct seen_descriptor d = {.pid = pid,
                                    .fd = fd,
                                    .ino = 5,
                                    .exact = description != 0,
                                    .description = description,
                                    .opener_pid = opener};

        add_process(seen, pid);
        g_array_append_val(seen->descriptors, d);
}

static struct check_result *compare(const char *rows, struct seen *seen)
{
        g_autoptr(JsonNode) node = parse(rows);

        return check_compare(json_node_get_array(node), seen);
}

static void expect(const char *rows, struct seen *seen, unsigned differences, const char *key)
{
        g_autoptr(K42CheckResult) result = compare(rows, seen);

        g_assert_cmpuint(g_hash_table_size(result->differences), ==, differences);
        if (key)
                g_assert_true(g_hash_table_contains(result->differences, key));
}

static void test_equal(void)
{
        g_autoptr(K42Seen) seen = seen_new();
        g_autoptr(K42CheckResult) result = NULL;

        add_descriptor(seen, 100, 3, DESCRIPTION, 100);
        add_descriptor(seen, 100, 4, DESCRIPTION, 100); /* a dup */
        add_descriptor(seen, 200, 3, DESCRIPTION, 100); /* inherited and touched */
        add_descriptor(seen, 300, 3, DESCRIPTION, 100); /* inherited, not touched */
        seen->own = 2;
        result = compare(ROWS, seen);
        g_assert_cmpuint(g_hash_table_size(result->differences), ==, 0);
        g_assert_cmpuint(result->handles, ==, 2);
        g_assert_cmpuint(result->descriptors, ==, 4);
        g_assert_cmpuint(result->processes, ==, 3);
        g_assert_cmpuint(result->untouched, ==, 1);
        g_assert_cmpuint(result->own, ==, 2);
        g_assert_cmpuint(result->inexact, ==, 0);
}

/* The planted lies: each must be found. */
static void test_row_without_descriptor(void)
{
        g_autoptr(K42Seen) seen = seen_new();

        add_descriptor(seen, 100, 3, DESCRIPTION, 100);
        add_process(seen, 200);
        expect(ROWS, seen, 1, "row 2.1");
}

static void test_row_with_other_description(void)
{
        g_autoptr(K42Seen) seen = seen_new();

        add_descriptor(seen, 100, 3, DESCRIPTION, 100);
        add_descriptor(seen, 200, 3, DESCRIPTION + 1, 100); /* the same file, another open */
        expect(ROWS, seen, 1, "row 2.1");
}

static void test_row_of_dead_process(void)
{
        g_autoptr(K42Seen) seen = seen_new();

        add_descriptor(seen, 100, 3, DESCRIPTION, 100);
        expect(ROWS, seen, 1, "row 2.1");
}

static void test_opened_without_row(void)
{
        g_autoptr(K42Seen) seen = seen_new();

        add_descriptor(seen, 100, 3, DESCRIPTION, 100);
        add_descriptor(seen, 200, 3, DESCRIPTION, 100);
        add_descriptor(seen, 300, 9, DESCRIPTION + 5, 300);
        expect(ROWS, seen, 1, "descriptor 300:4294967308");
}

static void test_row_without_identity(void)
{
        g_autoptr(K42Seen) seen = seen_new();

        add_process(seen, 100);
        expect("[{\"handle\":\"1.1\",\"pid\":100,\"description\":null,\"inode\":null}]", seen, 1,
               "row 1.1");
}

static void test_mapping_counts(void)
{
        g_autoptr(K42Seen) seen = seen_new();
        struct seen_mapping mapping = {.pid = 200, .ino = 5};

        add_descriptor(seen, 100, 3, DESCRIPTION, 100);
        add_process(seen, 200);
        g_array_append_val(seen->mappings, mapping);
        expect(ROWS, seen, 0, NULL);
}

static void test_inexact(void)
{
        g_autoptr(K42Seen) seen = seen_new();
        g_autoptr(K42CheckResult) result = NULL;

        add_descriptor(seen, 100, 3, 0, 0);
        add_descriptor(seen, 200, 3, 0, 0);
        add_descriptor(seen, 300, 3, 0, 0);
        result = compare(ROWS, seen);
        g_assert_cmpuint(g_hash_table_size(result->differences), ==, 0);
        g_assert_cmpuint(result->inexact, ==, 3);
        g_assert_cmpuint(result->untouched, ==, 1);
}

static void test_closed_off_and_unowned(void)
{
        g_autoptr(K42Seen) seen = seen_new();
        g_autoptr(K42CheckResult) result = NULL;

        add_process(seen, 100);
        g_hash_table_add(seen->closed_off, GINT_TO_POINTER(100));
        result = compare("[{\"handle\":\"1.1\",\"pid\":100,\"description\":\"7.1\",\"inode\":5},"
                         "{\"handle\":\"2.1\",\"pid\":0,\"description\":\"8.1\",\"inode\":5}]",
                         seen);
        g_assert_cmpuint(g_hash_table_size(result->differences), ==, 0);
        g_assert_cmpuint(result->closed_off, ==, 1);
        g_assert_cmpuint(result->unowned, ==, 1);
}

static void test_passing_differences(void)
{
        g_autoptr(K42CheckResult) first = check_result_new(), second = check_result_new();

        g_hash_table_insert(first->differences, g_strdup("row 1.1"), g_strdup("x"));
        g_hash_table_insert(first->differences, g_strdup("row 2.1"), g_strdup("x"));
        g_hash_table_insert(second->differences, g_strdup("row 2.1"), g_strdup("x"));
        g_hash_table_insert(second->differences, g_strdup("row 3.1"), g_strdup("x"));
        check_keep_common(second, first);
        g_assert_cmpuint(g_hash_table_size(second->differences), ==, 1);
        g_assert_true(g_hash_table_contains(second->differences, "row 2.1"));
}

/* ---- the rest ---- */

static void test_mountinfo(void)
{
        g_autoptr(GPtrArray) targets = targets_parse(
                "22 28 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n"
                "90 28 0:45 / /mnt/a\\040b rw,nosuid shared:50 master:3 - fuse.k42fs /s\\011c "
                "rw,user_id=1000,group_id=0\n"
                "91 28 0:45 /sub /mnt/bind rw - fuse.k42fs /src rw,user_id=1000\n"
                "92 28 0:46 / /mnt/fuse.k42fs rw - ext4 /dev/sda rw\n"
                "93 28 0:47 / /mnt/c rw - fuse.k42fs /src2 rw,user_id=0\n"
                "94 28 0:48 / /mnt/cut rw - fuse.k42fs");
        struct target *target;

        g_assert_cmpuint(targets->len, ==, 2);
        target = targets->pdata[0];
        g_assert_cmpstr(target->mountpoint, ==, "/mnt/a b");
        g_assert_cmpstr(target->source, ==, "/s\tc");
        g_assert_cmpuint(target->uid, ==, 1000);
        g_assert_cmpuint(minor(target->dev), ==, 45);
        g_assert_cmpint(target->mount_id, ==, 90);
        target = targets->pdata[1];
        g_assert_cmpstr(target->mountpoint, ==, "/mnt/c");
        g_assert_cmpuint(target->uid, ==, 0);
}

static void expect_escaped(const char *text, const char *expected)
{
        g_autofree char *escaped = print_escape(text);

        g_assert_cmpstr(escaped, ==, expected);
}

static void test_escape(void)
{
        expect_escaped("plain text", "plain text");
        expect_escaped("a\nb\x1b[31m", "a\\u000ab\\u001b[31m");
        expect_escaped("back\\slash", "back\\\\slash");
        expect_escaped("\xc2\x9b", "\\u009b");     /* CSI of 8-bit terminals */
        expect_escaped("\xe2\x80\xae", "\\u202e"); /* turns the line around */
        expect_escaped("\xff", "\\xff");
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/check/equal", test_equal);
        g_test_add_func("/check/row-without-descriptor", test_row_without_descriptor);
        g_test_add_func("/check/row-with-other-description", test_row_with_other_description);
        g_test_add_func("/check/row-of-dead-process", test_row_of_dead_process);
        g_test_add_func("/check/opened-without-row", test_opened_without_row);
        g_test_add_func("/check/row-without-identity", test_row_without_identity);
        g_test_add_func("/check/mapping-counts", test_mapping_counts);
        g_test_add_func("/check/inexact", test_inexact);
        g_test_add_func("/check/closed-off-and-unowned", test_closed_off_and_unowned);
        g_test_add_func("/check/passing-differences", test_passing_differences);
        g_test_add_func("/connect/mountinfo", test_mountinfo);
        g_test_add_func("/print/escape", test_escape);
        return g_test_run();
}

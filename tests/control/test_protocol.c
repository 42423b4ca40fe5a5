/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The names that daemon and k42ctl agree on, and JSON as text.
 */
#include <glib.h>
#include <json-glib/json-glib.h>
#include <string.h>
#include <unistd.h>

#include "ctl/control_protocol.h"
#include "ctl/json_text.h"

static void expect_id(const char *mountpoint, const char *expected)
{
        g_autofree char *id = control_state_id(mountpoint);

        g_assert_cmpstr(id, ==, expected);
}

static void test_state_id(void)
{
        expect_id("/", "-");
        expect_id("/mnt", "mnt");
        expect_id("/mnt/a", "mnt-a");
        expect_id("/mnt//a/", "mnt-a");
        expect_id("/mnt/a-b", "mnt-a\\x2db");
        expect_id("/.hidden/.x", "\\x2ehidden-.x");
        expect_id("/a b\n", "a\\x20b\\x0a");
        expect_id("/A:_.9", "A:_.9");
        expect_id("/\xc3\xa4", "\\xc3\\xa4");
        expect_id("/@0:45", "\\x400:45");
}

static void test_state_id_long(void)
{
        g_autofree char *path = g_strnfill(4000, 'a'), *other = g_strnfill(4000, 'a');
        g_autofree char *id = NULL, *other_id = NULL, *edge = NULL, *edge_id = NULL;

        path[0] = other[0] = '/';
        other[3999] = 'b';
        id = control_state_id(path);
        other_id = control_state_id(other);
        g_assert_cmpuint(strlen(id), ==, 150 + 1 + 32);
        g_assert_cmpint(id[150], ==, '~');
        g_assert_cmpint(strncmp(id, other_id, 151), ==, 0);
        g_assert_cmpstr(id, !=, other_id);

        edge = g_strnfill(201, 'a');
        edge[0] = '/';
        edge_id = control_state_id(edge);
        g_assert_cmpstr(edge_id, ==, edge + 1); /* 200 bytes are not too long */
}

static void test_default_dir(void)
{
        g_autofree char *root = control_default_state_dir("/mnt/a", 0);
        g_autofree char *link = control_device_link(0, 0, 45);
        g_autofree char *other = control_default_state_dir("/mnt/a", 54321);

        g_assert_cmpstr(root, ==, "/run/k42fs/mnt-a");
        g_assert_cmpstr(link, ==, "/run/k42fs/@0:45");
        g_assert_cmpstr(other, ==, "/run/user/54321/k42fs/mnt-a");
}

/* What was written, parsed by somebody else. */
static JsonNode *reread(struct json_text *text)
{
        g_autoptr(JsonParser) parser = json_parser_new();
        g_autoptr(GError) error = NULL;

        g_assert_false(text->failed);
        g_assert_null(json_text_check(text->data, text->length, 16));
        json_parser_load_from_data(parser, text->data, (gssize)text->length, &error);
        g_assert_no_error(error);
        return json_node_copy(json_parser_get_root(parser));
}

static void test_text(void)
{
        g_auto(K42JsonText) text = JSON_TEXT_INIT, inner = JSON_TEXT_INIT;
        g_autoptr(JsonNode) node = NULL;
        JsonObject *object;

        json_text_open(&inner, '[');
        json_text_uint(&inner, 1);
        json_text_int(&inner, -2);
        json_text_close(&inner, ']');

        json_text_open(&text, '{');
        json_text_key(&text, "a");
        json_text_string(&text, "q\"b\\c\n\x01\x7f \xc3\xa4 \xff\xfe \xe2\x82");
        json_text_key(&text, "n");
        json_text_string(&text, NULL);
        json_text_key(&text, "big");
        json_text_uint(&text, G_MAXINT64);
        json_text_key(&text, "t");
        json_text_seconds(&text, 1.5);
        json_text_key(&text, "b");
        json_text_bool(&text, true);
        json_text_key(&text, "i");
        json_text_value(&text, &inner);
        json_text_key(&text, "e");
        json_text_open(&text, '[');
        json_text_close(&text, ']');
        json_text_close(&text, '}');

        node = reread(&text);
        object = json_node_get_object(node);
        g_assert_cmpstr(
                json_object_get_string_member(object, "a"), ==,
                "q\"b\\c\n\x01\x7f \xc3\xa4 \xef\xbf\xbd\xef\xbf\xbd \xef\xbf\xbd\xef\xbf\xbd");
        g_assert_true(json_object_get_null_member(object, "n"));
        g_assert_cmpint(json_object_get_int_member(object, "big"), ==, G_MAXINT64);
        g_assert_cmpfloat(json_object_get_double_member(object, "t"), ==, 1.5);
        g_assert_true(json_object_get_boolean_member(object, "b"));
        g_assert_cmpint(json_array_get_int_element(json_object_get_array_member(object, "i"), 1),
                        ==, -2);
        g_assert_cmpuint(json_array_get_length(json_object_get_array_member(object, "e")), ==, 0);
}

static void test_text_not_a_number(void)
{
        g_auto(K42JsonText) text = JSON_TEXT_INIT;

        json_text_open(&text, '[');
        json_text_seconds(&text, 0.0 / 0.0);
        json_text_seconds(&text, 1e300);
        json_text_close(&text, ']');
        g_assert_cmpmem(text.data, text.length, "[null,null]", 11);
}

/* A text that is too long for memory fails, and stays failed. */
static void test_text_failed(void)
{
        g_auto(K42JsonText) text = JSON_TEXT_INIT;

        json_text_raw(&text, "x", 1);
        json_text_raw(&text, "x", SIZE_MAX / 4);
        g_assert_true(text.failed);
        json_text_raw(&text, "y", 1);
        g_assert_cmpuint(text.length, ==, 1);
}

static const char *check(const char *text, unsigned depth)
{
        return json_text_check(text, strlen(text), depth);
}

static void test_check(void)
{
        g_autofree char *bomb = g_strnfill(60000, '[');

        g_assert_null(check("{\"a\":[1,2,{\"b\":\"]]]]\"}]}", 3));
        g_assert_nonnull(check("{\"a\":[1,2,{\"b\":1}]}", 2));
        g_assert_null(check("{\"a\\\"\":\"[[[[\\\\\"}", 1));
        g_assert_nonnull(check(bomb, 8));
        g_assert_nonnull(check("]", 8));
        g_assert_nonnull(check("{\"a\":\"", 8));
        g_assert_nonnull(check("{\"a\":\"\\", 8));
        g_assert_nonnull(check("{", 8));
        g_assert_nonnull(check("\"\xff\"", 8));
        g_assert_nonnull(json_text_check("{\0}", 3, 8));
        g_assert_nonnull(check("{\"a\":\"um\\u0000\"}", 8));
        g_assert_null(check("{\"a\":\"um\\\\u0000\"}", 8)); /* a backslash, then u0000 */
        /* what json-glib takes beside JSON could hide brackets from us */
        g_assert_nonnull(check("{'\"':[[[[[[[[[[ '\":1}", 8));
        g_assert_nonnull(check("/* \" */ [[[[[[[[[[", 8));
        g_assert_nonnull(check("# \"\n[[[[[[[[[[", 8));
        g_assert_null(check("", 8));
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/control_protocol/state-id", test_state_id);
        g_test_add_func("/control_protocol/state-id-long", test_state_id_long);
        g_test_add_func("/control_protocol/default-dir", test_default_dir);
        g_test_add_func("/json_text/reread", test_text);
        g_test_add_func("/json_text/not-a-number", test_text_not_a_number);
        g_test_add_func("/json_text/failed", test_text_failed);
        g_test_add_func("/json_text/check", test_check);
        return g_test_run();
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Names come from files and processes of anybody: none reaches the terminal as it is.
 */
#include "ctl/print.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void print_append_escaped(GString *out, const char *text)
{
        bool utf8 = g_get_charset(NULL);

        for (const char *p = text; *p;) {
                gunichar c = g_utf8_get_char_validated(p, -1);

                if (c == (gunichar)-1 || c == (gunichar)-2) {
                        g_string_append_printf(out, "\\x%02x", (unsigned char)*p++);
                        continue;
                }
                if (c == '\\')
                        g_string_append(out, "\\\\");
                else if (g_unichar_isprint(c) && (utf8 || c < 0x80))
                        g_string_append_unichar(out, c);
                else if (c > 0xffff)
                        g_string_append_printf(out, "\\U%08x", c);
                else
                        g_string_append_printf(out, "\\u%04x", c);
                p = g_utf8_next_char(p);
        }
}

char *print_escape(const char *text)
{
        g_autoptr(GString) out = g_string_new(NULL);

        print_append_escaped(out, text);
        return g_string_free(g_steal_pointer(&out), FALSE);
}

static char *value_text(JsonNode *node)
{
        char number[G_ASCII_DTOSTR_BUF_SIZE + 320];

        if (!node || !JSON_NODE_HOLDS_VALUE(node))
                return g_strdup("");
        switch (json_node_get_value_type(node)) {
        case G_TYPE_STRING:
                return g_strdup(json_node_get_string(node));
        case G_TYPE_INT64:
                return g_strdup_printf("%" G_GINT64_FORMAT, json_node_get_int(node));
        case G_TYPE_DOUBLE:
                return g_strdup(g_ascii_formatd(number, sizeof(number), "%.6f",
                                                json_node_get_double(node)));
        case G_TYPE_BOOLEAN:
                return g_strdup(json_node_get_boolean(node) ? "yes" : "no");
        default:
                return g_strdup("");
        }
}

char *member_text(JsonObject *object, const char *key)
{
        return value_text(json_object_get_member(object, key));
}

int64_t member_int(JsonObject *object, const char *key)
{
        JsonNode *node = json_object_get_member(object, key);

        return node && JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_INT64
                       ? json_node_get_int(node)
                       : 0;
}

const char *member_string(JsonObject *object, const char *key)
{
        JsonNode *node = json_object_get_member(object, key);

        return node && JSON_NODE_HOLDS_VALUE(node) &&
                               json_node_get_value_type(node) == G_TYPE_STRING
                       ? json_node_get_string(node)
                       : NULL;
}

void print_json(JsonNode *node)
{
        g_autofree char *text = NULL;
        JsonArray *array;

        if (!JSON_NODE_HOLDS_ARRAY(node)) {
                text = json_to_string(node, TRUE);
                puts(text);
                return;
        }
        array = json_node_get_array(node);
        fputs("[", stdout);
        for (guint i = 0; i < json_array_get_length(array); i++) {
                g_autofree char *element = json_to_string(json_array_get_element(array, i), FALSE);

                printf("%s\n%s", i ? "," : "", element);
        }
        puts(json_array_get_length(array) ? "\n]" : "]");
}

void print_object(JsonObject *object, unsigned indent)
{
        GList *keys = json_object_get_members(object);

        for (GList *l = keys; l; l = l->next) {
                JsonNode *node = json_object_get_member(object, l->data);
                g_autofree char *key = print_escape(l->data);
                g_autofree char *text = NULL, *escaped = NULL;

                if (JSON_NODE_HOLDS_OBJECT(node) && indent < 8) {
                        printf("%*s%s:\n", (int)indent * 2, "", key);
                        print_object(json_node_get_object(node), indent + 1);
                        continue;
                }
                text = value_text(node);
                escaped = print_escape(text);
                printf("%*s%s: %s\n", (int)indent * 2, "", key, *escaped ? escaped : "-");
        }
        g_list_free(keys);
}

bool is_array_of_objects(JsonNode *node)
{
        JsonArray *array;

        if (!JSON_NODE_HOLDS_ARRAY(node))
                return false;
        array = json_node_get_array(node);
        for (guint i = 0; i < json_array_get_length(array); i++)
                if (!JSON_NODE_HOLDS_OBJECT(json_array_get_element(array, i)))
                        return false;
        return true;
}

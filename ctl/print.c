/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Names come from files and processes of anybody: none reaches the terminal as it is.
 */
#include "ctl/print.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *const handle_columns[] = {
        "handle", "parent",     "pid",    "ppid",        "uid",   "comm",    "exe",
        "path",   "type",       "flags",  "rights",      "class", "sharing", "opened",
        "reads",  "read_bytes", "writes", "write_bytes", NULL,
};

static const char *const number_columns[] = {
        "pid", "ppid", "uid", "opened", "reads", "read_bytes", "writes", "write_bytes", NULL,
};

char *print_escape(const char *text)
{
        g_autoptr(GString) out = g_string_new(NULL);
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

/* Columns that a terminal needs for it; combining marks take none, East Asian letters two. */
static unsigned text_width(const char *text)
{
        unsigned width = 0;

        for (const char *p = text; *p; p = g_utf8_next_char(p)) {
                gunichar c = g_utf8_get_char(p);

                if (!g_unichar_iszerowidth(c))
                        width += g_unichar_iswide(c) ? 2 : 1;
        }
        return width;
}

static void print_cell(const char *text, unsigned width, bool right, bool last)
{
        unsigned have = text_width(text), pad = width > have ? width - have : 0;

        if (right)
                printf("%*s", (int)pad, "");
        fputs(text, stdout);
        if (!last)
                printf("%*s", (int)(right ? 2 : pad + 2), "");
}

static char *cell_text(JsonObject *row, const char *column)
{
        g_autofree char *text = member_text(row, column);
        char *escaped = print_escape(text);

        if (*escaped)
                return escaped;
        g_free(escaped);
        return g_strdup("-");
}

void print_table(JsonArray *rows, char **columns, bool headings)
{
        unsigned n = g_strv_length(columns), n_rows = json_array_get_length(rows);
        g_autofree unsigned *widths = g_new0(unsigned, n);
        g_autoptr(GPtrArray) cells = g_ptr_array_new_with_free_func(g_free);

        for (unsigned c = 0; headings && c < n; c++)
                widths[c] = (unsigned)strlen(columns[c]);
        for (unsigned i = 0; i < n_rows; i++)
                for (unsigned c = 0; c < n; c++) {
                        char *cell = cell_text(json_array_get_object_element(rows, i), columns[c]);

                        g_ptr_array_add(cells, cell);
                        widths[c] = MAX(widths[c], text_width(cell));
                }
        for (unsigned c = 0; headings && c < n; c++) {
                g_autofree char *heading = g_ascii_strup(columns[c], -1);

                print_cell(heading, widths[c], g_strv_contains(number_columns, columns[c]),
                           c + 1 == n);
        }
        if (headings)
                putchar('\n');
        for (unsigned i = 0; i < n_rows; i++) {
                for (unsigned c = 0; c < n; c++)
                        print_cell(cells->pdata[(size_t)i * n + c], widths[c],
                                   g_strv_contains(number_columns, columns[c]), c + 1 == n);
                putchar('\n');
        }
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

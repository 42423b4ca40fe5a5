/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All cells are in one string, NUL after each, and an array has where they begin.
 */
#include "ctl/table.h"

#include <string.h>

#define GAP 2

struct table {
        const GPtrArray *chosen;
        bool readable;
        unsigned *widths; /* of each column, on the terminal */
        GString *text;
        GArray *cells; /* of gsize: offsets in text */
};

struct table *table_new(const GPtrArray *chosen, bool readable)
{
        struct table *table = g_new0(struct table, 1);

        table->chosen = chosen;
        table->readable = readable;
        table->widths = g_new0(unsigned, chosen->len);
        table->text = g_string_new(NULL);
        table->cells = g_array_new(FALSE, FALSE, sizeof(gsize));
        return table;
}

void table_free(struct table *table)
{
        if (!table)
                return;
        g_free(table->widths);
        g_string_free(table->text, TRUE);
        g_array_unref(table->cells);
        g_free(table);
}

/* Combining marks take no column of a terminal, East Asian letters two. */
static unsigned char_width(const char *p)
{
        gunichar c = g_utf8_get_char(p);

        if (g_unichar_iszerowidth(c))
                return 0;
        return g_unichar_iswide(c) ? 2 : 1;
}

static unsigned text_width(const char *text)
{
        unsigned width = 0;

        for (const char *p = text; *p; p = g_utf8_next_char(p))
                width += char_width(p);
        return width;
}

size_t table_fit(const char *text, unsigned room)
{
        const char *p = text;

        for (; *p; p = g_utf8_next_char(p)) {
                unsigned width = char_width(p);

                if (width > room)
                        break;
                room -= width;
        }
        return (size_t)(p - text);
}

void table_add(struct table *table, const struct row *row, const char *branch)
{
        for (guint i = 0; i < table->chosen->len; i++) {
                const struct column *column = table->chosen->pdata[i];
                struct value value = column_value(column, row);
                gsize start = table->text->len;

                if (i == 0 && branch)
                        g_string_append(table->text, branch);
                column_append_text(column, &value, table->readable, table->text);
                table->widths[i] = MAX(table->widths[i], text_width(table->text->str + start));
                g_string_append_c(table->text, '\0');
                g_array_append_val(table->cells, start);
        }
}

void table_add_headings(struct table *table)
{
        for (guint i = 0; i < table->chosen->len; i++) {
                const struct column *column = table->chosen->pdata[i];

                table->widths[i] = MAX(table->widths[i], (unsigned)strlen(column->name));
        }
}

unsigned table_rows(const struct table *table)
{
        return table->cells->len / table->chosen->len;
}

static void append_blanks(GString *out, unsigned n)
{
        for (; n > 0; n--)
                g_string_append_c(out, ' ');
}

/* Cell number `i` of a line; after the last one there is nothing. */
static void append_cell(const struct table *table, guint i, const char *text, GString *out)
{
        unsigned width = text_width(text);
        unsigned pad = table->widths[i] > width ? table->widths[i] - width : 0;
        bool right = column_is_number(table->chosen->pdata[i]);

        if (right)
                append_blanks(out, pad);
        g_string_append(out, text);
        if (i + 1 < table->chosen->len)
                append_blanks(out, right ? GAP : pad + GAP);
}

void table_append_headings(const struct table *table, GString *out)
{
        for (guint i = 0; i < table->chosen->len; i++) {
                const struct column *column = table->chosen->pdata[i];
                g_autofree char *heading = g_ascii_strup(column->name, -1);

                append_cell(table, i, heading, out);
        }
}

void table_append_row(const struct table *table, unsigned row, GString *out)
{
        for (guint i = 0; i < table->chosen->len; i++) {
                gsize start = g_array_index(table->cells, gsize, row * table->chosen->len + i);

                append_cell(table, i, table->text->str + start, out);
        }
}

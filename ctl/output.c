/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/output.h"

#include <stdio.h>
#include <string.h>

#include "ctl/table.h"

struct output {
        enum output_format format;
        const GPtrArray *chosen;
        bool headings, readable;
        bool begun;          /* something has been written */
        struct table *table; /* of OUTPUT_TABLE */
        struct json_text json;
        GString *line, *cell;
};

struct output *output_new(enum output_format format, const GPtrArray *chosen, bool headings,
                          bool readable)
{
        struct output *output = g_new0(struct output, 1);

        output->format = format;
        output->chosen = chosen;
        output->headings = headings;
        output->readable = readable;
        output->table = format == OUTPUT_TABLE ? table_new(chosen, readable) : NULL;
        output->line = g_string_new(NULL);
        output->cell = g_string_new(NULL);
        return output;
}

void output_free(struct output *output)
{
        if (!output)
                return;
        table_free(output->table);
        json_text_clear(&output->json);
        g_string_free(output->line, TRUE);
        g_string_free(output->cell, TRUE);
        g_free(output);
}

static void put_line(struct output *output)
{
        g_string_append_c(output->line, '\n');
        fwrite(output->line->str, 1, output->line->len, stdout);
        g_string_truncate(output->line, 0);
}

/* ---- raw ---- */

/* A cell that is "-" by itself must not look like one that has nothing. */
static void append_raw_cell(struct output *output, const struct column *column,
                            const struct row *row)
{
        struct value value = column_value(column, row);

        g_string_truncate(output->cell, 0);
        if (value.kind == VALUE_STRING && g_str_equal(value.string, "-"))
                g_string_assign(output->cell, "\\x2d");
        else
                column_append_text(column, &value, output->readable, output->cell);
        g_string_replace(output->cell, " ", "\\x20", 0);
        g_string_append(output->line, output->cell->str);
}

static void put_raw_headings(struct output *output)
{
        for (guint i = 0; i < output->chosen->len; i++) {
                const struct column *column = output->chosen->pdata[i];
                g_autofree char *heading = g_ascii_strup(column->name, -1);

                g_string_append_printf(output->line, "%s%s", i ? " " : "", heading);
        }
        put_line(output);
}

static void put_raw(struct output *output, const struct row *row)
{
        for (guint i = 0; i < output->chosen->len; i++) {
                if (i > 0)
                        g_string_append_c(output->line, ' ');
                append_raw_cell(output, output->chosen->pdata[i], row);
        }
        put_line(output);
}

/* ---- JSON ---- */

static void put_value(struct json_text *text, const struct value *value)
{
        switch (value->kind) {
        case VALUE_NULL:
                json_text_null(text);
                break;
        case VALUE_STRING:
                json_text_string(text, value->string);
                break;
        case VALUE_INTEGER:
                json_text_int(text, value->integer);
                break;
        case VALUE_REAL:
                json_text_seconds(text, value->real);
                break;
        }
}

void output_put_members(struct json_text *text, const GPtrArray *chosen, const struct row *row)
{
        for (guint i = 0; i < chosen->len; i++) {
                const struct column *column = chosen->pdata[i];
                struct value value = column_value(column, row);

                json_text_key(text, column->name);
                put_value(text, &value);
        }
}

static void put_json(struct output *output, const struct row *row)
{
        struct json_text *text = &output->json;

        text->length = 0;
        text->comma = false;
        json_text_open(text, '{');
        output_put_members(text, output->chosen, row);
        json_text_close(text, '}');
        fwrite(text->data, 1, text->length, stdout);
}

/* ---- all ---- */

void output_row(struct output *output, const struct row *row, const char *branch)
{
        bool first = !output->begun;

        output->begun = true;
        switch (output->format) {
        case OUTPUT_TABLE:
                table_add(output->table, row, branch);
                break;
        case OUTPUT_RAW:
                if (first && output->headings)
                        put_raw_headings(output);
                put_raw(output, row);
                break;
        case OUTPUT_JSON:
                fputs(first ? "[\n" : ",\n", stdout);
                put_json(output, row);
                break;
        case OUTPUT_JSONL:
                put_json(output, row);
                putchar('\n');
                break;
        }
}

static void end_table(struct output *output)
{
        if (output->headings) {
                table_add_headings(output->table);
                table_append_headings(output->table, output->line);
                put_line(output);
        }
        for (unsigned i = 0; i < table_rows(output->table); i++) {
                table_append_row(output->table, i, output->line);
                put_line(output);
        }
}

void output_end(struct output *output)
{
        switch (output->format) {
        case OUTPUT_TABLE:
                end_table(output);
                break;
        case OUTPUT_RAW:
                if (!output->begun && output->headings)
                        put_raw_headings(output);
                break;
        case OUTPUT_JSON:
                puts(output->begun ? "\n]" : "[]");
                break;
        case OUTPUT_JSONL:
                break;
        }
}

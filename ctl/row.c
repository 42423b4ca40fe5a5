/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A parser for arrays of flat JSON objects.  A table of 50,000 handles is 20 MB of text; a document
 * tree of it would take fifteen times that, for values that are looked at once.
 */
#include "ctl/row.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/column.h"

#define NESTING_MAX 16
#define NUMBER_MAX  400 /* a double can have 309 digits before the point */

struct cursor {
        char *p;
        const char *end;
};

static void skip_blanks(struct cursor *c)
{
        while (c->p < c->end && strchr(" \t\r\n", *c->p) && *c->p)
                c->p++;
}

static bool take(struct cursor *c, char expected)
{
        skip_blanks(c);
        if (c->p == c->end || *c->p != expected)
                return false;
        c->p++;
        return true;
}

/* The four digits of a \u escape; -1 if they are none. */
static int take_hex4(struct cursor *c)
{
        int value = 0;

        if (c->end - c->p < 4)
                return -1;
        for (int i = 0; i < 4; i++) {
                int digit = g_ascii_xdigit_value(c->p[i]);

                if (digit < 0)
                        return -1;
                value = value << 4 | digit;
        }
        c->p += 4;
        return value;
}

/* After "\u".  Half a surrogate pair is no character: U+FFFD stands for it. */
static int take_code_point(struct cursor *c)
{
        int high = take_hex4(c), low;
        struct cursor next = *c;

        if (high < 0xd800 || high > 0xdfff)
                return high;
        if (high > 0xdbff || next.end - next.p < 2 || next.p[0] != '\\' || next.p[1] != 'u')
                return 0xfffd;
        next.p += 2;
        low = take_hex4(&next);
        if (low < 0xdc00 || low > 0xdfff)
                return 0xfffd;
        *c = next;
        return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
}

static bool take_escape(struct cursor *c, char **out)
{
        static const char names[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
        const char *found;
        int code;

        if (c->p == c->end)
                return false;
        if (*c->p == 'u') {
                c->p++;
                code = take_code_point(c);
                if (code <= 0)
                        return false; /* a C string would end at a NUL */
                *out += g_unichar_to_utf8((gunichar)code, *out);
                return true;
        }
        found = *c->p ? strchr(names, *c->p) : NULL;
        if (!found)
                return false;
        c->p++;
        *(*out)++ = meanings[found - names];
        return true;
}

/* A string, decoded in place: no escape is shorter than what it stands for. */
static char *take_string(struct cursor *c)
{
        char *start, *out;

        if (!take(c, '"'))
                return NULL;
        start = out = c->p;
        while (c->p < c->end && *c->p != '"') {
                if ((unsigned char)*c->p < 0x20)
                        return NULL;
                if (*c->p != '\\') {
                        *out++ = *c->p++;
                        continue;
                }
                c->p++;
                if (!take_escape(c, &out))
                        return NULL;
        }
        if (c->p == c->end)
                return NULL;
        c->p++;
        *out = '\0';
        return start;
}

static bool take_number(struct cursor *c, struct value *value)
{
        size_t length = 0, room = MIN((size_t)(c->end - c->p), (size_t)NUMBER_MAX);
        char text[NUMBER_MAX + 1], *rest;
        bool integer;

        while (length < room && c->p[length] && strchr("+-.0123456789eE", c->p[length]))
                length++;
        memcpy(text, c->p, length);
        text[length] = '\0';
        integer = strspn(text, "-0123456789") == length;
        if (integer) /* beyond int64_t it is the largest one */
                *value = (struct value){.kind = VALUE_INTEGER, .integer = strtoll(text, &rest, 10)};
        else
                *value = (struct value){.kind = VALUE_REAL, .real = g_ascii_strtod(text, &rest)};
        c->p += length;
        return length > 0 && rest == text + length;
}

static bool take_word(struct cursor *c, const char *word)
{
        size_t length = strlen(word);

        if ((size_t)(c->end - c->p) < length || memcmp(c->p, word, length) != 0)
                return false;
        c->p += length;
        return true;
}

/* Something that a later daemon may say: arrays and objects, balanced. */
static bool skip_nested(struct cursor *c)
{
        unsigned depth = 0;

        do {
                skip_blanks(c);
                if (c->p == c->end)
                        return false;
                if (*c->p == '"') {
                        if (!take_string(c))
                                return false;
                        continue;
                }
                if (*c->p == '[' || *c->p == '{')
                        depth++;
                else if (*c->p == ']' || *c->p == '}')
                        depth--;
                c->p++;
        } while (depth > 0 && depth <= NESTING_MAX);
        return depth == 0;
}

/* VALUE_NULL also for what no column can hold. */
static bool take_value(struct cursor *c, struct value *value)
{
        *value = (struct value){.kind = VALUE_NULL};
        skip_blanks(c);
        if (c->p == c->end)
                return false;
        switch (*c->p) {
        case '"':
                *value = (struct value){.kind = VALUE_STRING, .string = take_string(c)};
                return value->string != NULL;
        case '[':
        case '{':
                return skip_nested(c);
        case 'n':
                return take_word(c, "null");
        case 't':
                return take_word(c, "true");
        case 'f':
                return take_word(c, "false");
        default:
                return take_number(c, value);
        }
}

/* Keys mostly come in the columns' order: `*guess` is where the next one should be. */
static const struct column *find_told(const char *key, unsigned *guess)
{
        const struct column *column = &columns[*guess];

        if (!g_str_equal(column->name, key))
                column = column_find(key, strlen(key));
        if (!column || column->id >= COLUMN_TOLD)
                return NULL;
        *guess = (column->id + 1) % COLUMN_TOLD;
        return column;
}

/* False if the column is of another kind.  A number without a point can be a real one. */
static bool store_value(struct row *row, const struct column *column, struct value value)
{
        if (!column || value.kind == VALUE_NULL)
                return true;
        if (column->kind == VALUE_REAL && value.kind == VALUE_INTEGER)
                value = (struct value){.kind = VALUE_REAL, .real = (double)value.integer};
        if (column->kind != value.kind)
                return false;
        row->values[column->id] = value;
        return true;
}

const char *row_parse(char *text, const char *end, struct row *row, char **ret_end)
{
        struct cursor c = {text, end};
        struct value value;
        unsigned guess = 0;
        const char *key;

        memset(row->values, 0, sizeof(row->values));
        if (!take(&c, '{'))
                return "not an object";
        if (!take(&c, '}')) {
                do {
                        key = take_string(&c);
                        if (!key || !take(&c, ':'))
                                return "not a key";
                        if (!take_value(&c, &value))
                                return "not a value";
                        if (!store_value(row, find_told(key, &guess), value))
                                return "a value of the wrong kind";
                } while (take(&c, ','));
                if (!take(&c, '}'))
                        return "an object without end";
        }
        *ret_end = c.p;
        return NULL;
}

const char *rows_parse(char *text, const char *end, const struct row *common,
                       void (*fn)(const struct row *row, void *data), void *data)
{
        struct cursor c = {text, end};
        struct row row = *common;

        if (!take(&c, '['))
                return "not an array";
        if (!take(&c, ']')) {
                do {
                        const char *wrong = row_parse(c.p, c.end, &row, &c.p);

                        if (wrong)
                                return wrong;
                        fn(&row, data);
                } while (take(&c, ','));
                if (!take(&c, ']'))
                        return "an array without end";
        }
        skip_blanks(&c);
        return c.p == c.end ? NULL : "more than an array";
}

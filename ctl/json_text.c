/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The writer keeps one bit of state, whether the next thing needs a comma before it; that is enough
 * because callers open and close in pairs.
 */
#include "ctl/json_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROOM_MIN 256

void json_text_clear(struct json_text *text)
{
        free(text->data);
        *text = (struct json_text)JSON_TEXT_INIT;
}

void json_text_raw(struct json_text *text, const char *raw, size_t length)
{
        size_t room = MAX(text->room, (size_t)ROOM_MIN);
        char *data;

        if (text->failed || length == 0)
                return;
        if (length > SIZE_MAX / 4 - text->length) {
                text->failed = true;
                return;
        }
        while (room < text->length + length)
                room *= 2;
        if (room > text->room) {
                data = realloc(text->data, room);
                if (!data) {
                        text->failed = true;
                        return;
                }
                text->data = data;
                text->room = room;
        }
        memcpy(text->data + text->length, raw, length);
        text->length += length;
}

static void put(struct json_text *text, const char *raw)
{
        json_text_raw(text, raw, strlen(raw));
}

static void before_value(struct json_text *text)
{
        if (text->comma)
                json_text_raw(text, ",", 1);
        text->comma = true;
}

void json_text_open(struct json_text *text, char bracket)
{
        before_value(text);
        json_text_raw(text, &bracket, 1);
        text->comma = false;
}

void json_text_close(struct json_text *text, char bracket)
{
        json_text_raw(text, &bracket, 1);
        text->comma = true;
}

static void put_string(struct json_text *text, const char *value)
{
        const char *p = value, *plain = value;
        char escape[8];

        json_text_raw(text, "\"", 1);
        while (*p) {
                unsigned char c = (unsigned char)*p;
                gunichar u = 0;

                if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f && c < 0x80) {
                        p++;
                        continue;
                }
                if (c >= 0x80) {
                        u = g_utf8_get_char_validated(p, -1);
                        if (u != (gunichar)-1 && u != (gunichar)-2) {
                                p = g_utf8_next_char(p);
                                continue;
                        }
                }
                json_text_raw(text, plain, (size_t)(p - plain));
                if (c >= 0x80)
                        put(text, "\xef\xbf\xbd");
                else if (c == '"' || c == '\\')
                        json_text_raw(text, (char[]){'\\', (char)c}, 2);
                else {
                        snprintf(escape, sizeof(escape), "\\u%04x", c);
                        put(text, escape);
                }
                plain = ++p;
        }
        json_text_raw(text, plain, (size_t)(p - plain));
        json_text_raw(text, "\"", 1);
}

void json_text_key(struct json_text *text, const char *key)
{
        before_value(text);
        put_string(text, key);
        json_text_raw(text, ":", 1);
        text->comma = false;
}

void json_text_string(struct json_text *text, const char *value)
{
        before_value(text);
        if (value)
                put_string(text, value);
        else
                put(text, "null");
}

void json_text_uint(struct json_text *text, uint64_t value)
{
        char number[24];

        before_value(text);
        snprintf(number, sizeof(number), "%" PRIu64, value);
        put(text, number);
}

void json_text_int(struct json_text *text, int64_t value)
{
        char number[24];

        before_value(text);
        snprintf(number, sizeof(number), "%" PRId64, value);
        put(text, number);
}

void json_text_seconds(struct json_text *text, double value)
{
        char number[G_ASCII_DTOSTR_BUF_SIZE + 320];

        before_value(text);
        if (value != value || value > 1e15 || value < -1e15)
                put(text, "null"); /* JSON has no word for it */
        else
                put(text, g_ascii_formatd(number, sizeof(number), "%.6f", value));
}

void json_text_bool(struct json_text *text, bool value)
{
        before_value(text);
        put(text, value ? "true" : "false");
}

void json_text_null(struct json_text *text)
{
        before_value(text);
        put(text, "null");
}

void json_text_value(struct json_text *text, const struct json_text *value)
{
        before_value(text);
        json_text_raw(text, value->data, value->length);
        if (value->failed)
                text->failed = true;
}

const char *json_text_check(const char *text, size_t length, unsigned max_depth)
{
        bool in_string = false;
        unsigned depth = 0;

        /* g_utf8_validate() with a length refuses NUL bytes too */
        if (length > G_MAXSSIZE || !g_utf8_validate(text, (gssize)length, NULL))
                return "not UTF-8 text";
        for (size_t i = 0; i < length; i++) {
                if (in_string) {
                        if (text[i] == '\\') {
                                /* a C string would end there, and mean something else */
                                if (length - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0)
                                        return "a NUL in a string";
                                i++;
                        } else if (text[i] == '"')
                                in_string = false;
                        continue;
                }
                /* json-glib takes 'strings' and comments too, and sees brackets where we see none
                 */
                if (!strchr("{}[]\",:+-._ \t\r\n", text[i]) && !g_ascii_isalnum(text[i]))
                        return "not JSON";
                if (text[i] == '"') {
                        in_string = true;
                } else if (text[i] == '{' || text[i] == '[') {
                        if (++depth > max_depth)
                                return "nested too deeply";
                } else if (text[i] == '}' || text[i] == ']') {
                        if (depth-- == 0)
                                return "unbalanced brackets";
                }
        }
        return in_string || depth ? "incomplete" : NULL;
}

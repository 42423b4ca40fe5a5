/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * json_text: JSON is written as text, piece by piece, because a table of 100,000 handles as a tree
 * of nodes would cost the daemon half a gigabyte; and what comes from a peer is looked over before
 * a parser that recurses sees it.
 *
 * Running out of memory makes a text `failed`; everything after that is ignored.  Not locked: a
 * text belongs to one thread at a time.
 */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct json_text {
        char *data; /* `length` bytes, not NUL-terminated; NULL while empty */
        size_t length, room;
        bool failed;
        bool comma; /* something stands before, in the same object or array */
};
typedef struct json_text K42JsonText;

#define JSON_TEXT_INIT                                                                             \
        {                                                                                          \
                0                                                                                  \
        }

void json_text_clear(struct json_text *text); /* frees the data; empty and usable again */
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(K42JsonText, json_text_clear)

/* `open` and `close` are one of "{", "[", "}", "]". */
void json_text_open(struct json_text *text, char bracket);
void json_text_close(struct json_text *text, char bracket);
void json_text_key(struct json_text *text, const char *key);

/* Values.  A string may be NULL (null); bytes that are not UTF-8 become U+FFFD each. */
void json_text_string(struct json_text *text, const char *value);
void json_text_uint(struct json_text *text, uint64_t value);
void json_text_int(struct json_text *text, int64_t value);
void json_text_seconds(struct json_text *text, double value); /* six digits after the point */
void json_text_bool(struct json_text *text, bool value);
void json_text_null(struct json_text *text);
/* A whole value that is JSON already. */
void json_text_value(struct json_text *text, const struct json_text *value);

/* As it is, no comma; for the newline at the end. */
void json_text_raw(struct json_text *text, const char *raw, size_t length);

/* Looks over a text before it is parsed: valid UTF-8, no NUL (nor one written as an escape in a
 * string), only what JSON has outside strings, brackets at most `max_depth` deep and paired in number.
 * NULL if it is good, else what is wrong with it (a constant). */
const char *json_text_check(const char *text, size_t length, unsigned max_depth);

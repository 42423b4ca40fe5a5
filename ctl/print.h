/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * print: what several verbs print alike.  Everything goes to stdout.
 */
#include <json-glib/json-glib.h>
#include <stdbool.h>
#include <stdint.h>

/* `text` as a terminal may see it: control characters and what the locale's character set cannot
 * show become \uXXXX (and a backslash \\).  Free with g_free(). */
char *print_escape(const char *text);
/* The same, appended. */
void print_append_escaped(GString *out, const char *text);

/* A member as text, "" when it is missing or null; integers and strings as they are, `opened`-like
 * doubles with six digits.  Free with g_free(). */
char *member_text(JsonObject *object, const char *key);
/* A member as a number, 0 when it is none. */
int64_t member_int(JsonObject *object, const char *key);
/* A member that is a string, else NULL; borrowed. */
const char *member_string(JsonObject *object, const char *key);

/* The JSON as it came: an array with one element a line, anything else indented. */
void print_json(JsonNode *node);

/* "key: value" lines, objects inside indented. */
void print_object(JsonObject *object, unsigned indent);

/* True if `node` is an array of objects only. */
bool is_array_of_objects(JsonNode *node);

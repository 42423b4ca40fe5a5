/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * The words of a filter.  filter.h has the language.
 */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

enum token {
        TOKEN_END,
        TOKEN_NAME,
        TOKEN_NUMBER,
        TOKEN_STRING,
        TOKEN_OPEN,
        TOKEN_CLOSE,
        TOKEN_AND,
        TOKEN_OR,
        TOKEN_NOT,
        TOKEN_NULL,
        TOKEN_EQ, /* the operators, in the order of filter.c's enum relation */
        TOKEN_NE,
        TOKEN_LT,
        TOKEN_LE,
        TOKEN_GT,
        TOKEN_GE,
        TOKEN_MATCH,
        TOKEN_NO_MATCH,
};

struct lexer {
        const char *text, *p;
        enum token token;  /* the current one */
        const char *start; /* where it is */
        size_t length;     /* in bytes */
        double number;     /* of a TOKEN_NUMBER */
        GString *string;   /* of a TOKEN_STRING */
        const char *error; /* NULL, or what is wrong at `start` */
};

void lexer_init(struct lexer *lexer, const char *text);
void lexer_clear(struct lexer *lexer);

/* To the next token; false if there is none but an error. */
bool lexer_next(struct lexer *lexer);

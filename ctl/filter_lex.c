/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/filter_lex.h"

#include <math.h>
#include <string.h>

static const struct {
        const char *text;
        enum token token;
} signs[] = {
        /* a longer one before those that it begins with */
        {"==", TOKEN_EQ},    {"!=", TOKEN_NE},       {"<=", TOKEN_LE},  {">=", TOKEN_GE},
        {"=~", TOKEN_MATCH}, {"!~", TOKEN_NO_MATCH}, {"&&", TOKEN_AND}, {"||", TOKEN_OR},
        {"<", TOKEN_LT},     {">", TOKEN_GT},        {"!", TOKEN_NOT},  {"(", TOKEN_OPEN},
        {")", TOKEN_CLOSE},
};

static const struct {
        const char *text;
        enum token token;
} words[] = {
        {"and", TOKEN_AND}, {"or", TOKEN_OR}, {"not", TOKEN_NOT}, {"null", TOKEN_NULL},
        {"eq", TOKEN_EQ},   {"ne", TOKEN_NE}, {"lt", TOKEN_LT},   {"le", TOKEN_LE},
        {"gt", TOKEN_GT},   {"ge", TOKEN_GE},
};

void lexer_init(struct lexer *lexer, const char *text)
{
        *lexer = (struct lexer){
                .text = text, .p = text, .start = text, .string = g_string_new(NULL)};
}

void lexer_clear(struct lexer *lexer)
{
        g_string_free(lexer->string, TRUE);
}

static bool fail(struct lexer *lexer, const char *error)
{
        lexer->error = error;
        return false;
}

static bool take(struct lexer *lexer, enum token token, size_t length)
{
        lexer->token = token;
        lexer->length = length;
        lexer->p = lexer->start + length;
        return true;
}

/* A quote inside is written twice. */
static bool lex_string(struct lexer *lexer)
{
        char quote = *lexer->start;
        const char *p = lexer->start + 1;

        g_string_truncate(lexer->string, 0);
        for (;; p++) {
                if (!*p)
                        return fail(lexer, "a string without its closing quote");
                if (*p == quote && *++p != quote)
                        break;
                g_string_append_c(lexer->string, *p);
        }
        return take(lexer, TOKEN_STRING, (size_t)(p - lexer->start));
}

static bool is_name(char c)
{
        return g_ascii_isalnum(c) || c == '_';
}

static bool lex_number(struct lexer *lexer)
{
        static const char units[] = "KMGT";
        const char *unit;
        char *end;

        /* not what else strtod takes: hexadecimal, exponents */
        size_t length = strspn(lexer->start + 1, "0123456789.") + 1;
        g_autofree char *digits = g_strndup(lexer->start, length);

        lexer->number = g_ascii_strtod(digits, &end);
        if (*end || end == digits || !isfinite(lexer->number))
                return fail(lexer, "not a number");
        unit = lexer->start[length] ? strchr(units, g_ascii_toupper(lexer->start[length])) : NULL;
        if (unit) {
                lexer->number = ldexp(lexer->number, 10 * (int)(unit - units + 1));
                length++;
        }
        if (is_name(lexer->start[length]))
                return fail(lexer, "not a number");
        return take(lexer, TOKEN_NUMBER, length);
}

static bool lex_word(struct lexer *lexer)
{
        size_t length = 1;

        while (is_name(lexer->start[length]))
                length++;
        for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
                if (strlen(words[i].text) == length &&
                    g_ascii_strncasecmp(words[i].text, lexer->start, length) == 0)
                        return take(lexer, words[i].token, length);
        return take(lexer, TOKEN_NAME, length);
}

bool lexer_next(struct lexer *lexer)
{
        while (*lexer->p && strchr(" \t\r\n", *lexer->p))
                lexer->p++;
        lexer->start = lexer->p;
        if (!*lexer->start)
                return take(lexer, TOKEN_END, 0);
        if (*lexer->start == '"' || *lexer->start == '\'')
                return lex_string(lexer);
        if (g_ascii_isdigit(*lexer->start) || *lexer->start == '-')
                return lex_number(lexer);
        if (is_name(*lexer->start))
                return lex_word(lexer);
        for (size_t i = 0; i < G_N_ELEMENTS(signs); i++)
                if (g_str_has_prefix(lexer->start, signs[i].text))
                        return take(lexer, signs[i].token, strlen(signs[i].text));
        return fail(lexer, "not a word of the language");
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A recursive-descent compiler.  The program has one flag: tests set it, jumps look at it; "a and
 * b" is: test a, jump over b if the flag is false, test b.
 */
#include "ctl/filter.h"

#include <string.h>

#include "ctl/column.h"
#include "ctl/filter_lex.h"

#define NESTING_MAX 100

enum relation {
        RELATION_EQ,
        RELATION_NE,
        RELATION_LT,
        RELATION_LE,
        RELATION_GT,
        RELATION_GE,
        RELATION_MATCH,
        RELATION_NO_MATCH,
        RELATION_TRUTH, /* of the left operand alone */
};

enum step_kind {
        STEP_TEST,
        STEP_NOT,
        STEP_JUMP_IF_FALSE,
        STEP_JUMP_IF_TRUE,
};

/* A column, or a constant. */
struct operand {
        const struct column *column; /* NULL: constant */
        struct value constant;       /* strings are the filter's own */
};

struct step {
        enum step_kind kind;
        enum relation relation;
        struct operand left, right;
        GRegex *regex; /* of MATCH and NO_MATCH */
        guint target;  /* of jumps */
};

struct filter {
        GArray *steps;      /* of struct step */
        GPtrArray *strings; /* constants */
};

struct compiler {
        struct lexer lexer;
        struct filter *filter;
        unsigned verb;
        unsigned nesting;
        const char *where; /* of the error */
        char *error;
};

static void clear_step(void *data)
{
        struct step *step = data;

        g_clear_pointer(&step->regex, g_regex_unref);
}

void filter_free(struct filter *filter)
{
        if (!filter)
                return;
        g_array_unref(filter->steps);
        g_ptr_array_unref(filter->strings);
        g_free(filter);
}

/* ---- compiling ---- */

static G_GNUC_PRINTF(3, 4) bool fail_at(struct compiler *c, const char *where, const char *format,
                                        ...)
{
        va_list args;

        va_start(args, format);
        c->error = g_strdup_vprintf(format, args);
        va_end(args);
        c->where = where;
        return false;
}

static bool next(struct compiler *c)
{
        return lexer_next(&c->lexer) || fail_at(c, c->lexer.start, "%s", c->lexer.error);
}

static bool fail_expected(struct compiler *c, const char *what)
{
        if (c->lexer.token == TOKEN_END)
                return fail_at(c, c->lexer.start, "%s is expected, and the filter ends", what);
        return fail_at(c, c->lexer.start, "%s is expected, not '%.*s'", what,
                       (int)MIN(c->lexer.length, 100), c->lexer.start);
}

static guint add_step(struct compiler *c, struct step step)
{
        g_array_append_val(c->filter->steps, step);
        return c->filter->steps->len - 1;
}

static bool compile_column(struct compiler *c, struct operand *operand)
{
        operand->column = column_find(c->lexer.start, c->lexer.length);
        if (!operand->column)
                return fail_at(c, c->lexer.start, "unknown column '%.*s'",
                               (int)MIN(c->lexer.length, 100), c->lexer.start);
        if (!(operand->column->verbs & c->verb))
                return fail_at(c, c->lexer.start, "column '%s' is not one of this verb",
                               operand->column->name);
        return next(c);
}

static bool compile_operand(struct compiler *c, struct operand *operand)
{
        char *string;

        *operand = (struct operand){0};
        switch (c->lexer.token) {
        case TOKEN_NAME:
                return compile_column(c, operand);
        case TOKEN_NUMBER:
                operand->constant = (struct value){.kind = VALUE_REAL, .real = c->lexer.number};
                return next(c);
        case TOKEN_STRING:
                string = g_strdup(c->lexer.string->str);
                g_ptr_array_add(c->filter->strings, string);
                operand->constant = (struct value){.kind = VALUE_STRING, .string = string};
                return next(c);
        case TOKEN_NULL:
                return next(c);
        default:
                return fail_expected(c, "a column, a number or a string");
        }
}

static bool is_null(const struct operand *operand)
{
        return !operand->column && operand->constant.kind == VALUE_NULL;
}

static bool is_string(const struct operand *operand)
{
        return operand->column ? operand->column->kind == VALUE_STRING
                               : operand->constant.kind == VALUE_STRING;
}

static bool compile_regex(struct compiler *c, struct step *step, const char *where)
{
        g_autoptr(GError) error = NULL;

        if (!is_string(&step->left))
                return fail_at(c, where, "only a string can match a regular expression");
        if (step->right.column || step->right.constant.kind != VALUE_STRING)
                return fail_at(c, where, "a regular expression is a string in quotes");
        step->regex = g_regex_new(step->right.constant.string, G_REGEX_OPTIMIZE, 0, &error);
        return step->regex ||
               fail_at(c, where, "the regular expression is wrong: %s", error->message);
}

/* operand [ operator operand ] */
static bool compile_test(struct compiler *c)
{
        struct step step = {.kind = STEP_TEST, .relation = RELATION_TRUTH};
        const char *where;

        if (!compile_operand(c, &step.left))
                return false;
        where = c->lexer.start;
        if (c->lexer.token < TOKEN_EQ) {
                if (!step.left.column)
                        return fail_expected(c, "an operator like ==");
                add_step(c, step);
                return true;
        }
        step.relation = (enum relation)(RELATION_EQ + (c->lexer.token - TOKEN_EQ));
        if (!next(c) || !compile_operand(c, &step.right))
                return false;
        if (step.relation == RELATION_MATCH || step.relation == RELATION_NO_MATCH) {
                if (!compile_regex(c, &step, where))
                        return false;
        } else if (is_null(&step.left) || is_null(&step.right)) {
                if (step.relation > RELATION_NE)
                        return fail_at(c, where, "null can be compared with == and != only");
        } else if (is_string(&step.left) != is_string(&step.right)) {
                return fail_at(c, where, "a string is compared with a number");
        }
        add_step(c, step);
        return true;
}

static bool compile_expression(struct compiler *c);

static bool compile_term(struct compiler *c)
{
        bool good;

        if (c->lexer.token != TOKEN_NOT && c->lexer.token != TOKEN_OPEN)
                return compile_test(c);
        if (++c->nesting > NESTING_MAX)
                return fail_at(c, c->lexer.start, "nested more than %d times", NESTING_MAX);
        if (c->lexer.token == TOKEN_NOT) {
                good = next(c) && compile_term(c);
                if (good)
                        add_step(c, (struct step){.kind = STEP_NOT});
        } else {
                good = next(c) && compile_expression(c);
                if (good && c->lexer.token != TOKEN_CLOSE)
                        good = fail_expected(c, "an operator or ')'");
                good = good && next(c);
        }
        c->nesting--;
        return good;
}

/* part { separator part }: what follows is jumped over once the result is known. */
static bool compile_chain(struct compiler *c, bool (*part)(struct compiler *c),
                          enum token separator, enum step_kind jump)
{
        guint first = c->filter->steps->len;

        if (!part(c))
                return false;
        while (c->lexer.token == separator) {
                add_step(c, (struct step){.kind = jump, .target = G_MAXUINT});
                if (!next(c) || !part(c))
                        return false;
        }
        for (guint i = first; i < c->filter->steps->len; i++) {
                struct step *step = &g_array_index(c->filter->steps, struct step, i);

                if (step->kind == jump && step->target == G_MAXUINT)
                        step->target = c->filter->steps->len;
        }
        return true;
}

static bool compile_conjunction(struct compiler *c)
{
        return compile_chain(c, compile_term, TOKEN_AND, STEP_JUMP_IF_FALSE);
}

static bool compile_expression(struct compiler *c)
{
        return compile_chain(c, compile_conjunction, TOKEN_OR, STEP_JUMP_IF_TRUE);
}

struct filter *filter_new(const char *text, unsigned verb, char **ret_error)
{
        struct compiler c = {.verb = verb, .filter = g_new0(struct filter, 1)};
        bool good;

        if (!g_utf8_validate(text, -1, NULL)) {
                *ret_error = g_strdup("the filter is not valid UTF-8");
                g_free(c.filter);
                return NULL;
        }
        c.filter->steps = g_array_new(FALSE, FALSE, sizeof(struct step));
        g_array_set_clear_func(c.filter->steps, clear_step);
        c.filter->strings = g_ptr_array_new_with_free_func(g_free);
        lexer_init(&c.lexer, text);
        good = next(&c) && compile_expression(&c);
        if (good && c.lexer.token != TOKEN_END)
                good = fail_expected(&c, "an operator or the end");
        if (!good) {
                *ret_error = g_strdup_printf("the filter, at character %ld: %s",
                                             g_utf8_pointer_to_offset(text, c.where) + 1, c.error);
                g_free(c.error);
                g_clear_pointer(&c.filter, filter_free);
        }
        lexer_clear(&c.lexer);
        return c.filter;
}

/* ---- matching ---- */

static struct value operand_value(const struct operand *operand, const struct row *row)
{
        return operand->column ? column_value(operand->column, row) : operand->constant;
}

static bool is_true(const struct value *value)
{
        switch (value->kind) {
        case VALUE_STRING:
                return *value->string;
        case VALUE_INTEGER:
                return value->integer != 0;
        case VALUE_REAL:
                return value->real != 0;
        case VALUE_NULL:
                break;
        }
        return false;
}

static int compare(const struct value *a, const struct value *b)
{
        double x, y;

        if (a->kind == VALUE_STRING)
                return strcmp(a->string, b->string);
        if (a->kind == VALUE_INTEGER && b->kind == VALUE_INTEGER)
                return (a->integer > b->integer) - (a->integer < b->integer);
        x = a->kind == VALUE_INTEGER ? (double)a->integer : a->real;
        y = b->kind == VALUE_INTEGER ? (double)b->integer : b->real;
        return (x > y) - (x < y);
}

static bool run_test(const struct step *step, const struct row *row)
{
        struct value left = operand_value(&step->left, row);
        struct value right = operand_value(&step->right, row);
        bool null = left.kind == VALUE_NULL || right.kind == VALUE_NULL;
        bool both = left.kind == VALUE_NULL && right.kind == VALUE_NULL;

        switch (step->relation) {
        case RELATION_TRUTH:
                return is_true(&left);
        case RELATION_EQ:
                return null ? both : compare(&left, &right) == 0;
        case RELATION_NE:
                return null ? !both : compare(&left, &right) != 0;
        case RELATION_LT:
                return !null && compare(&left, &right) < 0;
        case RELATION_LE:
                return !null && compare(&left, &right) <= 0;
        case RELATION_GT:
                return !null && compare(&left, &right) > 0;
        case RELATION_GE:
                return !null && compare(&left, &right) >= 0;
        case RELATION_MATCH:
                return !null && g_regex_match(step->regex, left.string, 0, NULL);
        case RELATION_NO_MATCH:
                return null || !g_regex_match(step->regex, left.string, 0, NULL);
        }
        return false;
}

bool filter_match(const struct filter *filter, const struct row *row)
{
        bool flag = false;

        for (guint i = 0; i < filter->steps->len;) {
                const struct step *step = &g_array_index(filter->steps, struct step, i++);

                switch (step->kind) {
                case STEP_TEST:
                        flag = run_test(step, row);
                        break;
                case STEP_NOT:
                        flag = !flag;
                        break;
                case STEP_JUMP_IF_FALSE:
                        i = flag ? i : step->target;
                        break;
                case STEP_JUMP_IF_TRUE:
                        i = flag ? step->target : i;
                        break;
                }
        }
        return flag;
}

bool filter_uses(const struct filter *filter, enum column_id id)
{
        for (guint i = 0; i < filter->steps->len; i++) {
                const struct step *step = &g_array_index(filter->steps, struct step, i);
                const struct column *left = step->left.column, *right = step->right.column;

                if ((left && left->id == id) || (right && right->id == id))
                        return true;
        }
        return false;
}

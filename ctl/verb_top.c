/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * top: who reads and writes how much, now.
 */
#include "ctl/top.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ctl/table.h"

#define DELAY_DEFAULT 2.0
#define DELAY_MIN     0.1
#define DELAY_MAX     3600.0
#define TIMEOUT_LEAST 5

static gboolean batch, reverse;
static int iterations; /* 0: no end */
static double delay = DELAY_DEFAULT;
static char *sort;

static int check_own_options(const struct verb *verb, const struct column **ret_sort)
{
        const char *name = sort ? sort : columns[COLUMN_RATE].name;
        const struct column *column = column_find(name, strlen(name));

        if (!(delay >= DELAY_MIN && delay <= DELAY_MAX))
                return ctl_usage_error(verb->name, "--delay takes %.1f to %.0f seconds", DELAY_MIN,
                                       DELAY_MAX);
        if (iterations < 0)
                return ctl_usage_error(verb->name, "--iterations takes a number from 0 on");
        if (!column || !(column->verbs & FOR_TOP))
                return ctl_usage_error(verb->name, "--sort: unknown column '%s'", name);
        *ret_sort = column;
        return EXIT_GOOD;
}

/* ---- to a file ---- */

static void print_all(const struct top *top, bool first)
{
        g_autoptr(K42Table) table = top_table(top, 0, G_MAXUINT);
        g_autoptr(GString) text = g_string_new(first ? "" : "\n");

        top_append_title(top, text);
        g_string_append_c(text, '\n');
        if (!top->options.rows.no_headings) {
                table_append_headings(table, text);
                g_string_append_c(text, '\n');
        }
        for (unsigned i = 0; i < table_rows(table); i++) {
                table_append_row(table, i, text);
                g_string_append_c(text, '\n');
        }
        fwrite(text->str, 1, text->len, stdout);
}

static int run_batch(struct top *top)
{
        for (int i = 0; iterations == 0 || i < iterations; i++) {
                int r;

                if (i > 0)
                        g_usleep((gulong)(delay * G_USEC_PER_SEC));
                r = top_look(top);
                if (r != EXIT_GOOD)
                        return r;
                print_all(top, i == 0);
                if (fflush(stdout) != 0)
                        return EXIT_FAILED; /* main() says so */
        }
        return top->status;
}

/* ---- to a terminal ---- */

static int show_until_end(struct top *top, GPtrArray *messages)
{
        enum top_command command = TOP_LOOK;
        int64_t due = 0;

        for (int looks = 0; command != TOP_QUIT;) {
                if (command == TOP_NOTHING || command == TOP_LOOK) {
                        int r;

                        if (iterations > 0 && looks++ == iterations)
                                break;
                        g_ptr_array_set_size(messages, 0);
                        r = top_look(top);
                        if (r != EXIT_GOOD)
                                return r;
                        due = g_get_monotonic_time() + (int64_t)(delay * G_USEC_PER_SEC);
                }
                top_screen_draw(top, messages);
                command = top_screen_wait(top, due);
        }
        return top->status;
}

static int run_on_screen(struct top *top)
{
        g_autoptr(GPtrArray) messages = g_ptr_array_new_with_free_func(g_free);
        int r;

        if (!top_screen_open())
                return EXIT_FAILED;
        ctl_complain_to(messages);
        r = show_until_end(top, messages);
        top_screen_close();
        ctl_complain_to(NULL);
        /* what was said last stays to be read */
        for (guint i = 0; r != EXIT_GOOD && i < messages->len; i++)
                fprintf(stderr, "k42ctl: %s\n", (const char *)messages->pdata[i]);
        if (top_screen_signal()) {
                signal(top_screen_signal(), SIG_DFL);
                raise(top_screen_signal());
        }
        return r;
}

static int run(const struct verb *verb, const struct ctl_options *options)
{
        g_autoptr(K42Selection) selection = NULL;
        g_autoptr(K42Sampler) sampler = sampler_new();
        g_autoptr(GPtrArray) shown = g_ptr_array_new();
        struct top top = {.verb = verb, .options = *options, .reverse = reverse};
        int r;

        r = check_own_options(verb, &top.sort);
        if (r == EXIT_GOOD)
                r = selection_new(verb, options, &selection);
        if (r != EXIT_GOOD)
                return r;
        top.selection = selection;
        top.sampler = sampler;
        top.shown = shown;
        top.readable = selection_readable(verb, options);
        /* a mount that hangs must not hold the keys for long, and a large table takes its time */
        top.options.timeout = MIN(options->timeout, MAX(TIMEOUT_LEAST, (int)ceil(delay)));
        if (batch || !isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO))
                r = run_batch(&top);
        else
                r = run_on_screen(&top);
        row_set_free(top.set);
        return r;
}

static const GOptionEntry entries[] = {
        {"batch", 0, 0, G_OPTION_ARG_NONE, &batch, NULL, NULL},
        {"delay", 'd', 0, G_OPTION_ARG_DOUBLE, &delay, NULL, NULL},
        {"iterations", 'n', 0, G_OPTION_ARG_INT, &iterations, NULL, NULL},
        {"sort", 's', 0, G_OPTION_ARG_STRING, &sort, NULL, NULL},
        {"reverse", 'R', 0, G_OPTION_ARG_NONE, &reverse, NULL, NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
};

static const enum column_id top_columns[] = {
        COLUMN_HANDLE,    COLUMN_PID,        COLUMN_USER,       COLUMN_COMM,        COLUMN_OP_RATE,
        COLUMN_READ_RATE, COLUMN_WRITE_RATE, COLUMN_READ_BYTES, COLUMN_WRITE_BYTES, COLUMN_PATH,
};

static const struct row_verb top_rows = {
        .columns = FOR_TOP,
        .defaults = top_columns,
        .n_defaults = G_N_ELEMENTS(top_columns),
        .readable = true,
};

const struct verb verb_top = {
        .name = "top",
        .arguments = "[MOUNTPOINT…]",
        .summary = "who reads and writes how much, now",
        .description = "Shows the handles by what they do in each second; what goes past the "
                       "daemon (class fast,\n"
                       "and what the page cache answers) it cannot see.  On a terminal: q ends it, "
                       "the last line\n"
                       "has the other keys.  Otherwise, and with --batch, as text.  A daemon that "
                       "goes away is\n"
                       "said to, and looked for again; the exit status is that of the last look.",
        .max_rest = G_MAXUINT,
        .many_mounts = true,
        .no_json = true,
        .rows = &top_rows,
        .entries = entries,
        .entries_help = "      --batch             as text, one table after the other\n"
                        "  -d, --delay=SECONDS     between two looks; 2 if not given\n"
                        "  -n, --iterations=N      end after N looks\n"
                        "  -s, --sort=COLUMN       rate if not given\n"
                        "  -R, --reverse           small numbers first\n",
        .run = run,
};

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * k42ctl: the administrator's side.  A table of verbs, the options that all of them have, and help.
 */
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "ctl/column.h"
#include "ctl/verbs.h"

#define TIMEOUT_DEFAULT 10
#define TIMEOUT_MAX     86400

static const struct verb *const verbs[] = {
        &verb_list, &verb_tree,  &verb_top,    &verb_history, &verb_graph,   &verb_show,
        &verb_stats, &verb_status, &verb_check, &verb_umount,  &verb_upgrade,
};

static const struct verb *find_verb(const char *name)
{
        for (size_t i = 0; i < G_N_ELEMENTS(verbs); i++)
                if (g_str_equal(verbs[i]->name, name))
                        return verbs[i];
        return NULL;
}

static void print_help(void)
{
        puts("Usage: k42ctl VERB [OPTION…] [ARGUMENT…]\n\nVerbs:");
        for (size_t i = 0; i < G_N_ELEMENTS(verbs); i++)
                printf("  %-7s %-22s %s\n", verbs[i]->name, verbs[i]->arguments, verbs[i]->summary);
        printf("  %-7s %-22s %s\n", "help", "[VERB]", "this, or what a verb does");
        puts("\nOptions of all verbs:\n"
             "  --json         print JSON\n"
             "  --state=DIR    the mount's state directory, instead of MOUNTPOINT\n"
             "  --timeout=SEC  how long to wait for a daemon (default 10)\n"
             "  --version      print the version\n"
             "\nMOUNTPOINT may be any path on the mount; with one mount it can be left out.\n"
             "Exit status: 0 good, 1 failed (check: differences found), 2 usage.");
}

static void print_row_options(const struct row_verb *rows)
{
        if (rows->defaults)
                puts("  -o, --output=COLUMN,…   what to show; +COLUMN,… beside what it shows "
                     "anyway\n"
                     "      --no-headings       leave out the first line");
        puts("  -Q, --filter=EXPR       only rows that match, like -Q 'comm == \"tar\" and reads > "
             "1K'\n"
             "  -p, --pid=PID,…         only these processes");
        if (rows->defaults)
                puts(rows->readable ? "  -b, --bytes             exact numbers, without units"
                                    : "  -H, --human-readable    numbers with units: 1.5K, 3m20s");
        if (rows->formats)
                puts("      --jsonl             print JSON, an object a line\n"
                     "  -r, --raw               one blank between columns, \\x20 for those inside");
}

static int print_verb_help(const struct verb *verb)
{
        printf("Usage: k42ctl %s [OPTION…] %s\n\n%s\n", verb->name, verb->arguments,
               verb->description);
        puts("\nOptions:");
        if (verb->entries_help)
                fputs(verb->entries_help, stdout);
        if (verb->rows)
                print_row_options(verb->rows);
        printf("  %s--state=DIR --timeout=SEC: see 'k42ctl help'\n",
               verb->no_json ? "" : "--json ");
        if (verb->rows) {
                puts("\nColumns:");
                columns_print_help(verb->rows->columns);
        }
        return EXIT_GOOD;
}

static int help(char **rest)
{
        const struct verb *verb;

        if (!rest[0]) {
                print_help();
                return EXIT_GOOD;
        }
        if (rest[1])
                return ctl_usage_error(NULL, "help: too many arguments");
        verb = find_verb(rest[0]);
        if (!verb)
                return ctl_usage_error(NULL, "unknown verb '%s'", rest[0]);
        return print_verb_help(verb);
}

static int check_options(const struct verb *verb, const struct ctl_options *options)
{
        unsigned n = g_strv_length(options->rest);

        if (n < verb->min_rest && !(options->state_dir && verb == &verb_umount))
                return ctl_usage_error(verb->name, "missing argument: %s", verb->arguments);
        if (n > verb->max_rest)
                return ctl_usage_error(verb->name, "too many arguments: '%s'",
                                       options->rest[verb->max_rest]);
        if (options->timeout < 1 || options->timeout > TIMEOUT_MAX)
                return ctl_usage_error(verb->name, "--timeout takes 1 to %d seconds", TIMEOUT_MAX);
        if (options->json && verb->no_json)
                return ctl_usage_error(verb->name, "there is no --json of it");
        if (options->json + options->rows.jsonl + options->rows.raw > 1)
                return ctl_usage_error(verb->name, "only one of --json, --jsonl and --raw");
        return EXIT_GOOD;
}

static void add_row_options(GOptionContext *context, const struct row_verb *verb,
                            struct row_options *rows)
{
        const GOptionEntry choice[] = {
                {"filter", 'Q', 0, G_OPTION_ARG_STRING_ARRAY, &rows->filters, NULL, NULL},
                {"pid", 'p', 0, G_OPTION_ARG_STRING_ARRAY, &rows->pids, NULL, NULL},
                {NULL, 0, 0, 0, NULL, NULL, NULL},
        };
        const GOptionEntry columns_of_text[] = {
                {"output", 'o', 0, G_OPTION_ARG_STRING, &rows->columns, NULL, NULL},
                {"columns", 0, 0, G_OPTION_ARG_STRING, &rows->columns, NULL, NULL},
                {"no-headings", 0, 0, G_OPTION_ARG_NONE, &rows->no_headings, NULL, NULL},
                {"human-readable", 'H', 0, G_OPTION_ARG_NONE, &rows->readable, NULL, NULL},
                {"bytes", 'b', 0, G_OPTION_ARG_NONE, &rows->bytes, NULL, NULL},
                {NULL, 0, 0, 0, NULL, NULL, NULL},
        };
        const GOptionEntry formats[] = {
                {"jsonl", 0, 0, G_OPTION_ARG_NONE, &rows->jsonl, NULL, NULL},
                {"raw", 'r', 0, G_OPTION_ARG_NONE, &rows->raw, NULL, NULL},
                {NULL, 0, 0, 0, NULL, NULL, NULL},
        };

        g_option_context_add_main_entries(context, choice, NULL);
        if (verb->defaults)
                g_option_context_add_main_entries(context, columns_of_text, NULL);
        if (verb->formats)
                g_option_context_add_main_entries(context, formats, NULL);
}

static void clear_options(struct ctl_options *options)
{
        g_strfreev(options->rest);
        g_strfreev(options->rows.filters);
        g_strfreev(options->rows.pids);
        g_free(options->rows.columns);
        g_free(options->state_dir);
}

/* Parses the options of `verb` and runs it; `argv` begins after the verb's name. */
static int run_verb(const struct verb *verb, char **argv)
{
        struct ctl_options options = {.timeout = TIMEOUT_DEFAULT};
        gboolean wants_help = FALSE;
        const GOptionEntry common[] = {
                {"json", 'J', 0, G_OPTION_ARG_NONE, &options.json, NULL, NULL},
                {"state", 0, 0, G_OPTION_ARG_FILENAME, &options.state_dir, NULL, NULL},
                {"timeout", 0, 0, G_OPTION_ARG_INT, &options.timeout, NULL, NULL},
                {"help", 'h', 0, G_OPTION_ARG_NONE, &wants_help, NULL, NULL},
                {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &options.rest, NULL, NULL},
                {NULL, 0, 0, 0, NULL, NULL, NULL},
        };
        g_autoptr(GOptionContext) context = g_option_context_new(NULL);
        g_autoptr(GError) error = NULL;
        g_autoptr(GStrvBuilder) builder = g_strv_builder_new();
        g_auto(GStrv) args = NULL;
        int r;

        /* GOption skips the first one, the program's name */
        g_strv_builder_add(builder, verb->name);
        g_strv_builder_addv(builder, (const char **)argv);
        args = g_strv_builder_end(builder);

        g_option_context_set_help_enabled(context, FALSE);
        g_option_context_add_main_entries(context, common, NULL);
        if (verb->rows)
                add_row_options(context, verb->rows, &options.rows);
        if (verb->entries)
                g_option_context_add_main_entries(context, verb->entries, NULL);
        if (!g_option_context_parse_strv(context, &args, &error))
                r = ctl_usage_error(verb->name, "%s", error->message);
        else if (wants_help)
                r = print_verb_help(verb);
        else {
                if (!options.rest)
                        options.rest = g_new0(char *, 1);
                r = check_options(verb, &options);
                if (r == EXIT_GOOD)
                        r = verb->run(verb, &options);
        }
        clear_options(&options);
        return r;
}

static int run(char **argv)
{
        const struct verb *verb;

        if (!argv[0])
                return ctl_usage_error(NULL, "what to do?");
        if (g_str_equal(argv[0], "--version")) {
                puts("k42ctl " K42_VERSION);
                return EXIT_GOOD;
        }
        if (g_str_equal(argv[0], "help") || g_str_equal(argv[0], "--help") ||
            g_str_equal(argv[0], "-h"))
                return help(argv + 1);
        if (argv[0][0] == '-')
                return ctl_usage_error(NULL, "unknown option '%s': the verb comes first", argv[0]);
        verb = find_verb(argv[0]);
        if (!verb)
                return ctl_usage_error(NULL, "unknown verb '%s'", argv[0]);
        return run_verb(verb, argv + 1);
}

int main(int argc, char **argv)
{
        int r;

        setlocale(LC_CTYPE, "");
        r = run(argc > 0 ? argv + 1 : argv);
        if ((fflush(stdout) != 0 || ferror(stdout)) && r == EXIT_GOOD) {
                ctl_complain("cannot write the output: %s", g_strerror(errno));
                r = EXIT_FAILED;
        }
        return r;
}

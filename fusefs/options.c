/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * GOption reads the command line; what -o takes is a table here.  -o may be given several times and
 * anywhere, because mount(8) calls a helper as `k42fs SOURCE MOUNTPOINT -o OPTIONS`.
 */
#include "fusefs/options.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fusefs/control/fork_mode.h"
#include "fusefs/mount_point.h"
#include "fusefs/node/timeouts.h"

#define THREADS_DEFAULT 10
#define THREADS_MIN     2 /* one may have to wait for another */
#define THREADS_MAX     1000

#define BUSY_POLL_DEFAULT 50 /* microseconds: most programs ask for the next thing within that */
#define BUSY_POLL_MAX     1000
#define HISTORY_MAX     100000000
#define TIMEOUT_MAX     1e9

/* Each returns NULL, or what is wrong with `value` (NULL if there was no '='). */
typedef const char *(*option_parser)(struct k42_options *options, size_t offset, const char *value);

static const char *parse_true(struct k42_options *options, size_t offset, const char *value)
{
        if (value)
                return "takes no value";
        *(bool *)((char *)options + offset) = true;
        return NULL;
}

static const char *parse_false(struct k42_options *options, size_t offset, const char *value)
{
        if (value)
                return "takes no value";
        *(bool *)((char *)options + offset) = false;
        return NULL;
}

static const char *parse_coherent(struct k42_options *options, size_t offset, const char *value)
{
        if (value)
                return "takes no value";
        options->coherent = COHERENT_YES;
        return NULL;
}

static const char *parse_nocoherent(struct k42_options *options, size_t offset, const char *value)
{
        if (value)
                return "takes no value";
        options->coherent = COHERENT_NO;
        return NULL;
}

static const char *parse_seconds(struct k42_options *options, size_t offset, const char *value)
{
        char *end;
        double seconds;

        if (!value || !*value || g_ascii_isspace(*value))
                return "needs a number of seconds";
        seconds = g_ascii_strtod(value, &end);
        if (*end || !isfinite(seconds) || seconds < 0 || seconds > TIMEOUT_MAX)
                return "needs a number of seconds from 0 to 1000000000";
        *(double *)((char *)options + offset) = seconds;
        return NULL;
}

static const char *parse_number(const char *value, unsigned min, unsigned max, unsigned *ret_number)
{
        guint64 number;

        if (!value || !g_ascii_string_to_unsigned(value, 10, min, max, &number, NULL))
                return "is not a number in its range, see k42fs(1)";
        *ret_number = (unsigned)number;
        return NULL;
}

static const char *parse_threads(struct k42_options *options, size_t offset, const char *value)
{
        return parse_number(value, THREADS_MIN, THREADS_MAX, &options->max_threads);
}

static const char *parse_busy_poll(struct k42_options *options, size_t offset, const char *value)
{
        return parse_number(value, 0, BUSY_POLL_MAX, &options->busy_poll);
}

static const char *parse_history(struct k42_options *options, size_t offset, const char *value)
{
        return parse_number(value, 0, HISTORY_MAX, &options->history);
}

static const char *const io_names[] = {
        [IO_AUTO] = "auto",
        [IO_CACHED] = "cached",
        [IO_COUNTED] = "counted",
        [IO_FAST] = "fast",
};

static const char *parse_io(struct k42_options *options, size_t offset, const char *value)
{
        for (unsigned i = 0; i < G_N_ELEMENTS(io_names); i++) {
                if (g_strcmp0(value, io_names[i]) == 0) {
                        options->io = (enum io_option)i;
                        return NULL;
                }
        }
        return "needs one of auto, cached, counted, fast";
}

static const char *parse_fork(struct k42_options *options, size_t offset, const char *value)
{
        return fork_mode_parse(value, &options->fork_private);
}

static const char *parse_state(struct k42_options *options, size_t offset, const char *value)
{
        if (!value || !*value)
                return "needs a directory";
        g_free(options->state);
        options->state = g_canonicalize_filename(value, NULL);
        return NULL;
}

static const char *parse_nothing(struct k42_options *options, size_t offset, const char *value)
{
        return NULL;
}

#define FIELD(name) offsetof(struct k42_options, name)

static const struct {
        const char *name; /* a trailing '*' matches any rest */
        option_parser parse;
        size_t offset;
} option_table[] = {
        {"allow_other", parse_true, FIELD(allow_other)},
        {"default_permissions", parse_true, FIELD(default_permissions)},
        {"ro", parse_true, FIELD(ro)},
        {"rw", parse_false, FIELD(ro)},
        {"nosuid", parse_true, FIELD(nosuid)},
        {"suid", parse_false, FIELD(nosuid)},
        {"nodev", parse_true, FIELD(nodev)},
        {"dev", parse_false, FIELD(nodev)},
        {"noexec", parse_true, FIELD(noexec)},
        {"exec", parse_false, FIELD(noexec)},
        {"attr_timeout", parse_seconds, FIELD(attr_timeout)},
        {"entry_timeout", parse_seconds, FIELD(entry_timeout)},
        {"coherent", parse_coherent, 0},
        {"nocoherent", parse_nocoherent, 0},
        {"exclusive", parse_true, FIELD(exclusive)},
        {"fdstore", parse_true, FIELD(fdstore)},
        {"fork", parse_fork, 0},
        {"io", parse_io, 0},
        {"state", parse_state, 0},
        {"max_threads", parse_threads, 0},
        {"busy_poll", parse_busy_poll, 0},
        {"history", parse_history, 0},
        /* mount(8)'s own words, which it passes on to helpers. */
        {"defaults", parse_nothing, 0},
        {"auto", parse_nothing, 0},
        {"noauto", parse_nothing, 0},
        {"nofail", parse_nothing, 0},
        {"_netdev", parse_nothing, 0},
        {"user", parse_nothing, 0},
        {"users", parse_nothing, 0},
        {"nouser", parse_nothing, 0},
        {"owner", parse_nothing, 0},
        {"group", parse_nothing, 0},
        {"comment", parse_nothing, 0},
        {"x-*", parse_nothing, 0},
        {"X-*", parse_nothing, 0},
};

static bool name_matches(const char *pattern, const char *name, size_t name_len)
{
        const size_t len = strlen(pattern);

        if (pattern[len - 1] == '*')
                return name_len >= len - 1 && strncmp(pattern, name, len - 1) == 0;
        return name_len == len && strncmp(pattern, name, len) == 0;
}

static bool apply_option(struct k42_options *options, const char *word)
{
        const size_t name_len = strcspn(word, "=");
        const char *value = word[name_len] ? word + name_len + 1 : NULL;

        for (unsigned i = 0; i < G_N_ELEMENTS(option_table); i++) {
                const char *wrong;

                if (!name_matches(option_table[i].name, word, name_len))
                        continue;
                wrong = option_table[i].parse(options, option_table[i].offset, value);
                if (wrong)
                        g_warning("-o %s: %s", word, wrong);
                return !wrong;
        }
        g_warning("-o %.*s: unknown option; k42fs(1) has the list", (int)name_len, word);
        return false;
}

/* The words of one -o: separated by commas, a backslash takes the next character as it is. */
static bool apply_options(struct k42_options *options, const char *text)
{
        g_autoptr(GString) word = g_string_new(NULL);

        for (;; text++) {
                if (*text == '\\' && text[1]) {
                        g_string_append_c(word, *++text);
                } else if (*text && *text != ',') {
                        g_string_append_c(word, *text);
                } else {
                        if (word->len > 0 && !apply_option(options, word->str))
                                return false;
                        g_string_truncate(word, 0);
                        if (!*text)
                                return true;
                }
        }
}

static void options_default(struct k42_options *options)
{
        const bool root = geteuid() == 0;

        *options = (struct k42_options){
                .allow_other = root,
                .default_permissions = root,
                .attr_timeout = TIMEOUT_UNSET,
                .entry_timeout = TIMEOUT_UNSET,
                .max_threads = THREADS_DEFAULT,
                .busy_poll = BUSY_POLL_DEFAULT,
        };
}

/* The daemon's own files must not be behind its own mount. */
static bool check_state(const struct k42_options *options)
{
        const size_t len = strlen(options->mountpoint);

        if (options->state && strncmp(options->state, options->mountpoint, len) == 0 &&
            (options->state[len] == '/' || options->state[len] == '\0' || len == 1)) {
                g_warning("-o state=%s: lies inside MOUNTPOINT", options->state);
                return false;
        }
        return true;
}

/* What is on the command line, before SOURCE and MOUNTPOINT are looked at: argv[1] and argv[2] then. */
static bool parse_words(int *argc, char ***argv, struct k42_options *options, int *ret_status)
{
        gboolean foreground = FALSE, debug = FALSE, version = FALSE;
        g_auto(GStrv) words = NULL;
        const GOptionEntry entries[] = {{"foreground", 'f', 0, G_OPTION_ARG_NONE, &foreground,
                                         "Stay in the foreground, messages on stderr", NULL},
                                        {"debug", 'd', 0, G_OPTION_ARG_NONE, &debug,
                                         "Print every request; implies -f", NULL},
                                        {"option", 'o', 0, G_OPTION_ARG_STRING_ARRAY, &words,
                                         "Mount options, see k42fs(1)", "OPT[=VALUE],…"},
                                        {"version", 'V', 0, G_OPTION_ARG_NONE, &version,
                                         "Print the version and exit", NULL},
                                        {NULL, 0, 0, 0, NULL, NULL, NULL}};
        g_autoptr(GOptionContext) context =
                g_option_context_new("SOURCE MOUNTPOINT — mirror a directory, with object handles");
        g_autoptr(GError) error = NULL;

        *ret_status = K42_EXIT_USAGE;
        g_option_context_add_main_entries(context, entries, NULL);
        if (!g_option_context_parse(context, argc, argv, &error)) {
                g_warning("%s; try k42fs --help", error->message);
                return false;
        }
        if (version) {
                printf("k42fs %s, libfuse %s\n", K42_VERSION, fuse_pkgversion());
                *ret_status = K42_EXIT_OK;
                return false;
        }
        for (char **word = words; word && *word; word++)
                if (!apply_options(options, *word))
                        return false;
        if (*argc != 3) {
                g_warning("needs SOURCE and MOUNTPOINT, got %d argument%s; try k42fs --help",
                          *argc - 1, *argc == 2 ? "" : "s");
                return false;
        }
        options->debug = debug;
        options->foreground = foreground || debug;
        return true;
}

bool k42_options_parse(int argc, char **argv, struct k42_options *ret_options, int *ret_status)
{
        struct k42_options options;

        options_default(&options);
        if (!parse_words(&argc, &argv, &options, ret_status)) {
                k42_options_clear(&options);
                return false;
        }
        *ret_status = K42_EXIT_FAILED;
        if (mount_point_check(&options, argv[1], argv[2]) < 0 || !check_state(&options)) {
                k42_options_clear(&options);
                return false;
        }
        *ret_options = options;
        return true;
}

bool k42_options_parse_checked(int argc, char **argv, struct k42_options *ret_options,
                               int *ret_status)
{
        struct k42_options options;

        options_default(&options);
        if (!parse_words(&argc, &argv, &options, ret_status)) {
                k42_options_clear(&options);
                return false;
        }
        options.source = g_strdup(argv[1]);
        options.mountpoint = g_strdup(argv[2]);
        *ret_options = options;
        return true;
}

static void append_word(GString *to, const char *name, const char *value)
{
        g_string_append_printf(to, "%s%s", to->len > 0 ? "," : "", name);
        if (!value)
                return;
        g_string_append_c(to, '=');
        for (; *value; value++) {
                if (*value == ',' || *value == '\\')
                        g_string_append_c(to, '\\');
                g_string_append_c(to, *value);
        }
}

static void append_seconds(GString *to, const char *name, double seconds)
{
        char text[G_ASCII_DTOSTR_BUF_SIZE];

        if (seconds >= 0)
                append_word(to, name, g_ascii_dtostr(text, sizeof text, seconds));
}

static void append_number(GString *to, const char *name, unsigned number)
{
        char text[16];

        g_snprintf(text, sizeof text, "%u", number);
        append_word(to, name, text);
}

static char *format_words(const struct k42_options *options, const char *state)
{
        GString *text = g_string_new(NULL);

        for (unsigned i = 0; i < G_N_ELEMENTS(option_table); i++)
                if (option_table[i].parse == parse_true &&
                    *(const bool *)((const char *)options + option_table[i].offset))
                        append_word(text, option_table[i].name, NULL);
        append_seconds(text, "attr_timeout", options->attr_timeout);
        append_seconds(text, "entry_timeout", options->entry_timeout);
        if (options->coherent != COHERENT_AUTO)
                append_word(text, options->coherent == COHERENT_YES ? "coherent" : "nocoherent",
                            NULL);
        for (char **pattern = options->fork_private; pattern && *pattern; pattern++) {
                g_autofree char *value = g_strconcat(FORK_MODE_PRIVATE, *pattern, NULL);

                append_word(text, "fork", value);
        }
        append_word(text, "io", io_names[options->io]);
        append_number(text, "max_threads", options->max_threads);
        append_number(text, "busy_poll", options->busy_poll);
        append_number(text, "history", options->history);
        append_word(text, "state", state);
        return g_string_free(text, FALSE);
}

char **k42_options_format(const struct k42_options *options, const char *program, const char *mode,
                          const char *state)
{
        g_autoptr(GStrvBuilder) argv = g_strv_builder_new();
        g_autofree char *words = format_words(options, state);

        g_strv_builder_add_many(argv, program, mode, NULL);
        if (options->debug)
                g_strv_builder_add(argv, "-d");
        else if (options->foreground)
                g_strv_builder_add(argv, "-f");
        g_strv_builder_add_many(argv, "-o", words, "--", options->source, options->mountpoint,
                                NULL);
        return g_strv_builder_end(argv);
}

void k42_options_clear(struct k42_options *options)
{
        g_clear_pointer(&options->source, g_free);
        g_clear_pointer(&options->mountpoint, g_free);
        g_clear_pointer(&options->state, g_free);
        g_clear_pointer(&options->fork_private, g_strfreev);
}

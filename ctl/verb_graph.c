/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * graph: a picture of who has what open, drawn by Graphviz.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/column.h"
#include "ctl/dot.h"
#include "ctl/selection.h"

static char *format; /* -T, NULL: DOT itself */
static gboolean svg;

static bool wants(const struct row *row, void *data)
{
        return selection_wants(data, row);
}

/* dot reads all of it before it writes. */
static bool write_all(int fd, const GString *text)
{
        for (size_t done = 0; done < text->len;) {
                ssize_t n = write(fd, text->str + done, text->len - done);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return false;
                done += (size_t)n;
        }
        return true;
}

/* Starts dot with its stdin in *ret_fd.  0 or an errno. */
static int start_dot(const char *language, pid_t *ret_pid, int *ret_fd)
{
        g_autofree char *option = g_strconcat("-T", language, NULL);
        char *argv[] = {(char *)"dot", option, NULL};
        posix_spawn_file_actions_t actions;
        int fds[2], r;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return errno;
        posix_spawn_file_actions_init(&actions);
        r = posix_spawn_file_actions_adddup2(&actions, fds[0], STDIN_FILENO);
        if (r == 0)
                r = posix_spawnp(ret_pid, "dot", &actions, NULL, argv, environ);
        posix_spawn_file_actions_destroy(&actions);
        close(fds[0]);
        if (r == 0)
                *ret_fd = fds[1];
        else
                close(fds[1]);
        return r;
}

static int draw(const char *language, const GString *text)
{
        int fd = -1, status, r;
        bool written;
        pid_t pid;

        r = start_dot(language, &pid, &fd);
        if (r != 0) {
                if (r == ENOENT)
                        ctl_complain("graph: dot(1) is not installed (it comes with Graphviz); "
                                     "without --svg and -T the graph itself is printed");
                else
                        ctl_complain("graph: cannot run dot(1): %s", g_strerror(r));
                return EXIT_FAILED;
        }
        signal(SIGPIPE, SIG_IGN); /* it may refuse the language before it reads */
        written = write_all(fd, text);
        close(fd);
        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return EXIT_FAILED;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || !written) {
                ctl_complain("graph: dot(1) has failed");
                return EXIT_FAILED;
        }
        return EXIT_GOOD;
}

static bool is_language(const char *text)
{
        for (const char *p = text; *p; p++)
                if (!g_ascii_isalnum(*p) && !strchr(":_", *p))
                        return false;
        return *text;
}

static int check_format(const struct verb *verb, const char **ret_language)
{
        if (svg && format)
                return ctl_usage_error(verb->name, "either --svg or -T");
        if (format && !is_language(format))
                return ctl_usage_error(verb->name, "-T takes a format of dot(1), like png");
        *ret_language = svg ? "svg" : format;
        if (*ret_language && g_str_equal(*ret_language, "dot"))
                *ret_language = NULL;
        return EXIT_GOOD;
}

static int run(const struct verb *verb, const struct ctl_options *options)
{
        g_autoptr(K42Selection) selection = NULL;
        g_autoptr(K42RowSet) set = row_set_new();
        g_autoptr(GString) text = g_string_new(NULL);
        g_autoptr(GPtrArray) targets = NULL;
        struct rows_request request = {.verb = "list"};
        const char *language = NULL;
        unsigned answered;
        int r, asked;

        r = check_format(verb, &language);
        if (r == EXIT_GOOD)
                r = selection_new(verb, options, &selection);
        if (r != EXIT_GOOD)
                return r;
        r = rows_find_targets(verb, options, &targets);
        if (r == EXIT_USAGE)
                return r;
        request.identity = selection_needs_identity(selection);
        asked = row_set_ask(set, targets, options, &request, &answered);
        if (answered == 0)
                return EXIT_FAILED;
        dot_append_graph(set, wants, selection, text);
        if (!language)
                fwrite(text->str, 1, text->len, stdout);
        else if (draw(language, text) != EXIT_GOOD)
                return EXIT_FAILED;
        return r == EXIT_GOOD ? asked : r;
}

static const GOptionEntry entries[] = {
        {"svg", 0, 0, G_OPTION_ARG_NONE, &svg, NULL, NULL},
        {"format", 'T', 0, G_OPTION_ARG_STRING, &format, NULL, NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
};

static const struct row_verb graph_rows = {.columns = FOR_LIST};

const struct verb verb_graph = {
        .name = "graph",
        .arguments = "[MOUNTPOINT…]",
        .summary = "who has what open, as a picture",
        .description = "Prints a graph in the language of Graphviz: processes (boxes), handles "
                       "(ellipses) and\n"
                       "files, with arrows from a process to its handles, from a handle to its "
                       "file, and (blue)\n"
                       "from a handle to those derived from it.",
        .max_rest = G_MAXUINT,
        .many_mounts = true,
        .no_json = true,
        .rows = &graph_rows,
        .entries = entries,
        .entries_help = "      --svg               let dot(1) draw it, as SVG\n"
                        "  -T, --format=FORMAT     let dot(1) draw it, as png, pdf, …\n",
        .run = run,
};

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * k42run: runs a command with libk42shim.so preloaded.  It becomes the command (execve), so that
 * signals, the exit status and the process id are the command's own.
 */
#include "ctl/k42run.h"

#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SHIM "libk42shim.so"

/* The library: beside this program in the build tree, else where it was installed.  Free it. */
static char *find_shim(void)
{
        g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
        g_autofree char *dir = self ? g_path_get_dirname(self) : NULL;
        g_autofree char *built = dir ? g_build_filename(dir, "..", "shim", SHIM, NULL) : NULL;

        if (built && access(built, R_OK) == 0)
                return g_canonicalize_filename(built, NULL);
        if (access(K42_SHIM_DIR "/" SHIM, R_OK) == 0)
                return g_strdup(K42_SHIM_DIR "/" SHIM);
        fprintf(stderr, "k42run: %s: not found, neither beside this program nor in %s\n", SHIM,
                K42_SHIM_DIR);
        return NULL;
}

/* LD_PRELOAD's separators are spaces and colons, and nothing quotes them. */
static int check_shim_path(const char *shim)
{
        if (strpbrk(shim, " :")) {
                fprintf(stderr,
                        "k42run: %s: cannot be preloaded from a path with a space or colon\n",
                        shim);
                return -EINVAL;
        }
        return 0;
}

static bool preloads(const char *preload, const char *shim)
{
        g_auto(GStrv) entries = g_strsplit_set(preload, " :", -1);

        return g_strv_contains((const char *const *)entries, shim);
}

static void set_environment(const char *shim, const char *mode)
{
        const char *preload = g_getenv("LD_PRELOAD");
        g_autofree char *joined = NULL;

        if (preload && *preload && !preloads(preload, shim))
                joined = g_strconcat(shim, ":", preload, NULL);
        else
                joined = g_strdup(preload && *preload ? preload : shim);
        g_setenv("LD_PRELOAD", joined, TRUE);
        if (mode) /* else it stays what it is, and without it the mounts decide */
                g_setenv("K42_FORK", mode, TRUE);
}

static int run(char **command)
{
        int err;

        execvp(command[0], command);
        err = errno;
        fprintf(stderr, "k42run: %s: cannot be run: %s\n", command[0], g_strerror(err));
        return err == ENOENT ? K42RUN_NOT_FOUND : K42RUN_CANNOT_RUN;
}

int main(int argc, char **argv)
{
        g_autofree char *mode = NULL, *shim = NULL, *program = NULL;
        gboolean check = FALSE, version = FALSE;
        const GOptionEntry entries[] = {
                {"fork", 0, 0, G_OPTION_ARG_STRING, &mode,
                 "What a child gets of an open file that it inherits: shared (as POSIX says) or private "
                 "(its own offset); without this what K42_FORK says, else what the mount says",
                 "shared|private"},
                {"check", 0, 0, G_OPTION_ARG_NONE, &check, "Tell what of COMMAND is covered", NULL},
                {"version", 'V', 0, G_OPTION_ARG_NONE, &version, "Print the version and exit",
                 NULL},
                {NULL, 0, 0, 0, NULL, NULL, NULL}};
        g_autoptr(GOptionContext) context =
                g_option_context_new("[--] COMMAND [ARG…] — run COMMAND with lazy re-open");
        g_autoptr(GError) error = NULL;

        g_option_context_add_main_entries(context, entries, NULL);
        g_option_context_set_strict_posix(context, TRUE); /* COMMAND's options are COMMAND's */
        if (!g_option_context_parse(context, &argc, &argv, &error)) {
                fprintf(stderr, "k42run: %s; try k42run --help\n", error->message);
                return K42RUN_USAGE;
        }
        if (version) {
                printf("k42run %s\n", K42_VERSION);
                return K42RUN_OK;
        }
        if (mode && strcmp(mode, "shared") != 0 && strcmp(mode, "private") != 0) {
                fprintf(stderr, "k42run: --fork=%s: unknown; it must be shared or private\n", mode);
                return K42RUN_USAGE;
        }
        argv++;
        if (*argv && strcmp(*argv, "--") == 0)
                argv++;
        if (!*argv) {
                fprintf(stderr, "k42run: needs a COMMAND; try k42run --help\n");
                return K42RUN_USAGE;
        }
        shim = find_shim();
        if (!shim || check_shim_path(shim) < 0)
                return K42RUN_FAILED;
        if (!check) {
                set_environment(shim, mode);
                return run(argv);
        }
        program = g_find_program_in_path(*argv);
        if (!program) {
                fprintf(stderr, "k42run: %s: not found\n", *argv);
                return K42RUN_NOT_FOUND;
        }
        if (mode)
                g_setenv("K42_FORK", mode, TRUE); /* which the library reads when it is loaded */
        return k42run_check(program, shim);
}

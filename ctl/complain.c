/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One line on stderr, whatever names and other programs' words are in it.
 */
#include <stdarg.h>
#include <stdio.h>

#include "ctl/print.h"
#include "ctl/verbs.h"

static GPtrArray *collected; /* NULL: stderr */

void ctl_complain_to(GPtrArray *lines)
{
        collected = lines;
}

static G_GNUC_PRINTF(1, 0) void complain(const char *format, va_list args)
{
        g_autofree char *line = g_strdup_vprintf(format, args);
        g_autofree char *escaped = print_escape(line);

        if (collected)
                g_ptr_array_add(collected, g_steal_pointer(&escaped));
        else
                fprintf(stderr, "k42ctl: %s\n", escaped);
}

void ctl_complain(const char *format, ...)
{
        va_list args;

        va_start(args, format);
        complain(format, args);
        va_end(args);
}

int ctl_usage_error(const char *verb, const char *format, ...)
{
        g_autofree char *what = NULL;
        va_list args;

        va_start(args, format);
        what = g_strdup_vprintf(format, args);
        va_end(args);
        if (verb)
                ctl_complain("%s: %s (see 'k42ctl help %s')", verb, what, verb);
        else
                ctl_complain("%s (see 'k42ctl help')", what);
        return EXIT_USAGE;
}

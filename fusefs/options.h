/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The command line of k42fs; doc/k42fs.1 is its description for users. */
#include "fusefs/mount.h"

/* Exit statuses of k42fs, k42ctl and k42run's own failures, documented in k42fs(1). */
enum {
        K42_EXIT_OK = 0,
        K42_EXIT_FAILED = 1,
        K42_EXIT_USAGE = 2,
};

/* Parses the command line.  Returns true and `ret_options` (end with k42_options_clear()) if there is
 * something to mount.  Otherwise false and the exit status: of --help and --version, or of an error
 * after its one line has been logged.  SOURCE and MOUNTPOINT have been checked (mount_point.h). */
bool k42_options_parse(int argc, char **argv, struct k42_options *ret_options, int *ret_status);

/* As above, of a command line that k42_options_format() has made: SOURCE and MOUNTPOINT are taken as they
 * are, since they have been checked and may be covered by the mount meanwhile. */
bool k42_options_parse_checked(int argc, char **argv, struct k42_options *ret_options,
                               int *ret_status);

/* The command line PROGRAM MODE … that says these options, with -o state=STATE.  Free with g_strfreev(). */
char **k42_options_format(const struct k42_options *options, const char *program, const char *mode,
                          const char *state);

void k42_options_clear(struct k42_options *options);

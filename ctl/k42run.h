/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What the files of k42run share. */
#include <stdbool.h>
#include <stdint.h>

/* Exit statuses, documented in k42run(1); otherwise it is COMMAND's. */
enum {
        K42RUN_OK = 0,
        K42RUN_FAILED = 1, /* also: --check found that COMMAND is not covered */
        K42RUN_USAGE = 2,
        K42RUN_CANNOT_RUN = 126,
        K42RUN_NOT_FOUND = 127,
};

/* `k42run --check COMMAND`: prints what is covered; `program` is an absolute path, `shim` the library's.
 * Returns an exit status. */
int k42run_check(const char *program, const char *shim);

/* Parses letters of "rwdc", each at most once.  Returns 0 or -EINVAL. */
int k42run_parse_rights(const char *text, uint32_t *ret_rights);

/* Asks the daemon of every k42fs mount to give what inherits from this process no more than `rights`.
 * Of each that cannot there is a line on stderr.  Returns 0, or -errno if all of them cannot. */
int k42run_withhold(uint32_t rights);

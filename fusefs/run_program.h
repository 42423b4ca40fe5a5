/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * run_program: runs fusermount3 without starting a thread, which the holder must never have (GSubprocess
 * starts one).
 */
#include <stddef.h>
#include <sys/types.h>

/* Starts argv[0], looked up in PATH, with no input, all signals as at a login, and `as_fd` (-1: none) as
 * its descriptor 3.  `extra`: NULL or one variable "NAME=VALUE" more in its environment.  What it prints on
 * stderr comes from *ret_stderr (the caller's).  Returns 0 or -errno. */
int program_start(const char *const *argv, int as_fd, const char *extra, pid_t *ret_pid,
                  int *ret_stderr);

/* Reads what it prints into `printed` (of `size` bytes, ended by NUL; NULL: nobody wants to know), closes
 * `stderr_fd` and waits for the program's end.  Returns its exit status, or -1 if it was killed. */
int program_wait(pid_t pid, int stderr_fd, char *printed, size_t size);

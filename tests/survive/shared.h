/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * What several processes do to the same files at the same time: a counter under a lock, a log that all append
 * to, and a listing of a directory that nobody changes.
 */
#include <stdint.h>

/* In `directory`, before the processes start.  0, or -1 after a line on stderr. */
int shared_prepare(const char *directory);

/* One process: works until shared_stop() of its parent kills it with SIGTERM.  `number` < SHARED_MAX.
 * Returns the exit status. */
int shared_process(const char *directory, unsigned number);

/* After the processes have ended: are the log and the counters whole?  `processes`: how many there were. */
int shared_check(const char *directory, unsigned processes);

#define SHARED_MAX 8

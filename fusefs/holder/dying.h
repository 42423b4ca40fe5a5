/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* dying: tells a worker that dies from one that is as good as dead; for the holder, without allocation. */
#include <stdbool.h>
#include <sys/types.h>

/* True if nothing of the process is left but its first thread, as a zombie, and its teller.  `ret_status`: as
 * from waitpid(), but 0 also if we may not trace it, which an ordinary user's holder may not. */
bool worker_is_as_good_as_dead(pid_t pid, int *ret_status);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * own_thread: a thread that works for somebody and takes no signals: those are for the threads that
 * expect them.
 */
#include <pthread.h>

/* Starts `run` with `data` in a thread that is called `name` (15 bytes at most) in /proc, if there is a descriptor
 * left to do that with.  Returns 0 or -errno.  Whoever starts it joins it. */
int own_thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *data), void *data);

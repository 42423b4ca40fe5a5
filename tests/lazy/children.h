/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * Processes that do nothing but be clients, until they are killed.  All of a test are in an array, so
 * that none outlives it; they die with the test, too.  Failing is by g_assert.
 */
#include <glib.h>
#include <sys/types.h>

/* An empty array of pid_t, for children_end(). */
GArray *children_new(void);
/* Kills those that are still there, and frees the array. */
void children_end(GArray *children);

pid_t child_start(GArray *children);
/* Kills it and waits for its end; it stays in the array. */
void child_end(pid_t pid);

/* The same with two children of its own. */
pid_t child_start_family(GArray *children, pid_t ret_below[2]);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * control_pool: a few threads for what the main thread must not wait for.  Tasks go in and come
 * back by their own list links, so that nothing has to be allocated; the main thread learns by a
 * descriptor that some are done.  Thread-safe.
 */
#include <glib.h>
#include <stdbool.h>

struct control_pool;

/* Starts `threads` threads that call work(link->data, data) for each task.  Returns 0, or -errno
 * with nothing left behind. */
int control_pool_new(unsigned threads, void (*work)(void *task, void *data), void *data,
                     struct control_pool **ret_pool);

/* Drops the tasks that were not begun and waits up to `timeout_us` for those that were.  False if one of
 * them is stuck: then nothing that work() uses may be freed. */
bool control_pool_end(struct control_pool *pool, int64_t timeout_us);

/* As control_pool_end(), however long it takes, and frees.  NULL is ignored. */
void control_pool_free(struct control_pool *pool);

/* Lends a task to the pool; until control_pool_take_done() returns it, only work() may touch it. */
void control_pool_push(struct control_pool *pool, GList *link);

/* Readable (an eventfd, borrowed) while tasks are done and not taken. */
int control_pool_fd(struct control_pool *pool);

/* A task that is done, or NULL. */
GList *control_pool_take_done(struct control_pool *pool);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * fence: waits for operations that have begun.
 *
 * Who changes what operations look at (a right, a flag) wants to say "from now on" and mean it: the
 * change is made, and then those operations are waited for that may have looked before.  Operations
 * enter and leave the fence around everything that they do, the answer included; they never wait.  Who
 * waits does not wait for operations that begin after him, however many there are.
 *
 * An operation must enter before it looks, and the change must be made, by an atomic store, before
 * fence_wait(): then each operation either sees the change or is waited for.
 *
 * Operations are told apart by a key (the description's id) only roughly, by FENCE_STRIPES stripes:
 * one is sometimes waited for that has nothing to do with the change.
 *
 * Ownership: whoever made the fence frees it, when nobody is inside.  Locks: fence_wait() holds one of
 * its own per stripe, and none is needed by the others.  Async: nothing here is.
 */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define FENCE_STRIPES 64 /* a power of two */

struct fence;

struct fence *fence_new(void); /* NULL if out of memory */
void fence_free(struct fence *fence);
typedef struct fence K42Fence; /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Fence, fence_free)

/* An operation on `key` begins; what it gets belongs to fence_leave(). */
unsigned fence_enter(struct fence *fence, uint64_t key);
void fence_leave(struct fence *fence, unsigned ticket);

/* Waits until all operations on `key` that are inside now have left.  `deadline`: monotonic µs.  False
 * if some were still inside then. */
bool fence_wait(struct fence *fence, uint64_t key, int64_t deadline);

/* The same for all keys. */
bool fence_wait_all(struct fence *fence, int64_t deadline);

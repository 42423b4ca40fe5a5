/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * account: what this process does with its descriptors, said to the daemon in shared memory (lazy/protocol.h,
 * "The account").  No message, and no system call on the way of a read: an array look-up, a comparison and
 * two additions.
 *
 * A descriptor's slot is a hint like its bits (fd_table.h): it counts only while the slot still has the
 * token that the descriptor has.  What is copied has the same slot; what was inherited over fork has none
 * until it is touched, because the child does not have its parent's mapping.
 *
 * Counted is after the call, by what it returned.  The additions are single instructions, so that a signal
 * handler does not come between.  A process with one thread adds to the slot; of several each takes a lane
 * when it counts for the first time, and gives it back when it ends.  Only threads that find none left pay for
 * locked additions.
 *
 * Async-signal-safe; keeps errno.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lazy/protocol.h"
#include "shim/fd_table.h"

extern struct k42_account *_Atomic account_page; /* NULL: none in this process */
/* By descriptor.  NULL: no accounts at all. */
struct account_fd {
        _Atomic uint64_t token;
        _Atomic uint32_t slot; /* 0: none */
};
extern struct account_fd *account_fds;
extern char __libc_single_threaded __attribute__((weak));

/* This thread's lane; ACCOUNT_NO_LANE: none yet, or none any more. */
#define ACCOUNT_NO_LANE 0
extern __thread unsigned account_lane __attribute__((tls_model("initial-exec")));

/* Where the calling thread counts for a slot for which its lane has no bit yet, or it no lane: the counters in
 * its lane, which are 0 then.  NULL: in the slot itself, as everybody may. */
uint64_t *account_enter_lane(struct k42_account *page, unsigned number);

/* Once, after fd_table_init().  Nothing is said if it does not work: then nothing is counted. */
void account_start(void);

/* In a forked child: the mapping is its parent's. */
void account_child(void);

/* Before a call in which the daemon may give a handle: makes the account if there is none, and room for its
 * answer. */
void account_expect(void);

/* After it: the slot that the daemon said of `fd`, with the token in *ret_token; 0 if it said none.  If it asks for
 * the file instead that is offered, and LAZY_REOPEN sent. */
unsigned account_answer(int fd, uint64_t *ret_token);

/* `fd` has this slot, or none (0, 0).  Memory that says so already is not touched. */
static inline void account_set(int fd, unsigned slot, uint64_t token)
{
        if (!account_fds || (unsigned)fd >= FD_TABLE_MAX ||
            (slot == 0 && atomic_load_explicit(&account_fds[fd].slot, memory_order_relaxed) == 0))
                return;
        atomic_store_explicit(&account_fds[fd].token, token, memory_order_relaxed);
        atomic_store_explicit(&account_fds[fd].slot, slot, memory_order_relaxed);
}

/* `fd` has no slot, unless it is of the handle `token`, as another thread that touched it too may say just now.  The
 * number stays, with a token that no slot has. */
static inline void account_unset(int fd, uint64_t token)
{
        uint64_t old;

        if (!account_fds || (unsigned)fd >= FD_TABLE_MAX ||
            atomic_load_explicit(&account_fds[fd].slot, memory_order_relaxed) == 0)
                return;
        old = atomic_load_explicit(&account_fds[fd].token, memory_order_relaxed);
        if (old != token)
                atomic_compare_exchange_strong(&account_fds[fd].token, &old, UINT64_MAX);
}

static inline void account_copy(int from, int to)
{
        if (account_fds && (unsigned)from < FD_TABLE_MAX)
                account_set(to, atomic_load_explicit(&account_fds[from].slot, memory_order_relaxed),
                            atomic_load_explicit(&account_fds[from].token, memory_order_relaxed));
}

/* To what no other thread writes. */
static inline void account_add_alone(uint64_t *counter, uint64_t n)
{
#ifdef __x86_64__
        __asm__("addq %1, %0" : "+m"(*counter) : "r"(n) : "cc");
#else
        __atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
#endif
}

/* Where this thread counts alone for the slot, or NULL. */
static inline uint64_t *account_counters(struct k42_account *page, unsigned number, uint64_t flags)
{
        const unsigned lane = account_lane;

        if (&__libc_single_threaded && __libc_single_threaded)
                return page->slot[number].counters;
        if (__builtin_expect(lane != ACCOUNT_NO_LANE && number < K42_ACCOUNT_LANE_SLOTS &&
                                     (flags & K42_ACCOUNT_LANE(lane)), 1))
                return page->lane[lane - 1][number].counters;
        return account_enter_lane(page, number);
}

/* `n` is what the call returned; `seen`: the daemon counts such calls itself where it sees all. */
static inline void account_count(int fd, enum k42_account_counter calls, ssize_t n, bool seen)
{
        struct k42_account *page;
        struct k42_account_slot *slot;
        uint64_t flags, *counters;
        unsigned number;

        if (!account_fds || (unsigned)fd >= FD_TABLE_MAX)
                return;
        number = atomic_load_explicit(&account_fds[fd].slot, memory_order_relaxed);
        page = atomic_load_explicit(&account_page, memory_order_relaxed);
        if (__builtin_expect(number == 0, 1) || !page || n < 0)
                return;
        slot = &page->slot[number];
        flags = __atomic_load_n(&slot->flags, __ATOMIC_RELAXED);
        if (__atomic_load_n(&slot->token, __ATOMIC_RELAXED) !=
                    atomic_load_explicit(&account_fds[fd].token, memory_order_relaxed) ||
            (seen && (flags & K42_ACCOUNT_CALLS_SEEN)))
                return;
        counters = account_counters(page, number, flags);
        if (__builtin_expect(counters != NULL, 1)) {
                account_add_alone(&counters[calls], 1);
                account_add_alone(&counters[calls + 1], (uint64_t)n);
        } else {
                __atomic_fetch_add(&slot->counters[calls], 1, __ATOMIC_RELAXED);
                __atomic_fetch_add(&slot->counters[calls + 1], (uint64_t)n, __ATOMIC_RELAXED);
        }
}

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
 * handler does not come between; only a process with several threads pays for locked ones.
 *
 * Async-signal-safe; keeps errno.
 */
#include <stdatomic.h>
#include <stdbool.h>
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

/* Once, after fd_table_init().  Nothing is said if it does not work: then nothing is counted. */
void account_start(void);

/* In a forked child: the mapping is its parent's. */
void account_child(void);

/* Before a call in which the daemon may give a handle: makes the account if there is none, and room for its
 * answer. */
void account_expect(void);

/* After it: the slot that the daemon said, with the token in *ret_token; 0 if it said none. */
unsigned account_answer(uint64_t *ret_token);

/* `fd` has this slot, or none (0, 0).  Memory that says so already is not touched. */
static inline void account_set(int fd, unsigned slot, uint64_t token)
{
        if (!account_fds || (unsigned)fd >= FD_TABLE_MAX ||
            (slot == 0 && atomic_load_explicit(&account_fds[fd].slot, memory_order_relaxed) == 0))
                return;
        atomic_store_explicit(&account_fds[fd].token, token, memory_order_relaxed);
        atomic_store_explicit(&account_fds[fd].slot, slot, memory_order_relaxed);
}

static inline void account_copy(int from, int to)
{
        if (account_fds && (unsigned)from < FD_TABLE_MAX)
                account_set(to, atomic_load_explicit(&account_fds[from].slot, memory_order_relaxed),
                            atomic_load_explicit(&account_fds[from].token, memory_order_relaxed));
}

static inline void account_add(uint64_t *counter, uint64_t n)
{
#ifdef __x86_64__
        if (&__libc_single_threaded && __libc_single_threaded) {
                __asm__("addq %1, %0" : "+m"(*counter) : "r"(n) : "cc");
                return;
        }
#endif
        __atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

/* `n` is what the call returned; `seen`: the daemon counts such calls itself where it sees all. */
static inline void account_count(int fd, enum k42_account_counter calls, ssize_t n, bool seen)
{
        struct k42_account *page;
        struct k42_account_slot *slot;
        unsigned number;

        if (!account_fds || (unsigned)fd >= FD_TABLE_MAX)
                return;
        number = atomic_load_explicit(&account_fds[fd].slot, memory_order_relaxed);
        page = atomic_load_explicit(&account_page, memory_order_relaxed);
        if (__builtin_expect(number == 0, 1) || !page || n < 0)
                return;
        slot = &page->slot[number];
        if (__atomic_load_n(&slot->token, __ATOMIC_RELAXED) !=
                    atomic_load_explicit(&account_fds[fd].token, memory_order_relaxed) ||
            (seen && (slot->flags & K42_ACCOUNT_CALLS_SEEN)))
                return;
        account_add(&slot->counters[calls], 1);
        account_add(&slot->counters[calls + 1], (uint64_t)n);
}

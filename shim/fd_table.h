/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * fd_table: K42's descriptor bitmaps (kitch-linux/lib/emu/FD.H): `active`, `ready` (readyForLazy) and
 * `coe` (close on exec), and a token for each descriptor.
 *
 *   active  ready   meaning
 *   0       0       unknown: looked at when it is first touched (a new program, a descriptor from a
 *                   socket, one that libc opened where it is not seen)
 *   1       0       settled: nothing to do
 *   1       1       inherited over fork: re-opened at the first touch
 *
 * Invariant: where `active` is 0 the other two are 0.
 *
 * The tables are hints.  The kernel and the daemon know what is true; a wrong bit costs one more
 * message, or a line of accounting, never wrong data.  So nothing is locked: every change is one atomic
 * operation on one word, in an order that keeps the invariant at each moment (active is set before,
 * and cleared after, the others), and what is said of a descriptor is cleared before it is closed and
 * set after it is opened.  fork copies the memory of one moment, so that a child finds the invariant
 * too, whatever the other threads of its parent were doing.
 *
 * The child marks its own copy, ready = active, before it uses it.  It knows that it is a child by a
 * word on a page that the kernel wipes at fork (madvise(2), MADV_WIPEONFORK), which covers fork,
 * _Fork and clone(2) alike.  (K42 marked in the parent, before the fork, where other threads were
 * still opening files: bits got lost, and the parent had to re-open too.)
 *
 * Children on the parent's memory (vfork, clone with CLONE_VM) must not change the tables: who wants
 * to change them asks fd_table_mine() first.
 *
 * Everything here is async-signal-safe, and keeps errno.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "shim/private_note.h"

/* Descriptors below this number have bits; others are left alone.  Address space for the tables, not
 * memory: pages appear as numbers are used (33 bytes for each descriptor, 64 at a time). */
#define FD_TABLE_MAX (1 << 20)

/* All that is kept of 64 descriptors is in one place: each page that is written after a fork is copied, and
 * most programs have no descriptor above 63, so that this is one page for them. */
struct fd_group {
        _Atomic uint64_t active, ready, coe;
        struct private_group own; /* private mode's bits, 0 in shared mode */
        _Atomic uint64_t tokens[64];
        struct private_note notes[64];
};

/* Where the tables are; constant after fd_table_init(). */
extern struct fd_group *fd_groups;         /* NULL: no tables, everything is left alone */
extern _Atomic uint32_t *fd_table_marked;  /* on the wiped page; FD_TABLE_MARKED in this process */
#define FD_TABLE_MARKED 0x4b343266u

enum fd_bits {
        FD_ACTIVE = 1 << 0,
        FD_READY  = 1 << 1,
        FD_COE    = 1 << 2,
};

/* Makes the tables; once, before there are threads.  Returns 0 or -errno, and then nothing is done. */
int fd_table_init(void);

/* In a child: ready = active, and the tables are this process's.  Several threads may do it at once. */
void fd_table_mark_child(void);

/* True if the tables are this process's own, not those of a parent whose memory it runs on. */
bool fd_table_mine(void);

/* The test that every intercepted call makes: is there anything to do for `fd`? */
static inline bool fd_table_settled(int fd)
{
        const struct fd_group *group;
        uint64_t bit;

        if (!fd_groups || (unsigned)fd >= FD_TABLE_MAX)
                return true;
        if (__builtin_expect(atomic_load_explicit(fd_table_marked, memory_order_relaxed) !=
                                     FD_TABLE_MARKED, 0))
                return false;
        group = &fd_groups[(unsigned)fd / 64];
        bit = UINT64_C(1) << ((unsigned)fd % 64);
        return (atomic_load_explicit(&group->active, memory_order_relaxed) & bit) &&
               !(atomic_load_explicit(&group->ready, memory_order_relaxed) & bit);
}

/* How many groups were ever used, from the first on; that of `fd` is. */
unsigned fd_table_used(void);
void fd_table_note_used(int fd);

/* `fd` was opened here: the daemon gave the handle with the open. */
void fd_table_opened(int fd, bool close_on_exec);
/* `fd` has been touched; `token` is this process's handle, 0 if it is not a descriptor of ours. */
void fd_table_touched(int fd, uint64_t token);
/* `to` is a copy of `from` now. */
void fd_table_duped(int from, int to, bool close_on_exec);
/* `fd`, or all from `first` to `last`, will be closed. */
void fd_table_closing(int fd);
void fd_table_closing_range(unsigned first, unsigned last);
void fd_table_set_coe(int fd, bool close_on_exec);
void fd_table_set_coe_range(unsigned first, unsigned last);

/* The FD_… bits of `fd`, and its token. */
unsigned fd_table_bits(int fd);
uint64_t fd_table_token(int fd);

/* The first descriptor that breaks the invariant, or -1. */
int fd_table_check(void);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "shim/fd_table.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shim/account.h"
#include "shim/private.h"

#define GROUPS      (FD_TABLE_MAX / 64)
#define WIPED_BYTES 4096

struct fd_group *fd_groups;
_Atomic uint32_t *fd_table_marked;

static _Atomic unsigned groups_used; /* one more than the highest group that ever had a bit */

/* getpid() as the kernel says it; libc's is the same since it stopped caching, but can be wrapped. */
static int kernel_pid(void)
{
        return (int)syscall(SYS_getpid);
}

/* The process whose tables these are.  On the wiped page: each child writes it, and would have to copy a
 * page for it anywhere else. */
static _Atomic int *owner(void)
{
        return (_Atomic int *)(fd_table_marked + 1);
}

/* One piece of address space, the wiped page first: a fork copies what is kept of each piece. */
int fd_table_init(void)
{
        const size_t bytes = WIPED_BYTES + GROUPS * sizeof(struct fd_group);
        const int saved = errno;
        char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                        0);
        int err;

        if (at == MAP_FAILED || madvise(at, WIPED_BYTES, MADV_WIPEONFORK) < 0) {
                err = errno;
                if (at != MAP_FAILED)
                        munmap(at, bytes);
                errno = saved;
                return -err;
        }
        /* A huge page would be filled at the first open, and copied as a whole after each fork. */
        (void)madvise(at + WIPED_BYTES, bytes - WIPED_BYTES, MADV_NOHUGEPAGE);
        fd_table_marked = (_Atomic uint32_t *)at;
        atomic_store(owner(), kernel_pid());
        atomic_store(fd_table_marked, FD_TABLE_MARKED);
        fd_groups = (struct fd_group *)(at + WIPED_BYTES);
        errno = saved;
        return 0;
}

void fd_table_mark_child(void)
{
        const unsigned n = atomic_load(&groups_used);

        if (!fd_groups)
                return;
        for (unsigned i = 0; i < n; i++) {
                const uint64_t active = atomic_load(&fd_groups[i].active);

                /* `or`, not a store: another thread may be doing the same, or opening. */
                if (active)
                        atomic_fetch_or(&fd_groups[i].ready, active);
        }
        private_child();
        account_child();
        atomic_store(owner(), kernel_pid());
        atomic_store(fd_table_marked, FD_TABLE_MARKED);
}

bool fd_table_mine(void)
{
        if (!fd_groups)
                return false;
        if (atomic_load_explicit(fd_table_marked, memory_order_relaxed) != FD_TABLE_MARKED)
                fd_table_mark_child();
        return atomic_load_explicit(owner(), memory_order_relaxed) == kernel_pid();
}

/* The group and bit of a descriptor that has bits; NULL else. */
static struct fd_group *group_of(int fd, uint64_t *ret_bit)
{
        if (!fd_groups || (unsigned)fd >= FD_TABLE_MAX)
                return NULL;
        *ret_bit = UINT64_C(1) << ((unsigned)fd % 64);
        return &fd_groups[(unsigned)fd / 64];
}

void fd_table_note_used(int fd)
{
        const unsigned needed = (unsigned)fd / 64 + 1;
        unsigned used = atomic_load_explicit(&groups_used, memory_order_relaxed);

        while (used < needed && !atomic_compare_exchange_weak(&groups_used, &used, needed))
                ;
}

unsigned fd_table_used(void)
{
        return fd_groups ? atomic_load(&groups_used) : 0;
}

/* Says what is known of a descriptor; active first, so that the invariant holds in between. */
static void set_bits(int fd, unsigned bits, uint64_t token)
{
        uint64_t bit;
        struct fd_group *group = group_of(fd, &bit);

        if (!group || !fd_table_mine())
                return;
        fd_table_note_used(fd);
        atomic_store_explicit(&group->tokens[(unsigned)fd % 64], token, memory_order_relaxed);
        atomic_fetch_or(&group->active, bit);
        if (bits & FD_READY)
                atomic_fetch_or(&group->ready, bit);
        else
                atomic_fetch_and(&group->ready, ~bit);
        if (bits & FD_COE)
                atomic_fetch_or(&group->coe, bit);
        else
                atomic_fetch_and(&group->coe, ~bit);
}

void fd_table_opened(int fd, bool close_on_exec)
{
        uint64_t bit, token;
        const unsigned slot = account_answer(fd, &token);

        if (group_of(fd, &bit) && private_knows((unsigned)fd / 64, bit) && fd_table_mine())
                private_forget((unsigned)fd / 64, bit);
        if (fd_table_mine())
                account_set(fd, slot, token);
        set_bits(fd, FD_ACTIVE | (close_on_exec ? FD_COE : 0), 0);
}

void fd_table_touched(int fd, uint64_t token)
{
        uint64_t said;
        const unsigned slot = account_answer(fd, &said);

        if (slot && said == token)
                account_set(fd, slot, token);
        else if (fd_table_mine())
                account_unset(fd, token);
        set_bits(fd, FD_ACTIVE | (fd_table_bits(fd) & FD_COE), token);
}

void fd_table_duped(int from, int to, bool close_on_exec)
{
        const unsigned bits = fd_table_bits(from);

        /* A copy of an unknown one is unknown too. */
        if (from == to)
                return;
        if (bits & FD_ACTIVE) {
                set_bits(to, FD_ACTIVE | (bits & FD_READY) | (close_on_exec ? FD_COE : 0),
                         fd_table_token(from));
                account_copy(from, to);
        }
        if (private_on && fd_table_mine())
                private_copied(from, to);
}

static void clear_bits(struct fd_group *group, uint64_t mask)
{
        private_forget((unsigned)(group - fd_groups), mask);
        /* Not a word is written for nothing, because the page may have to be copied for it. */
        if (!((atomic_load(&group->active) | atomic_load(&group->ready) | atomic_load(&group->coe)) & mask))
                return;
        atomic_fetch_and(&group->ready, ~mask);
        atomic_fetch_and(&group->coe, ~mask);
        atomic_fetch_and(&group->active, ~mask);
}

void fd_table_closing(int fd)
{
        uint64_t bit;
        struct fd_group *group = group_of(fd, &bit);

        if (group && ((atomic_load_explicit(&group->active, memory_order_relaxed) & bit) ||
                      private_knows((unsigned)fd / 64, bit)) &&
            fd_table_mine())
                clear_bits(group, bit);
}

/* The bits of group i that lie in [first, last]. */
static uint64_t range_mask(unsigned i, unsigned first, unsigned last)
{
        uint64_t mask = ~UINT64_C(0);

        if (first / 64 == i)
                mask &= ~UINT64_C(0) << (first % 64);
        if (last / 64 == i)
                mask &= ~UINT64_C(0) >> (63 - last % 64);
        return mask;
}

void fd_table_closing_range(unsigned first, unsigned last)
{
        const unsigned used = atomic_load(&groups_used);

        if (first > last || !fd_table_mine())
                return;
        for (unsigned i = first / 64; i < used && i <= last / 64; i++)
                clear_bits(&fd_groups[i], range_mask(i, first, last));
}

void fd_table_set_coe(int fd, bool close_on_exec)
{
        uint64_t bit;
        struct fd_group *group = group_of(fd, &bit);

        if (!group || !fd_table_mine())
                return;
        if (!close_on_exec)
                atomic_fetch_and(&group->coe, ~bit);
        else if (atomic_load(&group->active) & bit)
                atomic_fetch_or(&group->coe, bit);
}

void fd_table_set_coe_range(unsigned first, unsigned last)
{
        const unsigned used = atomic_load(&groups_used);

        if (first > last || !fd_table_mine())
                return;
        for (unsigned i = first / 64; i < used && i <= last / 64; i++)
                atomic_fetch_or(&fd_groups[i].coe,
                                atomic_load(&fd_groups[i].active) & range_mask(i, first, last));
}

unsigned fd_table_bits(int fd)
{
        uint64_t bit;
        const struct fd_group *group = group_of(fd, &bit);

        if (!group)
                return 0;
        return ((atomic_load(&group->active) & bit) ? FD_ACTIVE : 0) |
               ((atomic_load(&group->ready) & bit) ? FD_READY : 0) |
               ((atomic_load(&group->coe) & bit) ? FD_COE : 0);
}

uint64_t fd_table_token(int fd)
{
        if (!fd_groups || (unsigned)fd >= FD_TABLE_MAX)
                return 0;
        return atomic_load_explicit(&fd_groups[(unsigned)fd / 64].tokens[(unsigned)fd % 64],
                                    memory_order_relaxed);
}

/* What breaks the invariant in one group at one look; a change under way by another thread can look
 * like it. */
static uint64_t look_for_wrong(const struct fd_group *group)
{
        const uint64_t others = atomic_load(&group->ready) | atomic_load(&group->coe);

        return others & ~atomic_load(&group->active);
}

int fd_table_check(void)
{
        const unsigned n = fd_groups ? atomic_load(&groups_used) : 0;

        for (unsigned i = 0; i < n; i++) {
                uint64_t wrong = look_for_wrong(&fd_groups[i]);

                for (int again = 0; wrong && again < 8; again++)
                        wrong &= look_for_wrong(&fd_groups[i]);
                if (wrong)
                        return (int)(64 * i) + __builtin_ctzll(wrong);
        }
        return -1;
}

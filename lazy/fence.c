/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two counters a stripe, of which operations take the one that `turn` names.  Who waits changes the
 * turn, so that the other counter only falls, waits until it is zero, and does the same once more:
 * then both have been zero since he came, or whoever was in them has come later.
 *
 * An operation that has read `turn` and not counted itself yet is missed by that.  It has not looked
 * at anything yet either: its increment comes after our look at the counter, its look after its
 * increment, and our change before our look, all sequentially consistent, so it sees the change.
 */
#include "lazy/fence.h"

#include <stdatomic.h>
#include <stdlib.h>

#define PAUSE_MIN_US 50
#define PAUSE_MAX_US 5000

struct stripe {
        _Alignas(64) atomic_uint turn;
        atomic_int inside[2];
        GMutex waiting; /* one who waits at a time */
};

struct fence {
        struct stripe stripes[FENCE_STRIPES];
};

struct fence *fence_new(void)
{
        struct fence *fence;

        if (posix_memalign((void **)&fence, _Alignof(struct fence), sizeof *fence) != 0)
                return NULL;
        for (unsigned i = 0; i < FENCE_STRIPES; i++) {
                struct stripe *stripe = &fence->stripes[i];

                atomic_init(&stripe->turn, 0);
                atomic_init(&stripe->inside[0], 0);
                atomic_init(&stripe->inside[1], 0);
                g_mutex_init(&stripe->waiting);
        }
        return fence;
}

void fence_free(struct fence *fence)
{
        if (!fence)
                return;
        for (unsigned i = 0; i < FENCE_STRIPES; i++)
                g_mutex_clear(&fence->stripes[i].waiting);
        free(fence);
}

/* Ids are an index and a generation: the index alone spreads them. */
static unsigned stripe_of(uint64_t key)
{
        return (unsigned)key & (FENCE_STRIPES - 1);
}

unsigned fence_enter(struct fence *fence, uint64_t key)
{
        const unsigned at = stripe_of(key);
        struct stripe *stripe = &fence->stripes[at];
        const unsigned turn = atomic_load(&stripe->turn) & 1;

        atomic_fetch_add(&stripe->inside[turn], 1);
        return at * 2 + turn;
}

void fence_leave(struct fence *fence, unsigned ticket)
{
        atomic_fetch_sub(&fence->stripes[ticket / 2].inside[ticket & 1], 1);
}

static bool wait_empty(atomic_int *inside, int64_t deadline)
{
        unsigned pause = PAUSE_MIN_US;

        while (atomic_load(inside) > 0) {
                if (g_get_monotonic_time() >= deadline)
                        return false;
                g_usleep(pause);
                pause = MIN(pause * 2, PAUSE_MAX_US);
        }
        return true;
}

static bool stripe_wait(struct stripe *stripe, int64_t deadline)
{
        g_autoptr(GMutexLocker) locker G_GNUC_UNUSED = g_mutex_locker_new(&stripe->waiting);

        for (int i = 0; i < 2; i++) {
                const unsigned before = atomic_fetch_add(&stripe->turn, 1) & 1;

                if (!wait_empty(&stripe->inside[before], deadline))
                        return false;
        }
        return true;
}

bool fence_wait(struct fence *fence, uint64_t key, int64_t deadline)
{
        return stripe_wait(&fence->stripes[stripe_of(key)], deadline);
}

bool fence_wait_all(struct fence *fence, int64_t deadline)
{
        bool all = true;

        for (unsigned i = 0; i < FENCE_STRIPES; i++)
                all &= stripe_wait(&fence->stripes[i], deadline);
        return all;
}

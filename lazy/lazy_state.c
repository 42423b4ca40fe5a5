/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The holders are a small ring, newest last, in an array that grows by doubling up to
 * LAZY_HOLDERS_MAX and beyond that only for holders that must not be dropped.
 *
 * lazy_state.refs is the only thing touched without lazy_state.lock.
 */
#include "lazy/lazy_state.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct lazy_state {
        atomic_int refs;
        struct keep *keep;            /* borrowed; constant */
        access_rights full;           /* what the opener had; constant */
        _Atomic access_rights *bound; /* constant; changed under lock */
        _Atomic access_rights own_bound;

        GMutex lock;                  /* protects what follows */
        struct kept_handle **holders; /* oldest first; owned */
        unsigned n_holders, room;
};

struct lazy_state *lazy_state_new(struct keep *keep, access_rights full,
                                  _Atomic access_rights *bound)
{
        struct lazy_state *state = calloc(1, sizeof *state);

        if (!state)
                return NULL;
        atomic_init(&state->refs, 1);
        g_mutex_init(&state->lock);
        state->keep = keep;
        state->full = full;
        atomic_init(&state->own_bound, full);
        state->bound = bound ? bound : &state->own_bound;
        return state;
}

struct lazy_state *lazy_state_ref(struct lazy_state *state)
{
        atomic_fetch_add_explicit(&state->refs, 1, memory_order_relaxed);
        return state;
}

void lazy_state_unref(struct lazy_state *state)
{
        /* The value that the decrement returned decides; reading refs again would be K42's bug. */
        if (!state || atomic_fetch_sub_explicit(&state->refs, 1, memory_order_acq_rel) != 1)
                return;
        for (unsigned i = 0; i < state->n_holders; i++)
                keep_free(state->keep, state->holders[i]);
        g_mutex_clear(&state->lock);
        free(state->holders);
        free(state);
}

static struct lazy_holder holder_of(const struct kept_handle *kept)
{
        const uint64_t rights = atomic_load(&kept->rights);

        return (struct lazy_holder){
                .token = kept->token,
                .parent = kept->parent,
                .pid = kept->pid,
                .start_time = kept->start_time,
                .match = KEPT_MATCH(rights),
                .nomatch = KEPT_NOMATCH(rights),
        };
}

/* A holder that can be dropped without anybody getting more rights than its owner had. */
static bool holder_is_plain(const struct lazy_state *state, const struct kept_handle *kept)
{
        const struct lazy_holder holder = holder_of(kept);

        return holder.match == state->full && (holder.nomatch & RIGHT_DUPLICATE);
}

static void locked_drop_oldest_plain(struct lazy_state *state)
{
        for (unsigned i = 0; i < state->n_holders; i++) {
                if (!holder_is_plain(state, state->holders[i]))
                        continue;
                keep_free(state->keep, state->holders[i]);
                state->n_holders--;
                memmove(&state->holders[i], &state->holders[i + 1],
                        (state->n_holders - i) * sizeof *state->holders);
                return;
        }
}

static int locked_make_room(struct lazy_state *state)
{
        struct kept_handle **holders;
        unsigned room;

        if (state->n_holders >= LAZY_HOLDERS_MAX)
                locked_drop_oldest_plain(state);
        if (state->n_holders < state->room)
                return 0;
        room = state->room ? 2 * state->room : 2;
        holders = reallocarray(state->holders, room, sizeof *holders);
        if (!holders)
                return -ENOMEM;
        state->holders = holders;
        state->room = room;
        return 0;
}

int lazy_give_access(struct lazy_state *state, struct kept_handle *kept)
{
        g_autoptr(GMutexLocker) locker G_GNUC_UNUSED = g_mutex_locker_new(&state->lock);
        int r = locked_make_room(state);

        if (r < 0) {
                const struct lazy_holder holder = holder_of(kept);

                if (!holder_is_plain(state, kept))
                        atomic_fetch_and(state->bound, holder.nomatch & RIGHT_DUPLICATE
                                                               ? holder.match
                                                               : RIGHTS_NONE);
                keep_free(state->keep, kept);
                return r;
        }
        keep_commit(kept, KEEP_HOLDER);
        state->holders[state->n_holders++] = kept;
        return 0;
}

bool lazy_state_find_token(struct lazy_state *state, xhandle token, struct lazy_holder *ret_holder)
{
        g_autoptr(GMutexLocker) locker G_GNUC_UNUSED = g_mutex_locker_new(&state->lock);

        for (unsigned i = state->n_holders; i-- > 0;) {
                if (state->holders[i]->token == token) {
                        *ret_holder = holder_of(state->holders[i]);
                        return true;
                }
        }
        return false;
}

bool lazy_state_find_pid(struct lazy_state *state, pid_t pid, uint64_t start_time,
                         struct lazy_holder *ret_holder)
{
        g_autoptr(GMutexLocker) locker G_GNUC_UNUSED = g_mutex_locker_new(&state->lock);

        for (unsigned i = state->n_holders; i-- > 0;) {
                const struct kept_handle *kept = state->holders[i];

                if (kept->pid == pid && (start_time == 0 || kept->start_time == start_time)) {
                        *ret_holder = holder_of(kept);
                        return true;
                }
        }
        return false;
}

access_rights lazy_state_bound(struct lazy_state *state)
{
        return atomic_load(state->bound);
}

unsigned lazy_state_holders(struct lazy_state *state)
{
        g_autoptr(GMutexLocker) locker G_GNUC_UNUSED = g_mutex_locker_new(&state->lock);

        return state->n_holders;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A slot: who (32 bits), what it is believed to want, listings since the last probe, and of the
 * last listing how many files it was given without attributes and how many it looked up since.  Two
 * threads that share a slot take it from each other; an update that another one overtakes is lost.
 */
#include "fusefs/node/plus_advice.h"

#include <glib.h>
#include <stdatomic.h>

#define PROBE_FILES 4  /* left out to see whether they are looked up */
#define PROBE_EVERY 32 /* listings of somebody who wants attributes */

enum want { UNKNOWN, NOTHING, ATTRIBUTES };

union slot {
        uint64_t whole;
        struct {
                int32_t tid;
                uint8_t want; /* enum want */
                uint8_t listings;
                uint8_t given, looked_up; /* of the last listing; up to PROBE_FILES */
        };
};
G_STATIC_ASSERT(sizeof(union slot) == sizeof(uint64_t));

static _Atomic uint64_t *slot_of(struct plus_advice *advice, pid_t tid)
{
        return &advice->slots[(uint32_t)tid & (PLUS_ADVICE_SLOTS - 1)];
}

static union slot load(struct plus_advice *advice, pid_t tid)
{
        union slot slot = {
                .whole = atomic_load_explicit(slot_of(advice, tid), memory_order_relaxed)};

        if (slot.tid != tid)
                slot = (union slot){.tid = tid};
        return slot;
}

static void store(struct plus_advice *advice, union slot slot)
{
        atomic_store_explicit(slot_of(advice, slot.tid), slot.whole, memory_order_relaxed);
}

unsigned plus_advice_begin(struct plus_advice *advice, pid_t tid)
{
        union slot slot = load(advice, tid);
        unsigned plain;

        /* Half of them: a file may be gone meanwhile, or be of no interest (ls and dot files). */
        if (slot.given > 0)
                slot.want = slot.looked_up * 2 >= slot.given ? ATTRIBUTES : NOTHING;
        if (slot.want == ATTRIBUTES && ++slot.listings >= PROBE_EVERY) {
                slot.want = UNKNOWN;
                slot.listings = 0;
        }
        slot.given = slot.looked_up = 0;
        plain = slot.want == UNKNOWN      ? PROBE_FILES
                : slot.want == ATTRIBUTES ? PLUS_NONE_PLAIN
                                          : PLUS_ALL_PLAIN;
        store(advice, slot);
        return plain;
}

void plus_advice_gave(struct plus_advice *advice, pid_t tid, unsigned plain)
{
        union slot slot = load(advice, tid);

        slot.given = (uint8_t)MIN(slot.given + MIN(plain, PROBE_FILES), PROBE_FILES);
        store(advice, slot);
}

void plus_advice_looked_up(struct plus_advice *advice, pid_t tid)
{
        union slot slot = {
                .whole = atomic_load_explicit(slot_of(advice, tid), memory_order_relaxed)};

        if (slot.tid != tid || slot.looked_up >= slot.given)
                return;
        slot.looked_up++;
        store(advice, slot);
}

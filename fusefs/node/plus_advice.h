/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * plus_advice: whether who lists a directory wants the attributes of what is in it.
 *
 * READDIRPLUS answers a listing with the attributes of every entry, which saves `ls -l` one LOOKUP
 * each, and costs `find` one open and one stat of the backing file each, and a node that nobody
 * needs.  The kernel asks for it at the beginning of every listing.  But an answer may leave any
 * entry without a node; whoever wants that one looks it up.
 *
 * So the first listing of a thread leaves a few files out, as a probe.  If the thread looks them up it
 * wants attributes and gets all of them from then on, with a probe now and then; if not, it gets
 * only those of directories, whose names somebody who goes through a tree needs anyway, and
 * everything that it looks up then changes that again.
 *
 * What is known is a hint in a small table by thread id, which may be wrong or lost at any time:
 * atomics without locks.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PLUS_ADVICE_SLOTS 256 /* a power of two */

/* Zeroed memory knows nothing of anybody. */
struct plus_advice {
        _Atomic uint64_t slots[PLUS_ADVICE_SLOTS];
};

/* Thread `tid` begins to list a directory: how many of the files come without their attributes. */
unsigned plus_advice_begin(struct plus_advice *advice, pid_t tid);
#define PLUS_NONE_PLAIN 0u
#define PLUS_ALL_PLAIN  UINT32_MAX

/* So many files were given without attributes in the answer. */
void plus_advice_gave(struct plus_advice *advice, pid_t tid, unsigned plain);

/* Thread `tid` has looked up something that is no directory. */
void plus_advice_looked_up(struct plus_advice *advice, pid_t tid);

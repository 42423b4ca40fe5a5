/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * doubtful: descriptions of which nobody knows whether the kernel took the reply to the open that made
 * them (lazy/description.h), because the daemon was killed just then.
 *
 * As soon as a request names one the kernel has it, and will release it.  If none comes, processes are
 * looked at, every DOUBTFUL_EVERY_S as long as there is one in doubt: when two looks in a row find nobody
 * who has such a file open or mapped, the description is ended.  What cannot be seen (other users' processes, for
 * an ordinary user) counts as open.
 *
 * A descriptor that was sent over a socket and not received for so long, and not used before or after the
 * daemon's death, is the one thing that would be missed: it gets ESTALE.
 */
#include <glib.h>
#include <stdint.h>

struct k42_mount;

#define DOUBTFUL_EVERY_S 30

/* Part of struct k42_mount; the main thread's. */
struct doubtful {
        GSource *timer;  /* NULL: nothing is in doubt */
        GArray *unfound; /* ids that the last look found nobody to have, ascending */
};

/* After a resume, before the main loop; does nothing if there are none. */
void doubtful_start(struct k42_mount *mount);
void doubtful_stop(struct k42_mount *mount);

/* One look; what the timer does.  Returns how many are still in doubt. */
unsigned doubtful_look(struct k42_mount *mount);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * clear_dead: what is left when all of a daemon's processes have been killed: a mount that answers
 * ENOTCONN, a state directory, and the link to it.
 */
#include "ctl/connect.h"

/* Takes a dead mount (target_dead()) off and removes what its daemon left.  Returns EXIT_GOOD, or EXIT_FAILED
 * after a line on stderr. */
int clear_dead(struct target *target);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * fake_daemon: the rest of the daemon as the control socket and reconciling see it, with handles
 * that a test makes up.  Not thread-safe but for what those two do.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fusefs/mount.h"

/* Gives a made-up handle.  Returns its token.  `age_us`: how long ago it was opened. */
uint64_t fake_give(pid_t pid, uid_t uid, uint64_t ino, int flags, uint64_t parent, int64_t age_us);
bool fake_has(uint64_t token);
void fake_clear(void);

/* What store_foreach_open_handle() answers, 0 unless set. */
extern int fake_store_error;
/* How long it takes. */
extern unsigned fake_store_delay_us;
/* Names of all handles. */
extern const char *fake_path;

/* What was last asked of revoke.h, in words: "process 12 - tree block". */
extern char fake_revoked[256];

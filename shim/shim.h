/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * shim.h: what libk42shim.so tells about itself.  For `k42run --check` and for tests, which find these by
 * dlsym(3); programs do not need them.
 */
#include <stdint.h>

/* The version of lazy/protocol.h that it speaks. */
unsigned k42_shim_version(void);

/* FD_ACTIVE | FD_READY | FD_COE (fd_table.h) of a descriptor, and its token. */
unsigned k42_shim_fd_state(int fd);
uint64_t k42_shim_fd_token(int fd);

/* The first descriptor that breaks the invariant of the tables, or -1. */
int k42_shim_check(void);

/* 1 if the tables could be made: else the shim does nothing. */
int k42_shim_active(void);

/* stdio's redirected slots: 8, or 0 if libc's tables were not as expected. */
int k42_shim_stdio_slots(void);

/* The mode (enum private_mode, private.h) that K42_FORK said at the start, or -1 if there was no address
 * space for what it needs; and whether a descriptor is waiting to be replaced. */
int k42_shim_private(void);
int k42_shim_pending(int fd);

/* The name of the i-th intercepted function, and in *ret_touches whether it touches (1) or keeps the
 * tables (0); NULL behind the last. */
const char *k42_shim_interception(unsigned i, int *ret_touches);

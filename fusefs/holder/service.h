/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * service: what a service manager is told, and what it keeps for us: sd_notify(3) and the descriptor store
 * of systemd, spoken directly.
 *
 * With -o fdstore every descriptor that a mount lives by is left with the manager: /dev/fuse, SOURCE, the
 * control socket, the state directory and its lock, and what workers park.  A holder that is started with them
 * goes on with the mount, so that it outlives its holder, too.
 *
 * Used by the holder's only thread.  Nothing here allocates memory but service_init().
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Reads the environment (and takes what is there out of it, so that workers do not see it).  Call it
 * once, in the process that is the service. */
void service_init(void);

/* Were we given a mount to go on with? */
bool service_inherits(void);

/* The descriptor that was kept as `name`, which is the caller's then; -1 if there is none. */
int service_take(const char *name);

/* The next one that was kept for a worker; false at the end. */
bool service_take_parked(uint64_t *ret_key, int *ret_fd);

/* Leaves a descriptor with the manager, and takes it away.  No manager, or one that does not listen: nothing
 * happens. */
void service_keep(const char *name, int fd);
void service_keep_parked(uint64_t key, int fd);
void service_drop(const char *name);
void service_drop_parked(uint64_t key);

void service_ready(pid_t main_pid); /* the mount answers */
void service_stopping(void);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * revoke_scan: what /proc tells of the processes that something is taken from, and the handles do not.
 *
 * Call these from a thread that serves no requests; nothing is kept.
 */
#include "fusefs/mount.h"

/* Processes are sets of GINT_TO_POINTER(pid). */

/* Some of `processes` may have descriptors that they never touched, so that there is no handle to take
 * something from, and pass them on to somebody whose lineage nobody knows.  The descriptions, opened until
 * `before` (µs since the epoch), of all files that they have open are bound to `rights` for strangers. */
void revoke_scan_bind_strangers(struct k42_mount *mount, GHashTable *processes, int64_t before,
                                access_rights rights);

/* How many of `files` (struct server_file) are mapped by one of `processes`, and by somebody else, too, who may
 * use them: their pages come back. */
unsigned revoke_scan_mapped(struct k42_mount *mount, GHashTable *processes, GHashTable *files);

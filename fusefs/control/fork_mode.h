/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * fork_mode: -o fork=private:PATTERN[:PATTERN…], for which files a forked process with the shim gets
 * descriptions of its own (lazy/protocol.h, LAZY_REOPEN's `fork`; k42fs(1)).
 */
#include "fusefs/mount.h"
#include "lazy/protocol.h"

#define FORK_MODE_PRIVATE "private:" /* what a value with patterns begins with */

/* Adds what `value` says to `*patterns` (NULL, or from an earlier -o fork=; g_strfreev() it).  Returns
 * NULL, or what is wrong with it. */
const char *fork_mode_parse(const char *value, char ***patterns);

/* True if `path`, relative to the mount, matches one of `patterns`, which may be NULL. */
bool fork_mode_matches(char *const *patterns, const char *path);

/* What the mount wants for the file or directory `object`.  By the name that it has now; one that is
 * unlinked, by its last name. */
enum k42_fork fork_mode_of(const struct k42_options *options, struct server_object *object);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * timeouts: how long the kernel may believe what a reply tells it, in seconds.
 *
 *   attr_timeout=, entry_timeout=   what was said counts
 *   exclusive                       for ever: nobody else changes SOURCE
 *   coherent                        an hour; but for regular files' attributes a minute, because
 *                                   others' stores into a mapping leave no event; and ten seconds
 *                                   that a name does not exist, because there is no list of these
 *                                   names from which to tell the kernel when events were lost
 *   else                            one second, and nothing about names that do not exist
 *
 * And what the kernel itself does behind our back is never believed for more than a second: in the
 * class fast a store into a mapping changes the backing file, and neither the kernel's FUSE nor we
 * learn of it.  The mapping outlives RELEASE, so that is so from the first open for reading and
 * writing until the node is forgotten, see timeouts_opened_fast().  Nor while a file is open for
 * writing in that class: then nobody's writes are told, see coherent_written_by_kernel().
 *
 * `seen` is of before the look at the backing file, see coherent.h.
 */
#include <stdint.h>

#include "fusefs/node/fs_file.h"
#include "fusefs/mount.h"

struct dir_linux_fs;
struct server_file;

#define TIMEOUT_UNSET (-1.0) /* of struct k42_options: not said */

/* True for a timeout that was said and is no longer than what is believed without `coherent`. */
bool timeouts_short(double said);

double timeouts_attr(struct server_file *file, const struct fs_stat *st, uint64_t seen);
double timeouts_entry(struct dir_linux_fs *dir, uint64_t seen);
double timeouts_negative(struct dir_linux_fs *dir, uint64_t seen); /* 0: say ENOENT instead */

/* `file` is opened so that mappings, and in class fast writes, go to the backing file, with the open(2)
 * flags `flags`; file_opens_begin() has counted it. */
void timeouts_opened_fast(struct server_file *file, int flags, enum io_class io_class);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * mapped_file: a file that is mapped MAP_SHARED, so that what is in it outlives the process (the journal, the
 * keep, the requests under way).
 */
#include <stdbool.h>
#include <sys/types.h>

/* Makes the empty file `name` in directory `dirfd`, for its owner only.  One of that name is unlinked, not
 * truncated: whoever may still have it mapped would get SIGBUS.  A `dirfd` of -1: in memory and in no
 * directory, it lives as long as somebody has a descriptor of it or a mapping.  Returns a descriptor, or
 * -errno. */
int mapped_file_new(int dirfd, const char *name);

/* Gives the bytes from `from` to `to` of the file their room, and keeps what is in them: a hole is a SIGBUS when
 * the disk is full.  Returns 0 or -errno, -ENOSPC too. */
int mapped_file_reserve(int fd, off_t from, off_t to);

/* Can nothing be written to the file `fd` (its file system has become read-only, or it immutable)?  Then a store into
 * a page of it would be SIGBUS.  Nobody else may have it mapped. */
bool mapped_file_is_readonly(int fd);

/* A copy of the file `fd` in memory, as mapped_file_new() makes one.  Returns a descriptor, or -errno. */
int mapped_file_copy(int fd, const char *name);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * contents: whether what the kernel has cached of a file's or directory's contents is still right, so
 * that an open need not throw it away (FOPEN_KEEP_CACHE).
 *
 * A node remembers in one word what its times and size were when the kernel was last told to begin with
 * an empty cache, and when that was.  If an open finds them as they were, nothing has been changed
 * behind the mount since.  Two cases are not trusted: times so young that another change could have
 * left the same ones (file systems count time in steps, of two seconds at worst), and a word that
 * was written a moment ago, because the open that wrote it may not have emptied the cache yet.
 * Stores into a mapping change no times after its first fault: who asks must know of these otherwise.
 */
#include <stdbool.h>
#include <stdint.h>

#include "fusefs/node/fs_file.h"

/* What is remembered; 0: nothing. */
typedef _Atomic uint64_t contents_word;

enum contents {
        CONTENTS_YOUNG, /* may change without being seen: nothing of it should be kept for others */
        CONTENTS_NEW,   /* the cache has to be emptied, and may be filled */
        CONTENTS_KEPT,  /* the cache is right */
};

/* An open sees `st`; `now`: µs since the epoch.  Remembers what it must. */
enum contents contents_look(contents_word *word, const struct fs_stat *st, int64_t now);

/* The open was not taken: the kernel has emptied nothing. */
void contents_forget(contents_word *word);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * coherent_events: what read(2) on a fanotify group gives, checked and taken apart (fanotify(7)).
 * No state, no lock, no memory of its own: everything points into the caller's buffer.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct file_handle;

/* One change.  A record of the kernel names an object by file system and file handle; for changes
 * of names that is the directory, and the name comes with it. */
struct coherent_event {
        uint64_t mask; /* FAN_… */
        pid_t pid;     /* the process that made the change; 0: not visible from here */
        int fsid[2];   /* statfs(2)'s f_fsid */
        unsigned handle_type, handle_bytes;
        const unsigned char *handle; /* not aligned; NULL: the record has none, as FAN_Q_OVERFLOW */
        const char *name;            /* in the directory `handle`; NULL: the object itself */
};

/* Takes the record at *offset of the `size` bytes in `buf` apart and moves *offset behind it. False
 * at the end, or where the rest cannot be understood (*ret_broken). */
bool coherent_event_next(const void *buf, size_t size, size_t *offset,
                         struct coherent_event *ret_event, bool *ret_broken);

/* The inode number in a file handle, for the kinds of handles whose layout is known: those of ext2,
 * ext3, ext4, f2fs and xfs, and tmpfs's.  False for others. */
bool coherent_handle_ino(unsigned type, unsigned bytes, const unsigned char *handle,
                         ino_t *ret_ino);

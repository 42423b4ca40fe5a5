/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * coherent_marks: the fanotify groups, and the file systems that are marked in them.
 *
 * There are two groups, because what a group reports has its price for everybody who changes
 * something: a name costs a write about as much as the rest of the event, so changes of contents
 * and attributes are reported without, in a group of their own.
 *
 * Asking whether a device is marked takes no lock; marking one takes one.
 */
#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#define COHERENT_FS_MAX 64 /* file systems below one SOURCE; more are not covered */

enum coherent_cover {
        COHERENT_UNKNOWN, /* not asked for yet */
        COHERENT_COVERED,
        COHERENT_NOT_COVERED,
};

struct coherent_fs {
        dev_t dev;           /* constant */
        int fsid[2];         /* constant */
        atomic_bool covered; /* only ever becomes false */
};

struct coherent_marks {
        int names_fd, files_fd; /* the groups; O_NONBLOCK */
        GMutex lock;            /* adding a file system */
        atomic_uint count;      /* raised when fs[count] is complete */
        struct coherent_fs fs[COHERENT_FS_MAX];
};

/* Opens the groups.  Returns 0 or -errno: -EPERM without CAP_SYS_ADMIN, -EINVAL before Linux 5.9,
 * -ENOSYS without fanotify, -EMFILE when the user has too many groups. */
int coherent_marks_init(struct coherent_marks *marks);

/* Goes on with the groups of an earlier process, which are `marks`' from then on; also when this fails.  Nobody's
 * events are ignored any more, and the file systems must be marked again.  Returns 0; -EINVAL if they are no
 * fanotify groups. */
int coherent_marks_adopt(struct coherent_marks *marks, int names_fd, int files_fd);
void coherent_marks_clear(struct coherent_marks *marks); /* idempotent after init */

/* Marks the file system of `fd` (O_PATH will do), which is on `dev`, if that was not tried yet.
 * Returns 0 if it is covered now, else -errno: -EOPNOTSUPP for a kind of file system that is not
 * known to tell of all its changes, or what fanotify_mark(2) says. */
int coherent_marks_add(struct coherent_marks *marks, dev_t dev, int fd);

/* Events about the contents of the very file that is open as `fd` are not wanted, or wanted again.  Returns 0
 * or -errno. */
int coherent_marks_ignore(struct coherent_marks *marks, int fd, bool ignore);

enum coherent_cover coherent_marks_cover(struct coherent_marks *marks, dev_t dev);

/* The file system that an event names, or NULL. */
struct coherent_fs *coherent_marks_find(struct coherent_marks *marks, const int fsid[2]);

/* A number that changes when something is mounted or unmounted below `source`; `fd` is
 * /proc/self/mountinfo, read from its beginning. */
guint coherent_mounts_below(int fd, const char *source);

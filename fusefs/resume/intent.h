/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * intent: a change of the backing directory is made exactly once, however often the daemon dies.
 *
 * Before the backing call the facts are recorded from which it can be told afterwards whether the
 * call was made; after it, its result.  A request that runs again asks here first:
 *
 *     int64_t r = intent_make(dir, dirfd, name, S_IFDIR, -1);
 *
 *     INTENT_CALL("mkdir", r, fs_mkdir(dirfd, name, mode));
 *
 * INTENT_RUN means that the call has to be made; every other value is what it has returned, known or
 * found out.  What follows the call (the nodes' part: names, lookup counts, what is pinned) is done in both cases
 * by the same code, which must bear that a part of it was done already.
 *
 * The rules, by kind.  "Before" is what was recorded, "now" is what a request that runs again finds;
 * where it does not say when a call was made, it was not.
 *
 *   MAKE       create, mkdir, mknod, symlink, link: there was nothing of that name, now there is, of the right
 *              type; for link: the very file.  (O_TMPFILE has no name, and what it made is gone with
 *              the daemon: it runs again.)
 *   REMOVE     unlink, rmdir: the name was a file's, and is not that file's any more.
 *   RENAME     the new name is now the file's that had the old one, and the old one is not.  Two names
 *              of one file: nothing ever happens, it runs again.
 *   EXCHANGE   each name is the other one's file.
 *   SETXATTR   with XATTR_CREATE: there was none of that name, now there is.  Without it, it runs again: the
 *              value is the same.
 *   REMOVEXATTR  there was one, and there is none.
 *   APPEND     what lies behind the old end of the file begins with the data: all of it, or as many
 *              bytes as there are, after which it goes on.
 *   RESIZE     fallocate that collapses or inserts a range: the size is not the old one.
 *   ATTR       setattr: runs again, because it sets everything to given values, but takes back to what was
 *              before the first time when it fails.
 *   ONCE       O_TRUNC, write at an offset, fallocate otherwise, copy_file_range, setxattr, the ioctls that
 *              set attributes: what was done is done once more, with the same outcome.  It has not been
 *              answered, so it may as well take place now.  (The kernel holds the file's lock
 *              meanwhile, but for O_TRUNC, which may take place after somebody else's write just as
 *              before it.  copy_file_range cannot overlap with its source.)  Only when the result is
 *              known it is not done again.
 *
 * Somebody who changes the same names behind the mount between a kill and the moment after it can be
 * taken for us.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fusefs/node/dir_linux_fs.h"
#include "fusefs/failpoint.h"
#include "fusefs/resume/requests.h"

enum intent_kind {
        INTENT_NONE,
        INTENT_MAKE,
        INTENT_REMOVE,
        INTENT_RENAME,
        INTENT_EXCHANGE,
        INTENT_SETXATTR,
        INTENT_REMOVEXATTR,
        INTENT_APPEND,
        INTENT_RESIZE,
        INTENT_ATTR,
        INTENT_ONCE,
};

/* The call has to be made.  No call returns it. */
#define INTENT_RUN INT64_MAX

/* All of them are about the request of the calling thread, and return INTENT_RUN, or what the call has
 * returned already; -EINTR if it was not made and nobody waits for it any more.  Without a request (tests)
 * it is INTENT_RUN. */

/* `name` in `dir`, whose descriptor is `dirfd`, is going to be made, of type `type` (S_IFMT).  `link_fd`: of the
 * file that gets the name, for link, else -1. */
int64_t intent_make(struct dir_linux_fs *dir, int dirfd, const char *name, mode_t type,
                    int link_fd);

int64_t intent_remove(struct dir_linux_fs *dir, int dirfd, const char *name);

/* `exchange`: both names change hands. */
int64_t intent_rename(struct dir_linux_fs *dir, int dirfd, const char *name,
                      struct dir_linux_fs *new_dir, int new_dirfd, const char *new_name,
                      bool exchange);

/* XATTR_CREATE in `flags` or not. */
int64_t intent_setxattr(int fd, const char *name, int flags);
int64_t intent_removexattr(int fd, const char *name);

/* `io_fd` need not be open for reading.  `*ret_written`: so many bytes of the data are there already,
 * less than `size`; the others are to be appended when it returns INTENT_RUN. */
int64_t intent_append(int io_fd, const void *data, size_t size, size_t *ret_written);

int64_t intent_resize(int io_fd);

/* `st`: what the attributes are; becomes what they were before the first time. */
int64_t intent_attr(struct stat *st);

int64_t intent_once(void);

/* What was made is about to be removed again: from now on what there is counts, and not the result. */
void intent_take_back(void);

/* What a name was that the calling thread's request is about (0: the name, 1: the new name), according to the
 * facts: false if there was nothing. */
bool intent_name_was(unsigned which, dev_t *ret_dev, ino_t *ret_ino);

/* Makes the call if `r` says so, and records what it returned. */
#define INTENT_CALL(what, r, call)                                                                 \
        do {                                                                                       \
                if ((r) == INTENT_RUN) {                                                           \
                        FAILPOINT(what "-before");                                                 \
                        (r) = (call);                                                              \
                        FAILPOINT(what "-called");                                                 \
                        request_done(request_current(), (r));                                      \
                }                                                                                  \
                FAILPOINT(what "-done");                                                           \
        } while (0)

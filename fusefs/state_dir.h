/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * state_dir: where a mount keeps state.db, journal and control.
 *
 * /run/k42fs/ID for root, $XDG_RUNTIME_DIR/k42fs/ID else; ID is made from the mount point
 * (control_protocol.h has the rule, k42ctl uses it too).  The directory is made 0711 and the files in
 * it 0600, but for the socket, 0666: who may ask what is decided by SO_PEERCRED at the socket, and
 * other users must be able to reach it.  `lock` in it is flock'ed for the daemon's life, which is how
 * a directory in use is told from one that a dead daemon left.
 */
#include <glib.h>

struct state_dir;

/* Makes or takes over the directory (`path` NULL: the default place for `mountpoint`).  Returns 0, or
 * -errno with one line logged and nothing left behind: -EBUSY when a living daemon uses it. */
int state_dir_open(const char *path, const char *mountpoint, struct state_dir **ret_dir);

/* Removes our files and, if we made it, the directory; NULL is ignored. */
void state_dir_remove(struct state_dir *dir);
typedef struct state_dir K42StateDir; /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42StateDir, state_dir_remove)

/* The worker's: a directory that the holder has made and owns, by its descriptor (which stays the
 * caller's).  Returns 0, or -errno with one line logged. */
int state_dir_adopt(const char *path, const char *mountpoint, int fd, struct state_dir **ret_dir);

/* A new holder's: a directory that another one has made, and its lock, which becomes the state_dir's. */
int state_dir_take_over(const char *path, const char *mountpoint, int fd, int lock_fd,
                        struct state_dir **ret_dir);

/* Of an adopted directory whose holder is dead: removes our files and, if we made it, the directory;
 * nothing if another k42fs has it already.  The directory is to be freed still. */
void state_dir_remove_orphaned(struct state_dir *dir);

/* Forgets the directory, which stays as it is; NULL is ignored. */
void state_dir_free(struct state_dir *dir);

const char *state_dir_path(const struct state_dir *dir); /* absolute */
int state_dir_fd(const struct state_dir *dir);           /* of the directory, borrowed */
int state_dir_lock_fd(const struct state_dir *dir);      /* of its lock, borrowed; -1: the holder's */

/* The path of `name` in it, however long the directory's own path is; free with g_free(). */
char *state_dir_file(const struct state_dir *dir, const char *name);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * state_dir: who owns the directory, and what may be removed.
 *
 * Whoever holds the flock on `lock` (the holder, for its life) owns the directory and every file in it
 * that has one of our names. A daemon that ends removes its files with the lock still held, `lock`
 * last; so somebody who waited for the lock may find that he locked a file that is no longer there,
 * and has to look again.
 *
 * Three things are never removed: a directory that was there before and is not in the default
 * place, a file that has none of our names, and a state.db that was there before and that the store
 * did not take over (because it is not a database of ours, or a newer one): then it is as it was
 * found.
 *
 * Used by the main thread only, before the first request and after the last; no locks. In the holder
 * it is used before and after its loop.
 */
#include "fusefs/state_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/control_protocol.h"
#include "ctl/state_files.h"

/* SQLite takes paths of up to 512 bytes, "/state.db-journal" included. */
#define PATH_LENGTH_MAX 480
/* How often to look again when another daemon's end or start comes between two of our calls. */
#define TRIES 16

struct state_dir {
        char *path;
        char *parent; /* the directory of default places; NULL when ours is elsewhere */
        int fd, lock_fd;
        bool made;
        bool had_db; /* state.db was there before, as: */
        struct stat db_found;
};

static int complain(const char *path, const char *what, int r)
{
        g_warning("%s: %s: %s", path, what, g_strerror(-r));
        return r;
}

/* The default places' directory: made when missing.  Several daemons may make and remove it at the
 * same time. */
static int parent_make(const char *parent)
{
        if (mkdir(parent, geteuid() == 0 ? 0755 : 0700) == 0) {
                /* whatever the umask is, other users' k42ctl must get through /run/k42fs */
                if (geteuid() == 0 && chmod(parent, 0755) < 0 && errno != ENOENT)
                        return -errno;
                return 0;
        }
        return errno == EEXIST ? 0 : -errno;
}

/* Makes the directory if it is not there, and opens it. */
static int locked_out_open(struct state_dir *dir)
{
        int r;

        dir->made = false;
        for (int i = 0; i < TRIES; i++) {
                if (dir->parent) {
                        r = parent_make(dir->parent);
                        if (r < 0)
                                return complain(dir->parent, "cannot make the directory", r);
                }
                if (mkdir(dir->path, 0700) == 0)
                        dir->made = true;
                else if (errno != EEXIST && !(errno == ENOENT && dir->parent))
                        return complain(dir->path, "cannot make the state directory", -errno);
                dir->fd = open(dir->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                if (dir->fd >= 0)
                        return 0;
                if (errno != ENOENT)
                        break;
        }
        r = -errno;
        if (dir->made)
                rmdir(dir->path);
        return complain(
                dir->path,
                r == -ENOTDIR || r == -ELOOP
                        ? "the state directory is not a directory (a symbolic link is not taken)"
                        : "cannot open the state directory",
                r);
}

/* Is it a directory that nobody else can put files into? */
static int check_owner(struct state_dir *dir)
{
        struct stat st;

        if (fstat(dir->fd, &st) < 0)
                return complain(dir->path, "cannot look at the state directory", -errno);
        if (st.st_uid != geteuid())
                return complain(dir->path, "the state directory belongs to another user", -EPERM);
        if (st.st_mode & S_IWOTH)
                return complain(dir->path, "everybody may write to the state directory", -EPERM);
        if (dir->made && fchmod(dir->fd, 0711) < 0)
                return complain(dir->path, "cannot set the mode of the state directory", -errno);
        return 0;
}

/* Without a `lock` no daemon was here: files with our names are somebody's own. */
static int check_files(struct state_dir *dir)
{
        struct stat st;

        if (fstatat(dir->fd, STATE_LOCK_NAME, &st, AT_SYMLINK_NOFOLLOW) == 0)
                return 0;
        for (const char *const *name = state_mount_files; *name; name++)
                if (fstatat(dir->fd, *name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
                        g_warning("%s/%s: no k42fs made this file: %s", dir->path, *name,
                                  g_strerror(EEXIST));
                        return -EEXIST;
                }
        return 0;
}

/* Takes the lock.  -EAGAIN when the directory, or the file, went away meanwhile. */
static int take_lock(struct state_dir *dir)
{
        struct stat mine, named;

        dir->lock_fd = openat(dir->fd, STATE_LOCK_NAME,
                              O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
        if (dir->lock_fd < 0)
                return errno == ENOENT
                               ? -EAGAIN
                               : complain(dir->path, "cannot write to the state directory", -errno);
        if (flock(dir->lock_fd, LOCK_EX | LOCK_NB) < 0)
                return errno == EWOULDBLOCK
                               ? complain(dir->path, "another k42fs uses this state directory",
                                          -EBUSY)
                               : complain(dir->path, "cannot lock the state directory", -errno);
        if (fstat(dir->lock_fd, &mine) < 0)
                return complain(dir->path, "cannot look at the lock", -errno);
        if (fstatat(dir->fd, STATE_LOCK_NAME, &named, AT_SYMLINK_NOFOLLOW) < 0 ||
            mine.st_ino != named.st_ino || mine.st_dev != named.st_dev)
                return -EAGAIN;
        return 0;
}

/* What may be thrown away when a dead daemon left it; state.db is for the store to judge. */
static int throw_away_left(struct state_dir *dir)
{
        for (const char *const *name = state_mount_files; *name; name++)
                if (unlinkat(dir->fd, *name, 0) < 0 && errno != ENOENT) {
                        int r = -errno;

                        g_warning("%s/%s: cannot remove what an earlier k42fs left: %s", dir->path,
                                  *name, g_strerror(-r));
                        return r;
                }
        return 0;
}

static void close_all(struct state_dir *dir)
{
        if (dir->lock_fd >= 0)
                close(dir->lock_fd);
        if (dir->fd >= 0)
                close(dir->fd);
        dir->fd = dir->lock_fd = -1;
}

void state_dir_free(struct state_dir *dir)
{
        if (!dir)
                return;
        close_all(dir);
        g_free(dir->path);
        g_free(dir->parent);
        g_free(dir);
}

/* Whoever made the directory says so in the lock, so that the daemon that takes over from a dead
 * one removes it in the end. */
static void inherit_made(struct state_dir *dir)
{
        static const char word[] = STATE_MADE;
        char text[sizeof word] = "";

        if (dir->made) {
                if (pwrite(dir->lock_fd, word, sizeof word - 1, 0) < 0)
                        g_info("%s/lock: cannot be written: %s", dir->path, g_strerror(errno));
        } else if (pread(dir->lock_fd, text, sizeof text - 1, 0) > 0) {
                dir->made = strcmp(text, word) == 0;
        }
}

/* One attempt; -EAGAIN when somebody else's end came between. */
static int try_open(struct state_dir *dir)
{
        bool had_lock;
        struct stat st;
        int r;

        r = locked_out_open(dir);
        if (r < 0)
                return r;
        r = check_owner(dir);
        if (r == 0)
                r = check_files(dir);
        had_lock = fstatat(dir->fd, STATE_LOCK_NAME, &st, AT_SYMLINK_NOFOLLOW) == 0;
        if (r == 0)
                r = take_lock(dir);
        if (r == 0)
                r = throw_away_left(dir);
        if (r == 0) {
                inherit_made(dir);
                dir->had_db =
                        fstatat(dir->fd, "state.db", &dir->db_found, AT_SYMLINK_NOFOLLOW) == 0;
                return 0;
        }
        /* ours is the lock that we made and hold, and the directory that we made */
        if (r != -EBUSY && r != -EAGAIN && !had_lock && dir->lock_fd >= 0)
                unlinkat(dir->fd, STATE_LOCK_NAME, 0);
        if (dir->made)
                rmdir(dir->path);
        close_all(dir);
        return r;
}

int state_dir_open(const char *path, const char *mountpoint, struct state_dir **ret_dir)
{
        struct state_dir *dir = g_new0(struct state_dir, 1);
        int r = -EAGAIN;

        dir->fd = dir->lock_fd = -1;
        if (path) {
                dir->path = g_strdup(path);
        } else {
                dir->parent = control_state_parent(geteuid());
                dir->path = control_default_state_dir(mountpoint, geteuid());
        }
        if (strlen(dir->path) > PATH_LENGTH_MAX)
                r = complain(dir->path, "the state directory", -ENAMETOOLONG);
        for (int i = 0; r == -EAGAIN && i < TRIES; i++)
                r = try_open(dir);
        if (r == -EAGAIN)
                r = complain(dir->path, "another k42fs uses this state directory", -EBUSY);
        if (r < 0) {
                if (dir->parent)
                        rmdir(dir->parent);
                state_dir_free(dir);
                return r;
        }
        *ret_dir = dir;
        return 0;
}

/* Did the store make state.db, or write to the one that was there? */
static bool db_is_ours(struct state_dir *dir)
{
        struct stat st;

        if (!dir->had_db)
                return true;
        if (fstatat(dir->fd, "state.db", &st, AT_SYMLINK_NOFOLLOW) < 0)
                return true;
        return st.st_ino != dir->db_found.st_ino || st.st_size != dir->db_found.st_size ||
               st.st_ctim.tv_sec != dir->db_found.st_ctim.tv_sec ||
               st.st_ctim.tv_nsec != dir->db_found.st_ctim.tv_nsec;
}

/* A default place that a dead daemon left is ours as well; rmdir takes empty ones only. */
static void remove_directories(const struct state_dir *dir)
{
        if (dir->made || dir->parent)
                rmdir(dir->path);
        if (dir->parent)
                rmdir(dir->parent);
}

void state_dir_remove(struct state_dir *dir)
{
        if (!dir)
                return;
        for (const char *const *name = state_mount_files; *name; name++)
                unlinkat(dir->fd, *name, 0);
        if (db_is_ours(dir))
                for (const char *const *name = state_db_files; *name; name++)
                        unlinkat(dir->fd, *name, 0);
        unlinkat(dir->fd, STATE_LOCK_NAME, 0);
        remove_directories(dir);
        state_dir_free(dir);
}

int state_dir_adopt(const char *path, const char *mountpoint, int fd, struct state_dir **ret_dir)
{
        g_autofree char *standard = control_default_state_dir(mountpoint, geteuid());
        struct state_dir *dir = g_new0(struct state_dir, 1);

        dir->path = g_strdup(path);
        if (g_str_equal(path, standard))
                dir->parent = control_state_parent(geteuid());
        dir->lock_fd = -1;
        dir->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (dir->fd < 0) {
                int r = complain(path, "cannot use the state directory", -errno);

                state_dir_free(dir);
                return r;
        }
        *ret_dir = dir;
        return 0;
}

int state_dir_take_over(const char *path, const char *mountpoint, int fd, int lock_fd,
                        struct state_dir **ret_dir)
{
        int r = state_dir_adopt(path, mountpoint, fd, ret_dir);

        if (r < 0)
                return r;
        (*ret_dir)->lock_fd = lock_fd;
        inherit_made(*ret_dir);
        return 0;
}

void state_dir_remove_orphaned(struct state_dir *dir)
{
        int r = state_files_clear_dead(dir->fd, &dir->made);

        if (r == 0)
                remove_directories(dir);
        else if (r != -ENOENT && r != -EBUSY)
                complain(dir->path, "cannot be cleared up", r);
}

const char *state_dir_path(const struct state_dir *dir)
{
        return dir->path;
}

int state_dir_fd(const struct state_dir *dir)
{
        return dir->fd;
}

char *state_dir_file(const struct state_dir *dir, const char *name)
{
        return g_build_filename(dir->path, name, NULL);
}

int state_dir_lock_fd(const struct state_dir *dir)
{
        return dir->lock_fd;
}

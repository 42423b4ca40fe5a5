/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * fs_file: how the server objects reach the backing directory (K42: FSFile).  The only code that
 * makes system calls on it.
 *
 * Every call goes through one table of function pointers, as in SQLite's os_unix.c, so that a test
 * can make the n-th one fail, see fs_file_syscall_override().
 *
 * All functions return 0 (or what they say) or -errno; a call that a signal interrupted is made
 * again.  They are thread-safe and take no lock.  `fd` is a node's O_PATH descriptor unless it is
 * said to be open for I/O.  What Linux cannot do on an O_PATH descriptor is done through
 * /proc/self/fd, which fs_file_init() opens.
 *
 * Nothing here ever follows a symbolic link of the backing directory: names are single components
 * (fs_name_check()) and are opened with O_NOFOLLOW.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

/* A file handle (name_to_handle_at(2)) with room for any. */
union fs_handle {
        struct file_handle handle;
        char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
};

/* Opens /proc/self/fd.  Call it after the last fork (once more in a child that goes on with this); more calls
 * are ignored.  Returns 0 or -errno. */
int fs_file_init(void);

/* For tests only, while no other thread uses this file: replaces the system call `name` ("openat",
 * "statx", …; the table in fs_file.c) by `fn`, which must have libc's prototype, -1 and errno
 * included; NULL brings the original back.  False if there is no such name. */
bool fs_file_syscall_override(const char *name, void (*fn)(void));

/* 0 for a name that can be a directory entry, else -EINVAL ("", ".", "..", with '/') or
 * -ENAMETOOLONG. */
int fs_name_check(const char *name);

/* What statx tells. */
struct fs_stat {
        struct stat st;
        int64_t btime; /* ns since the epoch; FS_BTIME_UNKNOWN if the file system has none */
};
#define FS_BTIME_UNKNOWN INT64_MIN

int fs_stat(int fd, struct fs_stat *ret_stat); /* any descriptor */

/* Of `name` in `dirfd` itself, links not followed; whether a mount begins there is said, too: then
 * the attributes are only what the kernel has cached, for its file system, which could be our own
 * mount, is not asked.  `local`: the file system of `dirfd` need never be asked. */
int fs_stat_name(int dirfd, const char *name, bool local, struct fs_stat *ret_stat,
                 bool *ret_mount_root);

/* Only st_dev, from what the kernel has cached: never asks a file system, so it cannot be stuck in
 * one, our own mount included. */
int fs_device_cached(int fd, dev_t *ret_dev);

/* Descriptors; all return a new O_CLOEXEC descriptor or -errno. */
int fs_open_node(int dirfd, const char *name);      /* O_PATH; -EXDEV if a mount begins at `name` */
int fs_open_node_xdev(int dirfd, const char *name); /* O_PATH, into another mount if there is one */
int fs_open_beneath(int dirfd, const char *path);   /* O_PATH; no links, never out of `dirfd` */
int fs_open_root(const char *path);                 /* O_PATH of a directory, links followed */
int fs_reopen_path(int fd);                         /* O_PATH of what `fd` refers to */
int fs_reopen(int fd, int flags); /* what `fd` refers to, for I/O; see fs_open_flags() */
int fs_create(int dirfd, const char *name, int flags, mode_t mode);
int fs_tmpfile(int fd, int flags, mode_t mode);
void fs_close(int fd);      /* -1 is ignored */
int fs_close_error(int fd); /* closes a copy: what close(2) has to say */

/* The flags for fs_reopen(), of what a caller asked for: what belongs to the creation of a name is
 * gone, and O_APPEND, because writes say themselves whether they append, see fs_pwrite(). */
int fs_open_flags(int flags);

/* File handles; need privileges to be of use. */
int fs_handle_get(int fd, union fs_handle *ret_handle, int *ret_mount_id);
/* Of `name` in `dirfd`; "": of `dirfd` itself. */
int fs_handle_get_name(int dirfd, const char *name, union fs_handle *ret_handle,
                       int *ret_mount_id);
int fs_handle_open(int mount_fd, union fs_handle *handle);
/* For I/O, see fs_open_flags().  Does not wait, whatever it is that the handle is of: O_NONBLOCK is added. */
int fs_handle_open_io(int mount_fd, union fs_handle *handle, int flags);
bool fs_handle_equal(const union fs_handle *a, const union fs_handle *b);

/* Attributes.  fs_truncate() opens the file for the call. */
int fs_chmod(int fd, mode_t mode);
int fs_chown(int fd, uid_t uid, gid_t gid); /* -1: leave it */
int fs_truncate(int fd, off_t size);
int fs_ftruncate(int io_fd, off_t size);
int fs_utimens(int fd, const struct timespec times[2]);
int fs_access(int fd, int mask);
int fs_statvfs(int fd, struct statvfs *ret_stat);
ssize_t fs_readlink(int fd, char *buf, size_t size); /* not terminated */

/* Names. */
int fs_mknod(int dirfd, const char *name, mode_t mode, dev_t rdev);
int fs_mkdir(int dirfd, const char *name, mode_t mode);
int fs_symlink(const char *target, int dirfd, const char *name);
int fs_link(int fd, int dirfd, const char *name);
int fs_unlink(int dirfd, const char *name);
int fs_rmdir(int dirfd, const char *name);
int fs_rename(int dirfd, const char *name, int new_dirfd, const char *new_name, unsigned flags);

/* Data; `io_fd` is open for I/O. */
ssize_t fs_pread(int io_fd, void *buf, size_t size, off_t offset);
/* Writes all of it unless there is an error after the first byte; how many bytes.  `append`: at the
 * file's end, wherever that is by now, `offset` being ignored. */
ssize_t fs_pwrite(int io_fd, const void *buf, size_t size, off_t offset, bool append);
int fs_clear_direct(int io_fd); /* takes O_DIRECT off */
int fs_sync(int io_fd, bool data_only);
int fs_fallocate(int io_fd, int mode, off_t offset, off_t length);
ssize_t fs_copy_range(int in_fd, off_t in, int out_fd, off_t out, size_t size, unsigned flags);
off_t fs_seek(int io_fd, off_t offset, int whence);
/* From `offset` on.  `*at` is where the descriptor is, -1 if that is not known, and says where it is then:
 * ext4 looks at a whole block of names anew after a seek, even to where it was. */
ssize_t fs_getdents(int io_fd, off_t *at, off_t offset, void *buf, size_t size);
int fs_ioctl(int io_fd, unsigned long request, void *arg);

/* Extended attributes, of symbolic links themselves too. */
int fs_setxattr(int fd, const char *name, const void *value, size_t size, int flags);
ssize_t fs_getxattr(int fd, const char *name, void *value, size_t size);
ssize_t fs_listxattr(int fd, char *list, size_t size);
int fs_removexattr(int fd, const char *name);

/* struct linux_dirent64 of getdents64(2). */
struct fs_dirent {
        uint64_t ino;
        int64_t off;
        uint16_t reclen;
        uint8_t type;
        char name[];
};

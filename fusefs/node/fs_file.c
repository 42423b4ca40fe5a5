/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * No state but the table of system calls, which only tests change, and the descriptor of
 * /proc/self/fd, which is opened before there are threads and never closed.
 *
 * About /proc/self/fd/N: an O_PATH descriptor names an inode for ever, but chmod, utimens, xattr
 * and opening for I/O want a path.  The magic link of the descriptor is a path that leads to
 * exactly that inode, whatever its name is by now, whether it has one, and even if it is a symbolic
 * link.
 */
#include "fusefs/node/fs_file.h"

#include <dirent.h>
#include <errno.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#define NAME_MAX_FUSE 1024 /* FUSE_NAME_MAX: what the kernel sends at most */

/* glibc 2.36 has no wrappers for these. */
static int sys_openat2(int dirfd, const char *name, struct open_how *how, size_t size)
{
        return (int)syscall(SYS_openat2, dirfd, name, how, size);
}

static int sys_faccessat2(int dirfd, const char *name, int mask, int flags)
{
        return (int)syscall(SYS_faccessat2, dirfd, name, mask, flags);
}

static int sys_openat(int dirfd, const char *name, int flags, mode_t mode)
{
        return openat(dirfd, name, flags, mode);
}

static int sys_ioctl(int fd, unsigned long request, void *arg)
{
        return ioctl(fd, request, arg);
}

static int sys_fcntl(int fd, int command, int arg)
{
        return fcntl(fd, command, arg);
}

/* The table: name, the function that is called if no test has replaced it. */
#define SYSCALLS(X)                                                                                \
        X(openat, sys_openat)                                                                      \
        X(openat2, sys_openat2)                                                                    \
        X(close, close)                                                                            \
        X(fcntl, sys_fcntl)                                                                        \
        X(statx, statx)                                                                            \
        X(name_to_handle_at, name_to_handle_at)                                                    \
        X(open_by_handle_at, open_by_handle_at)                                                    \
        X(fchmodat, fchmodat)                                                                      \
        X(fchownat, fchownat)                                                                      \
        X(ftruncate, ftruncate)                                                                    \
        X(utimensat, utimensat)                                                                    \
        X(faccessat2, sys_faccessat2)                                                              \
        X(fstatvfs, fstatvfs)                                                                      \
        X(readlinkat, readlinkat)                                                                  \
        X(mknodat, mknodat)                                                                        \
        X(mkdirat, mkdirat)                                                                        \
        X(symlinkat, symlinkat)                                                                    \
        X(linkat, linkat)                                                                          \
        X(unlinkat, unlinkat)                                                                      \
        X(renameat2, renameat2)                                                                    \
        X(pread, pread)                                                                            \
        X(pwritev2, pwritev2)                                                                      \
        X(fsync, fsync)                                                                            \
        X(fdatasync, fdatasync)                                                                    \
        X(fallocate, fallocate)                                                                    \
        X(copy_file_range, copy_file_range)                                                        \
        X(lseek, lseek)                                                                            \
        X(getdents64, getdents64)                                                                  \
        X(ioctl, sys_ioctl)                                                                        \
        X(setxattr, setxattr)                                                                      \
        X(getxattr, getxattr)                                                                      \
        X(listxattr, listxattr)                                                                    \
        X(removexattr, removexattr)

enum {
#define X(name, fn) CALL_##name,
        SYSCALLS(X)
#undef X
                N_CALLS
};

typedef void (*any_fn)(void);

static const char *const call_names[N_CALLS] = {
#define X(name, fn) #name,
        SYSCALLS(X)
#undef X
};

static const any_fn call_originals[N_CALLS] = {
#define X(name, fn) (any_fn)(fn),
        SYSCALLS(X)
#undef X
};

static any_fn calls[N_CALLS] = {
#define X(name, fn) (any_fn)(fn),
        SYSCALLS(X)
#undef X
};

/* The real types, so that a call through the table is as well checked as a direct one. */
#define X(name, fn) typedef __typeof__(fn) type_##name;
SYSCALLS(X)
#undef X

/* Calls `name`, again as long as a signal interrupts it; the value is the call's, or -errno. */
#define CALL(name, ...)                                                                            \
        __extension__({                                                                            \
                __typeof__(((type_##name *)calls[CALL_##name])(__VA_ARGS__)) r_;                   \
                do                                                                                 \
                        r_ = ((type_##name *)calls[CALL_##name])(__VA_ARGS__);                     \
                while (r_ < 0 && errno == EINTR);                                                  \
                if (r_ < 0)                                                                        \
                        r_ = -errno;                                                               \
                r_;                                                                                \
        })

static int proc_fd = -1; /* O_PATH of /proc/self/fd */

bool fs_file_syscall_override(const char *name, void (*fn)(void))
{
        for (unsigned i = 0; i < N_CALLS; i++)
                if (strcmp(call_names[i], name) == 0) {
                        calls[i] = fn ? fn : call_originals[i];
                        return true;
                }
        return false;
}

int fs_file_init(void)
{
        static pid_t opened_by;

        if (opened_by != getpid()) { /* it leads to the descriptors of the process that opens it */
                const int fd =
                        openat(AT_FDCWD, "/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);

                if (fd < 0)
                        return -errno;
                if (proc_fd >= 0)
                        close(proc_fd);
                proc_fd = fd;
                opened_by = getpid();
        }
        return 0;
}

int fs_name_check(const char *name)
{
        const size_t length = strlen(name);

        if (length == 0 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
            memchr(name, '/', length))
                return -EINVAL;
        return length > NAME_MAX_FUSE ? -ENAMETOOLONG : 0;
}

/* "N", relative to proc_fd; and "/proc/self/fd/N" where there is no …at() variant. */
struct proc_name {
        char text[sizeof "/proc/self/fd/" + 3 * sizeof(int)];
};

static const char *proc_name(int fd, struct proc_name *name)
{
        snprintf(name->text, sizeof name->text, "%d", fd);
        return name->text;
}

static const char *proc_path(int fd, struct proc_name *name)
{
        snprintf(name->text, sizeof name->text, "/proc/self/fd/%d", fd);
        return name->text;
}

static struct timespec from_statx_time(const struct statx_timestamp *t)
{
        return (struct timespec){.tv_sec = t->tv_sec, .tv_nsec = t->tv_nsec};
}

static void from_statx(const struct statx *stx, struct fs_stat *ret)
{
        *ret = (struct fs_stat){
                .st =
                        {
                                .st_dev = makedev(stx->stx_dev_major, stx->stx_dev_minor),
                                .st_ino = stx->stx_ino,
                                .st_mode = stx->stx_mode,
                                .st_nlink = stx->stx_nlink,
                                .st_uid = stx->stx_uid,
                                .st_gid = stx->stx_gid,
                                .st_rdev = makedev(stx->stx_rdev_major, stx->stx_rdev_minor),
                                .st_size = (off_t)stx->stx_size,
                                .st_blksize = (blksize_t)stx->stx_blksize,
                                .st_blocks = (blkcnt_t)stx->stx_blocks,
                                .st_atim = from_statx_time(&stx->stx_atime),
                                .st_mtim = from_statx_time(&stx->stx_mtime),
                                .st_ctim = from_statx_time(&stx->stx_ctime),
                        },
                .btime = FS_BTIME_UNKNOWN,
        };
        if ((stx->stx_mask & STATX_BTIME) && (stx->stx_btime.tv_sec || stx->stx_btime.tv_nsec))
                ret->btime = (int64_t)((uint64_t)stx->stx_btime.tv_sec * UINT64_C(1000000000) +
                                       stx->stx_btime.tv_nsec);
}

int fs_stat(int fd, struct fs_stat *ret_stat)
{
        struct statx stx;
        int r = CALL(statx, fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &stx);

        if (r == 0)
                from_statx(&stx, ret_stat);
        return r;
}

static int stat_name(int dirfd, const char *name, int how, struct statx *stx)
{
        return CALL(statx, dirfd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | how,
                    STATX_BASIC_STATS | STATX_BTIME, stx);
}

/* A kernel that cannot tell (before 5.8) might be hiding one. */
static bool is_mount_root(const struct statx *stx)
{
        return !(stx->stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) ||
               (stx->stx_attributes & STATX_ATTR_MOUNT_ROOT);
}

int fs_stat_name(int dirfd, const char *name, bool local, struct fs_stat *ret_stat,
                 bool *ret_mount_root)
{
        struct statx stx;
        int r = stat_name(dirfd, name, AT_STATX_DONT_SYNC, &stx);

        if (r == 0 && !local && !is_mount_root(&stx))
                r = stat_name(dirfd, name, AT_STATX_SYNC_AS_STAT, &stx);
        if (r == 0) {
                from_statx(&stx, ret_stat);
                *ret_mount_root = is_mount_root(&stx);
        }
        return r;
}

int fs_device_cached(int fd, dev_t *ret_dev)
{
        struct statx stx;
        int r = CALL(statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &stx);

        if (r == 0)
                *ret_dev = makedev(stx.stx_dev_major, stx.stx_dev_minor);
        return r;
}

int fs_open_node_xdev(int dirfd, const char *name)
{
        return CALL(openat, dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
}

int fs_open_node(int dirfd, const char *name)
{
        struct open_how how = {
                .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
                .resolve = RESOLVE_NO_XDEV,
        };
        const int r = CALL(openat2, dirfd, name, &how, sizeof how);

        /* A kernel or a sandbox without it: like a mount, the caller then looks closer. */
        return r == -ENOSYS || r == -EPERM ? -EXDEV : r;
}

int fs_open_root(const char *path)
{
        return CALL(openat, AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
}

int fs_open_beneath(int dirfd, const char *path)
{
        struct open_how how = {
                .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
                .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
        };

        return CALL(openat2, dirfd, path, &how, sizeof how);
}

int fs_reopen_path(int fd)
{
        struct proc_name name;

        return CALL(openat, proc_fd, proc_name(fd, &name), O_PATH | O_CLOEXEC, 0);
}

int fs_reopen(int fd, int flags)
{
        struct proc_name name;

        return CALL(openat, proc_fd, proc_name(fd, &name), flags | O_CLOEXEC, 0);
}

int fs_create(int dirfd, const char *name, int flags, mode_t mode)
{
        return CALL(openat, dirfd, name,
                    fs_open_flags(flags) | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
}

int fs_tmpfile(int fd, int flags, mode_t mode)
{
        struct proc_name name;

        return CALL(openat, proc_fd, proc_name(fd, &name),
                    fs_open_flags(flags & ~O_TMPFILE) | O_TMPFILE | (flags & O_EXCL) | O_CLOEXEC,
                    mode);
}

int fs_open_flags(int flags)
{
        return flags & ~(O_CREAT | O_EXCL | O_NOCTTY | O_NOFOLLOW | O_APPEND);
}

/* Linux has closed the descriptor whatever close() returns, EINTR included: never again. */
void fs_close(int fd)
{
        if (fd >= 0)
                ((type_close *)calls[CALL_close])(fd);
}

int fs_close_error(int fd)
{
        const int copy = CALL(fcntl, fd, F_DUPFD_CLOEXEC, 0);

        if (copy < 0)
                return copy;
        return ((type_close *)calls[CALL_close])(copy) < 0 && errno != EINTR ? -errno : 0;
}

static int handle_get(int dirfd, const char *name, int flags, union fs_handle *ret_handle,
                      int *ret_mount_id)
{
        ret_handle->handle.handle_bytes = MAX_HANDLE_SZ;
        return CALL(name_to_handle_at, dirfd, name, &ret_handle->handle, ret_mount_id, flags);
}

int fs_handle_get(int fd, union fs_handle *ret_handle, int *ret_mount_id)
{
        return handle_get(fd, "", AT_EMPTY_PATH, ret_handle, ret_mount_id);
}

int fs_handle_get_name(int dirfd, const char *name, union fs_handle *ret_handle, int *ret_mount_id)
{
        return handle_get(dirfd, name, *name ? 0 : AT_EMPTY_PATH, ret_handle, ret_mount_id);
}

int fs_handle_open(int mount_fd, union fs_handle *handle)
{
        return CALL(open_by_handle_at, mount_fd, &handle->handle, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

int fs_handle_open_io(int mount_fd, union fs_handle *handle, int flags)
{
        return CALL(open_by_handle_at, mount_fd, &handle->handle,
                    flags | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC);
}

bool fs_handle_equal(const union fs_handle *a, const union fs_handle *b)
{
        return a->handle.handle_type == b->handle.handle_type &&
               a->handle.handle_bytes == b->handle.handle_bytes &&
               memcmp(a->handle.f_handle, b->handle.f_handle, a->handle.handle_bytes) == 0;
}

int fs_chmod(int fd, mode_t mode)
{
        struct proc_name name;

        return CALL(fchmodat, proc_fd, proc_name(fd, &name), mode, 0);
}

int fs_chown(int fd, uid_t uid, gid_t gid)
{
        return CALL(fchownat, fd, "", uid, gid, AT_EMPTY_PATH);
}

int fs_ftruncate(int io_fd, off_t size)
{
        return CALL(ftruncate, io_fd, size);
}

int fs_truncate(int fd, off_t size)
{
        const int io_fd = fs_reopen(fd, O_WRONLY);
        int r;

        if (io_fd < 0)
                return io_fd;
        r = fs_ftruncate(io_fd, size);
        fs_close(io_fd);
        return r;
}

int fs_utimens(int fd, const struct timespec times[2])
{
        struct proc_name name;

        return CALL(utimensat, proc_fd, proc_name(fd, &name), times, 0);
}

int fs_access(int fd, int mask)
{
        struct proc_name name;
        int r = CALL(faccessat2, fd, "", mask, AT_EMPTY_PATH | AT_EACCESS);

        if (r == -ENOSYS)
                r = CALL(faccessat2, proc_fd, proc_name(fd, &name), mask, 0);
        return r;
}

int fs_statvfs(int fd, struct statvfs *ret_stat)
{
        return CALL(fstatvfs, fd, ret_stat);
}

ssize_t fs_readlink(int fd, char *buf, size_t size)
{
        return CALL(readlinkat, fd, "", buf, size);
}

int fs_mknod(int dirfd, const char *name, mode_t mode, dev_t rdev)
{
        return CALL(mknodat, dirfd, name, mode, rdev);
}

int fs_mkdir(int dirfd, const char *name, mode_t mode)
{
        return CALL(mkdirat, dirfd, name, mode);
}

int fs_symlink(const char *target, int dirfd, const char *name)
{
        return CALL(symlinkat, target, dirfd, name);
}

int fs_link(int fd, int dirfd, const char *name)
{
        struct proc_name from;

        return CALL(linkat, proc_fd, proc_name(fd, &from), dirfd, name, AT_SYMLINK_FOLLOW);
}

int fs_unlink(int dirfd, const char *name)
{
        return CALL(unlinkat, dirfd, name, 0);
}

int fs_rmdir(int dirfd, const char *name)
{
        return CALL(unlinkat, dirfd, name, AT_REMOVEDIR);
}

int fs_rename(int dirfd, const char *name, int new_dirfd, const char *new_name, unsigned flags)
{
        return CALL(renameat2, dirfd, name, new_dirfd, new_name, flags);
}

ssize_t fs_pread(int io_fd, void *buf, size_t size, off_t offset)
{
        size_t done = 0;

        /* A short read means the end of the file to the kernel: make sure that it is. */
        while (done < size) {
                const ssize_t n =
                        CALL(pread, io_fd, (char *)buf + done, size - done, offset + (off_t)done);

                if (n < 0)
                        return done ? (ssize_t)done : n;
                if (n == 0)
                        break;
                done += (size_t)n;
                if (done % 512 != 0)
                        break; /* O_DIRECT takes no odd address; and it is the end anyway */
        }
        return (ssize_t)done;
}

ssize_t fs_pwrite(int io_fd, const void *buf, size_t size, off_t offset, bool append)
{
        size_t done = 0;

        while (done < size) {
                struct iovec iov = {.iov_base = (char *)buf + done, .iov_len = size - done};
                const ssize_t n = CALL(pwritev2, io_fd, &iov, 1, offset + (off_t)done,
                                       append ? RWF_APPEND : 0);

                if (n < 0)
                        return done ? (ssize_t)done : n;
                if (n == 0)
                        break;
                done += (size_t)n;
        }
        return (ssize_t)done;
}

int fs_clear_direct(int io_fd)
{
        const int flags = CALL(fcntl, io_fd, F_GETFL, 0);

        return flags < 0 ? flags : CALL(fcntl, io_fd, F_SETFL, flags & ~O_DIRECT);
}

int fs_sync(int io_fd, bool data_only)
{
        return data_only ? CALL(fdatasync, io_fd) : CALL(fsync, io_fd);
}

int fs_fallocate(int io_fd, int mode, off_t offset, off_t length)
{
        return CALL(fallocate, io_fd, mode, offset, length);
}

ssize_t fs_copy_range(int in_fd, off_t in, int out_fd, off_t out, size_t size, unsigned flags)
{
        return CALL(copy_file_range, in_fd, &in, out_fd, &out, size, flags);
}

off_t fs_seek(int io_fd, off_t offset, int whence)
{
        return CALL(lseek, io_fd, offset, whence);
}

/* Behind the last of `size` bytes of entries. */
static off_t offset_behind(const char *dents, ssize_t size)
{
        off_t offset = -1;

        for (ssize_t i = 0; i < size;) {
                const struct fs_dirent *d = (const struct fs_dirent *)(dents + i);

                offset = d->off;
                i += d->reclen;
        }
        return offset;
}

ssize_t fs_getdents(int io_fd, off_t *at, off_t offset, void *buf, size_t size)
{
        const off_t r = *at == offset ? offset : CALL(lseek, io_fd, offset, SEEK_SET);
        const ssize_t n = r < 0 ? (ssize_t)r : CALL(getdents64, io_fd, buf, size);

        *at = offset_behind(buf, n);
        return n;
}

int fs_ioctl(int io_fd, unsigned long request, void *arg)
{
        return CALL(ioctl, io_fd, request, arg);
}

int fs_setxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
        struct proc_name path;

        return CALL(setxattr, proc_path(fd, &path), name, value, size, flags);
}

ssize_t fs_getxattr(int fd, const char *name, void *value, size_t size)
{
        struct proc_name path;

        return CALL(getxattr, proc_path(fd, &path), name, value, size);
}

ssize_t fs_listxattr(int fd, char *list, size_t size)
{
        struct proc_name path;

        return CALL(listxattr, proc_path(fd, &path), list, size);
}

int fs_removexattr(int fd, const char *name)
{
        struct proc_name path;

        return CALL(removexattr, proc_path(fd, &path), name);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Ways to another descriptor, and what needs none: names, handles, attributes, locks. */
#include "attempts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static char base[256], hard[512], new_name[512], empty_link[512];

static union {
        struct file_handle head;
        char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
} handle;
static bool has_handle;

void prepare_names(void)
{
        int id;

        snprintf(base, sizeof base, "%s", strrchr(held.file, '/') + 1);
        snprintf(hard, sizeof hard, "%s.hard", held.file);
        snprintf(new_name, sizeof new_name, "%s.renamed", held.file);
        snprintf(empty_link, sizeof empty_link, "%s.linked", held.file);
        handle.head.handle_bytes = MAX_HANDLE_SZ;
        has_handle = name_to_handle_at(AT_FDCWD, held.file, &handle.head, &id, 0) == 0;
        if (link(held.file, hard) < 0) {
                perror(hard);
                exit(1);
        }
}

static int open_number(int fd, int flags)
{
        char path[64];

        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        return open(path, flags);
}

static long try_proc_read(void) { return read_from(open_number(held.fd, O_RDONLY)); }
static long try_proc_write(void) { return read_from(open_number(held.fd, O_RDWR)); }
static long try_path_read(void) { return read_from(open_number(held.path_fd, O_RDONLY)); }
static long try_path_write(void) { return read_from(open_number(held.path_fd, O_RDWR)); }
static long try_name(void) { return read_from(open(held.file, O_RDWR)); }
static long try_at(void) { return read_from(openat(held.dir_fd, base, O_RDONLY)); }
static long try_hard(void) { return read_from(open(hard, O_RDWR)); }
static long try_truncate(void) { return raw(truncate(held.file, SIZE)); }
static long try_truncate_hard(void) { return raw(truncate(hard, SIZE)); }

static long try_renamed(void)
{
        long r;

        if (rename(held.file, new_name) < 0)
                return -errno;
        r = read_from(open(new_name, O_RDONLY));
        return rename(new_name, held.file) < 0 ? -errno : r;
}

static long try_link(void)
{
        long r;

        if (linkat(held.fd, "", AT_FDCWD, empty_link, AT_EMPTY_PATH) < 0)
                return -errno;
        r = read_from(open(empty_link, O_RDONLY));
        return unlink(empty_link) < 0 ? -errno : r;
}

static long try_handle(void)
{
        if (!has_handle)
                return SKIPPED;
        return read_from(open_by_handle_at(held.dir_fd, &handle.head, O_RDONLY));
}

/* ---- what a descriptor is good for besides bytes ---- */

static long try_stat(void) { struct stat st; return raw(fstat(held.fd, &st)); }
static long try_chmod(void) { return raw(fchmod(held.fd, 0600)); }
static long try_times(void) { return raw(futimens(held.fd, NULL)); }
static long try_setxattr(void) { return raw(fsetxattr(held.fd, "user.k42", "1", 1, 0)); }
static long try_getxattr(void) { char value[8]; return raw(fgetxattr(held.fd, "user.k42", value, 8)); }
static long try_flock(void) { return raw(flock(held.fd, LOCK_EX | LOCK_NB)); }
static long try_seek_hole(void) { return raw(lseek(held.fd, 0, SEEK_HOLE)); }
static long try_flags(void) { long flags; return raw(ioctl(held.fd, FS_IOC_GETFLAGS, &flags)); }

static long try_lock(void)
{
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};

        return raw(fcntl(held.fd, F_SETLK, &lock));
}

const struct attempt open_attempts[] = {
        {"open /proc/self/fd, to read", VICTIM, try_proc_read},
        {"open /proc/self/fd, to write", VICTIM, try_proc_write},
        {"open an O_PATH descriptor, to read", VICTIM, try_path_read},
        {"open an O_PATH descriptor, to write", VICTIM, try_path_write},
        {"open by name", VICTIM, try_name},
        {"openat, a directory held", VICTIM, try_at},
        {"open, a hard link made before", VICTIM, try_hard},
        {"rename, and open", VICTIM, try_renamed},
        {"linkat AT_EMPTY_PATH, and open", VICTIM, try_link},
        {"open_by_handle_at", VICTIM, try_handle},
        {"truncate by name", VICTIM, try_truncate},
        {"truncate by a hard link", VICTIM, try_truncate_hard},
        {"fstat", VICTIM, try_stat},
        {"fchmod", VICTIM, try_chmod},
        {"futimens", VICTIM, try_times},
        {"fsetxattr", VICTIM, try_setxattr},
        {"fgetxattr", VICTIM, try_getxattr},
        {"flock", VICTIM, try_flock},
        {"fcntl lock", VICTIM, try_lock},
        {"lseek SEEK_HOLE", VICTIM, try_seek_hole},
        {"ioctl FS_IOC_GETFLAGS", VICTIM, try_flags},
        {NULL, WHO, NULL},
};

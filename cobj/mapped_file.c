/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cobj/mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

int mapped_file_new(int dirfd, const char *name)
{
        int fd;

        if (dirfd >= 0 && unlinkat(dirfd, name, 0) < 0 && errno != ENOENT)
                return -errno;
        fd = dirfd < 0 ? memfd_create(name, MFD_CLOEXEC)
                       : openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        return fd < 0 ? -errno : fd;
}

int mapped_file_reserve(int fd, off_t from, off_t to)
{
        int r;

        do
                r = posix_fallocate(fd, from, to - from);
        while (r == EINTR);
        return -r;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cobj/mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
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

/* By writing what is there. */
bool mapped_file_is_readonly(int fd)
{
        char byte;

        return pread(fd, &byte, 1, 0) == 1 && pwrite(fd, &byte, 1, 0) != 1;
}

int mapped_file_copy(int fd, const char *name)
{
        off_t at = 0;
        struct stat st;
        int copy, r;

        if (fstat(fd, &st) < 0)
                return -errno;
        copy = mapped_file_new(-1, name);
        if (copy < 0)
                return copy;
        while (at < st.st_size) {
                const ssize_t n = sendfile(copy, fd, &at, (size_t)(st.st_size - at));

                if (n > 0 || (n < 0 && errno == EINTR))
                        continue;
                r = n < 0 ? -errno : -EIO;
                close(copy);
                return r;
        }
        return copy;
}

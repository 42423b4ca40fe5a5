/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fusefs/holder/mount_record.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

static const struct flock whole_file = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

int mount_record_open(int state_fd)
{
        int fd = openat(state_fd, "mount", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

        return fd < 0 ? -errno : fd;
}

static bool is_text(const char *text, size_t size)
{
        return memchr(text, '\0', size) != NULL;
}

int mount_record_read(int fd, struct mount_record *ret_record)
{
        const ssize_t n = pread(fd, ret_record, sizeof *ret_record, 0);

        if (n < 0)
                return -errno;
        if (n >= (ssize_t)sizeof ret_record->version &&
            ret_record->version != MOUNT_RECORD_VERSION)
                return -EPROTO;
        if (n != sizeof *ret_record || !is_text(ret_record->last_death, sizeof ret_record->last_death) ||
            !is_text(ret_record->mountpoint, sizeof ret_record->mountpoint) ||
            !is_text(ret_record->source, sizeof ret_record->source) ||
            ret_record->mountpoint[0] != '/' || ret_record->source[0] != '/')
                return -EBADMSG;
        return 0;
}

int mount_record_write(int fd, const struct mount_record *record)
{
        const ssize_t n = pwrite(fd, record, sizeof *record, 0);

        return n == sizeof *record ? 0 : n < 0 ? -errno : -EIO;
}

int mount_record_lock(int fd)
{
        struct flock lock = whole_file;

        return fcntl(fd, F_SETLK, &lock) < 0 ? -errno : 0;
}

void mount_record_end_worker(int fd)
{
        struct flock lock = whole_file;

        if (fcntl(fd, F_GETLK, &lock) < 0 || lock.l_type == F_UNLCK)
                return;
        if (lock.l_pid > 0)
                kill(lock.l_pid, SIGKILL);
        lock = whole_file;
        while (fcntl(fd, F_SETLKW, &lock) < 0 && errno == EINTR)
                ;
        lock.l_type = F_UNLCK;
        fcntl(fd, F_SETLK, &lock);
}

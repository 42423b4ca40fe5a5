/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A living holder has an flock on `lock`, so whoever gets that knows that the daemon is dead; and
 * keeps the next one out until all is removed, `lock` last.
 */
#include "ctl/state_files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/control_protocol.h"
#include "lazy/protocol.h"

const char *const state_mount_files[] = {
        "journal", "journal.new", "journal.broken", "keep", "requests", "mount", CONTROL_SOCKET_NAME,
        K42_REOPEN_SOCKET, NULL,
};
const char *const state_db_files[] = {
        "state.db-wal",
        "state.db-shm",
        "state.db-journal",
        "state.db",
        "state.db.new",
        "state.db.broken-wal", /* moved aside by a worker that could not use them */
        "state.db.broken-shm",
        "state.db.broken-journal",
        "state.db.broken",
        NULL,
};

int state_files_clear_dead(int dirfd, bool *ret_made)
{
        char text[sizeof STATE_MADE] = "";
        struct stat mine, named;
        int fd, r = 0;

        fd = openat(dirfd, STATE_LOCK_NAME, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        if (flock(fd, LOCK_EX | LOCK_NB) < 0)
                r = errno == EWOULDBLOCK ? -EBUSY : -errno;
        else if (fstat(fd, &mine) < 0)
                r = -errno;
        else if (fstatat(dirfd, STATE_LOCK_NAME, &named, AT_SYMLINK_NOFOLLOW) < 0 ||
                 mine.st_ino != named.st_ino || mine.st_dev != named.st_dev)
                r = -ENOENT; /* somebody else has cleared it up, and may have begun anew */
        if (r == 0) {
                *ret_made = pread(fd, text, sizeof text - 1, 0) > 0 && strcmp(text, STATE_MADE) == 0;
                for (const char *const *name = state_mount_files; *name; name++)
                        unlinkat(dirfd, *name, 0);
                for (const char *const *name = state_db_files; *name; name++)
                        unlinkat(dirfd, *name, 0);
                unlinkat(dirfd, STATE_LOCK_NAME, 0);
        }
        close(fd);
        return r;
}

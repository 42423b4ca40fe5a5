/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fusefs/coherent/coherent_marks.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "fusefs/coherent/coherent_events.h"
#include "fusefs/node/fs_file.h"

#ifndef F2FS_SUPER_MAGIC
#define F2FS_SUPER_MAGIC 0xF2F52010
#endif
#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

#define NAME_EVENTS (FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO | FAN_ONDIR)
/* FAN_MOVE_SELF for the change time of what is renamed, FAN_CLOSE_WRITE for stores into mappings.
 */
#define FILE_EVENTS (FAN_MODIFY | FAN_ATTRIB | FAN_MOVE_SELF | FAN_CLOSE_WRITE | FAN_ONDIR)

/* No FAN_UNLIMITED_QUEUE: what does not fit is answered by forgetting everything, so the kernel's
 * memory stays bounded however many files somebody changes. */
#define GROUP_FLAGS (FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK)

int coherent_marks_init(struct coherent_marks *marks)
{
        int r;

        marks->names_fd = fanotify_init(GROUP_FLAGS | FAN_REPORT_DFID_NAME, O_RDONLY | O_CLOEXEC);
        if (marks->names_fd < 0)
                return -errno;
        marks->files_fd = fanotify_init(GROUP_FLAGS | FAN_REPORT_FID, O_RDONLY | O_CLOEXEC);
        if (marks->files_fd < 0) {
                r = -errno;
                close(marks->names_fd);
                return r;
        }
        g_mutex_init(&marks->lock);
        atomic_init(&marks->count, 0);
        return 0;
}

int coherent_marks_adopt(struct coherent_marks *marks, int names_fd, int files_fd)
{
        const int fds[] = {names_fd, files_fd};
        int r = 0;

        marks->names_fd = names_fd;
        marks->files_fd = files_fd;
        g_mutex_init(&marks->lock);
        atomic_init(&marks->count, 0);
        for (unsigned i = 0; i < G_N_ELEMENTS(fds); i++)
                if (fanotify_mark(fds[i], FAN_MARK_FLUSH, 0, AT_FDCWD, NULL) < 0) /* inodes' marks */
                        r = -errno;
        return r;
}

void coherent_marks_clear(struct coherent_marks *marks)
{
        close(marks->names_fd);
        close(marks->files_fd);
        g_mutex_clear(&marks->lock);
}

/* Of these it is known that nobody changes them but this kernel, that a name has one spelling, and
 * what their file handles look like. */
static bool tells_everything(const struct statfs *fs)
{
        static const unsigned long known[] = {
                EXT4_SUPER_MAGIC, /* ext2 and ext3, too */
                XFS_SUPER_MAGIC,
                F2FS_SUPER_MAGIC,
                TMPFS_MAGIC,
        };

        for (unsigned i = 0; i < G_N_ELEMENTS(known); i++)
                if ((unsigned int)fs->f_type == known[i])
                        return true;
        return false;
}

/* The layout of the handles is as expected: this one's has the right inode number in it. */
static int check_handle(int fd)
{
        union fs_handle got;
        const struct file_handle *handle = &got.handle;
        struct stat st;
        int mount_id, r;
        ino_t ino;

        r = fs_handle_get(fd, &got, &mount_id);
        if (r < 0)
                return r;
        if (fstat(fd, &st) < 0)
                r = -errno;
        else if (!coherent_handle_ino((unsigned)handle->handle_type, handle->handle_bytes,
                                      handle->f_handle, &ino) ||
                 ino != st.st_ino)
                r = -EOPNOTSUPP;
        return r;
}

static int mark(struct coherent_marks *marks, int fd)
{
        const unsigned flags = FAN_MARK_ADD | FAN_MARK_FILESYSTEM;
        char path[64];

        snprintf(path, sizeof path, "/proc/self/fd/%d", fd); /* it takes no O_PATH descriptor */
        if (fanotify_mark(marks->names_fd, flags, NAME_EVENTS, AT_FDCWD, path) < 0 ||
            fanotify_mark(marks->files_fd, flags, FILE_EVENTS, AT_FDCWD, path) < 0)
                return -errno;
        return 0;
}

static struct coherent_fs *find_dev(struct coherent_marks *marks, dev_t dev)
{
        const unsigned n = atomic_load(&marks->count);

        for (unsigned i = 0; i < n; i++)
                if (marks->fs[i].dev == dev)
                        return &marks->fs[i];
        return NULL;
}

/* A device that cannot be marked is remembered, too: it is not tried for every node. */
static int locked_add(struct coherent_marks *marks, dev_t dev, int fd)
{
        const unsigned n = atomic_load(&marks->count);
        struct coherent_fs *fs = &marks->fs[n];
        struct statfs st;
        int r;

        if (n == COHERENT_FS_MAX)
                return -ENOSPC;
        fs->dev = dev;
        r = fstatfs(fd, &st) < 0 ? -errno : 0;
        if (r == 0)
                memcpy(fs->fsid, &st.f_fsid, sizeof fs->fsid);
        if (r == 0 && !tells_everything(&st))
                r = -EOPNOTSUPP;
        if (r == 0)
                r = check_handle(fd);
        if (r == 0)
                r = mark(marks, fd);
        atomic_init(&fs->covered, r == 0);
        atomic_store(&marks->count, n + 1);
        return r;
}

int coherent_marks_add(struct coherent_marks *marks, dev_t dev, int fd)
{
        struct coherent_fs *fs;
        int r;

        g_mutex_lock(&marks->lock);
        fs = find_dev(marks, dev);
        if (fs)
                r = atomic_load(&fs->covered) ? 0 : -EOPNOTSUPP;
        else
                r = locked_add(marks, dev, fd);
        g_mutex_unlock(&marks->lock);
        return r;
}

int coherent_marks_ignore(struct coherent_marks *marks, int fd, bool ignore)
{
        const unsigned flags = (ignore ? FAN_MARK_ADD : FAN_MARK_REMOVE) | FAN_MARK_IGNORED_MASK |
                               FAN_MARK_IGNORED_SURV_MODIFY;

        return fanotify_mark(marks->files_fd, flags, FAN_MODIFY | FAN_CLOSE_WRITE, fd, NULL) < 0
                       ? -errno
                       : 0;
}

enum coherent_cover coherent_marks_cover(struct coherent_marks *marks, dev_t dev)
{
        const struct coherent_fs *fs = find_dev(marks, dev);

        if (!fs)
                return atomic_load(&marks->count) < COHERENT_FS_MAX ? COHERENT_UNKNOWN
                                                                    : COHERENT_NOT_COVERED;
        return atomic_load(&fs->covered) ? COHERENT_COVERED : COHERENT_NOT_COVERED;
}

struct coherent_fs *coherent_marks_find(struct coherent_marks *marks, const int fsid[2])
{
        const unsigned n = atomic_load(&marks->count);

        for (unsigned i = 0; i < n; i++)
                if (marks->fs[i].fsid[0] == fsid[0] && marks->fs[i].fsid[1] == fsid[1] &&
                    atomic_load(&marks->fs[i].covered))
                        return &marks->fs[i];
        return NULL;
}

/* proc(5): "id parent major:minor root mount-point …", with \040 for a space. */
static guint hash_mount(char *line, const char *source)
{
        const size_t len = strlen(source);
        char *at = line;

        for (int field = 0; field < 4 && at; field++) {
                at = strchr(at, ' ');
                at = at ? at + 1 : NULL;
        }
        if (at && strchr(at, ' ')) {
                g_autofree char *mountpoint = NULL;

                *strchr(at, ' ') = '\0';
                mountpoint = g_strcompress(at);
                if (strncmp(mountpoint, source, len) == 0 &&
                    (mountpoint[len] == '/' || (len == 1 && mountpoint[1])))
                        return g_str_hash(line); /* with the mount's id */
        }
        return 0;
}

guint coherent_mounts_below(int fd, const char *source)
{
        g_autoptr(GString) text = g_string_new(NULL);
        char buf[4096];
        off_t offset = 0;
        guint hash = 0;
        ssize_t n;

        while ((n = pread(fd, buf, sizeof buf, offset)) > 0) {
                g_string_append_len(text, buf, n);
                offset += n;
        }
        for (char *line = text->str; line && *line;) {
                char *next = strchr(line, '\n');

                if (next)
                        *next++ = '\0';
                hash += hash_mount(line, source);
                line = next;
        }
        return hash;
}

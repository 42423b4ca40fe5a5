/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fusefs/passthrough.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fusefs/channel.h"
#include "fusefs/coherent.h"
#include "fusefs/creds.h"
#include "fusefs/node_table.h"
#include "fusefs/server_file.h"

void file_opens_init(struct file_opens *opens)
{
        g_mutex_init(&opens->lock);
}

void file_opens_clear(struct file_opens *opens)
{
        g_mutex_clear(&opens->lock);
}

/* The backing id of the node, made if there is none; 0 if the kernel does not take it. */
static int locked_backing_id(struct file_opens *opens, struct k42_mount *mount,
                             const struct file_open *open)
{
        int id;

        if (opens->backing_id > 0)
                return opens->backing_id;
        /* The kernel will act with the credentials of this moment: without CAP_FSETID, so that a
         * write takes setuid and setgid bits off as it should. */
        creds_fsetid(false);
        id = channel_backing_open(mount->channel, open->path_fd >= 0 ? open->path_fd : open->fd);
        if (id <= 0)
                return 0;
        opens->backing_id = id;
        opens->by_path = open->path_fd >= 0;
        return id;
}

static void locked_backing_close(struct file_opens *opens, struct k42_mount *mount)
{
        if (opens->backing_id > 0 && mount->channel) /* else the kernel has forgotten it already */
                channel_backing_close(mount->channel, opens->backing_id);
        opens->backing_id = 0;
}

void passthrough_probe(struct k42_mount *mount)
{
        int fd, id;

        if (mount->io_class != IO_CLASS_FAST)
                return;
        fd = memfd_create("k42fs-probe", MFD_CLOEXEC);
        id = fd < 0 ? -errno : channel_backing_open(mount->channel, fd);
        if (fd >= 0)
                close(fd);
        if (id > 0) {
                channel_backing_close(mount->channel, id);
                return;
        }
        atomic_store(&mount->passthrough, false);
        if (mount->options.io == IO_FAST)
                g_message("%s: the kernel refuses passthrough: %s; using io=cached",
                          mount->options.mountpoint, g_strerror(-id));
}

/* See the essay: the kernel alone would not do it as the backing file system does. */
static bool needs_us(const struct file_open *open)
{
        mode_t mode = open->mode;
        struct fs_stat st;

        if (open->flags & (O_APPEND | O_DIRECT))
                return true;
        if ((open->flags & O_ACCMODE) == O_RDONLY)
                return false;
        if (mode == 0 && fs_stat(open->fd, &st) == 0)
                mode = st.st.st_mode;
        return mode == 0 || (mode & (S_ISUID | S_ISGID));
}

/* By how many opens the kernel writes to the file by itself: the first and the last one matter. */
static void locked_count_writer(struct file_opens *opens, struct server_file *file,
                                enum io_class io_class, int flags, int fd, bool begins)
{
        if (io_class != IO_CLASS_FAST || (flags & O_ACCMODE) == O_RDONLY)
                return;
        if (begins ? atomic_fetch_add(&opens->writers, 1) == 0
                   : atomic_fetch_sub(&opens->writers, 1) == 1)
                coherent_written_by_kernel(file->table->mount->coherent, file, fd, begins);
}

enum io_class file_opens_begin(struct server_file *file, const struct file_open *open)
{
        struct k42_mount *mount = file->table->mount;
        struct file_opens *opens = &file->opens;
        enum io_class io_class = mount->io_class;

        if (io_class != IO_CLASS_FAST)
                return io_class;
        if (mount->options.io == IO_AUTO && needs_us(open))
                io_class = IO_CLASS_COUNTED;
        g_mutex_lock(&opens->lock);
        if (opens->cached == 0 && atomic_load(&mount->passthrough) &&
            locked_backing_id(opens, mount, open) > 0) {
                opens->fast++;
                locked_count_writer(opens, file, io_class, open->flags, open->fd, true);
                channel_set_backing(opens->backing_id);
        } else {
                opens->cached++;
                io_class = IO_CLASS_CACHED;
        }
        g_mutex_unlock(&opens->lock);
        return io_class;
}

void file_opens_end(struct server_file *file, enum io_class io_class, int flags, int fd)
{
        struct k42_mount *mount = file->table->mount;
        struct file_opens *opens = &file->opens;
        bool becomes_idle = false;

        if (mount->io_class != IO_CLASS_FAST)
                return;
        g_mutex_lock(&opens->lock);
        locked_count_writer(opens, file, io_class, flags, fd, false);
        if (io_class == IO_CLASS_CACHED) {
                opens->cached--;
        } else if (--opens->fast == 0) { /* or counted, with the backing file */
                becomes_idle = opens->by_path && !opens->idle && !atomic_load(&file->deleted);
                if (becomes_idle)
                        opens->idle = true;
                else if (!opens->idle || atomic_load(&file->deleted))
                        locked_backing_close(opens, mount);
        }
        g_mutex_unlock(&opens->lock);
        if (becomes_idle)
                idle_backing_add(mount, file);
        if (becomes_idle && atomic_load(&file->deleted)) /* file_opens_drop() did not find it yet */
                idle_backing_remove(mount, file);
}

void file_opens_drop(struct server_file *file)
{
        bool idle;

        g_mutex_lock(&file->opens.lock);
        idle = file->opens.idle;
        if (file->opens.fast == 0)
                locked_backing_close(&file->opens, file->table->mount);
        g_mutex_unlock(&file->opens.lock);
        if (idle)
                idle_backing_remove(file->table->mount, file);
}

void file_opens_idle_is_over(struct server_file *file)
{
        g_mutex_lock(&file->opens.lock);
        file->opens.idle = false;
        if (file->opens.fast == 0)
                locked_backing_close(&file->opens, file->table->mount);
        g_mutex_unlock(&file->opens.lock);
}

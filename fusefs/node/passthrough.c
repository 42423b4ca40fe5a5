/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fusefs/node/passthrough.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fusefs/worker/channel.h"
#include "fusefs/coherent/coherent.h"
#include "fusefs/node/creds.h"
#include "fusefs/node/node_table.h"
#include "fusefs/node/server_file.h"

void file_opens_init(struct file_opens *opens)
{
        g_mutex_init(&opens->lock);
}

void file_opens_clear(struct file_opens *opens)
{
        g_mutex_clear(&opens->lock);
}

/* The highest id that the kernel has given out; it counts up (and begins again after 2^31, when this is
 * of no use for a while, which can cost an id). */
static _Atomic int32_t highest;

static void saw_id(int32_t id)
{
        int32_t before = atomic_load(&highest);

        while (id > before && !atomic_compare_exchange_weak(&highest, &before, id))
                ;
}

/* The backing id of the node, made if there is none; 0 if the kernel does not take it.  What is in the
 * record meanwhile tells the next daemon above which number to look for an id that we do not live to
 * see. */
static int locked_backing_id(struct server_file *file, struct k42_mount *mount,
                             const struct file_open *open)
{
        struct kept_node *kept = file->kept;
        int id = atomic_load(&kept->backing_id);

        if (id > 0)
                return id;
        atomic_store(&kept->backing_id, -atomic_load(&highest) - 1);
        /* The kernel will act with the credentials of this moment: without CAP_FSETID, so that a
         * write takes setuid and setgid bits off as it should. */
        creds_fsetid(false);
        id = channel_backing_open(mount->channel, open->path_fd >= 0 ? open->path_fd : open->fd);
        if (id > 0) {
                saw_id(id);
                if (open->path_fd >= 0)
                        kept_node_set(kept, NODE_BY_PATH);
                else
                        kept_node_clear(kept, NODE_BY_PATH);
        }
        atomic_store(&kept->backing_id, MAX(id, 0));
        return MAX(id, 0);
}

static void locked_backing_close(struct server_file *file, struct k42_mount *mount)
{
        struct kept_node *kept = file->kept;
        const int id = atomic_load(&kept->backing_id);

        if (id <= 0)
                return;
        if (mount->channel) { /* else the kernel has forgotten it already */
                kept_node_set(kept, NODE_BACKING_CLOSING);
                channel_backing_close(mount->channel, id);
        }
        atomic_store(&kept->backing_id, 0);
        kept_node_clear(kept, NODE_BACKING_CLOSING);
}

/* Registers something and takes it back: the id that it had, or -errno. */
static int probe(struct k42_mount *mount)
{
        const int fd = memfd_create("k42fs-probe", MFD_CLOEXEC);
        const int id = fd < 0 ? -errno : channel_backing_open(mount->channel, fd);

        if (fd >= 0)
                close(fd);
        if (id > 0) {
                saw_id(id);
                channel_backing_close(mount->channel, id);
        }
        return id;
}

void passthrough_probe(struct k42_mount *mount)
{
        int id;

        if (mount->io_class != IO_CLASS_FAST)
                return;
        id = probe(mount);
        if (id > 0)
                return;
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

/* After the record of the open, which tells the next daemon as much: the flag alone means that such a record was lost.
 * The last open takes it off before its record goes. */
void file_opens_recorded(struct server_file *file)
{
        struct file_opens *opens = &file->opens;

        if (file->table->mount->io_class != IO_CLASS_FAST || kept_node_has(file->kept, NODE_FAST))
                return;
        g_mutex_lock(&opens->lock);
        if (opens->fast > 0)
                kept_node_set(file->kept, NODE_FAST);
        g_mutex_unlock(&opens->lock);
}

bool file_opens_join(struct server_file *file, int flags)
{
        struct k42_mount *mount = file->table->mount;
        struct file_opens *opens = &file->opens;
        bool joined;

        if (mount->io_class != IO_CLASS_FAST || (flags & (O_ACCMODE | O_APPEND | O_DIRECT | O_TRUNC)) != O_RDONLY)
                return false;
        g_mutex_lock(&opens->lock);
        joined = opens->cached == 0 && atomic_load(&mount->passthrough) &&
                 atomic_load(&file->kept->backing_id) > 0;
        if (joined) {
                opens->fast++;
                channel_set_backing(atomic_load(&file->kept->backing_id));
        }
        g_mutex_unlock(&opens->lock);
        return joined;
}

enum io_class file_opens_begin(struct server_file *file, const struct file_open *open)
{
        struct k42_mount *mount = file->table->mount;
        struct file_opens *opens = &file->opens;
        enum io_class io_class = mount->io_class;

        if (open->joined)
                return IO_CLASS_FAST;
        if (io_class != IO_CLASS_FAST)
                return io_class;
        if (mount->options.io == IO_AUTO && needs_us(open))
                io_class = IO_CLASS_COUNTED;
        g_mutex_lock(&opens->lock);
        if (opens->cached == 0 && atomic_load(&mount->passthrough) &&
            locked_backing_id(file, mount, open) > 0) {
                opens->fast++;
                locked_count_writer(opens, file, io_class, open->flags, open->fd, true);
                channel_set_backing(atomic_load(&file->kept->backing_id));
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
                const bool deleted = server_file_has(file, NODE_DELETED);

                kept_node_clear(file->kept, NODE_FAST);
                becomes_idle = server_file_has(file, NODE_BY_PATH) && !opens->idle && !deleted;
                if (becomes_idle)
                        opens->idle = true;
                else if (!opens->idle || deleted)
                        locked_backing_close(file, mount);
        }
        g_mutex_unlock(&opens->lock);
        if (becomes_idle)
                idle_backing_add(mount, file);
        if (becomes_idle && server_file_has(file, NODE_DELETED)) /* file_opens_drop() did not find it yet */
                idle_backing_remove(mount, file);
}

void file_opens_drop(struct server_file *file)
{
        bool idle;

        g_mutex_lock(&file->opens.lock);
        idle = file->opens.idle;
        if (file->opens.fast == 0)
                locked_backing_close(file, file->table->mount);
        g_mutex_unlock(&file->opens.lock);
        if (idle)
                idle_backing_remove(file->table->mount, file);
}

void file_opens_idle_is_over(struct server_file *file)
{
        g_mutex_lock(&file->opens.lock);
        file->opens.idle = false;
        if (file->opens.fast == 0)
                locked_backing_close(file, file->table->mount);
        g_mutex_unlock(&file->opens.lock);
}

/* ---- after another daemon ---- */

/* An id was being registered when the daemon died: its request comes again, and may find another use for
 * the record.  So what is to be looked for later, from which number on, is noted elsewhere. */
void file_backing_resume(struct server_file *file)
{
        _Atomic uint64_t *search = keep_word(file->table->mount->keep, KEEP_WORD_BACKING_SEARCH);
        const int32_t id = atomic_load(&file->kept->backing_id);

        if (id > 0)
                saw_id(id);
        if (id >= 0)
                return;
        if (search && (atomic_load(search) == 0 || atomic_load(search) > (uint64_t)-(int64_t)id))
                atomic_store(search, (uint64_t)-(int64_t)id);
        atomic_store(&file->kept->backing_id, 0);
}

void file_opens_resume(struct server_file *file, enum io_class io_class, int flags)
{
        struct file_opens *opens = &file->opens;

        if (file->table->mount->io_class != IO_CLASS_FAST)
                return;
        if (io_class == IO_CLASS_CACHED) {
                opens->cached++;
                return;
        }
        opens->fast++;
        kept_node_set(file->kept, NODE_FAST);
        if (io_class == IO_CLASS_FAST && (flags & O_ACCMODE) != O_RDONLY)
                atomic_fetch_add(&opens->writers, 1);
}

void file_opens_watch_less(struct server_file *file, int fd)
{
        struct file_opens *opens = &file->opens;

        g_mutex_lock(&opens->lock);
        if (atomic_load(&opens->writers) > 0)
                coherent_written_by_kernel(file->table->mount->coherent, file, fd, true);
        g_mutex_unlock(&opens->lock);
}

static int compare_ids(const void *a, const void *b)
{
        const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

        return x < y ? -1 : x > y;
}

/* Every id from `from` on that is not in `known` (sorted) is nobody's. */
static void close_unknown(struct k42_mount *mount, int32_t from, const GArray *known)
{
        const int32_t end = atomic_load(&highest);
        guint at = 0;

        for (int32_t id = from; id < end; id++) {
                while (at < known->len && g_array_index(known, int32_t, at) < id)
                        at++;
                if (at >= known->len || g_array_index(known, int32_t, at) != id)
                        channel_backing_close(mount->channel, id);
        }
}

/* The node's opens are lost, its own record is not: to the kernel it may be open with a backing file that we do
 * not know, and every other open of it would be EIO.  So the file is looked up as another node from here on,
 * which has no part in the locks of this one. */
static bool withdraw_if_lost(struct server_file *file)
{
        if (file->opens.fast > 0 || !kept_node_clear(file->kept, NODE_FAST))
                return false;
        kept_node_set(file->kept, NODE_WITHDRAWN);
        node_table_unhash(file);
        return true;
}

void passthrough_resumed(struct k42_mount *mount)
{
        g_autoptr(GArray) known = g_array_new(FALSE, FALSE, sizeof(int32_t));
        _Atomic uint64_t *search = keep_word(mount->keep, KEEP_WORD_BACKING_SEARCH);
        struct server_file *file;
        uint32_t cursor = 0;
        unsigned lost = 0;

        if (!mount->channel)
                return;
        while ((file = node_table_next(mount->nodes, &cursor))) {
                const int32_t id = atomic_load(&file->kept->backing_id);

                if (id > 0)
                        g_array_append_val(known, id);
                lost += withdraw_if_lost(file);
                if (id > 0 && file->opens.fast == 0)
                        locked_backing_close(file, mount); /* and its number stays known: it is closed */
                kept_node_clear(file->kept, NODE_BACKING_CLOSING);
                server_file_unref(file);
        }
        if (lost > 0)
                g_warning("%s: files that are open in a way that is not known any more: %u; who opens them now does "
                          "not meet the locks on them", mount->options.mountpoint, lost);
        g_array_sort(known, compare_ids);
        if (!search || atomic_load(search) == 0)
                return;
        if (atomic_load(search) < INT32_MAX && probe(mount) > 0)
                close_unknown(mount, (int32_t)atomic_load(search), known);
        atomic_store(search, 0);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * `uses` is the whole protocol: whoever raises it from 0 or more to one more may use the descriptor
 * until he lowers it again; whoever moves it from 0 to -1, holding the node's lock, owns the
 * descriptor and may close it.  So the usual case, a descriptor that is open, is two atomic
 * operations and takes no lock.
 *
 * The ring holds what may be closed.  The search for a victim is the clock algorithm: what was used
 * since the last look gets a second chance.  A node in the ring is kept alive by nobody; it takes
 * itself out when it is freed (node_fd_clear()), and an evictor takes a reference under the ring's
 * lock before it touches it.
 */
#include "fusefs/node/node_fd.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "fusefs/coherent/coherent_events.h"
#include "fusefs/node/fs_file.h"
#include "fusefs/node/node_table.h"

#define LIMIT_MAX                                                                                  \
        960 /* with what the daemon needs itself below the 1,024 that most get by default */
#define LIMIT_MIN 16
#define RESERVED  64 /* for what is neither a node's nor an open file's descriptor */

static void limits_from_rlimit(struct node_fds *fds)
{
        struct rlimit nofile;
        rlim_t usable = UINT32_MAX;

        if (getrlimit(RLIMIT_NOFILE, &nofile) == 0 && nofile.rlim_cur < usable)
                usable = nofile.rlim_cur > RESERVED ? nofile.rlim_cur - RESERVED : 0;
        fds->limit = (unsigned)CLAMP(usable / 4, LIMIT_MIN, LIMIT_MAX);
        fds->for_all = (unsigned)(usable - usable / 8);
}

void node_fds_init(struct node_fds *fds, int root_fd, bool use_handles)
{
        union fs_handle handle;

        g_mutex_init(&fds->lock);
        g_queue_init(&fds->ring);
        limits_from_rlimit(fds);
        fds->mount_fd = -1;
        if (use_handles && fs_handle_get(root_fd, &handle, &fds->mount_id) == 0) {
                const int mount_fd = fs_reopen(root_fd, O_RDONLY | O_DIRECTORY);
                const int fd = mount_fd >= 0 ? fs_handle_open(mount_fd, &handle) : -1;

                if (fd >= 0) /* it works here: neither the file system nor a sandbox minds */
                        fds->mount_fd = mount_fd;
                else
                        fs_close(mount_fd);
                fs_close(fd);
        }
}

void node_fds_clear(struct node_fds *fds)
{
        fs_close(fds->mount_fd);
        g_mutex_clear(&fds->lock);
}

void node_fd_init(struct node_fd *node)
{
        g_mutex_init(&node->lock);
        node->uses = -1;
        node->fd = -1;
}

static void ring_add(struct node_fds *fds, struct server_file *file)
{
        g_mutex_lock(&fds->lock);
        if (!file->fd.link.data) {
                file->fd.link.data = file;
                g_queue_push_head_link(&fds->ring, &file->fd.link);
        }
        g_mutex_unlock(&fds->lock);
}

static void locked_ring_remove(struct node_fds *fds, struct server_file *file)
{
        if (file->fd.link.data) {
                g_queue_unlink(&fds->ring, &file->fd.link);
                file->fd.link.data = NULL;
        }
}

static void ring_remove(struct node_fds *fds, struct server_file *file)
{
        g_mutex_lock(&fds->lock);
        locked_ring_remove(fds, file);
        g_mutex_unlock(&fds->lock);
}

/* Takes a victim out of the ring, with a reference; NULL if there is none.  `any`: recently used
 * ones too. */
static struct server_file *take_victim(struct node_fds *fds, bool any)
{
        struct server_file *victim = NULL;

        g_mutex_lock(&fds->lock);
        for (unsigned n = fds->ring.length * 2; n > 0 && !victim; n--) {
                GList *link = g_queue_peek_tail_link(&fds->ring);
                struct server_file *file = link->data;

                if ((atomic_exchange(&file->fd.recent, false) && !any) ||
                    atomic_load(&file->fd.uses) > 0 || !server_file_try_ref(file)) {
                        g_queue_unlink(&fds->ring, link);
                        g_queue_push_head_link(&fds->ring, link);
                } else {
                        locked_ring_remove(fds, file);
                        victim = file;
                }
        }
        g_mutex_unlock(&fds->lock);
        return victim;
}

bool node_fds_handle(struct node_fds *fds, int dirfd, const char *name,
                     union fs_handle *ret_handle)
{
        int mount_id;

        return fds->mount_fd >= 0 && fs_handle_get_name(dirfd, name, ret_handle, &mount_id) == 0 &&
               mount_id == fds->mount_id; /* what is on another mount below SOURCE goes by name */
}

static void locked_remember_handle(struct node_fds *fds, struct server_file *file)
{
        union fs_handle handle;

        if (!kept_node_has_handle(file->kept) && node_fds_handle(fds, file->fd.fd, "", &handle))
                kept_node_set_handle(file->kept, &handle);
}

/* Closes the file's descriptor unless it is in use or pinned. */
static bool close_idle(struct node_fds *fds, struct server_file *file)
{
        struct node_fd *node = &file->fd;
        int idle = 0;
        bool closed = false;

        /* The node is opened or closed at this moment: so it is not idle. */
        if (!g_mutex_trylock(&node->lock))
                return false;
        if (atomic_compare_exchange_strong(&node->uses, &idle, -1)) {
                locked_remember_handle(fds, file);
                fs_close(node->fd);
                node->fd = -1;
                atomic_fetch_sub(&fds->open, 1);
                closed = true;
        }
        g_mutex_unlock(&node->lock);
        return closed;
}

/* False if nothing could be closed. */
static bool evict_one(struct node_fds *fds, bool any)
{
        struct server_file *victim = take_victim(fds, any);
        bool closed;

        if (!victim)
                return false;
        closed = close_idle(fds, victim);
        if (!closed && atomic_load(&victim->fd.uses) >= 0)
                ring_add(fds, victim);
        server_file_unref(victim);
        return closed;
}

static void trim(struct node_fds *fds)
{
        for (;;) {
                bool full;

                g_mutex_lock(&fds->lock);
                full = fds->ring.length > fds->limit;
                g_mutex_unlock(&fds->lock);
                if (!full || !evict_one(fds, false))
                        return;
        }
}

unsigned node_fds_shrink(struct node_fds *fds)
{
        unsigned n = 0;

        while (evict_one(fds, true))
                n++;
        return n;
}

void node_fd_clear(struct server_file *file)
{
        struct node_fds *fds = &file->table->fds;
        struct node_fd *node = &file->fd;

        ring_remove(fds, file);
        if (node->pins > 0)
                atomic_fetch_sub(&fds->pinned, 1);
        if (atomic_load(&node->uses) >= 0) {
                fs_close(node->fd);
                atomic_fetch_sub(&fds->open, 1);
        }
        g_mutex_clear(&node->lock);
}

/* The descriptor is there now, used `uses` times. */
static void locked_opened(struct server_file *file, int fd, int uses)
{
        file->fd.fd = fd;
        atomic_store(&file->fd.recent, true);
        atomic_fetch_add(&file->table->fds.open, 1);
        atomic_store(&file->fd.uses, uses);
}

void node_fd_install(struct server_file *file, int fd)
{
        struct node_fds *fds = &file->table->fds;
        bool installed = false;

        g_mutex_lock(&file->fd.lock);
        if (atomic_load(&file->fd.uses) < 0) {
                locked_opened(file, fd, 0);
                installed = true;
        }
        g_mutex_unlock(&file->fd.lock);
        if (!installed) {
                fs_close(fd);
                return;
        }
        ring_add(fds, file);
        trim(fds);
}

int node_fd_get_open(struct server_file *file)
{
        int uses = atomic_load(&file->fd.uses);

        while (uses >= 0)
                if (atomic_compare_exchange_weak(&file->fd.uses, &uses, uses + 1)) {
                        if (!atomic_load_explicit(&file->fd.recent, memory_order_relaxed))
                                atomic_store_explicit(&file->fd.recent, true, memory_order_relaxed);
                        return file->fd.fd;
                }
        return -EBADF;
}

void node_fd_put(struct server_file *file)
{
        atomic_fetch_sub(&file->fd.uses, 1);
}

/* -ENOENT: the handle was another file's, see instantiate_by_handle(), and is dropped. */
static int locked_open_by_handle(struct server_file *file)
{
        union fs_handle handle;
        struct fs_stat st;
        int fd, r;

        if (file->table->fds.mount_fd < 0)
                return -EOPNOTSUPP;
        kept_node_get_handle(file->kept, &handle);
        fd = fs_handle_open(file->table->fds.mount_fd, &handle);
        if (fd < 0)
                return fd;
        r = fs_stat(fd, &st);
        if (r == 0 && !server_file_is(file, &st)) {
                kept_node_drop_handle(file->kept);
                r = -ENOENT;
        }
        if (r < 0) {
                fs_close(fd);
                return r;
        }
        return fd;
}

/* What the handle says is gone is gone.  But its number, and where time goes in steps its birth
 * time too, may be another file's by now: who looks that one up must not find this node again. */
static int locked_open_again(struct server_file *file)
{
        if (kept_node_has_handle(file->kept)) {
                const int fd = locked_open_by_handle(file);

                if (fd == -ESTALE)
                        node_table_unhash(file);
                if (fd >= 0 || fd == -ESTALE || node_fds_exhausted(fd))
                        return fd;
        }
        return server_file_open_by_name(file);
}

/* What has no name is usually pinned while it still has one; but not by this daemon if it was an earlier
 * one that removed it.  This was perhaps the last chance to open it. */
static void locked_pin_for_good(struct server_file *file)
{
        file->fd.pins++;
        atomic_fetch_add(&file->fd.uses, 1);
        atomic_fetch_add(&file->table->fds.pinned, 1);
}

int node_fd_get(struct server_file *file)
{
        struct node_fds *fds = &file->table->fds;
        int fd = node_fd_get_open(file);
        bool pinned;

        if (fd >= 0)
                return fd;
        g_mutex_lock(&file->fd.lock);
        fd = node_fd_get_open(file);
        if (fd >= 0) {
                g_mutex_unlock(&file->fd.lock);
                return fd;
        }
        fd = locked_open_again(file);
        if (node_fds_exhausted(fd) && node_fds_shrink(fds) > 0)
                fd = locked_open_again(file);
        if (fd >= 0)
                locked_opened(file, fd, 1);
        if (fd >= 0 && (server_file_has(file, NODE_DELETED) || server_file_has(file, NODE_NAMELESS)))
                locked_pin_for_good(file);
        pinned = file->fd.pins > 0;
        g_mutex_unlock(&file->fd.lock);
        if (fd >= 0 && !pinned) {
                ring_add(fds, file);
                trim(fds);
        }
        return fd;
}

/* The handle, if what it opens has the node's inode number; false if there is none or it cannot be told.
 * Then the worst that can be behind it is what was made with this number between the two calls of
 * instantiate_by_handle(): a device cannot be, but by somebody who may use it anyway, and nothing else
 * minds being opened for reading for a moment. */
static bool handle_of_number(struct server_file *file, union fs_handle *ret_handle)
{
        ino_t ino;
        bool has;

        g_mutex_lock(&file->fd.lock);
        has = kept_node_has_handle(file->kept);
        if (has)
                kept_node_get_handle(file->kept, ret_handle);
        g_mutex_unlock(&file->fd.lock);
        return has &&
               coherent_handle_ino((unsigned)ret_handle->handle.handle_type,
                                   ret_handle->handle.handle_bytes, ret_handle->handle.f_handle, &ino) &&
               ino == file->kept->ino;
}

int node_fd_get_like(struct server_file *file, int fd)
{
        int path_fd = node_fd_get_open(file);

        if (path_fd >= 0)
                return path_fd;
        path_fd = fs_reopen_path(fd);
        if (path_fd >= 0)
                node_fd_install(file, path_fd);
        return node_fd_get(file); /* as a rule it is still open */
}

bool node_fd_by_handle(const struct server_file *file)
{
        const struct node_table *table = file->table;

        return table->fds.mount_fd >= 0 && file->kept->dev == table->root->kept->dev;
}

int node_fd_open_unopened(struct server_file *file, int flags)
{
        const int mount_fd = file->table->fds.mount_fd;
        union fs_handle handle;
        struct fs_stat st;
        int fd;

        if (atomic_load(&file->fd.uses) >= 0 || mount_fd < 0 || !handle_of_number(file, &handle))
                return -EBADF;
        fd = fs_handle_open_io(mount_fd, &handle, flags);
        if (fd >= 0 && (fs_stat(fd, &st) < 0 || !server_file_is(file, &st))) {
                fs_close(fd);
                return -ESTALE;
        }
        return fd;
}

struct node_fd_use node_fd_use(struct server_file *file)
{
        server_file_ref(file);
        return (struct node_fd_use){.file = file, .fd = node_fd_get(file)};
}

void node_fd_unuse(struct node_fd_use *use)
{
        if (use->fd >= 0)
                node_fd_put(use->file);
        server_file_unref(use->file);
}

int node_fd_pin(struct server_file *file)
{
        const int fd = node_fd_get(file); /* this use is the pin's */

        if (fd < 0)
                return fd;
        g_mutex_lock(&file->fd.lock);
        if (file->fd.pins++ == 0) {
                atomic_fetch_add(&file->table->fds.pinned, 1);
                ring_remove(&file->table->fds, file);
        }
        g_mutex_unlock(&file->fd.lock);
        return fd;
}

void node_fd_unpin(struct server_file *file)
{
        g_mutex_lock(&file->fd.lock);
        if (file->fd.pins > 0) { /* else an earlier daemon has pinned it */
                if (--file->fd.pins == 0) {
                        atomic_fetch_sub(&file->table->fds.pinned, 1);
                        ring_add(&file->table->fds, file);
                }
                node_fd_put(file);
        }
        g_mutex_unlock(&file->fd.lock);
        trim(&file->table->fds);
}

bool node_fd_locked_same_handle(struct server_file *file, int fd)
{
        union fs_handle mine, handle;
        int mount_id;

        if (!kept_node_has_handle(file->kept) || fs_handle_get(fd, &handle, &mount_id) < 0)
                return true;
        kept_node_get_handle(file->kept, &mine);
        return fs_handle_equal(&mine, &handle);
}

bool node_fd_same_handle(struct server_file *file, int fd)
{
        bool same;

        g_mutex_lock(&file->fd.lock);
        same = node_fd_locked_same_handle(file, fd);
        g_mutex_unlock(&file->fd.lock);
        return same;
}

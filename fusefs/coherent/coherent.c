/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who owns what: the thread owns the reading of the groups, the memo and `mounts`.  Everything that
 * the serving threads look at is atomic: `sequence`, `changed`, `all_changed`, and in the marks
 * what is said there.  No lock is held while the kernel is told anything: it may wait for a request
 * that needs the same lock.
 *
 * Nothing is remembered of an event but the sequence number in one of CHANGED_SLOTS slots, chosen
 * by the identity of what changed; two files in one slot cost a reply's timeout, nothing else.  A
 * late event can be about a file that is gone and whose number another one has got since: one
 * message too many.  Memory does not depend on how much happens: when the kernel's queue is full it
 * says so, and then the kernel is told to forget everything.
 *
 * The thread rests PAUSE_MS after it has read everything there was.  The kernel merges what happens
 * to one object meanwhile, so many changes are few events and few wake-ups.
 *
 * Why an invalidation that arrives while the kernel is being told the old state is not lost:
 *   a name         the kernel holds the directory's lock from the LOOKUP (CREATE, …) until it has
 *                  taken the reply, and channel_inval_entry() waits for that lock.
 *   attributes     of an inode that the kernel has: it ignores replies to what it asked before it
 * was told to forget.  (It does not for those to SETATTR and LINK, therefore coherent_changed(), up
 * to the moment when the reply is sent.) a new inode    before the reply is sent:
 * coherent_changed().  Afterwards: the kernel says ENOENT although we have counted it; then a name
 * of the node is invalidated first, which waits for the lookup, see tell_file().
 */
#include "fusefs/coherent/coherent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <time.h>
#include <unistd.h>

#include "cobj/own_thread.h"
#include "fusefs/worker/channel.h"
#include "fusefs/coherent/coherent_events.h"
#include "fusefs/coherent/coherent_marks.h"
#include "fusefs/node/dir_linux_fs.h"
#include "fusefs/holder/link.h"
#include "fusefs/mount_point.h"
#include "fusefs/node/node_table.h"
#include "fusefs/node/timeouts.h"

#define CHANGED_SLOTS 4096u /* a power of two */
#define MEMO_SLOTS    256u  /* a power of two */
#define PAUSE_MS      4
#define READ_SIZE     65536
#define JOIN_MS       2000

/* What of a node was told in this batch of events already. */
struct memo {
        uint64_t id, batch;
        bool data;
};

struct coherent {
        struct k42_mount *mount; /* constant */
        struct coherent_marks marks;
        pid_t self; /* constant */

        _Atomic uint64_t sequence; /* of changes by others */
        _Atomic uint64_t changed[CHANGED_SLOTS];
        _Atomic uint64_t all_changed;

        atomic_bool active, stopping;
        _Atomic uint64_t invalidations, foreign, resets;

        pthread_t thread;
        bool started;  /* the owner's */
        int stop_fd;   /* constant; readable when `stopping` */
        int mounts_fd; /* constant; -1: not to be had */

        /* The thread's alone. */
        guint mounts;
        bool lost;    /* events: everything is to be forgotten */
        bool resumed; /* after an earlier worker, who may have read events that it did not tell of */
        uint64_t batch;
        struct memo memo[MEMO_SLOTS];
        char buf[READ_SIZE];
};

/* ---- what the serving threads ask ---- */

bool coherent_active(struct coherent *c)
{
        return c && atomic_load(&c->active);
}

uint64_t coherent_invalidations(struct coherent *c)
{
        return c ? atomic_load(&c->invalidations) : 0;
}

uint64_t coherent_foreign_events(struct coherent *c)
{
        return c ? atomic_load(&c->foreign) : 0;
}

bool coherent_covers(struct coherent *c, struct server_file *file)
{
        int fd;

        if (!coherent_active(c))
                return false;
        switch (coherent_marks_cover(&c->marks, file->kept->dev)) {
        case COHERENT_COVERED:
                return true;
        case COHERENT_NOT_COVERED:
                return false;
        case COHERENT_UNKNOWN:
                break;
        }
        fd = node_fd_get(file);
        if (fd >= 0) {
                coherent_marks_add(&c->marks, file->kept->dev, fd);
                node_fd_put(file);
        }
        return false; /* what the caller has seen is of before the mark */
}

void coherent_written_by_kernel(struct coherent *c, const struct server_file *file, int fd,
                                bool written)
{
        int r;

        if (!coherent_active(c) || coherent_marks_cover(&c->marks, file->kept->dev) != COHERENT_COVERED)
                return;
        r = coherent_marks_ignore(&c->marks, fd, written);
        /* Without it each write costs an event; with it for too long, only until the inode goes. */
        if (r < 0 && r != -ENOENT)
                g_debug("fanotify_mark: %s", g_strerror(-r));
}

uint64_t coherent_resets(struct coherent *c)
{
        return c ? atomic_load(&c->resets) : 0;
}

static _Atomic uint64_t *slot_of(struct coherent *c, dev_t dev, ino_t ino)
{
        return &c->changed[hash_mix(ino ^ hash_mix(dev)) & (CHANGED_SLOTS - 1)];
}

uint64_t coherent_seen(struct coherent *c)
{
        return c ? atomic_load(&c->sequence) : 0;
}

bool coherent_changed(struct coherent *c, const struct server_file *file, uint64_t seen)
{
        return c && (atomic_load(slot_of(c, file->kept->dev, file->kept->ino)) > seen ||
                     atomic_load(&c->all_changed) > seen);
}

/* ---- telling the kernel ---- */

static void count(struct coherent *c, int r)
{
        if (r == 0)
                atomic_fetch_add_explicit(&c->invalidations, 1, memory_order_relaxed);
}

/* False if the node was told about in this batch: all that is in it happened before that. */
static bool first_in_batch(struct coherent *c, const struct server_file *file, bool data)
{
        struct memo *memo = &c->memo[file->id & (MEMO_SLOTS - 1)];

        if (memo->id == file->id && memo->batch == c->batch && (memo->data || !data))
                return false;
        *memo = (struct memo){.id = file->id, .batch = c->batch, .data = data};
        return true;
}

/* With `expire`, but where the kernel has no such thing a name that is no directory is taken back.
 */
static void tell_entry(struct coherent *c, fuse_ino_t parent, const char *name, bool is_dir)
{
        int r = channel_inval_entry(c->mount->channel, parent, name, true);

        if (r == -ENOSYS && !is_dir)
                r = channel_inval_entry(c->mount->channel, parent, name, false);
        count(c, r);
}

/* One of the node's names, as a copy, and its directory's id; NULL if it has none. */
static char *name_of(struct server_file *file, unsigned n, fuse_ino_t *ret_parent)
{
        struct file_link *link;
        char *name = NULL;

        g_mutex_lock(&file->links_lock);
        for (link = file->links; link && (n > 0 || !link->kept->listed); link = link->next)
                if (link->kept->listed)
                        n--;
        if (link) {
                name = strdup(link->kept->name);
                *ret_parent = link->parent->file.id;
        }
        g_mutex_unlock(&file->links_lock);
        return name;
}

static void tell_file(struct coherent *c, struct server_file *file, bool data)
{
        struct channel *channel = c->mount->channel;
        int r = channel_inval_inode(channel, file->id, data);

        if (r == -ENOENT && atomic_load(&file->kept->nlookup) > 0) {
                /* A reply that names it is on its way: wait until the lookup is over. */
                fuse_ino_t parent;
                char *name = name_of(file, 0, &parent);

                if (name)
                        tell_entry(c, parent, name, server_file_is_dir(file));
                free(name);
                r = channel_inval_inode(channel, file->id, data);
        }
        count(c, r);
}

/* True if `name` in `dir` is a directory now. */
static bool is_dir_now(struct coherent *c, struct server_file *dir, const char *name)
{
        const int dirfd = node_fd_get(dir);
        struct fs_stat st;
        bool is_dir = false;
        int fd;

        if (dirfd < 0)
                return false;
        fd = node_table_open_at(c->mount->nodes, dirfd, name);
        if (fd >= 0) {
                is_dir = fs_stat(fd, &st) == 0 && S_ISDIR(st.st.st_mode);
                fs_close(fd);
        }
        node_fd_put(dir);
        return is_dir;
}

/* What may be a directory that somebody has entered already, by a lookup that was later than the
 * event, is only asked for again: a name that is taken back cuts him off.  That is enough for a
 * name that was unknown or did not exist.  What is no directory is taken back, so that no answer to
 * a question that is under way makes it valid once more. */
static void tell_name(struct coherent *c, struct server_file *dir, const char *name)
{
        SERVER_FILE(child);

        child = dir_child(dir_linux_fs_of(dir), name);
        if (!child || is_dir_now(c, dir, name))
                tell_entry(c, dir->id, name, child && server_file_is_dir(child));
        else
                count(c, channel_inval_entry(c->mount->channel, dir->id, name, false));
        if (first_in_batch(c, dir, true))
                tell_file(c, dir, true);
}

/* All names of a node, and the node. */
static void tell_all_of(struct coherent *c, struct server_file *file)
{
        fuse_ino_t parent;
        char *name;

        for (unsigned n = 0; (name = name_of(file, n, &parent)); n++) {
                tell_entry(c, parent, name, server_file_is_dir(file));
                free(name);
        }
        tell_file(c, file, true);
}

/* The files that the kernel writes to by itself since an earlier worker: its marks were taken off. */
static void mark_written(struct server_file *file)
{
        if (atomic_load(&file->opens.writers) > 0) {
                NODE_FD(node, file);

                if (node.fd >= 0)
                        file_opens_watch_less(file, node.fd);
        }
}

/* Events were lost, or cannot be understood: the kernel knows nothing any more. */
static void forget_everything(struct coherent *c)
{
        const bool resumed = c->resumed;
        struct node_table *nodes = c->mount->nodes;
        struct server_file *file;
        uint32_t cursor = 0;

        c->lost = false;
        c->resumed = false;
        atomic_fetch_add_explicit(&c->resets, 1, memory_order_relaxed);
        atomic_store(&c->all_changed, atomic_fetch_add(&c->sequence, 1) + 1);
        tell_file(c, node_table_file(nodes, FUSE_ROOT_ID), true);
        while (!atomic_load(&c->stopping) && (file = node_table_next(nodes, &cursor))) {
                if (resumed)
                        mark_written(file);
                tell_all_of(c, file);
                server_file_unref(file);
        }
}

/* ---- reading what happened ---- */

static void take_event(struct coherent *c, const struct coherent_event *event)
{
        const bool data = event->mask & (FAN_MODIFY | FAN_CLOSE_WRITE);
        struct coherent_fs *fs;
        SERVER_FILE(file);
        ino_t ino;

        if (event->mask & FAN_Q_OVERFLOW) {
                c->lost = true;
                return;
        }
        if (event->pid == c->self)
                return;
        atomic_fetch_add_explicit(&c->foreign, 1, memory_order_relaxed);
        fs = event->handle ? coherent_marks_find(&c->marks, event->fsid) : NULL;
        if (!fs)
                return;
        if (!coherent_handle_ino(event->handle_type, event->handle_bytes, event->handle, &ino)) {
                g_warning("%s: a change is reported in an unknown way (handle type %u); not "
                          "coherent there from now on",
                          c->mount->options.source, event->handle_type);
                atomic_store(&fs->covered, false);
                c->lost = true;
                return;
        }
        atomic_store(slot_of(c, fs->dev, ino), atomic_fetch_add(&c->sequence, 1) + 1);
        file = node_table_find(c->mount->nodes, fs->dev, ino);
        if (!file)
                return;
        if (!event->name) {
                if (first_in_batch(c, file, data))
                        tell_file(c, file, data);
        } else if (server_file_is_dir(file)) {
                tell_name(c, file, event->name);
        }
}

/* Reads what one group has by now.  Not until it is empty: somebody who writes all the time to a file of this
 * file system, in SOURCE or not, would keep the thread and a processor busy with each of his writes. */
static void drain(struct coherent *c, int fd)
{
        ssize_t n = sizeof c->buf;

        while (n > (ssize_t)sizeof c->buf / 2 && !atomic_load(&c->stopping) &&
               (n = read(fd, c->buf, sizeof c->buf)) > 0) {
                struct coherent_event event;
                size_t offset = 0;
                bool broken;

                c->batch++;
                while (coherent_event_next(c->buf, (size_t)n, &offset, &event, &broken))
                        take_event(c, &event);
                if (broken) {
                        g_warning("%s: fanotify reports something that cannot be understood",
                                  c->mount->options.source);
                        c->lost = true;
                }
        }
}

static void look_at_mounts(struct coherent *c)
{
        const guint mounts = coherent_mounts_below(c->mounts_fd, c->mount->options.source);

        if (mounts != c->mounts)
                c->lost = true;
        c->mounts = mounts;
}

static void *coherent_thread(void *data)
{
        struct coherent *c = data;
        struct pollfd fds[] = {
                {.fd = c->stop_fd, .events = POLLIN},
                {.fd = c->marks.names_fd, .events = POLLIN},
                {.fd = c->marks.files_fd, .events = POLLIN},
                {.fd = c->mounts_fd, .events = POLLPRI},
        };

        if (c->lost)
                forget_everything(c);
        while (!atomic_load(&c->stopping)) {
                if (poll(fds, G_N_ELEMENTS(fds), -1) < 0)
                        continue; /* EINTR, or no memory for the moment */
                if (fds[3].revents)
                        look_at_mounts(c);
                drain(c, c->marks.names_fd);
                drain(c, c->marks.files_fd);
                if (c->lost)
                        forget_everything(c);
                poll(fds, 1, PAUSE_MS);
        }
        return NULL;
}

/* ---- life ---- */

/* What is parked under PARK_COHERENT. */
enum {
        GROUP_NAMES = 1,
        GROUP_FILES,
};

/* The groups of the worker before, or -ENOENT. */
static int adopt_groups(struct coherent *c)
{
        const int names = link_take_parked(c->mount->link, park_key(PARK_COHERENT, GROUP_NAMES));
        const int files = link_take_parked(c->mount->link, park_key(PARK_COHERENT, GROUP_FILES));
        int r = -ENOENT;

        if (names >= 0 && files >= 0) {
                r = coherent_marks_adopt(&c->marks, names, files);
                if (r < 0)
                        coherent_marks_clear(&c->marks);
                return r;
        }
        if (names >= 0)
                close(names);
        if (files >= 0)
                close(files);
        return r;
}

/* The kernel takes some 20 ms to end a group with a file system's mark (it waits until nobody can be looking at
 * the mark any more), and a process is dead only after that.  So the holder has the groups open, too: those who
 * wait for the next worker do not wait for this. */
static int open_groups(struct coherent *c)
{
        int r = adopt_groups(c);

        if (r == 0)
                return 0;
        r = coherent_marks_init(&c->marks);
        if (r < 0)
                return r;
        /* Without the holder it takes those 20 ms, no more. */
        (void)link_send_park(c->mount->link, park_key(PARK_COHERENT, GROUP_NAMES), c->marks.names_fd);
        (void)link_send_park(c->mount->link, park_key(PARK_COHERENT, GROUP_FILES), c->marks.files_fd);
        return 0;
}

static int open_fds(struct coherent *c)
{
        int r = open_groups(c);

        if (r < 0)
                return r;
        c->stop_fd = eventfd(0, EFD_CLOEXEC);
        if (c->stop_fd < 0) {
                r = -errno;
                coherent_marks_clear(&c->marks);
                return r;
        }
        c->mounts_fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
        if (c->mounts_fd >= 0)
                c->mounts = coherent_mounts_below(c->mounts_fd, c->mount->options.source);
        return 0;
}

/* Watching has a price for everybody who changes something.  Whoever wants nothing to be believed
 * for longer than without it need not pay. */
static bool wanted(const struct k42_options *options)
{
        if (options->exclusive || options->coherent == COHERENT_NO)
                return false;
        return options->coherent == COHERENT_YES || !timeouts_short(options->attr_timeout) ||
               !timeouts_short(options->entry_timeout);
}

int coherent_new(struct k42_mount *mount, struct coherent **ret_coherent)
{
        struct server_file *root = node_table_file(mount->nodes, FUSE_ROOT_ID);
        struct coherent *c;
        int fd, r;

        *ret_coherent = NULL;
        if (!wanted(&mount->options))
                return 0;
        c = calloc(1, sizeof *c);
        if (!c)
                return -ENOMEM;
        c->mount = mount;
        c->self = getpid();
        c->lost = c->resumed = mount->resume;
        r = open_fds(c);
        if (r == 0) {
                fd = node_fd_get(root);
                r = fd < 0 ? fd : coherent_marks_add(&c->marks, root->kept->dev, fd);
                if (fd >= 0)
                        node_fd_put(root);
                if (r == 0) {
                        atomic_store(&c->active, true);
                        *ret_coherent = c;
                        return 0;
                }
                coherent_free(c);
        } else {
                free(c);
        }
        if (mount->options.coherent == COHERENT_YES)
                g_message("%s: changes by others cannot be watched: %s; using short timeouts",
                          mount->options.source, g_strerror(-r));
        return 0;
}

int coherent_start(struct coherent *c)
{
        const int r = own_thread_start(&c->thread, "k42-coherent", coherent_thread, c);

        c->started = r == 0;
        if (r < 0)
                atomic_store(&c->active, false);
        return r;
}

static bool join(struct coherent *c, int ms)
{
        struct timespec until;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += ms / 1000;
        return pthread_timedjoin_np(c->thread, NULL, &until) == 0;
}

/* Ends all requests, and so what the thread waits for. */
static void abort_connection(struct coherent *c)
{
        const char *mountpoint = c->mount->options.mountpoint;
        int r;

        if (mount_point_ended(c->mount->fuse_fd))
                return; /* the thread is only slow */
        g_message("%s: a request is stuck; ending the connection", mountpoint);
        r = mount_point_abort(mountpoint, c->mount->dev);
        if (r < 0)
                g_warning("%s: the connection cannot be ended: %s", mountpoint, g_strerror(-r));
}

void coherent_stop(struct coherent *c, bool for_good)
{
        const uint64_t one = 1;

        if (!c || !c->started)
                return;
        atomic_store(&c->stopping, true);
        if (write(c->stop_fd, &one, sizeof one) < 0) /* only when it counts 2^64 already */
                g_debug("coherent: eventfd: %s", g_strerror(errno));
        if (!join(c, JOIN_MS)) {
                if (!for_good)
                        return;
                abort_connection(c);
                pthread_join(c->thread, NULL);
        }
        c->started = false;
        atomic_store(&c->active, false);
}

void coherent_free(struct coherent *c)
{
        if (!c)
                return;
        coherent_marks_clear(&c->marks);
        close(c->stop_fd);
        if (c->mounts_fd >= 0)
                close(c->mounts_fd);
        free(c);
}

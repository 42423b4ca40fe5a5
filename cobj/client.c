/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The client table.
 *
 * Two hash maps under one lock: process id → living client, and thread id → client, the cache. Both
 * chain through the entries themselves, so that nothing on a request's path can abort for want of
 * memory.  /proc is read, and pidfds are opened, with no lock held; two threads that make the same
 * client at once notice at the end, and one of them throws its own away.  A client is told of
 * (`appeared`) before anybody can find it, so the journal has it before its first handle.
 *
 * The end of a client is whoever flips `alive` first: the watcher (its pidfd became readable), a
 * lookup (the cached process is gone), or the sweep.  That one takes it out of the maps, tells
 * `exited`, and drops the table's reference.  The watcher gets the client's id from epoll, never a
 * pointer, because somebody else may have been first; and it gets it once (EPOLLONESHOT), because a
 * pidfd stays readable as long as anybody keeps the client.
 *
 * That /proc can't be read (EMFILE) never means that a process is gone: a client that is ended
 * loses its handles.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cobj/own_thread.h"

#include "cobj/client_private.h"

#define CLIENTS_MAX (1u << 22) /* PID_MAX_LIMIT */
#define THREADS_MAX 256        /* cached thread ids of one client */
#define EVENTS      64

/* A cached thread that is not its process's leader; owned by its client. */
struct client_thread {
        pid_t tid;
        struct client *client;
        struct client_thread *next_by_tid, *next_of_client;
};

static unsigned bucket_of(pid_t id)
{
        return (unsigned)id & (CLIENT_BUCKETS - 1);
}

struct client *client_ref(struct client *client)
{
        atomic_fetch_add_explicit(&client->refs, 1, memory_order_relaxed);
        return client;
}

void client_unref(struct client *client)
{
        if (!client || atomic_fetch_sub_explicit(&client->refs, 1, memory_order_acq_rel) != 1)
                return;
        if (atomic_load(&client->pidfd) >= 0)
                close(atomic_load(&client->pidfd));
        if (atomic_load(&client->attached))
                client->destroy(atomic_load(&client->attached));
        keep_free(client->table->keep, client->kept);
        g_mutex_clear(&client->lock);
        free(client->comm);
        free(client->exe);
        free(client);
}

void *client_attached(const struct client *client)
{
        return atomic_load_explicit(&client->attached, memory_order_acquire);
}

bool client_attach(struct client *client, void *data, void (*destroy)(void *data))
{
        bool first;

        g_mutex_lock(&client->lock);
        first = !atomic_load(&client->attached);
        if (first) {
                client->destroy = destroy;
                atomic_store(&client->attached, data);
        }
        g_mutex_unlock(&client->lock);
        return first;
}

struct kept_client *client_kept(const struct client *client)
{
        return client->kept;
}

const struct client_info *client_info(const struct client *client)
{
        return &client->info;
}

bool client_alive(const struct client *client)
{
        return atomic_load(&client->alive);
}

static bool pidfd_ended(int pidfd)
{
        struct pollfd pollfd = {.fd = pidfd, .events = POLLIN};

        return poll(&pollfd, 1, 0) > 0;
}

/* Asks the kernel, without trusting what the table believes. */
static bool process_gone(const struct client *client)
{
        const int pidfd = atomic_load(&client->pidfd);
        const pid_t pid = client->info.pid;
        uint64_t start_time;
        int r;

        if (pidfd >= 0)
                return pidfd_ended(pidfd);
        r = proc_start_time(client->table->proc_fd, pid, &start_time);
        if (r == 0)
                return client->info.start_time != 0 && start_time != client->info.start_time;
        return r == -ESRCH || !proc_has_thread(pid, pid);
}

void client_refresh(struct client *client)
{
        char *comm, *exe;
        bool alive;

        if (client->info.pid == 0)
                return;
        comm = proc_comm(client->table->proc_fd, client->info.pid);
        exe = proc_exe(client->table->proc_fd, client->info.pid);
        /* The process may have ended meanwhile, and its id be another's: then keep the old ones. */
        alive = client_alive(client) && !process_gone(client);
        g_mutex_lock(&client->lock);
        if (alive) {
                if (comm) {
                        free(client->comm);
                        client->comm = g_steal_pointer(&comm);
                }
                if (exe) {
                        free(client->exe);
                        client->exe = g_steal_pointer(&exe);
                }
        }
        g_mutex_unlock(&client->lock);
        free(comm);
        free(exe);
}

static char *dup_locked(struct client *client, char **text)
{
        char *copy;

        g_mutex_lock(&client->lock);
        copy = g_strdup(*text ? *text : "");
        g_mutex_unlock(&client->lock);
        return copy;
}

/* Of a client that was taken over nobody has read them yet. */
static void refresh_first(struct client *client)
{
        bool known;

        g_mutex_lock(&client->lock);
        known = client->comm || client->exe;
        g_mutex_unlock(&client->lock);
        if (!known && client_alive(client))
                client_refresh(client);
}

char *client_dup_comm(struct client *client)
{
        refresh_first(client);
        return dup_locked(client, &client->comm);
}

char *client_dup_exe(struct client *client)
{
        refresh_first(client);
        return dup_locked(client, &client->exe);
}

void client_copy_names(const struct client *client, char *comm, size_t comm_size, char *exe, size_t exe_size)
{
        struct client *c = (struct client *)client;

        g_mutex_lock(&c->lock);
        if (!c->comm || g_strlcpy(comm, c->comm, comm_size) >= comm_size)
                *comm = '\0';
        if (!c->exe || g_strlcpy(exe, c->exe, exe_size) >= exe_size)
                *exe = '\0';
        g_mutex_unlock(&c->lock);
}

struct client *client_make(struct client_table *table, struct kept_client *kept, int pidfd)
{
        struct client *client = calloc(1, sizeof *client);

        if (!client)
                return NULL;
        g_mutex_init(&client->lock);
        g_queue_init(&client->handles);
        atomic_init(&client->refs, 1);
        atomic_init(&client->alive, true);
        atomic_init(&client->pidfd, pidfd);
        client->table = table;
        client->kept = kept;
        client->info = kept->info;
        return client;
}

static struct client *locked_find_pid(struct client_table *table, pid_t pid)
{
        struct client *client = table->by_pid[bucket_of(pid)];

        while (client && client->info.pid != pid)
                client = client->next_by_pid;
        return client;
}

static struct client_thread *locked_find_tid(struct client_table *table, pid_t tid)
{
        struct client_thread *thread = table->by_tid[bucket_of(tid)];

        while (thread && thread->tid != tid)
                thread = thread->next_by_tid;
        return thread;
}

static void locked_drop_threads(struct client_table *table, struct client *client)
{
        struct client_thread *thread;

        while ((thread = client->threads)) {
                struct client_thread **at = &table->by_tid[bucket_of(thread->tid)];

                while (*at != thread)
                        at = &(*at)->next_by_tid;
                *at = thread->next_by_tid;
                client->threads = thread->next_of_client;
                free(thread);
        }
        client->n_threads = 0;
}

/* Remembers whose thread `tid` is; without memory the next lookup is slower, that is all. */
static void cache_thread(struct client_table *table, struct client *client, pid_t tid)
{
        struct client_thread *thread;

        g_mutex_lock(&table->lock);
        thread = locked_find_tid(table, tid);
        /* client_end() has dropped, or is yet to drop, the threads of a client that it marked. */
        if (!client_alive(client) || (thread && thread->client == client))
                goto out;
        if (thread) /* the id went from one process to another */
                locked_drop_threads(table, thread->client);
        if (client->n_threads >= THREADS_MAX)
                locked_drop_threads(table, client);
        thread = calloc(1, sizeof *thread);
        if (!thread)
                goto out;
        *thread = (struct client_thread){
                .tid = tid,
                .client = client,
                .next_by_tid = table->by_tid[bucket_of(tid)],
                .next_of_client = client->threads,
        };
        table->by_tid[bucket_of(tid)] = thread;
        client->threads = thread;
        client->n_threads++;
out:
        g_mutex_unlock(&table->lock);
}

void client_end(struct client *client)
{
        struct client_table *table = client->table;
        struct client **at;

        if (!atomic_exchange(&client->alive, false))
                return;
        atomic_store(&client->kept->ended, 1); /* before the id can be another's */
        id_table_free(table->ids, client->info.id);
        g_mutex_lock(&table->lock);
        at = &table->by_pid[bucket_of(client->info.pid)];
        while (*at && *at != client)
                at = &(*at)->next_by_pid;
        if (*at)
                *at = client->next_by_pid;
        locked_drop_threads(table, client);
        g_mutex_unlock(&table->lock);
        atomic_fetch_sub(&table->living, 1);
        table->exited(client, table->data);
        client_unref(client);
}

static struct client *locked_peek(struct client_table *table, pid_t tid)
{
        struct client_thread *thread;
        struct client *client = locked_find_pid(table, tid);

        if (!client) {
                thread = locked_find_tid(table, tid);
                client = thread ? thread->client : NULL;
        }
        return client ? client_ref(client) : NULL;
}

struct client *client_table_peek(struct client_table *table, pid_t tid)
{
        g_autoptr(GMutexLocker) locker G_GNUC_UNUSED = NULL;

        if (tid <= 0)
                return client_ref(table->nobody);
        locker = g_mutex_locker_new(&table->lock);
        return locked_peek(table, tid);
}

/* The cached client of `tid`, if the cache is right. */
static struct client *find_checked(struct client_table *table, pid_t tid)
{
        struct client *client;

        g_mutex_lock(&table->lock);
        client = locked_peek(table, tid);
        g_mutex_unlock(&table->lock);
        if (!client)
                return NULL;
        if (process_gone(client))
                client_end(client);
        else if (tid == client->info.pid || proc_has_thread(client->info.pid, tid))
                return client;
        client_unref(client);
        return NULL;
}

void client_watch(struct client *client)
{
        const int pidfd = atomic_load(&client->pidfd);
        struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = client->info.id};

        if (pidfd < 0)
                return;
        if (epoll_ctl(client->table->epoll_fd, EPOLL_CTL_ADD, pidfd, &event) == 0)
                atomic_store(&client->watched, true);
        else
                g_info("process %d: its exit will be noticed late: %s", (int)client->info.pid,
                       g_strerror(errno));
}

void client_table_locked_add_pid(struct client_table *table, struct client *client)
{
        client->next_by_pid = table->by_pid[bucket_of(client->info.pid)];
        table->by_pid[bucket_of(client->info.pid)] = client;
}

/* The living client of the process that `info` is about: a reference, or NULL. */
static struct client *find_process(struct client_table *table, const struct client_info *info)
{
        struct client *client;

        g_mutex_lock(&table->lock);
        client = locked_find_pid(table, info->pid);
        /* Without a start time the id alone has to do. */
        if (client && info->start_time != 0 && client->info.start_time != 0 &&
            client->info.start_time != info->start_time)
                client = NULL;
        if (client)
                client_ref(client);
        g_mutex_unlock(&table->lock);
        return client;
}

/* Puts a new client, whose id is reserved, into the table, or finds that somebody else just did.
 * Takes over `client`'s reference; returns one for the caller. */
static struct client *insert(struct client_table *table, struct client *client)
{
        struct client *there;

        g_mutex_lock(&table->create_lock);
        there = find_process(table, &client->info);
        if (there) {
                g_mutex_unlock(&table->create_lock);
                id_table_unreserve(table->ids, client->info.id);
                client_unref(client);
                return there;
        }
        keep_commit(client->kept, KEEP_CLIENT);
        table->appeared(client, table->data);
        atomic_fetch_add(&table->living, 1);
        client_ref(client); /* the table's own */

        g_mutex_lock(&table->lock);
        client_table_locked_add_pid(table, client);
        /* Found by id and by process id at once, or client_end() would miss one of them. */
        id_table_publish(table->ids, client->info.id, client);
        g_mutex_unlock(&table->lock);
        g_mutex_unlock(&table->create_lock);
        client_watch(client);
        return client;
}

/* What `info` has to be when /proc can't be read.  Of a thread that is not its process's leader
 * nobody can tell then whose it is. */
static int guess_info(struct client_table *table, pid_t tid, struct proc_info *info)
{
        *info = (struct proc_info){.pid = tid};
        if (!proc_has_thread(tid, tid))
                return -ESRCH;
        return proc_owner(table->proc_fd, tid, &info->uid);
}

int client_pin_process(struct client_table *table, pid_t tid, const struct client_info *info,
                       int *ret_pidfd)
{
        int pidfd = (int)syscall(SYS_pidfd_open, info->pid, 0), r;
        uint64_t start_time;

        if (pidfd < 0 && errno == ESRCH)
                return -ESRCH;
        /* It is of that process only if nothing changed. */
        r = proc_start_time(table->proc_fd, info->pid, &start_time);
        if (r == -ESRCH || (r == 0 && info->start_time != 0 && start_time != info->start_time) ||
            !proc_has_thread(info->pid, tid) || (pidfd >= 0 && pidfd_ended(pidfd))) {
                if (pidfd >= 0)
                        close(pidfd);
                return -ESRCH;
        }
        *ret_pidfd = pidfd;
        return 0;
}

/* The client and its record, which nobody sees yet.  Takes over `pidfd` on success. */
static int make_with_record(struct client_table *table, const struct client_info *info, int pidfd,
                            struct client **ret_client)
{
        struct kept_client *kept = keep_alloc(table->keep, sizeof *kept);
        struct client *client;

        if (!kept)
                return -ENOMEM;
        kept->info = *info;
        client = client_make(table, kept, pidfd);
        if (!client) {
                keep_free(table->keep, kept);
                return -ENOMEM;
        }
        *ret_client = client;
        return 0;
}

/* The client of a process that has none yet. */
static int make_new(struct client_table *table, pid_t tid, const struct client_info *info,
                    struct client **ret_client)
{
        struct client *client;
        int pidfd, r;

        r = client_pin_process(table, tid, info, &pidfd);
        if (r < 0)
                return r;
        r = make_with_record(table, info, pidfd, &client);
        if (r < 0) {
                if (pidfd >= 0)
                        close(pidfd);
                return r;
        }
        client_refresh(client);
        r = id_table_reserve(table->ids, &client->info.id);
        if (r < 0) {
                client_unref(client);
                return -ENOMEM;
        }
        client->kept->info.id = client->info.id;
        *ret_client = insert(table, client);
        return 0;
}

static int make_client(struct client_table *table, pid_t tid, struct client **ret_client)
{
        struct client *client;
        struct proc_info proc;
        struct client_info info;
        int r;

        r = proc_info_read(table->proc_fd, tid, &proc);
        if (r < 0 && r != -ESRCH)
                r = guess_info(table, tid, &proc);
        if (r < 0)
                return r;
        info = (struct client_info){
                .pid = proc.pid,
                .ppid = proc.ppid,
                .uid = proc.uid,
                .start_time = proc.start_time,
        };
        if (info.pid != tid) { /* a new thread, most likely of a process that is known */
                client = find_process(table, &info);
                if (client && !process_gone(client)) {
                        *ret_client = client;
                        return 0;
                }
                client_unref(client);
        }
        return make_new(table, tid, &info, ret_client);
}

int client_table_get(struct client_table *table, pid_t tid, struct client **ret_client)
{
        struct client *client;
        int r;

        if (tid <= 0) {
                *ret_client = client_ref(table->nobody);
                return 0;
        }
        client = find_checked(table, tid);
        if (!client) {
                r = make_client(table, tid, &client);
                if (r < 0)
                        return r;
                if (client->info.pid != tid)
                        cache_thread(table, client, tid);
        }
        *ret_client = client;
        return 0;
}

struct client *client_table_find_pid(struct client_table *table, pid_t pid)
{
        g_autoptr(GMutexLocker) locker G_GNUC_UNUSED = g_mutex_locker_new(&table->lock);
        struct client *client = locked_find_pid(table, pid);

        return client ? client_ref(client) : NULL;
}

static bool client_try_ref(void *object)
{
        client_ref(object); /* in the id table, so the table's reference is still there */
        return true;
}

static bool client_try_ref_unwatched(void *object)
{
        return !atomic_load(&((struct client *)object)->watched) && client_try_ref(object);
}

void client_table_sweep(struct client_table *table)
{
        struct client *client;
        uint32_t cursor = 0;

        while ((client = id_table_next_ref(table->ids, &cursor, client_try_ref_unwatched))) {
                if (process_gone(client))
                        client_end(client);
                client_unref(client);
        }
}

void client_table_foreach(struct client_table *table, void (*fn)(struct client *client, void *data), void *data)
{
        struct client *client;
        uint32_t cursor = 0;

        while ((client = id_table_next_ref(table->ids, &cursor, client_try_ref))) {
                fn(client, data);
                client_unref(client);
        }
}

uint32_t client_table_count(struct client_table *table)
{
        return atomic_load(&table->living);
}

static void *watcher_thread(void *data)
{
        struct client_table *table = data;
        struct epoll_event events[EVENTS];
        eventfd_t wakes;

        for (;;) {
                int n = epoll_wait(table->epoll_fd, events, EVENTS, -1);

                for (int i = 0; i < n; i++) {
                        struct client *client;

                        if (events[i].data.u64 == ID_NONE) {
                                eventfd_read(table->wake_fd, &wakes);
                                if (atomic_load(&table->stopping))
                                        return NULL;
                                client_resume_settle(table);
                                continue;
                        }
                        client = id_table_get_ref(table->ids, events[i].data.u64, client_try_ref);
                        if (client) {
                                client_end(client);
                                client_unref(client);
                        }
                }
        }
}

static int start_watcher(struct client_table *table)
{
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = ID_NONE};
        int r;

        if (epoll_ctl(table->epoll_fd, EPOLL_CTL_ADD, table->wake_fd, &event) < 0)
                return -errno;
        r = own_thread_start(&table->watcher, "k42-clients", watcher_thread, table);
        table->watching = r == 0;
        return r;
}

int client_table_new(client_notice_fn appeared, client_notice_fn exited, void *data,
                     struct keep *keep, struct client_table **ret_table)
{
        static const struct client_info nobody = {.pid = 0};
        struct client_table *table = calloc(1, sizeof *table);
        int r = 0;

        if (!table)
                return -ENOMEM;
        g_mutex_init(&table->create_lock);
        g_mutex_init(&table->lock);
        table->appeared = appeared;
        table->exited = exited;
        table->data = data;
        table->keep = keep;
        table->proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
        table->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        table->wake_fd = eventfd(0, EFD_CLOEXEC);
        if (table->proc_fd < 0 || table->epoll_fd < 0 || table->wake_fd < 0)
                r = -errno;
        table->ids = id_table_new(1, CLIENTS_MAX);
        if (r == 0 && !table->ids)
                r = -ENOMEM;
        if (r == 0)
                r = make_with_record(table, &nobody, -1, &table->nobody);
        if (r == 0)
                keep_ids(table->ids, keep, KEEP_WORD_CLIENT_IDS);
        if (r == 0)
                r = start_watcher(table);
        if (r < 0) {
                client_table_free(table);
                return r;
        }
        *ret_table = table;
        return 0;
}

void client_table_stop(struct client_table *table)
{
        if (!table->watching)
                return;
        atomic_store(&table->stopping, true);
        eventfd_write(table->wake_fd, 1);
        pthread_join(table->watcher, NULL);
        table->watching = false;
}

void client_table_free(struct client_table *table)
{
        struct client *client;
        uint32_t cursor = 0;

        if (!table)
                return;
        client_table_stop(table);
        client_resume_clear(table);
        while (table->ids && (client = id_table_next_ref(table->ids, &cursor, client_try_ref))) {
                client_end(client);
                client_unref(client);
        }
        client_unref(table->nobody);
        id_table_unref(table->ids);
        if (table->proc_fd >= 0)
                close(table->proc_fd);
        if (table->epoll_fd >= 0)
                close(table->epoll_fd);
        if (table->wake_fd >= 0)
                close(table->wake_fd);
        g_mutex_clear(&table->create_lock);
        g_mutex_clear(&table->lock);
        free(table);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The list of files is short and searched from end to end; `n_files` tells without the lock that there is
 * nothing to search.
 */
#include "fusefs/control/blocked.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fusefs/node/node_table.h"
#include "fusefs/state_dir.h"
#include "lazy/process_limits.h"
#include "lazy/rights.h"

#define FILE_NAME "blocked"
#define FILE_NEW  "blocked.new"
#define HEADING   "k42fs blocked 1"

struct identity {
        uint64_t dev, ino;
        int64_t btime;
};

struct blocked {
        struct k42_mount *mount; /* constant */
        atomic_uint n_files;
        GMutex lock; /* protects what follows, and the order of the files that are written */
        struct identity *files;
        unsigned room;
};

/* ---- files ---- */

static struct identity identity_of(const struct fs_stat *st)
{
        return (struct identity){st->st.st_dev, st->st.st_ino, st->btime};
}

/* Where there is no birth time the numbers have to do. */
static bool same(const struct identity *a, const struct identity *b)
{
        return a->dev == b->dev && a->ino == b->ino &&
               (a->btime == b->btime || a->btime == FS_BTIME_UNKNOWN ||
                b->btime == FS_BTIME_UNKNOWN);
}

static int locked_find(struct blocked *blocked, const struct identity *identity)
{
        const unsigned n = atomic_load(&blocked->n_files);

        for (unsigned i = 0; i < n; i++)
                if (same(&blocked->files[i], identity))
                        return (int)i;
        return -ENOENT;
}

static int locked_add(struct blocked *blocked, const struct identity *identity)
{
        const unsigned n = atomic_load(&blocked->n_files);

        if (locked_find(blocked, identity) >= 0)
                return 0;
        if (n == blocked->room) {
                const unsigned room = n ? 2 * n : 8;
                struct identity *files = reallocarray(blocked->files, room, sizeof *files);

                if (!files)
                        return -ENOMEM;
                blocked->files = files;
                blocked->room = room;
        }
        blocked->files[n] = *identity;
        atomic_store(&blocked->n_files, n + 1);
        return 0;
}

int blocked_add_file(struct blocked *blocked, const struct fs_stat *st)
{
        const struct identity identity = identity_of(st);
        int r;

        g_mutex_lock(&blocked->lock);
        r = locked_add(blocked, &identity);
        g_mutex_unlock(&blocked->lock);
        return r;
}

int blocked_allow_file(struct blocked *blocked, const struct fs_stat *st)
{
        const struct identity identity = identity_of(st);
        int at;

        g_mutex_lock(&blocked->lock);
        at = locked_find(blocked, &identity);
        if (at >= 0) {
                const unsigned n = atomic_load(&blocked->n_files) - 1;

                blocked->files[at] = blocked->files[n];
                atomic_store(&blocked->n_files, n);
        }
        g_mutex_unlock(&blocked->lock);
        return MIN(at, 0);
}

static bool file_is_blocked(struct blocked *blocked, struct server_file *file)
{
        struct identity identity = {file->kept->dev, file->kept->ino, FS_BTIME_UNKNOWN};
        struct node_shard *shard;
        bool found;

        if (atomic_load(&blocked->n_files) == 0)
                return false;
        shard = node_table_shard(file->table, file->kept->dev, file->kept->ino);
        g_mutex_lock(&shard->lock);
        identity.btime = file->kept->btime;
        g_mutex_unlock(&shard->lock);
        g_mutex_lock(&blocked->lock);
        found = locked_find(blocked, &identity) >= 0;
        g_mutex_unlock(&blocked->lock);
        return found;
}

/* The caller is a thread; who is gone opens nothing. */
static bool process_is_blocked(struct k42_mount *mount, pid_t tid)
{
        struct process_limits *limits = lazy_limits(mount->lazy);
        g_autoptr(K42Client) client = NULL;

        if (process_limits_empty(limits) ||
            client_table_get(cobj_clients(mount->cobj), tid, &client) < 0)
                return false;
        return process_limits_blocked(limits, client_info(client)->pid);
}

int blocked_may_open(fuse_req_t req, struct server_file *file)
{
        struct k42_mount *mount = k42_mount_of(req);

        if (file_is_blocked(mount->blocked, file) ||
            process_is_blocked(mount, fuse_req_ctx(req)->pid))
                return -EACCES;
        return server_file_has(file, NODE_WITHDRAWN) ? -ESTALE : 0;
}

/* ---- writing ---- */

static void write_limit(const struct process_limit *limit, void *data)
{
        fprintf(data, "process %d %" PRIu64 " %u %" PRId64 " %u %d\n", (int)limit->pid,
                limit->start_time, limit->rights, limit->before, limit->inherit,
                (int)limit->blocked_by);
}

static void locked_write(struct blocked *blocked, FILE *to)
{
        const unsigned n = atomic_load(&blocked->n_files);

        fputs(HEADING "\n", to);
        for (unsigned i = 0; i < n; i++) {
                const struct identity *file = &blocked->files[i];

                fprintf(to, "file %" PRIu64 " %" PRIu64 " ", file->dev, file->ino);
                if (file->btime == FS_BTIME_UNKNOWN)
                        fputs("-\n", to);
                else
                        fprintf(to, "%" PRId64 "\n", file->btime);
        }
        process_limits_foreach(lazy_limits(blocked->mount->lazy), write_limit, to);
}

static int locked_save(struct blocked *blocked)
{
        const int dir = state_dir_fd(blocked->mount->state_dir);
        int fd = openat(dir, FILE_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        FILE *to = fd < 0 ? NULL : fdopen(fd, "w");
        int r = 0;

        if (!to) {
                r = -errno;
                if (fd >= 0)
                        close(fd);
                return r;
        }
        locked_write(blocked, to);
        if (fflush(to) != 0 || ferror(to))
                r = -EIO;
        if (fclose(to) != 0 && r == 0)
                r = -errno;
        if (r == 0 && renameat(dir, FILE_NEW, dir, FILE_NAME) < 0)
                r = -errno;
        if (r < 0)
                unlinkat(dir, FILE_NEW, 0);
        return r;
}

int blocked_save(struct blocked *blocked)
{
        int r;

        g_mutex_lock(&blocked->lock);
        r = locked_save(blocked);
        g_mutex_unlock(&blocked->lock);
        if (r < 0)
                g_warning("%s/" FILE_NAME ": cannot be written, it will not survive the daemon: %s",
                          state_dir_path(blocked->mount->state_dir), g_strerror(-r));
        return r;
}

/* ---- reading ---- */

static bool read_file_line(struct blocked *blocked, const char *text)
{
        struct identity file;
        char btime[32];
        int end = 0;

        if (sscanf(text, "%" SCNu64 " %" SCNu64 " %31s%n", &file.dev, &file.ino, btime, &end) != 3 ||
            text[end] != '\0')
                return false;
        file.btime = FS_BTIME_UNKNOWN;
        if (strcmp(btime, "-") != 0 &&
            !g_ascii_string_to_signed(btime, 10, INT64_MIN, INT64_MAX, &file.btime, NULL))
                return false;
        return locked_add(blocked, &file) == 0;
}

static bool read_process_line(struct k42_mount *mount, const char *text)
{
        struct process_limit limit = {0};
        uint64_t start_time;
        pid_t ppid;
        int pid, blocked_by, end = 0;

        if (sscanf(text, "%d %" SCNu64 " %u %" SCNd64 " %u %d%n", &pid, &limit.start_time,
                   &limit.rights, &limit.before, &limit.inherit, &blocked_by, &end) != 6 ||
            text[end] != '\0' || pid <= 0 || limit.start_time == 0 || blocked_by < 0)
                return false;
        if (process_parent(pid, &ppid, &start_time) < 0 || start_time != limit.start_time)
                return true; /* it has ended */
        limit.pid = pid;
        limit.blocked_by = blocked_by;
        if (limit.before != 0)
                lazy_guard_all(mount->lazy);
        return process_limits_add(lazy_limits(mount->lazy), &limit) == 0;
}

static bool read_line(struct blocked *blocked, const char *line)
{
        if (g_str_has_prefix(line, "file "))
                return read_file_line(blocked, line + strlen("file "));
        if (g_str_has_prefix(line, "process "))
                return read_process_line(blocked->mount, line + strlen("process "));
        return false;
}

static void load(struct blocked *blocked)
{
        const struct state_dir *dir = blocked->mount->state_dir;
        const int fd = openat(state_dir_fd(dir), FILE_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        FILE *from = fd < 0 ? NULL : fdopen(fd, "r");
        char *line = NULL;
        size_t room = 0;
        ssize_t n;
        unsigned bad = 0;

        if (!from) {
                if (fd >= 0)
                        close(fd);
                if (errno != ENOENT)
                        g_warning("%s/" FILE_NAME ": cannot be read: %s", state_dir_path(dir),
                                  g_strerror(errno));
                return;
        }
        for (unsigned i = 0; (n = getline(&line, &room, from)) > 0; i++) {
                if (line[n - 1] == '\n')
                        line[n - 1] = '\0';
                if (i == 0 && strcmp(line, HEADING) != 0) {
                        g_warning("%s/" FILE_NAME ": is of another version and not used",
                                  state_dir_path(dir));
                        break;
                }
                if (i > 0 && !read_line(blocked, line))
                        bad++;
        }
        if (bad > 0)
                g_warning("%s/" FILE_NAME ": %u lines make no sense and are ignored",
                          state_dir_path(dir), bad);
        free(line);
        fclose(from);
}

int blocked_new(struct k42_mount *mount, struct blocked **ret_blocked)
{
        struct blocked *blocked = calloc(1, sizeof *blocked);

        if (!blocked)
                return -ENOMEM;
        blocked->mount = mount;
        g_mutex_init(&blocked->lock);
        lazy_guard_resumed(mount->lazy);
        load(blocked);
        *ret_blocked = blocked;
        return 0;
}

void blocked_free(struct blocked *blocked)
{
        if (!blocked)
                return;
        g_mutex_clear(&blocked->lock);
        free(blocked->files);
        free(blocked);
}

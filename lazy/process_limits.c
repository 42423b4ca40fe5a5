/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A short array: it has an entry for each process that something was taken from, or that descends
 * from one and was seen.  `count` is read without the lock, everything else under it.
 */
#include "lazy/process_limits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How far up the process tree limits are looked for. */
#define ANCESTORS_MAX 64

struct process_limits {
        atomic_uint count;
        GMutex lock;
        struct process_limit *all;
        unsigned room;
};

struct process_limits *process_limits_new(void)
{
        struct process_limits *limits = calloc(1, sizeof *limits);

        if (limits)
                g_mutex_init(&limits->lock);
        return limits;
}

void process_limits_free(struct process_limits *limits)
{
        if (!limits)
                return;
        g_mutex_clear(&limits->lock);
        free(limits->all);
        free(limits);
}

int process_parent(pid_t pid, pid_t *ret_ppid, uint64_t *ret_start_time)
{
        char path[32], text[1024];
        const char *after_comm;
        unsigned long long start;
        ssize_t n;
        int fd, ppid;

        snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -ESRCH;
        n = read(fd, text, sizeof text - 1);
        close(fd);
        if (n <= 0)
                return -ESRCH;
        text[n] = '\0';
        after_comm = strrchr(text, ')'); /* a command's name may contain anything */
        if (!after_comm ||
            sscanf(after_comm,
                   ") %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d "
                   "%llu",
                   &ppid, &start) != 2)
                return -ESRCH;
        *ret_ppid = ppid;
        *ret_start_time = start;
        return 0;
}

static struct process_limit *locked_find(struct process_limits *limits, pid_t pid,
                                         uint64_t start_time)
{
        for (unsigned i = 0; i < atomic_load(&limits->count); i++) {
                struct process_limit *limit = &limits->all[i];

                if (limit->pid == pid && limit->start_time == start_time)
                        return limit;
        }
        return NULL;
}

static void locked_drop_dead(struct process_limits *limits)
{
        unsigned kept = 0, count = atomic_load(&limits->count);

        for (unsigned i = 0; i < count; i++) {
                uint64_t start_time;
                pid_t ppid;

                if (process_parent(limits->all[i].pid, &ppid, &start_time) == 0 &&
                    start_time == limits->all[i].start_time)
                        limits->all[kept++] = limits->all[i];
        }
        atomic_store(&limits->count, kept);
}

/* The entry of the process, made if there is none; NULL if out of memory. */
static struct process_limit *locked_entry(struct process_limits *limits, pid_t pid,
                                          uint64_t start_time)
{
        struct process_limit *limit = locked_find(limits, pid, start_time);
        unsigned count = atomic_load(&limits->count);

        if (limit)
                return limit;
        if (count == limits->room) {
                locked_drop_dead(limits);
                count = atomic_load(&limits->count);
        }
        if (count == limits->room) {
                const unsigned room = limits->room ? 2 * limits->room : 8;
                struct process_limit *all = reallocarray(limits->all, room, sizeof *all);

                if (!all)
                        return NULL;
                limits->all = all;
                limits->room = room;
        }
        limits->all[count] = (struct process_limit){
                .pid = pid,
                .start_time = start_time,
                .rights = RIGHTS_ALL,
                .inherit = RIGHTS_ALL,
        };
        atomic_store(&limits->count, count + 1);
        return &limits->all[count];
}

/* What was limited once stays so: a later limit of fewer descriptions takes nothing back. */
static void tighten(struct process_limit *limit, const struct process_limit *by)
{
        if (by->before != 0) {
                limit->rights &= by->rights;
                limit->before = MAX(limit->before, by->before);
        }
        limit->inherit &= by->inherit;
        if (by->blocked_by != 0)
                limit->blocked_by = by->blocked_by;
}

int process_limits_add(struct process_limits *limits, const struct process_limit *by)
{
        uint64_t start_time = by->start_time;
        struct process_limit *limit;
        pid_t ppid;
        int r = start_time ? 0 : process_parent(by->pid, &ppid, &start_time);

        if (r < 0)
                return r;
        g_mutex_lock(&limits->lock);
        limit = locked_entry(limits, by->pid, start_time);
        if (limit)
                tighten(limit, by);
        g_mutex_unlock(&limits->lock);
        return limit ? 0 : -ENOMEM;
}

bool process_limits_empty(struct process_limits *limits)
{
        return atomic_load(&limits->count) == 0;
}

bool process_limits_allow(struct process_limits *limits, pid_t pid)
{
        bool was = false;

        g_mutex_lock(&limits->lock);
        for (unsigned i = 0; i < atomic_load(&limits->count); i++) {
                struct process_limit *limit = &limits->all[i];

                if (limit->blocked_by == pid) {
                        limit->blocked_by = 0;
                        was = true;
                }
        }
        g_mutex_unlock(&limits->lock);
        return was;
}

/* The entry of the process that has this id now, as a copy; false if it has none. */
static bool find(struct process_limits *limits, pid_t pid, uint64_t start_time,
                 struct process_limit *ret_limit)
{
        const struct process_limit *limit;

        g_mutex_lock(&limits->lock);
        limit = locked_find(limits, pid, start_time);
        if (limit)
                *ret_limit = *limit;
        g_mutex_unlock(&limits->lock);
        return limit != NULL;
}

static bool knows(struct process_limits *limits, pid_t pid)
{
        bool known = false;

        if (atomic_load(&limits->count) == 0)
                return false;
        g_mutex_lock(&limits->lock);
        for (unsigned i = 0; i < atomic_load(&limits->count) && !known; i++)
                known = limits->all[i].pid == pid;
        g_mutex_unlock(&limits->lock);
        return known;
}

access_rights process_limits_rights(struct process_limits *limits, pid_t pid, int64_t opened)
{
        struct process_limit limit;
        uint64_t start_time;
        pid_t ppid;

        if (!knows(limits, pid) || process_parent(pid, &ppid, &start_time) < 0 ||
            !find(limits, pid, start_time, &limit))
                return RIGHTS_ALL;
        return opened <= limit.before ? limit.rights : RIGHTS_ALL;
}

/* What is inherited, of the process and its ancestors together. */
static void sum_up(struct process_limits *limits, pid_t pid, struct process_limit *ret_sum)
{
        bool inherited = false;

        *ret_sum = (struct process_limit){.pid = pid, .rights = RIGHTS_ALL, .inherit = RIGHTS_ALL};
        if (atomic_load(&limits->count) == 0)
                return;
        for (int i = 0; i < ANCESTORS_MAX && pid > 0; i++) {
                struct process_limit limit;
                uint64_t start_time;
                pid_t ppid;

                if (process_parent(pid, &ppid, &start_time) < 0)
                        break;
                if (i == 0)
                        ret_sum->start_time = start_time;
                if (find(limits, pid, start_time, &limit)) {
                        ret_sum->inherit &= limit.inherit;
                        if (ret_sum->blocked_by == 0)
                                ret_sum->blocked_by = limit.blocked_by;
                        inherited |= i > 0 && (limit.inherit != RIGHTS_ALL || limit.blocked_by);
                }
                pid = ppid;
        }
        if (inherited)
                process_limits_add(limits, ret_sum);
}

access_rights process_limits_inherit(struct process_limits *limits, pid_t pid)
{
        struct process_limit sum;

        sum_up(limits, pid, &sum);
        return sum.inherit;
}

bool process_limits_blocked(struct process_limits *limits, pid_t pid)
{
        struct process_limit sum;

        sum_up(limits, pid, &sum);
        return sum.blocked_by != 0;
}

void process_limits_foreach(struct process_limits *limits,
                            void (*fn)(const struct process_limit *limit, void *data), void *data)
{
        g_mutex_lock(&limits->lock);
        for (unsigned i = 0; i < atomic_load(&limits->count); i++)
                fn(&limits->all[i], data);
        g_mutex_unlock(&limits->lock);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a handle in use is never ended.
 *
 * The list of handles is taken before the processes are looked at, so a handle that is given later
 * is not in question.  One that was given before may belong to an open(2) that has not returned:
 * the handle is there before the descriptor is.  So an opener's handle is not ended before it is
 * OPENER_AGE_US old, counted to the beginning of the look that finds no descriptor.  (The handle of
 * a lazy re-open needs no such grace: the descriptor was there first.)  And a process may move a
 * descriptor around while its directory in /proc is read, so that several looks must agree.
 *
 * `round_lock` serialises the rounds; `started` and `finished` under `counter_lock` let callers
 * share one.  No lock of the daemon is held while /proc is read.
 */
#include "fusefs/control/reconcile.h"
#include "lazy/account.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/types.h>

#include "cobj/client.h"
#include "fusefs/node/node.h"
#include "fusefs/control/proc_files.h"

#define AGREEING_LOOKS   5
#define BETWEEN_LOOKS_US (3 * G_TIME_SPAN_MILLISECOND)
#define BETWEEN_MORE_US  (25 * G_TIME_SPAN_MILLISECOND)
#define OPENER_AGE_US    (250 * G_TIME_SPAN_MILLISECOND)

struct suspect {
        xhandle token;
        pid_t pid;
        uint64_t ino;
        int64_t opened;
        unsigned access_mode;
        bool opener;
        bool alive; /* for keep_living() */
};

struct suspects {
        struct suspect *all;
        size_t n, room;
        bool failed;
};

static GMutex round_lock;
static GMutex counter_lock;
static uint64_t started, finished; /* rounds; under counter_lock */

static void collect(struct xobj *xobj, void *data)
{
        struct suspects *suspects = data;
        const struct kept_handle *kept = xobj_client_data(xobj)->kept;
        const struct client *client = xobj_client(xobj);
        struct suspect *suspect;
        dev_t dev;
        ino_t ino;

        if (suspects->failed || client_info(client)->pid <= 0 || !client_alive(client))
                return;
        if (suspects->n == suspects->room) {
                size_t room = suspects->room ? suspects->room * 2 : 256;
                struct suspect *all = reallocarray(suspects->all, room, sizeof(*all));

                if (!all) {
                        suspects->failed = true;
                        return;
                }
                suspects->all = all;
                suspects->room = room;
        }
        node_identity(xobj_object(xobj), &dev, &ino);
        suspect = &suspects->all[suspects->n++];
        *suspect = (struct suspect){
                .token = xobj_token(xobj),
                .pid = client_info(client)->pid,
                .ino = ino,
                .opened = kept->opened,
                .access_mode = (unsigned)kept->flags & O_ACCMODE,
                .opener = kept->parent == XHANDLE_NONE,
        };
}

static int compare_place(const void *a, const void *b)
{
        const struct suspect *x = a, *y = b;

        if (x->pid != y->pid)
                return x->pid < y->pid ? -1 : 1;
        return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static int compare_token(const void *a, const void *b)
{
        const struct suspect *x = a, *y = b;

        return x->token < y->token ? -1 : x->token > y->token;
}

/* Looks at one process, whose `n` suspects are sorted by ino.  Moves those that it has not open to
 * the front; how many. */
static size_t look_at(struct proc_mounts *mounts, dev_t dev, struct suspect *suspects, size_t n)
{
        struct proc_want *want = calloc(n, sizeof(*want));
        size_t n_want = 0, kept = 0, w = 0;

        if (!want)
                return 0;
        for (size_t i = 0; i < n; i++) {
                if (i == 0 || suspects[i].ino != suspects[i - 1].ino)
                        want[n_want++].ino = suspects[i].ino;
                want[n_want - 1].modes |= 1u << suspects[i].access_mode;
        }
        if (proc_files_look(mounts, suspects[0].pid, dev, want, n_want) < 0)
                n = 0;
        for (size_t i = 0; i < n; i++) {
                while (want[w].ino != suspects[i].ino)
                        w++;
                if (!want[w].mapped && want[w].descriptors[suspects[i].access_mode] == 0)
                        suspects[kept++] = suspects[i];
        }
        free(want);
        return kept;
}

/* Keeps those whose process has them neither open nor mapped. */
static void look(struct k42_mount *mount, struct suspects *suspects)
{
        g_auto(K42ProcMounts) mounts = {NULL};
        size_t kept = 0, next;

        qsort(suspects->all, suspects->n, sizeof(*suspects->all), compare_place);
        for (size_t i = 0; i < suspects->n; i = next) {
                struct suspect *group = &suspects->all[i];
                size_t found;

                for (next = i + 1; next < suspects->n; next++)
                        if (suspects->all[next].pid != group->pid)
                                break;
                found = look_at(&mounts, mount->dev, group, next - i);
                for (size_t j = 0; j < found; j++)
                        suspects->all[kept++] = group[j];
        }
        suspects->n = kept;
}

static void mark_living(struct xobj *xobj, void *data)
{
        struct suspects *suspects = data;
        struct suspect key = {.token = xobj_token(xobj)}, *found;

        found = bsearch(&key, suspects->all, suspects->n, sizeof(key), compare_token);
        if (found)
                found->alive = true;
}

/* A RELEASE on its way may have come in: those are no suspects any more. */
static void keep_living(struct k42_mount *mount, struct suspects *suspects)
{
        size_t kept = 0;

        qsort(suspects->all, suspects->n, sizeof(*suspects->all), compare_token);
        for (size_t i = 0; i < suspects->n; i++)
                suspects->all[i].alive = false;
        cobj_foreach_handle(mount->cobj, mark_living, suspects);
        for (size_t i = 0; i < suspects->n; i++)
                if (suspects->all[i].alive)
                        suspects->all[kept++] = suspects->all[i];
        suspects->n = kept;
}

/* Ends those that were old enough at `looked`; the others stay suspects. */
static void end_old(struct k42_mount *mount, struct suspects *suspects, int64_t looked)
{
        size_t kept = 0;

        for (size_t i = 0; i < suspects->n; i++) {
                struct suspect *suspect = &suspects->all[i];
                int64_t age = looked - suspect->opened;

                /* a clock that was set back must not keep a handle for ever */
                if (suspect->opener && age >= 0 && age < OPENER_AGE_US)
                        suspects->all[kept++] = *suspect;
                else
                        xobj_free(mount->cobj, suspect->token);
        }
        suspects->n = kept;
}

static void one_round(struct k42_mount *mount)
{
        struct suspects suspects = {0};
        int64_t looked, deadline;
        unsigned looks = 1;

        account_collect(mount->lazy);
        client_table_sweep(cobj_clients(mount->cobj));
        if (mount->dev == 0)
                return;
        cobj_foreach_handle(mount->cobj, collect, &suspects);
        if (suspects.failed)
                suspects.n = 0;
        if (suspects.n > 0)
                look(mount, &suspects);
        deadline = g_get_monotonic_time() + OPENER_AGE_US + BETWEEN_MORE_US;
        while (suspects.n > 0 && g_get_monotonic_time() < deadline) {
                g_usleep(looks < AGREEING_LOOKS ? BETWEEN_LOOKS_US : BETWEEN_MORE_US);
                keep_living(mount, &suspects);
                if (suspects.n == 0)
                        break;
                looked = g_get_real_time();
                look(mount, &suspects);
                if (++looks >= AGREEING_LOOKS)
                        end_old(mount, &suspects, looked);
        }
        free(suspects.all);
}

void reconcile_handles(struct k42_mount *mount)
{
        uint64_t needed;

        /* a round that begins after this moment will do */
        g_mutex_lock(&counter_lock);
        needed = started + 1;
        g_mutex_unlock(&counter_lock);

        g_mutex_lock(&round_lock);
        g_mutex_lock(&counter_lock);
        if (finished >= needed) {
                g_mutex_unlock(&counter_lock);
                g_mutex_unlock(&round_lock);
                return;
        }
        started++;
        g_mutex_unlock(&counter_lock);
        one_round(mount);
        g_mutex_lock(&counter_lock);
        finished = started;
        g_mutex_unlock(&counter_lock);
        g_mutex_unlock(&round_lock);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One lock protects both queues, `end` and `n_ended`.  A task is in one of the queues, or with the
 * thread that works on it, or its owner's.
 */
#include "fusefs/control/control_pool.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct control_pool {
        void (*work)(void *task, void *data); /* constant */
        void *data;                           /* constant */
        int fd;                               /* constant */
        GMutex lock;
        GCond wake;
        GQueue waiting, done; /* under lock */
        bool end;             /* under lock */
        unsigned n_ended;     /* threads that have left work() for good; under lock */
        GThread **threads;    /* the owner's */
        unsigned n_threads;
};

static void *pool_thread(void *data)
{
        struct control_pool *pool = data;
        const uint64_t one = 1;
        GList *link;

        g_mutex_lock(&pool->lock);
        while (!pool->end) {
                link = g_queue_pop_head_link(&pool->waiting);
                if (!link) {
                        g_cond_wait(&pool->wake, &pool->lock);
                        continue;
                }
                g_mutex_unlock(&pool->lock);
                pool->work(link->data, pool->data);
                g_mutex_lock(&pool->lock);
                g_queue_push_tail_link(&pool->done, link);
                if (write(pool->fd, &one, sizeof(one)) < 0) /* only when it counts 2^64 already */
                        g_debug("control: eventfd: %s", g_strerror(errno));
        }
        pool->n_ended++;
        g_cond_broadcast(&pool->wake);
        g_mutex_unlock(&pool->lock);
        return NULL;
}

int control_pool_new(unsigned threads, void (*work)(void *task, void *data), void *data,
                     struct control_pool **ret_pool)
{
        struct control_pool *pool = g_new0(struct control_pool, 1);
        int r = 0;

        pool->work = work;
        pool->data = data;
        g_mutex_init(&pool->lock);
        g_cond_init(&pool->wake);
        g_queue_init(&pool->waiting);
        g_queue_init(&pool->done);
        pool->threads = g_new0(GThread *, threads);
        pool->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (pool->fd < 0)
                r = -errno;
        while (r == 0 && pool->n_threads < threads) {
                pool->threads[pool->n_threads] =
                        g_thread_try_new("k42-control", pool_thread, pool, NULL);
                if (pool->threads[pool->n_threads])
                        pool->n_threads++;
                else
                        r = -EAGAIN;
        }
        if (r < 0) {
                control_pool_free(pool);
                return r;
        }
        *ret_pool = pool;
        return 0;
}

bool control_pool_end(struct control_pool *pool, int64_t timeout_us)
{
        const int64_t deadline = g_get_monotonic_time() + timeout_us;
        bool ended;

        g_mutex_lock(&pool->lock);
        pool->end = true;
        g_cond_broadcast(&pool->wake);
        while (pool->n_ended < pool->n_threads &&
               g_cond_wait_until(&pool->wake, &pool->lock, deadline))
                ;
        ended = pool->n_ended == pool->n_threads;
        g_mutex_unlock(&pool->lock);
        return ended;
}

void control_pool_free(struct control_pool *pool)
{
        if (!pool)
                return;
        g_mutex_lock(&pool->lock);
        pool->end = true;
        g_cond_broadcast(&pool->wake);
        g_mutex_unlock(&pool->lock);
        for (unsigned i = 0; i < pool->n_threads; i++)
                g_thread_join(pool->threads[i]);
        if (pool->fd >= 0)
                close(pool->fd);
        g_cond_clear(&pool->wake);
        g_mutex_clear(&pool->lock);
        g_free(pool->threads);
        g_free(pool);
}

void control_pool_push(struct control_pool *pool, GList *link)
{
        g_mutex_lock(&pool->lock);
        g_queue_push_tail_link(&pool->waiting, link);
        g_cond_signal(&pool->wake);
        g_mutex_unlock(&pool->lock);
}

int control_pool_fd(struct control_pool *pool)
{
        return pool->fd;
}

GList *control_pool_take_done(struct control_pool *pool)
{
        uint64_t count;
        GList *link;

        g_mutex_lock(&pool->lock);
        link = g_queue_pop_head_link(&pool->done);
        if (!pool->done.head && read(pool->fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
                g_debug("control: eventfd: %s", g_strerror(errno));
        g_mutex_unlock(&pool->lock);
        return link;
}

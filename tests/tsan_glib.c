/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * GLib's mutexes and conditions for ThreadSanitizer.
 *
 * Debian's libglib is not instrumented and makes its locks of futexes, so TSan would not see that they
 * order anything.  In builds with -Db_sanitize=thread these definitions take the place of GLib's for
 * our own code; each GMutex holds a pthread mutex, which TSan knows.
 *
 * This file is not instrumented either, as what runs with the preload links it: so TSan is told of the one order
 * that is made here by an atomic operation, that who finds a lock finds it after it was made.
 */
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

/* Only in programs that have TSan. */
__attribute__((weak)) void __tsan_acquire(void *address);
__attribute__((weak)) void __tsan_release(void *address);

/* What is at `place`, or NULL. */
static void *find(void *place)
{
        void *there = g_atomic_pointer_get((void **)place);

        if (there && __tsan_acquire)
                __tsan_acquire(place);
        return there;
}

/* False if another thread was faster. */
static gboolean publish(void *place, void *made)
{
        if (__tsan_release)
                __tsan_release(place);
        return g_atomic_pointer_compare_and_exchange((void **)place, NULL, made);
}

static pthread_mutex_t *mutex_of(GMutex *mutex)
{
        pthread_mutex_t *made, *there = find(&mutex->p);

        if (there)
                return there;
        made = malloc(sizeof *made);
        if (!made)
                abort();
        pthread_mutex_init(made, NULL);
        if (publish(&mutex->p, made))
                return made;
        pthread_mutex_destroy(made);
        free(made);
        return find(&mutex->p);
}

static pthread_cond_t *cond_of(GCond *cond)
{
        pthread_cond_t *made, *there = find(&cond->p);
        pthread_condattr_t attr;

        if (there)
                return there;
        made = malloc(sizeof *made);
        if (!made)
                abort();
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(made, &attr);
        pthread_condattr_destroy(&attr);
        if (publish(&cond->p, made))
                return made;
        pthread_cond_destroy(made);
        free(made);
        return find(&cond->p);
}

void g_mutex_init(GMutex *mutex)
{
        mutex->p = NULL;
        mutex_of(mutex);
}

void g_mutex_clear(GMutex *mutex)
{
        pthread_mutex_t *there = mutex->p;

        if (there) {
                pthread_mutex_destroy(there);
                free(there);
                mutex->p = NULL;
        }
}

void g_mutex_lock(GMutex *mutex)
{
        pthread_mutex_lock(mutex_of(mutex));
}

gboolean g_mutex_trylock(GMutex *mutex)
{
        return pthread_mutex_trylock(mutex_of(mutex)) == 0;
}

void g_mutex_unlock(GMutex *mutex)
{
        pthread_mutex_unlock(mutex_of(mutex));
}

void g_cond_init(GCond *cond)
{
        cond->p = NULL;
}

void g_cond_clear(GCond *cond)
{
        pthread_cond_t *there = cond->p;

        if (there) {
                pthread_cond_destroy(there);
                free(there);
                cond->p = NULL;
        }
}

void g_cond_wait(GCond *cond, GMutex *mutex)
{
        pthread_cond_wait(cond_of(cond), mutex_of(mutex));
}

gboolean g_cond_wait_until(GCond *cond, GMutex *mutex, gint64 end_time)
{
        const struct timespec until = {
                .tv_sec = end_time / G_USEC_PER_SEC,
                .tv_nsec = end_time % G_USEC_PER_SEC * 1000,
        };

        return pthread_cond_timedwait(cond_of(cond), mutex_of(mutex), &until) != ETIMEDOUT;
}

void g_cond_signal(GCond *cond)
{
        pthread_cond_signal(cond_of(cond));
}

void g_cond_broadcast(GCond *cond)
{
        pthread_cond_broadcast(cond_of(cond));
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tsan_glib.c under ThreadSanitizer: two threads are the first to use the same lock and the same condition, and
 * nothing is reported.
 */
#include <glib.h>
#include <pthread.h>
#include <stdlib.h>

#define ROUNDS 2000

static GMutex mutexes[ROUNDS];
static GCond conds[ROUNDS];
static int numbers[ROUNDS]; /* each its mutex's */
static pthread_barrier_t barrier;

static void *use(void *data)
{
        for (unsigned i = 0; i < ROUNDS; i++) {
                pthread_barrier_wait(&barrier);
                g_cond_signal(&conds[i]);
                g_mutex_lock(&mutexes[i]);
                numbers[i]++;
                g_mutex_unlock(&mutexes[i]);
        }
        return NULL;
}

int main(void)
{
        pthread_t threads[2];

        pthread_barrier_init(&barrier, NULL, 2);
        for (unsigned i = 0; i < 2; i++)
                if (pthread_create(&threads[i], NULL, use, NULL) != 0)
                        abort();
        for (unsigned i = 0; i < 2; i++)
                pthread_join(threads[i], NULL);
        for (unsigned i = 0; i < ROUNDS; i++)
                if (numbers[i] != 2)
                        abort();
        pthread_barrier_destroy(&barrier);
        return 0;
}

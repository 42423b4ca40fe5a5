/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fusefs/worker/teller.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "cobj/own_thread.h"

struct teller {
        int fd; /* constant */
        pthread_t thread;
        pthread_mutex_t lock; /* everything below */
        pthread_cond_t changed;
        bool taken;              /* somebody's message is here until he has its result */
        const struct iovec *iov; /* NULL: nothing to do */
        int count;
        ssize_t result;
        bool own_files; /* the thread has its own table of descriptors */
        bool stopping;
};

/* Only `fd` stays.  That it fails is no error: it is the others that wait for us then. */
static void leave_files(int fd)
{
        if (unshare(CLONE_FILES) < 0)
                return;
        if (fd > 0)
                close_range(0, (unsigned)fd - 1, 0);
        close_range((unsigned)fd + 1, ~0U, 0);
}

static void *teller_thread(void *data)
{
        struct teller *teller = data;

        prctl(PR_SET_NAME, TELLER_NAME); /* once more: to be named by another thread can fail, and the holder needs it */
        leave_files(teller->fd);
        pthread_mutex_lock(&teller->lock);
        teller->own_files = true;
        pthread_cond_broadcast(&teller->changed);
        for (;;) {
                ssize_t n;

                while (!teller->iov && !teller->stopping)
                        pthread_cond_wait(&teller->changed, &teller->lock);
                if (!teller->iov)
                        break;
                pthread_mutex_unlock(&teller->lock);
                n = writev(teller->fd, teller->iov, teller->count);
                if (n < 0)
                        n = -errno;
                pthread_mutex_lock(&teller->lock);
                teller->result = n;
                teller->iov = NULL;
                pthread_cond_broadcast(&teller->changed);
        }
        pthread_mutex_unlock(&teller->lock);
        return NULL;
}

int teller_start(int fd, struct teller **ret_teller)
{
        struct teller *teller = calloc(1, sizeof *teller);
        int r;

        if (!teller)
                return -ENOMEM;
        teller->fd = fd;
        pthread_mutex_init(&teller->lock, NULL);
        pthread_cond_init(&teller->changed, NULL);
        r = own_thread_start(&teller->thread, TELLER_NAME, teller_thread, teller);
        if (r < 0) {
                free(teller);
                return r;
        }
        /* A descriptor that is opened meanwhile would stay open in its table for ever. */
        pthread_mutex_lock(&teller->lock);
        while (!teller->own_files)
                pthread_cond_wait(&teller->changed, &teller->lock);
        pthread_mutex_unlock(&teller->lock);
        *ret_teller = teller;
        return 0;
}

ssize_t teller_write(struct teller *teller, const struct iovec *iov, int count)
{
        ssize_t result;

        pthread_mutex_lock(&teller->lock);
        while (teller->taken)
                pthread_cond_wait(&teller->changed, &teller->lock);
        teller->taken = true;
        teller->iov = iov;
        teller->count = count;
        pthread_cond_broadcast(&teller->changed);
        while (teller->iov)
                pthread_cond_wait(&teller->changed, &teller->lock);
        result = teller->result;
        teller->taken = false;
        pthread_cond_broadcast(&teller->changed);
        pthread_mutex_unlock(&teller->lock);
        return result;
}

void teller_stop(struct teller *teller)
{
        if (!teller)
                return;
        pthread_mutex_lock(&teller->lock);
        teller->stopping = true;
        pthread_cond_broadcast(&teller->changed);
        pthread_mutex_unlock(&teller->lock);
        pthread_join(teller->thread, NULL);
        pthread_cond_destroy(&teller->changed);
        pthread_mutex_destroy(&teller->lock);
        free(teller);
}

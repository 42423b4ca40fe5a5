/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who owns what: the session owns the fuse_session (which owns this process's /dev/fuse descriptor
 * from channel_new() on) and the threads.  The request buffers belong to the threads.  The holder has
 * made the mount; its end, if it is for good, is the session's.
 *
 * The end: a thread's read of /dev/fuse fails with ENODEV when the mount is gone, which ends all
 * threads one after the other; the last one tells main.  session_stop() without that (SIGTERM)
 * takes the mount off lazily, so that nobody comes in any more, and then wakes the threads by a
 * signal, at a moment when they are between requests or waiting for one.  A thread that is in the
 * middle of a request finishes it; only a read of /dev/fuse is cut short (the signal's handler does
 * nothing, and SA_RESTART is not set).
 */
#include "fusefs/worker/session.h"

#include <errno.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "fusefs/worker/channel.h"
#include "fusefs/holder/link.h"
#include "fusefs/mount_point.h"
#include "fusefs/node/node.h"
#include "fusefs/resume/requests.h"
#include "fusefs/resume/resume.h"
#include "fusefs/worker/turns.h"

#define WAKE_SIGNAL    SIGUSR1
#define WAKE_EVERY_MS  5
#define STACK_SIZE     (256 * 1024)
#define RETRY_PAUSE_US 20000

struct session {
        struct k42_mount *mount;
        void (*ended)(void *data);
        void *data;
        struct fuse_session *se;
        pthread_t *threads;
        unsigned n_threads;
        atomic_uint running;
        atomic_bool stopping;
        atomic_bool served; /* a request has been answered */
        struct turns *turns;

        GMutex lock;
        GCond changed;
        bool ready; /* the kernel has taken the INIT reply; under lock */
        bool gone;  /* the last thread has ended; under lock */
};

static void wake_handler(int sig)
{
}

static void session_ready(void *data)
{
        struct session *session = data;

        g_mutex_lock(&session->lock);
        session->ready = true;
        g_cond_broadcast(&session->changed);
        g_mutex_unlock(&session->lock);
}

static bool session_over(void *data)
{
        struct session *session = data;

        return fuse_session_exited(session->se);
}

/* What waits for other processes, or for the disk, as a rule and not as the exception. */
static bool may_last(const struct fuse_buf *buf)
{
        switch (((const struct fuse_in_header *)buf->mem)->opcode) {
        case FUSE_SETLKW:
        case FUSE_FSYNC:
        case FUSE_FSYNCDIR:
        case FUSE_SYNCFS:
        case FUSE_FALLOCATE:
        case FUSE_COPY_FILE_RANGE:
        case FUSE_IOCTL:
                return true;
        default:
                return false;
        }
}

/* The holder wants to know whether this worker is good for anything. */
static void note_served(struct session *session)
{
        if (!atomic_load_explicit(&session->served, memory_order_relaxed) &&
            !atomic_exchange(&session->served, true))
                link_tell(session->mount->link, LINK_SERVED, -1);
}

/* One thread's life.  Errors of the device that pass (ENOMEM, EIO for a request that was lost) do
 * not end it. */
static void *session_thread(void *data)
{
        struct session *session = data;
        struct requests *requests = session->mount->requests;
        struct request *request = requests ? requests_take(requests) : NULL;
        struct fuse_buf buf = {.mem = request ? request_buffer(request) : NULL};
        struct turn turn = {0};

        request_set_current(request);
        while (!fuse_session_exited(session->se)) {
                int r;

                turns_wait(session->turns, &turn);
                r = fuse_session_receive_buf(session->se, &buf);
                turns_read(session->turns, &turn, r > 0 && may_last(&buf));
                if (r > 0) {
                        fuse_session_process_buf(session->se, &buf);
                        request_answered(request); /* what has no answer, too */
                        note_served(session);
                } else if (r < 0 && r != -EINTR && r != -EAGAIN)
                        g_usleep(RETRY_PAUSE_US);
                turns_served(session->turns, &turn);
        }
        request_set_current(NULL);
        if (request)
                requests_give_back(requests, request);
        else
                free(buf.mem);
        turns_leave(session->turns, &turn);
        if (atomic_fetch_sub(&session->running, 1) == 1) {
                g_mutex_lock(&session->lock);
                session->gone = true;
                g_cond_broadcast(&session->changed);
                g_mutex_unlock(&session->lock);
                if (!atomic_load(&session->stopping))
                        session->ended(session->data);
        }
        return NULL;
}

/* Signals are main's; the threads that are made in between take only the one that wakes them. */
static void block_signals(sigset_t *ret_before)
{
        struct sigaction action = {.sa_handler = wake_handler};
        sigset_t others;

        sigaction(WAKE_SIGNAL, &action, NULL);
        sigfillset(&others);
        sigdelset(&others, WAKE_SIGNAL);
        pthread_sigmask(SIG_BLOCK, &others, ret_before);
}

struct resuming {
        struct session *session;
        int r;
};

static void *resume_thread(void *data)
{
        struct resuming *resuming = data;

        resuming->r = resume_requests(resuming->session->mount, resuming->session->se);
        return NULL;
}

/* Has the resuming thread answered anything that came after INIT? */
static bool has_served(struct session *session)
{
        uint64_t n = 0;

        for (unsigned opcode = 0; opcode < CHANNEL_OPCODES; opcode++)
                if (opcode != FUSE_INIT)
                        n += channel_count(session->mount->channel, opcode);
        return n > 0;
}

/* Serves what the last daemon left, in a thread of its own, because serving changes a thread's
 * credentials. */
static int resume_session(struct session *session)
{
        struct resuming resuming = {.session = session};
        sigset_t before;
        pthread_t thread;
        int err;

        block_signals(&before);
        err = pthread_create(&thread, NULL, resume_thread, &resuming);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (err != 0)
                return -err;
        pthread_join(thread, NULL);
        if (resuming.r == 0 && has_served(session))
                note_served(session);
        return resuming.r;
}

static int start_threads(struct session *session, unsigned n)
{
        sigset_t before;
        pthread_attr_t attr;
        int err = 0;

        session->threads = calloc(n, sizeof *session->threads);
        if (!session->threads)
                return -ENOMEM;
        block_signals(&before);
        pthread_attr_init(&attr);
        pthread_attr_setstacksize(&attr, STACK_SIZE);
        /* All are counted before the first one can end. */
        atomic_store(&session->running, n);
        while (session->n_threads < n) {
                err = pthread_create(&session->threads[session->n_threads], &attr, session_thread,
                                     session);
                if (err != 0)
                        break;
                session->n_threads++;
        }
        if (err != 0)
                atomic_fetch_sub(&session->running, n - session->n_threads);
        pthread_attr_destroy(&attr);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        /* Fewer than asked for serve as well, as long as one can wait for another. */
        return session->n_threads >= 2 ? 0 : -err;
}

static void join_threads(struct session *session)
{
        if (session->turns)
                turns_stop(session->turns);
        for (unsigned i = 0; i < session->n_threads; i++) /* they end side by side */
                pthread_kill(session->threads[i], WAKE_SIGNAL);
        for (unsigned i = 0; i < session->n_threads; i++) {
                struct timespec until;

                for (;;) {
                        pthread_kill(session->threads[i], WAKE_SIGNAL);
                        clock_gettime(CLOCK_REALTIME, &until);
                        until.tv_nsec += WAKE_EVERY_MS * 1000000L;
                        if (until.tv_nsec >= 1000000000L) {
                                until.tv_nsec -= 1000000000L;
                                until.tv_sec++;
                        }
                        if (pthread_timedjoin_np(session->threads[i], NULL, &until) == 0)
                                break;
                }
        }
        session->n_threads = 0;
}

static int make_fuse_session(struct session *session)
{
        char *argv[] = {(char *)"k42fs", (char *)"-d", NULL};
        struct fuse_args args = FUSE_ARGS_INIT(session->mount->options.debug ? 2 : 1, argv);

        session->se = fuse_session_new(&args, &k42_ops, sizeof k42_ops, session->mount);
        fuse_opt_free_args(&args);
        if (!session->se) {
                g_warning("%s: libfuse refuses to make a session",
                          session->mount->options.mountpoint);
                return -EINVAL;
        }
        return 0;
}

static int connect_session(struct session *session)
{
        struct k42_mount *mount = session->mount;
        int r;

        r = channel_new(session->se, mount->fuse_fd, mount->io_class == IO_CLASS_FAST,
                        mount->requests, session_ready, session, &mount->channel);
        if (r < 0)
                g_warning("%s: libfuse refuses the channel: %s", mount->options.mountpoint,
                          g_strerror(-r));
        return r;
}

/* False if the mount ended before it answered. */
static bool wait_until_ready(struct session *session)
{
        bool ready;

        g_mutex_lock(&session->lock);
        while (!session->ready && !session->gone)
                g_cond_wait(&session->changed, &session->lock);
        ready = session->ready;
        g_mutex_unlock(&session->lock);
        return ready;
}

/* A mount that earlier workers have served is not ours to end: the holder starts another worker. */
static int start_failed(struct session *session, int r)
{
        if (!session->mount->resume || r == -ENODEV)
                session_stop(session);
        return r;
}

int session_start(struct k42_mount *mount, void (*ended)(void *data), void *data,
                  struct session **ret_session)
{
        struct session *session = calloc(1, sizeof *session);
        int r;

        if (!session)
                return -ENOMEM;
        session->mount = mount;
        session->ended = ended;
        session->data = data;
        g_mutex_init(&session->lock);
        g_cond_init(&session->changed);

        r = make_fuse_session(session);
        if (r == 0)
                r = connect_session(session);
        if (r == 0)
                r = turns_new(mount->fuse_fd, mount->options.busy_poll, session_over, session,
                              &session->turns);
        if (r == 0 && mount->resume && mount->requests)
                r = resume_session(session);
        if (r < 0)
                return start_failed(session, r);
        r = start_threads(session, mount->options.max_threads);
        if (r < 0) {
                g_warning("%s: cannot start threads: %s", mount->options.mountpoint,
                          g_strerror(-r));
                return start_failed(session, r);
        }
        if (!wait_until_ready(session)) {
                if (!mount->resume)
                        g_warning("%s: the kernel ended the mount before it was ready",
                                  mount->options.mountpoint);
                session_stop(session);
                return -ENODEV;
        }
        *ret_session = session;
        return 0;
}

void session_pause(struct session *session)
{
        atomic_store(&session->stopping, true);
        fuse_session_exit(session->se);
        join_threads(session);
}

void session_stop(struct session *session)
{
        struct k42_mount *mount;
        bool gone;

        if (!session)
                return;
        mount = session->mount;
        atomic_store(&session->stopping, true);
        g_mutex_lock(&session->lock);
        gone = session->gone;
        g_mutex_unlock(&session->lock);
        if (mount->channel)
                mount_point_unmount(mount->options.mountpoint, mount->dev, gone);
        if (session->se)
                fuse_session_exit(session->se);
        join_threads(session);
        if (mount->channel)
                channel_stop_telling(mount->channel);
        if (session->se)
                fuse_session_destroy(session->se); /* closes /dev/fuse, as the holder has, or will
                                                    * at our end: who is left gets ENOTCONN */
        channel_free(mount->channel);
        mount->channel = NULL;
        free(session->threads);
        g_cond_clear(&session->changed);
        g_mutex_clear(&session->lock);
        turns_free(session->turns);
        free(session);
}

unsigned session_connection(struct session *session)
{
        return minor(session->mount->dev);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whatever the clients do, each request is read once and soon: the kernel is a pipe of small
 * requests, the clients wait for their answer on one of their own. */
#include <errno.h>
#include <glib.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "fusefs/worker/turns.h"

#define THREADS     6
#define CLIENTS     4
#define SERIAL      20000
#define PATIENCE_MS 10000 /* then it was forgotten */
#define SLOW_US     200000

enum kind { QUICK, SLOW, MAY_LAST };

struct asked {
        guint8 client, kind;
};

static struct turns *turns;
static int requests[2], answers[CLIENTS][2];
static pthread_t threads[THREADS];
static atomic_bool ends;
static atomic_int ended, served;

static bool over(void *data)
{
        return atomic_load(&ends);
}

static void answer(struct asked asked)
{
        if (asked.kind != QUICK)
                g_usleep(SLOW_US);
        atomic_fetch_add(&served, 1);
        g_assert_cmpint(write(answers[asked.client][1], "", 1), ==, 1);
}

static void *serve(void *data)
{
        struct turn turn = {0};

        while (!atomic_load(&ends)) {
                struct asked asked;
                ssize_t n;

                turns_wait(turns, &turn);
                n = read(requests[0], &asked, sizeof asked);
                turns_read(turns, &turn, n > 0 && asked.kind == MAY_LAST);
                if (n > 0)
                        answer(asked);
                turns_served(turns, &turn);
        }
        turns_leave(turns, &turn);
        atomic_fetch_add(&ended, 1);
        return NULL;
}

static void wake(int sig)
{
}

static void begin(unsigned busy_poll)
{
        struct sigaction action = {.sa_handler = wake};

        sigaction(SIGUSR1, &action, NULL);
        atomic_store(&ends, false);
        atomic_store(&ended, 0);
        atomic_store(&served, 0);
        g_assert_no_errno(pipe(requests));
        for (int i = 0; i < CLIENTS; i++)
                g_assert_no_errno(pipe(answers[i]));
        g_assert_cmpint(turns_new(requests[0], busy_poll, over, NULL, &turns), ==, 0);
        for (int i = 0; i < THREADS; i++)
                g_assert_cmpint(pthread_create(&threads[i], NULL, serve, NULL), ==, 0);
}

/* As the session ends: by a signal for who reads or is parked. */
static void end(void)
{
        atomic_store(&ends, true);
        turns_stop(turns);
        for (int ms = 0; atomic_load(&ended) < THREADS && ms < PATIENCE_MS; ms += 5) {
                for (int i = 0; i < THREADS; i++)
                        pthread_kill(threads[i], SIGUSR1);
                g_usleep(5000);
        }
        g_assert_cmpint(atomic_load(&ended), ==, THREADS);
        for (int i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
        turns_free(turns);
        close(requests[0]);
        close(requests[1]);
        for (int i = 0; i < CLIENTS; i++) {
                close(answers[i][0]);
                close(answers[i][1]);
        }
}

static void ask(int client, enum kind kind)
{
        const struct asked asked = {(guint8)client, (guint8)kind};

        g_assert_cmpint(write(requests[1], &asked, sizeof asked), ==, sizeof asked);
}

/* How long the answer took, in milliseconds. */
static int await(int client)
{
        const gint64 before = g_get_monotonic_time();
        struct pollfd pfd = {.fd = answers[client][0], .events = POLLIN};
        char byte;

        g_assert_cmpint(poll(&pfd, 1, PATIENCE_MS), ==, 1);
        g_assert_cmpint(read(pfd.fd, &byte, 1), ==, 1);
        return (int)((g_get_monotonic_time() - before) / 1000);
}

static void one_after_the_other(gconstpointer busy_poll)
{
        GRand *chance = g_rand_new_with_seed(42);

        begin(GPOINTER_TO_UINT(busy_poll));
        for (int i = 0; i < SERIAL; i++) {
                ask(0, QUICK);
                await(0);
                if (i % 64 == 63) /* a think time around that of the poller's, or a rest */
                        g_usleep((gulong)g_rand_int_range(chance, 0,
                                                          i % 1024 == 1023 ? 40000 : 150));
        }
        end();
        g_assert_cmpint(atomic_load(&served), ==, SERIAL);
        g_rand_free(chance);
}

static void *client(void *data)
{
        const int me = GPOINTER_TO_INT(data);

        for (int i = 0; i < SERIAL / CLIENTS; i++) {
                ask(me, QUICK);
                await(me);
        }
        return NULL;
}

static void side_by_side(gconstpointer busy_poll)
{
        GThread *clients[CLIENTS];

        begin(GPOINTER_TO_UINT(busy_poll));
        for (int i = 0; i < CLIENTS; i++)
                clients[i] = g_thread_new("client", client, GINT_TO_POINTER(i));
        for (int i = 0; i < CLIENTS; i++)
                g_thread_join(clients[i]);
        end();
        g_assert_cmpint(atomic_load(&served), ==, SERIAL);
}

/* Nobody waits for somebody else's request, even where the poller has got it: for one that is known
 * to last because somebody else reads from then on, for others because the watch sees to it. */
static void nobody_waits_for(enum kind kind)
{
        int worst = 0;

        begin(50);
        for (int round = 0; round < 10; round++) {
                for (int i = 0; i < 2000; i++) { /* so that there is a poller */
                        ask(0, QUICK);
                        await(0);
                }
                ask(1, kind);
                for (int i = 0; i < 3; i++) {
                        int ms;

                        ask(2, QUICK);
                        ms = await(2);
                        worst = MAX(worst, ms);
                }
                await(1);
        }
        end();
        g_test_message("worst: %d ms", worst);
        g_assert_cmpint(worst, <, SLOW_US / 1000 / 2);
}

static void slow(void)
{
        nobody_waits_for(SLOW);
}

static void may_last(void)
{
        nobody_waits_for(MAY_LAST);
}

/* All threads but one are busy: there is nobody to wake, and the first one that is done goes on. */
static void all_busy(void)
{
        begin(50);
        for (int round = 0; round < 3; round++) {
                for (int i = 0; i < 500; i++) {
                        ask(0, QUICK);
                        await(0);
                }
                for (int i = 0; i < THREADS + 2; i++)
                        ask(1, i % 2 ? SLOW : MAY_LAST);
                for (int i = 0; i < 20; i++)
                        ask(2, QUICK);
                for (int i = 0; i < 20; i++)
                        await(2);
                for (int i = 0; i < THREADS + 2; i++)
                        await(1);
        }
        end();
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_data_func("/turns/one-after-the-other", GUINT_TO_POINTER(50),
                             one_after_the_other);
        g_test_add_data_func("/turns/one-after-the-other-no-poller", GUINT_TO_POINTER(0),
                             one_after_the_other);
        g_test_add_data_func("/turns/side-by-side", GUINT_TO_POINTER(50), side_by_side);
        g_test_add_data_func("/turns/side-by-side-no-poller", GUINT_TO_POINTER(0), side_by_side);
        g_test_add_func("/turns/slow", slow);
        g_test_add_func("/turns/may-last", may_last);
        g_test_add_func("/turns/all-busy", all_busy);
        return g_test_run();
}

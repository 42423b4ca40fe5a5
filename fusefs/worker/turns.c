/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two ways to wait, and what makes sure that a request always finds somebody:
 *
 * Waiters    up to WAITERS threads in (or about to be in) read(); the last one that leaves wakes a
 *            parked one.  This is the way while requests come now and then.
 * The poller at most one, while requests follow each other closely.  Nobody else is to wait then,
 *            because the kernel would wake him for each request.  Who finds a request at hand reads
 *            it all the same, so that many clients have many threads.  The poller gives its role up
 *            when it has looked in vain, when requests pile up behind it, before a request that may
 *            take long, and when one takes longer than expected: that is what the watch looks for,
 *            once in TICK_US.
 *
 * `poller` is one word: how often the role has changed its state, and the state.  So the watch can
 * take the role only from the very request that it has seen last for a tick.
 *
 * `waiting`, `parked` and `poller` are each written before the others are read, sequentially
 * consistent: a thread that parks itself because somebody waits or polls, and the last one that
 * does and leaves, cannot both overlook each other.
 *
 * Polling is only worth it on a processor that nobody else wants.  `credit` says whether the last
 * requests came soon enough; a poller that finds itself interrupted for PREEMPTED_NS was in
 * somebody's way, and then there is none for REST_NS and more.
 */
#include "fusefs/worker/turns.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "cobj/own_thread.h"

/* One for the next request while one is served, and one beside them: RELEASE has nobody who waits
 * for it, so that the next request comes at once. */
#define WAITERS 3

/* Requests in a row that were there before the poller looked: more clients than one are at work,
 * and for a moment all threads are to serve them. */
#define STREAK    16
#define STREAK_NS 2000000L

#define CREDIT_MAX   8 /* each request that came soon is worth one */
#define CREDIT_NEED  2 /* to become the poller */
#define CREDIT_LOSS  2 /* when it was waited for in vain */
#define PREEMPTED_NS 500000L
#define REST_NS      20000000L /* the first time; twice as long each time after it */
#define REST_NS_MAX  200000000L
#define GOOD_HITS    256     /* requests that make up for having been in the way */
#define SLOW_NS      300000L /* requests that take as long are better served side by side */
#define TICK_US      1000
#define IDLE_TICKS   20 /* without a poller, and the watch sleeps */

enum { NOBODY, POLLING, SERVING, STATES };

struct turns {
        int fd;       /* constant */
        long poll_ns; /* constant; 0: no poller */
        bool (*over)(void *data);
        void *data;

        atomic_int waiting; /* threads in (or about to be in) read(), the poller aside */
        atomic_int parked;  /* threads that wait for a post nobody has promised them yet */
        sem_t unpark;
        _Atomic uint64_t poller; /* changes * STATES + state */

        /* Of who reads; a guess may be lost. */
        atomic_int credit;
        _Atomic int64_t rest_until, blocked_since; /* nanoseconds, CLOCK_MONOTONIC; 0: not */
        int streak, hits;                          /* the poller's */
        int64_t rest;    /* the poller's: for how long next time, nanoseconds */
        int64_t read_at; /* the poller's: when it got what it serves */

        pthread_t watch;
        bool watched;      /* the owner's: the watch was started */
        atomic_bool awake; /* the watch looks, or is about to */
        atomic_bool stopping;
        sem_t wake;
};

static int64_t now_ns(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* A request is there, or the connection has ended. */
static bool at_hand(const struct turns *turns)
{
        struct pollfd pfd = {.fd = turns->fd, .events = POLLIN};

        return poll(&pfd, 1, 0) != 0;
}

/* ---- who is parked ---- */

/* Takes one of those who are parked, who is then owed a post; false if there is none. */
static bool claim_parked(struct turns *turns)
{
        int parked = atomic_load(&turns->parked);

        while (parked > 0)
                if (atomic_compare_exchange_weak(&turns->parked, &parked, parked - 1))
                        return true;
        return false;
}

static void unpark_one(struct turns *turns)
{
        if (claim_parked(turns))
                sem_post(&turns->unpark);
}

static bool is_wanted(struct turns *turns)
{
        const bool polled = atomic_load(&turns->poller) % STATES != NOBODY;

        return atomic_load(&turns->waiting) < (polled ? 0 : WAITERS) || turns->over(turns->data);
}

static void park(struct turns *turns)
{
        atomic_fetch_add(&turns->parked, 1);
        if (is_wanted(turns) && claim_parked(turns))
                return; /* looked again, and got itself (or somebody's place) back */
        while (sem_wait(&turns->unpark) < 0 && errno == EINTR)
                if (turns->over(turns->data)) /* the session wakes us so */
                        break;
}

/* ---- the poller ---- */

/* Changes the role's state from what the thread knows; false if the watch was faster. */
static bool change(struct turns *turns, struct turn *turn, unsigned state)
{
        const uint64_t next = (turn->polls / STATES + 1) * STATES + state;

        if (!atomic_compare_exchange_strong(&turns->poller, &turn->polls, next)) {
                turn->polls = 0;
                return false;
        }
        turn->polls = state == NOBODY ? 0 : next;
        return true;
}

/* The role is free now, and the one who had it does not read: does anybody? */
static void somebody_reads(struct turns *turns)
{
        if (atomic_load(&turns->waiting) == 0)
                unpark_one(turns);
}

static void lose_credit(struct turns *turns, int n)
{
        const int credit = atomic_load_explicit(&turns->credit, memory_order_relaxed);

        atomic_store_explicit(&turns->credit, credit > n ? credit - n : 0, memory_order_relaxed);
}

static void gain_credit(struct turns *turns)
{
        const int credit = atomic_load_explicit(&turns->credit, memory_order_relaxed);

        if (credit < CREDIT_MAX)
                atomic_store_explicit(&turns->credit, credit + 1, memory_order_relaxed);
}

static bool become_poller(struct turns *turns, struct turn *turn)
{
        uint64_t poller;

        if (turns->poll_ns == 0 ||
            atomic_load_explicit(&turns->credit, memory_order_relaxed) < CREDIT_NEED)
                return false;
        poller = atomic_load(&turns->poller);
        if (poller % STATES != NOBODY || atomic_load(&turns->stopping) ||
            now_ns() < atomic_load_explicit(&turns->rest_until, memory_order_relaxed))
                return false;
        turn->polls = poller;
        if (!change(turns, turn, POLLING))
                return false;
        turns->streak = 0;
        return true;
}

/* There is no poller for so long. */
static void rest(struct turns *turns, int64_t ns)
{
        atomic_store_explicit(&turns->rest_until, now_ns() + ns, memory_order_relaxed);
        lose_credit(turns, CREDIT_MAX);
}

/* Looks for the next request; true if there is one.  The processor goes to whoever else wants it.
 */
static bool busy_poll(struct turns *turns)
{
        int64_t began, last, now;

        if (at_hand(turns)) {
                if (++turns->streak < STREAK)
                        return true;
                rest(turns, STREAK_NS);
                return false;
        }
        turns->streak = 0;
        began = last = now_ns();
        while (!turns->over(turns->data)) {
                sched_yield();
                if (at_hand(turns)) {
                        gain_credit(turns);
                        if (++turns->hits >= GOOD_HITS)
                                turns->rest = REST_NS;
                        return true;
                }
                now = now_ns();
                if (now - last > PREEMPTED_NS) {
                        rest(turns, turns->rest);
                        turns->rest = turns->rest * 2 < REST_NS_MAX ? turns->rest * 2 : REST_NS_MAX;
                        turns->hits = 0;
                        return false;
                }
                if (now - began > turns->poll_ns) {
                        lose_credit(turns, CREDIT_LOSS);
                        return false;
                }
                last = now;
        }
        return false;
}

/* ---- the watch ---- */

static void wake_watch(struct turns *turns)
{
        if (!atomic_load(&turns->awake) && !atomic_exchange(&turns->awake, true))
                sem_post(&turns->wake);
}

/* Looks until there has been no poller for a while.  A request that it sees for the second time has
 * lasted a tick: others read from now on. */
static void look(struct turns *turns)
{
        const struct timespec tick = {.tv_nsec = TICK_US * 1000L};
        uint64_t last = 0, poller;
        unsigned idle = 0;

        while (idle < IDLE_TICKS && !atomic_load(&turns->stopping)) {
                nanosleep(&tick, NULL);
                poller = atomic_load(&turns->poller);
                idle = poller % STATES == NOBODY ? idle + 1 : 0;
                if (poller % STATES == SERVING && poller == last &&
                    atomic_compare_exchange_strong(&turns->poller, &poller,
                                                   (poller / STATES + 1) * STATES + NOBODY))
                        somebody_reads(turns);
                last = poller;
        }
}

static void *watch_thread(void *data)
{
        struct turns *turns = data;

        while (!atomic_load(&turns->stopping)) {
                while (sem_wait(&turns->wake) < 0)
                        ;
                do {
                        look(turns);
                        atomic_store(&turns->awake, false);
                        /* who became the poller before that has not woken us */
                } while (atomic_load(&turns->poller) % STATES != NOBODY &&
                         !atomic_load(&turns->stopping) && !atomic_exchange(&turns->awake, true));
        }
        return NULL;
}

static int start_watch(struct turns *turns)
{
        const int r = own_thread_start(&turns->watch, "k42-watch", watch_thread, turns);

        turns->watched = r == 0;
        return r;
}

/* ---- a thread's turn ---- */

void turns_wait(struct turns *turns, struct turn *turn)
{
        if (turn->polls != 0 || become_poller(turns, turn)) {
                wake_watch(turns);
                if (busy_poll(turns))
                        return;
                change(turns, turn, NOBODY);
        }
        while (!is_wanted(turns)) {
                if (at_hand(turns))
                        break; /* the poller, or who waits, has enough to do */
                park(turns);
        }
        atomic_fetch_add(&turns->waiting, 1);
        if (turns->poll_ns > 0)
                atomic_store_explicit(&turns->blocked_since, now_ns(), memory_order_relaxed);
}

void turns_read(struct turns *turns, struct turn *turn, bool may_last)
{
        if (turn->polls != 0) {
                turns->read_at = now_ns();
                if (change(turns, turn, may_last ? NOBODY : SERVING) && may_last)
                        somebody_reads(turns);
                return;
        }
        if (turns->poll_ns > 0 &&
            now_ns() - atomic_load_explicit(&turns->blocked_since, memory_order_relaxed) <
                    turns->poll_ns)
                gain_credit(turns);
        else
                lose_credit(turns, CREDIT_LOSS);
        if (atomic_fetch_sub(&turns->waiting, 1) == 1 &&
            atomic_load(&turns->poller) % STATES == NOBODY)
                unpark_one(turns);
}

void turns_served(struct turns *turns, struct turn *turn)
{
        if (turn->polls != 0 && change(turns, turn, POLLING) && now_ns() - turns->read_at > SLOW_NS)
                lose_credit(turns, CREDIT_MAX);
}

void turns_leave(struct turns *turns, struct turn *turn)
{
        if (turn->polls != 0)
                change(turns, turn, NOBODY);
        unpark_one(turns); /* who will pass it on */
}

/* ---- life ---- */

static bool one_processor(void)
{
        cpu_set_t cpus;

        return sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) < 2;
}

int turns_new(int fd, unsigned busy_poll_us, bool (*over)(void *data), void *data,
              struct turns **ret_turns)
{
        struct turns *turns = calloc(1, sizeof *turns);
        int r;

        if (!turns)
                return -ENOMEM;
        turns->fd = fd;
        turns->poll_ns = one_processor() ? 0 : busy_poll_us * 1000L;
        turns->rest = REST_NS;
        turns->over = over;
        turns->data = data;
        sem_init(&turns->unpark, 0, 0);
        sem_init(&turns->wake, 0, 0);
        r = turns->poll_ns > 0 ? start_watch(turns) : 0;
        if (r < 0) {
                turns_free(turns);
                return r;
        }
        *ret_turns = turns;
        return 0;
}

void turns_stop(struct turns *turns)
{
        if (!turns->watched)
                return;
        atomic_store(&turns->stopping, true);
        sem_post(&turns->wake);
        pthread_join(turns->watch, NULL);
        turns->watched = false;
}

void turns_free(struct turns *turns)
{
        if (!turns)
                return;
        sem_destroy(&turns->unpark);
        sem_destroy(&turns->wake);
        free(turns);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * k42account: what it costs a call to be counted in the account (shim/account.h), in nanoseconds: the best
 * of 31 rounds, without system calls.  `none` is a descriptor that has no slot, `threads` a process with
 * a second thread that waits, `both` two threads that use one descriptor as fast as they can (the processor
 * time of each, so that a busy machine does not matter much), `many` one of more threads than there are lanes.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "shim/account.h"

#define ROUNDS 31
#define CALLS  1000000

static atomic_bool over;
static _Atomic uint64_t calls;

static double now(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
        return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static double measure(int fd)
{
        double best = 1e9;

        for (int round = 0; round < ROUNDS; round++) {
                const double start = now();
                double each;

                for (int i = 0; i < CALLS; i++) {
                        int number = fd;

                        __asm__ volatile("" : "+r"(number) : : "memory");
                        account_count(number, K42_READS, 4096, true);
                }
                atomic_fetch_add(&calls, CALLS);
                each = (now() - start) / CALLS;
                if (each < best)
                        best = each;
        }
        return best;
}

static void *wait_for_end(void *unused)
{
        pause();
        return NULL;
}

static void *wait_with_lane(void *unused)
{
        account_count(5, K42_READS, 4096, true);
        atomic_fetch_add(&calls, 1);
        return wait_for_end(unused);
}

static void *count_until_over(void *unused)
{
        while (!atomic_load(&over))
                measure(5);
        return unused;
}

static pthread_t start(void *(*fn)(void *))
{
        pthread_t thread;

        if (pthread_create(&thread, NULL, fn, NULL) != 0) {
                perror("pthread_create");
                exit(1);
        }
        return thread;
}

static void *measure_many(void *unused)
{
        printf("many %.2f\n", measure(5));
        return unused;
}

/* The other one counts for as long as this one is measured. */
static double measure_both(void)
{
        pthread_t other = start(count_until_over);
        double each;

        usleep(20000);
        each = measure(5);
        atomic_store(&over, true);
        pthread_join(other, NULL);
        return each;
}

static uint64_t sum(const struct k42_account *page, unsigned slot, unsigned counter)
{
        uint64_t n = page->slot[slot].counters[counter];

        for (unsigned lane = 1; lane <= K42_ACCOUNT_LANES; lane++)
                if (page->slot[slot].flags & K42_ACCOUNT_LANE(lane))
                        n += page->lane[lane - 1][slot].counters[counter];
        return n;
}

static void *zeroes(size_t size)
{
        void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED) {
                perror("mmap");
                exit(1);
        }
        return p;
}

int main(void)
{
        struct k42_account *page = zeroes(sizeof *page);

        atomic_store(&account_page, page);
        account_start();
        page->slot[7].token = 42;
        account_set(5, 7, 42);
        printf("none %.2f\n", measure(6));
        printf("counted %.2f\n", measure(5));
        start(wait_for_end);
        printf("threads %.2f\n", measure(5));
        printf("both %.2f\n", measure_both());
        for (unsigned i = 0; i < K42_ACCOUNT_LANES + 1; i++)
                start(wait_with_lane);
        usleep(200000);
        pthread_join(start(measure_many), NULL);
        calls -= (uint64_t)ROUNDS * CALLS; /* those of the descriptor without a slot */
        if (sum(page, 7, K42_READS) == calls && sum(page, 7, K42_READ_BYTES) == 4096 * calls)
                return 0;
        fprintf(stderr, "k42account: %llu calls, counted %llu\n", (unsigned long long)calls,
                (unsigned long long)sum(page, 7, K42_READS));
        return 1;
}

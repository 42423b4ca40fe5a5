/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * k42account: what it costs a call to be counted in the account (shim/account.h), in nanoseconds: the best
 * of 31 rounds, without system calls.  `none` is a descriptor that has no slot, `threads` a process with
 * two threads.
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

struct k42_account *_Atomic account_page;
struct account_fd *account_fds;

static double now(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
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
        pthread_t thread;

        atomic_store(&account_page, page);
        account_fds = zeroes(FD_TABLE_MAX * sizeof *account_fds);
        page->slot[7].token = 42;
        account_set(5, 7, 42);
        printf("none %.2f\n", measure(6));
        printf("counted %.2f\n", measure(5));
        if (pthread_create(&thread, NULL, wait_for_end, NULL) != 0)
                return 1;
        printf("threads %.2f\n", measure(5));
        return page->slot[7].counters[K42_READS] == UINT64_C(2) * ROUNDS * CALLS ? 0 : 1;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * What the programs of tests/data share: random numbers that come again with the same seed, time,
 * and how to give up.  No state but the program's name (glibc's), so nothing needs a lock.
 */
#include <stdarg.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

/* A random number generator (splitmix64).  Any seed is good; owned by one thread or process. */
typedef struct Rng {
        uint64_t state;
} Rng;

/* The next 64 random bits. */
uint64_t rng_next(Rng *rng);

/* A number from 0 to n - 1; 0 if n is 0. */
uint64_t rng_below(Rng *rng, uint64_t n);

/* One of `n` times true. */
static inline int rng_one_in(Rng *rng, uint64_t n)
{
        return rng_below(rng, n) == 0;
}

/* Seconds of CLOCK_MONOTONIC. */
double now(void);

/* Less than, equal to or greater than 0 as a is before, at or after b. */
int compare_times(const struct timespec *a, const struct timespec *b);

/* Prints the program's name and the message to stderr, and ends the process with status 1.  `errno`
 * is not looked at: say it with %m. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The value of an option like --ops=5: what is behind the equals sign when `arg` is that option,
 * else NULL.  `name` with its dashes. */
const char *option_value(const char *arg, const char *name);

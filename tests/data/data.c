/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See data.h. */
#include "data.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t rng_next(Rng *rng)
{
        uint64_t z = rng->state += 0x9e3779b97f4a7c15;

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
}

uint64_t rng_below(Rng *rng, uint64_t n)
{
        return n ? rng_next(rng) % n : 0;
}

double now(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int compare_times(const struct timespec *a, const struct timespec *b)
{
        if (a->tv_sec != b->tv_sec)
                return a->tv_sec < b->tv_sec ? -1 : 1;
        return (a->tv_nsec > b->tv_nsec) - (a->tv_nsec < b->tv_nsec);
}

void die(const char *format, ...)
{
        int err = errno;
        char text[1024];
        va_list args;

        errno = err;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        fflush(stdout);
        fprintf(stderr, "%s: %s\n", program_invocation_short_name, text);
        exit(1);
}

const char *option_value(const char *arg, const char *name)
{
        size_t n = strlen(name);

        return strncmp(arg, name, n) == 0 && arg[n] == '=' ? arg + n + 1 : NULL;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What the operations of once.c are, and what they say of what they saw. */
#include <stdio.h>

/* Where an operation does its work, and what it keeps open from `prepare` to `finish`. */
struct place {
        char path[256]; /* a new directory of its own */
        FILE *say;      /* every result and everything seen: to be the same, however often the daemon died */
        int fd, other;
};

extern const char *state_dir; /* the daemon's */

struct operation {
        const char *name;
        void (*prepare)(struct place *at); /* may be NULL */
        void (*run)(struct place *at);
        /* What of the backing directory cannot be the same twice is none of it: times, but for those that `run` sets. */
};

extern const struct operation operations[];
extern const unsigned n_operations;

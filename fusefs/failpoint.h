/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * failpoint: places where a test has the daemon killed.
 *
 * FAILPOINT("name") stands at every step between two things that the next daemon must tell apart.  It is
 * a test of one flag that is never set, unless this very point is armed; then the process kills itself
 * there with SIGKILL, once: what is still to be died in is a text in the file `requests`, from which it
 * is taken before.
 *
 * The list of all points is made by the linker (a section), so none can be forgotten by a test that
 * dies in each.
 *
 * What is armed:  [!]NAME[:N][,[!]NAME[:N]…]
 *
 * The first one now: the process dies when it comes to NAME for the N-th time (1, if not said); with ! of
 * SIGABRT, as of a bug.  The
 * next one is armed in the daemon that takes over, from its first step on, and so forth: so a daemon can be
 * had die while it resumes.  It is said by the environment variable K42_FAILPOINT when the mount is
 * made, or by the control socket's verb `failpoint` at any time.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

struct requests;

struct failpoint {
        const char *name;
        _Atomic int left; /* visits until it kills; 0: not armed */
        int reserved;
} __attribute__((aligned(16)));

void failpoint_hit(struct failpoint *point);

#define FAILPOINT(text)                                                                            \
        do {                                                                                       \
                static struct failpoint point_                                                     \
                        __attribute__((section("failpoints"), used)) = {.name = (text)};           \
                if (__builtin_expect(                                                              \
                            atomic_load_explicit(&point_.left, memory_order_relaxed) != 0, 0))     \
                        failpoint_hit(&point_);                                                    \
        } while (0)

/* Arms what `requests` says is still to be died in; and first, unless `resume`, has it say what the environment
 * does.  Before there are threads. */
void failpoint_init(struct requests *requests, bool resume);

/* Arms `spec` instead of what was armed; "" disarms.  Returns 0; -EINVAL for a name that is not a
 * point, or a bad number; -ENAMETOOLONG; -ENOTSUP without failpoint_init(). 
 * Thread-safe. */
int failpoint_arm(const char *spec);

/* What is still to be died in; "" if nothing is. */
const char *failpoint_armed(void);

/* All points, a line each. */
void failpoint_list(FILE *to);

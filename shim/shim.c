/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libk42shim.so: the library that k42run preloads.  No GLib, no malloc, no stdio: it runs in programs
 * that bring their own, in signal handlers, and before main.
 */
#include "shim/shim.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>

#include "lazy/protocol.h"
#include "shim/account.h"
#include "shim/fd_table.h"
#include "shim/private.h"
#include "shim/real.h"
#include "shim/stdio_slots.h"

static bool private_failed; /* no address space for its tables */

static void child_after_fork(void)
{
        private_child_seen();
        (void)fd_table_mine(); /* marks, if no signal handler has touched anything before */
}

static void start_private(void)
{
        if (private_init(private_mode_of(getenv("K42_FORK"))) < 0)
                private_failed = true;
}

__attribute__((constructor)) static void shim_start(void)
{
        const int saved = errno;

        real_resolve();
        if (fd_table_init() == 0) {
                account_start();
                stdio_slots_redirect();
        }
        start_private();
        if (fd_groups) {
                /* The first to be registered: the last before a fork, the first after it. */
                if (private_on)
                        pthread_atfork(private_prepare, private_parent, child_after_fork);
                else
                        pthread_atfork(NULL, NULL, child_after_fork);
        }
        errno = saved;
}

EXPORT unsigned k42_shim_version(void)
{
        return K42_PROTOCOL_VERSION;
}

EXPORT unsigned k42_shim_fd_state(int fd)
{
        return fd_table_bits(fd);
}

EXPORT uint64_t k42_shim_fd_token(int fd)
{
        return fd_table_token(fd);
}

EXPORT int k42_shim_check(void)
{
        return fd_table_check();
}

EXPORT int k42_shim_active(void)
{
        return fd_groups != NULL;
}

EXPORT int k42_shim_stdio_slots(void)
{
        return stdio_slots_redirected();
}

EXPORT int k42_shim_private(void)
{
        return private_failed ? -1 : (int)private_mode;
}

EXPORT int k42_shim_pending(int fd)
{
        return private_pending(fd);
}

static const struct {
        const char *name;
        int touches;
} interceptions[] = {
#define TOUCH(ret, name, params, args, fd)       {#name, 1},
#define TOUCH_E(ret, name, params, args, fd)     {#name, 1},
#define TOUCH2(ret, name, params, args, fd, fd2) {#name, 1},
#define READS(...)                               TOUCH(__VA_ARGS__)
#define WRITES(...)                              TOUCH(__VA_ARGS__)
#define MAPS(...)                                TOUCH(__VA_ARGS__)
#define MOVES(...)                               TOUCH2(__VA_ARGS__)
#define OWN(ret, name, params)                   {#name, 0},
#include "shim/interceptions.h"
};

EXPORT const char *k42_shim_interception(unsigned i, int *ret_touches)
{
        if (i >= sizeof interceptions / sizeof interceptions[0])
                return NULL;
        *ret_touches = interceptions[i].touches;
        return interceptions[i].name;
}

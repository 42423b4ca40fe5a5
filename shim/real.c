/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "shim/real.h"

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

struct real real_functions;
bool real_resolved;

/* Stands in for what libc does not have: every list member returns an int, a pointer or a long, and
 * -1 is an error as each of them, or a pointer that no program gets from a function it does not have. */
static long missing(void)
{
        errno = ENOSYS;
        return -1;
}

static void *look_up(const char *name)
{
        void *function = dlsym(RTLD_NEXT, name);

        if (!function) {
                long (*instead)(void) = missing;

                memcpy(&function, &instead, sizeof function);
        }
        return function;
}

/* ISO C has no conversion from void * to a function; POSIX says that the representation is the same. */
#define LOOK_UP(name)                                                                              \
        do {                                                                                       \
                void *function = look_up(#name);                                                   \
                memcpy(&real_functions.name, &function, sizeof function);                          \
        } while (0);

void real_resolve(void)
{
        const int saved = errno;

#define TOUCH(ret, name, params, args, fd)       LOOK_UP(name)
#define TOUCH_E(ret, name, params, args, fd)     LOOK_UP(name)
#define TOUCH2(ret, name, params, args, fd, fd2) LOOK_UP(name)
#define READS(...)  TOUCH(__VA_ARGS__)
#define WRITES(...) TOUCH(__VA_ARGS__)
#define MAPS(...)   TOUCH(__VA_ARGS__)
#define MOVES(...)  TOUCH2(__VA_ARGS__)
#define OWN(ret, name, params)                   LOOK_UP(name)
#include "shim/interceptions.h"
#undef TOUCH
#undef TOUCH_E
#undef TOUCH2
#undef OWN
#undef READS
#undef WRITES
#undef MAPS
#undef MOVES
        real_resolved = true;
        errno = saved;
}

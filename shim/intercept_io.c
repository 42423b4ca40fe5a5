/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The wrappers that touch a descriptor and then call the real function: all alike, so they are made
 * from the list.  The real function stays the cancellation point that it is.
 */
#include <errno.h>

#include "shim/real.h"
#include "shim/touch.h"

/* What a function with this return type returns when it fails. */
#define FAILED(ret)                                                                                \
        ((ret)_Generic((ret)0, void *: MAP_FAILED, DIR *: NULL, struct dirent *: NULL,             \
                       struct dirent64 *: NULL, default: -1))

#define TOUCH(ret, name, params, args, fd)                                                         \
        EXPORT ret name params;                                                                    \
        ret name params                                                                            \
        {                                                                                          \
                if (__builtin_expect(touch(fd) < 0, 0))                                            \
                        return FAILED(ret);                                                        \
                return REAL(name) args;                                                            \
        }
#define TOUCH_E(ret, name, params, args, fd)                                                       \
        EXPORT ret name params;                                                                    \
        ret name params                                                                            \
        {                                                                                          \
                if (__builtin_expect(touch(fd) < 0, 0))                                            \
                        return errno;                                                              \
                return REAL(name) args;                                                            \
        }
#define TOUCH2(ret, name, params, args, fd, fd2)                                                   \
        EXPORT ret name params;                                                                    \
        ret name params                                                                            \
        {                                                                                          \
                if (__builtin_expect(touch(fd) < 0 || touch(fd2) < 0, 0))                          \
                        return FAILED(ret);                                                        \
                return REAL(name) args;                                                            \
        }
#define OWN(ret, name, params)
#include "shim/interceptions.h"

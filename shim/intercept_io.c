/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The wrappers that touch a descriptor and then call the real function: all alike, so they are made
 * from the list.  The real function stays the cancellation point that it is.
 */
#include "shim/real.h"
#include "shim/touch.h"

#define TOUCH(ret, name, params, args, fd)                                                         \
        EXPORT ret name params;                                                                    \
        ret name params                                                                            \
        {                                                                                          \
                touch(fd);                                                                         \
                return REAL(name) args;                                                            \
        }
#define TOUCH2(ret, name, params, args, fd, fd2)                                                   \
        EXPORT ret name params;                                                                    \
        ret name params                                                                            \
        {                                                                                          \
                touch(fd);                                                                         \
                touch(fd2);                                                                        \
                return REAL(name) args;                                                            \
        }
#define OWN(ret, name, params)
#include "shim/interceptions.h"

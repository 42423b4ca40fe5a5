/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The wrappers that touch a descriptor and then call the real function: all alike, so they are made
 * from the list.  The real function stays the cancellation point that it is.
 */
#include <errno.h>

#include "shim/account.h"
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
#define COUNTED(ret, name, params, args, fd, count)                                                \
        EXPORT ret name params;                                                                    \
        ret name params                                                                            \
        {                                                                                          \
                ret done;                                                                          \
                                                                                                   \
                if (__builtin_expect(touch(fd) < 0, 0))                                            \
                        return FAILED(ret);                                                        \
                done = REAL(name) args;                                                            \
                count;                                                                             \
                return done;                                                                       \
        }
#define READS(ret, name, params, args, fd)                                                         \
        COUNTED(ret, name, params, args, fd, account_count(fd, K42_READS, done, true))
#define WRITES(ret, name, params, args, fd)                                                        \
        COUNTED(ret, name, params, args, fd, account_count(fd, K42_WRITES, done, true))
#define MAPS(ret, name, params, args, fd)                                                          \
        COUNTED(ret, name, params, args, fd,                                                       \
                if (done != MAP_FAILED) account_count(fd, K42_MAPPINGS, (ssize_t)n, false))
#define MOVES(ret, name, params, args, from, to)                                                   \
        EXPORT ret name params;                                                                    \
        ret name params                                                                            \
        {                                                                                          \
                ret done;                                                                          \
                                                                                                   \
                if (__builtin_expect(touch(from) < 0 || touch(to) < 0, 0))                         \
                        return FAILED(ret);                                                        \
                done = REAL(name) args;                                                            \
                /* copy_file_range() is the only one that the daemon may be asked for itself. */   \
                account_count(from, K42_READS, done, sizeof #name == sizeof "copy_file_range");    \
                account_count(to, K42_WRITES, done, true);                                         \
                return done;                                                                       \
        }
#define OWN(ret, name, params)
#include "shim/interceptions.h"

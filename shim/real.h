/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * real: libc's own functions, behind ours.
 *
 * The shim is compiled without _FILE_OFFSET_BITS and _FORTIFY_SOURCE: with them <unistd.h> renames
 * open to open64 and the like, and a wrapper would be another function than its name says.
 */
#if defined(_FILE_OFFSET_BITS) || (defined(_FORTIFY_SOURCE) && _FORTIFY_SOURCE > 0)
#error "the shim must be compiled with -U_FILE_OFFSET_BITS -U_FORTIFY_SOURCE"
#endif
#include <aio.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

struct real {
#define TOUCH(ret, name, params, args, fd)       ret (*name) params;
#define TOUCH_E(ret, name, params, args, fd)     ret (*name) params;
#define TOUCH2(ret, name, params, args, fd, fd2) ret (*name) params;
#define READS(...)  TOUCH(__VA_ARGS__)
#define WRITES(...) TOUCH(__VA_ARGS__)
#define MAPS(...)   TOUCH(__VA_ARGS__)
#define MOVES(...)  TOUCH2(__VA_ARGS__)
#define OWN(ret, name, params)                   ret (*name) params;
#include "shim/interceptions.h"
#undef TOUCH
#undef TOUCH_E
#undef TOUCH2
#undef OWN
#undef READS
#undef WRITES
#undef MAPS
#undef MOVES
};

/* All are looked up at once, in the constructor, or earlier if another library's constructor comes
 * first: dlsym(3) takes locks, which must not happen in a signal handler later.  One that this libc
 * does not have is one that fails with ENOSYS. */
extern struct real real_functions;
extern bool real_resolved;
void real_resolve(void);

#define REAL(name) ((real_resolved ? (void)0 : real_resolve()), real_functions.name)

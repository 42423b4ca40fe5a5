/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * touch: what happens before the first operation on a descriptor that is not settled.
 *
 * The descriptor is looked at with statx(2), which asks the kernel only.  Pipes, sockets, devices and
 * files of disk file systems are settled by that.  A regular file or directory whose device number has
 * no major number may be on a k42fs mount: it is sent LAZY_REOPEN (lazy/protocol.h).
 *
 * Whatever the answer is, the program goes on with the call that it was about to make; it never learns
 * of the touch.  The exception is private mode (private.h): a descriptor that is to be replaced and
 * cannot be must not be used, as its offset is somebody else's.  Then the call fails.
 *
 * Async-signal-safe; keeps errno, unless it returns -1.
 */
#include "shim/fd_table.h"

/* Returns 0, or -1 with errno: the call must not be made, and fails with that. */
int touch_slow(int fd);

static inline int touch(int fd)
{
        return __builtin_expect(!fd_table_settled(fd), 0) ? touch_slow(fd) : 0;
}

struct k42_lazy_reopen;

/* A regular file or directory that can be on a k42fs mount. */
bool touch_may_be_ours(int fd);

/* Sends LAZY_REOPEN on `fd`, and fills in the answer.  Returns 0 or -errno; an answer that does not
 * check is -EPROTO. */
int touch_lazy_reopen(int fd, struct k42_lazy_reopen *ret_message);

/* How a message is sent: the ioctl system call, unless a test puts something else here.  Returns 0 or
 * -errno. */
extern int (*touch_send)(int fd, unsigned long request, void *message);

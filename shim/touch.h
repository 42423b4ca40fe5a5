/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * touch: what happens before the first operation on a descriptor that is not settled.
 *
 * The descriptor is looked at with statx(2), which asks the kernel only.  Pipes, sockets, devices and
 * files of disk file systems are settled by that.  A regular file or directory whose device number has no major number may be
 * on a k42fs mount: it is sent LAZY_REOPEN (lazy/protocol.h).  Whatever the answer is, the program
 * goes on with the call that it was about to make; it never learns of the touch.
 *
 * Async-signal-safe; keeps errno.
 */
#include "shim/fd_table.h"

void touch_slow(int fd);

static inline void touch(int fd)
{
        if (__builtin_expect(!fd_table_settled(fd), 0))
                touch_slow(fd);
}

/* How a message is sent: the ioctl system call, unless a test puts something else here.  Returns 0 or
 * -errno. */
extern int (*touch_send)(int fd, unsigned long request, void *message);

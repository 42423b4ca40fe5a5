/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The shim's messages in wrong hands, to get rights back. */
#include "attempts.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lazy/protocol.h"

static long reopen(int fd, uint64_t parent, uint64_t *ret_token)
{
        struct k42_lazy_reopen message = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message}, .parent = parent};

        if (ioctl(fd, K42_IOC_LAZY_REOPEN, &message) < 0)
                return -errno;
        *ret_token = message.token;
        return 0;
}

static long write_mark(void)
{
        const char mark = MARK;

        return raw(pwrite(held.fd, &mark, 1, 100));
}

/* With each token that there may be as the parent: one of them has more. */
static long try_parents(void)
{
        uint64_t token;
        long r = -EBADF;

        for (uint64_t index = 0; r < 0 && index < 64; index++) {
                (void)reopen(held.fd, UINT64_C(1) << 32 | index, &token);
                r = write_mark();
        }
        return r;
}

/* "The descriptor that was taken is the one that I use from now on instead of a new one." */
static long try_private(void)
{
        struct k42_private_reopen message = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message}};
        const int fd = open(held.file, O_RDWR);
        long r;

        if (fd < 0)
                return -errno;
        if (reopen(fd, 0, &message.from) == 0)
                (void)ioctl(held.fd, K42_IOC_PRIVATE_REOPEN, &message);
        r = write_mark();
        close(fd);
        return r;
}

const struct attempt message_attempts[] = {
        {"LAZY_REOPEN, any parent, write", VICTIM, try_parents},
        {"PRIVATE_REOPEN from a new open, write", VICTIM, try_private},
        {"child, PRIVATE_REOPEN, write", CHILD, try_private},
        {NULL, WHO, NULL},
};

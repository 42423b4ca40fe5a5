/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "shim/touch.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "lazy/protocol.h"
#include "shim/account.h"
#include "shim/private.h"

/* Devices that answered, as major << 32 | minor; a hint, so a full list is overwritten in turn. */
#define FOREIGN_MAX 16

static _Atomic uint64_t foreign[FOREIGN_MAX];
static _Atomic unsigned foreign_next;

static int send_by_ioctl(int fd, unsigned long request, void *message)
{
        return syscall(SYS_ioctl, fd, request, message) < 0 ? -errno : 0;
}

int (*touch_send)(int fd, unsigned long request, void *message) = send_by_ioctl;

static bool is_foreign(uint64_t device)
{
        for (unsigned i = 0; i < FOREIGN_MAX; i++)
                if (atomic_load_explicit(&foreign[i], memory_order_relaxed) == device)
                        return true;
        return false;
}

static void remember_foreign(uint64_t device)
{
        atomic_store_explicit(&foreign[atomic_fetch_add(&foreign_next, 1) % FOREIGN_MAX], device,
                              memory_order_relaxed);
}

/* True if the descriptor may be one of a k42fs mount; fills in its device. */
static bool may_be_ours(int fd, uint64_t *ret_device)
{
        struct statx stx;

        /* The raw call: libc's could be wrapped by somebody else's preload, and is not on old ones. */
        if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &stx) < 0)
                return false;
        if (stx.stx_dev_major != 0 || !(S_ISREG(stx.stx_mode) || S_ISDIR(stx.stx_mode)))
                return false;
        *ret_device = (uint64_t)1 << 63 | stx.stx_dev_minor; /* never 0 */
        return !is_foreign(*ret_device);
}

bool touch_may_be_ours(int fd)
{
        uint64_t device;

        return may_be_ours(fd, &device);
}

int touch_lazy_reopen(int fd, struct k42_lazy_reopen *ret_message)
{
        struct k42_lazy_reopen message = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message},
                .parent = fd_table_token(fd),
        };
        int r;

        account_expect();
        r = touch_send(fd, K42_IOC_LAZY_REOPEN, &message);
        if (r < 0)
                return r;
        if (message.header.version != K42_PROTOCOL_VERSION ||
            message.header.length != sizeof message || message.header.flags != 0 ||
            message.token == 0)
                return -EPROTO;
        *ret_message = message;
        return 0;
}

int touch_slow(int fd)
{
        const int saved = errno;
        struct k42_lazy_reopen message;
        uint64_t device = 0, token = 0;
        int r = 0;

        /* In a child on its parent's memory nothing may be noted, so nothing is asked either; in a
         * forked one this marks the tables, after which the descriptor may turn out settled. */
        if (!fd_table_mine() || fd_table_settled(fd))
                goto out;
        if (private_pending(fd)) {
                r = private_reopen(fd);
                if (r < 0) {
                        errno = -r;
                        return -1;
                }
                if (r == 0)
                        goto out;
        }
        if (may_be_ours(fd, &device)) {
                r = touch_lazy_reopen(fd, &message);
                if (r == 0)
                        token = message.token;
                if (r == -ENOTTY || r == -ENOSYS || r == -EOPNOTSUPP)
                        remember_foreign(device);
        }
        /* Asked once, whatever the answer; but a signal is no answer, and a descriptor that is not
         * open is nobody's. */
        if (r != -EINTR && (device != 0 || syscall(SYS_fcntl, fd, F_GETFD) >= 0))
                fd_table_touched(fd, token);
out:
        errno = saved;
        return 0;
}

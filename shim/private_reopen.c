/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The first touch of a pending descriptor, in three requests to the daemon:
 *
 *   LAZY_REOPEN on it     a handle of this process's own, derived from its parent's, or a refusal
 *   OPEN                  of /proc/self/fd/N: the same file whatever its name is by now, and an
 *                         ordinary open with all that the kernel checks
 *   PRIVATE_REOPEN        on the new one: the handle goes over to it
 *
 * Then the offset is set, and dup3() puts the new description in the place of the old one, in one step,
 * in each descriptor that shared it.  Until then the descriptor is as it was, so a failure leaves
 * nothing behind but the handle, which the next attempt finds again.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lazy/protocol.h"
#include "shim/account.h"
#include "shim/private.h"
#include "shim/touch.h"

#define ATTEMPTS 16

/* The status flags that an open() can repeat.  What only matters at an open (O_TRUNC, O_CREAT, O_EXCL) is
 * none of them; nor O_DIRECTORY, which stays on what O_TMPFILE made. */
#define FLAGS (O_ACCMODE | O_DIRECT | O_SYNC | O_DSYNC | O_NONBLOCK | O_NOATIME | O_LARGEFILE)

#define SIGSET_BYTES 8 /* the kernel's */

static bool is_pending(int fd)
{
        return private_pending(fd);
}

/* It stays as it is. */
static void settle(int fd)
{
        private_forget((unsigned)fd / 64, UINT64_C(1) << ((unsigned)fd % 64));
}

static bool is_same_file(const struct private_note *a, const struct private_note *b)
{
        return a->inode == b->inode && a->device == b->device;
}

static int lazy_reopen(int fd, struct k42_lazy_reopen *ret_message)
{
        int r = -EINTR;

        for (int i = 0; r == -EINTR && i < ATTEMPTS; i++)
                r = touch_lazy_reopen(fd, ret_message);
        return r;
}

void private_fd_path(char *to, int fd, const char *suffix)
{
        unsigned n = (unsigned)fd;
        char digits[12];
        int at = (int)sizeof digits - 1;

        digits[at] = '\0';
        do
                digits[--at] = (char)('0' + n % 10);
        while (n /= 10);
        stpcpy(stpcpy(stpcpy(to, "/proc/self/fd/"), digits + at), suffix);
}

/* Opens what is behind `fd` once more. */
static int open_again(int fd, int flags)
{
        char path[PRIVATE_FD_PATH_MAX];
        int r = -EINTR;

        private_fd_path(path, fd, "");
        flags = (flags & FLAGS) | O_CLOEXEC;
        for (int i = 0; r == -EINTR && i < ATTEMPTS; i++) {
                r = (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0);
                if (r < 0)
                        r = -errno;
        }
        if (r == -EPERM && (flags & O_NOATIME)) /* that is the owner's */
                return open_again(fd, flags & ~O_NOATIME);
        return r;
}

/* As above, or by the daemon where this process may not any more. */
static int open_or_ask(int fd, int flags)
{
        const int r = open_again(fd, flags);
        int asked;

        if (r != -EACCES && r != -EPERM)
                return r;
        asked = private_ask(fd);
        return asked >= 0 ? asked : r;
}

/* Tells the daemon.  One that does not know the message has no lineage to keep. */
static int take_over(int fd, uint64_t from, uint64_t *ret_token)
{
        struct k42_private_reopen message;
        int r = -EINTR;

        for (int i = 0; r == -EINTR && i < ATTEMPTS; i++) {
                message = (struct k42_private_reopen){
                        .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message},
                        .from = from,
                };
                account_expect();
                r = touch_send(fd, K42_IOC_PRIVATE_REOPEN, &message);
        }
        *ret_token = r == 0 ? message.token : 0;
        return r == -ENOTTY || r == -ENOSYS || r == -EOPNOTSUPP || r == -EPROTONOSUPPORT ? 0 : r;
}

/* A description of this process's own, at the right offset; checked to be of the same file. */
static int make_own(int fd, int flags, uint64_t from, uint64_t *ret_token)
{
        const struct private_note *note = private_note_of(fd);
        struct private_note now;
        int own = open_or_ask(fd, flags), r = 0;

        if (own < 0)
                return own;
        if (!private_look(own, &now) || !is_same_file(note, &now))
                r = -ESTALE;
        if (r == 0 && syscall(SYS_lseek, own, (off_t)note->offset, SEEK_SET) < 0)
                r = -errno;
        if (r == 0)
                r = take_over(own, from, ret_token);
        if (r < 0) {
                syscall(SYS_close, own);
                return r;
        }
        return own;
}

struct replacing {
        int fd, own;
        uint64_t token;
};

/* Puts the new description in the place of one descriptor. */
static int replace(int fd, const struct replacing *how)
{
        const long fd_flags = syscall(SYS_fcntl, fd, F_GETFD);
        int r = -EBUSY; /* another thread is in the middle of opening at this number */

        if (fd_flags < 0)
                return -errno;
        for (int i = 0; (r == -EBUSY || r == -EINTR) && i < ATTEMPTS; i++)
                r = syscall(SYS_dup3, how->own, fd, fd_flags & FD_CLOEXEC ? O_CLOEXEC : 0) < 0
                            ? -errno
                            : 0;
        if (r == 0) {
                settle(fd);
                fd_table_touched(fd, how->token);
        }
        return r;
}

static void replace_other(int fd, void *data)
{
        const struct replacing *how = data;

        /* One that has gone meanwhile is nobody's. */
        if (fd != how->fd && private_same_description(fd, how->fd, private_note_of(fd)->offset ==
                                                                    private_note_of(how->fd)->offset))
                (void)replace(fd, how);
}

static int locked_reopen(int fd)
{
        const long flags = syscall(SYS_fcntl, fd, F_GETFL);
        struct replacing how = {.fd = fd};
        struct k42_lazy_reopen message;
        struct private_note now;
        int r;

        /* What is noted must be what is there: a hint that turned out wrong changes nothing. */
        if (flags < 0 || (flags & (O_APPEND | O_PATH)) || !private_look(fd, &now) ||
            !is_same_file(private_note_of(fd), &now)) {
                settle(fd);
                return 1;
        }
        r = lazy_reopen(fd, &message);
        if (r == -ENOTTY || r == -ENOSYS || r == -EOPNOTSUPP || r == -EPROTONOSUPPORT) {
                settle(fd); /* not k42fs's after all, or an older one */
                return 1;
        }
        if (r < 0)
                return r;
        if (private_mode == PRIVATE_BY_MOUNT && message.fork != K42_FORK_PRIVATE) {
                settle(fd);
                fd_table_touched(fd, message.token);
                return 0;
        }
        how.own = make_own(fd, (int)flags, message.token, &how.token);
        if (how.own < 0)
                return how.own;
        private_foreach_same(fd, replace_other, &how);
        r = replace(fd, &how);
        syscall(SYS_close, how.own);
        return r;
}

/* Signals wait, so that no handler of this thread meets a half-done change. */
static uint64_t block_signals(void)
{
        const uint64_t all = UINT64_MAX;
        uint64_t before = 0;

        syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, &before, SIGSET_BYTES);
        return before;
}

static void restore_signals(uint64_t before)
{
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, SIGSET_BYTES);
}

int private_reopen(int fd)
{
        const uint64_t before = block_signals();
        const bool locked = private_lock();
        int r;

        /* Another thread may have done it while this one waited. */
        if (is_pending(fd))
                r = locked_reopen(fd);
        else
                r = fd_table_settled(fd) ? 0 : 1;
        if (locked)
                private_unlock();
        restore_signals(before);
        return r;
}

struct locking {
        struct private_note note;
        int r;
};

static void reopen_if_same(int fd, struct locking *locking)
{
        int r;

        if (!is_same_file(private_note_of(fd), &locking->note))
                return;
        r = touch(fd) < 0 ? -errno : 0;
        if (r < 0)
                locking->r = r;
}

int private_before_lock(int fd)
{
        const int saved = errno;
        struct locking locking = {.r = 0};
        const unsigned used = fd_table_used();
        bool known = false;

        if (!private_on || !fd_table_mine())
                return 0;
        for (unsigned i = 0; i < used; i++) {
                uint64_t left = atomic_load(&fd_groups[i].own.pending);

                if (left && !known) {
                        known = private_look(fd, &locking.note);
                        if (!known)
                                break;
                }
                for (; left; left &= left - 1)
                        reopen_if_same((int)(64 * i) + __builtin_ctzll(left), &locking);
        }
        errno = saved;
        return locking.r;
}

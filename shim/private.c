/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "shim/private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/kcmp.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef STATX_MNT_ID
#define STATX_MNT_ID 0x1000u
#endif
#define MNT_ID_UNIQUE 0x4000u /* STATX_MNT_ID_UNIQUE: Linux 6.8 */
#define DUPFD_QUERY   1027    /* F_DUPFD_QUERY: Linux 6.10 */

#define LOOK_ATTEMPTS 3
#define PROBED_MAX    1024 /* without /proc */

bool private_on;
enum private_mode private_mode;

static bool scanned; /* what this program has inherited is in the tables; under the lock */

/* What tells the child that its parent has noted something for it: the thread that forks is in the middle
 * of as many such forks.  The child has the copy of a moment in which it is not 0.  To write it costs the
 * parent the copy of a page, once a fork, so it is left alone where nothing is noted; then
 * private_child_seen() will do. */
static __thread uint32_t forking __attribute__((tls_model("initial-exec")));

enum private_mode private_mode_of(const char *value)
{
        if (value && strcmp(value, "private") == 0)
                return PRIVATE_ALL;
        return value && strcmp(value, "shared") == 0 ? PRIVATE_OFF : PRIVATE_BY_MOUNT;
}

int private_init(enum private_mode mode)
{
        if (mode == PRIVATE_OFF)
                return 0;
        if (!fd_groups)
                return -ENOMEM;
        private_mode = mode;
        private_on = true;
        return 0;
}

/* ---- the lock ---- */

/* Beside the mark, far enough to be on another cache line.  The page is wiped at fork: no child inherits
 * the lock, and the parent writes to it without copying it. */
static _Atomic uint32_t *lock_word(void)
{
        return fd_table_marked + 16;
}

/* The forks that the holder is in the middle of: below a bit that is always set one for each, which says
 * whether `forking` counts it.  More than one when a signal handler forks in the middle of a fork. */
static uint32_t *forks(void)
{
        return (uint32_t *)(fd_table_marked + 17);
}
#define NO_FORK 1u

bool private_lock(void)
{
        const uint32_t me = (uint32_t)syscall(SYS_gettid);
        uint32_t holder = 0;

        while (!atomic_compare_exchange_strong(lock_word(), &holder, me)) {
                if (holder == me)
                        return false;
                syscall(SYS_futex, lock_word(), FUTEX_WAIT_PRIVATE, holder, NULL, NULL, 0);
                holder = 0;
        }
        return true;
}

void private_unlock(void)
{
        atomic_store(lock_word(), 0);
        syscall(SYS_futex, lock_word(), FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* ---- looking ---- */

bool private_look(int fd, struct private_note *ret_note)
{
        const unsigned mask = STATX_TYPE | STATX_INO;
        struct statx stx;

        if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, mask | MNT_ID_UNIQUE,
                    &stx) < 0)
                return false;
        if (!(stx.stx_mask & MNT_ID_UNIQUE) && /* an older kernel: ids that can come again */
            syscall(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, mask | STATX_MNT_ID,
                    &stx) < 0)
                return false;
        ret_note->inode = stx.stx_ino;
        ret_note->device = stx.stx_dev_minor;
        ret_note->kind = stx.stx_dev_major == 0 &&
                                         (S_ISREG(stx.stx_mode) || S_ISDIR(stx.stx_mode)) &&
                                         mounts_is_ours(stx.stx_dev_minor, stx.stx_mnt_id,
                                                        private_mode == PRIVATE_BY_MOUNT)
                                 ? KIND_OURS
                                 : KIND_OTHER;
        return true;
}

static bool same_file(const struct private_note *a, const struct private_note *b)
{
        return a->inode == b->inode && a->device == b->device && a->kind == b->kind;
}

bool private_same_description(int one, int other, bool unknown)
{
        static _Atomic bool no_query;
        long r;

        if (!atomic_load_explicit(&no_query, memory_order_relaxed)) {
                r = syscall(SYS_fcntl, one, DUPFD_QUERY, other);
                if (r >= 0)
                        return r == 1;
                if (errno == EINVAL)
                        atomic_store(&no_query, true);
        }
        r = syscall(SYS_kcmp, syscall(SYS_getpid), syscall(SYS_getpid), KCMP_FILE, one, other);
        return r < 0 ? unknown : r == 0;
}

static uint64_t bit_of(int fd)
{
        return UINT64_C(1) << ((unsigned)fd % 64);
}

static struct private_group *group_of(int fd)
{
        return &fd_groups[(unsigned)fd / 64].own;
}

/* Brings the note on a descriptor up to date; `ret_offset` as it is now, -1 if it has none.  The bit is set first
 * and looked at last: who changes the descriptor takes it back before and after. */
static bool look(int fd, int64_t *ret_offset)
{
        struct private_group *group = group_of(fd);
        const uint64_t bit = bit_of(fd);

        for (int i = 0; i < LOOK_ATTEMPTS; i++) {
                const bool known = (atomic_load(&group->looked) & bit) ||
                                   (atomic_fetch_or(&group->looked, bit) & bit);

                if (!known && !private_look(fd, private_note_of(fd))) {
                        atomic_fetch_and(&group->looked, ~bit);
                        return false;
                }
                *ret_offset = private_note_of(fd)->kind == KIND_OURS
                                      ? syscall(SYS_lseek, fd, (off_t)0, SEEK_CUR)
                                      : -1;
                if (atomic_load(&group->looked) & bit)
                        return true;
        }
        return false;
}

/* ---- what the program was started with ---- */

void private_notice(int fd)
{
        if (!private_on || (unsigned)fd >= FD_TABLE_MAX || !fd_table_mine())
                return;
        fd_table_note_used(fd);
        atomic_fetch_or(&group_of(fd)->known, bit_of(fd));
}

static int number_of(const char *name)
{
        int n = 0;

        for (; *name >= '0' && *name <= '9' && n < FD_TABLE_MAX; name++)
                n = 10 * n + (*name - '0');
        return *name ? -1 : n;
}

/* Puts all descriptors into the tables that are not: of those that came over exec nothing is known, and
 * a child could not tell them from what it gets later. */
static void scan(void)
{
        _Alignas(struct dirent64) char buf[2048];
        const int dir = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/fd",
                                     O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
        long n;

        if (dir < 0) {
                for (int fd = 0; fd < PROBED_MAX; fd++)
                        if (syscall(SYS_fcntl, fd, F_GETFD) >= 0)
                                private_notice(fd);
                return;
        }
        while ((n = syscall(SYS_getdents64, dir, buf, sizeof buf)) > 0) {
                for (long at = 0; at < n;) {
                        const struct dirent64 *entry = (const struct dirent64 *)(buf + at);
                        const int fd = number_of(entry->d_name);

                        at += entry->d_reclen;
                        if (fd >= 0 && fd != dir)
                                private_notice(fd);
                }
        }
        syscall(SYS_close, dir);
}

/* ---- around a fork ---- */

/* The descriptors of group i that are known to be open. */
static uint64_t open_in(unsigned i)
{
        return atomic_load(&fd_groups[i].active) | atomic_load(&fd_groups[i].own.known);
}

/* True if `fd` shares its description with 0, 1 or 2. */
static bool is_standard(int fd)
{
        for (int std = 0; std <= 2; std++) {
                int64_t offset;

                if (fd != std && (atomic_load(&group_of(std)->looked) & bit_of(std)) &&
                    private_note_of(std)->kind == KIND_OURS &&
                    same_file(private_note_of(std), private_note_of(fd)) &&
                    look(std, &offset) && private_same_description(fd, std, true))
                        return true;
        }
        return false;
}

/* Notes one descriptor; true if there is an offset for a child.  Nothing is written that is there already:
 * each page that is written after a fork is copied. */
static bool take(int fd)
{
        struct private_group *group = group_of(fd);
        int64_t offset = -1;
        bool taken;

        if (fd <= 2) {
                (void)look(fd, &offset);
                return false;
        }
        if (private_pending(fd)) /* not touched since this process's own fork: as noted for that */
                return false;
        taken = look(fd, &offset) && offset >= 0 && !is_standard(fd);
        if (taken && private_note_of(fd)->offset != offset)
                private_note_of(fd)->offset = offset;
        if (taken && !(atomic_load(&group->taken) & bit_of(fd)))
                atomic_fetch_or(&group->taken, bit_of(fd));
        else if (!taken && (atomic_load(&group->taken) & bit_of(fd)))
                atomic_fetch_and(&group->taken, ~bit_of(fd));
        return taken;
}

/* errno is in memory that a fork copies, too. */
static void restore_errno(int saved)
{
        if (errno != saved)
                errno = saved;
}

void private_prepare(void)
{
        const int saved = errno;
        bool any = false;
        unsigned used;

        if (!private_on || !fd_table_mine())
                return;
        if (private_lock())
                *forks() = NO_FORK;
        if (!scanned) {
                scan();
                scanned = true;
        }
        used = fd_table_used();
        for (unsigned i = 0; i < used; i++)
                for (uint64_t left = open_in(i); left; left &= left - 1)
                        any |= take((int)(64 * i) + __builtin_ctzll(left));
        *forks() = *forks() << 1 | any;
        if (any)
                forking++;
        restore_errno(saved);
}

void private_parent(void)
{
        const int saved = errno;

        /* On a parent's memory private_prepare() has done nothing. */
        if (!private_on || !fd_table_mine())
                return;
        if (*forks() & 1)
                forking--;
        *forks() >>= 1;
        if (*forks() == NO_FORK)
                private_unlock();
        restore_errno(saved);
}

/* What other threads of the parent changed after private_prepare() had looked. */
static void take_late(unsigned i)
{
        uint64_t left = open_in(i) & ~atomic_load(&fd_groups[i].own.looked);

        for (; left; left &= left - 1)
                (void)take((int)(64 * i) + __builtin_ctzll(left));
}

void private_child_seen(void)
{
        if (private_on && atomic_load(fd_table_marked) != FD_TABLE_MARKED)
                forking = 1;
}

void private_child(void)
{
        const int saved = errno;
        unsigned used;

        if (!forking || !private_on) /* a child that nobody has seen coming */
                return;
        forking = 0;
        used = fd_table_used();
        for (unsigned i = 0; i < used; i++) {
                struct private_group *group = &fd_groups[i].own;
                uint64_t pending;

                take_late(i);
                pending = atomic_load(&group->taken) & atomic_load(&group->looked);
                if (pending & ~atomic_load(&group->pending))
                        atomic_fetch_or(&group->pending, pending);
        }
        restore_errno(saved);
}

/* ---- copies, and who is the same ---- */

void private_copied(int from, int to)
{
        if ((unsigned)from >= FD_TABLE_MAX || (unsigned)to >= FD_TABLE_MAX)
                return;
        private_forget((unsigned)to / 64, bit_of(to));
        if (!(fd_table_bits(from) & FD_ACTIVE) && (atomic_load(&group_of(from)->known) & bit_of(from)))
                private_notice(to);
        if (to <= 2 || !private_pending(from))
                return;
        *private_note_of(to) = *private_note_of(from);
        atomic_fetch_or(&group_of(to)->looked, bit_of(to));
        atomic_fetch_or(&group_of(to)->pending, bit_of(to));
}

void private_foreach_same(int fd, void (*fn)(int fd, void *data), void *data)
{
        const struct private_note note = *private_note_of(fd);
        const unsigned used = fd_table_used();

        for (unsigned i = 0; i < used; i++) {
                uint64_t left = atomic_load(&fd_groups[i].own.pending);

                for (; left; left &= left - 1) {
                        const int other = (int)(64 * i) + __builtin_ctzll(left);

                        if (same_file(&note, private_note_of(other)))
                                fn(other, data);
                }
        }
}

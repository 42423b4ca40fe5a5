/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * private: what is known of a process's descriptors so that a child can have its own.
 *
 * In private mode (k42run --fork=private, or fork=private: of the mount) a forked child gets, for each
 * inherited descriptor that it touches, a description of its own at the offset that the inherited one
 * had *at the fork*.  By the time of the touch the parent may have moved that offset, so it has to be
 * noted at the fork; and to note it must not cost a message.
 *
 * When.  Not in the child: the parent runs on, and may read before the child's first line does.  So
 * the parent notes, in the last of the handlers that fork(2) runs before it, with lseek(fd, 0,
 * SEEK_CUR), which the kernel answers alone.  For a parent with one thread that is exact.  If other
 * threads move an offset while one forks, what is noted is the offset at some moment between the call
 * of fork() and the child's beginning, which is all that fork() promises: their I/O is concurrent
 * with it.  (K42's mistake was another one: what it marked before the fork could be
 * changed until the fork.)  What other threads open, close or copy in between is not lost or mistaken:
 * each change of a descriptor takes back its `looked` bit, in the same memory that the fork copies,
 * so the child knows which notes still hold, and looks at the rest itself before user code runs.
 *
 * What.  Only descriptors of k42fs mounts: lseek() waits for a read that is under way on the same
 * description, and a file of another kind (/proc/kmsg) may never end one.  The kind of a descriptor is
 * looked at once: statx(2), without a message, and /proc/self/mountinfo once for each mount.  A second
 * fork costs the lseek() alone.
 *
 * Which are not noted, so that they stay shared: 0, 1, 2, and whatever shares its description
 * with one of them; at the touch then those with O_APPEND.
 *
 * Nested forks: a descriptor that this process has not touched itself has, for its children, the
 * offset that was noted for this process, whatever the description's is by now.
 *
 * Copies: who copies a noted descriptor copies the note; to 0, 1 or 2 it does not.
 *
 * Children that are not seen (clone(2) without our handlers, vfork, posix_spawn) share what their
 * parent shares.  After exec the tables are empty.
 *
 * Locks: one, for the process, held by who re-opens, and by who forks from the note until the
 * fork is over.  It lies on the page that fork wipes, so no child inherits it.  What is written at a fork is written
 * there, too: any other page would be copied for it, which costs more than all the rest.  A signal handler on
 * the thread that holds it for a fork passes; while re-opening, signals wait.
 *
 * In shared mode there are no tables here and each of these functions does nothing.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shim/fd_table.h"

enum private_mode {
        PRIVATE_OFF,      /* K42_FORK=shared */
        PRIVATE_ALL,      /* K42_FORK=private */
        PRIVATE_BY_MOUNT, /* neither: as the mount says */
};

/* Constant after private_init(). */
extern bool private_on; /* not shared mode, and there are tables */
extern enum private_mode private_mode;

/* Once, after fd_table_init(), before there are threads.  Returns 0; -ENOMEM if there are no tables, then the mode is
 * off. */
int private_init(enum private_mode mode);

/* What is noted of a descriptor below FD_TABLE_MAX. */
static inline struct private_note *private_note_of(int fd)
{
        return &fd_groups[(unsigned)fd / 64].notes[(unsigned)fd % 64];
}

/* The mode that K42_FORK says; `value` may be NULL. */
enum private_mode private_mode_of(const char *value);

static inline bool private_pending(int fd)
{
        return __builtin_expect(private_on, 0) && (unsigned)fd < FD_TABLE_MAX &&
               (atomic_load_explicit(&fd_groups[(unsigned)fd / 64].own.pending,
                                     memory_order_acquire) >>
                ((unsigned)fd % 64)) & 1;
}

/* Is anything known of the descriptors of group i in `mask`? */
static inline bool private_knows(unsigned i, uint64_t mask)
{
        const struct private_group *group = &fd_groups[i].own;

        return private_on && ((atomic_load_explicit(&group->looked, memory_order_relaxed) |
                               atomic_load_explicit(&group->known, memory_order_relaxed)) & mask);
}

/* They have changed: nothing is known of them any more. */
static inline void private_forget(unsigned i, uint64_t mask)
{
        struct private_group *group = &fd_groups[i].own;

        if (private_knows(i, mask)) {
                atomic_fetch_and(&group->pending, ~mask);
                atomic_fetch_and(&group->taken, ~mask);
                atomic_fetch_and(&group->looked, ~mask);
                atomic_fetch_and(&group->known, ~mask);
        }
}

/* `fd` is open, and came in a way that fd_table does not see: over exec, or in a message. */
void private_notice(int fd);

/* `to` is a copy of `from` now. */
void private_copied(int from, int to);

/* Around a fork: before it, and after it in the parent; after it in the child, before anything else uses
 * the tables there.  fork() itself runs them as pthread_atfork(3) handlers. */
void private_prepare(void);
void private_parent(void);
void private_child(void);

/* In the child of a fork that private_prepare() has seen, at its beginning. */
void private_child_seen(void);

/* What a descriptor is: fills in all but the offset.  False if it is not open. */
bool private_look(int fd, struct private_note *ret_note);

/* True if both descriptors of this process have the same description.  What the kernel refuses to
 * compare counts as `unknown`. */
bool private_same_description(int one, int other, bool unknown);

/* The descriptors that are noted as the same file as `fd` is: calls fn for each, `fd` included. */
void private_foreach_same(int fd, void (*fn)(int fd, void *data), void *data);

/* The lock.  Returns false if this thread has it already, and then it is not to be unlocked. */
bool private_lock(void);
void private_unlock(void);

/* private_reopen.c: the first touch of a pending descriptor.  Returns 0 if it is settled now, 1 if it
 * stays shared, or -errno if it cannot be re-opened: then it must not be used. */
int private_reopen(int fd);

/* Writes /proc/self/fd/FD and a short suffix to `to`, which has room for PRIVATE_FD_PATH_MAX bytes. */
#define PRIVATE_FD_PATH_MAX 48
void private_fd_path(char *to, int fd, const char *suffix);

/* Before a POSIX lock is taken on `fd`: re-opens what is pending of the same file, because to replace a
 * descriptor later would close one, and that ends all locks of the process on the file.  Returns 0 or
 * -errno. */
int private_before_lock(int fd);

/* private_ask.c: has the daemon open what `fd` is, as this process may not.  Returns a new
 * descriptor, or -errno. */
int private_ask(int fd);

/* mounts.c: is the file system with this minor number a k42fs mount?  `mount_id` is what statx(2)
 * says; `marked`: only one whose fork= says private for some of its files.  What cannot be found out is
 * true.  The caller holds the lock, or is alone. */
bool mounts_is_ours(uint32_t device, uint64_t mount_id, bool marked);

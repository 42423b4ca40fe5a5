/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * account: what processes with the shim say that they did where the daemon does not see it.  lazy/protocol.h
 * specifies the file and who writes what when.
 *
 * Finding it costs one system call at each open and re-open (process_vm_readv of the head, which fails where
 * there is none), because an exec puts another one, or none, in its place without anybody's knowledge.
 * Only a new nonce is looked after: by /proc/TID/map_files, first as an O_PATH descriptor, because what
 * a process has mapped there can be anything, also a file of our own mount, whose open would wait for us.
 * That takes CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE of the machine; without them the shim offers its file when it is
 * asked to, and what is taken from /proc/TID/fd is believed as little.
 *
 * What it says is added to nothing: a slot has absolute numbers, kept_handle.told[] has the last ones that
 * were read, and a new slot for the same handle (after exec) begins with those.  So it does not matter how
 * often a slot is read, or by how many daemons, and each number counts exactly once.
 *
 * Ownership: an account belongs to its client, and is closed with it.  What survives is the descriptor,
 * with the holder (struct account_holder), and the highest slot that was ever used (kept_client.account).
 *
 * Locks: lazy.account_lock, then account.lock; under them only reads and writes of the file, and references
 * are taken.
 */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct description;
struct lazy;
struct open_client_data;

/* Who keeps descriptors for the next daemon. */
struct account_holder {
        void (*hold)(uint64_t client, int fd, void *data); /* a duplicate of fd; -1: none any more */
        int (*take)(uint64_t client, void *data);          /* the caller's then; -errno.  While resuming */
        void *data;
};

/* Threads that look into their callers, which can keep them waiting: of which users these are. */
#define ACCOUNT_LOOKS 6
struct account_looks {
        GMutex lock;
        GCond ended;
        uid_t users[ACCOUNT_LOOKS]; /* under lock, like the next */
        unsigned n, waiting;
};

/* Before there are threads: there are accounts from now on. */
void account_set_holder(struct lazy *lazy, const struct account_holder *holder);

/* Thread `tid` is about to be told that it has the handle `token` on the description of a file: gives that
 * a slot, and says so, if its process has an account.  Never fails.  No lock held. */
void account_post(struct description *description, pid_t tid, uint64_t token);

/* Reads what is said of all handles. */
void account_collect(struct lazy *lazy);

/* The same of one handle that is being ended, for the last time: its slot is free. */
void account_end(struct open_client_data *data);

/* When clients and handles of an earlier daemon are there again, before there are threads. */
void account_resume(struct lazy *lazy);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * process_limits: what has been taken from a process as a whole, beside the rights of its handles.
 *
 * A process can hold descriptors that the daemon has never seen it use: inherited ones have no handle
 * before they are touched.  What is taken from "the process" must be taken from those, too; and what a
 * process withholds from its children must hold for handles that it gets later.  So this is a table
 * by process, which is asked when a handle is given:
 *
 *   rights, before   on descriptions opened before that moment it may have no more than `rights`
 *   inherit          what derives from its handles gets no more than these
 *   blocked_by       it may open nothing more, because that process (itself, or an ancestor) was blocked
 *
 * `inherit` and `blocked_by` hold for its descendants, too, as far as /proc leads from them to it: they
 * are found by walking up from the process that asks, which then gets an entry of its own, so that its
 * children find it when the ancestor is gone.  One whose parent ended before the daemon saw either of
 * them is lost; its inherited descriptors are still bound by lazy_state_bound().  `rights` is about the
 * process's own descriptors: who derives a handle from an ancestor's asks for each process on the way.
 *
 * Limits only grow tighter, but for `blocked_by`.  Identity is (pid, start time).  Entries of processes
 * that have ended are dropped when others come.
 *
 * Thread-safe; the lock is a leaf.  With an empty table, the usual case, asking costs one load.
 */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cobj/access_rights.h"

struct process_limits;

struct process_limit {
        pid_t pid;
        uint64_t start_time;  /* clock ticks since boot */
        access_rights rights; /* on descriptions that were opened … */
        int64_t before;       /* … before this, µs since the epoch; 0: none are limited */
        access_rights inherit;
        pid_t blocked_by;     /* 0: not blocked */
};

struct process_limits *process_limits_new(void); /* NULL if out of memory */
void process_limits_free(struct process_limits *limits);
typedef struct process_limits K42ProcessLimits; /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42ProcessLimits, process_limits_free)

/* The limits of `limit` are added to those of its process, which must be alive if `start_time` is 0: it
 * is looked up then.  `blocked` false leaves it as it is.  Returns 0, -ESRCH or -ENOMEM. */
int process_limits_add(struct process_limits *limits, const struct process_limit *limit);

bool process_limits_empty(struct process_limits *limits);

/* Ends what process_limits_add() blocked for `pid`, for its descendants too.  False if there was
 * nothing. */
bool process_limits_allow(struct process_limits *limits, pid_t pid);

/* The most that process `pid` may have of a description opened at `opened` (µs since the epoch).  No
 * system call if nothing was taken from it. */
access_rights process_limits_rights(struct process_limits *limits, pid_t pid, int64_t opened);

/* What its ancestors and itself together withhold from what derives from it, and whether it is
 * blocked.  Never fails: of what /proc does not tell nothing holds. */
access_rights process_limits_inherit(struct process_limits *limits, pid_t pid);
bool process_limits_blocked(struct process_limits *limits, pid_t pid);

/* Calls fn for each entry, the lock held. */
void process_limits_foreach(struct process_limits *limits,
                            void (*fn)(const struct process_limit *limit, void *data), void *data);

/* Parent and start time of a process that lives.  Returns 0 or -ESRCH. */
int process_parent(pid_t pid, pid_t *ret_ppid, uint64_t *ret_start_time);

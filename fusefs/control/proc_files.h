/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * proc_files: which inodes of the mount a process has open or mapped, as /proc tells.
 *
 * No descriptor is looked at through /proc/PID/fd: a stat there would be a request to ourselves,
 * and could hang on any other mount.  /proc/PID/fdinfo/N has the inode number and the mount id,
 * /proc/PID/maps the device and the inode number; neither asks a file system anything.
 *
 * Whatever is in doubt counts as open: the answer is used to end handles.
 */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* An inode to look for, and what was found. */
struct proc_want {
        uint64_t ino;
        unsigned modes;          /* access modes that matter, 1 << (flags & O_ACCMODE) */
        unsigned descriptors[4]; /* found, by access mode */
        bool mapped;
};

/* The mount ids of the mount namespaces that were met; good for one round of looking, because ids
 * are used again.  Zero it before, clear it after. */
struct proc_mounts {
        struct proc_mounts_of *namespaces;
};
typedef struct proc_mounts K42ProcMounts;
void proc_mounts_clear(struct proc_mounts *mounts);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(K42ProcMounts, proc_mounts_clear)

/* Fills in what process `pid` has of the `n` inodes in `want` (sorted by ino, each once) on device
 * `dev`.  Threads with a descriptor table of their own are looked at too.  O_PATH descriptors do
 * not count: there is no open description of ours behind them.  Returns 0, or -errno when not
 * everything could be seen (-EACCES: not our process; -ESRCH: gone); then `want` means nothing. */
int proc_files_look(struct proc_mounts *mounts, pid_t pid, dev_t dev, struct proc_want *want,
                    size_t n);

/* Whether any process has the inode `ino` on device `dev` open or mapped, with one of the access modes in
 * `modes` (as in struct proc_want): 1 or 0; -errno if not every process could be looked at, and none was found that
 * has it.  Looks at all processes there are: for what is done rarely. */
int proc_files_anybody(dev_t dev, uint64_t ino, unsigned modes);

/* Descriptors open in this process, -errno if /proc does not tell. */
int proc_files_own(void);

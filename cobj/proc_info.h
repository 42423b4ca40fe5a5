/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What /proc tells of a thread or process; see proc(5).  All relative to a descriptor of /proc. */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct proc_info {
        pid_t pid;           /* thread group */
        pid_t ppid;
        uid_t uid;           /* real */
        uint64_t start_time; /* of the thread group leader, clock ticks since boot */
};

/* Of the process that thread `tid` belongs to.  Returns 0; -ESRCH when it is not there (any more) or
 * only waits for being reaped; or another -errno when /proc could not be read (-EMFILE …), which says
 * nothing of the process. */
int proc_info_read(int proc_fd, pid_t tid, struct proc_info *ret_info);

/* Field 22 of /proc/PID/stat.  Returns 0 or -errno as above. */
int proc_start_time(int proc_fd, pid_t pid, uint64_t *ret_start_time);

/* What can be told without any descriptor: whether thread `tid` is there and belongs to process `pid`
 * (tid == pid: is that process's id).  One system call; true also for what waits for being reaped. */
bool proc_has_thread(pid_t pid, pid_t tid);

/* Owner of /proc/PID, which is the effective uid (root for what can't be dumped), without opening
 * anything.  Returns 0 or -ESRCH. */
int proc_owner(int proc_fd, pid_t pid, uid_t *ret_uid);

/* /proc/PID/comm without its newline, and the target of /proc/PID/exe; malloc'ed, or NULL. */
char *proc_comm(int proc_fd, pid_t pid);
char *proc_exe(int proc_fd, pid_t pid);

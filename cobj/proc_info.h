/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What /proc tells of a thread or process; see proc(5).  All relative to a descriptor of /proc. */
#include <stdint.h>
#include <sys/types.h>

struct proc_info {
        pid_t pid;           /* thread group */
        pid_t ppid;
        uid_t uid;           /* real */
        uint64_t start_time; /* of the thread group leader, clock ticks since boot */
};

/* Of the process that thread `tid` belongs to.  Returns 0, -ESRCH when it is not there (any more) or has
 * ended and is not reaped, or another -errno when it cannot be looked at (no descriptor to be had). */
int proc_info_read(int proc_fd, pid_t tid, struct proc_info *ret_info);

/* Field 22 of /proc/PID/stat.  Returns as above. */
int proc_start_time(int proc_fd, pid_t pid, uint64_t *ret_start_time);

/* /proc/PID/comm without its newline, and the target of /proc/PID/exe; malloc'ed, or NULL. */
char *proc_comm(int proc_fd, pid_t pid);
char *proc_exe(int proc_fd, pid_t pid);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A command's name may contain anything, newlines and parentheses too: /proc/PID/status escapes
 * newlines, and in /proc/PID/stat the name ends at the *last* closing parenthesis. */
#include "cobj/proc_info.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Reads /proc/PID/NAME into `text`, NUL-terminated; its length or -errno, -ESRCH if it is gone. */
static ssize_t read_file(int proc_fd, pid_t pid, const char *name, char *text, size_t size)
{
        char path[48];
        ssize_t n;
        int fd, err;

        snprintf(path, sizeof path, "%d/%s", (int)pid, name);
        fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? -ESRCH : -errno;
        do
                n = read(fd, text, size - 1);
        while (n < 0 && errno == EINTR);
        err = n < 0 ? errno : ESRCH;
        close(fd);
        if (n <= 0)
                return -err;
        text[n] = '\0';
        return n;
}

static bool status_number(const char *status, const char *key, long *ret_number)
{
        const char *at = strstr(status, key);

        return at && sscanf(at + strlen(key), "%ld", ret_number) == 1;
}

int proc_start_time(int proc_fd, pid_t pid, uint64_t *ret_start_time)
{
        char text[1024], state;
        const char *at;
        unsigned long long start_time;
        long threads;
        ssize_t n = read_file(proc_fd, pid, "stat", text, sizeof text);

        if (n < 0)
                return (int)n;
        at = strrchr(text, ')');
        /* Fields 3, 20 and 22. */
        if (!at || sscanf(at + 1,
                          " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d"
                          " %ld %*d %llu",
                          &state, &threads, &start_time) != 3)
                return -EPROTO;
        /* A leader that ended before its threads looks like a zombie, too. */
        if ((state == 'Z' || state == 'X' || state == 'x') && threads <= 1)
                return -ESRCH;
        *ret_start_time = start_time;
        return 0;
}

int proc_info_read(int proc_fd, pid_t tid, struct proc_info *ret_info)
{
        char status[4096];
        long pid, ppid, uid;
        ssize_t n = read_file(proc_fd, tid, "status", status, sizeof status);
        int r;

        if (n < 0)
                return (int)n;
        if (!status_number(status, "\nTgid:", &pid) || !status_number(status, "\nPPid:", &ppid) ||
            !status_number(status, "\nUid:", &uid))
                return -EPROTO;
        if (pid <= 0) /* released while it was read */
                return -ESRCH;
        *ret_info = (struct proc_info){.pid = (pid_t)pid, .ppid = (pid_t)ppid, .uid = (uid_t)uid};
        r = proc_start_time(proc_fd, (pid_t)pid, &ret_info->start_time);
        return r;
}

bool proc_has_thread(pid_t pid, pid_t tid)
{
        /* Signal 0 is not sent, the kernel only looks for whom it would be.  Being forbidden to
         * send one (EPERM, or what a security module says) means that there is somebody. */
        return syscall(SYS_tgkill, pid, tid, 0) == 0 || errno != ESRCH;
}

int proc_owner(int proc_fd, pid_t pid, uid_t *ret_uid)
{
        char path[16];
        struct stat st;

        snprintf(path, sizeof path, "%d", (int)pid);
        if (fstatat(proc_fd, path, &st, 0) < 0)
                return -ESRCH;
        *ret_uid = st.st_uid;
        return 0;
}

char *proc_comm(int proc_fd, pid_t pid)
{
        char text[64];
        ssize_t n = read_file(proc_fd, pid, "comm", text, sizeof text);

        if (n < 0)
                return NULL;
        if (text[n - 1] == '\n')
                text[n - 1] = '\0';
        return strdup(text);
}

char *proc_exe(int proc_fd, pid_t pid)
{
        char path[32], target[PATH_MAX];
        ssize_t n;

        snprintf(path, sizeof path, "%d/exe", (int)pid);
        n = readlinkat(proc_fd, path, target, sizeof target);
        return n > 0 ? strndup(target, (size_t)n) : NULL;
}

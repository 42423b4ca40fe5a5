/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fusefs/holder/dying.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fusefs/worker/teller.h"

struct linux_dirent64 {
        ino64_t d_ino;
        off64_t d_off;
        unsigned short d_reclen;
        unsigned char d_type;
        char d_name[];
};

/* What `file` below /proc/PID/task/TID says; false if it is gone. */
static bool read_task(pid_t pid, const char *tid, const char *file, char *ret_text, size_t size)
{
        char path[80];
        ssize_t n;
        int fd;

        snprintf(path, sizeof path, "/proc/%d/task/%s/%s", (int)pid, tid, file);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return false;
        n = read(fd, ret_text, size - 1);
        close(fd);
        ret_text[n > 0 ? n : 0] = '\0';
        return n > 0;
}

/* "PID (COMM) STATE … EXIT_CODE": true if the state is that of a zombie. */
static bool parse_zombie(const char *stat, int *ret_status)
{
        const char *comm_end = strrchr(stat, ')'), *last = strrchr(stat, ' ');

        if (!comm_end || !last || comm_end[1] != ' ' || comm_end[2] != 'Z')
                return false;
        *ret_status = (int)strtol(last + 1, NULL, 10);
        return true;
}

static bool is_teller(const char *stat)
{
        return strstr(stat, "(" TELLER_NAME ")") != NULL;
}

static bool look_at_task(pid_t pid, const char *tid, int *ret_status)
{
        char stat[1024];

        if (!read_task(pid, tid, "stat", stat, sizeof stat))
                return true; /* gone meanwhile */
        return atoi(tid) == pid ? parse_zombie(stat, ret_status) : is_teller(stat);
}

bool worker_is_as_good_as_dead(pid_t pid, int *ret_status)
{
        char path[32], entries[4096] __attribute__((aligned(8)));
        bool dead = true;
        int fd, status = SIGKILL;
        long n;

        snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return false;
        while (dead && (n = syscall(SYS_getdents64, fd, entries, sizeof entries)) > 0) {
                for (long at = 0; dead && at < n;) {
                        const struct linux_dirent64 *entry = (const void *)(entries + at);

                        if (entry->d_name[0] != '.')
                                dead = look_at_task(pid, entry->d_name, &status);
                        at += entry->d_reclen;
                }
        }
        close(fd);
        if (dead)
                *ret_status = status;
        return dead;
}

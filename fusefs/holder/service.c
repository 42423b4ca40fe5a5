/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Names of kept descriptors: "k42-WORD", and "k42-p-KEY" with 16 hex digits for what is parked.
 */
#include "fusefs/holder/service.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTEN_FDS_START 3
#define SEND_MS          200
#define PREFIX           "k42-"
#define PARKED_PREFIX    "p-"

static int notify_fd = -1;
static char **kept_names; /* NULL: taken, or never ours */
static int n_kept;

static void open_notify(const char *path)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        const struct timeval timeout = {.tv_usec = SEND_MS * 1000};
        const size_t length = strlen(path);

        if (length < 2 || length >= sizeof address.sun_path || (path[0] != '/' && path[0] != '@'))
                return;
        memcpy(address.sun_path, path, length);
        if (path[0] == '@')
                address.sun_path[0] = '\0';
        notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (notify_fd < 0)
                return;
        setsockopt(notify_fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
        if (connect(notify_fd, (struct sockaddr *)&address,
                    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0) {
                close(notify_fd);
                notify_fd = -1;
        }
}

/* The descriptors from 3 on are ours if the environment says that they are this process's. */
static void read_kept(const char *pid, const char *fds, const char *names)
{
        char *rest, *name;

        if (!pid || !fds || !names || strtol(pid, NULL, 10) != getpid())
                return;
        n_kept = atoi(fds);
        kept_names = n_kept > 0 ? calloc((size_t)n_kept, sizeof *kept_names) : NULL;
        rest = strdup(names);
        if (!kept_names || !rest) {
                n_kept = 0;
                return;
        }
        for (int i = 0; i < n_kept; i++) {
                fcntl(LISTEN_FDS_START + i, F_SETFD, FD_CLOEXEC);
                name = strsep(&rest, ":");
                if (name && strncmp(name, PREFIX, strlen(PREFIX)) == 0)
                        kept_names[i] = name + strlen(PREFIX);
        }
}

void service_init(void)
{
        const char *notify = getenv("NOTIFY_SOCKET");

        read_kept(getenv("LISTEN_PID"), getenv("LISTEN_FDS"), getenv("LISTEN_FDNAMES"));
        if (notify)
                open_notify(notify);
        unsetenv("NOTIFY_SOCKET");
        unsetenv("LISTEN_PID");
        unsetenv("LISTEN_FDS");
        unsetenv("LISTEN_FDNAMES");
}

bool service_inherits(void)
{
        for (int i = 0; i < n_kept; i++)
                if (kept_names[i] && strcmp(kept_names[i], "fuse") == 0)
                        return true;
        return false;
}

int service_take(const char *name)
{
        for (int i = 0; i < n_kept; i++) {
                if (!kept_names[i] || strcmp(kept_names[i], name) != 0)
                        continue;
                kept_names[i] = NULL;
                return LISTEN_FDS_START + i;
        }
        return -1;
}

bool service_take_parked(uint64_t *ret_key, int *ret_fd)
{
        for (int i = 0; i < n_kept; i++) {
                if (!kept_names[i] ||
                    sscanf(kept_names[i], PARKED_PREFIX "%16" SCNx64, ret_key) != 1)
                        continue;
                kept_names[i] = NULL;
                *ret_fd = LISTEN_FDS_START + i;
                return true;
        }
        return false;
}

static __attribute__((format(printf, 2, 3))) void notify(int fd, const char *format, ...)
{
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int))];
        } control = {.space = {0}};
        char text[256];
        struct iovec iov = {.iov_base = text};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        va_list args;
        int length;

        if (notify_fd < 0)
                return;
        va_start(args, format);
        length = vsnprintf(text, sizeof text, format, args);
        va_end(args);
        if (length < 0 || (size_t)length >= sizeof text)
                return;
        iov.iov_len = (size_t)length;
        if (fd >= 0) {
                struct cmsghdr *cmsg;

                msg.msg_control = control.space;
                msg.msg_controllen = sizeof control.space;
                cmsg = CMSG_FIRSTHDR(&msg);
                cmsg->cmsg_level = SOL_SOCKET;
                cmsg->cmsg_type = SCM_RIGHTS;
                cmsg->cmsg_len = CMSG_LEN(sizeof fd);
                memcpy(CMSG_DATA(cmsg), &fd, sizeof fd);
        }
        while (sendmsg(notify_fd, &msg, MSG_NOSIGNAL) < 0 && errno == EINTR)
                ;
}

/* FDPOLL=0: the manager would drop a descriptor that has an error to report, as /dev/fuse may. */
void service_keep(const char *name, int fd)
{
        notify(fd, "FDSTORE=1\nFDPOLL=0\nFDNAME=" PREFIX "%s", name);
}

void service_keep_parked(uint64_t key, int fd)
{
        notify(fd, "FDSTORE=1\nFDPOLL=0\nFDNAME=" PREFIX PARKED_PREFIX "%016" PRIx64, key);
}

void service_drop(const char *name)
{
        notify(-1, "FDSTOREREMOVE=1\nFDNAME=" PREFIX "%s", name);
}

void service_drop_parked(uint64_t key)
{
        notify(-1, "FDSTOREREMOVE=1\nFDNAME=" PREFIX PARKED_PREFIX "%016" PRIx64, key);
}

void service_ready(pid_t main_pid)
{
        notify(-1, "READY=1\nMAINPID=%d\nSTATUS=Serving", (int)main_pid);
}

void service_stopping(void)
{
        notify(-1, "STOPPING=1");
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/ask.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include "ctl/control_protocol.h"

#define ANSWER_MAX   (G_MAXUINT32 / 2)
#define ASK_AGAIN_US 20000

/* Connects to the socket in `state_dir`, however long its path is.  Returns a descriptor or -errno.
 */
static int connect_to(const char *state_dir, int timeout)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        struct timeval tv = {.tv_sec = timeout};
        int dir, fd, r = 0;

        dir = open(state_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0)
                return -errno;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) {
                r = -errno;
                close(dir);
                return r;
        }
        g_snprintf(address.sun_path, sizeof(address.sun_path),
                   "/proc/self/fd/%d/" CONTROL_SOCKET_NAME, dir);
        if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) < 0 ||
            connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                r = errno == EAGAIN ? -ETIMEDOUT : -errno;
        close(dir);
        if (r < 0) {
                close(fd);
                return r;
        }
        return fd;
}

bool ask_nobody_there(int r)
{
        return r == -ENOENT || r == -ECONNREFUSED || r == -ENOTDIR || r == -ELOOP || r == -EACCES;
}

int ask_connect(struct target *target, int timeout)
{
        g_autofree char *link = NULL, *linked = NULL, *standard = NULL;
        int r;

        if (target->state_dir)
                return connect_to(target->state_dir, timeout);
        link = control_device_link(target->uid, major(target->dev), minor(target->dev));
        linked = g_file_read_link(link, NULL);
        r = linked ? connect_to(linked, timeout) : -ENOENT;
        if (r >= 0) {
                target->state_dir = g_steal_pointer(&linked);
                return r;
        }
        if (r == -ETIMEDOUT)
                return r;
        standard = control_default_state_dir(target->mountpoint, target->uid);
        if (!linked)
                r = connect_to(standard, timeout);
        if (r >= 0)
                target->state_dir = g_steal_pointer(&standard);
        return r;
}

static int send_all(int fd, const char *data, size_t length)
{
        while (length > 0) {
                ssize_t n = send(fd, data, length, MSG_NOSIGNAL);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return errno == EAGAIN ? -ETIMEDOUT : -errno;
                data += n;
                length -= (size_t)n;
        }
        return 0;
}

/* One line, without its newline.  `timeout` seconds without anything new end it. */
static int receive_line(int fd, int timeout, GByteArray *line)
{
        uint8_t buffer[65536];

        for (;;) {
                struct pollfd wait = {.fd = fd, .events = POLLIN};
                const uint8_t *end;
                ssize_t n;
                int r = poll(&wait, 1, timeout * 1000);

                if (r < 0 && errno == EINTR)
                        continue;
                if (r == 0)
                        return -ETIMEDOUT;
                n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
                if (n < 0 && (errno == EINTR || errno == EAGAIN))
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        return -ECONNRESET;
                end = memchr(buffer, '\n', (size_t)n);
                g_byte_array_append(line, buffer, (guint)(end ? end - buffer : n));
                if (end)
                        return 0;
                if (line->len > ANSWER_MAX)
                        return -EMSGSIZE;
        }
}

/* Who listens on the socket at the other end of `fd`, into the process ids that the caller wants.
 */
static void note_listener(int fd, struct target_listener *ret_listener)
{
        struct ucred cred;
        socklen_t size = sizeof(cred);

        if (!ret_listener || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0)
                return;
        ret_listener->pid = cred.pid;
        ret_listener->uid = cred.uid;
}

/* One attempt: the line of the answer, or -errno.  -ECONNRESET or -EPIPE: whoever took the request
 * ended before it answered. */
static int ask_once(struct target *target, int timeout, const char *request, GByteArray *line,
                    struct target_listener *ret_listener)
{
        int fd = ask_connect(target, timeout), r;

        if (fd < 0)
                return fd;
        note_listener(fd, ret_listener);
        /* a daemon that refuses has answered before it read */
        send_all(fd, request, strlen(request));
        g_byte_array_set_size(line, 0);
        r = receive_line(fd, timeout, line);
        close(fd);
        return r;
}

int ask_until_answered(struct target *target, int timeout, const char *verb, const char *args,
                       GByteArray *line, struct target_listener *ret_listener)
{
        g_autofree char *request =
                g_strdup_printf("{\"verb\":\"%s\",\"args\":%s}\n", verb, args ? args : "{}");
        const int64_t deadline = g_get_monotonic_time() + timeout * G_TIME_SPAN_SECOND;
        bool asked = false;
        int r;

        for (;;) {
                r = ask_once(target, timeout, request, line, ret_listener);
                if (r != -ECONNRESET && r != -EPIPE)
                        return asked && ask_nobody_there(r) ? -ECONNRESET : r;
                asked = true;
                if (g_get_monotonic_time() >= deadline)
                        return r;
                g_usleep(ASK_AGAIN_US);
        }
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * --rights: withholds rights from what COMMAND's children inherit.
 *
 * It is said to the daemons, by this process that becomes COMMAND, and they and the kernel hold
 * everybody to it: nothing depends on the preloaded library, and nothing of it is in the environment.
 * Descriptors that this process has inherited itself are made its own first (LAZY_REOPEN), so that its
 * children's derive from it and not from whoever opened them.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "ctl/control_protocol.h"
#include "ctl/k42run.h"
#include "lazy/protocol.h"

#define FS_TYPE  "fuse.k42fs"
#define ANSWER_S 10
#define ATTEMPTS 5

/* A mount, as /proc/self/mountinfo has it. */
struct mount {
        char *mountpoint;
        unsigned dev_major, dev_minor, uid;
};

/* The bits of protocol.h's rights; cobj/access_rights.h has them in this order. */
static const char letters[] = "rwdc";

int k42run_parse_rights(const char *text, uint32_t *ret_rights)
{
        uint32_t rights = 0;

        if (!*text)
                return -EINVAL;
        for (; *text; text++) {
                const char *letter = strchr(letters, *text);

                if (!letter || (rights & (1u << (letter - letters))))
                        return -EINVAL;
                rights |= 1u << (letter - letters);
        }
        *ret_rights = rights;
        return 0;
}

/* One question, one answer of a line.  Returns its length or -errno; 0 if a daemon that died had taken it. */
static ssize_t ask_once(const struct sockaddr_un *address, const char *question, char *answer, size_t size)
{
        const struct timeval patience = {.tv_sec = ANSWER_S};
        const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        size_t have = 0;
        ssize_t n = -1;

        if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0 &&
            connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 &&
            send(fd, question, strlen(question), MSG_NOSIGNAL) == (ssize_t)strlen(question))
                while ((n = recv(fd, answer + have, size - 1 - have, 0)) > 0 && have + (size_t)n < size - 1)
                        have += (size_t)n;
        if (n < 0)
                n = errno == ECONNRESET || errno == EPIPE ? 0 : -errno;
        else
                n = (ssize_t)have;
        if (fd >= 0)
                close(fd);
        answer[have] = '\0';
        return n;
}

/* By the control socket, which is no request on the mount: it would be counted there.  Returns 0 or -errno,
 * -EOPNOTSUPP if the daemon cannot; another error if it cannot be asked so. */
static int withhold_by_socket(const struct mount *mount, uint32_t rights)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        g_autofree char *directory = control_device_link(mount->uid, mount->dev_major, mount->dev_minor);
        char question[96], named[sizeof letters] = "-", answer[256];
        ssize_t n = 0;

        for (unsigned i = 0, at = 0; letters[i]; i++)
                if (rights & (1u << i))
                        named[at++] = letters[i];
        if ((size_t)snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", directory, CONTROL_SOCKET_NAME) >=
            sizeof address.sun_path)
                return -ENAMETOOLONG;
        snprintf(question, sizeof question, "{\"verb\":\"withhold\",\"args\":{\"rights\":\"%s\"}}\n", named);
        for (int i = 0; n == 0 && i < ATTEMPTS; i++)
                n = ask_once(&address, question, answer, sizeof answer);
        if (n <= 0 || strncmp(answer, CONTROL_RESULT_BEGIN, strlen(CONTROL_RESULT_BEGIN)) != 0)
                return n < 0 ? (int)n : -EPROTO;
        return strstr(answer, "\"withheld\":true") ? 0 : -EOPNOTSUPP;
}

static int withhold_by_message(const char *mountpoint, uint32_t rights)
{
        struct k42_withhold message = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message},
                .rights = rights,
        };
        const int fd = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        const int r = fd < 0 || ioctl(fd, K42_IOC_WITHHOLD, &message) < 0 ? -errno : 0;

        if (fd >= 0)
                close(fd);
        return fd < 0 && r == -EACCES ? -ENOENT : r; /* another user's; or covered, and there is nothing */
}

/* True if it holds; else after a line, if that is worth one. */
static bool withhold(const struct mount *mount, uint32_t rights)
{
        int r = withhold_by_socket(mount, rights);

        if (r < 0 && r != -EOPNOTSUPP)
                r = withhold_by_message(mount->mountpoint, rights);
        if (r == -EOPNOTSUPP)
                fprintf(stderr,
                        "k42run: %s: --rights cannot hold here: the kernel reads and writes by "
                        "itself; mount with -o io=counted\n",
                        mount->mountpoint);
        else if (r < 0 && r != -ENOENT)
                fprintf(stderr, "k42run: %s: --rights cannot hold here: %s\n", mount->mountpoint,
                        strerror(-r));
        return r == 0;
}

/* False if the line is of another kind of mount.  The mount point is to be freed. */
static bool parse_mount(const char *line, struct mount *ret_mount)
{
        g_auto(GStrv) fields = g_strsplit(line, " ", 6);
        const char *type = strstr(line, " - " FS_TYPE " "), *uid = type ? strstr(type, "user_id=") : NULL;

        if (!uid || g_strv_length(fields) < 6 ||
            sscanf(fields[2], "%u:%u", &ret_mount->dev_major, &ret_mount->dev_minor) != 2)
                return false;
        ret_mount->uid = (unsigned)strtoul(uid + strlen("user_id="), NULL, 10);
        ret_mount->mountpoint = g_strcompress(fields[4]);
        return true;
}

/* Makes each inherited descriptor of a mount this process's own; one that is not of a k42fs mount, or
 * may not be re-opened (then children get nothing either), is left. */
static void touch_inherited(void)
{
        DIR *dir = opendir("/proc/self/fd");
        struct dirent *entry;

        while (dir && (entry = readdir(dir))) {
                struct k42_lazy_reopen message = {
                        .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message},
                };
                const int fd = atoi(entry->d_name);
                struct stat st;

                if (entry->d_name[0] != '.' && fd != dirfd(dir) && fstat(fd, &st) == 0 &&
                    (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) &&
                    ioctl(fd, K42_IOC_LAZY_REOPEN, &message) < 0)
                        continue;
        }
        if (dir)
                closedir(dir);
}

int k42run_withhold(uint32_t rights)
{
        FILE *mounts = fopen("/proc/self/mountinfo", "re");
        g_autofree char *line = NULL;
        size_t room = 0;
        unsigned held = 0;
        struct mount mount;
        int r;

        if (!mounts) {
                r = -errno;
                fprintf(stderr, "k42run: /proc/self/mountinfo: %s\n", strerror(-r));
                return r;
        }
        touch_inherited();
        while (getline(&line, &room, mounts) >= 0) {
                if (!parse_mount(line, &mount))
                        continue;
                held += withhold(&mount, rights);
                g_free(mount.mountpoint);
        }
        fclose(mounts);
        if (held == 0)
                fprintf(stderr, "k42run: --rights: there is no k42fs mount that could hold it\n");
        return held > 0 ? 0 : -EOPNOTSUPP;
}

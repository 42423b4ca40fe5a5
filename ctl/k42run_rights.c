/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * --rights: withholds rights from what COMMAND's children inherit.
 *
 * It is said to the daemons, by this process that becomes COMMAND, and they and the kernel hold
 * everybody to it: nothing depends on the preloaded library, and nothing of it is in the
 * environment. Descriptors that this process has inherited itself are made its own first
 * (LAZY_REOPEN), so that its children's derive from it and not from whoever opened them.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/ask.h"
#include "ctl/control_protocol.h"
#include "ctl/k42run.h"
#include "lazy/protocol.h"

#define ANSWER_S 10

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

/* By the control socket, which is no request on the mount: it would be counted there.  Returns 0 or
 * -errno, -EOPNOTSUPP if the daemon cannot; another error if it cannot be asked so. */
static int withhold_by_socket(struct target *target, uint32_t rights)
{
        static const char withheld[] = CONTROL_RESULT_BEGIN "{\"withheld\":true}",
                          not_withheld[] = CONTROL_RESULT_BEGIN "{\"withheld\":false}";
        g_autoptr(GByteArray) line = g_byte_array_new();
        char args[32], named[sizeof letters] = "-";
        int r;

        for (unsigned i = 0, at = 0; letters[i]; i++)
                if (rights & (1u << i))
                        named[at++] = letters[i];
        snprintf(args, sizeof args, "{\"rights\":\"%s\"}", named);
        r = ask_until_answered(target, ANSWER_S, "withhold", args, line, NULL);
        if (r < 0)
                return r;
        g_byte_array_append(line, (const guint8 *)"", 1);
        if (g_str_has_prefix((const char *)line->data, not_withheld))
                return -EOPNOTSUPP;
        return g_str_has_prefix((const char *)line->data, withheld) ? 0 : -EPROTO;
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
        return fd < 0 && r == -EACCES ? -ENOENT
                                      : r; /* another user's; or covered, and there is nothing */
}

/* True if it holds; else after a line, if that is worth one. */
static bool withhold(struct target *target, uint32_t rights)
{
        int r = withhold_by_socket(target, rights);

        if (r < 0 && r != -EOPNOTSUPP)
                r = withhold_by_message(target->mountpoint, rights);
        if (r == -EOPNOTSUPP)
                fprintf(stderr,
                        "k42run: %s: --rights cannot hold here: the kernel reads and writes by "
                        "itself; mount with -o io=counted\n",
                        target->mountpoint);
        else if (r < 0 && r != -ENOENT)
                fprintf(stderr, "k42run: %s: --rights cannot hold here: %s\n", target->mountpoint,
                        strerror(-r));
        return r == 0;
}

/* Makes each inherited descriptor of a mount this process's own; one that is not of a k42fs mount,
 * or may not be re-opened (then children get nothing either), is left. */
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
        g_autoptr(GPtrArray) targets = targets_mounted();
        unsigned held = 0;

        touch_inherited();
        for (guint i = 0; i < targets->len; i++)
                held += withhold(targets->pdata[i], rights);
        if (held == 0)
                fprintf(stderr, "k42run: --rights: there is no k42fs mount that could hold it\n");
        return held > 0 ? 0 : -EOPNOTSUPP;
}

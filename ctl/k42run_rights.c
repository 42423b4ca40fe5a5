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
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/k42run.h"
#include "lazy/protocol.h"

#define FS_TYPE "fuse.k42fs"

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

/* Returns 0, or -errno after a line. */
static int withhold(int fd, const char *mountpoint, uint32_t rights)
{
        struct k42_withhold message = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message},
                .rights = rights,
        };
        int r = ioctl(fd, K42_IOC_WITHHOLD, &message) < 0 ? -errno : 0;

        if (r == -EOPNOTSUPP)
                fprintf(stderr,
                        "k42run: %s: --rights cannot hold here: the kernel reads and writes by "
                        "itself; mount with -o io=counted\n",
                        mountpoint);
        else if (r < 0)
                fprintf(stderr, "k42run: %s: --rights cannot hold here: %s\n", mountpoint,
                        strerror(-r));
        return r;
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
        FILE *mounts = setmntent("/proc/self/mounts", "re");
        struct mntent *entry;
        unsigned held = 0;
        int r;

        if (!mounts) {
                r = -errno;
                fprintf(stderr, "k42run: /proc/self/mounts: %s\n", strerror(-r));
                return r;
        }
        touch_inherited();
        while ((entry = getmntent(mounts))) {
                int fd;

                if (strcmp(entry->mnt_type, FS_TYPE) != 0)
                        continue;
                fd = open(entry->mnt_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                if (fd < 0) {
                        if (errno != EACCES && errno != ENOENT) /* another user's, or covered */
                                fprintf(stderr, "k42run: %s: --rights cannot hold here: %s\n",
                                        entry->mnt_dir, strerror(errno));
                        continue;
                }
                held += withhold(fd, entry->mnt_dir, rights) == 0;
                close(fd);
        }
        endmntent(mounts);
        if (held == 0)
                fprintf(stderr, "k42run: --rights: there is no k42fs mount that could hold it\n");
        return held > 0 ? 0 : -EOPNOTSUPP;
}

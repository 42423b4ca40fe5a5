/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The way to the state directory leads through a directory of the mount's owner, who may not be the one who
 * clears up: nothing is removed from a directory that is not the owner's own, and nothing while its lock
 * is held.
 */
#include "ctl/clear_dead.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "ctl/control_protocol.h"
#include "ctl/state_files.h"

static int take_off(const struct target *target)
{
        const char *argv[] = {"fusermount3", "-u", "-q", "-z", "--", target->mountpoint, NULL};
        g_autoptr(GError) error = NULL;
        int status;

        if (geteuid() == 0) {
                if (umount2(target->mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
                        return EXIT_GOOD;
                ctl_complain("%s: cannot be unmounted: %s", target->mountpoint, g_strerror(errno));
                return EXIT_FAILED;
        }
        if (g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL,
                         &status, &error) &&
            g_spawn_check_wait_status(status, &error))
                return EXIT_GOOD;
        ctl_complain("%s: cannot be unmounted: %s", target->mountpoint, error->message);
        return EXIT_FAILED;
}

static void clear_directory(const char *path, uid_t owner)
{
        g_autofree char *parent = g_path_get_dirname(path);
        struct stat st;
        bool made = false;
        int fd, r = 0;

        fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return;
        if (fstat(fd, &st) < 0 || st.st_uid != owner || (st.st_mode & S_IWOTH))
                r = -EPERM;
        if (r == 0)
                r = state_files_clear_dead(fd, &made);
        close(fd);
        if (r == -EPERM || (r < 0 && r != -ENOENT && r != -EBUSY))
                ctl_complain("%s: is left: %s", path, g_strerror(-r));
        if (r == 0 && made && rmdir(path) == 0)
                rmdir(parent); /* the default places' directory, if this was the last */
}

int clear_dead(struct target *target)
{
        g_autofree char *link =
                control_device_link(target->uid, major(target->dev), minor(target->dev));
        g_autofree char *linked = g_file_read_link(link, NULL);
        g_autofree char *standard = control_default_state_dir(target->mountpoint, target->uid);

        if (take_off(target) != EXIT_GOOD)
                return EXIT_FAILED;
        if (linked)
                unlink(link);
        clear_directory(linked ? linked : standard, target->uid);
        return EXIT_GOOD;
}

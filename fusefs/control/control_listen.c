/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fusefs/control/control_listen.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include "ctl/control_protocol.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

/* Whoever connects could attach descriptors, which the kernel drops where we read.  The last close of a socket that
 * lingers, or of some files of a user's own FUSE server, then keeps our thread, and nobody else is heard.  Linux 6.16
 * can refuse them to the sender.  Connections have this from the listener. */
static void take_no_descriptors(int fd)
{
        const int off = 0;

        if (setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof off) < 0)
                g_debug("control: descriptors are not refused: %s", g_strerror(errno));
}

/* The path of a socket is at most 107 bytes long, that of a directory is not. */
static int make_socket(struct state_dir *dir, int *ret_fd)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd, r;

        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        take_no_descriptors(fd);
        g_snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s",
                   state_dir_fd(dir), CONTROL_SOCKET_NAME);
        if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
            fchmodat(state_dir_fd(dir), CONTROL_SOCKET_NAME, 0666, 0) < 0 ||
            listen(fd, CONTROL_BACKLOG) < 0) {
                r = -errno;
                close(fd);
                control_unlisten(dir);
                return r;
        }
        *ret_fd = fd;
        return 0;
}

int control_listen(struct state_dir *dir, int *ret_fd)
{
        int r = make_socket(dir, ret_fd);

        if (r < 0)
                g_warning("%s: cannot make the control socket: %s", state_dir_path(dir),
                          g_strerror(-r));
        return r;
}

void control_unlisten(struct state_dir *dir)
{
        unlinkat(state_dir_fd(dir), CONTROL_SOCKET_NAME, 0);
}

void control_make_device_link(struct state_dir *dir, dev_t dev)
{
        g_autofree char *parent = control_state_parent(geteuid());
        g_autofree char *path = control_device_link(geteuid(), major(dev), minor(dev));

        if (dev == 0)
                return;
        if (mkdir(parent, geteuid() == 0 ? 0755 : 0700) == 0) {
                if (geteuid() == 0 && chmod(parent, 0755) < 0)
                        g_debug("%s: chmod: %s", parent, g_strerror(errno));
        } else if (errno != EEXIST) {
                return;
        }
        /* one that is there is a dead daemon's: the device number is ours now */
        unlink(path);
        if (symlink(state_dir_path(dir), path) < 0)
                rmdir(parent);
}

void control_remove_device_link(struct state_dir *dir, dev_t dev)
{
        g_autofree char *parent = control_state_parent(geteuid());
        g_autofree char *path = control_device_link(geteuid(), major(dev), minor(dev));
        g_autofree char *target = dev == 0 ? NULL : g_file_read_link(path, NULL);

        if (!target)
                return;
        /* after umount another mount may have got the device number */
        if (g_str_equal(target, state_dir_path(dir)))
                unlink(path);
        rmdir(parent);
}

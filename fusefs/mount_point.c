/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Mounting without libfuse.  For root it is one mount(2); for others fusermount3(1), which is
 * setuid root, mounts and sends the descriptor over the socket that _FUSE_COMMFD names (the
 * protocol of libfuse's util/fusermount.c and lib/mount.c).
 */
#include "fusefs/mount_point.h"
#include "lazy/protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fusefs/run_program.h"

#define FS_TYPE    "fuse.k42fs"
#define FS_SUBTYPE "k42fs"

/* st_dev of what is mounted at `path`, without a request to it if it is FUSE. */
static int dev_of(const char *path, dev_t *ret_dev)
{
        struct statx stx;

        if (statx(AT_FDCWD, path, AT_STATX_DONT_SYNC | AT_SYMLINK_NOFOLLOW, 0, &stx) < 0)
                return -errno;
        *ret_dev = makedev(stx.stx_dev_major, stx.stx_dev_minor);
        return 0;
}

bool mount_point_is(const char *mountpoint, dev_t dev)
{
        dev_t there;

        return dev_of(mountpoint, &there) == 0 && there == dev;
}

static int say(const char *object, const char *what, int err)
{
        g_warning("%s: %s: %s", object, what, g_strerror(err));
        return -err;
}

/* The file system type that /proc/self/mountinfo gives for the topmost mount at `path`, or NULL. */
static char *mounted_type(const char *path)
{
        g_autofree char *text = NULL, *escaped = NULL;
        g_auto(GStrv) lines = NULL;
        char *type = NULL;
        GString *octal = g_string_new(NULL);

        for (const char *p = path; *p; p++) {
                if (strchr(" \t\n\\", *p))
                        g_string_append_printf(octal, "\\%03o", (unsigned char)*p);
                else
                        g_string_append_c(octal, *p);
        }
        escaped = g_string_free(octal, FALSE);
        if (!g_file_get_contents("/proc/self/mountinfo", &text, NULL, NULL))
                return NULL;
        lines = g_strsplit(text, "\n", -1);
        for (char **line = lines; *line; line++) {
                g_auto(GStrv) fields = g_strsplit(*line, " ", -1);
                const char *dash = strstr(*line, " - ");

                if (g_strv_length(fields) < 6 || !dash || strcmp(fields[4], escaped) != 0)
                        continue;
                g_free(type); /* later lines are mounted over earlier ones */
                type = g_strndup(dash + 3, strcspn(dash + 3, " "));
        }
        return type;
}

static int check_source(struct k42_options *options, const char *source)
{
        g_autofree char *path = NULL;
        int fd;

        struct statvfs st;
        int err;

        path = realpath(source, NULL);
        if (!path)
                return say(source, "cannot use as SOURCE", errno);
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return say(source, "cannot use as SOURCE", errno);
        err = fstatvfs(fd, &st) < 0 ? errno : 0;
        close(fd);
        if (err != 0)
                return say(source, "cannot use as SOURCE", err);
        /* A mirror must not make a setuid program or a device of what is none on SOURCE. */
        options->nosuid |= (st.f_flag & ST_NOSUID) != 0;
        options->nodev |= (st.f_flag & ST_NODEV) != 0;
        options->noexec |= (st.f_flag & ST_NOEXEC) != 0;
        options->source = g_steal_pointer(&path);
        return 0;
}

/* Asks the file system itself: the kernel goes on answering from what it knows for a while. */
static int ask(const char *path)
{
        struct statx stx;

        return statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &stx) < 0 ? errno : 0;
}

static bool is_dead_error(int err)
{
        return err == ENOTCONN || err == ECONNABORTED;
}

static int check_mountpoint(struct k42_options *options, const char *mountpoint)
{
        g_autofree char *path = NULL, *type = NULL;
        struct stat st;
        int err = 0;

        path = realpath(mountpoint, NULL);
        if (!path || stat(path, &st) < 0)
                err = errno;
        type = path ? mounted_type(path) : NULL;
        if (err == 0 && type && g_str_has_prefix(type, "fuse"))
                err = ask(path);
        if (is_dead_error(err)) {
                g_warning("%s: is a dead FUSE mount (%s); clear it with: %s %s", mountpoint,
                          g_strerror(err), geteuid() == 0 ? "umount -l" : "fusermount3 -uz",
                          mountpoint);
                return -err;
        }
        if (err != 0)
                return say(mountpoint, "cannot use as MOUNTPOINT", err);
        if (!S_ISDIR(st.st_mode))
                return say(mountpoint, "cannot use as MOUNTPOINT", ENOTDIR);
        if (g_strcmp0(type, FS_TYPE) == 0) {
                g_warning("%s: is a k42fs mount already: %s", mountpoint, g_strerror(EBUSY));
                return -EBUSY;
        }
        options->mountpoint = g_steal_pointer(&path);
        return 0;
}

/* A mirror that shows its own mount point would ask itself for it, and wait for the answer.  The
 * directories above MOUNTPOINT are compared by device and inode, so bind mounts and symbolic links
 * do not hide it.  SOURCE and MOUNTPOINT may be the same directory: SOURCE is opened before the
 * mount covers it. */
static int check_not_inside(const struct k42_options *options)
{
        struct stat source, at, up;
        int fd, parent;

        if (stat(options->source, &source) < 0)
                return say(options->source, "cannot use as SOURCE", errno);
        fd = open(options->mountpoint, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &at) < 0)
                return say(options->mountpoint, "cannot use as MOUNTPOINT", errno);
        for (;;) {
                parent = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
                close(fd);
                if (parent < 0 || fstat(parent, &up) < 0) {
                        if (parent >= 0)
                                close(parent);
                        return say(options->mountpoint, "cannot look above MOUNTPOINT", errno);
                }
                fd = parent;
                if (up.st_dev == at.st_dev && up.st_ino == at.st_ino)
                        break;
                if (up.st_dev == source.st_dev && up.st_ino == source.st_ino) {
                        close(fd);
                        g_warning("%s: lies inside SOURCE %s and would mirror itself: %s",
                                  options->mountpoint, options->source, g_strerror(EINVAL));
                        return -EINVAL;
                }
                at = up;
        }
        close(fd);
        return 0;
}

int mount_point_check(struct k42_options *options, const char *source, const char *mountpoint)
{
        int r = check_source(options, source);

        if (r == 0)
                r = check_mountpoint(options, mountpoint);
        if (r == 0)
                r = check_not_inside(options);
        return r;
}

static int mount_as_root(const struct k42_options *options, int *ret_fd)
{
        g_autofree char *data = NULL;
        unsigned long flags = 0;
        int fd, err;

        fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
        if (fd < 0)
                return say("/dev/fuse", "open failed", errno);
        data = g_strdup_printf("fd=%d,rootmode=%o,user_id=%u,group_id=%u%s%s%s", fd, S_IFDIR,
                               (unsigned)getuid(), (unsigned)getgid(),
                               options->default_permissions ? ",default_permissions" : "",
                               options->allow_other ? ",allow_other" : "",
                               options->fork_private ? "," K42_FORK_MARK : "");
        if (options->ro)
                flags |= MS_RDONLY;
        if (options->nosuid)
                flags |= MS_NOSUID;
        if (options->nodev)
                flags |= MS_NODEV;
        if (options->noexec)
                flags |= MS_NOEXEC;
        if (mount(options->source, options->mountpoint, FS_TYPE, flags, data) < 0) {
                err = errno;
                close(fd);
                return say(options->mountpoint, "mount failed", err);
        }
        *ret_fd = fd;
        return 0;
}

/* Commas and backslashes separate and escape in fusermount3's -o. */
static void append_escaped(GString *to, const char *text)
{
        for (; *text; text++) {
                if (*text == ',' || *text == '\\')
                        g_string_append_c(to, '\\');
                g_string_append_c(to, *text);
        }
}

static char *fusermount_options(const struct k42_options *options)
{
        GString *text = g_string_new("subtype=" FS_SUBTYPE ",fsname=");

        append_escaped(text, options->source);
        if (options->default_permissions)
                g_string_append(text, ",default_permissions");
        if (options->allow_other)
                g_string_append(text, ",allow_other");
        if (options->fork_private)
                g_string_append(text, "," K42_FORK_MARK);
        if (options->ro)
                g_string_append(text, ",ro");
        if (options->noexec)
                g_string_append(text, ",noexec");
        return g_string_free(text, FALSE); /* nosuid and nodev it adds itself */
}

/* The descriptor that fusermount3 sends, or -errno. */
static int receive_fd(int socket_fd)
{
        char byte, control[CMSG_SPACE(sizeof(int))];
        struct iovec iov = {.iov_base = &byte, .iov_len = 1};
        struct msghdr msg = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = control,
                .msg_controllen = sizeof control,
        };
        struct cmsghdr *cmsg;
        ssize_t n;
        int fd;

        do
                n = recvmsg(socket_fd, &msg, MSG_CMSG_CLOEXEC);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        cmsg = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
        if (!cmsg || cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS ||
            cmsg->cmsg_len != CMSG_LEN(sizeof(int)))
                return -ENODEV;
        memcpy(&fd, CMSG_DATA(cmsg), sizeof fd);
        return fd;
}

/* The last line that fusermount3 printed, without its own name before it. */
static const char *last_line(char *text)
{
        char *line;

        g_strchomp(text);
        line = strrchr(text, '\n');
        line = line ? line + 1 : text;
        return g_str_has_prefix(line, "fusermount3: ") ? line + strlen("fusermount3: ") : line;
}

static int mount_by_fusermount(const struct k42_options *options, int *ret_fd)
{
        g_autofree char *opts = fusermount_options(options);
        const char *argv[] = {"fusermount3", "-o", opts, "--", options->mountpoint, NULL};
        char printed[1024];
        int sockets[2], stderr_fd, fd, r;
        pid_t pid;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0)
                return say(options->mountpoint, "mount failed", errno);
        r = program_start(argv, sockets[0], "_FUSE_COMMFD=3", &pid, &stderr_fd);
        close(sockets[0]); /* our copy of its end, so that its exit is an EOF */
        if (r < 0) {
                close(sockets[1]);
                return say(options->mountpoint, "mount failed: fusermount3 cannot be run", -r);
        }
        fd = receive_fd(sockets[1]);
        close(sockets[1]);
        program_wait(pid, stderr_fd, printed, sizeof printed);
        if (fd < 0) {
                g_warning("%s: mount failed: fusermount3: %s", options->mountpoint,
                          *printed ? last_line(printed) : "refused without a reason");
                return -EPERM;
        }
        *ret_fd = fd;
        return 0;
}

int mount_point_mount(const struct k42_options *options, int *ret_fd, dev_t *ret_dev)
{
        dev_t dev;
        int fd = -1, r;

        r = geteuid() == 0 ? mount_as_root(options, &fd) : mount_by_fusermount(options, &fd);
        if (r < 0)
                return r;
        r = dev_of(options->mountpoint, &dev);
        if (r < 0) {
                close(fd);
                return say(options->mountpoint, "cannot look at the new mount", -r);
        }
        *ret_fd = fd;
        *ret_dev = dev;
        return 0;
}

void mount_point_unmount(const char *mountpoint, dev_t dev, bool ended)
{
        const char *argv[] = {"fusermount3", "-u", "-q", "-z", "--", mountpoint, NULL};
        int stderr_fd, r;
        pid_t pid;

        if (!mount_point_is(mountpoint, dev) || (ended && !is_dead_error(ask(mountpoint))))
                return;
        if (geteuid() == 0) {
                if (umount2(mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 &&
                    mount_point_is(mountpoint, dev))
                        say(mountpoint, "unmount failed", errno);
                return;
        }
        r = program_start(argv, -1, NULL, &pid, &stderr_fd);
        if (r < 0)
                say(mountpoint, "unmount failed: fusermount3 cannot be run", -r);
        else if (program_wait(pid, stderr_fd, NULL, 0) != 0 && mount_point_is(mountpoint, dev))
                g_warning("%s: unmount failed: fusermount3 refused", mountpoint);
}

bool mount_point_ended(int fuse_fd)
{
        struct pollfd fuse = {.fd = fuse_fd};

        return fuse_fd < 0 || (poll(&fuse, 1, 0) == 1 && (fuse.revents & POLLERR));
}

int mount_point_abort(const char *mountpoint, dev_t dev)
{
        char path[80];
        int fd, r;

        snprintf(path, sizeof path, "/sys/fs/fuse/connections/%u/abort", minor(dev));
        fd = open(path, O_WRONLY | O_CLOEXEC);
        r = fd < 0 || write(fd, "1", 1) < 0 ? -errno : 0;
        if (fd >= 0)
                close(fd);
        if (r == 0 || !mount_point_is(mountpoint, dev))
                return r;
        /* Of a busy mount that fails, but the connection has been ended then. */
        return umount2(mountpoint, MNT_FORCE | UMOUNT_NOFOLLOW) < 0 && errno != EBUSY ? -errno : 0;
}

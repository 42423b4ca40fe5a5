/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * liar SOURCE MOUNTPOINT LIE: a FUSE daemon that serves a directory truly and answers the shim with
 * nonsense.  It runs in the foreground and ends at umount, SIGTERM or SIGINT.
 *
 *   truth     a plausible answer            echo      the message as it came
 *   zero      64 zero bytes                 version   a version that does not exist
 *   length    a length that is not          huge      all bits set
 *   random    noise                         short     32 bytes      header   4 bytes
 *   empty     no bytes                      result    a positive result
 *   EIO EPERM ENOSPC ENOTTY ENOSYS EINTR EAGAIN ENOMEM EBADF EACCES EPROTONOSUPPORT      fails so
 *   delay     the truth, the first three a second late, later ones 5 ms
 *   flush     a plausible answer, and each close asks the daemon (else none does)
 *
 * One thread serves (a delay delays everybody).  Nodes are kept for the life of the daemon: it
 * serves a test and ends.
 */
#define FUSE_USE_VERSION 312
#include "lazy/protocol.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define NODES 65536

struct node {
        int fd; /* O_PATH */
        dev_t dev;
        ino_t ino;
};

static struct node nodes[NODES]; /* [1] is the root */
static unsigned nodes_count = 2;
static const char *lie;

struct directory {
        DIR *dir;
        off_t at;
        struct dirent *entry;
};

static int node_fd(fuse_ino_t ino)
{
        return nodes[ino < NODES ? ino : 0].fd;
}

static void node_path(fuse_ino_t ino, char path[static 32])
{
        snprintf(path, 32, "/proc/self/fd/%d", node_fd(ino));
}

/* Nodes are found again by their identity; a number that the backing file system uses again gets
 * a node of its own as soon as the old one's descriptor is the only thing that keeps the old file.
 */
static int look_up(fuse_ino_t parent, const char *name, struct fuse_entry_param *entry)
{
        struct stat st;
        int fd = openat(node_fd(parent), name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

        if (fd < 0 || fstat(fd, &st) < 0)
                return errno;
        *entry = (struct fuse_entry_param){.attr = st};
        for (unsigned i = 1; i < nodes_count; i++)
                if (nodes[i].ino == st.st_ino && nodes[i].dev == st.st_dev) {
                        entry->ino = i;
                        close(fd);
                        return 0;
                }
        if (nodes_count >= NODES) {
                close(fd);
                return ENFILE;
        }
        nodes[nodes_count] = (struct node){.fd = fd, .dev = st.st_dev, .ino = st.st_ino};
        entry->ino = nodes_count++;
        return 0;
}

static void reply_entry(fuse_req_t req, fuse_ino_t parent, const char *name)
{
        struct fuse_entry_param entry;
        int err = look_up(parent, name, &entry);

        if (err)
                fuse_reply_err(req, err);
        else
                fuse_reply_entry(req, &entry);
}

static void liar_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
        reply_entry(req, parent, name);
}

/* The last look at a node: its file would be kept, and its space, until the end. */
static void liar_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
        struct stat st;

        if (ino > 1 && ino < NODES && node_fd(ino) > 0 && fstat(node_fd(ino), &st) == 0 &&
            st.st_nlink == 0) {
                close(node_fd(ino));
                nodes[ino] = (struct node){.fd = -1};
        }
        fuse_reply_none(req);
}

static void liar_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        struct stat st;

        if (fstat(node_fd(ino), &st) < 0)
                fuse_reply_err(req, errno);
        else
                fuse_reply_attr(req, &st, 0);
}

static void liar_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int set,
                         struct fuse_file_info *fi)
{
        char path[32];
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};
        int r = 0;

        node_path(ino, path);
        if (set & FUSE_SET_ATTR_MODE)
                r = chmod(path, attr->st_mode);
        if (!r && set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
                r = chown(path, set & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1,
                          set & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1);
        if (!r && set & FUSE_SET_ATTR_SIZE)
                r = truncate(path, attr->st_size);
        if (set & FUSE_SET_ATTR_ATIME)
                times[0] = attr->st_atim;
        if (set & FUSE_SET_ATTR_ATIME_NOW)
                times[0].tv_nsec = UTIME_NOW;
        if (set & FUSE_SET_ATTR_MTIME)
                times[1] = attr->st_mtim;
        if (set & FUSE_SET_ATTR_MTIME_NOW)
                times[1].tv_nsec = UTIME_NOW;
        if (!r && (times[0].tv_nsec != UTIME_OMIT || times[1].tv_nsec != UTIME_OMIT))
                r = utimensat(AT_FDCWD, path, times, 0);
        if (r < 0)
                fuse_reply_err(req, errno);
        else
                liar_getattr(req, ino, fi);
}

static void liar_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
        if (mkdirat(node_fd(parent), name, mode) < 0)
                fuse_reply_err(req, errno);
        else
                reply_entry(req, parent, name);
}

static void liar_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
        fuse_reply_err(req, unlinkat(node_fd(parent), name, 0) < 0 ? errno : 0);
}

static void liar_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
        fuse_reply_err(req, unlinkat(node_fd(parent), name, AT_REMOVEDIR) < 0 ? errno : 0);
}

static void liar_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                        const char *new_name, unsigned flags)
{
        int r = renameat2(node_fd(parent), name, node_fd(new_parent), new_name, flags);

        fuse_reply_err(req, r < 0 ? errno : 0);
}

/* The kernel has worked out where an append goes. */
static int backing_flags(int flags)
{
        return (flags & ~(O_NOFOLLOW | O_APPEND | O_EXCL)) | O_CLOEXEC;
}

static void liar_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        char path[32];
        int fd;

        node_path(ino, path);
        fd = open(path, backing_flags(fi->flags) & ~O_CREAT);
        if (fd < 0) {
                fuse_reply_err(req, errno);
                return;
        }
        fi->fh = fd;
        fi->noflush = strcmp(lie, "flush") != 0;
        fuse_reply_open(req, fi);
}

static void liar_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                        struct fuse_file_info *fi)
{
        struct fuse_entry_param entry;
        int err, fd = openat(node_fd(parent), name, (fi->flags & ~O_APPEND) | O_CREAT | O_CLOEXEC,
                             mode);

        if (fd < 0) {
                fuse_reply_err(req, errno);
                return;
        }
        err = look_up(parent, name, &entry);
        if (err) {
                close(fd);
                fuse_reply_err(req, err);
                return;
        }
        fi->fh = fd;
        fi->noflush = strcmp(lie, "flush") != 0;
        fuse_reply_create(req, &entry, fi);
}

static void liar_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                      struct fuse_file_info *fi)
{
        struct fuse_bufvec buf = FUSE_BUFVEC_INIT(size);

        buf.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
        buf.buf[0].fd = fi->fh;
        buf.buf[0].pos = off;
        fuse_reply_data(req, &buf, 0);
}

static void liar_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
                       struct fuse_file_info *fi)
{
        ssize_t n = pwrite(fi->fh, buf, size, off);

        if (n < 0)
                fuse_reply_err(req, errno);
        else
                fuse_reply_write(req, n);
}

static void liar_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        fuse_reply_err(req, 0);
}

static void liar_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        close(fi->fh);
        fuse_reply_err(req, 0);
}

static void liar_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
        fuse_reply_err(req, fsync(fi->fh) < 0 ? errno : 0);
}

static void liar_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t length,
                           struct fuse_file_info *fi)
{
        fuse_reply_err(req, fallocate(fi->fh, mode, off, length) < 0 ? errno : 0);
}

static void liar_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
                       struct fuse_file_info *fi)
{
        off_t at = lseek(fi->fh, off, whence);

        if (at < 0)
                fuse_reply_err(req, errno);
        else
                fuse_reply_lseek(req, at);
}

static void liar_statfs(fuse_req_t req, fuse_ino_t ino)
{
        struct statvfs st;

        if (fstatvfs(node_fd(ino), &st) < 0)
                fuse_reply_err(req, errno);
        else
                fuse_reply_statfs(req, &st);
}

static void liar_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        struct directory *d = calloc(1, sizeof(*d));
        int fd = openat(node_fd(ino), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (!d || fd < 0 || !(d->dir = fdopendir(fd))) {
                free(d);
                fuse_reply_err(req, fd < 0 ? errno : ENOMEM);
                return;
        }
        fi->fh = (uintptr_t)d;
        fuse_reply_open(req, fi);
}

static void liar_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                         struct fuse_file_info *fi)
{
        struct directory *d = (void *)(uintptr_t)fi->fh;
        char *buf = malloc(size);
        size_t len = 0;

        if (!buf) {
                fuse_reply_err(req, ENOMEM);
                return;
        }
        if (off != d->at) {
                seekdir(d->dir, off);
                d->entry = NULL;
                d->at = off;
        }
        while (d->entry || (d->entry = readdir(d->dir))) {
                struct stat st = {.st_ino = d->entry->d_ino, .st_mode = d->entry->d_type << 12};
                size_t need = fuse_add_direntry(req, buf + len, size - len, d->entry->d_name, &st,
                                                d->entry->d_off);
                if (need > size - len)
                        break;
                len += need;
                d->at = d->entry->d_off;
                d->entry = NULL;
        }
        fuse_reply_buf(req, buf, len);
        free(buf);
}

static void liar_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        struct directory *d = (void *)(uintptr_t)fi->fh;

        closedir(d->dir);
        free(d);
        fuse_reply_err(req, 0);
}

static void answer_truly(fuse_req_t req, struct k42_lazy_reopen *message)
{
        message->token = UINT64_C(7) << 32 | fuse_req_ctx(req)->pid;
        message->parent = UINT64_C(7) << 32 | 1;
        message->sharing = K42_SHARING_SHARED;
        message->rights = 0x1f;
        fuse_reply_ioctl(req, 0, message, sizeof(*message));
}

static int errno_of(const char *name)
{
        for (int err = 1; err < 134; err++) {
                const char *known = strerrorname_np(err);
                if (known && !strcmp(known, name))
                        return err;
        }
        return 0;
}

static void answer_with_a_lie(fuse_req_t req, struct k42_lazy_reopen *message)
{
        size_t size = sizeof(*message);
        int err = errno_of(lie), result = 0;
        static int late;

        if (err) {
                fuse_reply_err(req, err);
                return;
        }
        if (!strcmp(lie, "delay"))
                usleep(late++ < 3 ? 1000000 : 5000);
        if (!strcmp(lie, "truth") || !strcmp(lie, "delay") || !strcmp(lie, "flush")) {
                answer_truly(req, message);
                return;
        }
        if (!strcmp(lie, "zero")) {
                memset(message, 0, size);
        } else if (!strcmp(lie, "version")) {
                message->header.version = 77;
        } else if (!strcmp(lie, "length")) {
                message->header.length = 9999;
        } else if (!strcmp(lie, "huge")) {
                memset(&message->parent, 0xff, size - sizeof(message->header));
        } else if (!strcmp(lie, "random")) {
                for (size_t i = 0; i < size; i++)
                        ((unsigned char *)message)[i] = random();
        } else if (!strcmp(lie, "short")) {
                size = 32;
        } else if (!strcmp(lie, "header")) {
                size = 4;
        } else if (!strcmp(lie, "empty")) {
                size = 0;
        } else if (!strcmp(lie, "result")) {
                result = 12345;
        }
        fuse_reply_ioctl(req, result, message, size);
}

static void liar_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg,
                       struct fuse_file_info *fi, unsigned flags, const void *in, size_t in_size,
                       size_t out_size)
{
        struct k42_lazy_reopen message;

        if (cmd != (unsigned)K42_IOC_LAZY_REOPEN || in_size != sizeof(message)) {
                fuse_reply_err(req, ENOTTY);
                return;
        }
        memcpy(&message, in, sizeof(message));
        answer_with_a_lie(req, &message);
}

static const struct fuse_lowlevel_ops ops = {
        .lookup = liar_lookup,
        .forget = liar_forget,
        .getattr = liar_getattr,
        .setattr = liar_setattr,
        .mkdir = liar_mkdir,
        .unlink = liar_unlink,
        .rmdir = liar_rmdir,
        .rename = liar_rename,
        .open = liar_open,
        .create = liar_create,
        .read = liar_read,
        .write = liar_write,
        .flush = liar_flush,
        .release = liar_release,
        .fsync = liar_fsync,
        .fallocate = liar_fallocate,
        .lseek = liar_lseek,
        .statfs = liar_statfs,
        .opendir = liar_opendir,
        .readdir = liar_readdir,
        .releasedir = liar_releasedir,
        .ioctl = liar_ioctl,
};

int main(int argc, char **argv)
{
        char *mount_argv[] = {argv[0], (char *)"-o",
                              (char *)"default_permissions,allow_other,fsname=k42fs,subtype=k42fs",
                              NULL};
        struct fuse_args args = FUSE_ARGS_INIT(3, mount_argv);
        struct fuse_session *session;
        struct stat st;
        int r = 1;

        if (argc != 4) {
                fprintf(stderr, "usage: liar SOURCE MOUNTPOINT LIE\n");
                return 2;
        }
        lie = argv[3];
        umask(0);
        nodes[0].fd = -1;
        nodes[1].fd = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (nodes[1].fd < 0 || fstat(nodes[1].fd, &st) < 0) {
                fprintf(stderr, "liar: %s: %s\n", argv[1], strerror(errno));
                return 1;
        }
        nodes[1].dev = st.st_dev;
        nodes[1].ino = st.st_ino;
        session = fuse_session_new(&args, &ops, sizeof(ops), NULL);
        if (!session || fuse_set_signal_handlers(session) < 0 ||
            fuse_session_mount(session, argv[2]) < 0)
                return 1;
        r = fuse_session_loop(session);
        fuse_session_unmount(session);
        fuse_remove_signal_handlers(session);
        fuse_session_destroy(session);
        return r ? 1 : 0;
}

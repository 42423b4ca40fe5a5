/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the operations share.  The only state is the buffer that each thread has for itself; it is
 * freed when the thread ends.
 */
#include "fusefs/ops/ops.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "fusefs/coherent/coherent.h"
#include "fusefs/failpoint.h"
#include "fusefs/resume/requests.h"
#include "fusefs/node/timeouts.h"

#define BUFFER_ALIGN 4096 /* enough for O_DIRECT everywhere */

struct server_file *ops_file(fuse_req_t req, fuse_ino_t ino)
{
        struct server_file *file = node_table_file(k42_mount_of(req)->nodes, ino);

        if (!file)
                fuse_reply_err(req, ESTALE);
        return file;
}

struct dir_linux_fs *ops_dir(fuse_req_t req, fuse_ino_t ino, const char *name)
{
        struct server_file *file = ops_file(req, ino);
        int r;

        if (!file)
                return NULL;
        r = server_file_is_dir(file) ? fs_name_check(name) : -ENOTDIR;
        if (r < 0) {
                ops_reply(req, r);
                return NULL;
        }
        return dir_linux_fs_of(file);
}

struct description *ops_description(fuse_req_t req, const struct fuse_file_info *fi)
{
        struct description *description =
                fi ? description_from_fh(k42_mount_of(req)->lazy, fi->fh) : NULL;

        if (!description) /* the caller's descriptor is a good one: what it stands for is lost */
                fuse_reply_err(req, ESTALE);
        return description;
}

struct description *ops_description_fd(fuse_req_t req, const struct fuse_file_info *fi, int *ret_fd)
{
        struct description *description = ops_description(req, fi);
        const int fd = description ? description_fd(description) : -1;

        if (description && fd < 0) {
                ops_reply(req, fd);
                return NULL;
        }
        *ret_fd = fd;
        return description;
}

void ops_reply(fuse_req_t req, int r)
{
        fuse_reply_err(req, -r);
}

void ops_entry(struct dir_linux_fs *dir, struct server_file *file, const struct fs_stat *st,
               uint64_t seen, struct fuse_entry_param *ret_entry)
{
        struct request *request = request_current();

        request_raise(request, file->id);
        FAILPOINT("raise");
        server_file_known(server_file_ref(file));
        FAILPOINT("raised");
        request_raised(request);
        *ret_entry = (struct fuse_entry_param){
                .ino = file->id,
                .attr = st->st,
                .attr_timeout = timeouts_attr(file, st, seen),
                .entry_timeout = timeouts_entry(dir, seen),
        };
}

void ops_entry_undo(struct node_table *table, const struct fuse_entry_param *entry)
{
        struct server_file *file = node_table_file(table, entry->ino);
        struct request *request = request_current();

        request_unraise(request, entry->ino);
        FAILPOINT("unraise");
        if (file)
                server_file_forget(file, 1);
        request_unraised(request);
}

int ops_lookup(struct dir_linux_fs *dir, int dirfd, const char *name,
               struct fuse_entry_param *ret_entry)
{
        struct node_table *table = dir->file.table;
        const uint64_t seen = coherent_seen(table->mount->coherent);
        SERVER_FILE(file);
        struct fs_stat st;
        int r = node_table_lookup(table, &dir->file, dirfd, name, &st, &file);

        if (r == -ENOENT)
                dir_unlink(dir, name, false);
        if (r < 0)
                return r;
        if (file == table->root) /* SOURCE, mounted once more below itself */
                return -ELOOP;
        r = dir_saw(dir, name, file);
        if (r == 0)
                ops_entry(dir, file, &st, seen, ret_entry);
        return r;
}

int ops_reopen(struct node_table *table, int fd, int flags)
{
        int io_fd = fs_reopen(fd, flags);

        if (node_fds_exhausted(io_fd) && node_fds_shrink(&table->fds) > 0)
                io_fd = fs_reopen(fd, flags);
        return io_fd;
}

int ops_may_open(fuse_req_t req)
{
        const struct k42_mount *mount = k42_mount_of(req);
        const struct node_fds *fds = &mount->nodes->fds;

        if (fuse_req_ctx(req)->uid == 0)
                return 0;
        return lazy_description_count(mount->lazy) + atomic_load(&fds->pinned) < fds->for_all
                       ? 0
                       : -ENFILE;
}

struct buffer {
        void *mem;
        size_t size;
};

static pthread_key_t buffer_key;
static pthread_once_t buffer_once = PTHREAD_ONCE_INIT;
static bool buffer_key_made;
static _Thread_local struct buffer buffer;

static void buffer_free(void *mem)
{
        free(mem);
}

static void buffer_key_make(void)
{
        buffer_key_made = pthread_key_create(&buffer_key, buffer_free) == 0;
}

void *ops_buffer(size_t size)
{
        void *mem;

        if (size <= buffer.size)
                return buffer.mem;
        pthread_once(&buffer_once, buffer_key_make);
        if (!buffer_key_made || posix_memalign(&mem, BUFFER_ALIGN, size) != 0)
                return NULL;
        if (pthread_setspecific(buffer_key, mem) != 0) {
                free(mem);
                return NULL;
        }
        free(buffer.mem);
        buffer = (struct buffer){.mem = mem, .size = size};
        return mem;
}

/* What we want of the kernel, as far as it offers it.  The channel adds what libfuse does not know.
 * No splice: our channel has no hooks for it.  No locks: the kernel keeps those of one machine, and
 * they survive us that way. */
static void op_init(void *userdata, struct fuse_conn_info *conn)
{
        const struct k42_mount *mount = userdata;
        unsigned want = FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_ATOMIC_O_TRUNC |
                        FUSE_CAP_DONT_MASK | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
                        FUSE_CAP_IOCTL_DIR | FUSE_CAP_ASYNC_DIO | FUSE_CAP_AUTO_INVAL_DATA;

        if (mount->options.default_permissions)
                want |= FUSE_CAP_POSIX_ACL;
        conn->want = want & conn->capable;
        conn->max_write = requests_max_write(mount->requests);
        conn->time_gran = 1;
}

const struct fuse_lowlevel_ops k42_ops = {
        .init = op_init,
        .lookup = op_lookup,
        .forget = op_forget,
        .forget_multi = op_forget_multi,
        .getattr = op_getattr,
        .setattr = op_setattr,
        .readlink = op_readlink,
        .mknod = op_mknod,
        .mkdir = op_mkdir,
        .unlink = op_unlink,
        .rmdir = op_rmdir,
        .symlink = op_symlink,
        .rename = op_rename,
        .link = op_link,
        .open = op_open,
        .read = op_read,
        .write = op_write,
        .flush = op_flush,
        .release = op_release,
        .fsync = op_fsync,
        .opendir = op_opendir,
        .readdir = op_readdir,
        .readdirplus = op_readdirplus,
        .releasedir = op_release,
        .fsyncdir = op_fsync,
        .statfs = op_statfs,
        .setxattr = op_setxattr,
        .getxattr = op_getxattr,
        .listxattr = op_listxattr,
        .removexattr = op_removexattr,
        .access = op_access,
        .create = op_create,
        .ioctl = op_ioctl,
        .fallocate = op_fallocate,
        .copy_file_range = op_copy_file_range,
        .lseek = op_lseek,
};

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * ops: the FUSE operations, by group, and what they share.  The table k42_ops is in ops.c.
 *
 * Every operation has the same shape: find the node (and the description), borrow its descriptor
 * for the scope, act, answer exactly once.  Errors inside are negative errno; ops_reply() turns
 * them.  An answer that the kernel does not take (the caller was interrupted) undoes what the
 * answer would have made true: a lookup count, a description.
 */
#include "fusefs/node/dir_linux_fs.h"
#include "fusefs/node/fs_file.h"
#include "fusefs/mount.h"
#include "fusefs/node/node_table.h"

/* The node `ino`.  NULL: unknown, and the request is answered with ESTALE. */
struct server_file *ops_file(fuse_req_t req, fuse_ino_t ino);

/* As ops_file(), for a directory in which `name` is meant; ENOTDIR, or what fs_name_check() says.
 */
struct dir_linux_fs *ops_dir(fuse_req_t req, fuse_ino_t ino, const char *name);

/* The description of an open file.  NULL: unknown, and the request is answered with ESTALE. */
struct description *ops_description(fuse_req_t req, const struct fuse_file_info *fi);

/* The same, and its backing descriptor.  NULL: there is none, and the request is answered with why. */
struct description *ops_description_fd(fuse_req_t req, const struct fuse_file_info *fi, int *ret_fd);

/* Answers with `r`, 0 or -errno. */
void ops_reply(fuse_req_t req, int r);

/* A buffer of the calling thread, aligned for O_DIRECT, valid until the next call; NULL if out of
 * memory. */
void *ops_buffer(size_t size);

/* Instantiates the node that `name` in `dir` is, and raises its lookup count.  Returns 0 or -errno.
 */
int ops_lookup(struct dir_linux_fs *dir, int dirfd, const char *name,
               struct fuse_entry_param *ret_entry);

/* The same for a file of `dir` that is at hand; lends `file`'s reference from the caller.  `seen`:
 * coherent_seen() of before `st` was asked for. */
void ops_entry(struct dir_linux_fs *dir, struct server_file *file, const struct fs_stat *st,
               uint64_t seen, struct fuse_entry_param *ret_entry);

/* The kernel did not take the answer with `entry`. */
void ops_entry_undo(struct node_table *table, const struct fuse_entry_param *entry);

/* 0, or -ENFILE: the descriptors that are left are root's, so that no user's open files can keep him from
 * removing files or reading directories. */
int ops_may_open(fuse_req_t req);

/* fs_reopen(), and once more with all idle node descriptors closed if there are none left. */
int ops_reopen(struct node_table *table, int fd, int flags);

/* ops_entry.c */
void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup);
void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);

/* ops_attr.c */
void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
                struct fuse_file_info *fi);
void op_readlink(fuse_req_t req, fuse_ino_t ino);
void op_access(fuse_req_t req, fuse_ino_t ino, int mask);
void op_statfs(fuse_req_t req, fuse_ino_t ino);

/* ops_make.c */
void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name);
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
               struct fuse_file_info *fi);

/* ops_remove.c */
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
               const char *new_name, unsigned flags);

/* ops_open.c */
void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi);
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

/* What a new description of `file` is answered with; `open->fd` is taken in any case.  Returns 0 or
 * -errno. */
int ops_describe(fuse_req_t req, struct server_file *file, const struct file_open *open,
                 struct fuse_file_info *fi, struct description **ret_description);

/* Ends what ops_describe() made: at RELEASE; and when the reply to the open was not taken. */
void ops_release(struct server_file *file, struct description *description);
void ops_not_taken(struct server_file *file, struct description *description);

/* The same for one of which it was not known whether the kernel has it: false, and nothing has happened, if
 * it turned out that it has. */
bool ops_release_doubtful(struct server_file *file, struct description *description);

/* ops_data.c */
void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
              struct fuse_file_info *fi);
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                  struct fuse_file_info *fi);
void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t offset_in,
                        struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t offset_out,
                        struct fuse_file_info *fi_out, size_t size, int flags);
void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi);

/* ops_dir.c */
void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                struct fuse_file_info *fi);
void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *fi);

/* ops_xattr.c */
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
                 int flags);
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

/* ops_ioctl.c */
void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
              unsigned flags, const void *in, size_t in_size, size_t out_size);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* LOOKUP and its opposite.  Who counts what is in server_file.h. */
#include "fusefs/ops.h"

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
        struct dir_linux_fs *dir = ops_dir(req, parent, name);

        if (dir) {
                NODE_FD(at, &dir->file);

                if (at.fd < 0)
                        ops_reply(req, at.fd);
                else
                        ops_reply_entry(req, dir, at.fd, name);
        }
}

static void forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
        struct server_file *file = node_table_file(k42_mount_of(req)->nodes, ino);

        if (file && ino != FUSE_ROOT_ID) /* the root was never looked up */
                server_file_forget(file, nlookup);
}

void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
        forget(req, ino, nlookup);
        fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
        for (size_t i = 0; i < count; i++)
                forget(req, forgets[i].ino, forgets[i].nlookup);
        fuse_reply_none(req);
}

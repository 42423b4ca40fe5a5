/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* LOOKUP and its opposite.  Who counts what is in server_file.h. */
#include <errno.h>

#include "fusefs/coherent.h"
#include "fusefs/ops.h"
#include "fusefs/timeouts.h"

/* There is no such name, and the kernel may believe that for `timeout`. */
static void reply_negative(fuse_req_t req, double timeout)
{
        const struct fuse_entry_param entry = {.entry_timeout = timeout};

        if (timeout > 0)
                fuse_reply_entry(req, &entry);
        else
                ops_reply(req, -ENOENT);
}

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
        struct dir_linux_fs *dir = ops_dir(req, parent, name);

        if (dir) {
                NODE_FD(at, &dir->file);
                const uint64_t seen = coherent_seen(dir->file.table->mount->coherent);
                struct fuse_entry_param entry;
                int r = at.fd < 0 ? at.fd : ops_lookup(dir, at.fd, name, &entry);

                if (r == 0 && !S_ISDIR(entry.attr.st_mode))
                        plus_advice_looked_up(&dir->file.table->plus_advice,
                                              fuse_req_ctx(req)->pid);
                if (r == -ENOENT)
                        reply_negative(req, timeouts_negative(dir, seen));
                else if (r < 0)
                        ops_reply(req, r);
                else if (fuse_reply_entry(req, &entry) < 0)
                        ops_entry_undo(dir->file.table, &entry);
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

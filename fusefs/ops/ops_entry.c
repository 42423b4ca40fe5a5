/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* LOOKUP and its opposite.  Who counts what is in server_file.h. */
#include <errno.h>

#include "fusefs/coherent/coherent.h"
#include "fusefs/failpoint.h"
#include "fusefs/ops/ops.h"
#include "fusefs/resume/requests.h"
#include "fusefs/node/timeouts.h"

/* That there is no such name is worth telling where it may be believed for a while. */
static void reply_no_entry(fuse_req_t req, struct dir_linux_fs *dir, uint64_t seen)
{
        const struct fuse_entry_param entry = {.entry_timeout = timeouts_negative(dir, seen)};

        if (entry.entry_timeout > 0)
                fuse_reply_entry(req, &entry);
        else
                ops_reply(req, -ENOENT);
}

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
        struct dir_linux_fs *dir = ops_dir(req, parent, name);

        if (dir) {
                struct node_table *table = dir->file.table;
                const uint64_t seen = coherent_seen(table->mount->coherent);
                NODE_FD(at, &dir->file);
                struct fuse_entry_param entry;
                int r = at.fd < 0 ? at.fd : ops_lookup(dir, at.fd, name, &entry);

                if (r == 0 && !S_ISDIR(entry.attr.st_mode))
                        plus_advice_looked_up(&table->plus_advice, fuse_req_ctx(req)->pid);
                if (r == -ENOENT)
                        reply_no_entry(req, dir, seen);
                else if (r < 0)
                        ops_reply(req, r);
                else if (fuse_reply_entry(req, &entry) < 0)
                        ops_entry_undo(table, &entry);
        }
}

/* The n-th of its request.  The kernel does not send it again: what was applied is in the slot. */
static void forget(fuse_req_t req, uint32_t n, fuse_ino_t ino, uint64_t nlookup)
{
        struct server_file *file = node_table_file(k42_mount_of(req)->nodes, ino);
        struct request *request = request_current();

        request_forget(request, 2 * n + 1);
        FAILPOINT("forget");
        if (file && ino != FUSE_ROOT_ID) /* the root was never looked up */
                server_file_forget(file, nlookup);
        FAILPOINT("forgot");
        request_forget(request, 2 * n + 2);
}

void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
        forget(req, 0, ino, nlookup);
        fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
        for (size_t i = 0; i < count; i++)
                forget(req, (uint32_t)i, forgets[i].ino, forgets[i].nlookup);
        fuse_reply_none(req);
}

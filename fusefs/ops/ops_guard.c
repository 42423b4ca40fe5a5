/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fusefs/ops/ops_guard.h"

#include <errno.h>
#include <fcntl.h>

#include "fusefs/control/blocked.h"
#include "fusefs/node/server_file.h"
#include "lazy/fence.h"

static void enter(struct ops_guard *guard, fuse_req_t req, uint64_t key)
{
        guard->fence = lazy_fence(k42_mount_of(req)->lazy);
        guard->ticket = fence_enter(guard->fence, key);
}

void ops_guard_leave(struct ops_guard *guard)
{
        if (guard->fence)
                fence_leave(guard->fence, guard->ticket);
        guard->fence = NULL;
}

bool ops_guard_enter(struct ops_guard *guard, fuse_req_t req, struct description *description,
                     access_rights needed)
{
        int r;

        enter(guard, req, description->id);
        r = description_may(description, fuse_req_ctx(req)->pid, needed);
        if (r < 0)
                fuse_reply_err(req, -r);
        return r == 0;
}

void ops_guard_enter_unasked(struct ops_guard *guard, fuse_req_t req,
                             const struct description *description)
{
        enter(guard, req, description->id);
}

int ops_guard_enter_open(struct ops_guard *guard, fuse_req_t req, struct server_file *file)
{
        enter(guard, req, file->id);
        return blocked_may_open(req, file);
}

access_rights ops_guard_read_rights(const struct description *description,
                                    const struct fuse_file_info *fi)
{
        const bool mapped = description->io_class == IO_CLASS_COUNTED && fi->lock_owner == 0;

        return mapped && (description->flags & O_ACCMODE) == O_RDWR ? RIGHT_READ | RIGHT_WRITE
                                                                    : RIGHT_READ;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Extended attributes, ACLs among them. */
#include <errno.h>
#include <string.h>

#include "fusefs/worker/channel.h"
#include "fusefs/node/creds.h"
#include "fusefs/resume/intent.h"
#include "fusefs/ops/ops.h"

#define ACCESS_ACL "system.posix_acl_access"

/* An ACL of somebody who is not of the file's group takes the setgid bit off.  The backing file
 * system does it by *our* groups, which may happen to be the file's. */
static int drop_setgid(int fd)
{
        struct fs_stat st;
        int r = fs_stat(fd, &st);

        if (r == 0 && (st.st.st_mode & S_ISGID))
                r = fs_chmod(fd, st.st.st_mode & 07777 & ~(mode_t)S_ISGID);
        return r;
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
                 int flags)
{
        struct server_file *file = ops_file(req, ino);

        if (file) {
                const bool kill = channel_request()->kill_suidgid;
                NODE_FD(node, file);
                int64_t r = node.fd < 0 ? node.fd : intent_setxattr(node.fd, name, flags);

                if (r == INTENT_RUN)
                        creds_fsetid(!kill);
                INTENT_CALL("setxattr", r, fs_setxattr(node.fd, name, value, size, flags));
                if (r == 0 && kill && strcmp(name, ACCESS_ACL) == 0)
                        r = drop_setgid(node.fd);
                ops_reply(req, (int)r);
        }
}

/* Answers with the size alone if none was offered, else with the value. */
static void reply_value(fuse_req_t req, const char *value, ssize_t n, size_t size)
{
        if (n < 0)
                ops_reply(req, (int)n);
        else if (size == 0)
                fuse_reply_xattr(req, (size_t)n);
        else if ((size_t)n > size)
                ops_reply(req, -ERANGE);
        else
                fuse_reply_buf(req, value, (size_t)n);
}

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
        struct server_file *file = ops_file(req, ino);

        if (file) {
                NODE_FD(node, file);
                char *value = size > 0 ? ops_buffer(size) : NULL;
                ssize_t n = node.fd;

                if (n >= 0)
                        n = size > 0 && !value ? -ENOMEM : fs_getxattr(node.fd, name, value, size);
                reply_value(req, value, n, size);
        }
}

/* trusted.* exists only for root: our rights show it, the caller's would not. */
static ssize_t without_trusted(char *list, ssize_t n)
{
        static const char prefix[] = "trusted.";
        ssize_t kept = 0;

        for (ssize_t at = 0; at < n;) {
                const ssize_t length = (ssize_t)strnlen(list + at, (size_t)(n - at)) + 1;

                if (strncmp(list + at, prefix, sizeof prefix - 1) != 0) {
                        memmove(list + kept, list + at, (size_t)length);
                        kept += length;
                }
                at += length;
        }
        return kept;
}

#define LIST_MAX 65536 /* XATTR_LIST_MAX */

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
        struct server_file *file = ops_file(req, ino);

        if (file) {
                NODE_FD(node, file);
                char *list = ops_buffer(LIST_MAX + 1);
                ssize_t n = node.fd;

                if (n >= 0)
                        n = list ? fs_listxattr(node.fd, list, LIST_MAX) : -ENOMEM;
                if (n > 0) {
                        list[n] = '\0';
                        if (fuse_req_ctx(req)->uid != 0)
                                n = without_trusted(list, n);
                }
                reply_value(req, list, n, size);
        }
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
        struct server_file *file = ops_file(req, ino);

        if (file) {
                NODE_FD(node, file);
                int64_t r = node.fd < 0 ? node.fd : intent_removexattr(node.fd, name);

                INTENT_CALL("removexattr", r, fs_removexattr(node.fd, name));
                ops_reply(req, (int)r);
        }
}

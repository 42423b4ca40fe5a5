/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * `privileged` and the capability sets are written by creds_init(), before there are other threads;
 * the rest is thread-local.  Nothing needs a lock.
 *
 * The order matters when the identity changes: gid and groups before uid.  SECBIT_NO_SETUID_FIXUP
 * keeps the kernel from taking file system capabilities away at setfsuid(); where it cannot be set,
 * `fixup` says that capset() has to follow.
 */
#include "fusefs/node/creds.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fusefs/node/fs_file.h"

#define CAP_BIT(cap) (UINT64_C(1) << (cap))

/* Without all of these we cannot act for others. */
#define NEEDED                                                                                     \
        (CAP_BIT(CAP_CHOWN) | CAP_BIT(CAP_DAC_OVERRIDE) | CAP_BIT(CAP_FOWNER) |                    \
         CAP_BIT(CAP_SETUID) | CAP_BIT(CAP_SETGID))

static bool privileged;
static uint64_t permitted;
static uid_t own_uid;
static gid_t own_gid;

static _Thread_local struct {
        bool ready, fixup;
        bool fsetid;     /* what creds_fsetid() asked for */
        bool fsetid_set; /* what the kernel has */
        bool groups;     /* supplementary groups are not our own */
        mode_t umask;
} self;

static int get_caps(uint64_t *ret_permitted)
{
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct data[2];

        if (syscall(SYS_capget, &header, data) < 0)
                return -errno;
        *ret_permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
        return 0;
}

/* Of the calling thread only: libcap's and glibc's wrappers would do no more either. */
static int set_caps(uint64_t effective)
{
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct data[2] = {
                {.effective = (uint32_t)effective, .permitted = (uint32_t)permitted},
                {.effective = (uint32_t)(effective >> 32),
                 .permitted = (uint32_t)(permitted >> 32)},
        };

        return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

int creds_init(struct k42_mount *mount)
{
        int r = get_caps(&permitted);

        if (r < 0)
                return r;
        own_uid = geteuid();
        own_gid = getegid();
        privileged = own_uid == 0 && (permitted & NEEDED) == NEEDED;
        mount->privileged = privileged;
        return 0;
}

/* CAP_SYS_RESOURCE lets its owner use what is reserved for root and ignore quotas: the callers have
 * not got it. */
static int apply_caps(bool fsetid)
{
        uint64_t effective = permitted & ~CAP_BIT(CAP_SYS_RESOURCE);
        int r;

        if (!fsetid)
                effective &= ~CAP_BIT(CAP_FSETID);
        r = set_caps(effective);
        if (r == 0)
                self.fsetid_set = fsetid;
        else
                g_warning("capset failed: %s", g_strerror(-r));
        return r;
}

static int thread_ready(void)
{
        int bits;

        if (self.ready)
                return 0;
        if (unshare(CLONE_FS) < 0)
                return -errno;
        self.umask = umask(0);
        umask(self.umask);
        if (privileged) {
                bits = prctl(PR_GET_SECUREBITS);
                self.fixup =
                        bits < 0 || prctl(PR_SET_SECUREBITS, bits | SECBIT_NO_SETUID_FIXUP) < 0;
                if (apply_caps(false) < 0)
                        return -EPERM;
        }
        self.ready = true;
        return 0;
}

void creds_fsetid(bool keep_bits)
{
        if (!privileged || thread_ready() < 0)
                return;
        self.fsetid = keep_bits;
        if (self.fsetid_set != keep_bits)
                apply_caps(keep_bits);
}

/* The caller's supplementary groups decide only whether a new file may keep its setgid bit. */
static int take_groups(fuse_req_t req)
{
        gid_t few[32], *list = few;
        int n = fuse_req_getgroups(req, G_N_ELEMENTS(few), few), r;

        if (n > (int)G_N_ELEMENTS(few)) {
                const int size = n;

                list = calloc((size_t)size, sizeof *list);
                if (!list)
                        return -ENOMEM;
                n = MIN(fuse_req_getgroups(req, size, list), size);
        }
        if (n < 0)
                n = 0; /* the caller is gone, or libfuse cannot tell: no groups is the safe side */
        r = syscall(SYS_setgroups, n, list) < 0 ? -errno : 0;
        self.groups = r == 0;
        if (list != few)
                free(list);
        return r;
}

static void drop_groups(void)
{
        const gid_t own = 0;

        if (self.groups && syscall(SYS_setgroups, 1, &own) == 0)
                self.groups = false;
}

/* After a setfsuid() that may have changed the effective set behind our back. */
static void caps_after_setfsuid(void)
{
        if (self.fixup)
                apply_caps(self.fsetid);
}

int creds_for_caller(fuse_req_t req, mode_t mode, struct creds *ret_creds)
{
        const struct fuse_ctx *ctx = fuse_req_ctx(req);
        int r = thread_ready();

        if (r < 0)
                return r;
        if (self.umask != ctx->umask) {
                umask(ctx->umask);
                self.umask = ctx->umask;
        }
        if (!privileged)
                return 0;

        if (mode & S_ISGID)
                creds_fsetid(ctx->uid == 0);
        if (ctx->uid == own_uid && ctx->gid == own_gid)
                return 0;
        if ((mode & S_ISGID) && ctx->uid != 0) {
                r = take_groups(req);
                if (r < 0)
                        return r;
        }
        setfsgid(ctx->gid);
        setfsuid(ctx->uid);
        caps_after_setfsuid();
        ret_creds->active = true;
        /* They say nothing when they fail, as with an id that our user namespace does not know. */
        if ((uid_t)setfsuid((uid_t)-1) != ctx->uid || (gid_t)setfsgid((gid_t)-1) != ctx->gid) {
                creds_restore(ret_creds);
                return -EOVERFLOW;
        }
        return 0;
}

int creds_for_change(fuse_req_t req, int fd, bool kill, struct creds *ret_creds)
{
        struct fs_stat st;
        int r = thread_ready();

        if (r < 0 || !privileged)
                return r;
        creds_fsetid(!kill);
        if (kill)
                r = fs_stat(fd, &st);
        if (r < 0 || !kill || (st.st.st_mode & (S_ISGID | S_IXGRP)) != S_ISGID)
                return r;
        r = take_groups(req);
        if (r < 0)
                return r;
        setfsgid(fuse_req_ctx(req)->gid);
        ret_creds->active = true;
        return 0;
}

void creds_restore(struct creds *creds)
{
        if (!creds->active)
                return;
        creds->active = false;
        setfsuid(own_uid);
        setfsgid(own_gid);
        caps_after_setfsuid();
        drop_groups();
}

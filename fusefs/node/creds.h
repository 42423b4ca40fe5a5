/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * creds: on whose behalf a serving thread acts on the backing directory.
 *
 * A privileged daemon's mount has default_permissions: the kernel has checked the caller's right
 * before it asks us, so we act with full rights, with two exceptions.
 *
 *   - What is created belongs to the caller: creds_for_caller() changes the thread's file system
 * uid and gid for the time of the call, and nothing else: the capabilities that override
 * permissions stay, because the kernel's answer counts and not ours.
 *   - CAP_FSETID (and membership in its group) decides whether a write, a truncation or an ACL
 * takes the setuid and setgid bits off.  It must be the caller's, so it is on in a thread only
 * while creds_fsetid() says so.
 *
 * An unprivileged daemon changes nothing but its umask: the backing file system checks what its
 * user may do.
 *
 * The umask belongs to creation, too: the mount leaves it to us (FUSE_CAP_DONT_MASK) so that the
 * backing file system can choose between it and a default ACL.
 *
 * All of it is state of the *thread* (uids by the raw system calls, the umask after
 * unshare(CLONE_FS)), remembered so that only changes cost a system call.  Threads need no set-up.
 */
#include "fusefs/mount.h"

/* Finds out what the process may do and sets mount->privileged accordingly.  Returns 0 or -errno.
 */
int creds_init(struct k42_mount *mount);

/* The thread acts for the caller of `req`, who creates something with `mode` (0 for what has none),
 * until creds_restore().  Returns 0, or -errno and nothing is changed. */
struct creds {
        bool active;
};
int creds_for_caller(fuse_req_t req, mode_t mode, struct creds *ret_creds);
void creds_restore(struct creds *creds);

/* Declares `name`, restored at the end of its scope. */
#define CREDS(name) __attribute__((cleanup(creds_restore))) struct creds name = {false}

/* Whether what this thread does next may leave setuid and setgid bits alone. */
void creds_fsetid(bool keep_bits);

/* What this thread does next, until creds_restore(), changes the file `fd`; with `kill` the caller
 * may not keep setuid and setgid bits by a capability.  A setgid bit without group execute
 * permission stays for the members of the file's group, so then the thread is in the caller's
 * groups.  Returns 0 or -errno. */
int creds_for_change(fuse_req_t req, int fd, bool kill, struct creds *ret_creds);

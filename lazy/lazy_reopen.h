/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * lazy_reopen: turns access to a description into an object handle of the caller's own
 * (K42: FileLinuxServer::_lazyReOpen, LazyState::lazyReOpen).
 *
 * Sharing (K42's useType): the opener's handle is NON_SHARED.  A re-opened handle starts as
 * LAZY_INIT.  As soon as a second client has a handle on the description, all are SHARED; when one is
 * left again it is NON_SHARED; and a LAZY_INIT handle that is the only one becomes NON_SHARED with the
 * first operation that the daemon sees.
 */
#include "lazy/description.h"
#include "lazy/protocol.h"

/* The whole of LAZY_REOPEN, as lazy/protocol.h specifies it: thread `tid` touched `description`.
 * `message` is checked, and filled in on success.  Returns 0 or -errno. */
int lazy_reopen(struct description *description, pid_t tid, struct k42_lazy_reopen *message);

/* Checks a message's header and size: 0, -EMSGSIZE, -EPROTONOSUPPORT or -EINVAL.  `size` is what the
 * ioctl number said, `expected` the struct's size. */
int k42_header_check(const struct k42_header *header, size_t size, size_t expected);

/* The whole of IDENTIFY. */
int lazy_identify(struct description *description, struct k42_identify *message);

/* The rights that the process of thread `tid` has on the description, by its own handle; it gets one if
 * it has none.  Returns 0, -EACCES if it may not have one, -ESRCH if it is gone, or another -errno. */
int lazy_rights_of(struct description *description, pid_t tid, access_rights *ret_rights);

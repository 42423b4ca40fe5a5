/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * access_rights: what the holder of an object handle may do with it.
 *
 * K42 keeps two sets on every handle (XHandleTrans.H, AccessRights): `match` for the process that
 * owns the handle, `nomatch` for anybody else who presents its token.  Rights only shrink: a handle
 * that is derived from another one gets a subset of what that one had (Zircon's rule for
 * zx_handle_duplicate), and being derivable at all is a right of its own, RIGHT_DUPLICATE.
 *
 * Pure functions, no state, no locks.
 */
#include <glib.h>
#include <stdbool.h>

typedef guint32 access_rights;

enum {
        RIGHT_READ      = 1u << 0, /* r: read data, list a directory */
        RIGHT_WRITE     = 1u << 1, /* w: write data, truncate, allocate */
        RIGHT_DUPLICATE = 1u << 2, /* d: a child may re-open it (derive a handle from it) */
        RIGHT_CONTROL   = 1u << 3, /* c: may restrict or revoke what was derived from it */
        RIGHTS_NONE     = 0,
        RIGHTS_ALL      = RIGHT_READ | RIGHT_WRITE | RIGHT_DUPLICATE | RIGHT_CONTROL,
};

/* Room for access_rights_format(), the terminating NUL included. */
#define ACCESS_RIGHTS_STRING_MAX 5

/* True if every right in `part` is in `whole` too. */
bool access_rights_subset(access_rights part, access_rights whole);

/* The rights that open(2) flags ask for: the access mode's, plus DUPLICATE and CONTROL.  O_PATH and
 * the reserved access mode 3 give neither READ nor WRITE. */
access_rights access_rights_from_open_flags(int open_flags);

/* Writes the letters of `rights` in the order "rwdc" ("-" if there are none); returns `buf`. */
const char *access_rights_format(access_rights rights, char buf[static ACCESS_RIGHTS_STRING_MAX]);

/* Parses letters of "rwdc" in any order, each at most once, or "-".  Returns 0 or -EINVAL. */
int access_rights_parse(const char *text, access_rights *ret_rights);

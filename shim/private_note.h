/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * private_note: what private mode keeps of each descriptor (shim/private.h says what for).  It lies in the
 * tables of shim/fd_table.h, beside what those keep.
 */
#include <stdatomic.h>
#include <stdint.h>

struct private_group { /* 64 descriptors */
        _Atomic uint64_t known;   /* open, though fd_table does not know it */
        _Atomic uint64_t looked;  /* the notes say what it is */
        _Atomic uint64_t taken;   /* … and the offset that it has for a child; under the lock */
        _Atomic uint64_t pending; /* … and had at this process's fork; it is to be replaced */
};

enum private_kind {
        KIND_OTHER, /* not on a mount of ours */
        KIND_OURS,
};

struct private_note {
        uint64_t inode;
        int64_t offset;  /* where `pending`: at the fork; else as it was at the last fork of this process's own */
        uint32_t device; /* minor number; the major one is 0 */
        uint32_t kind;   /* enum private_kind */
};

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * description: what POSIX calls the open file description, and K42 the SharedOffsetData of an open
 * file: what all holders of one open() share.
 *
 * The kernel's struct file *is* the handle that K42 gave to the kernel: offset, status flags and
 * locks live there, fork and dup copy only descriptors, and RELEASE comes when the last copy is
 * closed.  Our side of it is this struct: the backing descriptor, and the object handles that the
 * processes have on it.  Its id is what we put into fi->fh.  (DESIGN proposed the opener's xhandle
 * for that; but the description outlives its opener when a child still has it, and "a dead client's
 * handles are freed" and "fi->fh always resolves" cannot both hold for one token.)
 *
 * Who keeps it alive: the kernel has one reference, from OPEN until RELEASE; every object handle on it
 * has one; a request has none of its own, because the kernel sends no RELEASE while one is under way.
 * The backing descriptor is closed with the last reference; but description_release() ends all the
 * handles, so that is right after RELEASE.
 *
 * Locks: description.lock is a leaf: no other lock is taken, and no system call made, under it.
 * reopen_lock is taken before it and before the locks of the COBJ layer.
 */
#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cobj/xobj.h"

struct lazy;
struct lazy_state;

struct description {
        uint64_t id;                  /* fi->fh; constant */
        struct lazy *lazy;            /* constant */
        struct server_object *object; /* a reference; constant */
        int fd;                       /* backing descriptor, owned; constant */
        int flags;                    /* open(2) flags as asked for; constant */
        enum xobj_type type;          /* constant */
        enum io_class io_class;       /* constant */
        int64_t opened;               /* µs since the epoch; constant */
        xhandle opener;               /* token of the first handle; constant once the open is answered */
        pid_t opener_pid;             /* process id; constant likewise */

        GMutex dir_lock;    /* directories: serialises lseek + getdents64 on fd; taken by readdir only */
        off_t dir_at;       /* where that left fd; -1: not known; under dir_lock */
        GMutex reopen_lock; /* one lazy_reopen() at a time: a process gets one handle, not two */

        atomic_int refs;
        GMutex lock;
        GQueue handles;              /* struct open_client_data.link; under lock */
        struct lazy_state *left;     /* what is kept for processes that have not touched it; own ref */
        bool kernel_has_it;          /* false from RELEASE on; under lock */
};

/* The client data of a handle on a file or directory: one client's use of one description. */
struct open_client_data {
        struct client_data base; /* must be first */
        struct description *description; /* a reference */
        struct client *client;           /* borrowed from the xobj; constant */
        xhandle token;                   /* XHANDLE_NONE until the handle is given; under lock */
        GList link;                      /* in description.handles, under lock */
        bool linked;                     /* it is; under lock */
};

/* The open descriptions of one mount.  Returns 0 or -errno. */
int lazy_new(struct cobj *cobj, struct lazy **ret_lazy);
void lazy_free(struct lazy *lazy); /* no description may be left; NULL is ignored */
typedef struct lazy K42Lazy; /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Lazy, lazy_free)

struct cobj *lazy_cobj(struct lazy *lazy);
uint32_t lazy_description_count(struct lazy *lazy);

/* Counted since the start: handles made by lazy_reopen(); accesses left behind by lazy_give_access(). */
uint64_t lazy_reopens(struct lazy *lazy);
uint64_t lazy_gives(struct lazy *lazy);

struct description_how {
        int fd;         /* taken over on success only */
        int flags;
        enum xobj_type type;
        enum io_class io_class;
        pid_t tid;      /* the opener, as FUSE names it; 0 or one that is gone: nobody's */
};

/* OPEN, CREATE, OPENDIR: makes the description and the opener's handle.  Returns the description with
 * the kernel's reference, or -errno with nothing left behind and `fd` still the caller's. */
int description_open(struct lazy *lazy, struct server_object *object,
                     const struct description_how *how, struct description **ret_description);

/* RELEASE, RELEASEDIR, or an OPEN whose reply the kernel did not take: ends all handles, what was left
 * behind, and the kernel's reference. */
void description_release(struct description *description);

/* The mount is gone without a RELEASE for each open file (abort, lazy unmount): releases whatever the
 * kernel still had.  No request may be under way. */
void lazy_release_all(struct lazy *lazy);

/* The description behind fi->fh, or NULL.  No reference: see above for why a request needs none. */
struct description *description_from_fh(struct lazy *lazy, uint64_t fh);

struct description *description_ref(struct description *description);
void description_unref(struct description *description);
typedef struct description K42Description; /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Description, description_unref)

/* Accounts one read or write of `bytes` that thread `tid` made through the description: to the
 * handle of its process if that has one, else to the first handle.  No system call. */
void description_count_read(struct description *description, pid_t tid, uint64_t bytes);
void description_count_write(struct description *description, pid_t tid, uint64_t bytes);

/* For the server object's ops: the client data part of give_access_by_server() and its end. */
struct open_how {
        struct description *description;
        xhandle parent; /* XHANDLE_NONE for the opener */
};
int description_give_access_set_client_data(struct server_object *object, struct client *client,
                                            access_rights match, access_rights nomatch,
                                            const void *how, struct object_handle *ret_handle);
void description_being_freed(struct server_object *object, const struct xobj *xobj);

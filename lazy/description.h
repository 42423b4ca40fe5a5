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
 * What survives the daemon is a record (struct kept_description) and those of the handles, which name it
 * by its id.  lazy_resume.h tells how they come back; then `fd` is -1 until somebody needs it.
 *
 * It can happen that nobody knows whether the kernel took the reply to the OPEN that made a description:
 * then it is *doubtful*.  A request that names it proves that the kernel has it; until one comes,
 * somebody has to look whether a process has the file open (description_release_doubtful()).
 *
 * Locks: description.lock is a leaf: no other lock is taken, and no system call made, under it.
 * reopen_lock is taken before it and before the locks of the COBJ layer.
 */
#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cobj/keep.h"
#include "cobj/xobj.h"

struct lazy;
struct lazy_state;

/* What survives of a description: a KEEP_DESCRIPTION record.  Constant, if nothing else is said. */
struct kept_description {
        uint64_t id;
        uint64_t object;         /* id of the server object */
        int64_t opened;          /* µs since the epoch */
        _Atomic uint64_t opener; /* token of the first handle, see struct description */
        int32_t flags;           /* open(2) flags as asked for */
        _Atomic int32_t opener_pid;
        _Atomic uint32_t state;  /* DESCRIPTION_… */
        _Atomic access_rights bound; /* see lazy_state_bound() */
        uint8_t type;            /* enum xobj_type */
        uint8_t io_class;        /* enum io_class */
        _Atomic uint8_t revoked; /* enum revoked */
        uint8_t reserved[5];
};

/* How far it has been taken from everybody, see rights.h. */
enum revoked {
        REVOKED_NOT,
        REVOKED_BEGUN, /* nobody may do anything with it any more, but the kernel may still know some of the file */
        REVOKED_WHOLLY,
};

#define DESCRIPTION_HELD     1 /* the kernel has it: no RELEASE has begun */
#define DESCRIPTION_DOUBTFUL 2 /* … or it may never have heard of it */

struct description {
        struct kept_description *kept; /* owned; constant */
        uint64_t id;                  /* fi->fh; constant */
        struct lazy *lazy;            /* constant */
        struct server_object *object; /* a reference; constant */
        atomic_int fd;                /* backing descriptor, owned; -1: nobody has needed one yet, see
                                         description_fd().  Changes once */
        int flags;                    /* open(2) flags as asked for; constant */
        enum xobj_type type;          /* constant */
        enum io_class io_class;       /* constant */
        int64_t opened;               /* µs since the epoch; constant */
        _Atomic xhandle opener;       /* token of the first handle; after the open is answered only
                                       * private_reopen() changes it and the next, under reopen_lock */
        _Atomic pid_t opener_pid;     /* process id */

        GMutex dir_lock;    /* directories: serialises lseek + getdents64 on fd; taken by readdir only */
        off_t dir_at;       /* where that left fd; -1: not known; under dir_lock */
        GMutex reopen_lock; /* one lazy_reopen() at a time: a process gets one handle, not two */

        atomic_bool guarded;         /* rights have to be looked at, see rights.h; never false again */

        atomic_int refs;
        GMutex lock;
        GQueue handles;              /* struct open_client_data.link; under lock */
        struct lazy_state *left;     /* what is kept for processes that have not touched it; own ref */
        struct lineage *_Atomic lineage; /* of private mode, lineage.h; set once; a reference */
        _Atomic uint32_t state;      /* DESCRIPTION_…, as in the record */
        bool was_doubtful;           /* so its memory stays, see lazy_private.h; set while resuming */
        struct description *next_dead;
};

/* The client data of a handle on a file or directory: one client's use of one description. */
struct open_client_data {
        struct client_data base; /* must be first */
        struct description *description; /* a reference */
        struct client *client;           /* borrowed from the xobj; constant */
        xhandle token;                   /* XHANDLE_NONE until the handle is given; under lock */
        _Atomic uint32_t slot;           /* in its client's account; 0: none, see account.h */
        uint64_t slot_nonce;             /* of that account, under its lock; so is the next */
        bool ending;                     /* it gets no slot any more */
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
struct fence *lazy_fence(struct lazy *lazy);
struct process_limits *lazy_limits(struct lazy *lazy);

/* Counted since the start: handles made by lazy_reopen(); accesses left behind by lazy_give_access(). */
uint64_t lazy_reopens(struct lazy *lazy);
uint64_t lazy_gives(struct lazy *lazy);

struct description_how {
        int fd;         /* taken over on success only; -1: it is opened when somebody needs it */
        int flags;
        enum xobj_type type;
        enum io_class io_class;
        pid_t tid;      /* the opener, as FUSE names it; 0 or one that is gone: nobody's */
        uint64_t *made; /* gets the id before the next daemon could see the description; may be NULL */
};

/* OPEN, CREATE, OPENDIR: makes the description and the opener's handle.  Returns the description with
 * the kernel's reference, or -errno with nothing left behind and `fd` still the caller's. */
int description_open(struct lazy *lazy, struct server_object *object,
                     const struct description_how *how, struct description **ret_description);

/* RELEASE, RELEASEDIR, or an OPEN whose reply the kernel did not take: ends all handles, what was left
 * behind, and the kernel's reference. */
void description_release(struct description *description);

/* The mount is gone without a RELEASE for each open file (abort, lazy unmount): releases whatever the
 * kernel still had.  No request may be under way.  The client table is stopped (client_table_stop()), so
 * that when it returns nobody is ending a handle. */
void lazy_release_all(struct lazy *lazy);

/* The description behind fi->fh, or NULL.  No reference: see above for why a request needs none.  Only for
 * what the kernel named in a request: it is not doubtful any more then. */
struct description *description_from_fh(struct lazy *lazy, uint64_t fh);

/* The backing descriptor, or -errno.  The description of an earlier daemon, or of a file that the kernel reads
 * by itself, has none until it is asked for the first time: then the file is opened again, which can fail
 * (-ESTALE if it cannot be found, or it is another one); the next call tries again.  No lock; a system call only at the first time. */
int description_open_again(struct description *description);
static inline int description_fd(struct description *description)
{
        const int fd = atomic_load_explicit(&description->fd, memory_order_acquire);

        return G_LIKELY(fd >= 0) ? fd : description_open_again(description);
}

/* Gives the description its backing descriptor, if it has none yet; takes `fd` in any case.  Returns the one
 * that it has. */
int description_install_fd(struct description *description, int fd);

/* Calls fn with every description that the kernel has, the table's lock held: fn must not open or release any. */
void lazy_foreach_description(struct lazy *lazy, void (*fn)(struct description *d, void *data),
                              void *data);

/* It is not known whether the kernel has it.  No request with it may be under way. */
void description_set_doubtful(struct description *description);

/* Steps through the descriptions, all or those that are doubtful: a reference is passed to the caller;
 * NULL at the end.  *cursor is 0 before the first call.  Those that are there from the first call to the
 * last are met exactly once. */
struct description *lazy_next_description(struct lazy *lazy, uint32_t *cursor);
struct description *lazy_next_doubtful(struct lazy *lazy, uint32_t *cursor);

/* It has turned out that the kernel does not have it: as description_release().  False, and nothing has
 * happened, if a request was faster (then it has it), or if it was released meanwhile.  The caller has a
 * reference. */
bool description_release_doubtful(struct description *description);

struct description *description_ref(struct description *description);
void description_unref(struct description *description);
typedef struct description K42Description; /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Description, description_unref)

/* Accounts one read or write of `bytes` that thread `tid` made through the description: to the handle of its
 * process.  One that has none gets it now where everything is counted by caller (IO_CLASS_COUNTED), and
 * there the caller is made sure of (a system call or two); elsewhere, and for a process that cannot be seen
 * (tid 0) or may have no handle, it is accounted to the first handle.  No lock held. */
void description_count_read(struct description *description, pid_t tid, uint64_t bytes);
void description_count_write(struct description *description, pid_t tid, uint64_t bytes);

/* The same for what was read into the page cache of a description of class counted, for a mapping,
 * sendfile(2) or splice(2): whoever has an account counts those calls himself. */
void description_count_pages(struct description *description, pid_t tid, uint64_t bytes);

/* For whoever has to know of every change of a counter before and after it is made.  Called with
 * description.lock held: no lock may be taken. */
struct count_observer {
        /* The handle's counters (of writes, if is_write) are about to become these.  False: they need not,
         * that was counted already. */
        bool (*count)(const struct kept_handle *handle, bool is_write, uint64_t ops, uint64_t bytes,
                      void *data);
        void (*counted)(void *data); /* and now they are */
        void *data;
};

/* Before there are threads; borrowed, NULL: nobody. */
void lazy_set_count_observer(struct lazy *lazy, const struct count_observer *observer);

/* Makes counters of a handle what they were about to become; a stale token is ignored.  For resuming. */
void lazy_set_count(struct lazy *lazy, xhandle token, bool is_write, uint64_t ops, uint64_t bytes);

/* For the server object's ops: the client data part of give_access_by_server() and its end. */
struct open_how {
        struct description *description;
        xhandle parent; /* XHANDLE_NONE for the opener */
};
int description_give_access_set_client_data(struct server_object *object, struct client *client,
                                            access_rights match, access_rights nomatch,
                                            const void *how, struct object_handle *ret_handle);
enum keep_type description_leaves(struct server_object *object, const struct xobj *xobj);
void description_ending(struct server_object *object, const struct xobj *xobj);
void description_being_freed(struct server_object *object, const struct xobj *xobj);

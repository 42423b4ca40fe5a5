/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * node_fd: the O_PATH descriptors of the nodes, of which only a bounded number is kept.
 *
 * A node's descriptor is a cache of its identity: it can be closed when nobody uses it, and opened
 * again by file handle (privileged, on SOURCE's own mount) or by the names that the node was seen
 * under.  What comes of that is compared with the identity; what cannot be verified is -ESTALE,
 * never another file.
 *
 *   node_fd_get() / node_fd_put()   use the descriptor for a while; nobody closes it meanwhile
 *   node_fd_pin()                   it stays open for ever (the root, and what has no name any
 * more)
 *
 * The bound is for what is idle: descriptors in use or pinned may exceed it.  When the process runs
 * out of descriptors, node_fds_shrink() closes all that is idle, and the call is made once more.
 */
#include <errno.h>
#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct server_file;
union fs_handle;

/* Part of struct server_file. */
struct node_fd {
        GMutex lock;                /* opening and closing; held during system calls on this node */
        atomic_int uses;            /* -1: not open; else who uses it.  Leaves -1 under lock only */
        int fd;                     /* valid while uses >= 0 */
        unsigned pins;              /* under lock; each has a use of its own */
        atomic_bool recent;         /* used since the cache last looked */
        GList link; /* in node_fds.ring, under node_fds.lock; data: the file or NULL */
};

/* Part of struct node_table. */
struct node_fds {
        GMutex lock; /* a leaf: no system call and no other lock under it */
        GQueue ring; /* struct node_fd.link of what can be closed; oldest last */
        unsigned limit;   /* of what is idle; constant */
        unsigned for_all; /* what open files and pinned nodes may use before only root may; constant */
        atomic_uint open; /* descriptors held, pinned ones included */
        atomic_uint pinned;
        int mount_fd;     /* of SOURCE, open for reading, for open_by_handle_at(); -1: no handles */
        int mount_id;     /* of SOURCE */
};

/* `root_fd`: O_PATH of SOURCE, borrowed.  `use_handles`: the daemon has the right to. */
void node_fds_init(struct node_fds *fds, int root_fd, bool use_handles);
void node_fds_clear(struct node_fds *fds);

/* Closes every idle descriptor; how many.  For when the process has no descriptors left. */
unsigned node_fds_shrink(struct node_fds *fds);

static inline bool node_fds_exhausted(int r)
{
        return r == -EMFILE || r == -ENFILE;
}

void node_fd_init(struct node_fd *node);
/* Closes; only when nobody can know the file any more. */
void node_fd_clear(struct server_file *file);

/* Gives the node the O_PATH descriptor `fd` of its file, if it has none; takes `fd` in any case. */
void node_fd_install(struct server_file *file, int fd);

/* The handle of what `name` in `dirfd` is, by which a node can be opened when it is needed.  False if
 * there is none, or it is of another mount. */
bool node_fds_handle(struct node_fds *fds, int dirfd, const char *name,
                     union fs_handle *ret_handle);

/* A descriptor to use until node_fd_put().  Returns it, or -errno. */
int node_fd_get(struct server_file *file);
void node_fd_put(struct server_file *file);

/* As node_fd_get(), where the caller has the very file open as `fd`: that is quicker than by its handle. */
int node_fd_get_like(struct server_file *file, int fd);

/* As above, but only if it is open already, else -EBADF; no system call, no lock. */
int node_fd_get_open(struct server_file *file);

/* True if the file can be opened again by its handle, whatever becomes of its names. */
bool node_fd_by_handle(const struct server_file *file);

/* The file, open for reading with `flags` (fs_open_flags()), without opening the node's descriptor for
 * it; verified as that would be.  Returns a new descriptor or -errno, which says no more than that it
 * does not go this way: it is open already, or has no handle, or the file is gone. */
int node_fd_open_unopened(struct server_file *file, int flags);

/* Keeps it open until as many node_fd_unpin(), or until the file is freed; opens it if need be.
 * Returns the descriptor or -errno. */
int node_fd_pin(struct server_file *file);
void node_fd_unpin(struct server_file *file);

/* True if `fd`, a descriptor of a file with the same device and inode number, is this node's file
 * as far as file handles can tell; true when they cannot. */
bool node_fd_same_handle(struct server_file *file, int fd);
bool node_fd_locked_same_handle(struct server_file *file, int fd); /* node_fd.lock held */

/* A borrowed descriptor for the time of a scope, and a reference on the file: the scope may end after
 * the request was answered, when the kernel may have forgotten the node already. */
struct node_fd_use {
        struct server_file *file;
        int fd; /* or -errno */
};
struct node_fd_use node_fd_use(struct server_file *file);
void node_fd_unuse(struct node_fd_use *use);
#define NODE_FD(name, of)                                                                          \
        __attribute__((cleanup(node_fd_unuse))) struct node_fd_use name = node_fd_use(of)

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * server_file: the server object of one inode of the backing directory; "node" for short.  A
 * directory's is a dir_linux_fs, which begins with one.
 *
 * Who keeps a node alive, and why
 * -------------------------------
 * A node has one counter of references, and lives as long as that is not zero:
 *
 *   the kernel     one reference for each time that a reply named the node (LOOKUP, CREATE, MKDIR,
 * …, an entry of READDIRPLUS other than "." and ".."), counted a second time in `nlookup`, so that
 * a FORGET can be checked.  They are taken *before* the reply is sent, for the kernel may answer
 * with FORGET at once, and given back if the reply was not taken (-ENOENT: the caller was
 * interrupted). descriptions   one each, and one for each object handle (struct server_object's
 * ref): the kernel may forget a node only after RELEASE, but a lazy_reopen() under way need not be
 *                  over by then.
 *   links          a file's link keeps the *directory* alive, never the other way round: names are
 *                  needed to open a file again, and to tell people its path.
 *   the table      one reference on the root.
 *   a request      has one from the moment that it borrows the node's descriptor until the end of
 *                  that scope.  Before it needs none: the kernel does not forget a node while a
 *                  request on it is under way.  But it may as soon as the request is answered, which
 *                  is before the scope ends.  What a request finds in other ways (by identity, or as
 *                  a directory's child) it gets with a reference.
 *
 * The table of identities and a directory's list of children do not keep anything alive.  Whoever
 * finds a node there takes a reference with server_file_try_ref(), which fails for a node whose
 * last one is gone and that is just being taken out.
 *
 * Names of a node towards the kernel are ids of the id table, with a generation: a node that was
 * freed is never taken for another one.  The root is FUSE_ROOT_ID and has no entry in the table.
 *
 * Identity
 * --------
 * (st_dev, st_ino, type, birth time).  A file that is found with the number of a known one but
 * another birth time is another file: it gets a node of its own and the old one is taken out of the
 * table; who still has the old one gets what its descriptor shows, or ESTALE.  Where there is no
 * birth time, an open descriptor proves that a number was not used again, and file handles tell.
 * A node whose last name was removed through the mount is taken out at once and keeps its
 * descriptor.
 *
 * Locks, in the order in which they may be taken together:
 *   node_fd.lock                  opening and closing this node's descriptor; the only one under
 *                                 which system calls are made
 *   dir_linux_fs.children_lock    its children
 *   server_file.links_lock        its links
 *   node_shard.lock, node_fds.lock    identities, the ring of descriptors: leaves
 *   file_opens.lock               class of the opens; taken alone
 */
#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cobj/xobj.h"
#include "fusefs/node/contents.h"
#include "fusefs/node/fs_file.h"
#include "fusefs/node/hash.h"
#include "fusefs/resume/kept_node.h"
#include "fusefs/node/node_fd.h"
#include "fusefs/node/passthrough.h"

struct dir_linux_fs;
struct node_table;

struct server_file {
        struct server_object object; /* must be first */
        struct node_table *table;    /* constant */
        struct kept_node *kept;      /* identity, lookups, flags; owned; constant */
        uint64_t id;                 /* what the kernel calls it; constant */
        mode_t type;                 /* S_IFMT; constant */
        bool hashed;                 /* under the shard's lock */
        bool held;                   /* by the resuming, see node_resume.h; main thread's */
        uint16_t idle_slot;          /* where it was put into the ring of idle_backing; under its lock */
        _Atomic uint64_t refs;
        struct hash_link by_identity; /* in its shard, under the shard's lock */

        struct node_fd fd;
        struct file_opens opens;
        contents_word contents; /* what the kernel may keep */

        GMutex links_lock;
        struct file_link *links; /* newest first; under links_lock */
        unsigned n_links;        /* under links_lock */

        struct server_file *next; /* for lists of nodes that are being freed */
};

/* A name of a file: a directory that it was seen in, and what it was called there. */
struct file_link {
        struct hash_link by_name;    /* in parent's children; under its children_lock */
        struct dir_linux_fs *parent; /* a reference; constant once linked */
        struct server_file *child;   /* constant once linked */
        struct file_link *next;      /* under child's links_lock */
        struct kept_link *kept;      /* the name; owned; constant.  kept->listed: in parent's children.
                                        Changed under both locks, so either is enough to read it */
};

/* A new node with one reference, not yet known to anybody else.  `handle`: by which it is opened when it
 * is needed, or NULL.  `fd` is O_PATH of the file, or -1; taken on success.  Returns 0 or -errno. */
int server_file_new(struct node_table *table, const struct fs_stat *st, const union fs_handle *handle,
                    int fd, struct server_file **ret_file);

/* The node of a record that an earlier daemon left; the record is the node's then, but on failure.
 * With one reference for each lookup and one for the caller; not in the table of identities yet. */
int server_file_restore(struct node_table *table, struct kept_node *kept,
                        struct server_file **ret_file);

struct server_file *server_file_ref(struct server_file *file);
bool server_file_try_ref(struct server_file *file);
void server_file_unref(struct server_file *file);
void server_file_unrefp(struct server_file **file);

/* A reference that is given back at the end of the scope. */
#define SERVER_FILE(name)                                                                          \
        __attribute__((cleanup(server_file_unrefp))) struct server_file *name = NULL

/* The kernel learns of the node once more: the caller's reference becomes the kernel's. */
void server_file_known(struct server_file *file);

/* The kernel forgets the node `n` times (more than it knows it is only as often as it does). */
void server_file_forget(struct server_file *file, uint64_t n);

/* Gives up all `n` lookups, and `n` is how many there still are; else returns false. */
bool server_file_forget_all(struct server_file *file, uint64_t n);

static inline bool server_file_has(const struct server_file *file, enum node_flag flag)
{
        return kept_node_has(file->kept, flag);
}

static inline bool server_file_is_dir(const struct server_file *file)
{
        return S_ISDIR(file->type);
}

/* True if `st` (of a descriptor) is the very file of this node. */
bool server_file_is(struct server_file *file, const struct fs_stat *st);

/* The last name is gone: takes it out of the table of identities.  Its descriptor must be pinned.
 */
void server_file_set_deleted(struct server_file *file);

/* Opens the file by its names, verified: an O_PATH descriptor or -errno.  For node_fd. */
int server_file_open_by_name(struct server_file *file);

/* Opens the file for I/O with what `flags` (of an open(2) that succeeded once) are good for a second time.
 * A new descriptor or -errno, -ESTALE if the file cannot be found again. */
int server_file_open_again(struct server_file *file, int flags);

/* Path from the mount's root for people, "/a/b"; with " (deleted)" if the name was removed. */
char *server_file_describe(struct server_file *file);

static inline struct server_file *server_file_of(struct server_object *object)
{
        return (struct server_file *)object;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * passthrough: class fast, the kernel reads and writes the backing file by itself.
 *
 * The kernel's rules for one inode (fs/fuse/iomode.c): opens with a backing file and opens through the
 * page cache exclude each other (EIO), and all with a backing file must have the same one.  So a node
 * counts both kinds of opens: the first open chooses, those that come while it is open follow.  The
 * backing id is made with the first fast open and is given back when the last one is released, or a
 * little later (idle_backing.h).
 *
 * Where the kernel does not take a backing file (another class is in use on the inode, the file system
 * is stacked already, no privilege) the open is cached: it never fails for that.
 *
 * What the kernel does by itself it does with the flags of the open and the credentials of the moment
 * when the backing file was registered.  So O_APPEND and O_DIRECT that are taken off by F_SETFL stay on,
 * and setuid and setgid bits do not stay where a writer's privileges would let them.  With io=auto an
 * open for which that could matter is counted instead, with the same backing file for its mappings:
 * exact before fast.  With io=fast it is fast.
 */
#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "cobj/xobj.h"

struct k42_mount;
struct server_file;

struct file_opens {
        GMutex lock; /* protects what follows, and kept_node.backing_id, which is > 0 while `fast` > 0 and
                        perhaps while `idle`; an ioctl on /dev/fuse is made under it */
        unsigned fast;
        unsigned cached : 31;
        unsigned idle : 1;   /* in the ring of idle ones */
        atomic_uint writers; /* of the fast ones, those by which the kernel writes; changes under lock */
        atomic_uint all;     /* descriptions, of directories, too; no lock, see park.h */
};

void file_opens_init(struct file_opens *opens);
void file_opens_clear(struct file_opens *opens);

/* Once, when the mount answers: asks whether the kernel takes backing files from us at all.  If not,
 * says so, and all opens are cached. */
void passthrough_probe(struct k42_mount *mount);

/* An open of `file` begins. */
struct file_open {
        bool joined; /* file_opens_join() was true; then the rest is not looked at */
        int fd;      /* open for I/O; -1 if `joined` */
        int path_fd; /* O_PATH, or open for reading and nothing else; or -1 */
        int flags;   /* as asked for */
        mode_t mode; /* the file's, if the caller knows it; else 0 */
};

/* The same in short, for an open for reading: true if the kernel has the backing file already and will do with
 * it by itself all that is asked for.  Then it is of IO_CLASS_FAST, and needs no descriptor of ours. */
bool file_opens_join(struct server_file *file, int flags);

/* Which class it gets.  If it uses the backing file the reply that this thread sends next carries its
 * id. */
enum io_class file_opens_begin(struct server_file *file, const struct file_open *open);

/* … and has its description.  Before the reply. */
void file_opens_recorded(struct server_file *file);

/* … and is over: released, or its reply was not taken.  `flags` as it began with; `fd` likewise, or another one of
 * the file; only for one that writes does it have to be there. */
void file_opens_end(struct server_file *file, enum io_class io_class, int flags, int fd);

/* The last name of the file is gone: its blocks are to be free when it is closed. */
void file_opens_drop(struct server_file *file);

/* A node of an earlier daemon has come back, with what its record says of its backing file.  Before there are
 * threads. */
void file_backing_resume(struct server_file *file);

/* A description that an earlier daemon made is still there.  Before there are threads. */
void file_opens_resume(struct server_file *file, enum io_class io_class, int flags);

/* All that were are there again: closes the backing files that nobody uses, and those that were being registered
 * when the earlier daemon died.  Before requests are served. */
void passthrough_resumed(struct k42_mount *mount);

/* The kernel writes to the file by itself: see to it (again) that not every write is told as a change by
 * others.  `fd`: of the file. */
void file_opens_watch_less(struct server_file *file, int fd);

/* For idle_backing: the file is out of the ring. */
void file_opens_idle_is_over(struct server_file *file);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * dir_linux_fs: the server object of a directory: a server_file and the list of its children that
 * are instantiated, by name.
 *
 * The list holds the links of the children, see struct file_link: a link is in two lists, its
 * directory's and its file's, and is put in and taken out under both locks.  It is a memory of what
 * was seen, for rename and unlink, for paths, and for opening again: whether a name exists is
 * always asked of the backing directory.
 */
#include "fusefs/node/server_file.h"

struct dir_linux_fs {
        struct server_file file; /* must be first */
        GMutex children_lock;
        struct hash children; /* struct file_link.by_name; under children_lock */
};

static inline struct dir_linux_fs *dir_linux_fs_of(struct server_file *file)
{
        return (struct dir_linux_fs *)file;
}

/* A file remembers at most this many names; the oldest are dropped.  A directory has one. */
#define FILE_LINKS_MAX 64

/* A link for a name in `dir`, in no list yet; NULL if out of memory.  file_link_free() ignores NULL. */
struct file_link *file_link_new(const struct dir_linux_fs *dir, const char *name);
void file_link_free(struct file_link *link);
void file_link_freep(struct file_link **link);
#define FILE_LINK(link, dir, name)                                                                 \
        __attribute__((cleanup(file_link_freep))) struct file_link *link = file_link_new(dir, name)

/* The link's directory has `child` under its name from now on.  Takes the link over.  The next daemon sees
 * the new link before it misses an old one: so where a file moves it is linked first and then unlinked. */
void dir_link(struct file_link *link, struct server_file *child);

/* The same for two links that take each other's place: both are seen before the old ones are missed. */
void dir_link_two(struct file_link *link_a, struct server_file *child_a, struct file_link *link_b,
                  struct server_file *child_b);

/* As dir_link(), but makes a link only if there is none yet.  Returns 0 or -ENOMEM. */
int dir_saw(struct dir_linux_fs *dir, const char *name, struct server_file *child);

/* The instantiated child of that name with a reference, or NULL. */
struct server_file *dir_child(struct dir_linux_fs *dir, const char *name);

/* `name` is gone from `dir`.  With `keep_name` the child remembers it as the one that it had. */
void dir_unlink(struct dir_linux_fs *dir, const char *name, bool keep_name);

/* A link of a record that an earlier daemon left, before there are other threads; the record is the
 * link's then.  Returns 0; -EEXIST if `dir` has a child of that name already; or -ENOMEM. */
int dir_restore_link(struct dir_linux_fs *dir, struct kept_link *kept, struct server_file *child);

/* The directory, with a reference, and a copy of the name of the n-th link of `child` that is listed; NULL
 * if there are not so many, or out of memory. */
char *file_nth_name(struct server_file *child, unsigned n, struct server_file **ret_dir);

/* `child` is not what has this name in `dir`: the link is removed, if it is there. */
void dir_not_child(struct dir_linux_fs *dir, const char *name, struct server_file *child);

/* For a node that is being freed: takes one of its links out; the directory that the link referred
 * to, whose reference is passed to the caller, or NULL when there is none left. */
struct server_file *dir_take_link_of(struct server_file *child);

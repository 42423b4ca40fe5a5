/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * What an actor's directory must be: a tree in memory that is changed as the real one is.
 *
 * An actor is the only one who changes its directory, so that every answer of every system call can be told
 * beforehand.  Names are few, so that calls meet what others made: existing ones, missing ones, full
 * directories.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MODEL_NAMES    12          /* names that a directory may have */
#define MODEL_FILE_MAX (96 * 1024) /* bytes in a file */
#define MODEL_XATTRS   3
#define MODEL_DEPTH    4

enum model_type { MODEL_FILE, MODEL_DIR, MODEL_SYMLINK };

struct model_node {
        enum model_type type;
        unsigned refs;  /* names, held descriptors, and the tree's own pointer to the root */
        unsigned links; /* names of a file */
        mode_t mode;
        uint64_t ino; /* once it was seen; must never change */
        int64_t mtime; /* seconds, as utimensat() set it; 0: not known */
        char *data;    /* MODEL_FILE, of MODEL_FILE_MAX bytes */
        size_t size;
        char target[32]; /* MODEL_SYMLINK */
        char xattrs[MODEL_XATTRS][16]; /* "": not there */
        struct model_node *parent; /* of a directory */
        struct model_node *names[MODEL_NAMES];
};

struct model_node *model_new(enum model_type type);
void model_unref(struct model_node *node);

/* A name is an index into a directory's names; its text is "nINDEX". */
void model_set(struct model_node *dir, unsigned name, struct model_node *node); /* takes a reference */
void model_clear(struct model_node *dir, unsigned name); /* the name goes, the node with its last one */

unsigned model_children(const struct model_node *dir);
unsigned model_depth(const struct model_node *dir);
/* Is `dir` the directory `above`, or below it? */
bool model_is_below(const struct model_node *dir, const struct model_node *above);

/* The path of `name` in `dir`, relative to the root. */
void model_path(const struct model_node *dir, unsigned name, char *ret_path, size_t size);

/* Any directory that is in the tree. */
struct model_node *model_any_dir(struct model_node *root, uint64_t random);

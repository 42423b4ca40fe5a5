/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * A table of nodes on a real backing directory, without a mount, and the tests that fill files of
 * their own.  All functions fail by g_assert.
 */
#include <glib/gstdio.h>

#include "fusefs/node/dir_linux_fs.h"
#include "fusefs/node/node_table.h"
#include "fusefs/ops/ops.h"

struct fixture {
        char *source;
        struct k42_mount mount;
        struct node_table *table;
        struct dir_linux_fs *root;
        int rootfd;
        unsigned fds_before;
};

void setup(struct fixture *f, gconstpointer data);
/* All descriptors that were opened since setup() have to be closed. */
void teardown(struct fixture *f, gconstpointer data);

/* How many descriptors this process has. */
unsigned open_fds(void);
/* The path of `name` in the backing directory, for g_free(). */
char *at(struct fixture *f, const char *name);
/* A file, made behind the table's back; its contents are its name. */
void make_file(struct fixture *f, const char *name);
void remove_file(struct fixture *f, const char *name);
/* The node of `name` in the root; known to the kernel once more. */
struct server_file *look(struct fixture *f, const char *name);
void assert_path(struct server_file *file, const char *path);

/* node-identity.c: is it still the same file? */
void test_inode_reused(struct fixture *f, gconstpointer data);
void test_exchanged(struct fixture *f, gconstpointer data);
void test_reused_at_once(struct fixture *f, gconstpointer data);
void test_reused_by_create(struct fixture *f, gconstpointer data);
void test_unopened(struct fixture *f, gconstpointer data);
void test_unopened_fifo(struct fixture *f, gconstpointer data);
void test_birth_time_changes(struct fixture *f, gconstpointer data);
void test_replaced(struct fixture *f, gconstpointer data);

/* node-failures.c: system calls that fail. */
void test_nth_call_fails(struct fixture *f, gconstpointer data);
void test_no_descriptors(struct fixture *f, gconstpointer data);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * For tests of nodes that come back: a first daemon that is killed, and a holder and a kernel that are
 * made up.  (The functions of the daemon that would reach them are wrapped by the linker.)
 */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "fusefs/node/dir_linux_fs.h"
#include "fusefs/mount.h"
#include "fusefs/node/node_table.h"

struct said {
        uint64_t ids[16];
        int last_backing;
};

struct fixture {
        char *source, *state;
        int state_fd, source_fd;
        struct k42_mount mount;
        struct node_table *table;
        struct dir_linux_fs *root;
        int rootfd;
        struct said *said; /* by the first daemon; shared memory */
};

/* For g_test_add(); teardown looks that nothing is left in the keep or with the holder. */
void setup(struct fixture *f, gconstpointer data);
void teardown(struct fixture *f, gconstpointer data);

/* Runs `fn` as the first daemon, in a child process, and kills it in the end. */
void daemon_dies(struct fixture *f, void (*fn)(struct fixture *f));

/* The next daemon: up to node_table_resume(). */
void resume(struct fixture *f);

/* In SOURCE, as others do it. */
char *at(struct fixture *f, const char *name);
void make_file(struct fixture *f, const char *name);
void make_dir(struct fixture *f, const char *name);
void move(struct fixture *f, const char *from, const char *to);
void remove_name(struct fixture *f, const char *name);

/* Of the name in the directory, or in the root; known to the kernel once more. */
struct server_file *look_in(struct fixture *f, struct server_file *dir, const char *name);
struct server_file *look(struct fixture *f, const char *name);
struct server_file *node(struct fixture *f, unsigned n); /* of said->ids[n], or NULL */

/* The file can be opened, and this is in it; this is its path. */
void assert_content(struct server_file *file, const char *content);
void assert_path(struct server_file *file, const char *path);

uint64_t records(struct fixture *f); /* in the keep */

/* ---- the holder ---- */

unsigned count_parked(void);

/* ---- the kernel ---- */

extern unsigned asked;        /* how often: for nodes, or for processes */
extern uint64_t kernel_knows; /* one node */
extern int anybody;           /* what proc_files_anybody() says */
extern bool raising_now;
bool raising(void *data, uint64_t id); /* for struct doubts: raising_now */

#define IDS_MAX 64 /* of backing files */
extern unsigned closed[IDS_MAX]; /* how often */
extern bool die_in_backing_open; /* when the id is there already */

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * matrix: every way to make a process, times every way to hand it a descriptor, times every thing
 * to do with that descriptor.  Nothing here knows what is right: the program prints what happened,
 * and whoever runs it compares the output on the mount with the output on a plain directory.
 *
 *   matrix.c         the loops, the files, the output, the new image's main
 *   matrix-create.c  how a child is made, and what it becomes
 *   matrix-dup.c     how it gets its descriptor
 *   matrix-io.c      what is done with a file's bytes
 *   matrix-file.c    what is done with stdio, directories, locks, flags and attributes
 *
 * A *group* is one child; it does one *cell* after another, each with a file and a descriptor of
 * its own.  Output must not depend on the machine, on time, on process ids or on the folder.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MATRIX_LINE       6    /* "00042\n" */
#define MATRIX_LINES      1000 /* more than a page, and more than a stdio buffer */
#define MATRIX_ENTRIES    40   /* in the directory; all names are as long as "e00" */
#define MATRIX_CELLS      64   /* room for operations */
#define MATRIX_PARENT_MAX 400

/* Text that is made without malloc: a child on its parent's memory writes it, too.  What does not
 * fit is cut. */
struct out {
        char text[400];
        size_t len;
};

void put(struct out *out, const char *text);
void put_number(struct out *out, const char *label, long long number);
void put_bytes(struct out *out, const char *label, const void *bytes,
               long long n);                                           /* n < 0: errno */
void put_result(struct out *out, const char *label, long long result); /* < 0: errno */
void put_offset(struct out *out, int fd); /* " off=N": the descriptor's offset now */

struct cell {
        const struct op *op;
        int orig;     /* the parent's descriptor */
        int use;      /* what the child is to use, in the parent's numbering; -1: it is sent */
        bool child;   /* who runs it */
        pid_t origin; /* the process that opened */
        void *made;   /* FILE or DIR that the parent made before; NULL */
        char path[MATRIX_PARENT_MAX];
};

struct op {
        const char *name;
        int flags; /* for open(2) */
        bool directory;
        bool allocates; /* not for a child on the parent's memory */
        off_t start; /* where the parent leaves the offset; directories: bytes of entries to read */
        void (*prepare)(struct cell *cell); /* in the parent, before the child; may be NULL */
        void (*run)(struct cell *cell, int fd, struct out *out);
};

extern const struct op matrix_io_ops[], matrix_file_ops[];
extern const size_t matrix_io_ops_count, matrix_file_ops_count;

enum dup_kind {
        DUP_NONE, /* the inherited descriptor itself */
        DUP_DUP,  /* copies that the parent makes before */
        DUP_DUP2, /* … over an open descriptor of another file */
        DUP_DUP3, /* … on a free number */
        DUP_FCNTL,
        DUP_SCM,       /* sent over a socket */
        DUP_REOPEN,    /* opened again by /proc/self/fd, in the child */
        DUP_CHILD_DUP, /* copies that the child makes of one it has not used */
        DUP_CHILD_DUP2,
        DUP_KINDS,
};

extern const char *const dup_names[DUP_KINDS];

/* Whether the child sees the very stream that the parent made on its descriptor. */
bool dup_same_stream(enum dup_kind kind);
/* In the parent: makes the copy and returns its number (-1 when it was put into `sock`), or -errno.
 */
int dup_leave(enum dup_kind kind, const struct cell *cell, int index, const char *decoy, int sock);
/* In the child: the descriptor to use, or -errno. */
int dup_take(enum dup_kind kind, const struct cell *cell, int index, int sock);

enum creation {
        CREATE_FORK,
        CREATE_FORK_RAW, /* _Fork() */
        CREATE_CLONE,    /* the system call, without CLONE_VM */
        CREATE_VFORK,
        CREATE_CLONE_VFORK, /* CLONE_VM | CLONE_VFORK */
        CREATE_CLONE_VM, /* both run at the same time on the same memory, with tables of their own
                          */
        CREATE_SPAWN,
        CREATE_SYSTEM,
        CREATE_POPEN,
        CREATE_DAEMON,
        CREATIONS,
};

extern const char *const create_names[CREATIONS];
bool create_needs_exec(enum creation how);
bool create_shares_memory(enum creation how);

enum after {
        AFTER_NONE,
        AFTER_EXEC,
        AFTER_EXEC_CLEAR, /* with an empty environment */
        AFTERS,
};

extern const char *const after_names[AFTERS];

struct group {
        enum creation create;
        enum after after;
        enum dup_kind dup;
        struct cell *cells; /* those that can be done */
        int *index;         /* of each cell, among all operations */
        int count;
        int report;  /* write end of the pipe for the child's lines */
        int sock[2]; /* parent's and child's end */
        char **argv; /* of the new image */
};

/* The child's part: does every cell and writes "NAME TEXT\n" for each. */
void matrix_child(struct group *group);

/* Makes the child and reads what it reports into `ret_text` (NUL-terminated, cut at `size`);
 * returns when everything that came of it has ended.  `ret_text` ends with a line "end STATUS". */
void create_and_wait(struct group *group, int report_read, char *ret_text, size_t size);

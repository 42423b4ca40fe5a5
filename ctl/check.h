/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * check: what the daemon says against what the kernel says (promise P6).
 *
 * Two halves that meet in check_compare() only: the rows of `list`, and our own look at every
 * process in /proc.  Nothing of the daemon's code is used for the second half; which description is
 * behind a descriptor is told by the kernel, that carries K42_IOC_IDENTIFY to the fi->fh of exactly
 * that descriptor.
 *
 * A process of another user may not be looked into.  What can't be seen is counted, never guessed.
 */
#include <json-glib/json-glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* A descriptor of the mount in a process. */
struct seen_descriptor {
        pid_t pid;
        int fd;
        uint64_t ino;
        bool exact; /* the three below are known */
        uint64_t description;
        pid_t opener_pid; /* 0: unknown */
};

/* An inode of the mount that a process has mapped. */
struct seen_mapping {
        pid_t pid;
        uint64_t ino;
};

struct seen {
        GArray *descriptors;    /* struct seen_descriptor */
        GArray *mappings;       /* struct seen_mapping */
        GHashTable *living;     /* pid → 1; all processes that there were */
        GHashTable *closed_off; /* pid → 1; those that could not be looked into */
        unsigned own;           /* descriptors of k42ctl's own */
};

struct seen *seen_new(void);
void seen_free(struct seen *seen);
typedef struct seen K42Seen;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Seen, seen_free)

/* Looks at all processes; mappings are looked for in the processes of `rows` only.  Returns NULL
 * when /proc cannot be read at all. */
struct seen *seen_scan(dev_t dev, JsonArray *rows);

/* What was counted, and what differs. */
struct check_result {
        unsigned handles, descriptors,
                processes;  /* handles compared; descriptors of the mount seen */
        unsigned untouched; /* (process, description) pairs without a handle, inherited or received
                             */
        unsigned own;
        unsigned unowned;    /* handles of nobody: the opener could not be seen */
        unsigned closed_off; /* handles of processes that may not be looked into */
        unsigned inexact;    /* descriptors known by their inode only */
        GHashTable
                *differences; /* key (what and where, without what changes) → one line for people */
};

struct check_result *check_result_new(void);
void check_result_free(struct check_result *result);
typedef struct check_result K42CheckResult;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42CheckResult, check_result_free)

/* Compares.  `rows` are those of `list` with "identity".  Pure. */
struct check_result *check_compare(JsonArray *rows, const struct seen *seen);

/* Keeps in `result` the differences that `earlier` has too. */
void check_keep_common(struct check_result *result, const struct check_result *earlier);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * What the cases of private mode share.  A case has a file of its own, `path`, which make() makes;
 * what does not hold ends the process with status 1.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define SIZE 50000 /* of the file, bytes */
#define SKIP 77    /* the exit status of a case that this process cannot try */

extern char path[4096];
extern const char *const self; /* this program, for exec */

#define CHECK(what)                                                                                \
        do {                                                                                       \
                if (!(what)) {                                                                     \
                        fprintf(stderr, "%s:%d: not so: %s (%s)\n", __FILE__, __LINE__, #what,     \
                                strerror(errno));                                                  \
                        _exit(1);                                                                  \
                }                                                                                  \
        } while (0)

/* The byte of the file at this offset. */
unsigned char byte_at(int64_t at);
/* Makes the file anew and opens it with these flags of open(2). */
int make(int flags);
/* The offset of a descriptor. */
int64_t at(int fd);
/* Reads `n` bytes, 4096 at most, which must be those from `from` on. */
bool reads(int fd, int64_t from, int n);
/* Waits for a child; ends as it ended, if that was not with 0. */
void reap(pid_t pid);

/* A place where a child waits for its parent: made before the fork, and opened by the parent. */
extern int gate[2];
void gate_make(void);
void gate_wait(void);
void gate_open(void);

/* case_streams.c: stdio and directories */
void case_stdio(void);
void case_stdio_loop(void);
void case_directory(void);

/* case_processes.c: other ways to a new process */
void case_exec(void);
void case_raw_clone(void);
void fork_after_exec(int fd);
void case_exec_then_fork(void);
void case_received(void);

/* case_threads.c: locks, mappings, threads, signals */
void case_locks(void);
void case_mappings(void);
void case_threads(void);
void case_parent_threads(void);
void case_signals(void);

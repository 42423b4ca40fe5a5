/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * attempts: what a program tries that wants to keep what was taken from it.  It has no shim.
 *
 * Five processes are in it; an attempt says who makes it:
 *
 *   VICTIM    opened the file and has it mapped; from it, or from the file, something is taken
 *   CHILD     its child, which has used the descriptor before
 *   USER      no relative of it; got the descriptor over a socket and has used it before
 *   LATE      no relative of it; the descriptor is on its way to it in a socket while it is taken
 *   MASTER    started all of them and looks into the VICTIM from outside
 *
 * What reads looks whether it has got the file's contents; what writes through something that was there
 * before writes MARK, and what opens anew writes nothing.  So MARK is in the file if and only if a write
 * got round.
 */
#include <sys/types.h>

#define SIZE 65536
#define CONTENTS 'c' /* each byte of the file */
#define MARK 'X'

enum who { VICTIM, CHILD, USER, LATE, MASTER, WHO };

/* What a result can be besides 0 and -errno. */
enum {
        GOT_NOTHING = 1, /* no error, but not the file's contents */
        SKIPPED = 2,     /* cannot be tried on this machine */
        SIGNAL = 1000,   /* + its number */
};

struct attempt {
        const char *name;
        enum who who;
        long (*fn)(void);
};

extern const struct attempt data_attempts[], open_attempts[], message_attempts[], look_attempts[];

/* What the VICTIM has made before; the others have `fd` alone. */
struct held {
        const char *file, *mountpoint;
        pid_t victim;
        int fd, copy, path_fd, dir_fd, pipe[2], full_pipe[2], other;
        volatile char *map, *read_only_map, *private_map;
};
extern struct held held;

/* Before anything is taken; each exits where it fails. */
void prepare_ring(void);
void prepare_names(void);

long raw(long r);                    /* -errno or 0 */
long got(long r, char byte);         /* raw(), or GOT_NOTHING if `byte` is not CONTENTS */
long read_from(int fd);              /* of a new descriptor, or -1 with errno; closes it */

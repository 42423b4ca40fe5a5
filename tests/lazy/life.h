/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * A daemon's lives, for tests of what comes back.  A daemon that is killed is played by a copy of
 * its keep, made while it is alive: what is in the copy is what a kill would have left.
 *
 * A fixture has the directory of the keeps, which are numbered, and the children.  All functions
 * fail by g_assert; none may be called by two threads at once.
 */
#include <glib.h>
#include <stdatomic.h>

#include "children.h"
#include "lazy/lazy_reopen.h"
#include "lazy/lazy_resume.h"
#include "lazy/lazy_state.h"

/* Server objects that only count. */
struct thing {
        struct server_object object;
        uint64_t id;
        atomic_int refs;
};

#define THINGS 8

/* One daemon's life. */
struct life {
        struct keep *keep;
        struct cobj *cobj;
        struct lazy *lazy;
        struct thing things[THINGS];
        atomic_int given, freed, appeared, exited;
        void (*freeing)(struct life *life); /* called once, while a handle is ended */
        struct lazy_resumed resumed;
};

struct fixture {
        char *dir;
        int dirfd;
        unsigned lives;
        GArray *children; /* for child_start(); ended with the test */
};

void set_up(struct fixture *f, gconstpointer data);
void tear_down(struct fixture *f, gconstpointer data);

/* A life on `keep`, which becomes its own; what is in the keep is not looked at. */
struct life *life_new(struct fixture *f, struct keep *keep);
/* The first, on an empty keep. */
struct life *first_life(struct fixture *f);
/* A copy of the newest life's keep: what a kill at this moment would leave. */
struct keep *killed(struct fixture *f, uint32_t *ret_damaged);
/* The next life, on such a copy, undamaged and with all that was in it. */
struct life *next_life(struct fixture *f);
/* The same, before anybody has looked which processes are still there. */
struct life *next_life_unsettled(struct fixture *f);
/* Everything is given back, memory and records: nothing may be left.  Frees the life. */
void life_end(struct life *life);

/* For lazy_resume(): the thing with this id, with a reference.  `data` is the life. */
struct server_object *object_of(uint64_t id, void *data);

/* Process `tid` opens a thing (an index, from 0); the description is the life's. */
struct description *open_as(struct life *life, unsigned thing, pid_t tid, int flags);
/* Process `pid` touches it; `hint` is the handle that it knows, or 0.  The daemon's answer. */
struct k42_lazy_reopen reopen_as(struct description *d, pid_t pid, uint64_t hint);
/* The record in the keep of a handle; NULL if there is no such handle (any more). */
struct kept_handle *record_of(struct life *life, xhandle token);
/* Waits up to 5 s until the handle is gone. */
void wait_until_stale(struct life *life, xhandle token);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * An actor does one random system call after the other in a directory of its own and compares every result
 * with its model.  Actors share nothing; each is a thread.
 */
#include <stdatomic.h>

#include "model.h"

#define ACTOR_HELD 10

struct held {
        int fd; /* -1: none */
        struct model_node *node;
        off_t offset;
        bool append;
};

struct actor {
        unsigned number;
        uint64_t random; /* xorshift state */
        int dir_fd;
        struct model_node *root;
        struct held held[ACTOR_HELD];
        uint64_t calls;
        char what[1024]; /* the call that is being done, for the message when it is wrong */
};

extern atomic_bool actor_failed; /* some actor found something wrong, and has said so */

uint64_t actor_random(struct actor *actor);

/* Says that a call did something else than expected, and sets actor_failed. */
void actor_wrong(struct actor *actor, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The result of a call that returned `r` (with errno): `expected` is 0 or an errno.  True if it is so. */
bool actor_expect(struct actor *actor, long r, int expected);

/* The result of a call that was to write `expected` bytes: a part of them is wrong, too. */
void actor_expect_bytes(struct actor *actor, ssize_t written, size_t expected);

/* One random action (actions.c, data_actions.c). */
void actor_name_action(struct actor *actor);
void actor_data_action(struct actor *actor);

/* Everything that the directory has is in the model and the other way round, contents included. */
void actor_check_tree(struct actor *actor, struct model_node *dir);
bool actor_check_content(struct actor *actor, int fd, const struct model_node *node);

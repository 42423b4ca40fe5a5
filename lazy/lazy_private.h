/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What the files of lazy/ share among themselves and with nobody else. */
#include "lazy/description.h"
#include "lazy/fence.h"
#include "lazy/process_limits.h"

struct lazy {
        struct cobj *cobj;             /* borrowed; constant */
        struct id_table *descriptions; /* those that the kernel has */
        struct fence *fence;           /* around what is done with descriptions */
        struct process_limits *limits;
        _Atomic uint64_t reopens, gives;
};

/* Sets a handle's sharing state, and tells the store if that is a change. */
void description_set_sharing(struct open_client_data *data, enum sharing sharing);

/* A handle of client `client` on `d` is given: the rights of those that derive from it are bound to
 * be `nomatch`, of at most `match`. */
access_rights description_inherited(struct description *d, const struct client *client,
                                    access_rights match);

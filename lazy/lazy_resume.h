/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * lazy_resume: the descriptions of an earlier daemon, their handles, and what was left behind on them.
 *
 * A handle is nothing without its description and its client, a description nothing without its server
 * object.  What cannot be put together again is dropped, its record freed: the kernel's next request with
 * such a description gets ESTALE.  That takes a damaged file, or a server object that did not come back;
 * a kill alone leaves none behind, but for a handle that was just being made or ended.
 *
 * A description whose RELEASE had begun comes back and is released at once, so that the ends of its
 * handles are told of as ever.
 */
#include "lazy/description.h"

/* The server object with this id, with a reference for the caller; NULL if there is none. */
typedef struct server_object *(*lazy_object_of)(uint64_t id, void *data);

struct lazy_resumed {
        unsigned descriptions, handles, holders; /* that are there again */
        unsigned dropped;                        /* records of all three kinds */
};

/* After client_table_resume() and before client_table_settle(), before there are threads that serve.
 * Takes the records from the COBJ layer's keep. */
void lazy_resume(struct lazy *lazy, lazy_object_of object_of, void *data,
                 struct lazy_resumed *ret_resumed);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What the files of lazy/ share among themselves and with nobody else. */
#include "lazy/description.h"
#include "lazy/account.h"
#include "lazy/fence.h"
#include "lazy/process_limits.h"

struct lazy {
        struct cobj *cobj;             /* borrowed; constant */
        struct id_table *descriptions; /* those that the kernel has */
        struct fence *fence;           /* around what is done with descriptions */
        struct process_limits *limits;
        const struct count_observer *observer; /* borrowed; constant; may be NULL */
        _Atomic uint64_t reopens, gives;
        GMutex account_lock;           /* one account at a time is found, or replaced */
        struct account_holder account_holder; /* constant; zero: nobody */
        struct account_looks account_looks;
        uint64_t account_dev;          /* st_dev of memfds; constant; 0: no accounts */

        /* Those that were doubtful and were released: a request that was wrongly believed impossible may
         * be looking at one at this moment, so their memory stays. */
        GMutex dead_lock;
        struct description *dead;
};

/* A description with one reference, no fd and no handles, around its record, which is taken over on
 * success like the caller's reference on `object`.  NULL if there is no memory. */
struct description *description_make(struct lazy *lazy, struct server_object *object,
                                     struct kept_description *kept);

/* The client data of a handle that an earlier daemon gave, with its record, which is taken over on
 * success.  Returns 0 or -errno. */
int description_resume_handle(struct description *description, struct client *client,
                              struct kept_handle *kept);

/* The handle `token` of `client` is the one of who opened the description.  While it is being opened, or
 * under reopen_lock. */
void description_set_opener(struct description *d, xhandle token, const struct client *client);

/* Sets a handle's sharing state, and tells the store if that is a change. */
void description_set_sharing(struct open_client_data *data, enum sharing sharing);

/* Sharing after a change of the number of handles; see lazy_reopen.h.  `added` is the new handle, or NULL
 * after one has gone.  description.lock is held. */
void description_locked_update_sharing(struct description *d, struct open_client_data *added);

/* The rest of description_release(), for one that is not DESCRIPTION_HELD any more. */
void description_end(struct description *d);

/* A handle of client `client` on `d` is given: the rights of those that derive from it are bound to
 * be `nomatch`, of at most `match`. */
access_rights description_inherited(struct description *d, const struct client *client,
                                    access_rights match);

/* lazy_reopen.c: the client gets a handle by what it does, without having sent LAZY_REOPEN, if it has none
 * and may have one.  No lock held. */
void lazy_reopen_unasked(struct description *d, struct client *client);

/* lazy_reopen.c: what the client may do on `d`: the rights of its handle there, or, if it has none, those that one
 * would have that is given to it now; RIGHTS_NONE if it may have none.  reopen_lock is held. */
access_rights lazy_locked_rights(struct description *d, struct client *client);

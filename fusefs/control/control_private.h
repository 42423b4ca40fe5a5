/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * What the verbs of the control socket share.  One concept a file:
 *
 *   control_verbs.c    requests, the table of verbs, and those that need little: stats, status, …
 *   control_rows.c     a handle as JSON, and the two verbs that are nothing but rows: list, history
 *   control_show.c     one handle and its relatives
 *   control_rights.c   what takes something away: restrict, revoke, allow
 *
 * Verbs run in the threads of control.c's pool, several at a time.  They own nothing that outlives
 * the call; what they read is protected by its own parts.  Rows come from the store one by one and
 * become text at once, on the store's thread, while the verb waits.
 */
#include <json-glib/json-glib.h>

#include "ctl/json_text.h"
#include "fusefs/control/control_verbs.h"

struct call {
        struct k42_mount *mount;
        const struct control_peer *peer;
        JsonObject *args; /* NULL: none given */
        struct json_text *result;
        const char *error; /* when a verb answers -EINVAL or the like with words of its own */
        struct control_after *after;
};

/* Whose rows the peer may see, for store_foreach_…(). */
uid_t control_uid_filter(const struct control_peer *peer);

/* The members of a handle, in the order of the contract; without the brackets around them. */
void control_put_columns(struct json_text *text, const struct store_handle_row *row);
/* The same with the brackets. */
void control_put_row(struct json_text *text, const struct store_handle_row *row);

/* Each returns 0 or -errno, with words in call->error if strerror's are not good enough. */
int verb_list(struct call *call);
int verb_history(struct call *call);
int verb_show(struct call *call);
int verb_restrict(struct call *call);
int verb_revoke(struct call *call);
int verb_allow(struct call *call);
int verb_withhold(struct call *call);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* A request of k42ctl that is being served: what the files with verbs share. */
#include <json-glib/json-glib.h>

#include "fusefs/control_verbs.h"

struct call {
        struct k42_mount *mount;
        const struct control_peer *peer;
        JsonObject *args; /* NULL: none given */
        struct json_text *result;
        const char *error; /* when a verb answers -EINVAL or the like with words of its own */
        bool quit;
};

/* control_rights.c; 0 or -errno */
int verb_restrict(struct call *call);
int verb_revoke(struct call *call);
int verb_allow(struct call *call);

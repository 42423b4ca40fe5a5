/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * control_verbs: what the control socket answers, without the socket.
 */
#include <sys/types.h>

#include "ctl/json_text.h"
#include "fusefs/mount.h"

struct control_peer {
        uid_t uid;
        pid_t pid;    /* 0 when it is not visible from here */
        bool may_all; /* root, or the mount's owner */
};

/* What is to be done once the answer has been sent. */
struct control_after {
        bool quit;      /* the daemon has been asked to end */
        bool upgrade;   /* … or to let another program take over: */
        int program_fd; /* O_PATH, the caller's; -1: the file that it was started from */
};

/* Serves one request (a line without its newline, not trusted) and writes the whole answer with its
 * newline.  Blocks on the store; any thread that serves no FUSE requests. */
void control_serve(struct k42_mount *mount, const struct control_peer *peer, const char *request,
                   size_t length, struct json_text *answer, struct control_after *ret_after);

/* An error answer alone. */
void control_refuse(struct json_text *answer, const char *error);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * ask: one question to a mount's control socket.  Says nothing, and does not know what is in the answer; no mount gets a
 * request.
 */
#include "ctl/target.h"

/* Who listens on a mount's control socket: the process that owns the mount, not the one that answers. */
struct target_listener {
        pid_t pid; /* 0: cannot be seen from here */
        uid_t uid;
        bool unanswered; /* he took the connection, and no answer came in time */
};

/* Connects to the socket in the mount's state directory, which is noted in the target: where the link of its device
 * leads, else the default place.  `timeout` in seconds, as everywhere here.  Returns a descriptor or -errno. */
int ask_connect(struct target *target, int timeout);

/* True if the errno says that there is no daemon behind the socket. */
bool ask_nobody_there(int r);

/* Asks until there is an answer: a worker that dies is replaced at once, and most requests reach the next one in the
 * socket's queue; the one that was taken already must be asked again.  `args` is JSON text or NULL.  Puts the answer's
 * line, without its newline, into `line`.  `ret_listener` (or NULL) is set whenever somebody listens.  Returns 0 or
 * -errno. */
int ask_until_answered(struct target *target, int timeout, const char *verb, const char *args,
                       GByteArray *line, struct target_listener *ret_listener);

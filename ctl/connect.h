/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * connect: finds the daemon of a mount and asks it one thing.
 *
 * The way to a daemon, from the cheapest on:
 *   --state DIR                    the socket is in DIR
 *   MOUNTPOINT, or none            /proc/self/mountinfo tells device and owner; the link that
 *                                  control_device_link() names leads to the state directory
 *   that link is missing           the default state directory of the mount point
 *   nobody listens there           K42_IOC_WHERE on the mount itself (lazy/protocol.h)
 *
 * Only the last one sends the mount requests: they would count themselves, and a mount whose daemon
 * hangs does not answer them.  That, and the walk along a path inside the mount, is done by a child
 * process, which is given up when it does not come back in time.
 */
#include <sys/types.h>

#include "ctl/verbs.h"

/* A k42fs mount, or a state directory (then everything else is NULL or 0). */
struct target {
        char *mountpoint, *source;
        char *state_dir; /* NULL: not asked for yet */
        dev_t dev;
        unsigned uid; /* who mounted it */
        int mount_id;
};
typedef struct target K42Target;

void target_free(struct target *target);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Target, target_free)

/* The k42fs mounts in /proc/self/mountinfo, one for each device. */
GPtrArray *targets_mounted(void);
/* From the text of a mountinfo file; for tests. */
GPtrArray *targets_parse(const char *mountinfo);

/* The mounts that the command line means: the one of argument number `index` of options->rest if
 * there is such an argument, or of --state, else what is mounted.  Returns EXIT_GOOD and at least
 * one (with verb->many_mounts; exactly one without), or an exit status after a line on stderr. */
int targets_find(const struct verb *verb, const struct ctl_options *options, unsigned index,
                 GPtrArray **ret_targets);

/* Who listens on a mount's control socket: the process that owns the mount, not the one that answers. */
struct target_listener {
        pid_t pid; /* 0: cannot be seen from here */
        uid_t uid;
        bool unanswered; /* he took the connection, and no answer came in time */
};

/* Sends one request and gives its result.  `args` is JSON text or NULL.  Waits for a worker that is being
 * replaced, and asks again if it was replaced meanwhile; options->timeout at most.  Returns EXIT_GOOD, or
 * EXIT_FAILED after a line on stderr.  `ret_listener` (or NULL) is set whenever somebody listens. */
int target_ask(struct target *target, const struct ctl_options *options, const char *verb,
               const char *args, JsonNode **ret_result, struct target_listener *ret_listener);

/* True if the mount is dead: nobody listens, and it answers ENOTCONN. */
bool target_dead(struct target *target, const struct ctl_options *options);

/* The two halves of it, for who reads a large answer in another way: the line as it came, without its
 * newline (to be freed), and what is to be made of it. */
int target_ask_text(struct target *target, const struct ctl_options *options, const char *verb,
                    const char *args, GByteArray **ret_line, struct target_listener *ret_listener);
int target_parse_answer(const struct target *target, const GByteArray *line, JsonNode **ret_result);

/* What messages call it; borrowed. */
const char *target_name(const struct target *target);

/* True while a mount with this mount's device is in /proc/self/mountinfo. */
bool target_mounted(const struct target *target);

/* Fills in what --state left out, as verb status gives it: `device` is "MAJOR:MINOR".  NULL or
 * nonsense is ignored. */
void target_complete(struct target *target, const char *mountpoint, const char *device);

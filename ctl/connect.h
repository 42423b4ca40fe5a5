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
#include "ctl/ask.h"
#include "ctl/verbs.h"

/* The mounts that the command line means: the one of argument number `index` of options->rest if
 * there is such an argument, or of --state, else what is mounted.  Returns EXIT_GOOD and at least
 * one (with verb->many_mounts; exactly one without), or an exit status after a line on stderr. */
int targets_find(const struct verb *verb, const struct ctl_options *options, unsigned index,
                 GPtrArray **ret_targets);

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

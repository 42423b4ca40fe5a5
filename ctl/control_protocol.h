/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * control_protocol.h: what k42ctl and the daemon's control socket say to each other.
 *
 * A connection carries one request and its answer, each one JSON object on one line:
 *
 *   {"verb":"list","args":{...}}\n
 *   {"ok":true,"result":...}\n      or      {"ok":false,"error":"one line"}\n
 *
 * The answer begins exactly so, without blanks; CONTROL_RESULT_BEGIN is what a good one begins with.
 * k42ctl reads rows from it without parsing the whole.
 *
 * A request must not be longer than CONTROL_REQUEST_MAX bytes.  Verbs, their args and results:
 *
 *   list     {}                  -> [ HANDLE, … ]: the rows of the SQL view open_handles, in its
 *                                   order; the keys are its columns (the contract in DESIGN section 7).
 *                                   With {"identity":true} each row has two more: "description", the id
 *                                   that IDENTIFY gives (lazy/protocol.h), and "inode"; null in a row
 *                                   whose handle has just ended
 *   history  {}                  -> the same of the handles that were closed, in the order of closing, each
 *                                   with one more, "closed"; an error when the daemon keeps no history
 *   show     {"handle":"I.G"}    -> HANDLE and "children":[HANDLE,…], "ancestors":[HANDLE or {"handle":…},…]
 *   stats    {}                  -> the stats object
 *   status   {}                  -> the status object
 *   umount   {}                  -> {} once the daemon has begun to end
 *   restrict {"handle":"I.G","rights":"r"} or {"pid":N,"rights":"r"}
 *   revoke   {"handle":"I.G"}, {"pid":N} or {"path":"/a/b"} (from the mount's root; "path_hex": the
 *                                   same as hex digits, for a name that is not UTF-8); and "tree":true,
 *                                   "block":true
 *                                -> both: {"handles":N,"processes":N,"descriptions":N,"done":BOOL,
 *                                   "mapped":N}: from how many something was taken; whether all that
 *                                   was under way is over (if not, the same request goes on waiting
 *                                   for it); and how many files are mapped by the process and by
 *                                   somebody else who may, too, whose pages it goes on seeing
 *   allow    {"pid":N} or {"path":"/a/b"}
 *                                -> the same, all 0
 *   withhold {"rights":"r"}      -> {"withheld":BOOL}: WITHHOLD (lazy/protocol.h) for the process that asks, without
 *                                   a request on the mount; false where nobody can be held to it
 *   upgrade  {"program":"/PATH"} -> {} once the daemon has begun to let that program take over, or, without
 *                                   "program", the file that it was started from; "upgrades" or
 *                                   "downgrades" of status is one more when it has ended, well or not
 *   sync     {}                  -> {} when rows and counters are exact
 *   failpoint {"points":"SPEC"}  -> {"armed":SPEC}: for tests, where the daemon is to be killed, see
 *                                   fusefs/failpoint.h; only for those who see everything.  Without "points" it
 *                                   only tells
 *
 * The socket is the holder's; a worker answers.  While there is none a request waits in the socket's queue,
 * and a connection that ends without an answer was a dying worker's: every request may be sent again.
 *
 * `check`, `tree` and the rest are made by k42ctl from these.
 */
#define CONTROL_SOCKET_NAME "control"
#define CONTROL_REQUEST_MAX 65536
#define CONTROL_RESULT_BEGIN "{\"ok\":true,\"result\":"

/* The directory name ID of a mount point: its absolute path without the leading '/', each other '/'
 * as '-', and bytes outside [A-Za-z0-9:_.] (and a leading '.') as \xHH, as systemd-escape --path does;
 * "-" for the root directory.  When that is longer than 200 bytes: its first 150, "~", and the first
 * 32 hex digits of the SHA-256 of the path.  Free with g_free(). */
char *control_state_id(const char *mountpoint);

/* The directory that has the default state directories of user `uid`; free with g_free(). */
char *control_state_parent(unsigned uid);

/* The default state directory of a mount point of user `uid`; free with g_free(). */
char *control_default_state_dir(const char *mountpoint, unsigned uid);

/* A symbolic link to the state directory of the mount with this device number, made by a daemon that
 * runs as `uid` (beside the default state directories, even when its own is elsewhere).  With it
 * k42ctl finds a daemon by /proc/self/mountinfo alone: no request to the mount, which would count
 * itself and could hang.  No ID begins with '@'.  Free with g_free(). */
char *control_device_link(unsigned uid, unsigned dev_major, unsigned dev_minor);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * k42_mount: everything that belongs to one mount; what the parts of the daemon find each other by.
 *
 * Made by main, given to libfuse as the session's userdata (k42_mount_of()).  Every pointer in it is
 * set before the first request is served and cleared after the last one, so nobody needs a lock to
 * read them.  The parts are made and ended in the order in which they stand here.
 */
#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "cobj/keep.h"
#include "cobj/store.h"
#include "cobj/xobj.h"
#include "fusefs/resume/doubtful.h"
#include "fusefs/node/idle_backing.h"
#include "lazy/description.h"

struct blocked;
struct channel;
struct coherent;
struct control;
struct link;
struct node_table;
struct requests;
struct reopen_socket;
struct session;
struct state_dir;

enum io_option {
        IO_AUTO,
        IO_CACHED,
        IO_COUNTED,
        IO_FAST,
};

enum coherent_option {
        COHERENT_AUTO, /* if it works */
        COHERENT_NO,
        COHERENT_YES, /* say so if it does not work */
};

/* The command line, checked.  Strings are owned. */
struct k42_options {
        char *source;     /* absolute, symbolic links resolved */
        char *mountpoint; /* absolute, symbolic links resolved */
        char *state;      /* -o state=, absolute; NULL: the default place */
        bool foreground, debug;
        bool allow_other, default_permissions;
        bool ro, nosuid, nodev, noexec;
        double attr_timeout, entry_timeout; /* seconds; negative: not said, see timeouts.h */
        enum coherent_option coherent;
        bool exclusive; /* nobody else changes SOURCE */
        bool fdstore;   /* a service manager keeps the mount's descriptors */
        char **fork_private; /* -o fork=private:, patterns of fnmatch(3); NULL: none */
        enum io_option io;
        unsigned max_threads;
        unsigned busy_poll; /* microseconds, see turns.h; 0: never */
        unsigned history; /* closed handles to keep in the store */
};

struct k42_mount {
        struct k42_options options;
        struct link *link;    /* to the holder; NULL in tests: then nothing is parked */
        int source_fd;        /* with a link: SOURCE, O_PATH, borrowed; the mount may cover it by now */
        int fuse_fd;          /* with a link: /dev/fuse, the session's once it has begun */
        bool resume;          /* an earlier worker has served: go on with what it left */
        struct keep *keep;    /* what outlives this worker; NULL: nothing does */
        struct requests *requests; /* what is under way, for the next worker; NULL in tests */
        struct state_dir *state_dir;
        struct journal *journal;
        struct cobj *cobj;
        struct lazy *lazy;
        struct store *store;
        struct node_table *nodes;
        struct blocked *blocked;
        struct coherent *coherent; /* NULL: changes by others are not watched */
        struct channel *channel;
        struct session *session;
        struct control *control;
        struct reopen_socket *reopen_socket; /* NULL: not privileged */

        struct doubtful doubtful;
        struct idle_backing idle_backing; /* made before and ended after the session */

        enum io_class io_class; /* of new opens, as far as the inode allows; fixed at start */
        atomic_bool passthrough; /* class fast: the kernel takes backing files from us */
        bool noflush;           /* SOURCE is on a local file system: close cannot report an error */
        bool privileged;        /* has the capabilities to act for other users */
        dev_t dev;              /* the mount's own st_dev, once it is mounted; 0 before */
        int64_t started;        /* µs since the epoch */
};

static inline struct k42_mount *k42_mount_of(fuse_req_t req)
{
        return fuse_req_userdata(req);
}

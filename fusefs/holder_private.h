/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What holder.c (start and end) and holder_machine.c (between them) share. */
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fusefs/link.h"
#include "fusefs/mount_record.h"
#include "fusefs/parked.h"

enum holder_state {
        HOLDER_STARTING,    /* a worker runs that is not ready */
        HOLDER_SERVING,     /* the mount answers */
        HOLDER_BACKING_OFF, /* no worker; the next one comes when the timer ends */
        HOLDER_STOPPING,    /* the worker was told STOP, so that another program can take over */
        HOLDER_UPGRADING,   /* the other program's worker runs, and is not ready */
        HOLDER_ENDING,      /* the mount is being ended; the worker's death ends us */
        HOLDER_LEAVING,     /* the worker was told STOP, and its death ends us, but not the mount */
        HOLDER_STATES,
        HOLDER_OVER = HOLDER_STATES,
};

struct holder {
        /* Made before the machine runs, constant since.  All descriptors are ≥ HOLDER_FD_MIN, so that those
         * of enum link_fd are free to be set up in a child. */
        char **worker_argv;
        bool foreground;
        bool fdstore; /* a service manager keeps the mount when we end */
        struct daemon_start *start; /* NULL once it has been told */
        sigset_t worker_mask;
        int source_fd, state_fd, signal_fd, record_fd;
        char program_path[PATH_MAX]; /* of our executable, for an upgrade by signal */

        /* The machine's. */
        enum holder_state state;
        int64_t deadline; /* monotonic ms; -1: none */
        int control_fd;   /* -1 once the mount is being ended */
        int fuse_fd;      /* as well */
        int program_fd;   /* what workers run */
        int next_program_fd, last_program_fd; /* of an upgrade; -1: none */
        struct parked parked;

        pid_t worker; /* 0: none */
        int link_fd;  /* -1: none, or it has said its last */
        size_t told;  /* parked descriptors that the worker has been sent */
        bool start_sent;
        uint32_t order; /* LINK_END or LINK_STOP, to be sent after START; 0: none */
        bool dying;         /* the worker has closed the link, which only its death does */
        bool ready, served; /* the worker is, has */
        bool end_said;      /* and it has said ENDING */
        bool killed_by_us;
        bool last_killed;   /* the one that died last: by SIGKILL, and not by us */
        int wait_status;    /* of the one that died last */

        struct mount_record record; /* what is known of the mount, and its workers' history */
        bool announced;             /* the service manager knows that the mount answers */
        bool upgrade_pending;       /* for when it is ready */
        unsigned early;       /* workers in a row that died without an answered request */
        unsigned failures;    /* see holder.h */

        int status; /* of the end */
        bool gave_up;
        bool leave; /* the mount stays */
};

#define HOLDER_FD_MIN 10

/* Starts the first worker and stays until the mount is to be taken off; `status` and `gave_up` tell how it
 * went.  No worker is left. */
void holder_machine(struct holder *holder);

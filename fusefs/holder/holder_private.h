/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What holder.c (start and end) and holder_machine.c (between them) share. */
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fusefs/holder/link.h"
#include "fusefs/holder/mount_record.h"
#include "fusefs/holder/parked.h"

/* The worker in waiting, see holder_waiting.c. */
enum waiting_state {
        WAITING_NONE,
        WAITING_DUE,      /* it is started when the timer ends */
        WAITING_STARTING, /* it runs, and has not said WAITING */
        WAITING_WARM,     /* it has */
        WAITING_STATES,
};

struct waiting {
        enum waiting_state state;
        int64_t deadline;  /* monotonic ms; -1: none */
        pid_t pid;         /* STARTING, WARM */
        int link_fd;       /* as well; else -1 */
        unsigned failures; /* in a row */
        pid_t dismissed;   /* that was killed last, and may not be dead yet; 0: none */
};

enum holder_state {
        HOLDER_STARTING,    /* a worker runs that is not ready */
        HOLDER_SERVING,     /* the mount answers */
        HOLDER_BACKING_OFF, /* no worker; the next one comes when the timer ends */
        HOLDER_PREPARING,   /* the mount answers, and the other program's worker gets ready to wait */
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

        struct waiting waiting;

        pid_t worker; /* 0: none */
        int link_fd;  /* -1: none, or it has said its last */
        size_t told;  /* parked descriptors that the worker has been sent */
        bool start_sent;
        uint32_t order; /* LINK_END or LINK_STOP, to be sent after START; 0: none */
        bool dying;         /* the worker has closed the link, which only its death does */
        bool taken;         /* it was the one in waiting */
        bool going;         /* it has said GOING */
        bool ready, served; /* the worker is, has */
        int64_t ready_at;   /* monotonic ms */
        bool end_said;      /* and it has said ENDING */
        bool killed_by_us;
        bool last_killed;   /* the one that died last: by SIGKILL, and not by us */
        int wait_status;    /* of the one that died last */

        struct mount_record record; /* what is known of the mount, and its workers' history */
        bool announced;             /* the service manager knows that the mount answers */
        bool upgrade_pending;       /* for when it is ready */
        char not_taken[128];        /* what is wrong with the program that is being prepared */
        unsigned early;    /* workers in a row that died without an answered request */
        unsigned failures; /* see holder.h, as the next one */
        unsigned crashes;

        int status; /* of the end */
        bool gave_up;
        bool leave; /* the mount stays */
};

#define HOLDER_FD_MIN 10

#define HOLDER_EXEC_FAILED 127 /* exit status of a child that cannot execute the program */

int64_t holder_now_ms(void); /* monotonic */
void holder_close_fd(int *fd); /* and sets it to -1 */

/* Starts a worker of the program `program_fd`, that is told nothing yet.  Returns 0 or -errno. */
int holder_fork_worker(const struct holder *h, int program_fd, pid_t *ret_pid, int *ret_link_fd);

/* "was killed by signal 9 (KILL)" and the like. */
void holder_describe_death(int wait_status, char *ret_text, size_t size);

/* ---- the worker in waiting (holder_waiting.c) ---- */

/* The mount answers: one is started a little later, if there is none. */
void waiting_want(struct holder *h);

/* One of the program `next_program_fd` takes its place, at once.  Returns 0 or -errno (there is none). */
int waiting_change(struct holder *h);

/* Hands it over, to be h->worker; false if there is none. */
bool waiting_take(struct holder *h);

/* Ends it. */
void waiting_dismiss(struct holder *h);
/* The same, for good: returns when it is dead, or after a second. */
void waiting_end(struct holder *h);

/* What it has said; true if it is warm now, and was not. */
bool waiting_read(struct holder *h);
/* Its death; false if `pid` is somebody else. */
bool waiting_died(struct holder *h, pid_t pid);
void waiting_timer(struct holder *h);

/* Starts the first worker and stays until the mount is to be taken off; `status` and `gave_up` tell how it
 * went.  No worker is left. */
void holder_machine(struct holder *holder);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * link: what the holder and the worker say to each other, over a SOCK_SEQPACKET socket pair.
 *
 * Each message is a head and what its type says comes behind it; a message that is shorter, longer or
 * of a version that one does not know ends the worker (with one line) and is ignored by the holder.
 * Nobody waits for an answer to a message.  A descriptor that was sent belongs to the other side as
 * soon as the call has returned, even if its sender dies in the next moment: it is in the socket then,
 * and the holder empties the socket of a dead worker before it starts the next one.
 *
 * The start of a worker, who has been given the link, SOURCE and the state directory:
 *
 *   worker -> holder   WAITING                      all is done that needs no more than these; once
 *   holder -> worker   PARKED, as often as needed   everything that earlier workers parked
 *   holder -> worker   START + 2 descriptors        what it is to do, /dev/fuse, the control socket; once,
 *                                                   after that
 *   worker -> holder   GOING                        it has begun to do it; once
 *   worker -> holder   READY                        the mount answers
 *   worker -> holder   SERVED                       it has answered a request; once
 *
 * meanwhile, at any time:
 *
 *   worker -> holder   PARK key + descriptor, UNPARK key
 *   worker -> holder   ASKED                        it has been asked to end: SIGTERM, SIGINT, umount
 *                                                   by k42ctl
 *   worker -> holder   UPGRADE + descriptor         it has been asked to let this program take over
 *   worker -> holder   ENDING                       the mount is being ended for good: do not start
 *                                                   another worker, its exit status is yours
 *   holder -> worker   NEWS                         what START said, as it is now
 *   holder -> worker   END                          end the mount for good (answer: ENDING)
 *   holder -> worker   STOP                         end yourself between two requests with status
 *                                                   LINK_EXIT_STOPPED; the mount stays
 *
 * A worker can wait for START for as long as there is another one (holder.h).  It has neither /dev/fuse nor
 * the control socket then: so it can keep nobody waiting, whatever becomes of it.
 *
 * The worker's side (struct link) is thread-safe where a function says so.  Neither side allocates
 * memory after the start.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LINK_VERSION      2
#define LINK_PARKED_MAX   64 /* descriptors in one PARKED; the kernel takes up to 253 */
#define LINK_EXIT_STOPPED 75 /* exit status of a worker that was told STOP */

/* The descriptors that a worker is started with. */
enum link_fd {
        LINK_FD_LINK = 3,
        LINK_FD_SOURCE,  /* SOURCE, O_PATH, opened before anything was mounted over it */
        LINK_FD_STATE,   /* the state directory, O_RDONLY */
        LINK_FD_END,     /* one more than the last */
};

enum link_type {
        LINK_PARKED = 1,
        LINK_START,
        LINK_END,
        LINK_STOP,
        LINK_READY,
        LINK_SERVED,
        LINK_PARK,
        LINK_UNPARK,
        LINK_ASKED,
        LINK_UPGRADE,
        LINK_ENDING,
        LINK_WAITING,
        LINK_GOING,
        LINK_NEWS,
};

/* The descriptors that come with START. */
enum link_start_fd {
        LINK_START_FUSE,    /* /dev/fuse of the connection */
        LINK_START_CONTROL, /* the control socket, listening */
        LINK_START_FDS,
};

/* What a key is about is in its upper eight bits; the holder does not look. */
enum park_kind {
        PARK_NODE = 1,    /* O_PATH descriptor of a node, by its id */
        PARK_DESCRIPTION, /* backing descriptor of a description, by its id */
        PARK_STATE,       /* one of the files of the state directory, see worker_state.c */
        PARK_ACCOUNT,     /* memfd of a client's account, by its id */
        PARK_COHERENT,    /* a fanotify group, see coherent.c */
};

/* Ids are GENERATION << 32 | INDEX; their upper eight bits are free in a key only if a generation has no
 * more than 24: a key has the lower 56 bits of the id, and whoever takes a parked descriptor compares it
 * with what the record says before it is used. */
static inline uint64_t park_key(enum park_kind kind, uint64_t id)
{
        return (uint64_t)kind << 56 | (id & ((UINT64_C(1) << 56) - 1));
}

struct link_head {
        uint32_t version; /* LINK_VERSION */
        uint32_t type;    /* enum link_type */
        uint64_t key;     /* PARK, UNPARK; PARKED: how many; ASKED: by which signal; else 0 */
};

/* What START and NEWS say behind the head. */
struct link_start {
        uint32_t resume;      /* 1: earlier workers have served this mount, go on with what they left */
        uint32_t first;       /* 1: nobody has served yet, and messages still go to the terminal */
        uint32_t restarts;    /* workers that died and were replaced */
        uint32_t upgrades;    /* programs that took over */
        uint32_t downgrades;  /* programs that did not manage to, so that the one before went on */
        int32_t holder_pid;   /* in the holder's pid namespace */
        uint32_t kept;        /* 1: when the holder dies another one goes on with the mount */
        int32_t waiting_pid;  /* the worker that waits for its turn, in the same namespace; 0: none */
        uint32_t killed;      /* 1: the last one that died did so of a SIGKILL from outside */
        uint32_t padding;
        uint64_t dev;         /* the mount's st_dev */
        int64_t started;      /* of the mount, µs since the epoch */
        char last_death[128]; /* what became of the last worker that died, "" if none has */
        uint64_t reserved[8]; /* 0 */
};

struct link_message {
        struct link_head head;
        union {
                uint64_t keys[LINK_PARKED_MAX]; /* PARKED: head.key of them */
                struct link_start start;        /* START, NEWS */
        };
};

/* ---- both sides ---- */

/* The length that a message with this head must have; 0: there is no such type. */
size_t link_length(const struct link_head *head);

/* Sends a message with up to LINK_PARKED_MAX descriptors, which stay the caller's.  `flags`: MSG_DONTWAIT or
 * 0.  Returns 0 or -errno.  Thread-safe. */
int link_send(int fd, const struct link_message *message, const int *fds, unsigned n_fds, int flags);

/* Receives one message and its descriptors, which are the caller's then (O_CLOEXEC); `fds` has room for
 * LINK_PARKED_MAX.  `flags`: MSG_DONTWAIT or 0.  Returns 0; -EPIPE when the other side is gone; -EPROTO for
 * nonsense, which has been taken off the socket; -EAGAIN; another -errno. */
int link_receive(int fd, struct link_message *ret_message, int *ret_fds, unsigned *ret_n_fds, int flags);

/* ---- the worker's side ---- */

struct link;

/* Takes the descriptors of enum link_fd (they become O_CLOEXEC).  Returns 0, or -errno after one line was
 * logged. */
int link_open(struct link **ret_link);
void link_close(struct link *link); /* NULL is ignored */

/* Says WAITING, waits for START however long it takes, and says GOING.  Returns 0; -EPIPE if the holder wants
 * nothing any more; or another -errno after one line was logged. */
int link_wait(struct link *link);

int link_fd(const struct link *link); /* to poll for NEWS, END, STOP and the holder's end; borrowed */

/* After link_wait(). */
const struct link_start *link_start(const struct link *link); /* never changes */
int link_fuse_fd(const struct link *link);                     /* the caller's, as the next one */
int link_control_fd(const struct link *link);

/* NEWS has come, and the last of them (before the first: START).  Any thread. */
void link_set_news(struct link *link, const struct link_start *news);
void link_get_news(struct link *link, struct link_start *ret_news);

/* What was parked and not taken yet: the descriptor for `key`, which is the caller's then, or -ENOENT.
 * It stays parked.  Before there are threads. */
int link_take_parked(struct link *link, uint64_t key);

/* Closes and unparks what nobody has taken: nothing that this worker knows needs it.  Before there are
 * threads. */
void link_drop_parked(struct link *link);

/* Leaves a duplicate of `fd` with the holder until link_unpark(); what was parked with this key before is
 * replaced.  In force when it returns 0; -errno if not (then the descriptor does not outlive this
 * worker).  A `link` of NULL (tests, tools): 0, and nothing happens.  Thread-safe, takes no lock. */
int link_send_park(struct link *link, uint64_t key, int fd);
void link_unpark(struct link *link, uint64_t key); /* thread-safe; what is not parked is ignored */

/* READY, SERVED, ENDING; UPGRADE with the descriptor `fd` (-1: none).  Thread-safe. */
int link_tell(struct link *link, enum link_type type, int fd);
int link_tell_asked(struct link *link, int sig); /* ASKED, by this signal; 0: by k42ctl */

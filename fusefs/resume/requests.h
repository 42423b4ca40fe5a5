/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * requests: what is known of every request that is being served, in memory that survives the daemon.
 *
 * The file `requests` in the state directory is mapped MAP_SHARED: a head with the INIT of the mount
 * and what it was answered, and *slots*.  A slot belongs to one serving thread for that thread's
 * life.  It has the buffer that read(2) of /dev/fuse fills, and beside it the facts about the request in it that
 * the next daemon needs when this one is killed in the middle: so nothing is executed twice and
 * nothing is left undone.  Facts are written before what they are about happens.
 *
 * The life of a request, by its phase:
 *
 *   READ      the kernel has filled the buffer.  (It may have done so without our knowing it: the
 *             kill can come before read(2) returns.  So what says that there is a request is the
 *             length in its header, which is zeroed before each read.)
 *   INTENT    facts of what the backing call is going to change are there (intent.h); whether the
 *             call was made can be told from them and from the backing directory.
 *   DONE      the call has returned, and its result is there.
 *   REPLY     the reply is on its way.  It is there, too, unless it is of a kind that runs again
 *             (READ and READDIR have no effect; what READDIRPLUS has raised can be taken back).
 *   ANSWERED  the kernel has taken it, or will never want it.  The slot is free for the next.
 *
 * Node ids whose lookup count this request has raised are listed, and the id of a description that
 * it made.  Both are taken back when the request has to run again, and are in doubt if it is not
 * known whether the kernel has got the answer.
 *
 * A slot whose request was not ANSWERED when its daemon died is an *orphan*.  The next daemon has the
 * kernel send it again what it has no answer to (resume.h), and resolves every orphan before other requests
 * are served; a slot is used again only after that.
 *
 * The memory is preallocated and faulted in, and locked if we may: when the daemon is killed while the
 * kernel copies a request into a page that is not there, the request ends with EIO.
 *
 * Threads and locks: none.  A slot is written by its own thread only.  request_raising() reads the
 * others': what it reads is atomic.
 */
#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define REQUESTS_VERSION 3

#define REQUEST_HEADERS    4096 /* bytes of a buffer beside max_write: what comes before the data */
#define REQUEST_WRITE_MAX  (1024 * 1024) /* bytes: no max_write is larger */
#define REQUEST_REPLY_MAX  2048                 /* bytes of a reply that is kept */
#define REQUEST_RAISED_MAX 512                  /* nodes that one answer can name */
#define REQUEST_CRASHES    3                    /* so often a request may be in a daemon that crashes */
#define REQUEST_KILLS      100                  /* … or that somebody kills, the system short of memory too */

enum request_phase {
        REQUEST_READ,
        REQUEST_INTENT,
        REQUEST_DONE,
        REQUEST_REPLY,
        REQUEST_ANSWERED,
};

/* What a directory entry was, at a certain moment. */
struct request_name {
        uint64_t dev, ino;
        int64_t btime; /* ns; FS_BTIME_UNKNOWN */
        uint32_t type; /* S_IFMT; 0: there was nothing of that name */
        uint32_t reserved;
};

/* The facts of an intent.  Which of them count depends on `kind`, see intent.h. */
struct request_facts {
        uint32_t kind; /* enum intent_kind */
        uint32_t mode;
        uint32_t uid, gid;
        uint64_t size;               /* of the file, in bytes */
        struct request_name name[2]; /* the entry; of a rename also where it goes */
};

/* One accounting of a READ or WRITE: counters of a handle's record and what they become. */
struct request_count {
        uint64_t handle;     /* token; 0: none */
        uint64_t ops, bytes; /* the new values */
        uint64_t counted; /* the counters have these values, so this is over */
};

#define REQUEST_KILL_SUIDGID 1 /* struct channel_request, for a buffer from which it was taken out */
#define REQUEST_SHORTENING   2 /* a SETXATTR that is being put into libfuse's old form */
#define REQUEST_SHORTENED    4 /* … and that has been */
#define REQUEST_GONE         8 /* nobody waits for it any more: what was done is made true here, nothing
                                  is begun, and the reply goes nowhere */

/* Of these there are two, because copy_file_range has both. */
enum {
        REQUEST_READS,
        REQUEST_WRITES,
};

/* A slot.  Its layout is that of the file. */
struct request {
        uint64_t unique; /* without the bit that says that it was sent again */
        uint32_t opcode; /* as the kernel sent it */
        _Atomic uint32_t phase;
        uint32_t crashes;  /* daemons that died of something else than SIGKILL while it was under way */
        uint32_t forgets;  /* of FORGET and BATCH_FORGET: 2 n when n entries were applied, one more when
                              the next was begun */
        uint32_t flags;    /* REQUEST_… */
        uint32_t resends;  /* requests_resends() when it was read */
        uint32_t kills;    /* daemons that were killed while it was under way */
        uint32_t reserved; /* 0 */
        int64_t result;    /* of the backing call, from DONE on */
        struct request_facts facts;
        struct request_count counts[2]; /* REQUEST_READS, REQUEST_WRITES */

        uint64_t description; /* id of the one that this request made; 0: none.  Written by
                                 description_open() before the next daemon could see it */

        _Atomic uint64_t raising;  /* the node whose count is being raised, or 0 */
        _Atomic uint32_t n_raised; /* … and those that were */
        uint32_t reply_size;       /* of what is in `reply`; 0: it was not kept */
        _Atomic uint64_t raised[REQUEST_RAISED_MAX]; /* 0: taken back */
        char reply[REQUEST_REPLY_MAX];

        /* Of what the next daemon believes: which request it is, the facts (0: none are complete), the
         * result, the reply.  See requests_lost(). */
        uint64_t check_unique, check_facts, check_result, check_reply;
};

struct requests;

/* Makes the file in directory `dirfd`, with slots for `threads` threads and buffers for writes of
 * `max_write` bytes, whole pages and REQUEST_WRITE_MAX at most; what was there is replaced.  All of it
 * is memory that is in use from then on.  A `dirfd` of -1: in no directory, it lives as long as
 * somebody has its descriptor.  Returns 0 or -errno. */
int requests_create(int dirfd, unsigned threads, unsigned max_write, struct requests **ret_requests);

/* Takes over the one of a dead daemon, with the sizes that it has.  `ahead`: from requests_map_ahead() or
 * NULL; it is used up, whatever comes of it.  Returns 0; -EPROTO if it is of a newer version; -EBADMSG if it is
 * damaged; another -errno. */
int requests_adopt(int dirfd, struct requests *ahead, struct requests **ret_requests);

/* The same without a name: takes over the file that `fd` refers to, which stays the caller's. */
int requests_adopt_fd(int fd, struct requests *ahead, struct requests **ret_requests);

/* For one who will perhaps take over: maps and faults in what a living daemon uses, if it has a name, and neither
 * reads nor changes what is in it.  NULL if there is nothing that can be mapped, which is no error.  For
 * requests_adopt() or requests_close(). */
struct requests *requests_map_ahead(int dirfd);

/* As requests_create(), in the place of one that is lost. */
int requests_renew(int dirfd, unsigned threads, unsigned max_write, struct requests **ret_requests);

/* What its buffers hold: bytes of a write, and bytes in all.  NULL: the largest. */
unsigned requests_max_write(const struct requests *requests);
unsigned requests_buffer_size(const struct requests *requests);

/* True if the file, or a slot of it, was lost or damaged: a request that is sent again, and of which
 * nothing is known, may have been executed. */
bool requests_lost(const struct requests *requests);

int requests_fd(const struct requests *requests); /* borrowed */

/* The file stays.  No thread may have a slot.  NULL is ignored. */
void requests_close(struct requests *requests);

/* True if a request that is running has raised node `id`, or is about to, so that the kernel may get
 * to know it any moment.  From any thread; no lock.  NULL: false. */
bool requests_raising(struct requests *requests, uint64_t id);

/* ---- slots ---- */

/* A free slot, for the calling thread to keep; NULL if there is none. */
struct request *requests_take(struct requests *requests);
/* A request that was read and not served stays, for the next daemon.  NULL is ignored. */
void requests_give_back(struct requests *requests, struct request *request);

/* The buffer of the slot, requests_buffer_size() bytes, aligned to a page. */
void *request_buffer(struct request *request);

/* Steps through the orphans, before other requests are served: *cursor is 0 before the first call.  NULL at the
 * end. */
struct request *requests_next_orphan(struct requests *requests, unsigned *cursor);
struct request *requests_find_orphan(struct requests *requests, uint64_t unique);

/* The orphan is resolved: its slot is free. */
void requests_resolved(struct requests *requests, struct request *orphan);

/* The request that the calling thread is serving, or NULL (then nothing is recorded; all functions
 * below ignore it). */
struct request *request_current(void);
void request_set_current(struct request *request);

/* ---- what a serving thread records, in this order ---- */

void request_before_read(struct request *request); /* the buffer is empty */
void request_was_read(struct request *request);    /* and now it is not: READ */
void request_flag(struct request *request, uint32_t flag);

/* An orphan that a kill left before it was known what it is (its check is 0): what comes again, or is in its
 * buffer, is it. */
bool request_is_known(const struct request *request);
void request_identify(struct request *request);

/* The kernel is told of the node `id`: before its count is raised, and after.  False: there is no
 * room for one more. */
bool request_can_raise(const struct request *request);
void request_raise(struct request *request, uint64_t id);
void request_raised(struct request *request);

/* The kernel did not get to know the node after all; its count is taken down between these two. */
void request_unraise(struct request *request, uint64_t id);
void request_unraised(struct request *request);

/* The progress of a FORGET, see struct request. */
void request_forget(struct request *request, uint32_t forgets);

void request_intended(struct request *request); /* the facts are complete */
void request_done(struct request *request, int64_t result);

/* The reply is being sent; kept, unless it is too large or `again` (the request will rather run again).  */
void request_reply(struct request *request, const struct iovec *iov, int count, bool again);
void request_answered(struct request *request);

/* The counters of `handle` are about to become these: false, if this request was counted by a daemon that
 * is dead.  And they are. */
bool request_count(struct request *request, unsigned which, uint64_t handle, uint64_t ops,
                   uint64_t bytes);
void request_counted(struct request *request, unsigned which);

/* ---- INIT ---- */

/* What INIT was and what it was answered, raw.  Set before the answer is sent. */
void requests_set_init(struct requests *requests, const void *in, size_t in_size,
                       const struct iovec *out, int count);

/* False if there was no answer yet. */
bool requests_get_init(struct requests *requests, const void **ret_in, size_t *ret_in_size,
                       const void **ret_out, size_t *ret_out_size);

/* A sealed copy of both in a file of its own, for whoever keeps it where nobody can damage it; -ENODATA
 * if there was no answer yet.  And back from there: -EBADMSG if it is none. */
int requests_save_init(const struct requests *requests);
int requests_restore_init(struct requests *requests, int fd);

/* How often the kernel has been told to send again: before that is done, it is counted. */
uint32_t requests_resends(struct requests *requests);
void requests_count_resend(struct requests *requests);

/* ---- failpoints, see failpoint.h ---- */

/* REQUESTS_FAILPOINT bytes in the file, a text: the points that are still to be died in. */
#define REQUESTS_FAILPOINT 256
char *requests_failpoint(struct requests *requests);

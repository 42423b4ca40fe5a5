/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * journal: a ring of 128-byte records in a file that is mapped MAP_SHARED.
 *
 * Whatever a reply makes true is in the ring before the reply is sent: a store to mapped memory
 * survives kill -9 of the daemon, and costs some ten nanoseconds.  It need not survive the machine
 * (after a reboot nobody has a file open), so nothing is ever synced.
 *
 * Many producers, one consumer.  A producer reserves a sequence number with one atomic addition,
 * fills the record, and commits it by storing the sequence number into it last: a record whose
 * producer died in between is recognised as never committed.  The consumer (the store's writer
 * thread) takes committed records in order and then moves the tail, which frees their room.  A
 * producer that finds the ring full wakes the consumer and waits.
 *
 * The file is preallocated: a store into a hole on a full disk would be SIGBUS.
 *
 * The layout is versioned (JOURNAL_VERSION) and documented in doc/k42fs-schema.5.
 */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define JOURNAL_VERSION     1
#define JOURNAL_RECORD_SIZE 128

enum journal_type {
        JOURNAL_NONE,
        JOURNAL_CLIENT_NEW,    /* struct journal_client */
        JOURNAL_CLIENT_EXITED, /* struct journal_client; only id counts */
        JOURNAL_HANDLE_GIVEN,  /* struct journal_handle */
        JOURNAL_HANDLE_FREED,  /* struct journal_handle, the counters final */
};

struct journal_client {
        uint64_t id, start_time;
        int32_t pid, ppid;
        uint32_t uid;
        char comm[16], exe[64]; /* with a NUL; empty: not known, or too long */
};

struct journal_handle {
        uint64_t handle, parent, client, object; /* object: the server object's id, 0 if it has none */
        int64_t opened, closed;                  /* µs since the epoch; closed 0 while open */
        uint64_t reads, read_bytes, writes, write_bytes;
        int32_t flags;
        uint32_t match;
        uint8_t type, io_class, sharing; /* enum xobj_type, io_class, sharing */
        uint8_t says;                    /* as in struct kept_handle */
        uint64_t mappings, mapped_bytes;
};

struct journal_record {
        uint64_t commit; /* the sequence number once the record is whole; written last */
        uint32_t type;   /* enum journal_type */
        uint32_t reserved;
        union {
                struct journal_client client;
                struct journal_handle handle;
                uint8_t bytes[JOURNAL_RECORD_SIZE - 16];
        };
};
G_STATIC_ASSERT(sizeof(struct journal_record) == JOURNAL_RECORD_SIZE);

struct journal;

/* Makes (or empties) the file `name` in directory `dirfd` (-1: in memory, and in no directory) with room for
 * `records` (a power of two) and maps it.  Returns 0 or -errno (-ENOSPC when it cannot be preallocated),
 * nothing left behind. */
int journal_create(int dirfd, const char *name, uint32_t records, struct journal **ret_journal);

/* Takes over what an earlier daemon's journal still has, and its ring, if there is room for `records` in it
 * and half of it is free.  Else a new ring takes the place of the file (at once: a kill leaves the one or the
 * other), with the same sequence numbers, room for `records` at least and for as many more as there are.  What
 * was reserved and never committed is JOURNAL_NONE in it.  Returns 0; -EPROTO if the file is of a newer version;
 * -EBADMSG if it is damaged; another -errno, -ENOENT too; the file is untouched then.  `ret_in_memory`: 0, or why
 * the new ring had to be made in memory (a full disk): then the file is gone, and what the ring still has when
 * this daemon dies is, too. */
int journal_adopt(int dirfd, const char *name, uint32_t records, struct journal **ret_journal,
                  int *ret_in_memory);

/* The same, but what cannot be taken over is moved aside, to NAME.broken, said in one line, and there is a
 * new one; in memory, where the directory has no room for it or is not there any more.  `dir`: how the
 * directory is called in that line.  Returns 0 or -errno: no memory. */
int journal_resume(int dirfd, const char *dir, const char *name, uint32_t records,
                   struct journal **ret_journal);

/* A number that this journal has, and whatever is adopted from it, and no other. */
uint64_t journal_id(struct journal *journal);

/* Calls fn with every record that was not taken out, which may change its type; before anybody else has
 * the journal. */
void journal_foreach_pending(struct journal *journal,
                             void (*fn)(struct journal_record *record, void *data), void *data);

/* Nobody consumes any more: from now on an append to a full ring is dropped instead of waiting, and those
 * who wait go on.  Any thread. */
void journal_close(struct journal *journal);
void journal_free(struct journal *journal); /* unmaps; the file stays.  NULL is ignored */
typedef struct journal K42Journal; /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Journal, journal_free)

/* Puts one record in (`commit` is ignored).  When it returns the record is committed.  Any thread;
 * waits only while the ring is full and never fails (see journal_close()). */
void journal_append(struct journal *journal, const struct journal_record *record);

/* For the one consumer: copies up to `max` committed records in order, without freeing them; how
 * many.  Then journal_consume() frees the first `n` of what was peeked. */
uint32_t journal_peek(struct journal *journal, struct journal_record *records, uint32_t max);
void journal_consume(struct journal *journal, uint32_t n);

/* For the consumer: waits until something is committed and `min_pending` records are there, or
 * journal_wake(), or the time (µs) is over. */
void journal_wait(struct journal *journal, uint32_t min_pending, int64_t timeout_us);
void journal_wake(struct journal *journal);

/* Records that the ring has room for. */
uint32_t journal_size(struct journal *journal);

/* Records reserved so far, ever; records that the consumer has not taken yet. */
uint64_t journal_head(struct journal *journal);
uint32_t journal_pending(struct journal *journal);

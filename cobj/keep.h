/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * keep: what must survive the daemon, in a file that is mapped MAP_SHARED.
 *
 * A heap of *records* in the state directory.  What is in a record when the daemon is killed is there
 * for the next one, which finds all of them by their type (keep_next()) and goes on with the very same
 * memory: nothing is written out and nothing is read in.  It need not survive the machine (after a
 * reboot nobody has a file open), so nothing is ever synced.
 *
 * The life of a record: keep_alloc() gives zeroed memory that the next daemon would not see yet; the
 * owner fills it in; keep_commit() makes it seen, by one store that is ordered after all before it;
 * keep_free() makes it unseen by one store before anything else.  So the next daemon sees a record
 * whole or not at all.  What is changed later is changed by single stores (atomic where threads
 * share it) of at most 8 bytes.  A record has no pointers: others are named by their ids.
 *
 * The file consists of slabs of KEEP_SLAB bytes; the records in one slab have one size, which its head
 * says.  Slabs are never moved or given back, so pointers to records stay valid for the keep's life.
 * A slab is preallocated before it is used: on a full disk a store into a hole would be SIGBUS.  When
 * there is no room for another one (ENOSPC), or there is no keep (NULL, in tests and tools), records
 * are ordinary memory: everything works, and nothing of them survives; that is said once.
 *
 * The file's head carries KEEP_VERSION; the layout of every type of record is in the header of whoever
 * owns it, and a change of one needs a new version.  A file of a newer version is refused, a file that
 * is damaged yields those of its slabs that check.
 *
 * Besides records there are a few *words* in the file's head, single numbers that survive (the id tables
 * count their generations in them, see id_table_keep()).
 *
 * Locks: alloc and free take none (a stack of free records for each size class, with a tagged head) but
 * when a slab is added: a leaf.  Commit and next take none (next is for before there are threads).
 */
#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define KEEP_VERSION 2
#define KEEP_SLAB    (64 * 1024)
#define KEEP_MAX     2048 /* bytes, the largest record */

enum keep_type {
        KEEP_NONE,        /* free, or not committed */
        KEEP_CLIENT,      /* cobj/client.h */
        KEEP_HANDLE,      /* cobj/xobj.h */
        KEEP_DESCRIPTION, /* lazy/description.h */
        KEEP_HOLDER,      /* lazy/lazy_state.h */
        KEEP_NODE,        /* fusefs/resume/kept_node.h */
        KEEP_LINK,        /* fusefs/resume/kept_node.h: a name of a node */
        KEEP_TYPES,
};

enum keep_word {
        KEEP_WORD_CLIENT_IDS,
        KEEP_WORD_HANDLE_IDS,
        KEEP_WORD_DESCRIPTION_IDS,
        KEEP_WORD_NODE_IDS,
        KEEP_WORD_BACKING_SEARCH, /* fusefs/node/passthrough.c */
        KEEP_WORD_CHECKS = 8, /* of the first four, see id_table_keep() */
        KEEP_WORDS = 16,      /* room in the head */
};

struct id_table;
struct keep;

/* Makes the file `name` in directory `dirfd` (what was there is replaced).  With a `dirfd` of -1 it is in no
 * directory, and lives as long as somebody has its descriptor.  Returns 0 or -errno, nothing left behind. */
int keep_create(int dirfd, const char *name, struct keep **ret_keep);

/* Takes over the file of an earlier daemon, which must be dead.  Returns 0; -EPROTO if it is of a newer
 * version; -EBADMSG if its head is damaged; another -errno.  `ret_damaged`: slabs that did not check and
 * are not used (not a reason to fail). */
int keep_adopt(int dirfd, const char *name, struct keep **ret_keep, uint32_t *ret_damaged);

/* The same with the file that `fd` refers to, which is the keep's on success. */
int keep_adopt_fd(int fd, struct keep **ret_keep, uint32_t *ret_damaged);

/* This new keep takes the place of one that is lost: nobody knows what that one had given out, so ids (and
 * those of backing files) are not taken to be free because they are not here. */
void keep_has_lost(struct keep *keep);

int keep_fd(const struct keep *keep); /* borrowed; keep_adopt_fd() takes a duplicate of it */

void keep_close(struct keep *keep); /* unmaps; the file stays.  NULL is ignored */
typedef struct keep K42Keep;        /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Keep, keep_close)

/* A record of `size` bytes (≤ KEEP_MAX), zeroed, aligned to 16, not committed.  NULL only if there is no
 * memory at all.  `keep` may be NULL. */
void *keep_alloc(struct keep *keep, size_t size);

/* The next daemon sees the record as one of `type` from now on.  A record can become one of another type
 * later, or be seen no more and yet be its owner's (KEEP_NONE). */
void keep_commit(void *record, enum keep_type type);

/* It does not any more, and the memory is free.  A committed record or not; NULL is ignored. */
void keep_free(struct keep *keep, void *record);

/* Steps through the committed records of a type, before there are other threads: NULL at the end.
 * *cursor is 0 before the first call.  The one that was returned last may be freed meanwhile.
 * `ret_size`: how large it is at least (its size class), for checking what is in it; may be NULL. */
void *keep_next(struct keep *keep, enum keep_type type, uint64_t *cursor, size_t *ret_size);

/* A word of the head, 0 in a new file; for single stores of whoever owns it.  NULL if `keep` is. */
_Atomic uint64_t *keep_word(struct keep *keep, enum keep_word word);

/* Lets the table of ids count in that word (one of the first four) and its check.  `keep` may be NULL.  A
 * line is logged if they are damaged. */
void keep_ids(struct id_table *table, struct keep *keep, enum keep_word word);

/* Whether the record survives, or is ordinary memory. */
bool keep_has(struct keep *keep, const void *record);

/* Committed and uncommitted records in the file; bytes of the file; records that had to be ordinary
 * memory.  For `k42ctl stats` and the tests. */
struct keep_stats {
        uint64_t records, bytes, unkept;
};
void keep_get_stats(struct keep *keep, struct keep_stats *ret_stats);

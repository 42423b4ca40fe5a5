/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * id_table: ids that mean something to somebody else (the kernel, a client), turned into objects.
 *
 * An id is a table index in the low 32 bits and a generation in the high 32 bits, never a pointer:
 * it can be checked, it can be printed, and it can mean the same thing in the next daemon.  A slot gets
 * a new generation each time it is freed, so an id that outlived its object does not resolve (until its
 * slot is freed exactly 2^32 ids later; generation 0 is skipped).  No id is 0.
 *
 * Generations are counted by the table, not by the slot: a slot that is freed gets the next number.  So
 * one word, kept where the daemon's end does not reach it (id_table_keep()), is all that the next daemon
 * has to know of ids that were freed: it starts every slot that it does not restore at a number that was
 * not given out before, and no id of the last daemon can come again with another meaning.
 *
 * The slots live in chunks that never move, so id_table_get() takes no lock.  What keeps an object
 * alive after id_table_get() is the caller's affair: either the id's owner promises not to end it
 * meanwhile (the kernel does, for node ids and file handles of requests under way), or the caller
 * uses id_table_get_ref().
 */
#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define ID_NONE       UINT64_C(0)
#define ID_INDEX(id)  ((uint32_t)(id))
#define ID_GENERATION(id) ((uint32_t)((id) >> 32))
#define ID_MAKE(generation, index) ((uint64_t)(generation) << 32 | (uint32_t)(index))

/* Room for id_format(), the terminating NUL included: two 32-bit numbers and a dot. */
#define ID_STRING_MAX 22

struct id_table;

/* Makes a table of at most `limit` ids whose first index is `first` (≥ 1).  NULL if out of memory. */
struct id_table *id_table_new(uint32_t first, uint32_t limit);

/* Frees the table, not the objects; NULL is ignored. */
void id_table_unref(struct id_table *table);
typedef struct id_table K42IdTable; /* for g_autoptr() only */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42IdTable, id_table_unref)

/* Counts generations in *word, which is 0 at first and survives the daemon: half of it is the generation
 * that was given out last, the other half the first index that was never used.  `check` is the word's
 * complement (so all ones at first).  NULL: the table counts for itself.  Before the first id.  Returns false
 * if the two do not belong together: they are damaged, or were lost with their file.  Then it is not known
 * which ids somebody still has, and generations go on far from all that can have been given out. */
bool id_table_keep(struct id_table *table, _Atomic uint64_t *word, _Atomic uint64_t *check);

/* Puts `object` (not NULL) at exactly that id, which an earlier daemon gave out.  While ids are restored
 * there are no other threads, and no id is reserved and not yet published; ids in between that are not
 * restored are free afterwards.  Returns 0; -EBADMSG if that cannot be an id of this table; -EEXIST if
 * its slot is in use; -ENFILE when `limit` ids are in use, or -ENOMEM. */
int id_table_restore(struct id_table *table, uint64_t id, void *object);

/* Gives `object` (not NULL) an id.  Returns 0, -ENFILE when `limit` ids are in use, or -ENOMEM. */
int id_table_alloc(struct id_table *table, void *object, uint64_t *ret_id);

/* The same in two steps, for an object that has to know its id before anybody can find it: the id
 * resolves to NULL until it is published. */
int id_table_reserve(struct id_table *table, uint64_t *ret_id);
void id_table_publish(struct id_table *table, uint64_t id, void *object);
/* Gives back an id that was reserved and not published. */
void id_table_unreserve(struct id_table *table, uint64_t id);

/* The object of `id`, or NULL if the id is stale, forged or 0.  Lock-free. */
void *id_table_get(struct id_table *table, uint64_t id);

/* As id_table_get(), but calls try_ref(object) while no id of the table can be freed; NULL if it
 * says false. */
void *id_table_get_ref(struct id_table *table, uint64_t id, bool (*try_ref)(void *object));

/* Ends `id`; from here on it is stale.  A stale id is ignored and answered with false. */
bool id_table_free(struct id_table *table, uint64_t id);

/* How many ids are in use. */
uint32_t id_table_count(struct id_table *table);

/* Calls fn for every id in use, the table's lock held: fn must not call back into the table. */
void id_table_foreach(struct id_table *table, void (*fn)(uint64_t id, void *object, void *data),
                      void *data);

/* Steps through the ids in use: an object on which try_ref() said true, called as by
 * id_table_get_ref(); NULL at the end.  *cursor is 0 before the first call and belongs to the table
 * then.  What is in use from the first call to the last is met exactly once, what comes or goes in
 * between at most once.  Needs no memory, and gives the lock up now and then. */
void *id_table_next_ref(struct id_table *table, uint32_t *cursor, bool (*try_ref)(void *object));

/* "INDEX.GENERATION", decimal; the text form of ids in every output; returns `buf`. */
const char *id_format(uint64_t id, char buf[static ID_STRING_MAX]);

/* The inverse; strict (no spaces, signs or leading zeros, both parts in range and not both 0).
 * Returns 0 or -EINVAL. */
int id_parse(const char *text, uint64_t *ret_id);

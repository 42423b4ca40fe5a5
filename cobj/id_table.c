/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chunk c has 64 << c slots, so that 26 chunk pointers reach every index and none ever moves.
 * Chunks are made when they are needed and freed with the table.
 *
 * A reader takes no lock.  It looks at the slot's generation, loads the object, and looks at the
 * generation again; the writer that frees clears the object first and raises the generation second.
 * So an object that is older than the generation asked for is gone by the time that the first look
 * succeeds (an id may have been guessed before it was given), and one that is newer could only be
 * seen together with a newer generation, at the second look.
 */
#include "cobj/id_table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define CHUNK_BITS 6
#define CHUNKS     (32 - CHUNK_BITS)
#define STEP       1024 /* slots that id_table_next_ref() looks at without giving the lock up */

/* Where generations go on when it is not known which ones were given out: nobody counts that far from 1, and
 * if that should happen twice, the place is another one. */
#define LOST_GENERATION UINT32_C(0x80000000)
/* An index in a record is not believed beyond this then. */
#define PEAK_UNKNOWN_MAX (UINT32_C(1) << 24)

struct slot {
        _Atomic(void *) object;
        _Atomic uint32_t generation; /* never 0 */
        uint32_t next_free;          /* index of the next free slot, under lock; 0: none */
};

struct id_table {
        uint32_t first, limit; /* constant */
        _Atomic(struct slot *) chunks[CHUNKS];
        _Atomic uint32_t used;

        GMutex lock;               /* protects what follows, and every change of a slot */
        uint32_t free_head;        /* index, 0: none */
        uint32_t next;             /* the first index that this table never used */
        bool holes;                /* ids were restored: what is free below `next` is not listed */
        uint32_t first_generation; /* of a slot that was never used; constant after id_table_keep()
                                    */
        uint32_t generation;       /* the last one that was given out */
        uint32_t peak;             /* the first index that no table with this word ever used */
        _Atomic uint64_t *word;    /* the last two, for the next daemon; NULL: nowhere */
        _Atomic uint64_t *check;   /* the complement of the word, stored after it */
};

/* Chunk and offset of an index. */
static unsigned chunk_of(uint32_t index, uint32_t *ret_offset)
{
        const uint64_t n = (uint64_t)index + (1u << CHUNK_BITS);
        const unsigned msb = 63u - (unsigned)__builtin_clzll(n);

        *ret_offset = (uint32_t)(n - (UINT64_C(1) << msb));
        return msb - CHUNK_BITS;
}

/* The slot of an index that may be anything; NULL if there is none. */
static struct slot *find_slot(struct id_table *table, uint32_t index)
{
        uint32_t offset;
        const unsigned c = chunk_of(index, &offset);
        struct slot *chunk;

        if (c >= CHUNKS)
                return NULL;
        chunk = atomic_load_explicit(&table->chunks[c], memory_order_acquire);
        return chunk ? &chunk[offset] : NULL;
}

/* The slot of an index that has been in use. */
static struct slot *known_slot(struct id_table *table, uint32_t index)
{
        uint32_t offset;
        const unsigned c = chunk_of(index, &offset);

        return atomic_load_explicit(&table->chunks[c], memory_order_acquire) + offset;
}

static uint32_t after_generation(uint32_t generation)
{
        return generation == UINT32_MAX ? 1 : generation + 1;
}

/* In the word before it is in an id that somebody gets. */
static void locked_save(struct id_table *table)
{
        if (table->next > table->peak)
                table->peak = table->next;
        if (table->word) {
                const uint64_t word = (uint64_t)table->peak << 32 | table->generation;

                atomic_store_explicit(table->word, word, memory_order_release);
                atomic_store_explicit(table->check, ~word, memory_order_release);
        }
}

struct id_table *id_table_new(uint32_t first, uint32_t limit)
{
        struct id_table *table = calloc(1, sizeof *table);

        if (!table)
                return NULL;
        g_mutex_init(&table->lock);
        table->first = first;
        table->next = first;
        table->limit = limit;
        table->first_generation = table->generation = 1;
        return table;
}

/* A kill between the two stores leaves the word one step ahead of its check. */
static bool checks(uint64_t word, uint64_t check)
{
        const uint32_t generation = (uint32_t)word, generation_then = (uint32_t)~check;
        const uint32_t peak = (uint32_t)(word >> 32), peak_then = (uint32_t)(~check >> 32);

        return (generation == generation_then || generation == after_generation(generation_then)) &&
               (peak == peak_then || peak == peak_then + 1);
}

bool id_table_keep(struct id_table *table, _Atomic uint64_t *word, _Atomic uint64_t *check)
{
        uint64_t before, checked;
        bool right;

        if (!word)
                return true;
        before = atomic_load_explicit(word, memory_order_relaxed);
        checked = atomic_load_explicit(check, memory_order_relaxed);
        right = checks(before, checked);
        table->word = word;
        table->check = check;
        table->peak = (uint32_t)(before >> 32);
        table->generation = after_generation((uint32_t)before);
        if (!right) {
                table->peak = MIN(MAX(table->peak, (uint32_t)(~checked >> 32)), PEAK_UNKNOWN_MAX);
                table->generation = LOST_GENERATION | g_random_int_range(0, INT32_MAX);
        }
        table->first_generation = table->generation;
        locked_save(table); /* nobody else has the table yet */
        return right;
}

void id_table_unref(struct id_table *table)
{
        if (!table)
                return;
        for (unsigned c = 0; c < CHUNKS; c++)
                free(atomic_load_explicit(&table->chunks[c], memory_order_relaxed));
        g_mutex_clear(&table->lock);
        free(table);
}

/* A slot that was never used, its chunk made if need be. */
static struct slot *locked_fresh_slot(struct id_table *table, uint32_t index)
{
        uint32_t offset;
        const unsigned c = chunk_of(index, &offset);
        struct slot *chunk;

        if (c >= CHUNKS)
                return NULL;
        chunk = atomic_load_explicit(&table->chunks[c], memory_order_relaxed);
        if (!chunk) {
                chunk = calloc((size_t)1 << (CHUNK_BITS + c), sizeof *chunk);
                if (!chunk)
                        return NULL;
                atomic_store_explicit(&table->chunks[c], chunk, memory_order_release);
        }
        atomic_store_explicit(&chunk[offset].generation, table->first_generation,
                              memory_order_relaxed);
        return &chunk[offset];
}

/* Lists the slots that were not restored, the lowest first. */
static void locked_list_holes(struct id_table *table)
{
        table->holes = false;
        table->free_head = 0;
        for (uint32_t index = table->next; index-- > table->first;) {
                struct slot *slot = known_slot(table, index);

                if (atomic_load_explicit(&slot->object, memory_order_relaxed))
                        continue;
                slot->next_free = table->free_head;
                table->free_head = index;
        }
}

/* Whether the last daemon can have given out this id. */
static bool locked_plausible(struct id_table *table, uint64_t id)
{
        const uint32_t index = ID_INDEX(id);

        return ID_GENERATION(id) != 0 && index >= table->first &&
               index - table->first < table->limit && (!table->word || index < table->peak);
}

int id_table_restore(struct id_table *table, uint64_t id, void *object)
{
        g_autoptr(GMutexLocker) locker G_GNUC_UNUSED = g_mutex_locker_new(&table->lock);
        const uint32_t index = ID_INDEX(id);
        struct slot *slot;

        if (!locked_plausible(table, id))
                return -EBADMSG;
        if (atomic_load_explicit(&table->used, memory_order_relaxed) >= table->limit)
                return -ENFILE;
        for (; table->next <= index; table->next++)
                if (!locked_fresh_slot(table, table->next))
                        return -ENOMEM;
        slot = known_slot(table, index);
        if (atomic_load_explicit(&slot->object, memory_order_relaxed))
                return -EEXIST;
        table->holes = true;
        atomic_store_explicit(&slot->generation, ID_GENERATION(id), memory_order_relaxed);
        atomic_store_explicit(&slot->object, object, memory_order_release);
        atomic_fetch_add_explicit(&table->used, 1, memory_order_relaxed);
        locked_save(table);
        return 0;
}

int id_table_reserve(struct id_table *table, uint64_t *ret_id)
{
        g_autoptr(GMutexLocker) locker G_GNUC_UNUSED = g_mutex_locker_new(&table->lock);
        struct slot *slot;
        uint32_t index;

        if (atomic_load_explicit(&table->used, memory_order_relaxed) >= table->limit)
                return -ENFILE;
        if (G_UNLIKELY(table->holes))
                locked_list_holes(table);
        if (table->free_head != 0) {
                index = table->free_head;
                slot = known_slot(table, index);
                table->free_head = slot->next_free;
        } else {
                index = table->next;
                if (index == UINT32_MAX)
                        return -ENFILE;
                slot = locked_fresh_slot(table, index);
                if (!slot)
                        return -ENOMEM;
                table->next++;
                locked_save(table);
        }
        atomic_fetch_add_explicit(&table->used, 1, memory_order_relaxed);
        *ret_id = ID_MAKE(atomic_load_explicit(&slot->generation, memory_order_relaxed), index);
        return 0;
}

void id_table_publish(struct id_table *table, uint64_t id, void *object)
{
        atomic_store_explicit(&known_slot(table, ID_INDEX(id))->object, object,
                              memory_order_release);
}

int id_table_alloc(struct id_table *table, void *object, uint64_t *ret_id)
{
        uint64_t id;
        int r = id_table_reserve(table, &id);

        if (r < 0)
                return r;
        *ret_id = id; /* often in the object: who finds it there must find its id */
        id_table_publish(table, id, object);
        return 0;
}

void *id_table_get(struct id_table *table, uint64_t id)
{
        struct slot *slot = find_slot(table, ID_INDEX(id));
        void *object;

        if (!slot || ID_GENERATION(id) == 0)
                return NULL;
        if (atomic_load_explicit(&slot->generation, memory_order_acquire) != ID_GENERATION(id))
                return NULL;
        object = atomic_load_explicit(&slot->object, memory_order_acquire);
        if (atomic_load_explicit(&slot->generation, memory_order_acquire) != ID_GENERATION(id))
                return NULL;
        return object;
}

void *id_table_get_ref(struct id_table *table, uint64_t id, bool (*try_ref)(void *object))
{
        g_autoptr(GMutexLocker) locker G_GNUC_UNUSED = g_mutex_locker_new(&table->lock);
        void *object = id_table_get(table, id);

        return object && try_ref(object) ? object : NULL;
}

/* Makes every copy of the id stale, and the slot free for another. */
static void locked_retire(struct id_table *table, uint64_t id)
{
        struct slot *slot = known_slot(table, ID_INDEX(id));

        if (G_UNLIKELY(table->holes))
                locked_list_holes(table);
        table->generation = after_generation(table->generation);
        locked_save(table);
        atomic_store_explicit(&slot->object, NULL, memory_order_relaxed);
        atomic_store_explicit(&slot->generation, table->generation, memory_order_release);
        slot->next_free = table->free_head;
        table->free_head = ID_INDEX(id);
        atomic_fetch_sub_explicit(&table->used, 1, memory_order_relaxed);
}

bool id_table_free(struct id_table *table, uint64_t id)
{
        g_autoptr(GMutexLocker) locker G_GNUC_UNUSED = g_mutex_locker_new(&table->lock);

        if (!id_table_get(table, id))
                return false;
        locked_retire(table, id);
        return true;
}

void id_table_unreserve(struct id_table *table, uint64_t id)
{
        g_autoptr(GMutexLocker) locker G_GNUC_UNUSED = g_mutex_locker_new(&table->lock);

        locked_retire(table, id);
}

uint32_t id_table_count(struct id_table *table)
{
        return atomic_load_explicit(&table->used, memory_order_relaxed);
}

void id_table_foreach(struct id_table *table, void (*fn)(uint64_t id, void *object, void *data),
                      void *data)
{
        g_autoptr(GMutexLocker) locker G_GNUC_UNUSED = g_mutex_locker_new(&table->lock);

        for (uint32_t index = table->first; index < table->next; index++) {
                struct slot *slot = known_slot(table, index);
                /* Published without the lock. */
                void *object = atomic_load_explicit(&slot->object, memory_order_acquire);

                if (object)
                        fn(ID_MAKE(atomic_load_explicit(&slot->generation, memory_order_relaxed),
                                   index),
                           object, data);
        }
}

/* Looks at up to STEP slots from *index on.  An object, or NULL and *index where to go on. */
static void *locked_next_ref(struct id_table *table, uint32_t *index, bool (*try_ref)(void *object))
{
        const uint32_t end = table->next - *index > STEP ? *index + STEP : table->next;

        while (*index < end) {
                struct slot *slot = known_slot(table, (*index)++);
                void *object = atomic_load_explicit(&slot->object, memory_order_acquire);

                if (object && try_ref(object))
                        return object;
        }
        return NULL;
}

void *id_table_next_ref(struct id_table *table, uint32_t *cursor, bool (*try_ref)(void *object))
{
        void *object = NULL;
        bool more = true;

        if (*cursor < table->first)
                *cursor = table->first;
        while (!object && more) {
                g_mutex_lock(&table->lock);
                more = *cursor < table->next;
                if (more)
                        object = locked_next_ref(table, cursor, try_ref);
                g_mutex_unlock(&table->lock);
        }
        return object;
}

const char *id_format(uint64_t id, char buf[static ID_STRING_MAX])
{
        snprintf(buf, ID_STRING_MAX, "%" PRIu32 ".%" PRIu32, ID_INDEX(id), ID_GENERATION(id));
        return buf;
}

/* A decimal number below 2^32 without leading zeros; the first character behind it, or NULL. */
static const char *parse_part(const char *text, uint32_t *ret_part)
{
        uint64_t value = 0;
        const char *p = text;

        if (*p == '0' && p[1] >= '0' && p[1] <= '9')
                return NULL;
        for (; *p >= '0' && *p <= '9'; p++) {
                value = 10 * value + (uint64_t)(*p - '0');
                if (value > UINT32_MAX)
                        return NULL;
        }
        if (p == text)
                return NULL;
        *ret_part = (uint32_t)value;
        return p;
}

int id_parse(const char *text, uint64_t *ret_id)
{
        uint32_t index, generation;
        const char *rest = parse_part(text, &index);

        if (!rest || *rest != '.')
                return -EINVAL;
        rest = parse_part(rest + 1, &generation);
        if (!rest || *rest || (index == 0 && generation == 0))
                return -EINVAL;
        *ret_id = ID_MAKE(generation, index);
        return 0;
}

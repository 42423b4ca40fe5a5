/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ring of records in a mapped file.  What it is for is in journal.h; its layout on disk is in
 * doc/k42fs-schema.5 and is checked byte by byte in tests/store/test-journal.c.
 *
 * Who owns what.  The file has a header page and then the records.  `head` in the header counts the
 * sequence numbers that were ever reserved and is only added to, by producers; `tail` counts those
 * that were consumed and is only stored to, by the consumer.  They are on cache lines of their own.
 * Sequence numbers begin with 1; number s lives in slot (s - 1) modulo the size, and belongs to its
 * producer from the reservation until it stores s into the slot's `commit`, then to the consumer
 * until `tail` reaches s.  So a slot's commit is either an older number (or 0: never used), which
 * says "not committed", or exactly the number that is looked for.  A producer that dies in between
 * leaves the older number behind, and a reader stops there.
 *
 * Appending takes no lock: one atomic addition, a copy, one release store, and two loads that tell
 * whether the ring is full (`tail`) and whether the consumer wants to be woken (`wake_at`).  Only
 * when one of them says so does a producer take `lock`, which protects nothing but the two
 * condition variables and `woken`; nothing is done under it that could take long.
 *
 * No wake-up is lost: a producer adds to head, then loads wake_at; the consumer stores wake_at,
 * then loads head, all sequentially consistent: one of them sees the other.  What the consumer sees
 * is a reservation, perhaps nanoseconds before it is committed, so in that window it looks again
 * soon instead of sleeping.  The same holds for `waiting` and `tail` when the ring is full.
 */
#include "cobj/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cobj/mapped_file.h"

#define JOURNAL_MAGIC       "k42jrnl" /* with its NUL: 8 bytes */
#define JOURNAL_HEADER_SIZE 4096
#define JOURNAL_RECORDS_MAX (1u << 24) /* 2 GiB of records: more is a mistake */

/* How soon to look again for a record that is reserved and not yet committed, in µs. */
#define COMMIT_POLL_MIN 20
#define COMMIT_POLL_MAX 1000

/* The file's first page. */
struct journal_header {
        char magic[8];
        uint32_t version, record_size;
        uint32_t records, header_size;
        uint64_t id; /* offset 24 */
        uint8_t reserved[32];
        _Atomic uint64_t head; /* offset 64 */
        uint8_t head_reserved[56];
        _Atomic uint64_t tail; /* offset 128 */
        uint8_t tail_reserved[56];
};
G_STATIC_ASSERT(G_STRUCT_OFFSET(struct journal_header, head) == 64);
G_STATIC_ASSERT(G_STRUCT_OFFSET(struct journal_header, tail) == 128);
G_STATIC_ASSERT(sizeof(struct journal_header) <= JOURNAL_HEADER_SIZE);

struct journal {
        struct journal_header *header; /* the mapping, header first */
        struct journal_record *records;
        size_t map_size;
        uint32_t size; /* records in the ring; a power of two */

        /* head at which the consumer wants to be woken; UINT64_MAX while it does not. */
        _Alignas(64) _Atomic uint64_t wake_at;
        _Atomic uint32_t waiting; /* producers that wait for room */
        atomic_bool closed;       /* nobody makes room any more */

        pthread_mutex_t lock;
        pthread_cond_t filled; /* for the consumer */
        pthread_cond_t room;   /* for producers */
        bool woken;            /* under lock: journal_wake() since the last journal_wait() */
};

static _Atomic uint64_t *commit_of(struct journal_record *slot)
{
        return (_Atomic uint64_t *)&slot->commit;
}

static struct journal_record *slot_of(struct journal *journal, uint64_t sequence)
{
        return &journal->records[(sequence - 1) & (journal->size - 1)];
}

static struct timespec deadline_after(int64_t us)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        if (us < 0)
                us = 0;
        now.tv_sec += us / G_USEC_PER_SEC;
        now.tv_nsec += us % G_USEC_PER_SEC * 1000;
        if (now.tv_nsec >= 1000000000) {
                now.tv_sec++;
                now.tv_nsec -= 1000000000;
        }
        return now;
}

static bool deadline_over(const struct timespec *deadline)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec > deadline->tv_sec ||
               (now.tv_sec == deadline->tv_sec && now.tv_nsec >= deadline->tv_nsec);
}

static int init_waiting(struct journal *journal)
{
        pthread_condattr_t attr;
        int r;

        r = pthread_mutex_init(&journal->lock, NULL);
        if (r)
                return -r;
        r = pthread_condattr_init(&attr);
        if (r)
                goto no_attr;
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        r = pthread_cond_init(&journal->filled, &attr);
        if (!r) {
                r = pthread_cond_init(&journal->room, &attr);
                if (r)
                        pthread_cond_destroy(&journal->filled);
        }
        pthread_condattr_destroy(&attr);
no_attr:
        if (r)
                pthread_mutex_destroy(&journal->lock);
        return -r;
}

/* Makes the file with all its blocks and maps it. */
static int map_file(int fd, size_t size, void **ret_map)
{
        void *map;
        int r = mapped_file_reserve(fd, 0, (off_t)size);

        if (r < 0)
                return r;
        /* Populated: a first store costs 0.17 µs otherwise, and this is cheaper at once. */
        map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
        if (map == MAP_FAILED)
                return -errno;
        *ret_map = map;
        return 0;
}

static size_t map_size_of(uint32_t records)
{
        return JOURNAL_HEADER_SIZE + (size_t)records * JOURNAL_RECORD_SIZE;
}

/* A struct for the ring in `map`.  Returns 0 or -errno, and the map is the caller's then. */
static int make_journal(void *map, uint32_t records, struct journal **ret_journal)
{
        struct journal *journal;
        void *memory;
        int r = posix_memalign(&memory, 64, sizeof *journal);

        if (r)
                return -r;
        journal = memset(memory, 0, sizeof *journal);
        r = init_waiting(journal);
        if (r < 0) {
                free(journal);
                return r;
        }
        journal->header = map;
        journal->records = (struct journal_record *)((char *)map + JOURNAL_HEADER_SIZE);
        journal->map_size = map_size_of(records);
        journal->size = records;
        atomic_init(&journal->wake_at, UINT64_MAX);
        *ret_journal = journal;
        return 0;
}

/* An empty ring in a new file, without its magic: nobody takes it for one yet. */
static int make_ring(int dirfd, const char *name, uint32_t records, struct journal **ret_journal)
{
        const size_t size = map_size_of(records);
        struct journal *journal;
        void *map = NULL;
        int fd, r;

        fd = mapped_file_new(dirfd, name);
        if (fd < 0)
                return fd;
        r = map_file(fd, size, &map);
        close(fd);
        if (r < 0)
                goto remove_file;
        r = make_journal(map, records, &journal);
        if (r < 0)
                goto unmap;
        journal->header->version = JOURNAL_VERSION;
        journal->header->record_size = JOURNAL_RECORD_SIZE;
        journal->header->records = records;
        journal->header->header_size = JOURNAL_HEADER_SIZE;
        *ret_journal = journal;
        return 0;

unmap:
        munmap(map, size);
remove_file:
        unlinkat(dirfd, name, 0);
        return r;
}

/* The magic last: a file that has it is whole. */
static void complete(struct journal *journal)
{
        atomic_thread_fence(memory_order_release);
        memcpy(journal->header->magic, JOURNAL_MAGIC, sizeof journal->header->magic);
}

static bool size_is_right(uint32_t records)
{
        return records != 0 && !(records & (records - 1)) && records <= JOURNAL_RECORDS_MAX;
}

int journal_create(int dirfd, const char *name, uint32_t records, struct journal **ret_journal)
{
        struct journal *journal;
        int r;

        if (!size_is_right(records))
                return -EINVAL;
        r = make_ring(dirfd, name, records, &journal);
        if (r < 0)
                return r;
        journal->header->id = (uint64_t)g_get_real_time() << 8 ^ (uint64_t)getpid();
        complete(journal);
        *ret_journal = journal;
        return 0;
}

void journal_free(struct journal *journal)
{
        if (!journal)
                return;
        munmap(journal->header, journal->map_size);
        pthread_cond_destroy(&journal->filled);
        pthread_cond_destroy(&journal->room);
        pthread_mutex_destroy(&journal->lock);
        free(journal);
}

uint32_t journal_size(struct journal *journal)
{
        return journal->size;
}

static bool has_room(struct journal *journal, uint64_t sequence)
{
        /* Pairs with the store in journal_consume(): the consumer has read what was in the slot. */
        return sequence - atomic_load_explicit(&journal->header->tail, memory_order_seq_cst) <=
               journal->size;
}

/* False if there will never be room. */
static bool wait_for_room(struct journal *journal, uint64_t sequence)
{
        bool room;

        pthread_mutex_lock(&journal->lock);
        atomic_fetch_add_explicit(&journal->waiting, 1, memory_order_seq_cst);
        while (!has_room(journal, sequence) && !atomic_load(&journal->closed)) {
                atomic_store_explicit(&journal->wake_at, UINT64_MAX, memory_order_relaxed);
                journal->woken = true;
                pthread_cond_signal(&journal->filled);
                pthread_cond_wait(&journal->room, &journal->lock);
        }
        room = has_room(journal, sequence);
        atomic_fetch_sub_explicit(&journal->waiting, 1, memory_order_seq_cst);
        pthread_mutex_unlock(&journal->lock);
        return room;
}

void journal_close(struct journal *journal)
{
        pthread_mutex_lock(&journal->lock);
        atomic_store(&journal->closed, true);
        pthread_cond_broadcast(&journal->room);
        pthread_mutex_unlock(&journal->lock);
}

void journal_append(struct journal *journal, const struct journal_record *record)
{
        uint64_t sequence =
                atomic_fetch_add_explicit(&journal->header->head, 1, memory_order_seq_cst) + 1;
        struct journal_record *slot = slot_of(journal, sequence);
        const size_t body = G_STRUCT_OFFSET(struct journal_record, type);

        if (G_UNLIKELY(!has_room(journal, sequence)) && !wait_for_room(journal, sequence))
                return;
        memcpy((char *)slot + body, (const char *)record + body, sizeof *slot - body);
        atomic_store_explicit(commit_of(slot), sequence, memory_order_release);

        if (G_UNLIKELY(sequence >= atomic_load_explicit(&journal->wake_at, memory_order_seq_cst))) {
                pthread_mutex_lock(&journal->lock);
                atomic_store_explicit(&journal->wake_at, UINT64_MAX, memory_order_relaxed);
                pthread_cond_signal(&journal->filled);
                pthread_mutex_unlock(&journal->lock);
        }
}

static bool committed(struct journal *journal, uint64_t sequence)
{
        return atomic_load_explicit(commit_of(slot_of(journal, sequence)), memory_order_acquire) ==
               sequence;
}

uint32_t journal_peek(struct journal *journal, struct journal_record *records, uint32_t max)
{
        uint64_t tail = atomic_load_explicit(&journal->header->tail, memory_order_relaxed);
        uint32_t n;

        /* Beyond `size` the slots begin again with what was peeked already. */
        for (n = 0; n < max && n < journal->size && committed(journal, tail + n + 1); n++)
                records[n] = *slot_of(journal, tail + n + 1);
        return n;
}

void journal_consume(struct journal *journal, uint32_t n)
{
        atomic_fetch_add_explicit(&journal->header->tail, n, memory_order_seq_cst);
        if (atomic_load_explicit(&journal->waiting, memory_order_seq_cst) == 0)
                return;
        pthread_mutex_lock(&journal->lock);
        pthread_cond_broadcast(&journal->room);
        pthread_mutex_unlock(&journal->lock);
}

void journal_wait(struct journal *journal, uint32_t min_pending, int64_t timeout_us)
{
        uint64_t tail = atomic_load_explicit(&journal->header->tail, memory_order_relaxed);
        uint64_t target = tail + CLAMP(min_pending, 1, journal->size);
        struct timespec deadline = deadline_after(timeout_us);
        int64_t poll_us = COMMIT_POLL_MIN;

        pthread_mutex_lock(&journal->lock);
        while (!journal->woken) {
                struct timespec until = deadline;

                atomic_store_explicit(&journal->wake_at, target, memory_order_seq_cst);
                if (atomic_load_explicit(&journal->header->head, memory_order_seq_cst) >= target) {
                        struct timespec soon;

                        /* The first one is enough: behind it somebody may wait for room. */
                        if (committed(journal, tail + 1))
                                break;
                        soon = deadline_after(poll_us);
                        poll_us = MIN(2 * poll_us, COMMIT_POLL_MAX);
                        if (soon.tv_sec < until.tv_sec ||
                            (soon.tv_sec == until.tv_sec && soon.tv_nsec < until.tv_nsec))
                                until = soon;
                        /* Everybody behind it would wake us in vain. */
                        atomic_store_explicit(&journal->wake_at, UINT64_MAX, memory_order_relaxed);
                }
                if (deadline_over(&deadline))
                        break;
                pthread_cond_timedwait(&journal->filled, &journal->lock, &until);
        }
        atomic_store_explicit(&journal->wake_at, UINT64_MAX, memory_order_relaxed);
        journal->woken = false;
        pthread_mutex_unlock(&journal->lock);
}

void journal_wake(struct journal *journal)
{
        pthread_mutex_lock(&journal->lock);
        journal->woken = true;
        pthread_cond_signal(&journal->filled);
        pthread_mutex_unlock(&journal->lock);
}

uint64_t journal_head(struct journal *journal)
{
        return atomic_load_explicit(&journal->header->head, memory_order_seq_cst);
}

uint32_t journal_pending(struct journal *journal)
{
        /* tail first: it never passes a head that is read later. */
        uint64_t tail = atomic_load_explicit(&journal->header->tail, memory_order_seq_cst);
        uint64_t pending = journal_head(journal) - tail;

        return (uint32_t)MIN(pending, UINT32_MAX);
}

uint64_t journal_id(struct journal *journal)
{
        return journal->header->id;
}

void journal_foreach_pending(struct journal *journal,
                             void (*fn)(struct journal_record *record, void *data), void *data)
{
        const uint64_t tail = atomic_load(&journal->header->tail);

        for (uint64_t sequence = tail + 1; sequence <= journal_head(journal); sequence++)
                if (committed(journal, sequence))
                        fn(slot_of(journal, sequence), data);
}

/* ---- what an earlier daemon left ----
 *
 * Its ring is gone on with where it is: a new one of 4 MiB would cost a kill's clients some milliseconds.  Only
 * one that is too full, or too small, is copied to a new one; it is read then, not mapped. */

static int read_exactly(int fd, void *buffer, size_t size, uint64_t offset)
{
        while (size > 0) {
                ssize_t n = pread(fd, buffer, size, (off_t)offset);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        return -EBADMSG;
                buffer = (char *)buffer + n;
                size -= (size_t)n;
                offset += (uint64_t)n;
        }
        return 0;
}

static int read_header(int fd, struct journal_header *ret_header)
{
        struct stat st;
        int r;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return -EBADMSG;
        r = read_exactly(fd, ret_header, sizeof *ret_header, 0);
        if (r < 0)
                return r;
        if (memcmp(ret_header->magic, JOURNAL_MAGIC, sizeof ret_header->magic) != 0)
                return -EBADMSG;
        if (ret_header->version > JOURNAL_VERSION)
                return -EPROTO;
        if (ret_header->version != JOURNAL_VERSION ||
            ret_header->record_size != JOURNAL_RECORD_SIZE ||
            ret_header->header_size != JOURNAL_HEADER_SIZE || !size_is_right(ret_header->records) ||
            (uint64_t)st.st_size < map_size_of(ret_header->records) ||
            ret_header->tail > ret_header->head)
                return -EBADMSG;
        return 0;
}

/* Copies `n` records behind the old tail to the new ring. */
static int copy_records(int fd, const struct journal_header *old, struct journal *journal,
                        uint32_t n)
{
        for (uint32_t i = 0; i < n; i++) {
                const uint64_t sequence = old->tail + i + 1;
                struct journal_record *slot = slot_of(journal, sequence);
                const uint64_t at = (sequence - 1) & (old->records - 1);
                int r = read_exactly(fd, slot, sizeof *slot,
                                     JOURNAL_HEADER_SIZE + at * JOURNAL_RECORD_SIZE);

                if (r < 0)
                        return r;
                if (slot->commit != sequence)
                        *slot = (struct journal_record){.type = JOURNAL_NONE};
                slot->commit = sequence;
        }
        return 0;
}

/* Goes on with the ring in the file `fd`.  Can be cut off by a kill anywhere, and begun again. */
static int go_on(int fd, const struct journal_header *old, struct journal **ret_journal)
{
        struct journal *journal;
        void *map;
        int r = map_file(fd, map_size_of(old->records), &map); /* no holes: nobody knows who wrote it */

        if (r < 0)
                return r;
        r = make_journal(map, old->records, &journal);
        if (r < 0) {
                munmap(map, map_size_of(old->records));
                return r;
        }
        for (uint64_t sequence = old->tail + 1; sequence <= old->head; sequence++) {
                struct journal_record *slot = slot_of(journal, sequence);

                if (slot->commit == sequence)
                        continue;
                slot->type = JOURNAL_NONE; /* reserved, and never committed */
                atomic_store_explicit(commit_of(slot), sequence, memory_order_release);
        }
        *ret_journal = journal;
        return 0;
}

/* `ret_in_memory`: as journal_adopt()'s. */
static int copy_to_new(int fd, int dirfd, const char *name, uint32_t records,
                       const struct journal_header *old, struct journal **ret_journal, int *ret_in_memory)
{
        g_autofree char *new_name = g_strconcat(name, ".new", NULL);
        const uint32_t n = (uint32_t)MIN(old->head - old->tail, old->records);
        struct journal *journal;
        bool in_memory;
        int r;

        /* Nobody consumes before everything is in place again. */
        while (records < 2 * n && records < JOURNAL_RECORDS_MAX)
                records *= 2;
        r = make_ring(dirfd, new_name, records, &journal);
        in_memory = r < 0;
        if (in_memory && make_ring(-1, new_name, records, &journal) < 0)
                return r;
        *ret_in_memory = r;
        r = copy_records(fd, old, journal, n);
        journal->header->id = old->id;
        atomic_store(&journal->header->tail, old->tail);
        atomic_store(&journal->header->head, old->tail + n);
        complete(journal);
        if (r == 0 && in_memory)
                unlinkat(dirfd, name, 0); /* it is behind from here on, and must not be met again */
        else if (r == 0 && renameat(dirfd, new_name, dirfd, name) < 0)
                r = -errno;
        if (r < 0) {
                unlinkat(dirfd, new_name, 0);
                journal_free(journal);
        } else {
                *ret_journal = journal;
        }
        return r;
}

int journal_adopt(int dirfd, const char *name, uint32_t records, struct journal **ret_journal,
                  int *ret_in_memory)
{
        struct journal_header old;
        int fd, r;

        if (!size_is_right(records))
                return -EINVAL;
        *ret_in_memory = 0;
        fd = openat(dirfd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        r = read_header(fd, &old);
        if (r == 0 && old.records >= records && old.head - old.tail <= old.records / 2)
                r = go_on(fd, &old, ret_journal);
        else if (r == 0)
                r = copy_to_new(fd, dirfd, name, records, &old, ret_journal, ret_in_memory);
        close(fd);
        return r;
}

static void say_in_memory(const char *dir, const char *name, int error)
{
        if (error < 0)
                g_warning("%s/%s: cannot be made, it is in memory only: %s", dir, name, g_strerror(-error));
}

/* One that starts empty: in the directory, or else in memory. */
static int create_anywhere(int dirfd, const char *dir, const char *name, uint32_t records,
                           struct journal **ret_journal)
{
        int r = journal_create(dirfd, name, records, ret_journal);

        if (r == 0)
                return 0;
        say_in_memory(dir, name, r);
        return journal_create(-1, name, records, ret_journal);
}

int journal_resume(int dirfd, const char *dir, const char *name, uint32_t records,
                   struct journal **ret_journal)
{
        g_autofree char *aside = g_strconcat(name, ".broken", NULL);
        int in_memory = 0, r = journal_adopt(dirfd, name, records, ret_journal, &in_memory);

        if (r == 0) {
                say_in_memory(dir, name, in_memory);
                return 0;
        }
        /* The way of a rename that fails, journal_create() clears. */
        if (r != -ENOENT)
                (void)renameat(dirfd, name, dirfd, aside);
        g_warning("%s/%s: what an earlier daemon wrote here is not used: %s", dir, name,
                  r == -EPROTO    ? "it was made by a newer k42fs"
                  : r == -EBADMSG ? "it is damaged"
                                  : g_strerror(-r));
        return create_anywhere(dirfd, dir, name, records, ret_journal);
}

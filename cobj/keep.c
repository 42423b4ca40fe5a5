/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file is a row of slabs.  Slab 0 is the file's head; the head of every other one is two words
 * that say its index and the size of its records, the check before the word that makes it valid: a
 * slab whose owner was killed in between has never given out a record.
 *
 * A record has 16 bytes before it: its state (0, or KEEP_STATE with the type, so that a byte that
 * was flipped does not make a record), and the link of the free list.  A link is an offset in units
 * of 64 bytes, never a pointer, and nobody reads it in the next daemon: the lists are made again
 * from the states.
 *
 * The free list of a size class is a stack whose head is (tag, offset) in one word; the tag is
 * raised by every change, so that a record that was taken and came back in between is noticed.  To
 * read the link of a record that somebody else just took is harmless, because no slab is ever
 * unmapped and the link is not part of what the owner may write.
 *
 * The whole is mapped into one large reservation of addresses without memory behind it, so that it
 * can grow in place.
 */
#include "cobj/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cobj/id_table.h"
#include "cobj/mapped_file.h"

#define KEEP_MAGIC  "k42keep" /* with its NUL: 8 bytes */
#define KEEP_STATE  UINT64_C(0x6b33e5a95c970000)
#define SLAB_WORD   UINT64_C(0x6b53000000000000) /* | units of a record << 32 | index */
#define UNIT        64
#define RESERVE_MAX (UINT64_C(64) << 30)
#define RESERVE_MIN (UINT64_C(64) << 20)
#define GROW_MAX    16                   /* slabs that are added at once */
#define RETRY_US    (1 * G_USEC_PER_SEC) /* how soon to try again on a full disk */

/* Units of a record, its 16 bytes included: a cache line is never shared by two records. */
static const uint16_t class_units[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 33};
#define CLASSES G_N_ELEMENTS(class_units)

struct keep_head {
        char magic[8];
        uint32_t version, slab_size;
        _Atomic uint64_t
                slabs; /* that the file has room for, this one included: see slabs_word() */
        uint8_t reserved[40];
        _Atomic uint64_t words[KEEP_WORDS];
};
G_STATIC_ASSERT(sizeof(struct keep_head) == 64 + 8 * KEEP_WORDS);

struct slab_head {
        _Atomic uint64_t word;  /* SLAB_WORD …; 0: not used yet */
        _Atomic uint64_t check; /* of the word; written before it */
        uint8_t reserved[48];
};
G_STATIC_ASSERT(sizeof(struct slab_head) == UNIT);

struct record_head {
        _Atomic uint64_t state; /* 0, or KEEP_STATE + type */
        _Atomic uint32_t next;  /* units from the beginning of the file; 0: none */
        uint32_t reserved;
};
G_STATIC_ASSERT(sizeof(struct record_head) == 16);
G_STATIC_ASSERT(33 * UNIT - sizeof(struct record_head) >= KEEP_MAX);

/* A size class, on a cache line of its own. */
struct size_class {
        _Alignas(64) _Atomic uint64_t free; /* tag << 32 | units; 0 in the low half: empty */
        _Atomic uint64_t used;
};

struct keep {
        char *base;        /* constant, aligned to KEEP_SLAB */
        uint64_t reserved; /* bytes of addresses from there on; constant */
        void *reservation; /* what munmap(2) wants; constant */
        size_t reservation_size;
        int fd;

        struct size_class classes[CLASSES];
        _Atomic uint64_t unkept;
        atomic_bool said_unkept;

        GMutex lock;      /* protects what follows */
        uint32_t slabs;   /* mapped, and preallocated */
        uint32_t next;    /* the first one that is not used yet */
        uint32_t dirty;   /* below: what is not used may contain something */
        int64_t retry_at; /* monotonic µs; 0: the disk was not full */
};

static struct keep_head *head_of(struct keep *keep)
{
        return (struct keep_head *)keep->base;
}

static struct slab_head *slab_at(struct keep *keep, uint32_t index)
{
        return (struct slab_head *)(keep->base + (uint64_t)index * KEEP_SLAB);
}

static struct record_head *record_at(struct keep *keep, uint32_t units)
{
        return (struct record_head *)(keep->base + (uint64_t)units * UNIT);
}

static struct record_head *head_of_record(const void *record)
{
        return (struct record_head *)record - 1;
}

static uint32_t units_of(struct keep *keep, const struct record_head *record)
{
        return (uint32_t)((uint64_t)((const char *)record - keep->base) / UNIT);
}

static unsigned records_in_slab(unsigned class)
{
        return (KEEP_SLAB / UNIT - 1) / class_units[class];
}

static uint64_t slab_word(uint32_t index, unsigned class)
{
        return SLAB_WORD | (uint64_t)class_units[class] << 32 | index;
}

static uint64_t check_of(uint64_t word)
{
        return ~(word * UINT64_C(0x9e3779b97f4a7c15));
}

/* A number of slabs, and its complement in the high half. */
static uint64_t slabs_word(uint32_t slabs)
{
        return (uint64_t)~slabs << 32 | slabs;
}

/* The size class of a slab whose head checks, or -1. */
static int class_of_slab(struct keep *keep, uint32_t index)
{
        struct slab_head *slab = slab_at(keep, index);
        const uint64_t word = atomic_load_explicit(&slab->word, memory_order_relaxed);

        if (atomic_load_explicit(&slab->check, memory_order_relaxed) != check_of(word))
                return -1;
        for (unsigned c = 0; c < CLASSES; c++)
                if (word == slab_word(index, c))
                        return (int)c;
        return -1;
}

bool keep_has(struct keep *keep, const void *record)
{
        return keep && (uintptr_t)record - (uintptr_t)keep->base < keep->reserved;
}

/* Pushes a chain of records, first to last linked already. */
static void push(struct keep *keep, struct size_class *class, struct record_head *first,
                 struct record_head *last)
{
        uint64_t old = atomic_load_explicit(&class->free, memory_order_relaxed), new;

        do {
                atomic_store_explicit(&last->next, (uint32_t)old, memory_order_relaxed);
                new = ((old >> 32) + 1) << 32 | units_of(keep, first);
        } while (!atomic_compare_exchange_weak_explicit(
                &class->free, &old, new, memory_order_release, memory_order_relaxed));
}

static struct record_head *pop(struct keep *keep, struct size_class *class)
{
        uint64_t old = atomic_load_explicit(&class->free, memory_order_acquire), new;
        struct record_head *record;

        do {
                if ((uint32_t)old == 0)
                        return NULL;
                record = record_at(keep, (uint32_t)old);
                new = ((old >> 32) + 1) << 32 |
                      atomic_load_explicit(&record->next, memory_order_relaxed);
        } while (!atomic_compare_exchange_weak_explicit(
                &class->free, &old, new, memory_order_acquire, memory_order_acquire));
        return record;
}

/* Maps slabs [from, to) of the file, which has room for them. */
static int map_slabs(struct keep *keep, uint32_t from, uint32_t to)
{
        void *at = keep->base + (uint64_t)from * KEEP_SLAB;

        if (mmap(at, (size_t)(to - from) * KEEP_SLAB, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_FIXED | MAP_POPULATE, keep->fd,
                 (off_t)from * KEEP_SLAB) == MAP_FAILED)
                return -errno;
        return 0;
}

/* Adds slabs that are not used yet: some at once, or, when there is no room for some, one. */
static int locked_grow(struct keep *keep)
{
        const uint32_t limit = (uint32_t)(keep->reserved / KEEP_SLAB);
        uint32_t n = CLAMP(keep->slabs / 4, 1, GROW_MAX);
        int r = -ENOMEM;

        if (keep->retry_at && g_get_monotonic_time() < keep->retry_at)
                return -ENOSPC;
        for (; n > 0; n = n > 1 ? 1 : 0) {
                if (keep->slabs + n > limit)
                        continue;
                r = mapped_file_reserve(keep->fd, (off_t)keep->slabs * KEEP_SLAB,
                                        (off_t)(keep->slabs + n) * KEEP_SLAB);
                if (r == 0)
                        r = map_slabs(keep, keep->slabs, keep->slabs + n);
                if (r == 0)
                        break;
        }
        keep->retry_at = r < 0 ? g_get_monotonic_time() + RETRY_US : 0;
        if (r < 0)
                return r;
        keep->slabs += n;
        atomic_store_explicit(&head_of(keep)->slabs, slabs_word(keep->slabs), memory_order_relaxed);
        return 0;
}

/* Makes the next slab one of the class, and takes a record of it; NULL with *ret_error if there is
 * no room. */
static struct record_head *locked_add_slab(struct keep *keep, unsigned class, int *ret_error)
{
        struct record_head *first, *at, *next;
        const unsigned n = records_in_slab(class);
        struct slab_head *slab;
        uint64_t word;
        int r;

        if (keep->next == keep->slabs) {
                r = locked_grow(keep);
                if (r < 0) {
                        *ret_error = r;
                        return NULL;
                }
        }
        slab = slab_at(keep, keep->next);
        if (keep->next < keep->dirty)
                memset(slab, 0, KEEP_SLAB);
        word = slab_word(keep->next, class);
        atomic_store_explicit(&slab->check, check_of(word), memory_order_relaxed);
        atomic_store_explicit(&slab->word, word, memory_order_release);
        keep->next++;

        first = at = (struct record_head *)(slab + 1);
        for (unsigned i = 1; i < n; i++, at = next) {
                next = (struct record_head *)((char *)at + (size_t)class_units[class] * UNIT);
                atomic_store_explicit(&at->next, units_of(keep, next), memory_order_relaxed);
        }
        next = record_at(keep, atomic_load_explicit(&first->next, memory_order_relaxed));
        push(keep, &keep->classes[class], next, at);
        return first;
}

static void say_unkept(struct keep *keep, int error)
{
        if (!atomic_exchange(&keep->said_unkept, true))
                g_warning("keep: no room for what should survive the daemon, it is in memory only: "
                          "%s",
                          g_strerror(-error));
}

void *keep_alloc(struct keep *keep, size_t size)
{
        struct record_head *record = NULL;
        unsigned class = 0;
        int error = 0;

        if (size > KEEP_MAX)
                return NULL;
        if (keep) {
                while (class_units[class] * (size_t)UNIT - sizeof *record < size)
                        class ++;
                record = pop(keep, &keep->classes[class]);
                if (G_UNLIKELY(!record)) {
                        g_mutex_lock(&keep->lock);
                        record = pop(keep, &keep->classes[class]);
                        if (!record)
                                record = locked_add_slab(keep, class, &error);
                        g_mutex_unlock(&keep->lock);
                }
        }
        if (G_LIKELY(record)) {
                atomic_fetch_add_explicit(&keep->classes[class].used, 1, memory_order_relaxed);
                return memset(record + 1, 0, class_units[class] * (size_t)UNIT - sizeof *record);
        }
        if (keep) {
                say_unkept(keep, error);
                atomic_fetch_add_explicit(&keep->unkept, 1, memory_order_relaxed);
        }
        record = calloc(1, sizeof *record + MAX(size, 1));
        return record ? record + 1 : NULL;
}

void keep_commit(void *record, enum keep_type type)
{
        atomic_store_explicit(&head_of_record(record)->state, KEEP_STATE + type,
                              memory_order_release);
}

void keep_free(struct keep *keep, void *record)
{
        struct record_head *head;
        struct size_class *class;

        if (!record)
                return;
        head = head_of_record(record);
        if (!keep_has(keep, record)) {
                if (keep)
                        atomic_fetch_sub_explicit(&keep->unkept, 1, memory_order_relaxed);
                free(head);
                return;
        }
        atomic_store_explicit(&head->state, 0, memory_order_relaxed);
        class = &keep->classes[class_of_slab(
                keep, (uint32_t)((uint64_t)((char *)head - keep->base) / KEEP_SLAB))];
        atomic_fetch_sub_explicit(&class->used, 1, memory_order_relaxed);
        push(keep, class, head, head);
}

void *keep_next(struct keep *keep, enum keep_type type, uint64_t *cursor, size_t *ret_size)
{
        uint64_t units = *cursor;

        if (!keep)
                return NULL;
        while (units < (uint64_t)keep->next * (KEEP_SLAB / UNIT)) {
                const uint32_t slab = (uint32_t)(units / (KEEP_SLAB / UNIT));
                const unsigned in_slab = (unsigned)(units % (KEEP_SLAB / UNIT));
                const int class = slab == 0 ? -1 : class_of_slab(keep, slab);
                const unsigned step = class < 0 ? 0 : class_units[class];
                struct record_head *record;

                if (class < 0 || in_slab + step > KEEP_SLAB / UNIT) {
                        units = ((uint64_t)slab + 1) * (KEEP_SLAB / UNIT);
                        continue;
                }
                if (in_slab == 0) {
                        units++;
                        continue;
                }
                record = record_at(keep, (uint32_t)units);
                units += step;
                if (atomic_load_explicit(&record->state, memory_order_acquire) != KEEP_STATE + type)
                        continue;
                *cursor = units;
                if (ret_size)
                        *ret_size = step * (size_t)UNIT - sizeof *record;
                return record + 1;
        }
        *cursor = units;
        return NULL;
}

_Atomic uint64_t *keep_word(struct keep *keep, enum keep_word word)
{
        return keep ? &head_of(keep)->words[word] : NULL;
}

void keep_get_stats(struct keep *keep, struct keep_stats *ret_stats)
{
        *ret_stats = (struct keep_stats){0};
        if (!keep)
                return;
        for (unsigned c = 0; c < CLASSES; c++)
                ret_stats->records +=
                        atomic_load_explicit(&keep->classes[c].used, memory_order_relaxed);
        ret_stats->unkept = atomic_load_explicit(&keep->unkept, memory_order_relaxed);
        ret_stats->bytes = (uint64_t)(uint32_t)atomic_load_explicit(&head_of(keep)->slabs,
                                                                    memory_order_relaxed) *
                           KEEP_SLAB;
}

/* A keep with addresses and without a file.  Takes over `fd` on success. */
static int make_keep(int fd, uint64_t at_least, struct keep **ret_keep)
{
        void *reservation = MAP_FAILED, *memory;
        uint64_t size = MAX(RESERVE_MAX, at_least + RESERVE_MIN);
        struct keep *keep;
        int r = posix_memalign(&memory, 64, sizeof *keep);

        if (r)
                return -r;
        keep = memset(memory, 0, sizeof *keep);
        for (; reservation == MAP_FAILED; size /= 2) {
                if (size < RESERVE_MIN || size < at_least) {
                        free(keep);
                        return -ENOMEM;
                }
                reservation = mmap(NULL, size + KEEP_SLAB, PROT_NONE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
                keep->reserved = size;
        }
        keep->reservation = reservation;
        keep->reservation_size = keep->reserved + KEEP_SLAB;
        keep->base =
                (char *)(((uintptr_t)reservation + KEEP_SLAB - 1) & ~(uintptr_t)(KEEP_SLAB - 1));
        keep->fd = fd;
        g_mutex_init(&keep->lock);
        *ret_keep = keep;
        return 0;
}

void keep_close(struct keep *keep)
{
        if (!keep)
                return;
        munmap(keep->reservation, keep->reservation_size);
        if (keep->fd >= 0)
                close(keep->fd);
        g_mutex_clear(&keep->lock);
        free(keep);
}

int keep_create(int dirfd, const char *name, struct keep **ret_keep)
{
        struct keep *keep = NULL;
        struct keep_head *head;
        int fd, r;

        fd = mapped_file_new(dirfd, name);
        if (fd < 0)
                return fd;
        r = mapped_file_reserve(fd, 0, KEEP_SLAB);
        if (r == 0)
                r = make_keep(fd, KEEP_SLAB, &keep);
        if (r < 0) {
                close(fd);
                unlinkat(dirfd, name, 0);
                return r;
        }
        r = map_slabs(keep, 0, 1);
        if (r < 0) {
                keep_close(keep);
                unlinkat(dirfd, name, 0);
                return r;
        }
        keep->slabs = keep->next = 1;
        head = head_of(keep);
        head->version = KEEP_VERSION;
        head->slab_size = KEEP_SLAB;
        atomic_store_explicit(&head->slabs, slabs_word(1), memory_order_relaxed);
        for (unsigned i = 0; i < KEEP_WORD_BACKING_SEARCH; i++)
                atomic_store_explicit(&head->words[KEEP_WORD_CHECKS + i], UINT64_MAX, memory_order_relaxed);
        /* The magic last: a file that has it is whole. */
        atomic_thread_fence(memory_order_release);
        memcpy(head->magic, KEEP_MAGIC, sizeof head->magic);
        *ret_keep = keep;
        return 0;
}

void keep_has_lost(struct keep *keep)
{
        for (unsigned i = 0; i < KEEP_WORD_BACKING_SEARCH; i++)
                atomic_store(&head_of(keep)->words[KEEP_WORD_CHECKS + i], 0);
        atomic_store(&head_of(keep)->words[KEEP_WORD_BACKING_SEARCH], 1);
}

void keep_ids(struct id_table *table, struct keep *keep, enum keep_word word)
{
        _Atomic uint64_t *const words = keep ? head_of(keep)->words : NULL;
        bool lost; /* as keep_has_lost() leaves it, which somebody has told about */

        if (!keep)
                return;
        lost = atomic_load(&words[word]) == 0 && atomic_load(&words[KEEP_WORD_CHECKS + word]) == 0;
        if (!id_table_keep(table, &words[word], &words[KEEP_WORD_CHECKS + word]) && !lost)
                g_warning("keep: a counter of ids is damaged, they go on at another number");
}

/* What the head says that has to be so before anything else is believed. */
static int read_head(int fd, struct keep_head *ret_head)
{
        ssize_t n = pread(fd, ret_head, sizeof *ret_head, 0);

        if (n < 0)
                return -errno;
        if (n < (ssize_t)sizeof *ret_head ||
            memcmp(ret_head->magic, KEEP_MAGIC, sizeof ret_head->magic) != 0)
                return -EBADMSG;
        if (ret_head->version > KEEP_VERSION)
                return -EPROTO;
        return ret_head->version == KEEP_VERSION && ret_head->slab_size == KEEP_SLAB ? 0 : -EBADMSG;
}

/* How many slabs of the file can be touched without SIGBUS, and how many of it are not there. */
static int usable_slabs(int fd, uint32_t *ret_slabs, uint32_t *ret_missing)
{
        struct keep_head head;
        struct stat st;
        uint64_t end, said;
        off_t hole = 0;
        int r;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || st.st_size < KEEP_SLAB)
                return -EBADMSG;
        r = read_head(fd, &head);
        if (r < 0)
                return r;
        end = MIN((uint64_t)st.st_size, RESERVE_MAX) / KEEP_SLAB;
        said = (uint32_t)head.slabs;
        if (head.slabs != slabs_word((uint32_t)said) || said > RESERVE_MAX / KEEP_SLAB)
                said = 0;
        else
                end = MIN(end, said); /* behind that may be what was added and not used yet */
        /* Somebody may have made holes in it. */
        if (said == 0 || mapped_file_reserve(fd, 0, end * KEEP_SLAB) < 0) {
                hole = lseek(fd, 0, SEEK_HOLE);
                if (hole < 0)
                        return -errno;
                end = MIN(end, (uint64_t)hole / KEEP_SLAB);
        }
        if (end == 0)
                return -EBADMSG;
        *ret_slabs = (uint32_t)end;
        *ret_missing = said > end ? (uint32_t)(said - end) : 0;
        return 0;
}

/* Puts the records of a slab that are not committed on the free list, and counts the others. */
static void adopt_records(struct keep *keep, uint32_t index, unsigned class)
{
        struct record_head *first = NULL, *last = NULL;
        const unsigned n = records_in_slab(class);
        uint64_t used = 0;

        for (unsigned i = 0; i < n; i++) {
                struct record_head *record =
                        record_at(keep, index * (KEEP_SLAB / UNIT) + 1 + i * class_units[class]);
                const uint64_t state = atomic_load_explicit(&record->state, memory_order_relaxed);

                if (state > KEEP_STATE && state < KEEP_STATE + KEEP_TYPES) {
                        used++;
                        continue;
                }
                atomic_store_explicit(&record->state, 0, memory_order_relaxed);
                if (last)
                        atomic_store_explicit(&last->next, units_of(keep, record),
                                              memory_order_relaxed);
                else
                        first = record;
                last = record;
        }
        atomic_fetch_add_explicit(&keep->classes[class].used, used, memory_order_relaxed);
        if (first)
                push(keep, &keep->classes[class], first, last);
}

/* Finds what the slabs are; how many are of no use. */
static uint32_t adopt_slabs(struct keep *keep)
{
        uint32_t damaged = 0;

        keep->dirty = keep->slabs;
        keep->next = keep->slabs;
        while (keep->next > 1 && atomic_load_explicit(&slab_at(keep, keep->next - 1)->word,
                                                      memory_order_relaxed) == 0)
                keep->next--;
        for (uint32_t i = 1; i < keep->next; i++) {
                const int class = class_of_slab(keep, i);

                if (class < 0)
                        damaged++;
                else
                        adopt_records(keep, i, (unsigned)class);
        }
        atomic_store_explicit(&head_of(keep)->slabs, slabs_word(keep->slabs), memory_order_relaxed);
        return damaged;
}

int keep_adopt_fd(int fd, struct keep **ret_keep, uint32_t *ret_damaged)
{
        struct keep *keep = NULL;
        uint32_t slabs = 0, missing = 0;
        int r = usable_slabs(fd, &slabs, &missing);

        if (r == 0)
                r = make_keep(fd, (uint64_t)slabs * KEEP_SLAB, &keep);
        if (r < 0)
                return r;
        r = map_slabs(keep, 0, slabs);
        if (r < 0) {
                keep->fd = -1; /* the caller's */
                keep_close(keep);
                return r;
        }
        keep->slabs = slabs;
        *ret_damaged = missing + adopt_slabs(keep);
        *ret_keep = keep;
        return 0;
}

int keep_adopt(int dirfd, const char *name, struct keep **ret_keep, uint32_t *ret_damaged)
{
        int fd, r;

        fd = openat(dirfd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        r = keep_adopt_fd(fd, ret_keep, ret_damaged);
        if (r < 0)
                close(fd);
        return r;
}

int keep_fd(const struct keep *keep)
{
        return keep->fd;
}

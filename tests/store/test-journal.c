/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The journal: what goes in comes out, in order, once, whatever the threads do and whoever dies.
 * The offsets are those of k42fs-schema(5), on purpose not those of a header.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "cobj/journal.h"

#define PRODUCERS          4
#define RECORDS_A_PRODUCER 100000

/* The file, as k42fs-schema(5) has it. */
enum {
        OFFSET_VERSION = 8,
        OFFSET_RECORD_SIZE = 12,
        OFFSET_RECORDS = 16,
        OFFSET_HEADER_SIZE = 20,
        OFFSET_HEAD = 64,
        OFFSET_TAIL = 128,
        OFFSET_FIRST_RECORD = 4096,
};

struct fixture {
        char *dir;
        int dirfd;
};

static void fixture_set_up(struct fixture *f, gconstpointer data)
{
        f->dir = g_dir_make_tmp("k42-journal-XXXXXX", NULL);
        g_assert_nonnull(f->dir);
        f->dirfd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        g_assert_cmpint(f->dirfd, >=, 0);
}

static void fixture_tear_down(struct fixture *f, gconstpointer data)
{
        unlinkat(f->dirfd, "journal", 0);
        close(f->dirfd);
        g_assert_cmpint(g_rmdir(f->dir), ==, 0);
        g_free(f->dir);
}

static struct journal *make(struct fixture *f, uint32_t records)
{
        struct journal *journal = NULL;

        g_assert_cmpint(journal_create(f->dirfd, "journal", records, &journal), ==, 0);
        g_assert_nonnull(journal);
        return journal;
}

static uint8_t *map_file(struct fixture *f, size_t *ret_size)
{
        int fd = openat(f->dirfd, "journal", O_RDWR | O_CLOEXEC);
        struct stat st;
        void *map;

        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(fstat(fd, &st), ==, 0);
        map = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        g_assert_true(map != MAP_FAILED);
        close(fd);
        *ret_size = st.st_size;
        return map;
}

static uint64_t u64_at(const uint8_t *bytes)
{
        uint64_t v;

        memcpy(&v, bytes, sizeof v);
        return v;
}

static uint32_t u32_at(const uint8_t *bytes)
{
        uint32_t v;

        memcpy(&v, bytes, sizeof v);
        return v;
}

/* A record of which every byte follows from (producer, n). */
static struct journal_record record_of(uint64_t producer, uint64_t n)
{
        struct journal_record record = {
                .commit = UINT64_MAX, /* must be ignored */
                .type = JOURNAL_HANDLE_GIVEN,
                .handle = {.handle = n,
                           .client = producer,
                           .reads = n * 31 + producer,
                           .write_bytes = ~n,
                           .flags = (int32_t)n,
                           .sharing = (uint8_t)n},
        };

        return record;
}

static void assert_record(const struct journal_record *record, uint64_t producer, uint64_t n)
{
        g_assert_cmpuint(record->type, ==, JOURNAL_HANDLE_GIVEN);
        g_assert_cmpuint(record->handle.client, ==, producer);
        g_assert_cmpuint(record->handle.handle, ==, n);
        g_assert_cmpuint(record->handle.reads, ==, n * 31 + producer);
        g_assert_cmpuint(record->handle.write_bytes, ==, ~n);
        g_assert_cmpint(record->handle.flags, ==, (int32_t)n);
        g_assert_cmpuint(record->handle.sharing, ==, (uint8_t)n);
}

static void append(struct journal *journal, uint64_t producer, uint64_t n)
{
        struct journal_record record = record_of(producer, n);

        journal_append(journal, &record);
}

static void test_single(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Journal) journal = make(f, 16);
        struct journal_record out[16];

        g_assert_cmpuint(journal_size(journal), ==, 16);
        g_assert_cmpuint(journal_head(journal), ==, 0);
        g_assert_cmpuint(journal_peek(journal, out, 16), ==, 0);
        for (uint64_t n = 0; n < 5; n++)
                append(journal, 7, n);
        g_assert_cmpuint(journal_head(journal), ==, 5);
        g_assert_cmpuint(journal_pending(journal), ==, 5);

        g_assert_cmpuint(journal_peek(journal, out, 3), ==, 3);
        g_assert_cmpuint(journal_peek(journal, out, 16), ==, 5); /* a peek frees nothing */
        for (uint64_t n = 0; n < 5; n++) {
                assert_record(&out[n], 7, n);
                g_assert_cmpuint(out[n].commit, ==, n + 1);
        }
        journal_consume(journal, 2);
        g_assert_cmpuint(journal_pending(journal), ==, 3);
        g_assert_cmpuint(journal_peek(journal, out, 16), ==, 3);
        assert_record(&out[0], 7, 2);
        journal_consume(journal, 3);
        g_assert_cmpuint(journal_peek(journal, out, 16), ==, 0);
        g_assert_cmpuint(journal_pending(journal), ==, 0);
        g_assert_cmpuint(journal_head(journal), ==, 5);
}

static void test_wrap(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Journal) journal = make(f, 8);
        struct journal_record out[32];
        uint64_t in = 0, seen = 0;

        for (unsigned round = 0; round < 1000; round++) {
                unsigned n = 1 + round % 8;

                for (unsigned i = 0; i < n; i++)
                        append(journal, 1, in++);
                /* Asked for more than there can be: the slots must not come twice. */
                g_assert_cmpuint(journal_peek(journal, out, G_N_ELEMENTS(out)), ==, n);
                for (unsigned i = 0; i < n; i++)
                        assert_record(&out[i], 1, seen++);
                journal_consume(journal, n);
        }
}

static void test_layout(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Journal) journal = make(f, 4);
        struct journal_record out[4];
        const uint8_t *slot;
        size_t size;
        uint8_t *map = map_file(f, &size);
        struct stat st;

        g_assert_cmpuint(size, ==, 4096 + 4 * 128);
        g_assert_cmpmem(map, 8, "k42jrnl\0", 8);
        g_assert_cmpuint(u32_at(map + OFFSET_VERSION), ==, 1);
        g_assert_cmpuint(u32_at(map + OFFSET_RECORD_SIZE), ==, 128);
        g_assert_cmpuint(u32_at(map + OFFSET_RECORDS), ==, 4);
        g_assert_cmpuint(u32_at(map + OFFSET_HEADER_SIZE), ==, 4096);
        g_assert_cmpint(fstatat(f->dirfd, "journal", &st, 0), ==, 0);
        g_assert_cmpuint(st.st_mode & 07777, ==, 0600);
        g_assert_cmpint(st.st_blocks * 512, >=, st.st_size); /* no holes */

        for (uint64_t n = 0; n < 6; n++) {
                append(journal, 9, n);
                if (n == 1) {
                        g_assert_cmpuint(journal_peek(journal, out, 4), ==, 2);
                        journal_consume(journal, 2);
                }
        }
        g_assert_cmpuint(u64_at(map + OFFSET_HEAD), ==, 6);
        g_assert_cmpuint(u64_at(map + OFFSET_TAIL), ==, 2);
        slot = map + OFFSET_FIRST_RECORD + 128; /* sequence 6 is in slot 1 */
        g_assert_cmpuint(u64_at(slot), ==, 6);
        g_assert_cmpuint(u32_at(slot + 8), ==, 3);
        g_assert_cmpuint(u64_at(slot + 16), ==, 5);            /* handle */
        g_assert_cmpuint(u64_at(slot + 32), ==, 9);            /* client */
        g_assert_cmpuint(u64_at(slot + 64), ==, 5 * 31 + 9);   /* reads */
        g_assert_cmpuint(u64_at(slot + 88), ==, ~UINT64_C(5)); /* write_bytes */
        g_assert_cmpuint(u32_at(slot + 96), ==, 5);            /* flags */
        g_assert_cmpuint(slot[106], ==, 5);                    /* sharing */
        munmap(map, size);
}

static void test_create(struct fixture *f, gconstpointer data)
{
        struct journal *none = NULL;
        g_autoptr(K42Journal) old = make(f, 16), journal = NULL;
        struct journal_record out[16];

        g_assert_cmpint(journal_create(f->dirfd, "journal", 0, &none), ==, -EINVAL);
        g_assert_cmpint(journal_create(f->dirfd, "journal", 12, &none), ==, -EINVAL);
        g_assert_cmpint(journal_create(f->dirfd, "no/journal", 16, &none), ==, -ENOENT);
        g_assert_null(none);

        append(old, 1, 1);
        journal = make(f, 8);
        g_assert_cmpuint(journal_head(journal), ==, 0);
        g_assert_cmpuint(journal_peek(journal, out, 8), ==, 0);
        append(old, 1, 2); /* whoever has the old one mapped is not killed by SIGBUS */
        g_assert_cmpuint(journal_peek(old, out, 16), ==, 2);
}

/* Full disk: -ENOSPC instead of SIGBUS at some later store, and no file left. */
static void test_full_disk(struct fixture *f, gconstpointer data)
{
        g_autofree char *mnt = g_build_filename(f->dir, "small", NULL);
        struct journal *journal = NULL;
        int dirfd;

        g_assert_cmpint(g_mkdir(mnt, 0700), ==, 0);
        if (mount("tmpfs", mnt, "tmpfs", 0, "size=256k") < 0) {
                g_test_skip("needs the right to mount a tmpfs");
                g_rmdir(mnt);
                return;
        }
        dirfd = open(mnt, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        g_assert_cmpint(journal_create(dirfd, "journal", 65536, &journal), ==, -ENOSPC);
        g_assert_null(journal);
        g_assert_cmpint(faccessat(dirfd, "journal", F_OK, 0), ==, -1);
        g_assert_cmpint(journal_create(dirfd, "journal", 1024, &journal), ==, 0);
        journal_free(journal);
        close(dirfd);
        g_assert_cmpint(umount2(mnt, MNT_DETACH), ==, 0);
        g_rmdir(mnt);
}

struct producer {
        pthread_t thread;
        struct journal *journal;
        uint64_t id, n;
        _Atomic uint64_t appended;
};

static void *produce(void *data)
{
        struct producer *p = data;

        for (uint64_t n = 0; n < p->n; n++) {
                append(p->journal, p->id, n);
                atomic_fetch_add_explicit(&p->appended, 1, memory_order_relaxed);
        }
        return NULL;
}

/* A full ring holds the producer back, without losing anything, until the consumer comes. */
static void test_full_ring(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Journal) journal = make(f, 16);
        struct producer p = {.journal = journal, .id = 3, .n = 500};
        struct journal_record out[16];
        uint64_t seen = 0;

        g_assert_cmpint(pthread_create(&p.thread, NULL, produce, &p), ==, 0);
        for (unsigned i = 0; i < 1000 && atomic_load(&p.appended) < 16; i++)
                g_usleep(1000);
        g_usleep(20000);
        g_assert_cmpuint(atomic_load(&p.appended), ==, 16);
        g_assert_cmpuint(journal_pending(journal), ==, 17); /* the waiting one is reserved */
        while (seen < p.n) {
                uint32_t n;

                /* The whole ring at once can't come; a full ring must end this wait. */
                journal_wait(journal, 16, 10 * G_USEC_PER_SEC);
                n = journal_peek(journal, out, seen % 5 + 1);
                for (uint32_t i = 0; i < n; i++)
                        assert_record(&out[i], 3, seen++);
                g_usleep(seen % 7 == 0 ? 500 : 0);
                journal_consume(journal, n);
                if (p.n - seen < 16)
                        journal_wake(journal);
        }
        pthread_join(p.thread, NULL);
        g_assert_cmpuint(journal_pending(journal), ==, 0);
}

/* At the end nobody makes room any more: nobody may wait for it either. */
static void test_close(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Journal) journal = make(f, 16);
        struct producer p = {.journal = journal, .id = 4, .n = 500};
        struct journal_record out[16];

        g_assert_cmpint(pthread_create(&p.thread, NULL, produce, &p), ==, 0);
        for (unsigned i = 0; i < 1000 && journal_pending(journal) < 17; i++)
                g_usleep(1000);
        g_assert_cmpuint(journal_pending(journal), ==, 17); /* one waits */
        journal_close(journal);
        pthread_join(p.thread, NULL);
        g_assert_cmpuint(atomic_load(&p.appended), ==, p.n);
        g_assert_cmpuint(journal_peek(journal, out, 16), ==, 16); /* none was overwritten */
        for (uint32_t i = 0; i < 16; i++)
                assert_record(&out[i], 4, i);
}

static void test_producers(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Journal) journal = make(f, GPOINTER_TO_UINT(data));
        struct producer p[PRODUCERS] = {0};
        uint64_t next[PRODUCERS] = {0}, seen = 0;
        struct journal_record out[256];

        for (unsigned i = 0; i < PRODUCERS; i++) {
                p[i].journal = journal;
                p[i].id = i;
                p[i].n = RECORDS_A_PRODUCER;
                g_assert_cmpint(pthread_create(&p[i].thread, NULL, produce, &p[i]), ==, 0);
        }
        while (seen < PRODUCERS * RECORDS_A_PRODUCER) {
                uint32_t n;

                journal_wait(journal, 64, 5000);
                while ((n = journal_peek(journal, out, G_N_ELEMENTS(out))) > 0) {
                        for (uint32_t i = 0; i < n; i++) {
                                uint64_t who = out[i].handle.client;

                                g_assert_cmpuint(out[i].commit, ==, seen + i + 1);
                                g_assert_cmpuint(who, <, PRODUCERS);
                                assert_record(&out[i], who, next[who]++);
                        }
                        seen += n;
                        journal_consume(journal, n);
                }
        }
        for (unsigned i = 0; i < PRODUCERS; i++) {
                pthread_join(p[i].thread, NULL);
                g_assert_cmpuint(next[i], ==, RECORDS_A_PRODUCER);
        }
        g_assert_cmpuint(journal_head(journal), ==, PRODUCERS * RECORDS_A_PRODUCER);
}

static void *append_soon(void *data)
{
        struct producer *p = data;

        g_usleep(50000);
        for (uint64_t n = 0; n < p->n; n++)
                append(p->journal, p->id, n);
        return NULL;
}

static void test_wait(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Journal) journal = make(f, 16);
        struct producer p = {.journal = journal, .n = 2};
        int64_t begun = g_get_monotonic_time();

        journal_wait(journal, 1, 30000); /* nothing comes */
        g_assert_cmpint(g_get_monotonic_time() - begun, >=, 30000);

        journal_wake(journal); /* a wake before the wait counts */
        begun = g_get_monotonic_time();
        journal_wait(journal, 1, 60 * G_USEC_PER_SEC);
        g_assert_cmpint(g_get_monotonic_time() - begun, <, 30 * G_USEC_PER_SEC);

        g_assert_cmpint(pthread_create(&p.thread, NULL, append_soon, &p), ==, 0);
        journal_wait(journal, 2, 60 * G_USEC_PER_SEC); /* ended by the second record */
        g_assert_cmpint(g_get_monotonic_time() - begun, <, 30 * G_USEC_PER_SEC);
        g_assert_cmpuint(journal_pending(journal), ==, 2);
        pthread_join(p.thread, NULL);

        begun = g_get_monotonic_time();
        journal_wait(journal, 3, 30000); /* two are there, three are wanted */
        g_assert_cmpint(g_get_monotonic_time() - begun, >=, 30000);
        journal_wait(journal, 2, 60 * G_USEC_PER_SEC); /* there already */
        g_assert_cmpint(g_get_monotonic_time() - begun, <, 30 * G_USEC_PER_SEC);
}

static void kill_and_reap(pid_t pid)
{
        int status;

        g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
        g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
        g_assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* A producer that died between reserving a number and committing it: what is before it can be read,
 * nothing from it on, and an older record in the same slot is not taken for it. */
static void test_killed_producer(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Journal) journal = make(f, 8);
        struct journal_record out[8];
        int ready[2];
        char byte;
        pid_t pid;

        for (uint64_t n = 0; n < 8; n++) /* fill all slots once */
                append(journal, 0, n);
        journal_consume(journal, journal_peek(journal, out, 8));

        g_assert_cmpint(pipe2(ready, O_CLOEXEC), ==, 0);
        pid = fork();
        g_assert_cmpint(pid, >=, 0);
        if (pid == 0) {
                size_t size;
                uint8_t *map = map_file(f, &size);
                _Atomic uint64_t *head = (_Atomic uint64_t *)(map + OFFSET_HEAD);

                for (uint64_t n = 0; n < 3; n++)
                        append(journal, 1, n);
                atomic_fetch_add(head, 1); /* reserved, and that was it */
                for (uint64_t n = 3; n < 5; n++)
                        append(journal, 1, n); /* other threads went on meanwhile */
                if (write(ready[1], "r", 1) != 1)
                        _exit(1);
                for (;;)
                        pause();
        }
        g_assert_cmpint(read(ready[0], &byte, 1), ==, 1);
        kill_and_reap(pid);
        close(ready[0]);
        close(ready[1]);

        g_assert_cmpuint(journal_head(journal), ==, 14);
        g_assert_cmpuint(journal_pending(journal), ==, 6);
        g_assert_cmpuint(journal_peek(journal, out, 8), ==, 3);
        for (uint64_t n = 0; n < 3; n++)
                assert_record(&out[n], 1, n);
        journal_consume(journal, 3);
        g_assert_cmpuint(journal_peek(journal, out, 8), ==, 0);
        journal_wait(journal, 1, 20000); /* ends by its time although a record is reserved */
}

static ino_t inode_of(struct fixture *f)
{
        struct stat st;

        g_assert_cmpint(fstatat(f->dirfd, "journal", &st, 0), ==, 0);
        return st.st_ino;
}

/* The next daemon's: the same ring with the record that was never completed as nothing, as long as half of
 * it is free; else a new and larger one. */
static void test_adopt(struct fixture *f, gconstpointer data)
{
        struct journal *journal = make(f, 8), *next;
        struct journal_record out[8];
        const ino_t first = inode_of(f);
        size_t size;
        int in_memory;
        uint8_t *map = map_file(f, &size);

        append(journal, 1, 0);
        atomic_fetch_add((_Atomic uint64_t *)(map + OFFSET_HEAD), 1);
        append(journal, 1, 1);
        munmap(map, size);
        journal_free(journal);

        g_assert_cmpint(journal_adopt(f->dirfd, "journal", 8, &next, &in_memory), ==, 0);
        g_assert_cmpint(in_memory, ==, 0);
        g_assert_cmpuint(inode_of(f), ==, first);
        g_assert_cmpuint(journal_peek(next, out, 8), ==, 3);
        assert_record(&out[0], 1, 0);
        g_assert_cmpuint(out[1].type, ==, JOURNAL_NONE);
        assert_record(&out[2], 1, 1);
        for (uint64_t n = 2; n < 4; n++) /* with the others more than half of it */
                append(next, 1, n);
        journal_free(next);

        g_assert_cmpint(journal_adopt(f->dirfd, "journal", 8, &next, &in_memory), ==, 0);
        g_assert_cmpint(in_memory, ==, 0);
        g_assert_cmpuint(inode_of(f), !=, first);
        g_assert_cmpuint(journal_size(next), >=, 10);
        g_assert_cmpuint(journal_peek(next, out, 8), ==, 5);
        assert_record(&out[4], 1, 3);
        journal_free(next);
}

/* Killed at any moment: what is in the file is a gapless sequence of whole records. */
static void test_survives_kill(struct fixture *f, gconstpointer data)
{
        const uint32_t records = 4096;

        for (unsigned round = 0; round < 20; round++) {
                g_autoptr(K42Journal) journal = make(f, records);
                size_t size;
                uint8_t *map;
                uint64_t head, whole = 0;
                pid_t pid = fork();

                g_assert_cmpint(pid, >=, 0);
                if (pid == 0) {
                        for (uint64_t n = 0;; n++) {
                                append(journal, 5, n);
                                if (n % 64 == 63) {
                                        journal_consume(journal, 64);
                                        g_usleep(round * 10);
                                }
                        }
                }
                g_usleep(2000 + round * 300);
                kill_and_reap(pid);

                map = map_file(f, &size);
                head = u64_at(map + OFFSET_HEAD);
                for (uint64_t s = u64_at(map + OFFSET_TAIL) + 1; s <= head; s++, whole++) {
                        struct journal_record record;

                        memcpy(&record, map + OFFSET_FIRST_RECORD + (s - 1) % records * 128, 128);
                        if (record.commit != s)
                                break;
                        assert_record(&record, 5, s - 1);
                }
                /* One producer: at most the last record is not whole. */
                g_assert_cmpuint(u64_at(map + OFFSET_TAIL) + whole + 1, >=, head);
                munmap(map, size);
        }
}

static void *produce_only(void *data)
{
        struct producer *p = data;
        const struct journal_record record = record_of(p->id, 1);

        for (uint64_t n = 0; n < p->n; n++)
                journal_append(p->journal, &record);
        return NULL;
}

/* A ring that was used before is filled once, by `threads`; the best of many. */
static void measure(struct fixture *f, unsigned threads)
{
        const uint32_t records = 65536;
        g_autoptr(K42Journal) journal = make(f, records);
        double best = G_MAXDOUBLE;

        for (unsigned round = 0; round < 50; round++) {
                struct producer p[PRODUCERS] = {0};
                int64_t begun = g_get_monotonic_time();

                for (unsigned i = 0; i < threads; i++) {
                        p[i].journal = journal;
                        p[i].n = records / threads;
                        g_assert_cmpint(pthread_create(&p[i].thread, NULL, produce_only, &p[i]), ==,
                                        0);
                }
                for (unsigned i = 0; i < threads; i++)
                        pthread_join(p[i].thread, NULL);
                best = MIN(best, (double)(g_get_monotonic_time() - begun) * 1000 / records);
                journal_consume(journal, records);
        }
        g_test_minimized_result(best, "%u thread(s): %.1f ns a record", threads, best);
}

static void test_measure(struct fixture *f, gconstpointer data)
{
        measure(f, 1);
        measure(f, 4);
}

#define ADD(name, data, fn)                                                                        \
        g_test_add("/journal/" name, struct fixture, data, fixture_set_up, fn, fixture_tear_down)

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        ADD("single", NULL, test_single);
        ADD("wrap", NULL, test_wrap);
        ADD("layout", NULL, test_layout);
        ADD("create", NULL, test_create);
        ADD("full-disk", NULL, test_full_disk);
        ADD("full-ring", NULL, test_full_ring);
        ADD("close", NULL, test_close);
        ADD("producers", GUINT_TO_POINTER(1024), test_producers);
        ADD("producers-small-ring", GUINT_TO_POINTER(8), test_producers);
        ADD("wait", NULL, test_wait);
        ADD("killed-producer", NULL, test_killed_producer);
        ADD("adopt", NULL, test_adopt);
        ADD("survives-kill", NULL, test_survives_kill);
        if (g_test_perf())
                ADD("measure", NULL, test_measure);
        return g_test_run();
}

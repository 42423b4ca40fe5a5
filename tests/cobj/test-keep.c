/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The heap that survives: what is in a record at any moment of a kill, damage, a full disk,
 * threads. posix_fallocate(), in its form for large files, is wrapped to play the full disk. */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cobj/keep.h"

int __real_posix_fallocate64(int fd, off_t offset, off_t size);
int __wrap_posix_fallocate64(int fd, off_t offset, off_t size);

static atomic_bool disk_full;

int __wrap_posix_fallocate64(int fd, off_t offset, off_t size)
{
        return disk_full ? ENOSPC : __real_posix_fallocate64(fd, offset, size);
}

struct fixture {
        char *dir;
        int dirfd;
};

static void set_up(struct fixture *f, const void *data G_GNUC_UNUSED)
{
        f->dir = g_dir_make_tmp("k42-keep-XXXXXX", NULL);
        g_assert_nonnull(f->dir);
        f->dirfd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        g_assert_cmpint(f->dirfd, >=, 0);
}

static void tear_down(struct fixture *f, const void *data G_GNUC_UNUSED)
{
        unlinkat(f->dirfd, "keep", 0);
        unlinkat(f->dirfd, "copy", 0);
        close(f->dirfd);
        g_assert_cmpint(g_rmdir(f->dir), ==, 0);
        g_free(f->dir);
}

static struct keep *create(struct fixture *f)
{
        struct keep *keep;

        g_assert_cmpint(keep_create(f->dirfd, "keep", &keep), ==, 0);
        return keep;
}

static struct keep *adopt(struct fixture *f, const char *name, uint32_t damaged_expected)
{
        struct keep *keep;
        uint32_t damaged;

        g_assert_cmpint(keep_adopt(f->dirfd, name, &keep, &damaged), ==, 0);
        g_assert_cmpuint(damaged, ==, damaged_expected);
        return keep;
}

static unsigned count(struct keep *keep, enum keep_type type)
{
        uint64_t cursor = 0;
        unsigned n = 0;

        while (keep_next(keep, type, &cursor, NULL))
                n++;
        return n;
}

static uint64_t in_use(struct keep *keep)
{
        struct keep_stats stats;

        keep_get_stats(keep, &stats);
        return stats.records;
}

static void test_comes_back(struct fixture *f, const void *data G_GNUC_UNUSED)
{
        static const size_t sizes[] = {0, 1, 48, 49, 112, 240, 241, 1000, 2047, KEEP_MAX};
        g_autoptr(K42Keep) keep = create(f);
        uint64_t cursor = 0;
        unsigned n = 0;
        size_t size;
        unsigned char *record;

        g_assert_null(keep_alloc(keep, KEEP_MAX + 1));
        for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
                record = keep_alloc(keep, sizes[i]);
                g_assert_true(keep_has(keep, record));
                g_assert_cmpuint((uintptr_t)record % 16, ==, 0);
                for (size_t j = 0; j < sizes[i]; j++)
                        g_assert_cmpuint(record[j], ==, 0);
                memset(record, (int)i + 1, sizes[i]);
                keep_commit(record, i % 2 ? KEEP_NODE : KEEP_LINK);
                (void)keep_alloc(keep, sizes[i]); /* never committed */
        }
        *keep_word(keep, KEEP_WORD_NODE_IDS) = 4242;
        g_assert_cmpuint(in_use(keep), ==, 2 * G_N_ELEMENTS(sizes));
        keep_close(g_steal_pointer(&keep));

        keep = adopt(f, "keep", 0);
        g_assert_cmpuint(*keep_word(keep, KEEP_WORD_NODE_IDS), ==, 4242);
        g_assert_cmpuint(in_use(keep), ==, G_N_ELEMENTS(sizes));
        g_assert_cmpuint(count(keep, KEEP_LINK), ==, 5);
        g_assert_cmpuint(count(keep, KEEP_CLIENT), ==, 0);
        while ((record = keep_next(keep, KEEP_NODE, &cursor, &size))) {
                const unsigned i = size == 48     ? 1
                                   : size == 112  ? 3
                                   : size == 240  ? 5
                                   : size == 1008 ? 7
                                                  : 9;

                g_assert_cmpuint(size, >=, sizes[i]);
                for (size_t j = 0; j < sizes[i]; j++)
                        g_assert_cmpuint(record[j], ==, i + 1);
                keep_free(keep, record); /* the walk goes on */
                n++;
        }
        g_assert_cmpuint(n, ==, 5);
        g_assert_cmpuint(in_use(keep), ==, 5);
}

/* Memory that was freed, or given out and not committed, is used again: no leak over many lives. */
static void test_no_leak(struct fixture *f, const void *data G_GNUC_UNUSED)
{
        g_autoptr(K42Keep) keep = create(f);
        struct keep_stats first = {0}, stats;

        for (unsigned life = 0; life < 20; life++) {
                void *records[2000];
                uint64_t cursor = 0;
                void *record;

                for (unsigned i = 0; i < G_N_ELEMENTS(records); i++) {
                        records[i] = keep_alloc(keep, 100);
                        if (i % 3)
                                keep_commit(records[i], KEEP_HANDLE);
                }
                for (unsigned i = 0; i < G_N_ELEMENTS(records); i += 4)
                        keep_free(keep, records[i]);
                keep_get_stats(keep, &stats);
                if (life == 0)
                        first = stats;
                g_assert_cmpuint(stats.bytes, ==, first.bytes);
                g_assert_cmpuint(stats.unkept, ==, 0);
                keep_close(g_steal_pointer(&keep));
                keep = adopt(f, "keep", 0);
                g_assert_cmpuint(count(keep, KEEP_HANDLE), ==, 1000);
                while ((record = keep_next(keep, KEEP_HANDLE, &cursor, NULL)))
                        keep_free(keep, record);
                g_assert_cmpuint(in_use(keep), ==, 0);
        }
}

static void test_without(struct fixture *f, const void *data G_GNUC_UNUSED)
{
        uint64_t cursor = 0;
        struct keep_stats stats;
        char *record = keep_alloc(NULL, 100);

        for (unsigned i = 0; i < 100; i++)
                g_assert_cmpint(record[i], ==, 0);
        g_assert_false(keep_has(NULL, record));
        keep_commit(record, KEEP_NODE);
        g_assert_null(keep_next(NULL, KEEP_NODE, &cursor, NULL));
        keep_free(NULL, record);
        keep_free(NULL, NULL);
        g_assert_null(keep_word(NULL, KEEP_WORD_NODE_IDS));
        keep_get_stats(NULL, &stats);
        g_assert_cmpuint(stats.records + stats.bytes + stats.unkept, ==, 0);
        keep_close(NULL);
}

static void test_full_disk(struct fixture *f, const void *data G_GNUC_UNUSED)
{
        g_autoptr(K42Keep) keep = create(f);
        struct keep_stats stats;
        void *records[300], *kept;

        kept = keep_alloc(keep, 1000);
        keep_commit(kept, KEEP_NODE);
        disk_full = true;
        g_test_expect_message(NULL, G_LOG_LEVEL_WARNING, "keep: no room*No space left*");
        for (unsigned i = 0; i < G_N_ELEMENTS(records); i++) {
                records[i] = keep_alloc(keep, 1000);
                g_assert_nonnull(records[i]);
                memset(records[i], 7, 1000);
                keep_commit(records[i], KEEP_NODE);
        }
        g_test_assert_expected_messages(); /* once */
        keep_get_stats(keep, &stats);
        g_assert_cmpuint(stats.records, ==, 63);
        g_assert_cmpuint(stats.unkept, ==, G_N_ELEMENTS(records) - 62);
        g_assert_cmpuint(count(keep, KEEP_NODE), ==, 63);
        for (unsigned i = 0; i < G_N_ELEMENTS(records); i++)
                keep_free(keep, records[i]);
        disk_full = false;
        keep_get_stats(keep, &stats);
        g_assert_cmpuint(stats.unkept, ==, 0);
        g_assert_cmpuint(stats.records, ==, 1);
        g_usleep(1100 * 1000); /* it does not ask the disk every time */
        for (unsigned i = 0; i < G_N_ELEMENTS(records); i++) {
                records[i] = keep_alloc(keep, 1000);
                g_assert_true(keep_has(keep, records[i]));
        }
        for (unsigned i = 0; i < G_N_ELEMENTS(records); i++)
                keep_free(keep, records[i]);
        keep_free(keep, kept);
}

static void test_head(struct fixture *f, const void *data G_GNUC_UNUSED)
{
        struct keep *keep = create(f);
        g_autofree char *path = g_build_filename(f->dir, "keep", NULL);
        uint32_t damaged, version = KEEP_VERSION + 1;
        int fd;

        keep_close(keep);
        fd = open(path, O_RDWR | O_CLOEXEC);
        g_assert_cmpint(pwrite(fd, &version, 4, 8), ==, 4);
        g_assert_cmpint(keep_adopt(f->dirfd, "keep", &keep, &damaged), ==, -EPROTO);
        version = KEEP_VERSION;
        g_assert_cmpint(pwrite(fd, &version, 4, 8), ==, 4);
        g_assert_cmpint(pwrite(fd, "X", 1, 3), ==, 1);
        g_assert_cmpint(keep_adopt(f->dirfd, "keep", &keep, &damaged), ==, -EBADMSG);
        g_assert_cmpint(ftruncate(fd, 10), ==, 0);
        g_assert_cmpint(keep_adopt(f->dirfd, "keep", &keep, &damaged), ==, -EBADMSG);
        g_assert_cmpint(ftruncate(fd, 0), ==, 0);
        g_assert_cmpint(keep_adopt(f->dirfd, "keep", &keep, &damaged), ==, -EBADMSG);
        close(fd);
        g_assert_cmpint(unlink(path), ==, 0);
        g_assert_cmpint(keep_adopt(f->dirfd, "keep", &keep, &damaged), ==, -ENOENT);
        g_assert_cmpint(symlink("/etc/passwd", path), ==, 0);
        g_assert_cmpint(keep_adopt(f->dirfd, "keep", &keep, &damaged), ==, -ELOOP);
}

/* Something in every size class; the numbers of a record are its own address in the file. */
static void fill(struct keep *keep, unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                uint64_t *record = keep_alloc(keep, 40 + 61 * i % 1800);

                record[0] = record[1] = record[2] = 0x1234567800000000 + i;
                keep_commit(record, KEEP_NODE);
        }
}

static void test_cut(struct fixture *f, const void *data G_GNUC_UNUSED)
{
        struct keep *keep = create(f);
        g_autofree char *path = g_build_filename(f->dir, "keep", NULL);
        struct stat st;
        uint32_t damaged, slabs;
        unsigned before, n;

        fill(keep, 1500);
        before = count(keep, KEEP_NODE);
        keep_close(keep);
        g_assert_cmpint(stat(path, &st), ==, 0);
        slabs = (uint32_t)(st.st_size / KEEP_SLAB);
        /* In the middle of a slab: that one and those behind are missing. */
        g_assert_cmpint(truncate(path, st.st_size / 2 - 1000), ==, 0);
        g_assert_cmpint(keep_adopt(f->dirfd, "keep", &keep, &damaged), ==, 0);
        g_assert_cmpuint(damaged, ==, slabs - (uint32_t)((st.st_size / 2 - 1000) / KEEP_SLAB));
        n = count(keep, KEEP_NODE);
        g_assert_cmpuint(n, >, 0);
        g_assert_cmpuint(n, <, before);
        fill(keep, 1500); /* grows over what was cut off */
        keep_close(keep);
        keep = adopt(f, "keep", 0);
        g_assert_cmpuint(count(keep, KEEP_NODE), ==, n + 1500);
        keep_close(keep);

        /* Made larger again: a hole, on a full disk. */
        g_assert_cmpint(truncate(path, KEEP_SLAB + KEEP_SLAB / 2), ==, 0);
        g_assert_cmpint(truncate(path, st.st_size), ==, 0);
        disk_full = true;
        g_assert_cmpint(keep_adopt(f->dirfd, "keep", &keep, &damaged), ==, 0);
        disk_full = false;
        g_assert_cmpuint(damaged, >=, slabs - 2);
        g_assert_cmpuint(count(keep, KEEP_NODE), ==, 0);
        fill(keep, 1500);
        keep_close(keep);
}

static void copy_keep(struct fixture *f)
{
        g_autofree char *from = g_build_filename(f->dir, "keep", NULL);
        g_autofree char *to = g_build_filename(f->dir, "copy", NULL);
        g_autofree char *contents = NULL;
        gsize size;

        g_assert_true(g_file_get_contents(from, &contents, &size, NULL));
        g_assert_true(g_file_set_contents_full(to, contents, (gssize)size, G_FILE_SET_CONTENTS_NONE,
                                               0600, NULL));
}

/* Bytes are flipped all over: nothing crashes, what still checks is there, and one can go on. */
static void test_damage(struct fixture *f, const void *data G_GNUC_UNUSED)
{
        struct keep *keep = create(f);
        g_autofree char *path = g_build_filename(f->dir, "copy", NULL);
        struct stat st;
        unsigned opened = 0;

        fill(keep, 800);
        for (unsigned round = 0; round < 200; round++) {
                struct keep *copy;
                uint32_t damaged;
                int fd, r;

                copy_keep(f);
                fd = open(path, O_RDWR | O_CLOEXEC);
                g_assert_cmpint(fstat(fd, &st), ==, 0);
                for (unsigned i = 0; i < 1 + round * 20; i++) {
                        const int32_t slabs = (int32_t)(st.st_size / KEEP_SLAB);
                        const off_t slab = (off_t)g_test_rand_int_range(0, slabs) * KEEP_SLAB;
                        const unsigned char byte = (unsigned char)g_test_rand_int();
                        off_t at = g_test_rand_int_range(0, KEEP_SLAB);

                        /* Most often where it hurts. */
                        if (i % 2)
                                at = i % 4 == 1 ? at % 256 : at / 64 * 64 + at % 16;
                        if (slab == 0 && round % 8)
                                continue;
                        g_assert_cmpint(pwrite(fd, &byte, 1, slab + at), ==, 1);
                }
                close(fd);
                r = keep_adopt(f->dirfd, "copy", &copy, &damaged);
                if (r < 0) {
                        g_assert_true(r == -EBADMSG || r == -EPROTO);
                        continue;
                }
                opened++;
                for (int type = 0; type < KEEP_TYPES; type++) {
                        uint64_t cursor = 0;
                        size_t size;
                        unsigned char *record;

                        while ((record = keep_next(copy, (enum keep_type)type, &cursor, &size))) {
                                g_assert_cmpuint(size, <=, 33 * 64);
                                memset(record, 1, size);
                                if (record[0] == cursor % 2)
                                        keep_free(copy, record);
                        }
                }
                fill(copy, 300);
                keep_close(copy);
        }
        g_assert_cmpuint(opened, >, 100);
        keep_close(keep);
}

#define LIVES 150

/* What a life that is killed does: makes records whole, changes and frees them, on two threads. */
struct busy {
        struct keep *keep;
        atomic_ulong *rounds; /* shared with the test */
};

static void *busy_thread(void *data)
{
        struct busy *busy = data;
        struct keep *keep = busy->keep;
        uint64_t *records[64] = {NULL};
        unsigned seed = (unsigned)(uintptr_t)&keep ^ (unsigned)getpid();

        for (uint64_t n = 1;; n++) {
                const unsigned i = (unsigned)rand_r(&seed) % G_N_ELEMENTS(records);
                const size_t size = 24 + (unsigned)rand_r(&seed) % 3 * 100;

                keep_free(keep, records[i]);
                records[i] = keep_alloc(keep, size);
                g_assert_nonnull(records[i]);
                for (size_t j = 0; j < size / 8; j++)
                        g_assert_cmpuint(records[i][j], ==, 0);
                for (size_t j = 0; j < size / 8; j++)
                        records[i][j] = n | (uint64_t)size << 48;
                keep_commit(records[i], KEEP_HANDLE);
                atomic_fetch_add(busy->rounds, 1);
        }
        return NULL;
}

/* Killed at any moment: every record that is seen is whole, and not one is lost to both sides. */
static void test_kill(struct fixture *f, const void *data G_GNUC_UNUSED)
{
        atomic_ulong *rounds = mmap(NULL, sizeof *rounds, PROT_READ | PROT_WRITE,
                                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        unsigned seen = 0;

        g_assert_true(rounds != MAP_FAILED);
        keep_close(create(f));
        for (unsigned life = 0; life < LIVES; life++) {
                g_autoptr(K42Keep) keep = adopt(f, "keep", 0);
                struct keep_stats stats;
                uint64_t cursor = 0, *record;
                size_t size;
                pid_t pid;
                int status;

                while ((record = keep_next(keep, KEEP_HANDLE, &cursor, &size))) {
                        const size_t said = record[0] >> 48;

                        g_assert_cmpuint(said, <=, size);
                        g_assert_cmpuint(said, >=, 24);
                        for (size_t j = 0; j < said / 8; j++)
                                g_assert_cmpuint(record[j], ==, record[0]);
                        keep_free(keep, record);
                        seen++;
                }
                keep_get_stats(keep, &stats);
                g_assert_cmpuint(stats.records, ==, 0);
                g_assert_cmpuint(stats.bytes, <=, 40 * KEEP_SLAB);
                atomic_store(rounds, 0);
                pid = fork();
                if (pid == 0) {
                        struct busy busy = {keep, rounds};
                        pthread_t thread;

                        if (pthread_create(&thread, NULL, busy_thread, &busy) == 0)
                                busy_thread(&busy);
                        _exit(1);
                }
                while (atomic_load(rounds) < 200)
                        g_usleep(100);
                g_usleep((gulong)g_test_rand_int_range(0, 3000));
                g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
                g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
                g_assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        }
        g_assert_cmpuint(seen, >, LIVES * 10);
        munmap(rounds, sizeof *rounds);
}

#define THREADS 8
#define ROUNDS  20000

static void *churn_thread(void *data)
{
        struct keep *keep = data;
        uint64_t *records[32] = {NULL};

        for (unsigned n = 0; n < ROUNDS; n++) {
                uint64_t **record = &records[n * 7 % G_N_ELEMENTS(records)];
                const uint64_t mine = (uintptr_t)&records ^ n;

                if (*record)
                        g_assert_cmpuint((*record)[0] ^ (*record)[1], ==, UINT64_MAX);
                keep_free(keep, *record);
                *record = keep_alloc(keep, n % 2 ? 100 : 200);
                g_assert_cmpuint((*record)[0] | (*record)[1], ==, 0);
                (*record)[0] = mine;
                (*record)[1] = ~mine;
                keep_commit(*record, KEEP_HANDLE);
        }
        for (unsigned i = 0; i < G_N_ELEMENTS(records); i++)
                keep_free(keep, records[i]);
        return NULL;
}

static void test_threads(struct fixture *f, const void *data G_GNUC_UNUSED)
{
        g_autoptr(K42Keep) keep = create(f);
        pthread_t threads[THREADS];

        for (unsigned i = 0; i < THREADS; i++)
                g_assert_cmpint(pthread_create(&threads[i], NULL, churn_thread, keep), ==, 0);
        for (unsigned i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
        g_assert_cmpuint(in_use(keep), ==, 0);
        g_assert_cmpuint(count(keep, KEEP_HANDLE), ==, 0);
        /* Each record is on one list once. */
        for (unsigned i = 0; i < 5000; i++) {
                uint64_t *record = keep_alloc(keep, 100);

                g_assert_cmpuint(record[0], ==, 0);
                record[0] = i + 1;
        }
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
#define ADD(name, fn) g_test_add(name, struct fixture, NULL, set_up, fn, tear_down)
        ADD("/keep/comes-back", test_comes_back);
        ADD("/keep/no-leak", test_no_leak);
        ADD("/keep/without", test_without);
        ADD("/keep/full-disk", test_full_disk);
        ADD("/keep/head", test_head);
        ADD("/keep/cut", test_cut);
        ADD("/keep/damage", test_damage);
        ADD("/keep/kill", test_kill);
        ADD("/keep/threads", test_threads);
        return g_test_run();
}

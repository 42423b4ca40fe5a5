/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The store when things go wrong: files that are not its own, a full disk, locks, removed files,
 * damage, no memory, kill -9.  Always: nothing is lost of what lives, nobody waits, no file of
 * somebody else is changed, and there is one line that says so.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "fixture.h"

static const struct fixture_config with_history = {.ring = 16384, .history = 10};
static const struct fixture_config small_ring = {.ring = 256};
static const struct fixture_config small_ring_history = {.ring = 256, .history = 2000};

static void count_row(const struct store_handle_row *row, void *data)
{
        (*(unsigned *)data)++;
}

static unsigned visible_rows(struct fixture *f)
{
        unsigned n = 0;

        g_assert_cmpint(store_foreach_open_handle(f->store, (uid_t)-1, count_row, &n), ==, 0);
        g_assert_cmpuint(store_rows(f->store), ==, n);
        return n;
}

static void assert_one_warning(struct fixture *f, const char *part)
{
        g_autofree char *last = NULL;
        unsigned n = warnings_taken(&last);

        if (n != 1 || !g_str_has_prefix(last, f->db_path) || !strstr(last, part) ||
            strchr(last, '\n'))
                g_error("%u warnings, the last one: %s", n, last ? last : "none");
}

/* The store goes on in memory, with all handles, old and new. */
static void assert_in_memory(struct fixture *f, unsigned handles, const char *why)
{
        xhandle token;

        g_assert_cmpuint(visible_rows(f), ==, handles);
        g_assert_cmpint(store_state(f->store), ==, STORE_MEMORY);
        assert_one_warning(f, why);
        token = give(f, 0, NULL, O_RDONLY, XHANDLE_NONE);
        count_read(f, token, 5);
        g_assert_cmpuint(visible_rows(f), ==, handles + 1);
        xobj_free(f->cobj, token);
        g_assert_cmpuint(visible_rows(f), ==, handles);
        g_assert_cmpuint(warnings_taken(NULL), ==, 0);
}

static GPtrArray *names_in(const char *path)
{
        GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
        GDir *dir = g_dir_open(path, 0, NULL);
        const char *name;

        while ((name = g_dir_read_name(dir)))
                g_ptr_array_add(names, g_strdup(name));
        g_dir_close(dir);
        return names;
}

/* store_open() on the file that is there fails so, and changes nothing. */
static void assert_refused(struct fixture *f, int r, const char *part)
{
        g_autoptr(GPtrArray) names_before = names_in(f->dir), names_after = NULL;
        g_autofree char *before = NULL, *after = NULL, *error = NULL;
        gsize size_before, size_after;
        struct stat st_before, st_after;

        g_assert_true(g_file_get_contents(f->db_path, &before, &size_before, NULL));
        g_assert_cmpint(stat(f->db_path, &st_before), ==, 0);
        g_assert_cmpint(fixture_open_store(f, &error), ==, r);
        g_assert_null(f->store);
        g_assert_nonnull(error);
        if (!g_str_has_prefix(error, f->db_path) || !strstr(error, part) || strchr(error, '\n'))
                g_error("the message is: %s", error);
        g_assert_true(g_file_get_contents(f->db_path, &after, &size_after, NULL));
        g_assert_cmpint(stat(f->db_path, &st_after), ==, 0);
        g_assert_cmpmem(before, size_before, after, size_after);
        g_assert_cmpint(st_before.st_mtim.tv_nsec, ==, st_after.st_mtim.tv_nsec);
        names_after = names_in(f->dir);
        g_assert_cmpuint(names_before->len, ==, names_after->len);
        g_assert_cmpuint(warnings_taken(NULL), ==, 0);
}

static void write_file(struct fixture *f, const void *bytes, size_t size)
{
        g_assert_true(g_file_set_contents(f->db_path, bytes, (gssize)size, NULL));
}

static void test_garbage(struct fixture *f, gconstpointer data)
{
        char garbage[10000];

        fixture_close_store(f);
        for (size_t i = 0; i < sizeof garbage; i++)
                garbage[i] = (char)(i * 7 + 1);
        write_file(f, garbage, sizeof garbage);
        assert_refused(f, -EBADMSG, ": not a k42fs state database: ");
        write_file(f, "short", 5);
        assert_refused(f, -EBADMSG, ": not a k42fs state database: ");
        write_file(f, "SQLite format 3", 16);
        assert_refused(f, -EBADMSG, ": not a k42fs state database: ");
}

static void test_not_a_file(struct fixture *f, gconstpointer data)
{
        g_autofree char *error = NULL, *error2 = NULL;

        fixture_close_store(f);
        g_assert_cmpint(unlink(f->db_path), ==, 0);
        g_assert_cmpint(mkdir(f->db_path, 0700), ==, 0);
        g_assert_cmpint(fixture_open_store(f, &error), ==, -EBADMSG);
        g_assert_nonnull(strstr(error, "not a regular file"));
        g_assert_cmpint(rmdir(f->db_path), ==, 0);
        g_assert_cmpint(mkfifo(f->db_path, 0600), ==, 0);
        g_assert_cmpint(fixture_open_store(f, &error2), ==, -EBADMSG);
        g_assert_nonnull(strstr(error2, "not a regular file"));
}

/* An empty file has nothing to lose. */
static void test_empty(struct fixture *f, gconstpointer data)
{
        g_autofree char *error = NULL;

        fixture_close_store(f);
        write_file(f, "", 0);
        g_assert_cmpint(fixture_open_store(f, &error), ==, 0);
        give(f, 0, NULL, O_RDONLY, XHANDLE_NONE);
        g_assert_cmpuint(visible_rows(f), ==, 1);
}

static void test_truncated(struct fixture *f, gconstpointer data)
{
        struct stat st;

        for (unsigned i = 0; i < 2000; i++)
                give(f, i, NULL, O_RDONLY, XHANDLE_NONE);
        fixture_close_store(f);
        g_assert_cmpint(stat(f->db_path, &st), ==, 0);
        g_assert_cmpint(st.st_size, >, 100000);
        g_assert_cmpint(truncate(f->db_path, 70000), ==, 0);
        assert_refused(f, -EBADMSG, ": not a k42fs state database: ");
        g_assert_cmpint(truncate(f->db_path, 1000), ==, 0);
        assert_refused(f, -EBADMSG, ": not a k42fs state database: ");
}

static void test_damaged(struct fixture *f, gconstpointer data)
{
        g_autofree char *bytes = NULL;
        gsize size;

        for (unsigned i = 0; i < 2000; i++)
                give(f, i, NULL, O_RDONLY, XHANDLE_NONE);
        fixture_close_store(f);
        g_assert_true(g_file_get_contents(f->db_path, &bytes, &size, NULL));
        memset(bytes + 8192, 0xa5, size - 8192);
        write_file(f, bytes, size);
        assert_refused(f, -EBADMSG, ": not a k42fs state database: ");
}

static void test_other_application(struct fixture *f, gconstpointer data)
{
        fixture_close_store(f);
        helper_run("sql", f->db_path, "PRAGMA application_id = 42; PRAGMA journal_mode = DELETE");
        assert_refused(f, -EBADMSG, "another application");
        g_assert_cmpint(query_int(f->db_path, "PRAGMA application_id"), ==, 42);
}

static void test_newer(struct fixture *f, gconstpointer data)
{
        fixture_close_store(f);
        helper_run("sql", f->db_path, "PRAGMA user_version = 2");
        assert_refused(f, -EPROTO, "newer");
        helper_run("sql", f->db_path, "PRAGMA user_version = 4000000000");
        helper_run("sql", f->db_path, "PRAGMA user_version = -1");
        assert_refused(f, -EPROTO, "newer");
}

/* An older one is ours to make anew. */
static void test_older(struct fixture *f, gconstpointer data)
{
        g_autofree char *error = NULL;

        fixture_close_store(f);
        helper_run("sql", f->db_path,
                   "PRAGMA user_version = 0; DROP VIEW open_handles; DROP TABLE handles;"
                   "CREATE TABLE handles (other); INSERT INTO handles VALUES (1)");
        g_assert_cmpint(fixture_open_store(f, &error), ==, 0);
        give(f, 0, NULL, O_RDONLY, XHANDLE_NONE);
        g_assert_cmpuint(visible_rows(f), ==, 1);
        g_assert_cmpint(query_int(f->db_path, "PRAGMA user_version"), ==, STORE_SCHEMA_VERSION);
}

static void test_no_directory(struct fixture *f, gconstpointer data)
{
        g_autofree char *error = NULL, *path = g_steal_pointer(&f->db_path);

        fixture_close_store(f);
        f->db_path = g_build_filename(f->dir, "none", "state.db", NULL);
        g_assert_cmpint(fixture_open_store(f, &error), ==, -ENOENT);
        g_assert_true(g_str_has_prefix(error, f->db_path));
        g_free(f->db_path);
        f->db_path = g_steal_pointer(&path);
}

/* A daemon that was killed leaves rows for others to see, and nothing in the way of the next. */
static void test_killed(struct fixture *f, gconstpointer data)
{
        const char *const args[] = {"die", f->db_path, "500", NULL};
        g_autofree char *wal = g_strconcat(f->db_path, "-wal", NULL), *error = NULL;
        int status;
        GPid pid;

        fixture_close_store(f);
        for (unsigned round = 0; round < 3; round++) {
                pid = helper_start(args);
                g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
                g_assert_true(WIFSIGNALED(status));
                g_assert_cmpint(access(wal, F_OK), ==, 0);
                if (round == 1)
                        g_assert_cmpint(query_int(f->db_path, "SELECT count(*) FROM open_handles"),
                                        ==, 500);
        }
        g_assert_cmpint(fixture_open_store(f, &error), ==, 0);
        g_assert_cmpuint(visible_rows(f), ==, 0);
        give(f, 0, NULL, O_RDONLY, XHANDLE_NONE);
        g_assert_cmpuint(visible_rows(f), ==, 1);
}

static void test_full_disk(struct fixture *f, gconstpointer data)
{
        g_autofree char *mnt = g_build_filename(f->dir, "small", NULL);
        g_autofree char *path = f->db_path, *error = NULL;
        const unsigned n = 20000;

        g_assert_cmpint(g_mkdir(mnt, 0700), ==, 0);
        if (mount("tmpfs", mnt, "tmpfs", 0, "size=1m") < 0) {
                g_test_skip("needs the right to mount a tmpfs");
                path = NULL;
                return;
        }
        fixture_close_store(f);
        f->db_path = g_build_filename(mnt, "state.db", NULL);
        g_assert_cmpint(fixture_open_store(f, &error), ==, 0);
        for (unsigned i = 0; i < n; i++)
                give(f, i, NULL, O_RDONLY, XHANDLE_NONE);
        assert_in_memory(f, n, "full");
        free_all_handles(f);
        fixture_close_store(f);
        umount2(mnt, MNT_DETACH);
}

/* Gives and frees while somebody holds the write lock; the longest single step, in µs. */
static int64_t busy_work(struct fixture *f, unsigned n, xhandle *ret_last)
{
        int64_t longest = 0;

        for (unsigned i = 0; i < n; i++) {
                int64_t begun = g_get_monotonic_time();
                xhandle token = give(f, i, NULL, O_RDONLY, XHANDLE_NONE);

                if (i % 2)
                        xobj_free(f->cobj, token);
                else
                        *ret_last = token;
                longest = MAX(longest, g_get_monotonic_time() - begun);
                g_usleep(i % 64 == 0 ? 1000 : 0);
        }
        return longest;
}

static void test_locked(struct fixture *f, gconstpointer data)
{
        const char *const lock[] = {"lock", f->db_path, "3000", NULL};
        int64_t begun, longest;
        xhandle early, last = XHANDLE_NONE;
        GPid pid;

        early = give(f, 7, NULL, O_RDWR, XHANDLE_NONE);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        pid = helper_start(lock);
        begun = g_get_monotonic_time();
        xobj_free(f->cobj, early);
        longest = busy_work(f, 300, &last); /* long before the lock is over, on a busy machine too */
        count_read(f, last, 77);
        g_test_message("longest step: %" G_GINT64_FORMAT " us", longest);
        g_assert_cmpint(longest, <, 1000000);
        g_assert_cmpint(query_int(f->db_path, "SELECT count(*) FROM open_handles"), ==, 1);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        g_assert_cmpint(g_get_monotonic_time() - begun, >=, 2500000);
        g_assert_cmpint(query_int(f->db_path, "SELECT count(*) FROM open_handles"), ==, 150);
        g_assert_cmpint(query_int(f->db_path, "SELECT sum(read_bytes) FROM open_handles"), ==, 77);
        g_assert_cmpint(
                query_int(f->db_path, "SELECT count(*) FROM open_handles WHERE path IS NULL"), ==,
                0);
        g_assert_cmpint(query_int(f->db_path, "SELECT count(*) FROM clients"), ==, 1);
        g_assert_cmpuint(visible_rows(f), ==, 150);
        g_assert_cmpint(store_state(f->store), ==, STORE_FILE);
        g_assert_cmpuint(warnings_taken(NULL), ==, 0);
        if (f->history) {
                /* The one that had a row has its path in the history, too. */
                g_assert_cmpuint(store_history_rows(f->store), ==, 151);
                g_assert_cmpint(query_int(f->db_path, "SELECT count(DISTINCT handle)"
                                                      " FROM handle_history"),
                                ==, 151);
                g_assert_cmpint(query_int(f->db_path, "SELECT count(*) FROM handle_history"
                                                      " WHERE path = '/dir/thing-7'"
                                                      " AND flags = 'O_RDWR'"),
                                ==, 1);
        }
        helper_wait(pid);
}

/* A lock for ever is given up on. */
static void test_locked_too_long(struct fixture *f, gconstpointer data)
{
        const char *const lock[] = {"lock", f->db_path, "20000", NULL};
        GPid pid = helper_start(lock);

        give(f, 0, NULL, O_RDONLY, XHANDLE_NONE);
        assert_in_memory(f, 1, "locked");
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
}

static void close_one(struct fixture *f, xhandle *token)
{
        xobj_free(f->cobj, *token);
        *token = XHANDLE_NONE;
}

static void test_removed(struct fixture *f, gconstpointer data)
{
        static const char *const suffixes[] = {"", "-wal", "-shm", NULL};
        xhandle first = give(f, 1, NULL, O_RDONLY, XHANDLE_NONE);

        give(f, 2, NULL, O_RDONLY, XHANDLE_NONE);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        close_one(f, &first);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        /* The file alone, the file with all that belongs to it, the WAL alone. */
        for (unsigned round = 0; round < 3; round++) {
                for (unsigned i = 0; i < 3; i++) {
                        g_autofree char *path = g_strconcat(f->db_path, suffixes[i], NULL);

                        if (round == 1 || i == (round == 2 ? 1 : 0))
                                g_assert_cmpint(unlink(path), ==, 0);
                }
                give(f, 3 + round, NULL, O_RDONLY, XHANDLE_NONE);
                g_assert_cmpint(store_sync(f->store), ==, 0);
                g_assert_cmpint(query_int(f->db_path, "SELECT count(*) FROM open_handles"), ==,
                                2 + round);
                g_assert_cmpint(query_int(f->db_path, "SELECT count(*) FROM handle_history"), ==,
                                1);
                g_assert_cmpint(query_int(f->db_path, "PRAGMA application_id"), ==, 0x6b343266);
                g_assert_cmpint(query_int(f->db_path, "PRAGMA user_version"), ==, 1);
                g_assert_cmpint(store_state(f->store), ==, STORE_FILE);
                assert_one_warning(f, "removed");
        }
}

static void test_replaced(struct fixture *f, gconstpointer data)
{
        g_autofree char *contents = NULL;
        gsize size;

        give(f, 1, NULL, O_RDONLY, XHANDLE_NONE);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        write_file(f, "somebody else's", 15); /* under another name, then renamed */
        give(f, 2, NULL, O_RDONLY, XHANDLE_NONE);
        assert_in_memory(f, 2, "another file");
        g_assert_true(g_file_get_contents(f->db_path, &contents, &size, NULL));
        g_assert_cmpmem(contents, size, "somebody else's", 15);
}

static void test_directory_removed(struct fixture *f, gconstpointer data)
{
        g_autofree char *moved = g_strconcat(f->dir, "-moved", NULL);

        give(f, 1, NULL, O_RDONLY, XHANDLE_NONE);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        g_assert_cmpint(rename(f->dir, moved), ==, 0);
        give(f, 2, NULL, O_RDONLY, XHANDLE_NONE);
        assert_in_memory(f, 2, "No such file");
        g_assert_cmpint(rename(moved, f->dir), ==, 0);
}

/* Somebody changed the tables. */
static void test_dropped(struct fixture *f, gconstpointer data)
{
        give(f, 1, NULL, O_RDONLY, XHANDLE_NONE);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        helper_run("sql", f->db_path, "DROP TABLE handles");
        give(f, 2, NULL, O_RDONLY, XHANDLE_NONE);
        assert_in_memory(f, 2, "no such table");
}

/* Damage while it is in use: more than the cache holds, then garbage over the file and its WAL. */
static void test_corrupt(struct fixture *f, gconstpointer data)
{
        g_autofree char *wal = g_strconcat(f->db_path, "-wal", NULL), *size = NULL, *last = NULL;
        const unsigned n = 30000;
        unsigned rows = 0;
        struct stat st;

        for (unsigned i = 0; i < n; i++)
                give(f, i, NULL, O_RDONLY, XHANDLE_NONE);
        g_assert_cmpuint(visible_rows(f), ==, n);
        g_assert_cmpint(stat(f->db_path, &st), ==, 0);
        size = g_strdup_printf("%ld", (long)st.st_size);
        helper_run("garbage", f->db_path, size);
        g_assert_cmpint(stat(wal, &st), ==, 0);
        g_free(size);
        size = g_strdup_printf("%ld", (long)st.st_size);
        helper_run("garbage", wal, size);
        /* Found out while the rows are read: that one fails, and the next is whole again. */
        store_foreach_open_handle(f->store, (uid_t)-1, count_row, &rows);
        give(f, 0, NULL, O_RDONLY, XHANDLE_NONE);
        g_assert_cmpuint(visible_rows(f), ==, n + 1);
        g_assert_cmpint(store_state(f->store), ==, STORE_MEMORY);
        g_assert_cmpuint(warnings_taken(&last), ==, 1);
        g_assert_nonnull(strstr(last, "in memory"));
}

/* No memory for the file's database, nor for one in memory; then there is again. */
static void test_no_memory(struct fixture *f, gconstpointer data)
{
        g_autofree char *last = NULL;
        xhandle first = give(f, 1, NULL, O_RDONLY, XHANDLE_NONE);

        g_assert_cmpint(store_sync(f->store), ==, 0);
        if (sqlite3_memory_used() == 0) {
                g_test_skip("this SQLite does not count its memory");
                return;
        }
        sqlite3_hard_heap_limit64(1);
        close_one(f, &first);
        for (unsigned i = 0; i < 40000; i++) /* more than the ring: nobody may wait for it */
                give(f, i, NULL, O_RDONLY, XHANDLE_NONE);
        g_assert_cmpint(store_sync(f->store), <, 0);
        g_assert_cmpint(store_state(f->store), ==, STORE_MEMORY);
        g_assert_cmpuint(store_rows(f->store), ==, 0);
        g_usleep(1500000); /* and once more in vain */
        g_assert_cmpuint(warnings_taken(&last), ==, 2);
        sqlite3_hard_heap_limit64(0);
        for (unsigned i = 0; i < 500 && store_sync(f->store) < 0; i++)
                g_usleep(10000);
        g_assert_cmpuint(visible_rows(f), ==, 40000);
        g_assert_cmpuint(warnings_taken(NULL), ==, 0);
}

/* Failures while threads are at work. */
struct churn {
        pthread_t thread;
        struct fixture *fixture;
        atomic_bool stop;
};

static void *churn(void *data)
{
        struct churn *c = data;
        xhandle held[16] = {0};

        for (unsigned i = 0; !atomic_load(&c->stop); i++) {
                xhandle *token = &held[i * 7 % G_N_ELEMENTS(held)];

                if (*token)
                        g_assert_true(xobj_free(c->fixture->cobj, *token));
                *token = *token ? XHANDLE_NONE : give(c->fixture, i, NULL, O_RDONLY, XHANDLE_NONE);
        }
        return NULL;
}

static void test_removed_under_load(struct fixture *f, gconstpointer data)
{
        struct churn churns[3] = {0};

        for (unsigned i = 0; i < G_N_ELEMENTS(churns); i++) {
                churns[i].fixture = f;
                g_assert_cmpint(pthread_create(&churns[i].thread, NULL, churn, &churns[i]), ==, 0);
        }
        for (unsigned round = 0; round < 5; round++) {
                g_usleep(30000);
                g_assert_cmpint(store_sync(f->store), ==, 0);
                unlink(f->db_path);
        }
        helper_run("sql", (store_sync(f->store), f->db_path), "DROP TABLE clients");
        g_usleep(30000);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        for (unsigned i = 0; i < G_N_ELEMENTS(churns); i++) {
                atomic_store(&churns[i].stop, true);
                pthread_join(churns[i].thread, NULL);
        }
        g_assert_cmpuint(visible_rows(f), ==, cobj_handle_count(f->cobj));
        g_assert_cmpint(store_state(f->store), ==, STORE_MEMORY);
}

#define ADD(name, config, fn)                                                                      \
        g_test_add("/store-failures/" name, struct fixture, config, fixture_set_up, fn,            \
                   fixture_tear_down)

int main(int argc, char **argv)
{
        fixture_init(&argc, &argv);
        ADD("garbage", NULL, test_garbage);
        ADD("not-a-file", NULL, test_not_a_file);
        ADD("empty", NULL, test_empty);
        ADD("truncated", NULL, test_truncated);
        ADD("damaged", NULL, test_damaged);
        ADD("other-application", NULL, test_other_application);
        ADD("newer", NULL, test_newer);
        ADD("older", NULL, test_older);
        ADD("no-directory", NULL, test_no_directory);
        ADD("killed", NULL, test_killed);
        ADD("full-disk", NULL, test_full_disk);
        ADD("locked", NULL, test_locked);
        ADD("locked-small-ring", &small_ring, test_locked);
        ADD("locked-small-ring-history", &small_ring_history, test_locked);
        ADD("locked-too-long", NULL, test_locked_too_long);
        ADD("removed", &with_history, test_removed);
        ADD("removed-under-load", NULL, test_removed_under_load);
        ADD("replaced", NULL, test_replaced);
        ADD("directory-removed", NULL, test_directory_removed);
        ADD("dropped", NULL, test_dropped);
        ADD("corrupt", NULL, test_corrupt);
        ADD("no-memory", NULL, test_no_memory);
        return g_test_run();
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The journal and the database of a daemon that was killed.
 *
 * Each life of a daemon is a process of its own, because SQLite must not be used on both sides of a
 * fork: the test itself never opens the database.  What one life has to tell the next and the test
 * is in a shared page.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cobj/keep.h"
#include "fixture.h"

#define RING   16384
#define THINGS 64

struct shared {
        xhandle tokens[THINGS];
        unsigned closed; /* with a history row */
};

struct test {
        char *dir, *db_path, *journal_path;
        int dirfd;
        struct shared *shared;
};

/* What a daemon has; `f` for the helpers of fixture.c. */
struct life {
        struct fixture f;
        struct keep *keep;
};

static void set_up(struct test *t, gconstpointer data)
{
        t->dir = g_dir_make_tmp("k42-takeover-XXXXXX", NULL);
        g_assert_nonnull(t->dir);
        t->dirfd = open(t->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        t->db_path = g_build_filename(t->dir, "state.db", NULL);
        t->journal_path = g_build_filename(t->dir, "journal", NULL);
        t->shared = mmap(NULL, sizeof *t->shared, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        g_assert_true(t->shared != MAP_FAILED);
}

static void tear_down(struct test *t, gconstpointer data)
{
        munmap(t->shared, sizeof *t->shared);
        close(t->dirfd);
        remove_tree(t->dir);
        g_free(t->dir);
        g_free(t->db_path);
        g_free(t->journal_path);
}

/* Runs a life in a process of its own; it must end by itself, or by its own SIGKILL. */
static void live(struct test *t, void (*fn)(struct test *t), bool killed)
{
        int status;
        pid_t pid = fork();

        g_assert_cmpint(pid, >=, 0);
        if (pid == 0) {
                fn(t);
                _exit(0);
        }
        g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
        if (killed)
                g_assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        else
                g_assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void resume_handles(struct life *life)
{
        struct client_table *clients = cobj_clients(life->f.cobj);
        struct kept_handle *kept;
        uint64_t cursor = 0;

        g_assert_cmpuint(client_table_resume(clients), ==, 0);
        while ((kept = keep_next(life->keep, KEEP_HANDLE, &cursor, NULL))) {
                g_autoptr(K42Client) client = client_table_resumed(clients, kept->client);
                struct client_data *data = calloc(1, sizeof *data);

                data->kept = kept;
                g_assert_nonnull(client);
                g_assert_cmpint(xobj_resume(life->f.cobj, &life->f.things[kept->description].object,
                                            client, data),
                                ==, 0);
        }
}

/* Everything up to store_resume(). */
static struct life *begin(struct test *t, bool resume)
{
        struct life *life = g_new0(struct life, 1);
        struct fixture *f = &life->f;
        struct cobj_observer observer;
        uint32_t damaged;

        f->dir = t->dir;
        f->dirfd = t->dirfd;
        f->db_path = t->db_path;
        f->history = 1000;
        f->resume = resume;
        f->n_things = THINGS;
        f->things = calloc(THINGS, sizeof *f->things);
        if (resume) {
                g_assert_cmpint(keep_adopt(t->dirfd, "keep", &life->keep, &damaged), ==, 0);
                g_assert_cmpint(journal_resume(t->dirfd, t->dir, "journal", RING, &f->journal), ==,
                                0);
        } else {
                g_assert_cmpint(keep_create(t->dirfd, "keep", &life->keep), ==, 0);
                g_assert_cmpint(journal_create(t->dirfd, "journal", RING, &f->journal), ==, 0);
        }
        store_observer_init(&observer, f->journal);
        g_assert_cmpint(cobj_new(&observer, life->keep, &f->cobj), ==, 0);
        fixture_init_things(f);
        return life;
}

static struct life *first_life(struct test *t)
{
        struct life *life = begin(t, false);
        g_autofree char *error = NULL;

        g_assert_cmpint(fixture_open_store(&life->f, &error), ==, 0);
        /* The test's process, which goes on living. */
        g_assert_cmpint(client_table_get(cobj_clients(life->f.cobj), getppid(), &life->f.self), ==,
                        0);
        return life;
}

static struct life *next_life(struct test *t)
{
        struct life *life = begin(t, true);
        g_autofree char *error = NULL;

        g_assert_cmpint(fixture_open_store(&life->f, &error), ==, 0);
        resume_handles(life);
        store_resume(life->f.store);
        client_table_settle(cobj_clients(life->f.cobj));
        g_assert_cmpint(client_table_get(cobj_clients(life->f.cobj), getppid(), &life->f.self), ==,
                        0);
        return life;
}

/* The rows are the handles that live, each with its path. */
static void assert_rows(struct test *t, struct life *life)
{
        g_autofree char *expected = NULL, *found = NULL;
        g_autoptr(GString) text = g_string_new(NULL);
        char buf[ID_STRING_MAX];

        g_assert_cmpint(store_sync(life->f.store), ==, 0);
        for (unsigned i = 0; i < THINGS; i++)
                if (t->shared->tokens[i])
                        g_string_append_printf(text, "%s%s|/dir/thing-%u|%d",
                                               text->len > 0 ? "\n" : "",
                                               id_format(t->shared->tokens[i], buf), i, getppid());
        found = query_text(t->db_path, "SELECT handle, path, pid FROM open_handles"
                                       " ORDER BY CAST(substr(path, 12) AS INTEGER)");
        g_assert_cmpstr(found, ==, text->str);
        g_assert_cmpuint(store_rows(life->f.store), ==, cobj_handle_count(life->f.cobj));
        g_assert_cmpint(query_int(t->db_path, "SELECT count(*) FROM clients WHERE NOT exited"), ==,
                        1);
}

static void open_some(struct test *t, struct life *life, unsigned from, unsigned to)
{
        for (unsigned i = from; i < to; i++) {
                t->shared->tokens[i] = give(&life->f, i, life->f.self, O_RDWR, XHANDLE_NONE);
                count_read(&life->f, t->shared->tokens[i], 10 * i);
        }
}

static void close_some(struct test *t, struct life *life, unsigned from, unsigned to)
{
        for (unsigned i = from; i < to; i++) {
                g_assert_true(xobj_free(life->f.cobj, t->shared->tokens[i]));
                t->shared->tokens[i] = 0;
                t->shared->closed++;
        }
}

/* With the number of rows that there have to be, and a path in each of them. */
static void assert_history(struct test *t, struct life *life)
{
        g_assert_cmpint(store_sync(life->f.store), ==, 0);
        g_assert_cmpint(query_int(t->db_path, "SELECT count(*) FROM handle_history"), ==,
                        t->shared->closed);
        g_assert_cmpint(query_int(t->db_path, "SELECT count(DISTINCT handle) FROM handle_history"),
                        ==, t->shared->closed);
        g_assert_cmpint(
                query_int(t->db_path, "SELECT count(*) FROM handle_history WHERE path IS NULL"), ==,
                0);
        g_assert_cmpint(store_history_rows(life->f.store), ==, t->shared->closed);
}

static void open_close_die(struct test *t)
{
        struct life *life = first_life(t);

        open_some(t, life, 0, 40);
        g_assert_cmpint(store_sync(life->f.store), ==, 0);
        open_some(t, life, 40, 50);
        close_some(t, life, 0, 7);
        raise(SIGKILL);
}

static void take_over(struct test *t)
{
        struct life *life = next_life(t);

        assert_rows(t, life);
        assert_history(t, life);
        g_assert_cmpint(query_int(t->db_path, "SELECT sum(reads) FROM open_handles"), ==, 43);
        g_assert_cmpint(query_int(t->db_path, "SELECT read_bytes FROM open_handles WHERE path ="
                                              " '/dir/thing-45'"),
                        ==, 450);
        g_assert_cmpint(query_int(t->db_path, "SELECT read_bytes FROM handle_history WHERE path ="
                                              " '/dir/thing-6'"),
                        ==, 60);
        g_assert_cmpint(query_int(t->db_path, "SELECT value FROM meta WHERE key = 'daemon_pid'"),
                        ==, getpid());
        /* It goes on. */
        open_some(t, life, 0, 5);
        close_some(t, life, 10, 20);
        assert_rows(t, life);
        assert_history(t, life);
        g_assert_cmpuint(warnings_taken(NULL), ==, 0);
}

static void take_over_and_die(struct test *t)
{
        take_over(t);
        raise(SIGKILL);
}

static void take_over_again(struct test *t)
{
        struct life *life = next_life(t);

        assert_rows(t, life);
        assert_history(t, life);
        store_close(life->f.store);
        g_assert_cmpuint(warnings_taken(NULL), ==, 0);
}

static void take_over_again_rows(struct test *t)
{
        struct life *life = next_life(t);

        assert_rows(t, life);
        store_close(life->f.store);
        g_assert_cmpuint(warnings_taken(NULL), ==, 0);
}

static void test_goes_on(struct test *t, gconstpointer data)
{
        live(t, open_close_die, true);
        live(t, take_over_and_die, true);
        live(t, take_over_again, false);
        live(t, take_over_again, false); /* after a clean end, as for an upgrade */
}

/* A database of a daemon that did not know the columns which were added since gets them, and keeps its rows. */
static void test_added_columns(struct test *t, gconstpointer data)
{
        live(t, open_close_die, true);
        helper_run("sql", t->db_path,
                   "DROP VIEW open_handles;"
                   "ALTER TABLE handles DROP COLUMN mappings; ALTER TABLE handle_history DROP COLUMN mappings;"
                   "ALTER TABLE handles DROP COLUMN mapped_bytes;"
                   "ALTER TABLE handle_history DROP COLUMN mapped_bytes;"
                   "ALTER TABLE handles DROP COLUMN counted_by;"
                   "ALTER TABLE handle_history DROP COLUMN counted_by;"
                   "CREATE VIEW open_handles AS SELECT token FROM handles");
        live(t, take_over_and_die, true);
        g_assert_cmpint(query_int(t->db_path, "SELECT count(*) FROM open_handles WHERE counted_by = 'daemon'"), >,
                        0);
        live(t, take_over_again, false);
}

/* The database or the journal is unusable: it is said, moved aside, and the rows are right. */
static const char *expected_warning;
static unsigned expected_history;

static void take_over_broken(struct test *t)
{
        struct life *life = next_life(t);
        g_autofree char *warning = NULL;

        t->shared->closed = expected_history;
        assert_rows(t, life);
        if (expected_history)
                assert_history(t, life);
        g_assert_cmpuint(warnings_taken(&warning), ==, expected_warning ? 1 : 0);
        if (expected_warning && !strstr(warning, expected_warning))
                g_error("the message is: %s", warning);
        g_assert_cmpint(store_state(life->f.store), ==, STORE_FILE);
        open_some(t, life, 0, 3);
        assert_rows(t, life);
        store_close(life->f.store);
}

static void damage(const char *path, off_t offset, size_t size)
{
        g_autofree char *bytes = g_malloc(size);
        int fd = open(path, O_WRONLY | O_CLOEXEC);

        memset(bytes, 0xa5, size);
        g_assert_cmpint(pwrite(fd, bytes, size, offset), ==, (ssize_t)size);
        close(fd);
}

/* Without WAL, so that what is in the file counts. */
static void checkpoint(struct test *t)
{
        sqlite3 *db = open_reader(t->db_path);

        g_assert_cmpint(sqlite3_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", NULL, NULL, NULL), ==,
                        SQLITE_OK);
        sqlite3_close(db);
}

static void test_database_broken(struct test *t, gconstpointer data)
{
        const char *how = data;
        g_autofree char *wal = g_strconcat(t->db_path, "-wal", NULL);
        g_autofree char *broken = g_strconcat(t->db_path, ".broken", NULL);

        live(t, open_close_die, true);
        expected_history = 0;
        expected_warning = ": is not used any more and was moved to ";
        if (strcmp(how, "removed") == 0) {
                g_assert_cmpint(unlink(t->db_path), ==, 0);
                unlink(wal);
                expected_warning = ": was removed, and made again";
        } else if (strcmp(how, "garbage") == 0) {
                g_assert_true(g_file_set_contents(t->db_path, "garbage", 7, NULL));
        } else if (strcmp(how, "foreign") == 0) {
                damage(t->db_path, 68, 4);
        } else if (strcmp(how, "newer") == 0) {
                live(t, checkpoint, false);
                damage(t->db_path, 60, 1);
        } else if (strcmp(how, "pages") == 0) {
                struct stat st;

                live(t, checkpoint, false);
                g_assert_cmpint(stat(t->db_path, &st), ==, 0);
                damage(t->db_path, 4096, (size_t)st.st_size - 4096);
        } else if (strcmp(how, "cut") == 0) {
                live(t, checkpoint, false);
                g_assert_cmpint(truncate(t->db_path, 5000), ==, 0);
        }
        live(t, take_over_broken, false);
        if (strcmp(how, "removed") != 0)
                g_assert_true(g_file_test(broken, G_FILE_TEST_EXISTS));
        live(t, take_over_again_rows, false);
}

static void test_journal_broken(struct test *t, gconstpointer data)
{
        const char *how = data;
        g_autofree char *broken = g_strconcat(t->journal_path, ".broken", NULL);
        uint32_t version = 99;
        int fd;

        live(t, open_close_die, true);
        /* The ends of handles are known by their rows alone. */
        expected_history = 7;
        expected_warning = "it is damaged";
        fd = open(t->journal_path, O_RDWR | O_CLOEXEC);
        if (strcmp(how, "removed") == 0) {
                unlink(t->journal_path);
                expected_warning = "No such file";
        } else if (strcmp(how, "garbage") == 0) {
                damage(t->journal_path, 0, 4096);
        } else if (strcmp(how, "cut") == 0) {
                g_assert_cmpint(ftruncate(fd, 8192), ==, 0);
        } else if (strcmp(how, "empty") == 0) {
                g_assert_cmpint(ftruncate(fd, 0), ==, 0);
        } else if (strcmp(how, "newer") == 0) {
                g_assert_cmpint(pwrite(fd, &version, 4, 8), ==, 4);
                expected_warning = "made by a newer k42fs";
        } else if (strcmp(how, "records") == 0) {
                expected_warning = NULL;
                expected_history = 0; /* not looked at: some of them are garbage */
                for (unsigned i = 0; i < 2000; i++) {
                        const uint32_t byte = (uint32_t)g_test_rand_int();

                        g_assert_cmpint(
                                pwrite(fd, &byte, 1, 4096 + g_test_rand_int_range(0, 300 * 128)),
                                ==, 1);
                }
        }
        close(fd);
        live(t, take_over_broken, false);
        g_assert_cmpint(g_file_test(broken, G_FILE_TEST_EXISTS), ==,
                        expected_warning && strcmp(how, "removed") != 0);
}

/* A handle whose end is in the journal, and whose record was not ended yet. */
static void die_before_the_end(struct test *t)
{
        struct life *life = first_life(t);
        g_autoptr(K42Xobj) xobj = NULL;
        struct journal_record record = {.type = JOURNAL_HANDLE_FREED};

        open_some(t, life, 0, 10);
        record.handle.handle = t->shared->tokens[3];
        record.handle.closed = g_get_real_time();
        journal_append(life->f.journal, &record);
        raise(SIGKILL);
}

static void test_end_taken_back(struct test *t, gconstpointer data)
{
        live(t, die_before_the_end, true);
        live(t, take_over_again, false);
}

/* Producers that died between reserving a record and committing it. */
static void die_in_append(struct test *t)
{
        struct life *life = first_life(t);

        open_some(t, life, 0, 10);
        g_assert_cmpint(store_sync(life->f.store), ==, 0);
        for (unsigned i = 0; i < 8; i++) {
                size_t size = 4096;
                uint8_t *map;
                int fd = open(t->journal_path, O_RDWR | O_CLOEXEC);

                map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
                g_assert_true(map != MAP_FAILED);
                atomic_fetch_add((_Atomic uint64_t *)(map + 64), 1);
                munmap(map, size);
                close(fd);
                close_some(t, life, i, i + 1);
        }
        raise(SIGKILL);
}

static void test_torn(struct test *t, gconstpointer data)
{
        live(t, die_in_append, true);
        live(t, take_over_again, false);
}

/* Killed at any moment, again and again: no end is lost and none is told twice. */
static void churn(struct test *t)
{
        struct life *life = t->shared->tokens[0] ? next_life(t) : first_life(t);
        unsigned seed = (unsigned)getpid();

        if (!t->shared->tokens[0]) {
                const xhandle first = give(&life->f, 0, life->f.self, O_RDWR, XHANDLE_NONE);

                /* Before that there is no state to take over. */
                g_assert_cmpint(store_sync(life->f.store), ==, 0);
                t->shared->tokens[0] = first;
        }
        for (;;) {
                const unsigned i = 1 + (unsigned)rand_r(&seed) % 20;

                if (t->shared->tokens[i]) {
                        const xhandle token = t->shared->tokens[i];

                        t->shared->tokens[i] = 0;
                        xobj_free(life->f.cobj, token);
                        t->shared->closed++;
                } else {
                        t->shared->tokens[i] =
                                give(&life->f, i, life->f.self, O_RDWR, XHANDLE_NONE);
                }
                if (rand_r(&seed) % 64 == 0)
                        g_usleep(1000);
        }
}

static void check_churn(struct test *t)
{
        struct life *life = next_life(t);
        char *warning;
        int64_t rows;

        g_assert_cmpint(store_sync(life->f.store), ==, 0);
        rows = query_int(t->db_path, "SELECT count(*) FROM handle_history");
        g_assert_cmpint(query_int(t->db_path, "SELECT count(DISTINCT handle) FROM handle_history"),
                        ==, rows);
        g_assert_cmpint(query_int(t->db_path, "SELECT count(*) FROM handles h JOIN handle_history o"
                                              " ON o.handle = (h.token & 4294967295) || '.' ||"
                                              " (h.token >> 32)"),
                        ==, 0);
        g_assert_cmpuint(store_rows(life->f.store), ==, cobj_handle_count(life->f.cobj));
        warnings_taken(&warning);
        g_assert_cmpstr(warning, ==, NULL);
        raise(SIGKILL);
}

static void test_churn(struct test *t, gconstpointer data)
{
        for (unsigned round = 0; round < 20; round++) {
                pid_t pid = fork();

                if (pid == 0) {
                        churn(t);
                        _exit(1);
                }
                while (!t->shared->tokens[0] && waitpid(pid, NULL, WNOHANG) == 0)
                        g_usleep(1000);
                g_usleep((gulong)g_test_rand_int_range(20000, 300000));
                g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
                g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
                live(t, check_churn, true);
                /* A handle whose end was under way may have come back. */
                for (unsigned i = 1; i < THINGS; i++)
                        t->shared->tokens[i] = 0;
        }
}

/* Closed before it was resumed: nothing is touched, the next one finds everything. */
static void give_up(struct test *t)
{
        struct life *life = begin(t, true);
        g_autofree char *error = NULL;

        g_assert_cmpint(fixture_open_store(&life->f, &error), ==, 0);
        store_close(life->f.store);
        g_assert_cmpuint(journal_pending(life->f.journal), >, 0);
}

static void test_given_up(struct test *t, gconstpointer data)
{
        live(t, open_close_die, true);
        live(t, give_up, false);
        live(t, take_over, false);
}

int main(int argc, char **argv)
{
        static const char *const broken[] = {"removed", "garbage", "foreign",
                                             "newer",   "pages",   "cut"};
        static const char *const broken_journals[] = {"removed", "garbage", "cut",
                                                      "empty",   "newer",   "records"};

        fixture_init(&argc, &argv);
#define ADD(name, data, fn) g_test_add(name, struct test, data, set_up, fn, tear_down)
        ADD("/takeover/goes-on", NULL, test_goes_on);
        ADD("/takeover/added-columns", NULL, test_added_columns);
        for (unsigned i = 0; i < G_N_ELEMENTS(broken); i++) {
                g_autofree char *name = g_strconcat("/takeover/database/", broken[i], NULL);

                ADD(name, broken[i], test_database_broken);
        }
        for (unsigned i = 0; i < G_N_ELEMENTS(broken_journals); i++) {
                g_autofree char *name = g_strconcat("/takeover/journal/", broken_journals[i], NULL);

                ADD(name, broken_journals[i], test_journal_broken);
        }
        ADD("/takeover/end-taken-back", NULL, test_end_taken_back);
        ADD("/takeover/torn", NULL, test_torn);
        ADD("/takeover/given-up", NULL, test_given_up);
        ADD("/takeover/churn", NULL, test_churn);
        return g_test_run();
}

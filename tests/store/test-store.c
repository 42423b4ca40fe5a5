/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The store when all goes well: what is in the tables equals what the handles are.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cobj/store_private.h"
#include "fixture.h"

/* The contract: columns of the view, in order. */
#define CONTRACT_COLUMNS                                                                           \
        "handle\nparent\npid\nppid\nuid\ncomm\nexe\npath\ntype\nflags\nrights\nclass\nsharing\n"   \
        "opened\nreads\nread_bytes\nwrites\nwrite_bytes\nmappings\nmapped_bytes\ncounted_by"

static const struct fixture_config small_ring = {.ring = 64};
static const struct fixture_config with_history = {.ring = 16384, .history = 10};

static void test_columns(struct fixture *f, gconstpointer data)
{
        g_autofree char *view =
                query_text(f->db_path, "SELECT name FROM pragma_table_info('open_handles')");
        g_autofree char *history =
                query_text(f->db_path, "SELECT name FROM pragma_table_info('handle_history')"
                                       " WHERE name NOT IN ('seq', 'closed')");
        g_autofree char *meta =
                query_text(f->db_path, "SELECT key, value FROM meta WHERE key IN"
                                       " ('mountpoint', 'source', 'history') ORDER BY key");

        g_assert_cmpstr(view, ==, CONTRACT_COLUMNS);
        g_assert_cmpstr(history, ==, CONTRACT_COLUMNS);
        g_assert_cmpstr(meta, ==, "history|0\nmountpoint|/mnt/point\nsource|/the/source");
        g_assert_cmpint(query_int(f->db_path, "PRAGMA application_id"), ==, 0x6b343266);
        g_assert_cmpint(query_int(f->db_path, "PRAGMA user_version"), ==, STORE_SCHEMA_VERSION);
        g_assert_cmpint(store_state(f->store), ==, STORE_FILE);
}

static void test_values(struct fixture *f, gconstpointer data)
{
        xhandle file = give(f, 1, NULL, O_RDWR | O_APPEND | O_CLOEXEC, XHANDLE_NONE);
        xhandle child = give(f, 2, NULL, O_RDONLY | O_DIRECTORY | O_NONBLOCK, file);
        char file_id[ID_STRING_MAX], child_id[ID_STRING_MAX];
        g_autofree char *comm = client_dup_comm(f->self), *exe = client_dup_exe(f->self);
        g_autofree char *expected = NULL, *rows = NULL, *clients = NULL;
        struct stat st;

        count_read(f, file, 100);
        count_read(f, file, 23);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        id_format(file, file_id);
        id_format(child, child_id);
        expected = g_strdup_printf("%s|NULL|%d|%d|%u|%s|%s|/dir/thing-1|FILE|O_RDWR|O_APPEND|rwdc|"
                                   "counted|non_shared|2|123|0|0\n"
                                   "%s|%s|%d|%d|%u|%s|%s|/dir/thing-2|DIR|"
                                   "O_RDONLY|O_NONBLOCK|O_DIRECTORY|rdc|counted|lazy_init|0|0|0|0",
                                   file_id, getpid(), getppid(), getuid(), comm, exe, child_id,
                                   file_id, getpid(), getppid(), getuid(), comm, exe);
        rows = query_text(f->db_path,
                          "SELECT handle, parent, pid, ppid, uid, comm, exe, path, type, flags,"
                          " rights, class, sharing, reads, read_bytes, writes, write_bytes"
                          " FROM open_handles ORDER BY path");
        g_assert_cmpstr(rows, ==, expected);
        g_assert_cmpint(query_int(f->db_path, "SELECT count(*) FROM open_handles WHERE"
                                              " abs(opened - unixepoch()) < 60"),
                        ==, 2);
        g_assert_cmpuint(store_rows(f->store), ==, 2);
        g_assert_cmpint(stat(f->db_path, &st), ==, 0);
        g_assert_cmpuint(st.st_mode & 0777, ==, 0600);

        xobj_free(f->cobj, file);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        g_assert_cmpuint(store_rows(f->store), ==, 1);
        g_assert_cmpint(query_int(f->db_path, "SELECT count(*) FROM open_handles"), ==, 1);
        clients = query_text(f->db_path, "SELECT pid, uid, exited FROM clients");
        g_free(expected);
        expected = g_strdup_printf("%d|%u|0", getpid(), getuid());
        g_assert_cmpstr(clients, ==, expected);
}

/* A large generation makes the token a negative number in SQL. */
static void test_ids(struct fixture *f, gconstpointer data)
{
        const uint64_t tokens[] = {ID_MAKE(1, 1), ID_MAKE(UINT32_MAX, 7),
                                   ID_MAKE(0x80000000u, UINT32_MAX)};

        for (unsigned i = 0; i < G_N_ELEMENTS(tokens); i++) {
                g_autofree char *sql = g_strdup_printf(
                        "INSERT INTO handles (token, parent) VALUES (%" G_GINT64_FORMAT
                        ", %" G_GINT64_FORMAT ")",
                        (gint64)tokens[i], (gint64)tokens[i]);
                g_autofree char *row = NULL, *expected = NULL;
                char id[ID_STRING_MAX];

                helper_run("sql", f->db_path, sql);
                id_format(tokens[i], id);
                expected = g_strdup_printf("%s|%s", id, id);
                row = query_text(f->db_path, "SELECT handle, parent FROM open_handles");
                g_assert_cmpstr(row, ==, expected);
                helper_run("sql", f->db_path, "DELETE FROM handles");
        }
}

static void test_changes(struct fixture *f, gconstpointer data)
{
        xhandle token = give(f, 1, NULL, O_RDWR, XHANDLE_NONE);
        g_autofree char *before = NULL, *after = NULL;
        g_autoptr(K42Xobj) xobj = cobj_get_xobj(f->cobj, token);

        g_assert_cmpint(store_sync(f->store), ==, 0);
        before = query_text(f->db_path, "SELECT path, rights, sharing FROM open_handles");
        g_assert_cmpstr(before, ==, "/dir/thing-1|rwdc|non_shared");

        g_free(f->things[1].path); /* nobody marks a handle when a directory above is renamed */
        f->things[1].path = g_strdup("/elsewhere");
        g_assert_cmpint(xobj_restrict(xobj, RIGHT_READ, RIGHTS_NONE), ==, 0);
        atomic_store(&xobj_client_data(xobj)->kept->sharing, SHARING_SHARED);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        after = query_text(f->db_path, "SELECT path, rights, sharing FROM open_handles");
        g_assert_cmpstr(after, ==, "/elsewhere|r|shared");
}

/* Names are bytes. */
static void test_bytes(struct fixture *f, gconstpointer data)
{
        g_autofree char *hex = NULL;

        g_free(f->things[3].path);
        f->things[3].path = g_strdup("/\xff\xfe\xc3(|'\n");
        give(f, 3, NULL, O_WRONLY, XHANDLE_NONE);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        hex = query_text(f->db_path, "SELECT hex(path) FROM open_handles");
        g_assert_cmpstr(hex, ==, "2FFFFEC3287C270A");
}

static int64_t wal_size(struct fixture *f)
{
        g_autofree char *wal = g_strconcat(f->db_path, "-wal", NULL);
        struct stat st;

        return stat(wal, &st) == 0 ? st.st_size : 0;
}

/* What comes and goes within a batch writes nothing at all. */
static void test_cancel(struct fixture *f, gconstpointer data)
{
        const char *const lock[] = {"lock", f->db_path, "600", NULL};
        xhandle stays = give(f, 0, NULL, O_RDONLY, XHANDLE_NONE);
        int64_t before;
        GPid pid;

        g_assert_cmpint(store_sync(f->store), ==, 0);
        before = wal_size(f);
        g_assert_cmpint(before, >, 0);
        pid = helper_start(lock); /* so that all of it becomes one batch, however slow we are */
        for (unsigned i = 0; i < 1000; i++)
                xobj_free(f->cobj, give(f, i, NULL, O_RDONLY, stays));
        g_assert_cmpuint(journal_pending(f->journal), ==, 2000);
        helper_wait(pid);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        g_assert_cmpuint(journal_pending(f->journal), ==, 0);
        g_assert_cmpuint(store_rows(f->store), ==, 1);
        g_assert_cmpint(wal_size(f), ==, before);
}

/* Rows come without a sync, too. */
static void test_by_itself(struct fixture *f, gconstpointer data)
{
        give(f, 0, NULL, O_RDONLY, XHANDLE_NONE);
        for (unsigned i = 0; i < 500 && store_rows(f->store) == 0; i++)
                g_usleep(10000);
        g_assert_cmpint(query_int(f->db_path, "SELECT count(*) FROM open_handles"), ==, 1);
}

/* With nothing to do, nothing is done. */
static void test_idle(struct fixture *f, gconstpointer data)
{
        struct timespec before, after;
        int64_t used;

        give(f, 0, NULL, O_RDONLY, XHANDLE_NONE);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        g_usleep(300000);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
        g_usleep(500000);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
        used = (after.tv_sec - before.tv_sec) * G_USEC_PER_SEC +
               (after.tv_nsec - before.tv_nsec) / 1000;
        g_assert_cmpint(used, <, 50000);
}

static void test_history(struct fixture *f, gconstpointer data)
{
        g_autofree char *rows = NULL, *gone = NULL, *pids = NULL, *expected = NULL;
        g_autofree char *comm = client_dup_comm(f->self);
        xhandle tokens[25];

        for (unsigned i = 0; i < 25; i++)
                tokens[i] = give(f, i, NULL, O_RDONLY, XHANDLE_NONE);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        g_assert_cmpuint(store_history_rows(f->store), ==, 0);
        for (unsigned i = 0; i < 25; i++) {
                count_read(f, tokens[i], i);
                xobj_free(f->cobj, tokens[i]);
        }
        g_assert_cmpint(store_sync(f->store), ==, 0);
        g_assert_cmpuint(store_history_rows(f->store), ==, 10);
        rows = query_text(f->db_path, "SELECT group_concat(path, ' ') FROM"
                                      " (SELECT path FROM handle_history ORDER BY seq)");
        g_assert_cmpstr(rows, ==,
                        "/dir/thing-15 /dir/thing-16 /dir/thing-17 /dir/thing-18 "
                        "/dir/thing-19 /dir/thing-20 /dir/thing-21 /dir/thing-22 "
                        "/dir/thing-23 /dir/thing-24");
        g_assert_cmpint(query_int(f->db_path, "SELECT sum(read_bytes) FROM handle_history"), ==,
                        (15 + 24) * 10 / 2);
        g_assert_cmpint(
                query_int(f->db_path, "SELECT count(*) FROM handle_history WHERE closed >= opened"),
                ==, 10);
        g_assert_cmpint(query_int(f->db_path, "SELECT count(*) FROM open_handles"), ==, 0);

        /* One that was gone before it could get a row. */
        for (unsigned i = 0; i < 3; i++)
                xobj_free(f->cobj, give(f, i, NULL, O_WRONLY, tokens[0]));
        g_assert_cmpint(store_sync(f->store), ==, 0);
        g_assert_cmpuint(store_history_rows(f->store), ==, 10);
        gone = query_text(f->db_path, "SELECT DISTINCT path, flags, rights, class, sharing, type"
                                      " FROM handle_history WHERE parent IS NOT NULL");
        g_assert_cmpstr(gone, ==, "NULL|O_WRONLY|wdc|counted|lazy_init|FILE");
        pids = query_text(f->db_path, "SELECT DISTINCT pid, comm FROM handle_history");
        expected = g_strdup_printf("%d|%s", getpid(), comm);
        g_assert_cmpstr(pids, ==, expected);
}

struct seen {
        GString *text;
        unsigned n;
        double last_opened;
};

static void see_row(const struct store_handle_row *row, void *data)
{
        struct seen *seen = data;

        g_assert_cmpfloat(row->opened, >=, seen->last_opened);
        seen->last_opened = row->opened;
        seen->n++;
        g_string_append_printf(seen->text, "%s %s %u %u %s %s %s %s %s %s %u\n", row->handle,
                               row->parent ? row->parent : "-", (unsigned)row->pid,
                               (unsigned)row->uid, row->path, row->type, row->flags, row->rights,
                               row->io_class, row->sharing, (unsigned)row->reads);
}

/* Counts the rows; each is whole, and closed after the one before it. */
static void see_closed(const struct store_handle_row *row, void *data)
{
        struct seen *seen = data;

        g_assert_cmpfloat(row->closed, >=, row->opened);
        g_assert_cmpfloat(row->closed, >=, seen->last_opened);
        g_assert_nonnull(row->handle);
        seen->last_opened = row->closed;
        seen->n++;
}

static void test_foreach_closed(struct fixture *f, gconstpointer data)
{
        struct seen seen = {0};
        xhandle a = give(f, 1, NULL, O_RDONLY, XHANDLE_NONE), b = give(f, 2, NULL, O_RDWR, a);

        give(f, 3, NULL, O_RDONLY, XHANDLE_NONE); /* stays open */
        xobj_free(f->cobj, b);
        xobj_free(f->cobj, a);
        g_assert_cmpint(store_foreach_closed_handle(f->store, (uid_t)-1, see_closed, &seen), ==, 0);
        g_assert_cmpuint(seen.n, ==, 2);
        seen.last_opened = 0;
        g_assert_cmpint(store_foreach_closed_handle(f->store, getuid(), see_closed, &seen), ==, 0);
        g_assert_cmpuint(seen.n, ==, 4);
        g_assert_cmpint(store_foreach_closed_handle(f->store, getuid() + 1, see_closed, &seen), ==,
                        0);
        g_assert_cmpuint(seen.n, ==, 4);
}

static struct client *client_of_user(struct fixture *f, uid_t uid, pid_t *ret_pid)
{
        struct client *client = NULL;
        int ready[2];
        char byte;
        pid_t pid;

        g_assert_cmpint(pipe2(ready, O_CLOEXEC), ==, 0);
        pid = fork();
        if (pid == 0) {
                if (setuid(uid) < 0 || write(ready[1], ".", 1) != 1)
                        _exit(1);
                for (;;)
                        pause();
        }
        close(ready[1]);
        g_assert_cmpint(read(ready[0], &byte, 1), ==, 1);
        close(ready[0]);
        g_assert_cmpint(client_table_get(cobj_clients(f->cobj), pid, &client), ==, 0);
        *ret_pid = pid;
        return client;
}

static void test_foreach(struct fixture *f, gconstpointer data)
{
        struct seen seen = {.text = g_string_new(NULL)};
        xhandle a = give(f, 1, NULL, O_RDONLY, XHANDLE_NONE), b = give(f, 2, NULL, O_RDWR, a);
        char id_a[ID_STRING_MAX], id_b[ID_STRING_MAX];
        g_autofree char *expected = NULL;

        count_read(f, b, 1); /* implies a sync */
        g_assert_cmpint(store_foreach_open_handle(f->store, (uid_t)-1, see_row, &seen), ==, 0);
        id_format(a, id_a);
        id_format(b, id_b);
        expected =
                g_strdup_printf("%s - %d %u /dir/thing-1 FILE O_RDONLY rdc counted non_shared 0\n"
                                "%s %s %d %u /dir/thing-2 FILE O_RDWR rwdc counted lazy_init 1\n",
                                id_a, getpid(), getuid(), id_b, id_a, getpid(), getuid());
        g_assert_cmpstr(seen.text->str, ==, expected);
        seen = (struct seen){.text = g_string_truncate(seen.text, 0)};
        g_assert_cmpint(store_foreach_open_handle(f->store, getuid(), see_row, &seen), ==, 0);
        g_assert_cmpuint(seen.n, ==, 2);
        seen = (struct seen){.text = seen.text};
        g_assert_cmpint(store_foreach_open_handle(f->store, getuid() + 1, see_row, &seen), ==, 0);
        g_assert_cmpuint(seen.n, ==, 0);
        g_string_free(seen.text, TRUE);
}

static void test_users(struct fixture *f, gconstpointer data)
{
        struct seen seen = {.text = g_string_new(NULL)};
        g_autoptr(K42Client) other = NULL;
        pid_t pid;

        if (geteuid() != 0) {
                g_test_skip("needs root to be another user");
                g_string_free(seen.text, TRUE);
                return;
        }
        other = client_of_user(f, 12345, &pid);
        give(f, 1, NULL, O_RDONLY, XHANDLE_NONE);
        give(f, 2, other, O_RDONLY, XHANDLE_NONE);
        give(f, 3, other, O_RDONLY, XHANDLE_NONE);
        g_assert_cmpint(store_foreach_open_handle(f->store, 12345, see_row, &seen), ==, 0);
        g_assert_cmpuint(seen.n, ==, 2);
        seen = (struct seen){.text = seen.text};
        g_assert_cmpint(store_foreach_open_handle(f->store, 0, see_row, &seen), ==, 0);
        g_assert_cmpuint(seen.n, ==, 1);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        g_string_free(seen.text, TRUE);
}

/* Clients have a row from first sight until their process and their last handle are gone. */
static void test_clients(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Client) child = NULL;
        g_autofree char *sql = NULL;
        xhandle token;
        pid_t pid;

        child = client_of_user(f, getuid(), &pid);
        token = give(f, 1, child, O_RDONLY, XHANDLE_NONE);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        sql = g_strdup_printf("SELECT exited FROM clients WHERE pid = %d", pid);
        g_assert_cmpint(query_int(f->db_path, sql), ==, 0);
        g_assert_cmpint(query_int(f->db_path, "SELECT count(*) FROM clients"), ==, 2);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        for (unsigned i = 0; i < 500 && client_alive(child); i++)
                g_usleep(10000);
        g_assert_false(client_alive(child));
        xobj_free(f->cobj, token); /* a no-op when the client's end did it */
        for (unsigned i = 0; i < 500; i++) {
                g_assert_cmpint(store_sync(f->store), ==, 0);
                if (query_int(f->db_path, "SELECT count(*) FROM clients") == 1)
                        break;
                g_usleep(10000);
        }
        g_assert_cmpint(query_int(f->db_path, "SELECT count(*) FROM clients"), ==, 1);
}

#define WORKERS 4
#define ROUNDS  3000

struct worker {
        pthread_t thread;
        struct fixture *fixture;
        GRand *rand;
        xhandle held[32];
};

static void *work(void *data)
{
        struct worker *w = data;

        for (unsigned i = 0; i < ROUNDS; i++) {
                unsigned at = (unsigned)g_rand_int_range(w->rand, 0, G_N_ELEMENTS(w->held));

                if (!w->held[at]) {
                        w->held[at] = give(w->fixture, at, NULL, O_RDWR, XHANDLE_NONE);
                } else if (g_rand_boolean(w->rand)) {
                        count_read(w->fixture, w->held[at], at);
                } else {
                        g_assert_true(xobj_free(w->fixture->cobj, w->held[at]));
                        w->held[at] = XHANDLE_NONE;
                }
        }
        return NULL;
}

static void truth_of(struct xobj *xobj, void *data)
{
        struct client_data *d = xobj_client_data(xobj);
        char id[ID_STRING_MAX];

        g_ptr_array_add(data, g_strdup_printf("%s|%u|%u", id_format(xobj_token(xobj), id),
                                              (unsigned)d->kept->reads, (unsigned)d->kept->read_bytes));
}

static int compare_strings(const void *a, const void *b)
{
        return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Whatever the threads do, a sync makes the rows equal to the handles. */
static void test_exact(struct fixture *f, gconstpointer data)
{
        struct worker workers[WORKERS] = {0};

        for (unsigned round = 0; round < 3; round++) {
                g_autoptr(GPtrArray) truth = g_ptr_array_new_with_free_func(g_free);
                g_autofree char *expected = NULL, *rows = NULL;

                for (unsigned i = 0; i < WORKERS; i++) {
                        workers[i].fixture = f;
                        workers[i].rand = g_rand_new_with_seed(round * WORKERS + i);
                        g_assert_cmpint(pthread_create(&workers[i].thread, NULL, work, &workers[i]),
                                        ==, 0);
                }
                for (unsigned i = 0; i < 20; i++)
                        g_assert_cmpint(store_sync(f->store), ==, 0);
                for (unsigned i = 0; i < WORKERS; i++) {
                        pthread_join(workers[i].thread, NULL);
                        g_rand_free(workers[i].rand);
                }
                g_assert_cmpint(store_sync(f->store), ==, 0);
                cobj_foreach_handle(f->cobj, truth_of, truth);
                g_ptr_array_sort(truth, compare_strings);
                g_assert_cmpuint(truth->len, >, 0);
                g_assert_cmpuint(store_rows(f->store), ==, truth->len);
                g_ptr_array_add(truth, NULL);
                expected = g_strjoinv("\n", (char **)truth->pdata);
                rows = query_text(f->db_path, "SELECT handle, reads, read_bytes FROM open_handles"
                                              " ORDER BY handle || '|'");
                g_assert_cmpstr(rows, ==, expected);
        }
        g_assert_cmpint(store_state(f->store), ==, STORE_FILE);
        g_assert_cmpuint(warnings_taken(NULL), ==, 0);
}

static void *sync_often(void *data)
{
        struct worker *w = data;

        for (unsigned i = 0; i < 100; i++)
                g_assert_cmpint(store_sync(w->fixture->store), ==, 0);
        return NULL;
}

/* Many callers at once all get their answer. */
static void test_many_syncs(struct fixture *f, gconstpointer data)
{
        struct worker workers[WORKERS] = {0};

        give(f, 0, NULL, O_RDONLY, XHANDLE_NONE);
        for (unsigned i = 0; i < WORKERS; i++) {
                workers[i].fixture = f;
                g_assert_cmpint(pthread_create(&workers[i].thread, NULL, sync_often, &workers[i]),
                                ==, 0);
        }
        for (unsigned i = 0; i < WORKERS; i++)
                pthread_join(workers[i].thread, NULL);
        g_assert_cmpuint(store_rows(f->store), ==, 1);
}

/* Closing drains, tidies up and leaves a database that opens again, without the old rows. */
static void test_close(struct fixture *f, gconstpointer data)
{
        g_autofree char *wal = g_strconcat(f->db_path, "-wal", NULL), *error = NULL;

        give(f, 0, NULL, O_RDONLY, XHANDLE_NONE);
        give(f, 1, NULL, O_RDONLY, XHANDLE_NONE);
        fixture_close_store(f);
        g_assert_cmpint(access(wal, F_OK), ==, -1);
        g_assert_cmpint(query_int(f->db_path, "SELECT count(*) FROM open_handles"), ==, 2);
        free_all_handles(f);
        give(f, 2, NULL, O_RDONLY, XHANDLE_NONE);
        g_assert_cmpint(fixture_open_store(f, &error), ==, 0);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        g_assert_cmpint(query_int(f->db_path, "SELECT count(*) FROM open_handles"), ==, 1);
        g_assert_cmpuint(store_rows(f->store), ==, 1);
}

/* The queries of the manual page run, as they stand there. */
static void test_manual(struct fixture *f, gconstpointer data)
{
        g_autofree char *path = g_build_filename(g_getenv("K42_DOC"), "k42fs-schema.5", NULL);
        g_autofree char *text = NULL;
        g_auto(GStrv) lines = NULL;
        GString *sql = NULL;
        unsigned n = 0;

        give(f, 1, NULL, O_RDWR, give(f, 0, NULL, O_RDWR, XHANDLE_NONE));
        g_assert_cmpint(store_sync(f->store), ==, 0);
        g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
        lines = g_strsplit(text, "\n", -1);
        for (unsigned i = 0; lines[i]; i++) {
                if (g_str_has_prefix(lines[i], ".Bd -literal -offset sql")) {
                        sql = g_string_new(NULL);
                } else if (sql && g_str_has_prefix(lines[i], ".Ed")) {
                        g_autofree char *query = g_string_free(sql, FALSE);
                        g_autofree char *result = query_text(f->db_path, query);

                        g_test_message("%s-> %s", query, result);
                        g_assert_nonnull(strchr(query, ';'));
                        sql = NULL;
                        n++;
                } else if (sql) {
                        g_string_append(sql, lines[i]);
                        g_string_append_c(sql, '\n');
                }
        }
        g_assert_null(sql);
        g_assert_cmpuint(n, >=, 5);
}

/* What the writer's own thread used so far, in µs: other load does not count. */
static double writer_cpu(struct fixture *f)
{
        struct timespec used;
        clockid_t clock;

        g_assert_cmpint(pthread_getcpuclockid(f->store->thread, &clock), ==, 0);
        g_assert_cmpint(clock_gettime(clock, &used), ==, 0);
        return (double)used.tv_sec * 1e6 + (double)used.tv_nsec / 1e3;
}

static void test_measure(struct fixture *f, gconstpointer data)
{
        const unsigned n = 100000;
        double begun = writer_cpu(f), given, again, freed;

        for (unsigned i = 0; i < n; i++)
                give(f, i, NULL, O_RDONLY, XHANDLE_NONE);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        given = writer_cpu(f);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        again = writer_cpu(f);
        free_all_handles(f);
        g_assert_cmpint(store_sync(f->store), ==, 0);
        freed = writer_cpu(f);
        g_test_minimized_result((given - begun) / n, "%.2f us of the writer's a row made",
                                (given - begun) / n);
        g_test_minimized_result((again - given) / n, "%.2f us a handle at a sync",
                                (again - given) / n);
        g_test_minimized_result((freed - again) / n, "%.2f us a row removed", (freed - again) / n);
}

#define ADD(name, config, fn)                                                                      \
        g_test_add("/store/" name, struct fixture, config, fixture_set_up, fn, fixture_tear_down)

int main(int argc, char **argv)
{
        fixture_init(&argc, &argv);
        ADD("columns", NULL, test_columns);
        ADD("values", NULL, test_values);
        ADD("ids", NULL, test_ids);
        ADD("changes", NULL, test_changes);
        ADD("bytes", NULL, test_bytes);
        ADD("cancel", NULL, test_cancel);
        ADD("by-itself", NULL, test_by_itself);
        ADD("idle", NULL, test_idle);
        ADD("history", &with_history, test_history);
        ADD("foreach-closed", &with_history, test_foreach_closed);
        ADD("foreach", NULL, test_foreach);
        ADD("users", NULL, test_users);
        ADD("clients", NULL, test_clients);
        ADD("exact", NULL, test_exact);
        ADD("exact-small-ring", &small_ring, test_exact);
        ADD("exact-history", &with_history, test_exact);
        ADD("many-syncs", NULL, test_many_syncs);
        ADD("close", NULL, test_close);
        ADD("manual", NULL, test_manual);
        if (g_test_perf())
                ADD("measure", NULL, test_measure);
        return g_test_run();
}

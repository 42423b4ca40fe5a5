/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The state directory: what is made, taken over, refused and removed.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fusefs/state_dir.h"

struct fixture {
        char *top, *path;
};

static void set_up(struct fixture *f, const void *data)
{
        f->top = g_dir_make_tmp("k42state.XXXXXX", NULL);
        g_assert_nonnull(f->top);
        f->path = g_build_filename(f->top, "state", NULL);
}

static void tear_down(struct fixture *f, const void *data)
{
        g_autoptr(GDir) dir = g_dir_open(f->path, 0, NULL);
        const char *name;

        while (dir && (name = g_dir_read_name(dir))) {
                g_autofree char *path = g_build_filename(f->path, name, NULL);

                g_remove(path);
        }
        g_remove(f->path);
        g_assert_cmpint(rmdir(f->top), ==, 0); /* or the test left something */
        g_free(f->path);
        g_free(f->top);
}

static void write_file(struct fixture *f, const char *name, const char *content)
{
        g_autofree char *path = g_build_filename(f->path, name, NULL);

        g_assert_true(g_file_set_contents(path, content, -1, NULL));
}

static bool has_file(struct fixture *f, const char *name)
{
        g_autofree char *path = g_build_filename(f->path, name, NULL);

        return access(path, F_OK) == 0;
}

static mode_t mode_of(const char *path)
{
        struct stat st;

        g_assert_cmpint(stat(path, &st), ==, 0);
        return st.st_mode & 07777;
}

/* Opens and expects a refusal with exactly one line that has `words` in it. */
static void expect_refusal(const char *path, int expected, const char *words)
{
        struct state_dir *dir = NULL;
        g_autofree char *pattern = g_strdup_printf("*%s*", words);

        g_test_expect_message(NULL, G_LOG_LEVEL_WARNING, pattern);
        g_assert_cmpint(state_dir_open(path, "/nowhere", &dir), ==, expected);
        g_test_assert_expected_messages();
        g_assert_null(dir);
}

static void test_made_and_removed(struct fixture *f, const void *data)
{
        struct state_dir *dir = NULL;
        g_autofree char *file = NULL, *lock = g_build_filename(f->path, "lock", NULL);

        g_assert_cmpint(state_dir_open(f->path, "/nowhere", &dir), ==, 0);
        g_assert_cmpstr(state_dir_path(dir), ==, f->path);
        file = state_dir_file(dir, "state.db");
        g_assert_true(g_str_has_suffix(file, "/state/state.db"));
        g_assert_cmpint(mode_of(f->path), ==, 0711);
        g_assert_cmpint(mode_of(lock), ==, 0600);
        g_assert_cmpint(fcntl(state_dir_fd(dir), F_GETFD), ==, FD_CLOEXEC);
        write_file(f, "state.db", "x");
        write_file(f, "state.db-wal", "x");
        write_file(f, "journal", "x");
        write_file(f, "control", "x");
        state_dir_remove(dir);
        g_assert_cmpint(access(f->path, F_OK), ==, -1);
}

static void test_null(struct fixture *f, const void *data)
{
        state_dir_remove(NULL);
}

static void test_not_made_stays(struct fixture *f, const void *data)
{
        struct state_dir *dir = NULL;

        g_assert_cmpint(mkdir(f->path, 0750), ==, 0);
        write_file(f, "mine", "x");
        g_assert_cmpint(state_dir_open(f->path, "/nowhere", &dir), ==, 0);
        g_assert_cmpint(mode_of(f->path), ==, 0750);
        write_file(f, "state.db", "x");
        state_dir_remove(dir);
        g_assert_true(has_file(f, "mine"));
        g_assert_false(has_file(f, "lock"));
        g_assert_false(has_file(f, "state.db"));
}

static void test_in_use(struct fixture *f, const void *data)
{
        struct state_dir *dir = NULL;

        g_assert_cmpint(state_dir_open(f->path, "/nowhere", &dir), ==, 0);
        write_file(f, "journal", "live");
        expect_refusal(f->path, -EBUSY, "/state: another k42fs uses this");
        g_assert_true(has_file(f, "journal"));
        g_assert_true(has_file(f, "lock"));
        state_dir_remove(dir);
        g_assert_cmpint(access(f->path, F_OK), ==, -1);
}

static void test_dead_daemon(struct fixture *f, const void *data)
{
        struct state_dir *dir = NULL;

        g_assert_cmpint(mkdir(f->path, 0711), ==, 0);
        write_file(f, "lock", "");
        write_file(f, "journal", "old");
        write_file(f, "control", "old");
        write_file(f, "state.db", "old");
        g_assert_cmpint(state_dir_open(f->path, "/nowhere", &dir), ==, 0);
        g_assert_false(has_file(f, "journal"));
        g_assert_false(has_file(f, "control"));
        g_assert_true(has_file(f, "state.db")); /* for the store to judge */
        state_dir_remove(dir);
        /* nobody took it over */
        g_assert_true(has_file(f, "state.db"));
        g_assert_false(has_file(f, "lock"));
}

static void test_db_taken_over(struct fixture *f, const void *data)
{
        struct state_dir *dir = NULL;

        g_assert_cmpint(mkdir(f->path, 0711), ==, 0);
        write_file(f, "state.db", "old");
        g_assert_cmpint(state_dir_open(f->path, "/nowhere", &dir), ==, 0);
        g_usleep(20000); /* the clock of ctime ticks in jiffies */
        write_file(f, "state.db", "new");
        state_dir_remove(dir);
        g_assert_false(has_file(f, "state.db"));
}

static void test_foreign_files(struct fixture *f, const void *data)
{
        g_assert_cmpint(mkdir(f->path, 0700), ==, 0);
        write_file(f, "journal", "a diary");
        expect_refusal(f->path, -EEXIST, "/state/journal: no k42fs made this file");
        g_assert_true(has_file(f, "journal"));
        g_assert_false(has_file(f, "lock"));
}

static void test_not_a_directory(struct fixture *f, const void *data)
{
        g_assert_true(g_file_set_contents(f->path, "x", -1, NULL));
        expect_refusal(f->path, -ENOTDIR, "/state: ");
        g_assert_cmpint(access(f->path, F_OK), ==, 0);
}

static void test_symlink(struct fixture *f, const void *data)
{
        g_autofree char *real = g_build_filename(f->top, "real", NULL);

        g_assert_cmpint(mkdir(real, 0700), ==, 0);
        g_assert_cmpint(symlink("real", f->path), ==, 0);
        expect_refusal(f->path, -ENOTDIR, "symbolic link");
        g_assert_cmpint(rmdir(real), ==, 0); /* nothing was put into it */
}

static void test_no_parent(struct fixture *f, const void *data)
{
        g_autofree char *path = g_build_filename(f->path, "deeper", NULL);

        expect_refusal(path, -ENOENT, "/state/deeper: cannot make");
}

static void test_everybody_writes(struct fixture *f, const void *data)
{
        g_assert_cmpint(mkdir(f->path, 0700), ==, 0);
        g_assert_cmpint(chmod(f->path, 0777), ==, 0);
        expect_refusal(f->path, -EPERM, "everybody may write");
        g_assert_false(has_file(f, "lock"));
}

static void test_other_owner(struct fixture *f, const void *data)
{
        if (geteuid() != 0) {
                g_test_skip("only root can give a directory away");
                return;
        }
        g_assert_cmpint(mkdir(f->path, 0700), ==, 0);
        g_assert_cmpint(chown(f->path, 65534, 65534), ==, 0);
        expect_refusal(f->path, -EPERM, "belongs to another user");
        g_assert_false(has_file(f, "lock"));
}

static void test_unwritable(struct fixture *f, const void *data)
{
        expect_refusal("/proc/k42state", -ENOENT, "/proc/k42state: cannot make");
}

static void test_long_path(struct fixture *f, const void *data)
{
        struct state_dir *dir = NULL;
        g_autofree char *name = g_strnfill(200, 'n');
        g_autofree char *path = g_build_filename(f->top, name, NULL);
        g_autofree char *longer = g_strdup_printf("%s/%s/%s", path, name, name);

        g_assert_cmpint(state_dir_open(path, "/nowhere", &dir), ==, 0);
        state_dir_remove(dir);
        g_assert_cmpint(access(path, F_OK), ==, -1);
        expect_refusal(longer, -ENAMETOOLONG, "the state directory");
}

/* Many that start and end at the same time: at most one has it at any moment, and none is refused
 * but for that. */
static void *start_and_end(void *data)
{
        const char *path = data;
        static int inside;
        unsigned had = 0;

        for (int i = 0; i < 300; i++) {
                struct state_dir *dir = NULL;
                int r = state_dir_open(path, "/nowhere", &dir);

                if (r == 0) {
                        g_assert_cmpint(g_atomic_int_add(&inside, 1), ==, 0);
                        had++;
                        g_atomic_int_add(&inside, -1);
                        state_dir_remove(dir);
                } else {
                        g_assert_cmpint(r, ==, -EBUSY);
                }
        }
        return GUINT_TO_POINTER(had);
}

static void ignore_log(const char *domain, GLogLevelFlags level, const char *message, void *data)
{
}

static void test_race(struct fixture *f, const void *data)
{
        GThread *threads[4];
        GLogFunc old = g_log_set_default_handler(ignore_log, NULL);
        GLogLevelFlags fatal = g_log_set_always_fatal(G_LOG_LEVEL_ERROR | G_LOG_FLAG_FATAL);
        unsigned had = 0;

        for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
                threads[i] = g_thread_new("race", start_and_end, f->path);
        for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
                had += GPOINTER_TO_UINT(g_thread_join(threads[i]));
        g_log_set_always_fatal(fatal);
        g_log_set_default_handler(old, NULL);
        g_assert_cmpuint(had, >, 0);
}

#define ADD(name, fn) g_test_add("/state_dir/" name, struct fixture, NULL, set_up, fn, tear_down)

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        ADD("made-and-removed", test_made_and_removed);
        ADD("null", test_null);
        ADD("not-made-stays", test_not_made_stays);
        ADD("in-use", test_in_use);
        ADD("dead-daemon", test_dead_daemon);
        ADD("db-taken-over", test_db_taken_over);
        ADD("foreign-files", test_foreign_files);
        ADD("not-a-directory", test_not_a_directory);
        ADD("symlink", test_symlink);
        ADD("no-parent", test_no_parent);
        ADD("everybody-writes", test_everybody_writes);
        ADD("other-owner", test_other_owner);
        ADD("unwritable", test_unwritable);
        ADD("long-path", test_long_path);
        ADD("race", test_race);
        return g_test_run();
}

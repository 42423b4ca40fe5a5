/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define THINGS 64

static GMutex warnings_lock;
static unsigned warnings;
static char *last_warning;

static int thing_give(struct server_object *object, struct client *client, access_rights match,
                      access_rights nomatch, const void *how, struct object_handle *ret_handle);

static void thing_being_freed(struct server_object *object, const struct xobj *xobj)
{
        client_data_clear(((struct thing *)object)->cobj, xobj_client_data(xobj));
        free(xobj_client_data(xobj));
}

static void thing_ref(struct server_object *object)
{
        atomic_fetch_add(&((struct thing *)object)->refs, 1);
}

static void thing_unref(struct server_object *object)
{
        atomic_fetch_sub(&((struct thing *)object)->refs, 1);
}

static char *thing_describe(struct server_object *object)
{
        return g_strdup(((struct thing *)object)->path);
}

static const struct server_object_ops thing_ops = {
        .give_access_set_client_data = thing_give,
        .being_freed = thing_being_freed,
        .ref = thing_ref,
        .unref = thing_unref,
        .describe = thing_describe,
};

struct thing_how {
        struct cobj *cobj;
        unsigned thing;
        int flags;
        xhandle parent;
};

static int thing_give(struct server_object *object, struct client *client, access_rights match,
                      access_rights nomatch, const void *how, struct object_handle *ret_handle)
{
        const struct thing_how *h = how;
        struct client_data *data = calloc(1, sizeof *data);
        int r;

        g_assert_nonnull(data);
        g_assert_cmpint(client_data_init(h->cobj, data), ==, 0);
        data->kept->description = h->thing;
        data->kept->flags = h->flags;
        data->kept->parent = h->parent;
        data->kept->type = h->flags & O_DIRECTORY ? XOBJ_DIR : XOBJ_FILE;
        data->kept->io_class = IO_CLASS_COUNTED;
        data->kept->opened = g_get_real_time();
        atomic_store(&data->kept->sharing, h->parent ? SHARING_LAZY_INIT : SHARING_NON_SHARED);
        r = give_access_internal(h->cobj, object, client, match, nomatch, data, ret_handle);
        if (r < 0) {
                client_data_clear(h->cobj, data);
                free(data);
        }
        return r;
}

xhandle give(struct fixture *f, unsigned n, struct client *client, int flags, xhandle parent)
{
        struct thing_how how = {
                .cobj = f->cobj, .thing = n % f->n_things, .flags = flags, .parent = parent};
        struct object_handle oh = {0};

        g_assert_cmpint(
                give_access_by_server(&f->things[n % f->n_things].object, client ? client : f->self,
                                      access_rights_from_open_flags(flags), RIGHTS_NONE, &how, &oh),
                ==, 0);
        return oh.xh;
}

void count_read(struct fixture *f, xhandle token, uint64_t bytes)
{
        g_autoptr(K42Xobj) xobj = cobj_get_xobj(f->cobj, token);
        struct client_data *data;

        g_assert_nonnull(xobj);
        data = xobj_client_data(xobj);
        atomic_fetch_add(&data->kept->reads, 1);
        atomic_fetch_add(&data->kept->read_bytes, bytes);
        atomic_store(&data->dirty, true);
}

static void collect_token(struct xobj *xobj, void *data)
{
        xhandle token = xobj_token(xobj);

        g_array_append_val((GArray *)data, token);
}

void free_all_handles(struct fixture *f)
{
        g_autoptr(GArray) tokens = g_array_new(FALSE, FALSE, sizeof(xhandle));

        cobj_foreach_handle(f->cobj, collect_token, tokens);
        for (unsigned i = 0; i < tokens->len; i++)
                xobj_free(f->cobj, g_array_index(tokens, xhandle, i));
}

int fixture_open_store(struct fixture *f, char **ret_error)
{
        const struct store_config config = {
                .path = f->db_path,
                .mountpoint = "/mnt/point",
                .source = "/the/source",
                .journal = f->journal,
                .cobj = f->cobj,
                .history = f->history,
                .resume = f->resume,
        };

        return store_open(&config, &f->store, ret_error);
}

void fixture_close_store(struct fixture *f)
{
        store_close(f->store);
        f->store = NULL;
}

void fixture_init_things(struct fixture *f)
{
        for (unsigned i = 0; i < f->n_things; i++) {
                server_object_init(&f->things[i].object, &thing_ops);
                f->things[i].path = g_strdup_printf("/dir/thing-%u", i);
                f->things[i].cobj = f->cobj;
        }
}

void fixture_set_up(struct fixture *f, gconstpointer data)
{
        static const struct fixture_config ordinary = {.ring = 16384};
        const struct fixture_config *config = data ? data : &ordinary;
        struct cobj_observer observer;
        g_autofree char *error = NULL;

        f->dir = g_dir_make_tmp("k42-store-XXXXXX", NULL);
        g_assert_nonnull(f->dir);
        f->dirfd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        f->db_path = g_build_filename(f->dir, "state.db", NULL);
        f->ring = config->ring;
        f->history = config->history;
        f->n_things = THINGS;
        f->things = calloc(f->n_things, sizeof *f->things);
        g_assert_cmpint(journal_create(f->dirfd, "journal", f->ring, &f->journal), ==, 0);
        store_observer_init(&observer, f->journal);
        g_assert_cmpint(cobj_new(&observer, NULL, &f->cobj), ==, 0);
        fixture_init_things(f);
        g_assert_cmpint(client_table_get(cobj_clients(f->cobj), getpid(), &f->self), ==, 0);
        g_assert_cmpint(fixture_open_store(f, &error), ==, 0);
        warnings_taken(NULL);
}

void remove_tree(const char *path)
{
        char *argv[] = {(char *)"rm", (char *)"-rf", (char *)path, NULL};

        g_assert_true(g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL,
                                   NULL, NULL));
}

void fixture_tear_down(struct fixture *f, gconstpointer data)
{
        free_all_handles(f);
        client_unref(f->self);
        fixture_close_store(f);
        cobj_free(f->cobj);
        journal_free(f->journal);
        for (unsigned i = 0; i < f->n_things; i++) {
                g_assert_cmpint(atomic_load(&f->things[i].refs), ==, 0);
                server_object_clear(&f->things[i].object);
                g_free(f->things[i].path);
        }
        free(f->things);
        close(f->dirfd);
        remove_tree(f->dir);
        g_free(f->dir);
        g_free(f->db_path);
}

sqlite3 *open_reader(const char *path)
{
        sqlite3 *db = NULL;

        g_assert_cmpint(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), ==, SQLITE_OK);
        sqlite3_busy_timeout(db, 5000);
        return db;
}

char *query_text(const char *path, const char *sql)
{
        sqlite3 *db = open_reader(path);
        GString *text = g_string_new(NULL);
        sqlite3_stmt *stmt = NULL;
        int rc;

        if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK)
                g_error("%s: %s", sql, sqlite3_errmsg(db));
        while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
                if (text->len > 0)
                        g_string_append_c(text, '\n');
                for (int i = 0; i < sqlite3_column_count(stmt); i++) {
                        const char *value = (const char *)sqlite3_column_text(stmt, i);

                        g_string_append_printf(text, "%s%s", i > 0 ? "|" : "",
                                               value ? value : "NULL");
                }
        }
        if (rc != SQLITE_DONE)
                g_error("%s: %s", sql, sqlite3_errmsg(db));
        sqlite3_finalize(stmt);
        sqlite3_close(db);
        return g_string_free(text, FALSE);
}

int64_t query_int(const char *path, const char *sql)
{
        g_autofree char *text = query_text(path, sql);

        return g_ascii_strtoll(text, NULL, 10);
}

GPid helper_start(const char *const *args)
{
        g_autoptr(GPtrArray) argv = g_ptr_array_new();
        g_autoptr(GError) error = NULL;
        const char *program = g_getenv("STORE_HELPER");
        GPid pid;
        char byte;
        int out;

        g_assert_nonnull(program);
        g_ptr_array_add(argv, (char *)program);
        for (; *args; args++)
                g_ptr_array_add(argv, (char *)*args);
        g_ptr_array_add(argv, NULL);
        if (!g_spawn_async_with_pipes(NULL, (char **)argv->pdata, NULL, G_SPAWN_DO_NOT_REAP_CHILD,
                                      NULL, NULL, &pid, NULL, &out, NULL, &error))
                g_error("%s: %s", program, error->message);
        g_assert_cmpint(read(out, &byte, 1), ==, 1);
        close(out);
        return pid;
}

void helper_wait(GPid pid)
{
        int status;

        g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
        g_assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void helper_run(const char *verb, const char *path, const char *argument)
{
        const char *const args[] = {verb, path, argument, NULL};

        helper_wait(helper_start(args));
}

static void count_warning(const char *domain, GLogLevelFlags level, const char *message, void *data)
{
        if (!(level & (G_LOG_LEVEL_WARNING | G_LOG_LEVEL_CRITICAL))) {
                g_log_default_handler(domain, level, message, data);
                return;
        }
        g_mutex_lock(&warnings_lock);
        warnings++;
        g_free(last_warning);
        last_warning = g_strdup(message);
        g_mutex_unlock(&warnings_lock);
}

unsigned warnings_taken(char **ret_last)
{
        unsigned n;

        g_mutex_lock(&warnings_lock);
        n = warnings;
        warnings = 0;
        if (ret_last)
                *ret_last = g_steal_pointer(&last_warning);
        g_clear_pointer(&last_warning, g_free);
        g_mutex_unlock(&warnings_lock);
        return n;
}

void fixture_init(int *argc, char ***argv)
{
        g_test_init(argc, argv, NULL);
        g_log_set_always_fatal(G_LOG_FATAL_MASK);
        g_log_set_default_handler(count_warning, NULL);
}

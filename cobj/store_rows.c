/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From records to rows.  Everything here runs on the writer thread, within a transaction, and
 * returns SQLite result codes; any of them may be the end of this database.
 *
 * HANDLE_GIVEN comes before HANDLE_FREED of the same handle, but it may come before the handle can
 * be found in its table, and long after it is gone.  Either way the record itself makes the row
 * then, with the path that the object has now if it is known still: else the next sync adds the path, or the
 * record of its end removes the row.  What is gone of its process the record of that one has.
 * Every step can be done twice (records are applied again when the database was replaced in
 * between).
 *
 * Strings come from the living handle, at this time.  Strings of the file system are bytes; they
 * are stored as they are, valid UTF-8 or not.
 *
 * What is called from here in other parts (describe(), the client table) must not wait for a lock
 * that somebody holds while journalling: with a full ring, they would wait for this thread.
 */
#include "cobj/store_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/* Numbers of parameters that the statements of the history share with HANDLE_INSERT's order. */
enum {
        PARAM_TOKEN = 1,
        PARAM_PARENT,
        PARAM_CLIENT,
        PARAM_PATH,
};

static uint32_t id_map_slot(const struct id_map *map, uint64_t id)
{
        uint32_t i = (uint32_t)((id * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & map->mask;

        while (map->keys[i] && map->keys[i] != id)
                i = (i + 1) & map->mask;
        return i;
}

int id_map_init(struct id_map *map, uint32_t slots)
{
        map->keys = calloc(slots, sizeof *map->keys);
        map->values = calloc(slots, sizeof *map->values);
        if (!map->keys || !map->values) {
                id_map_clear(map);
                return -ENOMEM;
        }
        map->mask = slots - 1;
        return 0;
}

void id_map_clear(struct id_map *map)
{
        free(map->keys);
        free(map->values);
        *map = (struct id_map){0};
}

void id_map_empty(struct id_map *map)
{
        memset(map->keys, 0, (map->mask + (size_t)1) * sizeof *map->keys);
}

void id_map_put(struct id_map *map, uint64_t id, uint32_t value)
{
        uint32_t i;

        if (id == ID_NONE)
                return;
        i = id_map_slot(map, id);
        map->keys[i] = id;
        map->values[i] = value;
}

bool id_map_get(const struct id_map *map, uint64_t id, uint32_t *ret_value)
{
        uint32_t i;

        if (id == ID_NONE)
                return false;
        i = id_map_slot(map, id);
        if (!map->keys[i])
                return false;
        *ret_value = map->values[i];
        return true;
}

int store_step(struct store *s, enum store_statement which)
{
        int rc = sqlite3_step(s->statements[which]);

        sqlite3_reset(s->statements[which]);
        return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc;
}

/* The words of the schema. */

static const char *type_word(unsigned type)
{
        return type == XOBJ_DIR ? "DIR" : "FILE";
}

static const char *class_word(unsigned io_class)
{
        return io_class == IO_CLASS_FAST      ? "fast"
               : io_class == IO_CLASS_COUNTED ? "counted"
                                              : "cached";
}

static const char *sharing_word(unsigned sharing)
{
        return sharing == SHARING_SHARED       ? "shared"
               : sharing == SHARING_NON_SHARED ? "non_shared"
                                               : "lazy_init";
}

/* Who knows of all operations. */
static const char *counted_by_word(unsigned type, unsigned io_class, unsigned says)
{
        if (type == XOBJ_DIR)
                return NULL;
        if (io_class == IO_CLASS_COUNTED)
                return says ? "both" : "daemon";
        return says ? "program" : "nobody";
}

#define FLAGS_WORDS_MAX 128

static void flags_words(int flags, char buf[static FLAGS_WORDS_MAX])
{
        static const struct {
                int flag;
                const char *word;
        } words[] = {
                {O_APPEND, "|O_APPEND"},       {O_NONBLOCK, "|O_NONBLOCK"},
                {O_SYNC, "|O_SYNC"},           {O_DSYNC, "|O_DSYNC"},
                {O_DIRECT, "|O_DIRECT"},       {O_NOATIME, "|O_NOATIME"},
                {O_DIRECTORY, "|O_DIRECTORY"},
        };
        const int mode = flags & O_ACCMODE;

        g_strlcpy(buf,
                  flags & O_PATH     ? "O_PATH"
                  : mode == O_RDONLY ? "O_RDONLY"
                  : mode == O_WRONLY ? "O_WRONLY"
                  : mode == O_RDWR   ? "O_RDWR"
                                     : "O_ACCMODE",
                  FLAGS_WORDS_MAX);
        for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
                if ((flags & words[i].flag) != words[i].flag)
                        continue;
                if (words[i].flag == O_DSYNC && (flags & O_SYNC) == O_SYNC)
                        continue; /* O_SYNC contains its bit */
                g_strlcat(buf, words[i].word, FLAGS_WORDS_MAX);
        }
}

/* Binding: an error of a bind (out of memory) leaves NULL in its place, so it must not be missed.
 */

static void bind_word(sqlite3_stmt *stmt, int n, const char *word, int *rc)
{
        int r = word ? sqlite3_bind_text(stmt, n, word, -1, SQLITE_STATIC)
                     : sqlite3_bind_null(stmt, n);

        if (*rc == SQLITE_OK)
                *rc = r;
}

static void bind_id(sqlite3_stmt *stmt, int n, uint64_t id)
{
        if (id == ID_NONE)
                sqlite3_bind_null(stmt, n);
        else
                sqlite3_bind_int64(stmt, n, (sqlite3_int64)id);
}

/* Seven parameters, counted_by the last. */
static void bind_counters(sqlite3_stmt *stmt, int n, const struct kept_handle *data, int *rc)
{
        const struct counters counters = kept_handle_counters(data);

        sqlite3_bind_int64(stmt, n, (sqlite3_int64)counters.reads);
        sqlite3_bind_int64(stmt, n + 1, (sqlite3_int64)counters.read_bytes);
        sqlite3_bind_int64(stmt, n + 2, (sqlite3_int64)counters.writes);
        sqlite3_bind_int64(stmt, n + 3, (sqlite3_int64)counters.write_bytes);
        sqlite3_bind_int64(stmt, n + 4, (sqlite3_int64)counters.mappings);
        sqlite3_bind_int64(stmt, n + 5, (sqlite3_int64)counters.mapped_bytes);
        bind_word(stmt, n + 6, counted_by_word(data->type, data->io_class, atomic_load(&data->says)), rc);
}

static int put_strings(struct store *s, uint64_t client, const char *comm, const char *exe)
{
        sqlite3_stmt *stmt = s->statements[STMT_CLIENT_STRINGS];
        int rc = SQLITE_OK;

        sqlite3_bind_int64(stmt, 1, (sqlite3_int64)client);
        bind_word(stmt, 2, comm, &rc);
        bind_word(stmt, 3, exe, &rc);
        if (rc == SQLITE_OK)
                rc = store_step(s, STMT_CLIENT_STRINGS);
        sqlite3_clear_bindings(stmt);
        return rc;
}

static int put_client_strings(struct store *s, struct client *client)
{
        g_autofree char *comm = client_dup_comm(client), *exe = client_dup_exe(client);

        return put_strings(s, client_info(client)->id, comm, exe);
}

/* Makes the client's row, strings left out, if it has none. */
static int put_client_row(struct store *s, const struct journal_client *c, bool alive)
{
        sqlite3_stmt *stmt = s->statements[STMT_CLIENT_INSERT];

        sqlite3_bind_int64(stmt, 1, (sqlite3_int64)c->id);
        sqlite3_bind_int64(stmt, 2, c->pid);
        sqlite3_bind_int64(stmt, 3, c->ppid);
        sqlite3_bind_int64(stmt, 4, c->uid);
        sqlite3_bind_int64(stmt, 5, (sqlite3_int64)c->start_time);
        sqlite3_bind_int(stmt, 6, !alive);
        return store_step(s, STMT_CLIENT_INSERT);
}

static int put_client(struct store *s, struct client *client)
{
        const struct client_info *info = client_info(client);
        struct journal_client c = {
                .id = info->id,
                .start_time = info->start_time,
                .pid = info->pid,
                .ppid = info->ppid,
                .uid = info->uid,
        };
        int rc;

        if (s->last_client == info->id)
                return SQLITE_OK;
        rc = put_client_row(s, &c, client_alive(client));
        if (rc == SQLITE_OK && sqlite3_changes(s->db) > 0)
                rc = put_client_strings(s, client);
        if (rc == SQLITE_OK)
                s->last_client = info->id;
        return rc;
}

/* HANDLE_INSERT with its parameters bound; `rc`: how the binding went. */
static int insert_handle(struct store *s, int rc)
{
        if (rc == SQLITE_OK)
                rc = store_step(s, STMT_HANDLE_INSERT);
        sqlite3_clear_bindings(s->statements[STMT_HANDLE_INSERT]);
        if (rc == SQLITE_OK)
                s->row_count += (uint64_t)sqlite3_changes(s->db);
        return rc;
}

static int put_handle(struct store *s, struct xobj *xobj)
{
        sqlite3_stmt *stmt = s->statements[STMT_HANDLE_INSERT];
        const struct kept_handle *data = xobj_client_data(xobj)->kept;
        struct server_object *object = xobj_object(xobj);
        g_autofree char *path = object->ops->describe(object);
        char flags[FLAGS_WORDS_MAX], rights[ACCESS_RIGHTS_STRING_MAX];
        access_rights match, nomatch;
        int rc;

        rc = put_client(s, xobj_client(xobj));
        if (rc != SQLITE_OK)
                return rc;
        xobj_get_rights(xobj, &match, &nomatch);
        flags_words(data->flags, flags);
        sqlite3_bind_int64(stmt, PARAM_TOKEN, (sqlite3_int64)xobj_token(xobj));
        bind_id(stmt, PARAM_PARENT, data->parent);
        sqlite3_bind_int64(stmt, PARAM_CLIENT, (sqlite3_int64)client_info(xobj_client(xobj))->id);
        bind_word(stmt, PARAM_PATH, path, &rc);
        bind_word(stmt, 5, type_word(data->type), &rc);
        bind_word(stmt, 6, flags, &rc);
        bind_word(stmt, 7, access_rights_format(match, rights), &rc);
        bind_word(stmt, 8, class_word(data->io_class), &rc);
        bind_word(stmt, 9, sharing_word(atomic_load(&data->sharing)), &rc);
        sqlite3_bind_int64(stmt, 10, data->opened);
        bind_counters(stmt, 11, data, &rc);
        return insert_handle(s, rc);
}

/* The record's own contents: the parameters that the history's statements share with this one. */
static void bind_record(sqlite3_stmt *stmt, int n, const struct journal_handle *h,
                        const char *flags, const char *rights, int *rc)
{
        bind_word(stmt, n, type_word(h->type), rc);
        bind_word(stmt, n + 1, flags, rc);
        bind_word(stmt, n + 2, rights, rc);
        bind_word(stmt, n + 3, class_word(h->io_class), rc);
        bind_word(stmt, n + 4, sharing_word(h->sharing), rc);
        sqlite3_bind_int64(stmt, n + 5, h->opened);
        sqlite3_bind_int64(stmt, n + 6, (sqlite3_int64)h->reads);
        sqlite3_bind_int64(stmt, n + 7, (sqlite3_int64)h->read_bytes);
        sqlite3_bind_int64(stmt, n + 8, (sqlite3_int64)h->writes);
        sqlite3_bind_int64(stmt, n + 9, (sqlite3_int64)h->write_bytes);
        sqlite3_bind_int64(stmt, n + 10, (sqlite3_int64)h->mappings);
        sqlite3_bind_int64(stmt, n + 11, (sqlite3_int64)h->mapped_bytes);
        bind_word(stmt, n + 12, counted_by_word(h->type, h->io_class, h->says), rc);
}

/* The path of a file of which the record is all that is left of its handle; NULL if it is not known any more. */
static char *describe_record(struct store *s, const struct journal_handle *h)
{
        return s->describe && h->object ? s->describe(h->object, s->describe_data) : NULL;
}

static int handle_given(struct store *s, const struct journal_handle *h)
{
        g_autoptr(K42Xobj) xobj = cobj_get_xobj(s->cobj, h->handle);
        sqlite3_stmt *stmt = s->statements[STMT_HANDLE_INSERT];
        char flags[FLAGS_WORDS_MAX], rights[ACCESS_RIGHTS_STRING_MAX];
        g_autofree char *path = NULL;
        int rc = SQLITE_OK;

        if (xobj)
                return put_handle(s, xobj);
        path = describe_record(s, h);
        flags_words(h->flags, flags);
        sqlite3_bind_int64(stmt, PARAM_TOKEN, (sqlite3_int64)h->handle);
        bind_id(stmt, PARAM_PARENT, h->parent);
        sqlite3_bind_int64(stmt, PARAM_CLIENT, (sqlite3_int64)h->client);
        bind_word(stmt, PARAM_PATH, path, &rc);
        bind_record(stmt, 5, h, flags, access_rights_format(h->match, rights), &rc);
        return insert_handle(s, rc);
}

static int history_step(struct store *s, enum store_statement which, const struct journal_handle *h)
{
        sqlite3_stmt *stmt = s->statements[which];
        char flags[FLAGS_WORDS_MAX], rights[ACCESS_RIGHTS_STRING_MAX];
        g_autofree char *path = NULL;
        int rc = SQLITE_OK;

        flags_words(h->flags, flags);
        sqlite3_bind_int64(stmt, PARAM_TOKEN, (sqlite3_int64)h->handle);
        bind_id(stmt, PARAM_PARENT, h->parent);
        sqlite3_bind_int64(stmt, PARAM_CLIENT, (sqlite3_int64)h->client);
        bind_record(stmt, 5, h, flags, access_rights_format(h->match, rights), &rc);
        sqlite3_bind_int64(stmt, 18, h->closed);
        sqlite3_bind_int64(stmt, 19, (sqlite3_int64)s->history_next);
        if (which == STMT_HISTORY_ADD) {
                path = describe_record(s, h);
                bind_word(stmt, PARAM_PATH, path, &rc);
        }
        if (rc == SQLITE_OK)
                rc = store_step(s, which);
        sqlite3_clear_bindings(stmt);
        return rc;
}

int rows_history_add(struct store *s, const struct journal_handle *h)
{
        int rc = history_step(s, STMT_HISTORY_MOVE, h);

        /* Without a row it was gone before it could get one: only the record knows of it. */
        if (rc == SQLITE_OK && sqlite3_changes(s->db) == 0)
                rc = history_step(s, STMT_HISTORY_ADD, h);
        if (rc == SQLITE_OK)
                s->history_next++;
        return rc;
}

static int handle_freed(struct store *s, const struct journal_handle *h)
{
        int rc = s->history ? rows_history_add(s, h) : SQLITE_OK;

        if (rc != SQLITE_OK)
                return rc;
        sqlite3_bind_int64(s->statements[STMT_HANDLE_DELETE], 1, (sqlite3_int64)h->handle);
        rc = store_step(s, STMT_HANDLE_DELETE);
        if (rc == SQLITE_OK)
                s->row_count -= (uint64_t)sqlite3_changes(s->db);
        return rc;
}

static int client_new(struct store *s, const struct journal_client *c)
{
        g_autoptr(K42Client) client = NULL;
        int rc = put_client_row(s, c, true);

        if (rc != SQLITE_OK || sqlite3_changes(s->db) == 0)
                return rc;
        client = client_table_find_pid(cobj_clients(s->cobj), c->pid);
        if (client && client_info(client)->id == c->id)
                return put_client_strings(s, client);
        return put_strings(s, c->id, *c->comm ? c->comm : NULL, *c->exe ? c->exe : NULL);
}

static int client_exited(struct store *s, const struct journal_client *c)
{
        sqlite3_bind_int64(s->statements[STMT_CLIENT_EXITED], 1, (sqlite3_int64)c->id);
        return store_step(s, STMT_CLIENT_EXITED);
}

/* Marks what came and went within the batch. */
static void cancel_pairs(struct store *s, uint32_t n)
{
        memset(s->skip, 0, n * sizeof *s->skip);
        if (s->history)
                return;
        id_map_empty(&s->given);
        id_map_empty(&s->new_clients);
        for (uint32_t i = 0; i < n; i++) {
                const struct journal_record *record = &s->batch[i];
                uint32_t begin;
                bool pair = false;

                if (record->type == JOURNAL_HANDLE_GIVEN)
                        id_map_put(&s->given, record->handle.handle, i);
                else if (record->type == JOURNAL_HANDLE_FREED)
                        pair = id_map_get(&s->given, record->handle.handle, &begin);
                else if (record->type == JOURNAL_CLIENT_NEW)
                        id_map_put(&s->new_clients, record->client.id, i);
                else if (record->type == JOURNAL_CLIENT_EXITED)
                        /* A handle of it that lives on makes its row, as one that has exited. */
                        pair = id_map_get(&s->new_clients, record->client.id, &begin);
                if (pair) {
                        s->skip[begin] = true;
                        s->skip[i] = s->consumed >= s->ahead;
                }
        }
}

int rows_apply_batch(struct store *s, uint32_t n)
{
        int rc = SQLITE_OK;

        cancel_pairs(s, n);
        for (uint32_t i = 0; i < n && rc == SQLITE_OK; i++) {
                const struct journal_record *record = &s->batch[i];

                if (s->skip[i])
                        continue;
                switch (record->type) {
                case JOURNAL_CLIENT_NEW:
                        rc = client_new(s, &record->client);
                        break;
                case JOURNAL_CLIENT_EXITED:
                        rc = client_exited(s, &record->client);
                        break;
                case JOURNAL_HANDLE_GIVEN:
                        rc = handle_given(s, &record->handle);
                        break;
                case JOURNAL_HANDLE_FREED:
                        rc = handle_freed(s, &record->handle);
                        break;
                default:
                        break; /* another kind of record; not the store's */
                }
        }
        return rc;
}

int rows_end_batch(struct store *s)
{
        if (s->history_next - s->history_first > s->history) {
                uint64_t first = s->history_next - s->history;
                int rc;

                sqlite3_bind_int64(s->statements[STMT_HISTORY_TRIM], 1, (sqlite3_int64)first);
                rc = store_step(s, STMT_HISTORY_TRIM);
                if (rc != SQLITE_OK)
                        return rc;
                s->history_first = first;
        }
        return store_step(s, STMT_CLIENT_COLLECT);
}

/* A pass over the living handles.  `seen` are the clients that had their turn. */
struct pass {
        struct store *store;
        struct id_map seen;
        uint32_t n_seen;
        int rc;
};

/* Whether the client comes for the first time; when memory is short, that is said more than once.
 */
static bool first_time(struct pass *pass, uint64_t client)
{
        uint32_t value;

        if (pass->seen.mask && id_map_get(&pass->seen, client, &value))
                return false;
        if (!pass->seen.mask || pass->n_seen > pass->seen.mask / 2) {
                struct id_map larger = {0};

                if (id_map_init(&larger, MAX(1024, 2 * (pass->seen.mask + 1))) < 0)
                        return true;
                for (uint32_t i = 0; pass->seen.mask && i <= pass->seen.mask; i++)
                        id_map_put(&larger, pass->seen.keys[i], 0);
                id_map_clear(&pass->seen);
                pass->seen = larger;
        }
        id_map_put(&pass->seen, client, 0);
        pass->n_seen++;
        return true;
}

static int update_counters(struct store *s, struct xobj *xobj)
{
        sqlite3_stmt *stmt = s->statements[STMT_HANDLE_UPDATE];
        const struct kept_handle *data = xobj_client_data(xobj)->kept;
        char rights[ACCESS_RIGHTS_STRING_MAX];
        access_rights match, nomatch;
        int rc = SQLITE_OK;

        xobj_get_rights(xobj, &match, &nomatch);
        sqlite3_bind_int64(stmt, 1, (sqlite3_int64)xobj_token(xobj));
        bind_word(stmt, 2, access_rights_format(match, rights), &rc);
        bind_word(stmt, 3, sharing_word(atomic_load(&data->sharing)), &rc);
        bind_counters(stmt, 4, data, &rc);
        if (rc == SQLITE_OK)
                rc = store_step(s, STMT_HANDLE_UPDATE);
        sqlite3_clear_bindings(stmt);
        return rc;
}

/* Directories above may have been renamed: nobody marks the handles below. */
static int update_path(struct store *s, struct xobj *xobj)
{
        sqlite3_stmt *stmt = s->statements[STMT_HANDLE_PATH];
        struct server_object *object = xobj_object(xobj);
        g_autofree char *path = object->ops->describe(object);
        int rc = SQLITE_OK;

        sqlite3_bind_int64(stmt, 1, (sqlite3_int64)xobj_token(xobj));
        bind_word(stmt, 2, path, &rc);
        if (rc == SQLITE_OK)
                rc = store_step(s, STMT_HANDLE_PATH);
        sqlite3_clear_bindings(stmt);
        return rc;
}

static void update_one(struct xobj *xobj, void *data)
{
        struct pass *pass = data;
        struct client *client = xobj_client(xobj);

        if (pass->rc != SQLITE_OK)
                return;
        if (pass->store->reconcile)
                pass->rc = put_handle(pass->store, xobj);
        if (pass->rc == SQLITE_OK && atomic_exchange(&xobj_client_data(xobj)->dirty, false))
                pass->rc = update_counters(pass->store, xobj);
        if (pass->rc == SQLITE_OK)
                pass->rc = update_path(pass->store, xobj);
        if (pass->rc == SQLITE_OK && first_time(pass, client_info(client)->id)) {
                client_refresh(client);
                pass->rc = put_client_strings(pass->store, client);
        }
}

int rows_update_living(struct store *s)
{
        struct pass pass = {.store = s, .rc = SQLITE_OK};

        cobj_foreach_handle(s->cobj, update_one, &pass);
        id_map_clear(&pass.seen);
        if (pass.rc == SQLITE_OK && s->reconcile) {
                s->reconcile = false;
                s->ahead = journal_head(s->journal);
        }
        return pass.rc;
}

static void refill_one(struct xobj *xobj, void *data)
{
        struct pass *pass = data;

        if (pass->rc == SQLITE_OK)
                pass->rc = put_handle(pass->store, xobj);
}

int rows_refill(struct store *s)
{
        struct pass pass = {.store = s};

        s->last_client = ID_NONE;
        pass.rc = store_step(s, STMT_HANDLES_CLEAR);
        if (pass.rc == SQLITE_OK)
                pass.rc = store_step(s, STMT_CLIENTS_CLEAR);
        s->row_count = 0;
        /* A handle whose record was dropped may not be in the table yet: the next sync looks again.
         */
        s->reconcile = true;
        if (pass.rc == SQLITE_OK)
                cobj_foreach_handle(s->cobj, refill_one, &pass);
        s->ahead = journal_head(s->journal);
        return pass.rc;
}

int rows_journal_done(struct store *s, uint64_t sequence)
{
        sqlite3_bind_int64(s->statements[STMT_JOURNAL_DONE], 1, (sqlite3_int64)sequence);
        return store_step(s, STMT_JOURNAL_DONE);
}

/* A row whose handle does not live, and of whose end nothing is known: it was not told of before the
 * daemon was killed. */
static int drop_lost(struct store *s, uint64_t token)
{
        sqlite3_stmt *stmt = s->statements[STMT_HISTORY_LOST];
        int rc = SQLITE_OK;

        if (s->history) {
                sqlite3_bind_int64(stmt, 1, (sqlite3_int64)token);
                sqlite3_bind_int64(stmt, 2, (sqlite3_int64)s->history_next);
                sqlite3_bind_int64(stmt, 3, g_get_real_time());
                rc = store_step(s, STMT_HISTORY_LOST);
                if (rc == SQLITE_OK)
                        s->history_next++;
        }
        if (rc != SQLITE_OK)
                return rc;
        sqlite3_bind_int64(s->statements[STMT_HANDLE_DELETE], 1, (sqlite3_int64)token);
        rc = store_step(s, STMT_HANDLE_DELETE);
        if (rc == SQLITE_OK)
                s->row_count -= (uint64_t)sqlite3_changes(s->db);
        return rc;
}

/* Rows whose handles did not come back. */
static int collect_lost(struct store *s, xhandle *ret_lost, size_t room, size_t *ret_n)
{
        sqlite3_stmt *stmt = s->statements[STMT_HANDLE_TOKENS];
        size_t n = 0;
        int rc;

        while ((rc = sqlite3_step(stmt)) == SQLITE_ROW && n < room) {
                const xhandle token = (xhandle)sqlite3_column_int64(stmt, 0);

                if (!store_came_back(s, token))
                        ret_lost[n++] = token;
        }
        sqlite3_reset(stmt);
        *ret_n = n;
        return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static int drop_all_lost(struct store *s)
{
        const size_t room = s->row_count;
        xhandle *lost = reallocarray(NULL, MAX(room, 1), sizeof *lost);
        size_t n;
        int rc;

        if (!lost)
                return SQLITE_NOMEM;
        rc = collect_lost(s, lost, room, &n);
        for (size_t i = 0; i < n && rc == SQLITE_OK; i++)
                rc = drop_lost(s, lost[i]);
        free(lost);
        return rc;
}

static void adopt_one(struct xobj *xobj, void *data)
{
        struct pass *pass = data;
        struct store *s = pass->store;

        if (pass->rc == SQLITE_OK)
                pass->rc = put_handle(s, xobj);
        if (pass->rc == SQLITE_OK)
                pass->rc = update_counters(s, xobj);
        if (pass->rc == SQLITE_OK)
                pass->rc = update_path(s, xobj);
}

/* Also one without handles: the records of those that it has for a moment do not say whose they are. */
static void adopt_client(struct client *client, void *data)
{
        struct pass *pass = data;
        struct store *s = pass->store;

        if (pass->rc == SQLITE_OK)
                pass->rc = put_client(s, client);
        if (pass->rc != SQLITE_OK)
                return;
        sqlite3_bind_int64(s->statements[STMT_CLIENT_LIVES], 1,
                           (sqlite3_int64)client_info(client)->id);
        pass->rc = store_step(s, STMT_CLIENT_LIVES);
}

int rows_adopt(struct store *s)
{
        struct pass pass = {.store = s};

        pass.rc = store_put_meta(s, s->db);
        if (pass.rc == SQLITE_OK)
                pass.rc = drop_all_lost(s);
        if (pass.rc == SQLITE_OK)
                pass.rc = store_step(s, STMT_CLIENTS_EXITED);
        if (pass.rc == SQLITE_OK)
                cobj_foreach_handle(s->cobj, adopt_one, &pass);
        client_table_foreach(cobj_clients(s->cobj), adopt_client, &pass);
        if (pass.rc == SQLITE_OK)
                pass.rc = rows_end_batch(s);
        /* Handles that were given or freed meanwhile: as after a refill. */
        s->reconcile = true;
        s->ahead = journal_head(s->journal);
        return pass.rc;
}

static const char *text_at(sqlite3_stmt *stmt, int column)
{
        return (const char *)sqlite3_column_text(stmt, column);
}

int rows_select(struct store *s, const struct store_job *job)
{
        sqlite3_stmt *stmt = s->statements[job->rows];
        int rc;

        sqlite3_bind_int64(stmt, 1, job->uid_filter == (uid_t)-1 ? -1 : (int64_t)job->uid_filter);
        while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
                struct store_handle_row row = {
                        .handle = text_at(stmt, 0),
                        .parent = text_at(stmt, 1),
                        .pid = sqlite3_column_int64(stmt, 2),
                        .ppid = sqlite3_column_int64(stmt, 3),
                        .uid = sqlite3_column_int64(stmt, 4),
                        .comm = text_at(stmt, 5),
                        .exe = text_at(stmt, 6),
                        .path = text_at(stmt, 7),
                        .type = text_at(stmt, 8),
                        .flags = text_at(stmt, 9),
                        .rights = text_at(stmt, 10),
                        .io_class = text_at(stmt, 11),
                        .sharing = text_at(stmt, 12),
                        .opened = sqlite3_column_double(stmt, 13),
                        .reads = (uint64_t)sqlite3_column_int64(stmt, 14),
                        .read_bytes = (uint64_t)sqlite3_column_int64(stmt, 15),
                        .writes = (uint64_t)sqlite3_column_int64(stmt, 16),
                        .write_bytes = (uint64_t)sqlite3_column_int64(stmt, 17),
                        .mappings = (uint64_t)sqlite3_column_int64(stmt, 18),
                        .mapped_bytes = (uint64_t)sqlite3_column_int64(stmt, 19),
                        .counted_by = text_at(stmt, 20),
                        .closed = sqlite3_column_double(stmt, 21),
                };

                if (!row.handle) { /* out of memory while it was made */
                        rc = SQLITE_NOMEM;
                        break;
                }
                job->fn(&row, job->data);
        }
        sqlite3_reset(stmt);
        return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

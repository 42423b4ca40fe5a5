/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The database of the store: its schema, and how a file becomes one.  The schema is documented,
 * with what is stable in it, in doc/k42fs-schema.5.
 *
 * A file that is there already is looked at before SQLite may touch it, because SQLite writes to
 * whatever it opens: header, application id, version and length are read directly, then SQLite
 * checks it as an immutable file, which takes no locks and makes no files.  A WAL that a killed
 * daemon left makes the main file alone meaningless (its length included); then the header has to
 * do.
 *
 * A new database is made under another name and renamed when it is whole, so that state.db never
 * exists without its application id, whoever is killed when.
 *
 * SQLite's locks on the file vanish when this process closes any descriptor of it, so nothing here
 * opens state.db by hand once SQLite has it open: whether it was removed is found by stat(2).
 */
#include "cobj/store_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SQLITE_HEADER_SIZE 100
#define BUSY_AT_OPEN_MS    5000
#define BUSY_LATER_MS      10 /* the writer has its own patience */

/* clang-format off: SQL has lines of its own */
#define ID_TEXT(column) "(" column " & 4294967295) || '.' || ((" column " >> 32) & 4294967295)"

static const char schema_drop[] = "DROP VIEW IF EXISTS open_handles;"
                                  "DROP TABLE IF EXISTS handles;"
                                  "DROP TABLE IF EXISTS clients;"
                                  "DROP TABLE IF EXISTS handle_history;"
                                  "DROP TABLE IF EXISTS meta;";

/* Columns that came later, at the end; the database of an earlier daemon gets them when it is adopted. */
#define ADDED(first, each)                                                                         \
        first "mappings INTEGER NOT NULL DEFAULT 0" each "mapped_bytes INTEGER NOT NULL DEFAULT 0"  \
        each "counted_by TEXT"

#define VIEW \
        "CREATE VIEW open_handles AS SELECT " ID_TEXT("h.token") " AS handle, " ID_TEXT( \
        "h.parent") " AS parent," \
        " c.pid AS pid, c.ppid AS ppid, c.uid AS uid, c.comm AS comm, c.exe AS " \
        "exe," \
        " h.path AS path, h.type AS type, h.flags AS flags, h.rights AS rights," \
        " h.class AS class, h.sharing AS sharing, h.opened / 1000000.0 AS " \
        "opened," \
        " h.reads AS reads, h.read_bytes AS read_bytes," \
        " h.writes AS writes, h.write_bytes AS write_bytes," \
        " h.mappings AS mappings, h.mapped_bytes AS mapped_bytes," \
        " h.counted_by AS counted_by" \
        " FROM handles h LEFT JOIN clients c ON c.id = h.client;"

static const char schema_create[] =
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
        "CREATE TABLE clients ("
        " id INTEGER PRIMARY KEY, pid INTEGER, ppid INTEGER, uid INTEGER, start_time INTEGER,"
        " comm TEXT, exe TEXT, exited INTEGER NOT NULL DEFAULT 0);"
        "CREATE INDEX clients_exited ON clients (id) WHERE exited;"
        "CREATE TABLE handles ("
        " token INTEGER PRIMARY KEY, parent INTEGER, client INTEGER, path TEXT, type TEXT,"
        " flags TEXT, rights TEXT, class TEXT, sharing TEXT, opened INTEGER,"
        " reads INTEGER, read_bytes INTEGER, writes INTEGER, write_bytes INTEGER" ADDED(", ", ", ") ");"
        "CREATE INDEX handles_client ON handles (client);"
        "CREATE TABLE handle_history ("
        " seq INTEGER PRIMARY KEY, handle TEXT, parent TEXT, pid INTEGER, ppid INTEGER,"
        " uid INTEGER, comm TEXT, exe TEXT, path TEXT, type TEXT, flags TEXT, rights TEXT,"
        " class TEXT, sharing TEXT, opened REAL, closed REAL,"
        " reads INTEGER, read_bytes INTEGER, writes INTEGER, write_bytes INTEGER" ADDED(", ", ", ") ");" VIEW;

static const char schema_add[] =
        ADDED("ALTER TABLE handles ADD ", ";ALTER TABLE handles ADD ") ";"
        ADDED("ALTER TABLE handle_history ADD ", ";ALTER TABLE handle_history ADD ") ";"
        "DROP VIEW open_handles;" VIEW;

#define HISTORY_COLUMNS                                                                            \
        "(seq, handle, parent, pid, ppid, uid, comm, exe, path, type, flags, rights, class,"       \
        " sharing, opened, closed, reads, read_bytes, writes, write_bytes, mappings, mapped_bytes, counted_by)"
/* The same parameters as HANDLE_INSERT's, and two more. */
#define HISTORY_VALUES " ?5, ?6, ?7, ?8, ?9, ?10 / 1000000.0, ?18 / 1000000.0, ?11, ?12, ?13, ?14, ?15, ?16, ?17"

static const char *const statement_sql[STMT_COUNT] = {
        [STMT_BEGIN] = "BEGIN IMMEDIATE",
        [STMT_COMMIT] = "COMMIT",
        [STMT_HANDLE_INSERT] =
                "INSERT OR IGNORE INTO handles"
                " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
        [STMT_HANDLE_DELETE] = "DELETE FROM handles WHERE token = ?1",
        [STMT_HANDLE_UPDATE] =
                "UPDATE handles SET rights = ?2, sharing = ?3, reads = ?4, read_bytes = ?5,"
                " writes = ?6, write_bytes = ?7, mappings = ?8, mapped_bytes = ?9, counted_by = ?10"
                " WHERE token = ?1",
        [STMT_HANDLE_PATH] = "UPDATE handles SET path = ?2 WHERE token = ?1 AND path IS NOT ?2",
        [STMT_HISTORY_MOVE] =
                "INSERT INTO handle_history " HISTORY_COLUMNS
                " SELECT ?19, " ID_TEXT("h.token") ", " ID_TEXT(
                        "h.parent") ","
                                    " c.pid, c.ppid, c.uid, c.comm, c.exe, h.path," HISTORY_VALUES
                                    " FROM handles h LEFT JOIN clients c ON c.id = h.client WHERE "
                                    "h.token = ?1",
        [STMT_HISTORY_ADD] =
                "INSERT INTO handle_history " HISTORY_COLUMNS
                " SELECT ?19, " ID_TEXT("?1") ", " ID_TEXT(
                        "?2") ","
                              " c.pid, c.ppid, c.uid, c.comm, c.exe, ?4," HISTORY_VALUES
                              " FROM (SELECT 1) LEFT JOIN clients c ON c.id = ?3",
        [STMT_HISTORY_TRIM] = "DELETE FROM handle_history WHERE seq < ?1",
        [STMT_CLIENT_INSERT] =
                "INSERT OR IGNORE INTO clients VALUES (?1, ?2, ?3, ?4, ?5, NULL, NULL, ?6)",
        [STMT_CLIENT_STRINGS] = "UPDATE clients SET comm = ?2, exe = ?3"
                                " WHERE id = ?1 AND (comm IS NOT ?2 OR exe IS NOT ?3)",
        [STMT_CLIENT_EXITED] = "UPDATE clients SET exited = 1 WHERE id = ?1",
        [STMT_CLIENT_COLLECT] = "DELETE FROM clients WHERE exited"
                                " AND NOT EXISTS (SELECT 1 FROM handles WHERE client = clients.id)",
        [STMT_HANDLES_CLEAR] = "DELETE FROM handles",
        [STMT_CLIENTS_CLEAR] = "DELETE FROM clients",
        [STMT_OPEN_HANDLES] =
                "SELECT handle, parent, pid, ppid, uid, comm, exe, path, type, flags, rights,"
                " class, sharing, opened, reads, read_bytes, writes, write_bytes, mappings,"
                " mapped_bytes, counted_by, NULL FROM open_handles WHERE ?1 < 0 OR uid = ?1 ORDER BY opened, handle",
        [STMT_CLOSED_HANDLES] =
                "SELECT handle, parent, pid, ppid, uid, comm, exe, path, type, flags, rights,"
                " class, sharing, opened, reads, read_bytes, writes, write_bytes, mappings,"
                " mapped_bytes, counted_by, closed FROM handle_history WHERE ?1 < 0 OR uid = ?1 ORDER BY seq",
        [STMT_JOURNAL_DONE] = "INSERT OR REPLACE INTO meta VALUES ('journal_done', ?1)",
        [STMT_HANDLE_TOKENS] = "SELECT token FROM handles",
        [STMT_HISTORY_LOST] =
                "INSERT INTO handle_history " HISTORY_COLUMNS
                " SELECT ?2, " ID_TEXT("h.token") ", " ID_TEXT(
                        "h.parent") ","
                                    " c.pid, c.ppid, c.uid, c.comm, c.exe, h.path, h.type, h.flags,"
                                    " h.rights, h.class, h.sharing, h.opened / 1000000.0,"
                                    " ?3 / 1000000.0, h.reads, h.read_bytes, h.writes, h.write_bytes,"
                                    " h.mappings, h.mapped_bytes, h.counted_by"
                                    " FROM handles h LEFT JOIN clients c ON c.id = h.client WHERE "
                                    "h.token = ?1",
        [STMT_CLIENTS_EXITED] = "UPDATE clients SET exited = 1",
        [STMT_CLIENT_LIVES] = "UPDATE clients SET exited = 0 WHERE id = ?1",
};
/* clang-format on */

int store_errno(struct store *s, int rc)
{
        int system;

        switch (rc & 0xff) {
        case SQLITE_OK:
        case SQLITE_ROW:
        case SQLITE_DONE:
                return 0;
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
                return -EBUSY;
        case SQLITE_NOMEM:
                return -ENOMEM;
        case SQLITE_FULL:
                return -ENOSPC;
        case SQLITE_READONLY:
                return -EROFS;
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
                return -EBADMSG;
        default:
                system = s->db ? sqlite3_system_errno(s->db) : 0;
                return system > 0 ? -system : -EIO;
        }
}

static uint32_t be32_at(const unsigned char *p)
{
        return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int not_ours(struct store *s, char **ret_error, const char *why)
{
        *ret_error = g_strdup_printf("%s: not a k42fs state database: %s", s->path, why);
        return -EBADMSG;
}

static int failed_at(struct store *s, char **ret_error, int r, const char *what)
{
        *ret_error = g_strdup_printf("%s: %s: %s", s->path, what, g_strerror(-r));
        return r;
}

static bool wal_has_content(struct store *s)
{
        struct stat st;

        return stat(s->wal_path, &st) == 0 && st.st_size > 0;
}

/* The header of an SQLite file (https://www.sqlite.org/fileformat.html, 1.3). */
static int check_header(struct store *s, const unsigned char *header, off_t size, char **ret_error)
{
        uint32_t version, page_size, pages;

        if (memcmp(header, "SQLite format 3", 16) != 0)
                return not_ours(s, ret_error, "the file is not a database");
        if (be32_at(header + 68) != STORE_APPLICATION_ID)
                return not_ours(s, ret_error, "it belongs to another application");
        version = be32_at(header + 60);
        if (version > STORE_SCHEMA_VERSION) {
                *ret_error = g_strdup_printf("%s: made by a newer k42fs: schema version %u, this "
                                             "one knows versions up to %d",
                                             s->path, version, STORE_SCHEMA_VERSION);
                return -EPROTO;
        }
        page_size = (uint32_t)header[16] << 8 | header[17];
        if (page_size == 1)
                page_size = 65536;
        pages = be32_at(header + 28);
        if (!wal_has_content(s) && (off_t)pages * page_size > size)
                return not_ours(s, ret_error, "the file is shorter than it says");
        return 0;
}

/* SQLite's own opinion of a file without a WAL, which it can have without writing anything. */
static int check_content(struct store *s, char **ret_error)
{
        g_autofree char *escaped =
                g_uri_escape_bytes((const guint8 *)s->path, strlen(s->path), "/");
        g_autofree char *uri = g_strdup_printf("file:%s?immutable=1", escaped);
        sqlite3_stmt *stmt = NULL;
        sqlite3 *db = NULL;
        int rc, r = 0;

        rc = sqlite3_open_v2(uri, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL);
        if (rc == SQLITE_OK)
                rc = sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &stmt, NULL);
        if (rc == SQLITE_OK)
                rc = sqlite3_step(stmt);
        if (rc == SQLITE_NOMEM)
                r = failed_at(s, ret_error, -ENOMEM, "cannot check the database");
        else if (rc != SQLITE_ROW)
                r = not_ours(s, ret_error, db ? sqlite3_errmsg(db) : "cannot be opened");
        else if (g_strcmp0((const char *)sqlite3_column_text(stmt, 0), "ok") != 0)
                r = not_ours(s, ret_error, "the database is damaged");
        sqlite3_finalize(stmt);
        sqlite3_close(db);
        return r;
}

int store_check_file(struct store *s, bool *ret_exists, char **ret_error)
{
        unsigned char header[SQLITE_HEADER_SIZE];
        struct stat st;
        ssize_t n;
        int fd, r = 0;

        fd = open(s->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT) {
                *ret_exists = false;
                return 0;
        }
        if (fd < 0)
                return failed_at(s, ret_error, -errno, "cannot open");
        if (fstat(fd, &st) < 0)
                r = failed_at(s, ret_error, -errno, "cannot stat");
        else if (!S_ISREG(st.st_mode))
                r = not_ours(s, ret_error, "not a regular file");
        if (r < 0 || st.st_size == 0) {
                close(fd);
                *ret_exists = false; /* an empty file has nothing to lose */
                return r;
        }
        n = pread(fd, header, sizeof header, 0);
        r = n < 0 ? -errno : 0;
        close(fd);
        if (r < 0)
                return failed_at(s, ret_error, r, "cannot read");
        if (n < (ssize_t)sizeof header)
                return not_ours(s, ret_error, "the file is not a database");
        r = check_header(s, header, st.st_size, ret_error);
        /* One that is adopted shows its damage when it is used. */
        if (r == 0 && !s->resume && !wal_has_content(s))
                r = check_content(s, ret_error);
        *ret_exists = true;
        return r;
}

static int put_meta(sqlite3 *db, const char *key, const char *text, int64_t number)
{
        sqlite3_stmt *stmt;
        int rc = sqlite3_prepare_v2(db, "INSERT OR REPLACE INTO meta VALUES (?1, ?2)", -1, &stmt, NULL);

        if (rc != SQLITE_OK)
                return rc;
        sqlite3_bind_text(stmt, 1, key, -1, SQLITE_STATIC);
        if (text)
                sqlite3_bind_text(stmt, 2, text, -1, SQLITE_STATIC);
        else
                sqlite3_bind_int64(stmt, 2, number);
        sqlite3_step(stmt);
        return sqlite3_finalize(stmt);
}

int store_put_meta(struct store *s, sqlite3 *db)
{
        int rc = put_meta(db, "mountpoint", s->mountpoint, 0);

        if (rc == SQLITE_OK)
                rc = put_meta(db, "source", s->source, 0);
        if (rc == SQLITE_OK)
                rc = put_meta(db, "version", K42_VERSION, 0);
        if (rc == SQLITE_OK)
                rc = put_meta(db, "daemon_pid", NULL, getpid());
        if (rc == SQLITE_OK)
                rc = put_meta(db, "history", NULL, s->history);
        if (rc == SQLITE_OK)
                rc = put_meta(db, "journal", NULL, (int64_t)journal_id(s->journal));
        return rc;
}

/* The schema and the meta table, in one transaction; `emptied`: there may be older ones. */
static int make_schema(struct store *s, sqlite3 *db, bool emptied)
{
        char pragmas[96];
        int rc;

        g_snprintf(pragmas, sizeof pragmas, "PRAGMA application_id = %d; PRAGMA user_version = %d",
                   STORE_APPLICATION_ID, STORE_SCHEMA_VERSION);
        rc = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
        if (rc == SQLITE_OK && emptied)
                rc = sqlite3_exec(db, schema_drop, NULL, NULL, NULL);
        if (rc == SQLITE_OK)
                rc = sqlite3_exec(db, schema_create, NULL, NULL, NULL);
        if (rc == SQLITE_OK)
                rc = sqlite3_exec(db, pragmas, NULL, NULL, NULL);
        if (rc == SQLITE_OK)
                rc = put_meta(db, "started", NULL, s->started / G_USEC_PER_SEC);
        if (rc == SQLITE_OK)
                rc = store_put_meta(s, db);
        if (rc == SQLITE_OK)
                rc = sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
        return rc;
}

static int prepare_all(struct store *s)
{
        for (int i = 0; i < STMT_COUNT; i++) {
                int rc = sqlite3_prepare_v3(s->db, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT,
                                            &s->statements[i], NULL);

                if (rc != SQLITE_OK)
                        return rc;
        }
        return SQLITE_OK;
}

static void remember_identity(struct store *s)
{
        struct stat st;

        s->dev = s->wal_dev = 0;
        s->ino = s->wal_ino = 0;
        if (stat(s->path, &st) == 0) {
                s->dev = st.st_dev;
                s->ino = st.st_ino;
        }
}

void store_notice_wal(struct store *s)
{
        struct stat st;

        if (s->wal_ino || atomic_load(&s->state) != STORE_FILE || stat(s->wal_path, &st) < 0)
                return;
        s->wal_dev = st.st_dev;
        s->wal_ino = st.st_ino;
}

int store_file_lost(struct store *s)
{
        struct stat st;

        if (stat(s->path, &st) < 0)
                return -ENOENT;
        if (st.st_dev != s->dev || st.st_ino != s->ino)
                return -ESTALE;
        /* Without its WAL the file is an old state of itself. */
        if (s->wal_ino &&
            (stat(s->wal_path, &st) < 0 || st.st_dev != s->wal_dev || st.st_ino != s->wal_ino))
                return -ENOENT;
        return 0;
}

void store_close_db(struct store *s, bool failed)
{
        for (int i = 0; i < STMT_COUNT; i++) {
                sqlite3_finalize(s->statements[i]);
                s->statements[i] = NULL;
        }
        if (s->db && failed) {
                int yes = 1;

                sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
                sqlite3_file_control(s->db, NULL, SQLITE_FCNTL_PERSIST_WAL, &yes);
        }
        sqlite3_close_v2(s->db);
        s->db = NULL;
}

/* An empty file that only its owner may read, for SQLite to fill. */
static int make_empty_file(const char *path)
{
        int fd;

        if (unlink(path) < 0 && errno != ENOENT)
                return -errno;
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
                return -errno;
        close(fd);
        return 0;
}

/* Puts the whole new database into place.  What is left of an older one beside it would be taken
 * for its own. */
static int put_into_place(struct store *s, const char *new_path)
{
        g_autofree char *shm_path = g_strconcat(s->path, "-shm", NULL);

        if ((unlink(s->wal_path) < 0 && errno != ENOENT) ||
            (unlink(shm_path) < 0 && errno != ENOENT) || rename(new_path, s->path) < 0)
                return -errno;
        return 0;
}

static int make_new_file(struct store *s, char **ret_error)
{
        g_autofree char *new_path = g_strconcat(s->path, ".new", NULL);
        int rc, r;

        r = make_empty_file(new_path);
        if (r < 0)
                return failed_at(s, ret_error, r, "cannot make the database");
        rc = sqlite3_open_v2(new_path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
        if (rc == SQLITE_OK)
                rc = sqlite3_exec(s->db, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF",
                                  NULL, NULL, NULL);
        if (rc == SQLITE_OK)
                rc = make_schema(s, s->db, false);
        r = store_errno(s, rc);
        store_close_db(s, false);
        if (r == 0)
                r = put_into_place(s, new_path);
        if (r < 0) {
                unlink(new_path);
                return failed_at(s, ret_error, r, "cannot make the database");
        }
        return 0;
}

/* Opens s->path for the writer.  Nothing here syncs: this state need not survive the machine. */
static int open_connection(struct store *s)
{
        int rc =
                sqlite3_open_v2(s->path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);

        if (rc != SQLITE_OK)
                return rc;
        sqlite3_busy_timeout(s->db, BUSY_AT_OPEN_MS);
        return sqlite3_exec(s->db,
                            "PRAGMA journal_mode = WAL;"
                            "PRAGMA synchronous = OFF;"
                            "PRAGMA temp_store = MEMORY;"
                            "PRAGMA journal_size_limit = 16777216",
                            NULL, NULL, NULL);
}

int store_open_file(struct store *s, bool exists, char **ret_error)
{
        bool had_wal = exists && wal_has_content(s);
        int rc, r;

        if (!exists) {
                r = make_new_file(s, ret_error);
                if (r < 0)
                        return r;
        }
        rc = open_connection(s);
        if (rc == SQLITE_OK && exists)
                rc = make_schema(s, s->db, true);
        if (rc == SQLITE_OK)
                rc = prepare_all(s);
        if (rc != SQLITE_OK) {
                r = store_errno(s, rc);
                if (r == -EBADMSG)
                        not_ours(s, ret_error, sqlite3_errmsg(s->db));
                else
                        *ret_error =
                                g_strdup_printf("%s: cannot open the database: %s", s->path,
                                                s->db ? sqlite3_errmsg(s->db) : sqlite3_errstr(rc));
                store_close_db(s, had_wal);
                return r;
        }
        sqlite3_busy_timeout(s->db, BUSY_LATER_MS);
        remember_identity(s);
        s->row_count = 0;
        s->history_first = s->history_next = 1;
        return 0;
}

/* The one number that a statement gives; 0 if it gives none. */
static int get_number(sqlite3 *db, const char *sql, int64_t *ret_number)
{
        sqlite3_stmt *stmt;
        int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);

        if (rc != SQLITE_OK)
                return rc;
        *ret_number = 0;
        rc = sqlite3_step(stmt);
        if (rc == SQLITE_ROW)
                *ret_number = sqlite3_column_int64(stmt, 0);
        sqlite3_finalize(stmt);
        return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* What the earlier daemon knew of this database. */
static int read_counts(struct store *s)
{
        int64_t rows, first, last, journal, done;
        int rc = get_number(s->db, "SELECT count(*) FROM handles", &rows);

        if (rc == SQLITE_OK)
                rc = get_number(s->db, "SELECT min(seq) FROM handle_history", &first);
        if (rc == SQLITE_OK)
                rc = get_number(s->db, "SELECT max(seq) FROM handle_history", &last);
        if (rc == SQLITE_OK)
                rc = get_number(s->db, "SELECT value FROM meta WHERE key = 'journal'", &journal);
        if (rc == SQLITE_OK)
                rc = get_number(s->db, "SELECT value FROM meta WHERE key = 'journal_done'", &done);
        if (rc != SQLITE_OK)
                return rc;
        s->row_count = (uint64_t)rows;
        s->history_first = first > 0 ? (uint64_t)first : 1;
        s->history_next = last >= first && first > 0 ? (uint64_t)last + 1 : s->history_first;
        s->applied = (uint64_t)journal == journal_id(s->journal) ? (uint64_t)done : 0;
        return SQLITE_OK;
}

/* A database that was made before columns were added to the schema gets them. */
static int add_columns(sqlite3 *db)
{
        int64_t there;
        int rc = get_number(db, "SELECT count(*) FROM pragma_table_info('handles') WHERE name = 'counted_by'",
                            &there);

        if (rc != SQLITE_OK || there)
                return rc;
        rc = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
        if (rc == SQLITE_OK)
                rc = sqlite3_exec(db, schema_add, NULL, NULL, NULL);
        if (rc == SQLITE_OK)
                rc = sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
        return rc;
}

int store_adopt_file(struct store *s, char **ret_error)
{
        int rc, r;

        rc = open_connection(s);
        if (rc == SQLITE_OK)
                rc = add_columns(s->db);
        if (rc == SQLITE_OK)
                rc = prepare_all(s);
        if (rc == SQLITE_OK)
                rc = read_counts(s);
        if (rc != SQLITE_OK) {
                r = store_errno(s, rc);
                *ret_error = g_strdup_printf("%s: cannot be used again: %s", s->path,
                                             s->db ? sqlite3_errmsg(s->db) : sqlite3_errstr(rc));
                store_close_db(s, true);
                return r;
        }
        sqlite3_busy_timeout(s->db, BUSY_LATER_MS);
        remember_identity(s);
        store_notice_wal(s);
        return 0;
}

int store_open_memory(struct store *s)
{
        int rc, r;

        rc = sqlite3_open_v2(":memory:", &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
        if (rc == SQLITE_OK)
                rc = make_schema(s, s->db, false);
        if (rc == SQLITE_OK)
                rc = prepare_all(s);
        if (rc != SQLITE_OK) {
                r = store_errno(s, rc);
                store_close_db(s, true);
                return r;
        }
        s->row_count = 0;
        s->history_first = s->history_next = 1;
        return 0;
}

int store_move_to_new_file(struct store *s)
{
        g_autofree char *new_path = g_strconcat(s->path, ".new", NULL);
        sqlite3_stmt *stmt = NULL;
        int rc, r;

        r = make_empty_file(new_path);
        if (r < 0)
                return r;
        rc = sqlite3_prepare_v2(s->db, "VACUUM INTO ?1", -1, &stmt, NULL);
        if (rc == SQLITE_OK)
                rc = sqlite3_bind_text(stmt, 1, new_path, -1, SQLITE_STATIC);
        if (rc == SQLITE_OK)
                sqlite3_step(stmt);
        rc = rc == SQLITE_OK ? sqlite3_finalize(stmt) : rc;
        r = store_errno(s, rc);
        if (r == 0) {
                /* Closed before: the last connection to go removes the WAL by name. */
                store_close_db(s, true);
                r = put_into_place(s, new_path);
        }
        if (r < 0) {
                unlink(new_path);
                return r;
        }
        rc = open_connection(s);
        if (rc == SQLITE_OK)
                rc = prepare_all(s);
        if (rc != SQLITE_OK)
                return store_errno(s, rc);
        sqlite3_busy_timeout(s->db, BUSY_LATER_MS);
        remember_identity(s);
        return 0;
}

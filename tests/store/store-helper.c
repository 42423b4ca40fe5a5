/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The other process of the store's tests.  It writes one byte when what it is asked for is the
 * case.
 *
 *   store-helper lock PATH MILLISECONDS    holds the write lock of the database for so long
 *   store-helper sql PATH STATEMENTS       runs them
 *   store-helper garbage PATH SIZE         writes so many bytes of garbage over the file
 *   store-helper die PATH HANDLES          is a daemon with so many handles that is killed
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fixture.h"

static void ready(void)
{
        if (write(STDOUT_FILENO, ".", 1) != 1)
                exit(1);
}

static void run(sqlite3 *db, const char *sql)
{
        char *error = NULL;

        if (sqlite3_exec(db, sql, NULL, NULL, &error) != SQLITE_OK) {
                fprintf(stderr, "store-helper: %s: %s\n", sql, error);
                exit(1);
        }
}

static void lock(const char *path, unsigned ms)
{
        sqlite3 *db = open_reader(path);

        run(db, "BEGIN IMMEDIATE");
        ready();
        g_usleep(ms * 1000);
        run(db, "COMMIT");
        sqlite3_close(db);
}

static void sql(const char *path, const char *statements)
{
        sqlite3 *db = open_reader(path);

        run(db, statements);
        sqlite3_close(db);
        ready();
}

static void garbage(const char *path, size_t size)
{
        g_autofree char *bytes = g_malloc(size);
        int fd = open(path, O_WRONLY | O_CLOEXEC);

        memset(bytes, 0xa5, size);
        if (fd < 0 || pwrite(fd, bytes, size, 0) != (ssize_t)size)
                exit(1);
        close(fd);
        ready();
}

static void die(const char *path, unsigned handles)
{
        struct fixture f = {0};
        g_autofree char *error = NULL;

        fixture_set_up(&f, NULL);
        fixture_close_store(&f);
        f.db_path = g_strdup(path);
        if (fixture_open_store(&f, &error) < 0)
                exit(1);
        for (unsigned i = 0; i < handles; i++)
                give(&f, i, NULL, O_RDONLY, XHANDLE_NONE);
        if (store_sync(f.store) < 0)
                exit(1);
        remove_tree(f.dir); /* nobody will tear it down; the database is elsewhere */
        ready();
        kill(getpid(), SIGKILL);
}

int main(int argc, char **argv)
{
        if (argc != 4)
                return 2;
        if (strcmp(argv[1], "lock") == 0)
                lock(argv[2], (unsigned)atoi(argv[3]));
        else if (strcmp(argv[1], "sql") == 0)
                sql(argv[2], argv[3]);
        else if (strcmp(argv[1], "garbage") == 0)
                garbage(argv[2], (size_t)atol(argv[3]));
        else if (strcmp(argv[1], "die") == 0)
                die(argv[2], (unsigned)atoi(argv[3]));
        else
                return 2;
        return 0;
}

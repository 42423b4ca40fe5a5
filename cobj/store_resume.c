/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The database of an earlier daemon.
 *
 * The truth about what is open is in the handles that came back.  What only the database and the
 * journal know is the past: so first the journal is applied to the rows as they were, which moves
 * what was closed to the history with the path that its row had, and then the rows are made equal
 * to the handles.
 *
 * What ended, or was given, since the mount is served again has its record behind that, and must
 * not be mistaken for something that the earlier daemon failed to tell: so it counts which handles
 * came back, not which ones live by now.
 *
 * The journal may be ahead of the truth: of a handle whose end was in it when the daemon was
 * killed, but whose record was not ended yet, it has an end that never came to be.  And the
 * database may be ahead of the journal: of the last batch, which was committed but not yet taken
 * out of the ring.  So each transaction writes down how far it has come.
 *
 * All this is the writer's, while the mount is served.  Requests wait only if the ring gets full.
 */
#include "cobj/store_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare_tokens(const void *a, const void *b)
{
        const xhandle one = *(const xhandle *)a, other = *(const xhandle *)b;

        return (one > other) - (one < other);
}

bool store_came_back(const struct store *s, xhandle token)
{
        return s->n_came_back > 0 &&
               bsearch(&token, s->came_back, s->n_came_back, sizeof *s->came_back, compare_tokens);
}

static void remember(struct xobj *xobj, void *data)
{
        struct store *s = data;

        s->came_back[s->n_came_back++] = xobj_token(xobj);
}

static void take_back_end(struct journal_record *record, void *data)
{
        if (record->type == JOURNAL_HANDLE_FREED && store_came_back(data, record->handle.handle))
                record->type = JOURNAL_NONE;
}

void store_resume_handles(struct store *s)
{
        const size_t n = cobj_handle_count(s->cobj);

        s->adopt_to = journal_head(s->journal);
        s->came_back = reallocarray(NULL, MAX(n, 1), sizeof *s->came_back);
        if (!s->came_back) { /* then all rows are made anew */
                s->adopting = false;
                s->refill = true;
                return;
        }
        cobj_foreach_handle(s->cobj, remember, s);
        qsort(s->came_back, s->n_came_back, sizeof *s->came_back, compare_tokens);
        journal_foreach_pending(s->journal, take_back_end, s);
}

/* Moves the database away, with what belongs to it; for people to look at. */
static void move_aside(struct store *s)
{
        static const char *const suffixes[] = {"-wal", "-shm", ""};

        for (unsigned i = 0; i < G_N_ELEMENTS(suffixes); i++) {
                g_autofree char *from = g_strconcat(s->path, suffixes[i], NULL);
                g_autofree char *to = g_strconcat(s->path, ".broken", suffixes[i], NULL);

                if (rename(from, to) < 0 && errno == ENOENT)
                        remove(to); /* of an earlier one, to which it would not belong */
        }
}

int store_start_anew(struct store *s, const char *why)
{
        g_autofree char *error = NULL;
        int r;

        s->adopting = false;
        store_close_db(s, true);
        move_aside(s);
        s->wal_ino = 0;
        r = store_open_file(s, false, &error);
        s->refill = true;
        s->busy_since = 0;
        if (r < 0)
                return r;
        g_warning("%s: is not used any more and was moved to %s.broken: %s", s->path, s->path, why);
        return 0;
}

/* Until store_resume(); false if it will not come. */
static bool wait_for_handles(struct store *s)
{
        bool resumed;

        pthread_mutex_lock(&s->lock);
        while (!s->resumed && !s->stopping)
                pthread_cond_wait(&s->changed, &s->lock);
        resumed = s->resumed;
        pthread_mutex_unlock(&s->lock);
        return resumed;
}

bool store_is_unusable(int rc)
{
        switch (rc & 0xff) {
        case SQLITE_BUSY:
        case SQLITE_NOMEM:
        case SQLITE_FULL:
        case SQLITE_IOERR:
        case SQLITE_READONLY:
        case SQLITE_CANTOPEN:
                return false;
        default:
                return true;
        }
}

bool store_resume_open(struct store *s)
{
        g_autofree char *error = NULL;
        bool exists;
        int r;

        if (!wait_for_handles(s))
                return false;
        r = store_check_file(s, &exists, &error);
        if (r == 0 && exists)
                r = store_adopt_file(s, &error);
        else if (r == 0)
                r = -ENOENT;
        if (r == 0)
                return true;
        if (r == -ENOENT) { /* somebody removed it */
                s->adopting = false;
                r = store_open_file(s, false, &error);
                s->refill = true;
                if (r == 0)
                        g_warning("%s: was removed, and made again", s->path);
        } else if (r != -ENOMEM && r != -ENOSPC) {
                const char *why = error + strlen(s->path);

                r = store_start_anew(s, *why == ':' ? why + 2 : why);
        }
        if (r == 0)
                return true;
        g_warning("%s: the handles are kept in memory: %s", s->path, g_strerror(-r));
        atomic_store(&s->state, STORE_MEMORY);
        s->adopting = false;
        s->refill = true;
        return true;
}

/* What the database has already. */
static void skip_applied(struct store *s)
{
        const uint64_t applied = MIN(s->applied, s->adopt_to);
        uint32_t n = 1;

        while (s->consumed < applied && n > 0) {
                n = journal_peek(s->journal, s->batch,
                                 (uint32_t)MIN(applied - s->consumed, STORE_BATCH));
                journal_consume(s->journal, n);
                s->consumed += n;
        }
}

void store_resume_rows(struct store *s)
{
        if (s->adopting && s->db) {
                skip_applied(s);
                store_drain_to(s, s->adopt_to);
        }
        if (s->adopting)
                store_transaction(s, rows_adopt);
        s->adopting = false;
        free(g_steal_pointer(&s->came_back));
        s->n_came_back = 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The writer thread: takes records from the journal, a transaction a batch, and does what callers
 * queued as jobs.  It is the only one that touches the database (store_private.h says who owns
 * what).
 *
 * Asleep while nothing happens; after a first record it waits until a quarter of the ring is full
 * or 200 ms are over, so that what comes and goes meanwhile costs no row.
 *
 * What can go wrong, and what is done about it:
 *
 *  - Somebody else holds the write lock.  Records stay in the journal and it is tried again, for
 * ten seconds.  Before the ring is full, which would hold requests up, records are dropped instead
 *    (only the ends of handles are kept, when there is a history): the living handles are the
 * truth, and once the lock is to be had all rows are made from them.
 *  - The file was removed.  The database is still open; it is written to a new file.
 *  - Anything else, or all this in vain: a database in memory takes its place, filled from the
 *    living handles.  Even that may fail for want of memory; then it is tried again every second.
 *
 * In every case records are consumed only when they are in a database, or when a refill will make
 * up for them: the refill reads the living handles after the records were dropped, and a handle
 * whose end was among them was not living any more.
 */
#include "cobj/store_private.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define IDLE_US        (INT64_C(3600) * G_USEC_PER_SEC)
#define GATHER_US      (200 * 1000)
#define COMMIT_WAIT_US (10 * 1000) /* for a record that is reserved and not committed */
#define BUSY_WAIT_US   (20 * 1000)
#define BUSY_MAX_US    (10 * G_USEC_PER_SEC)
#define BUSY_CLOSE_US  (1 * G_USEC_PER_SEC) /* at the end nobody wants to wait so long */
#define RETRY_US       (1 * G_USEC_PER_SEC)

static bool is_busy(int rc)
{
        return (rc & 0xff) == SQLITE_BUSY;
}

static bool is_stopping(struct store *s)
{
        bool stopping;

        pthread_mutex_lock(&s->lock);
        stopping = s->stopping;
        pthread_mutex_unlock(&s->lock);
        return stopping;
}

static bool has_jobs(struct store *s)
{
        bool has;

        pthread_mutex_lock(&s->lock);
        has = s->jobs || s->stopping;
        pthread_mutex_unlock(&s->lock);
        return has;
}

static void publish_counts(struct store *s)
{
        atomic_store(&s->rows, s->db ? s->row_count : 0);
        atomic_store(&s->history_rows, s->db ? s->history_next - s->history_first : 0);
}

static int commit(struct store *s)
{
        int rc = store_step(s, STMT_COMMIT);

        if (rc == SQLITE_OK) {
                store_notice_wal(s);
                publish_counts(s);
        }
        return rc;
}

/* Keeps the ends of handles among `n` records of the batch, at most as many as the history holds.
 */
static void spill(struct store *s, uint32_t n)
{
        for (uint32_t i = 0; s->history && i < n; i++) {
                if (s->batch[i].type != JOURNAL_HANDLE_FREED)
                        continue;
                if (s->n_spilled == s->spilled_room && s->spilled_room < s->history) {
                        uint64_t room = MIN(s->history, MAX(1024, (uint64_t)s->spilled_room * 2));
                        void *larger = realloc(s->spilled, room * sizeof *s->spilled);

                        if (larger) {
                                s->spilled = larger;
                                s->spilled_room = (uint32_t)room;
                        }
                }
                if (s->spilled_room == 0)
                        continue;
                /* A ring: what is overwritten would have been trimmed. */
                s->spilled[s->n_spilled++ % s->spilled_room] = s->batch[i].handle;
        }
}

/* Takes everything out of the journal without writing it; a refill has to make up for it. */
static void drop_records(struct store *s)
{
        uint32_t n;

        s->refill = true;
        while ((n = journal_peek(s->journal, s->batch, STORE_BATCH)) > 0) {
                spill(s, n);
                journal_consume(s->journal, n);
                s->consumed += n;
        }
}

/* Ends the use of this database, with one line that says why, and goes on in memory. */
static void fail_over(struct store *s, const char *why)
{
        const bool had_file = atomic_load(&s->state) == STORE_FILE;

        if (had_file)
                g_warning("%s: the handles are kept in memory from here on: %s", s->path, why);
        else if (!s->memory_failed)
                g_warning("%s: the handles cannot even be kept in memory: %s", s->path, why);
        store_close_db(s, true);
        atomic_store(&s->state, STORE_MEMORY);
        s->refill = true;
        s->busy_since = 0;
        s->memory_failed = !had_file;
        s->retry_at = had_file ? 0 : g_get_monotonic_time() + RETRY_US;
        publish_counts(s);
}

static void fail_over_rc(struct store *s, int rc)
{
        char why[256]; /* the message dies with the connection */

        g_strlcpy(why, s->db ? sqlite3_errmsg(s->db) : sqlite3_errstr(rc), sizeof why);
        if (s->adopting && store_is_unusable(rc) && store_start_anew(s, why) == 0)
                return;
        fail_over(s, why);
}

/* Sees to it that there is a database, and that the file is still there.  0 or -errno. */
static int ensure_database(struct store *s)
{
        int r;

        if (s->db && atomic_load(&s->state) == STORE_FILE) {
                r = store_file_lost(s);
                if (r == -ESTALE) {
                        fail_over(s, "another file is in its place");
                } else if (r < 0) {
                        r = store_move_to_new_file(s);
                        if (r < 0)
                                fail_over(s, g_strerror(-r));
                        else
                                g_warning("%s: was removed, and made again", s->path);
                }
        }
        if (s->db)
                return 0;
        if (s->retry_at && g_get_monotonic_time() < s->retry_at)
                return -ENOMEM;
        r = store_open_memory(s);
        if (r < 0)
                fail_over(s, g_strerror(-r));
        return r;
}

/* Somebody else has the write lock. */
static void wait_while_busy(struct store *s)
{
        const int64_t now = g_get_monotonic_time();
        const uint32_t full = MAX(1, journal_size(s->journal) / 4 * 3);

        if (!s->busy_since)
                s->busy_since = now;
        if (now - s->busy_since > (is_stopping(s) ? BUSY_CLOSE_US : BUSY_MAX_US)) {
                fail_over(s, "another process has locked the database for too long");
                return;
        }
        if (journal_pending(s->journal) >= full)
                drop_records(s);
        journal_wait(s->journal, full, BUSY_WAIT_US);
}

static int begin(struct store *s)
{
        int rc = store_step(s, STMT_BEGIN);

        if (rc == SQLITE_OK) {
                s->busy_since = 0;
                s->last_client = ID_NONE;
        }
        return rc;
}

/* Makes up for records that were dropped. */
static int refill(struct store *s)
{
        const uint64_t n = MIN(s->n_spilled, s->spilled_room);
        int rc = SQLITE_OK;

        s->adopting = false; /* nothing is left of the rows as they were */
        for (uint64_t i = s->n_spilled - n; i < s->n_spilled && rc == SQLITE_OK; i++)
                rc = rows_history_add(s, &s->spilled[i % s->spilled_room]);
        return rc == SQLITE_OK ? rows_refill(s) : rc;
}

/* One transaction: up to a batch of records, and the refill if one is due.  *ret_n: how many. */
static int write_batch(struct store *s, uint32_t *ret_n)
{
        /* Not mixed with what this daemon's handles do meanwhile. */
        const uint32_t max = s->adopting ? (uint32_t)MIN(s->adopt_to - s->consumed, STORE_BATCH)
                                         : STORE_BATCH;
        const uint32_t n = journal_peek(s->journal, s->batch, max);
        sqlite3_int64 changes;
        int rc;

        *ret_n = n;
        if (n == 0 && !s->refill)
                return SQLITE_OK;
        changes = sqlite3_total_changes64(s->db);
        rc = begin(s);
        if (is_busy(rc)) {
                wait_while_busy(s);
                return SQLITE_OK;
        }
        if (rc == SQLITE_OK && s->refill)
                rc = refill(s);
        if (rc == SQLITE_OK)
                rc = rows_apply_batch(s, n);
        if (rc == SQLITE_OK)
                rc = rows_end_batch(s);
        /* What changed nothing may be looked at again. */
        if (rc == SQLITE_OK && sqlite3_total_changes64(s->db) != changes)
                rc = rows_journal_done(s, s->consumed + n);
        if (rc == SQLITE_OK)
                rc = commit(s);
        if (rc != SQLITE_OK)
                return rc;
        s->refill = false;
        s->memory_failed = false;
        s->n_spilled = 0;
        journal_consume(s->journal, n);
        s->consumed += n;
        return SQLITE_OK;
}

/* Returns when the first `target` records ever are in the database.  0 or -errno. */
int store_drain_to(struct store *s, uint64_t target)
{
        while (s->consumed < target || s->refill) {
                uint32_t n;
                int rc, r;

                r = ensure_database(s);
                if (r < 0) {
                        drop_records(s);
                        return r;
                }
                rc = write_batch(s, &n);
                if (rc != SQLITE_OK)
                        fail_over_rc(s, rc);
                else if (n == 0 && s->consumed < target)
                        journal_wait(s->journal, 1, COMMIT_WAIT_US);
        }
        return 0;
}

void store_transaction(struct store *s, int (*fn)(struct store *s))
{
        while (s->db && !s->refill && !is_stopping(s)) {
                int rc = begin(s);

                if (is_busy(rc)) {
                        wait_while_busy(s);
                        continue;
                }
                if (rc == SQLITE_OK)
                        rc = fn(s);
                if (rc == SQLITE_OK)
                        rc = commit(s);
                if (rc == SQLITE_OK)
                        return;
                fail_over_rc(s, rc);
        }
}

/* The journal up to `target`, and what the living handles say now. */
static int sync_to(struct store *s, uint64_t target)
{
        for (;;) {
                int rc, r;

                r = store_drain_to(s, target);
                if (r == 0)
                        r = ensure_database(s);
                if (r < 0)
                        return r;
                if (s->refill)
                        continue;
                rc = begin(s);
                if (is_busy(rc)) {
                        wait_while_busy(s);
                        continue;
                }
                if (rc == SQLITE_OK)
                        rc = rows_update_living(s);
                if (rc == SQLITE_OK)
                        rc = commit(s);
                if (rc == SQLITE_OK)
                        return 0;
                fail_over_rc(s, rc);
        }
}

static struct store_job *take_jobs(struct store *s)
{
        struct store_job *jobs;

        pthread_mutex_lock(&s->lock);
        jobs = s->jobs;
        s->jobs = NULL;
        pthread_mutex_unlock(&s->lock);
        return jobs;
}

static void run_jobs(struct store *s, struct store_job *jobs)
{
        uint64_t target = 0;
        int r;

        for (struct store_job *job = jobs; job; job = job->next)
                target = MAX(target, job->target);
        r = sync_to(s, target);
        for (struct store_job *job = jobs, *next; job; job = next) {
                int result = r;

                next = job->next; /* it is gone the moment it is done */
                if (result == 0 && job->fn && s->db) {
                        int rc = rows_select(s, job);

                        result = store_errno(s, rc);
                        if (rc != SQLITE_OK)
                                fail_over_rc(s, rc);
                } else if (result == 0 && job->fn) {
                        result = -EIO; /* it failed for the job before */
                }
                pthread_mutex_lock(&s->lock);
                job->result = result;
                job->done = true;
                pthread_cond_broadcast(&s->changed);
                pthread_mutex_unlock(&s->lock);
        }
}

void *store_writer_main(void *store)
{
        struct store *s = store;
        const uint32_t quarter = MAX(1, journal_size(s->journal) / 4);

        if (s->resume) {
                if (!store_resume_open(s))
                        return NULL;
                store_resume_rows(s);
        }
        for (;;) {
                struct store_job *jobs = take_jobs(s);

                if (jobs) {
                        run_jobs(s, jobs);
                        continue;
                }
                if (is_stopping(s))
                        break;
                if (!s->refill)
                        journal_wait(s->journal, 1, IDLE_US);
                if (!has_jobs(s))
                        journal_wait(s->journal, quarter, GATHER_US);
                if (!has_jobs(s))
                        store_drain_to(s, journal_head(s->journal));
        }
        store_drain_to(s, journal_head(s->journal));
        return NULL;
}

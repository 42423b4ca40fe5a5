/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Clients, handles, descriptions and holders come back; life.h says how a daemon is killed here.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "life.h"

static void test_comes_back(struct fixture *f, gconstpointer data)
{
        struct life *one = first_life(f), *two;
        const pid_t child = child_start(f->children);
        struct description *d = open_as(one, 2, getpid(), O_RDWR), *again;
        struct k42_lazy_reopen of_child = reopen_as(d, child, d->opener);
        const uint64_t fh = d->id, opener = d->opener;
        struct k42_identify identify = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof identify}};
        g_autoptr(K42Client) client = NULL;
        g_autoptr(K42Xobj) xobj = NULL;
        access_rights match, nomatch;
        struct kept_handle *kept;

        description_count_read(d, child, 10);
        description_count_read(d, child, 5);
        description_count_write(d, getpid(), 7);
        xobj = cobj_get_xobj(one->cobj, of_child.token);
        g_assert_cmpint(xobj_restrict(xobj, RIGHT_READ | RIGHT_DUPLICATE, RIGHT_DUPLICATE), ==, 0);
        g_clear_pointer(&xobj, xobj_unref);

        two = next_life(f);
        g_assert_cmpuint(two->resumed.descriptions, ==, 1);
        g_assert_cmpuint(two->resumed.handles, ==, 2);
        g_assert_cmpuint(client_table_count(cobj_clients(two->cobj)), ==, 2);
        again = description_from_fh(two->lazy, fh);
        g_assert_nonnull(again);
        g_assert_cmpint(again->fd, ==, -1);
        g_assert_cmpint(again->flags, ==, O_RDWR);
        g_assert_cmpint(again->io_class, ==, IO_CLASS_COUNTED);
        g_assert_cmpint(again->opened, ==, d->opened);
        g_assert_true(again->object == &two->things[2].object);
        g_assert_cmpint(lazy_identify(again, &identify), ==, 0);
        g_assert_cmpuint(identify.opener, ==, opener);
        g_assert_cmpint(identify.opener_pid, ==, getpid());
        g_assert_cmpuint(identify.handles, ==, 2);

        kept = record_of(two, of_child.token);
        g_assert_cmpuint(kept->reads, ==, 2);
        g_assert_cmpuint(kept->read_bytes, ==, 15);
        g_assert_cmpuint(kept->writes, ==, 0);
        g_assert_cmpuint(kept->parent, ==, opener);
        g_assert_cmpuint(kept->sharing, ==, SHARING_SHARED);
        kept = record_of(two, opener);
        g_assert_cmpuint(kept->writes, ==, 1);
        g_assert_cmpuint(kept->write_bytes, ==, 7);
        xobj = cobj_get_xobj(two->cobj, of_child.token);
        xobj_get_rights(xobj, &match, &nomatch);
        g_assert_cmpuint(match, ==, (RIGHT_READ | RIGHT_DUPLICATE));
        g_assert_cmpuint(nomatch, ==, RIGHT_DUPLICATE);
        g_assert_cmpint(client_info(xobj_client(xobj))->pid, ==, child);
        g_clear_pointer(&xobj, xobj_unref);

        /* It goes on: the same process gets the same handle, counts go on, names are known. */
        g_assert_cmpuint(reopen_as(again, child, 0).token, ==, of_child.token);
        description_count_read(again, child, 1);
        g_assert_cmpuint(record_of(two, of_child.token)->read_bytes, ==, 16);
        g_assert_cmpint(client_table_get(cobj_clients(two->cobj), child, &client), ==, 0);
        {
                g_autofree char *comm = client_dup_comm(client);

                g_assert_cmpstr(comm, ==, "test-resume");
        }
        g_clear_pointer(&client, client_unref);
        g_assert_cmpint(two->given, ==, 0);
        g_assert_cmpint(two->appeared, ==, 0);
        child_end(child);
        wait_until_stale(two, of_child.token);
        for (int i = 0; i < 1000 && two->exited == 0; i++)
                g_usleep(5000);
        g_assert_cmpint(two->exited, ==, 1);
        life_end(two);
        life_end(one);
}

/* Processes that ended while there was no daemon: their handles end, and leave what they leave. */
static void test_ended_meanwhile(struct fixture *f, gconstpointer data)
{
        struct life *one = first_life(f), *two;
        const pid_t opener = child_start(f->children), child = child_start(f->children);
        struct description *d = open_as(one, 0, opener, O_RDONLY);
        struct k42_lazy_reopen of_child = reopen_as(d, child, d->opener), late;
        const uint64_t fh = d->id, first = d->opener;

        two = next_life_unsettled(f);
        child_end(opener);
        child_end(child);
        g_assert_nonnull(record_of(two, first)); /* for its handles to be given back */
        client_table_settle(cobj_clients(two->cobj));
        wait_until_stale(two, first);
        wait_until_stale(two, of_child.token);
        g_assert_cmpuint(client_table_count(cobj_clients(two->cobj)), ==, 0);
        d = description_from_fh(two->lazy, fh);
        for (int i = 0; i < 1000 && lazy_state_holders(d->left) < 2; i++)
                g_usleep(5000); /* the last act of a handle comes a little later */
        g_assert_cmpuint(lazy_state_holders(d->left), ==, 2);
        late = reopen_as(d, getpid(), of_child.token);
        g_assert_cmpuint(late.parent, ==, of_child.token); /* the lineage */
        g_assert_cmpuint(late.token, !=, first);
        g_assert_cmpuint(late.token, !=, of_child.token);
        for (int i = 0; i < 1000 && two->exited < 2; i++)
                g_usleep(5000);
        g_assert_cmpint(two->exited, ==, 2);
        life_end(two);
        life_end(one);
}

/* A process id that is another process's now is not taken for the old one. */
static void test_pid_reused(struct fixture *f, gconstpointer data)
{
        struct life *one = first_life(f), *two;
        struct description *d = open_as(one, 0, getpid(), O_RDONLY);
        g_autoptr(K42Client) client = NULL;
        struct kept_client *kept;
        uint64_t cursor = 0;
        const xhandle token = d->opener;
        struct keep *keep;
        uint32_t damaged;

        keep = killed(f, &damaged);
        kept = keep_next(keep, KEEP_CLIENT, &cursor, NULL);
        g_assert_nonnull(kept);
        g_assert_cmpint(kept->info.pid, ==, getpid());
        kept->info.start_time--; /* an earlier process had this id */
        two = life_new(f, keep);
        client_table_resume(cobj_clients(two->cobj));
        lazy_resume(two->lazy, object_of, two, &two->resumed);
        /* Even before anybody has looked. */
        g_assert_cmpint(client_table_get(cobj_clients(two->cobj), getpid(), &client), ==, 0);
        g_assert_cmpuint(client_info(client)->id, !=, kept->info.id);
        client_table_settle(cobj_clients(two->cobj));
        wait_until_stale(two, token);
        life_end(one);
        g_clear_pointer(&client, client_unref);
        life_end(two);
}

/* What was left behind comes back, restricted rights included, and ids are not given out again. */
static void test_holders(struct fixture *f, gconstpointer data)
{
        struct life *life = first_life(f);
        struct description *d = open_as(life, 0, getpid(), O_RDWR);
        const uint64_t fh = d->id;
        g_autoptr(GHashTable) tokens =
                g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
        xhandle restricted = XHANDLE_NONE;

        for (unsigned round = 0; round < 10; round++) {
                struct lazy_holder holder;
                struct life *next;

                for (unsigned i = 0; i < 3; i++) {
                        const pid_t child = child_start(f->children);
                        const xhandle token = reopen_as(d, child, 0).token;

                        g_assert_true(g_hash_table_add(tokens, g_memdup2(&token, sizeof token)));
                        if (round == 0 && i == 0) {
                                g_autoptr(K42Xobj) xobj = cobj_get_xobj(life->cobj, token);

                                restricted = token;
                                xobj_restrict(xobj, RIGHT_READ, RIGHTS_NONE);
                        }
                        child_end(child);
                        wait_until_stale(life, token);
                        /* It is left by the last act, a little later. */
                        for (int n = 0; n < 1000; n++) {
                                if (lazy_state_find_token(d->left, token, &holder))
                                        break;
                                g_usleep(5000);
                        }
                        g_assert_true(lazy_state_find_token(d->left, token, &holder));
                }
                next = next_life(f);
                g_assert_cmpuint(next->resumed.holders, ==, 3 * (round + 1));
                g_assert_cmpuint(next->resumed.handles, ==, 1);
                life_end(life);
                life = next;
                d = description_from_fh(life->lazy, fh);
                g_assert_nonnull(d);
                g_assert_true(lazy_state_find_token(d->left, restricted, &holder));
                g_assert_cmpuint(holder.match, ==, RIGHT_READ);
                g_assert_cmpuint(holder.nomatch, ==, RIGHTS_NONE);
        }
        life_end(life);
}

static void test_without_client(struct fixture *f, gconstpointer data)
{
        struct life *one = first_life(f), *two;
        struct description *d = open_as(one, 0, 0, O_RDONLY);
        const xhandle token = d->opener;

        two = next_life(f);
        g_assert_cmpuint(two->resumed.handles, ==, 1);
        {
                g_autoptr(K42Xobj) xobj = cobj_get_xobj(two->cobj, token);

                g_assert_cmpint(client_info(xobj_client(xobj))->pid, ==, 0);
        }
        life_end(two);
        life_end(one);
}

/* Killed between two stores of one thread. */
static void test_half_done(struct fixture *f, gconstpointer data)
{
        struct life *one = first_life(f), *two;
        struct description *d[4];
        struct kept_description *kept;
        struct kept_client *kept_client;
        uint64_t cursor = 0, fh[4];
        xhandle tokens[4];
        struct keep *keep;
        uint32_t damaged;

        for (unsigned i = 0; i < 4; i++) {
                d[i] = open_as(one, i, i == 3 ? child_start(f->children) : getpid(), O_RDONLY);
                fh[i] = d[i]->id;
                tokens[i] = d[i]->opener;
        }
        keep = killed(f, &damaged);
        while ((kept = keep_next(keep, KEEP_DESCRIPTION, &cursor, NULL))) {
                if (kept->id == fh[0])
                        kept->state = 0; /* RELEASE had begun */
                if (kept->id == fh[1])
                        kept->opener = 0; /* its handle was just given */
        }
        cursor = 0;
        while ((kept_client = keep_next(keep, KEEP_CLIENT, &cursor, NULL)))
                if (kept_client->info.pid != getpid())
                        kept_client->ended = 1; /* and its handles were about to */
        two = life_new(f, keep);
        g_assert_cmpuint(client_table_resume(cobj_clients(two->cobj)), ==, 0);
        g_assert_cmpuint(client_table_count(cobj_clients(two->cobj)), ==, 1);
        lazy_resume(two->lazy, object_of, two, &two->resumed);
        g_assert_cmpuint(two->resumed.dropped, ==, 0);
        g_assert_cmpuint(two->resumed.descriptions, ==, 3);
        g_assert_null(description_from_fh(two->lazy, fh[0]));
        g_assert_null(record_of(two, tokens[0]));
        g_assert_cmpint(two->freed, ==, 1);
        g_assert_nonnull(record_of(two, tokens[1]));
        g_assert_nonnull(record_of(two, tokens[3]));
        client_table_settle(cobj_clients(two->cobj));
        wait_until_stale(two, tokens[3]);
        g_assert_nonnull(description_from_fh(two->lazy, fh[3]));
        life_end(one);
        life_end(two);
}

static struct fixture *while_freeing_fixture;
static xhandle given_while_freeing;
static struct life *killed_while_freeing;

static void give_and_kill(struct life *life)
{
        given_while_freeing = open_as(life, 1, getpid(), O_RDONLY)->opener;
        killed_while_freeing = next_life(while_freeing_fixture);
}

/* A handle is given while another ends: the two must not be found under one index, or one is lost.
 */
static void test_given_while_freed(struct fixture *f, gconstpointer data)
{
        struct life *one = first_life(f);
        const struct description *d = open_as(one, 0, getpid(), O_RDONLY);

        while_freeing_fixture = f;
        one->freeing = give_and_kill;
        g_assert_true(xobj_free(one->cobj, d->opener));
        g_assert_nonnull(record_of(one, given_while_freeing));
        g_assert_nonnull(record_of(killed_while_freeing, given_while_freeing));
        g_assert_cmpuint(killed_while_freeing->resumed.descriptions, ==, 2);
        life_end(killed_while_freeing);
        life_end(one);
}

/* What cannot be put together is dropped, said once, and its memory is free. */
static void test_dropped(struct fixture *f, gconstpointer data)
{
        struct life *one = first_life(f), *two;
        struct kept_description *kept;
        struct kept_handle *handle;
        struct kept_client *client;
        uint64_t cursor = 0, fh[6];
        struct description *d;
        struct keep *keep;
        uint32_t damaged;

        for (unsigned i = 0; i < 6; i++)
                fh[i] = open_as(one, i, getpid(), O_RDWR)->id;
        keep = killed(f, &damaged);
        while ((kept = keep_next(keep, KEEP_DESCRIPTION, &cursor, NULL))) {
                if (kept->id == fh[0])
                        kept->object = 99;
                if (kept->id == fh[1])
                        kept->id = UINT64_MAX;
                if (kept->id == fh[2])
                        kept->id = fh[3];
                if (kept->id == fh[4])
                        kept->type = 77;
        }
        cursor = 0;
        while ((handle = keep_next(keep, KEEP_HANDLE, &cursor, NULL)))
                if (handle->description == fh[5])
                        handle->client = 12345;
        cursor = 0;
        client = keep_alloc(keep, sizeof *client);
        keep_commit(client, KEEP_CLIENT); /* id 0 */
        two = life_new(f, keep);
        g_assert_cmpuint(client_table_resume(cobj_clients(two->cobj)), ==, 1);
        g_test_expect_message(NULL, G_LOG_LEVEL_WARNING, "9 records of open files*dropped");
        lazy_resume(two->lazy, object_of, two, &two->resumed);
        g_test_assert_expected_messages();
        g_assert_cmpuint(two->resumed.descriptions, ==, 2);
        g_assert_cmpuint(two->resumed.handles, ==, 1);
        g_assert_cmpuint(two->resumed.dropped, ==, 9);
        /* The handle without a client has left its access behind. */
        d = description_from_fh(two->lazy, fh[5]);
        g_assert_cmpuint(lazy_state_holders(d->left), ==, 1);
        client_table_settle(cobj_clients(two->cobj));
        life_end(one);
        life_end(two);
}

static void test_doubtful(struct fixture *f, gconstpointer data)
{
        struct life *one = first_life(f), *two, *three;
        struct description *d[3], *found;
        uint64_t fh[3];
        uint32_t cursor = 0;

        for (unsigned i = 0; i < 3; i++)
                fh[i] = open_as(one, i, getpid(), O_RDONLY)->id;
        two = next_life(f);
        g_assert_null(lazy_next_doubtful(two->lazy, &cursor));
        for (unsigned i = 0; i < 3; i++) {
                d[i] = description_from_fh(two->lazy, fh[i]);
                if (i < 2)
                        description_set_doubtful(d[i]);
        }
        three = next_life(f); /* it is not forgotten */
        life_end(two);
        life_end(one);

        cursor = 0;
        found = lazy_next_doubtful(three->lazy, &cursor);
        g_assert_cmpuint(found->id, ==, fh[0]);
        d[0] = found;
        found = lazy_next_doubtful(three->lazy, &cursor);
        g_assert_cmpuint(found->id, ==, fh[1]);
        g_assert_null(lazy_next_doubtful(three->lazy, &cursor));
        /* A request names the second: the kernel has it. */
        g_assert_true(description_from_fh(three->lazy, fh[1]) == found);
        g_assert_false(description_release_doubtful(found));
        description_unref(found);
        g_assert_true(description_release_doubtful(d[0]));
        g_assert_false(description_release_doubtful(d[0]));
        description_unref(d[0]);
        g_assert_null(description_from_fh(three->lazy, fh[0]));
        g_assert_cmpuint(cobj_handle_count(three->cobj), ==, 2);
        cursor = 0;
        g_assert_null(lazy_next_doubtful(three->lazy, &cursor));
        life_end(three);
}

static void test_made(struct fixture *f, gconstpointer data)
{
        struct life *life = first_life(f);
        uint64_t made = 0;
        const struct description_how how = {
                .fd = -1, .flags = O_RDONLY, .tid = getpid(), .made = &made};
        struct description *d;

        g_assert_cmpint(description_open(life->lazy, &life->things[0].object, &how, &d), ==, 0);
        g_assert_cmpuint(made, ==, d->id);
        life_end(life);
}

struct counting {
        uint64_t ops, bytes, handle;
        bool refuse;
        unsigned before, after;
};

static bool on_count(const struct kept_handle *handle, bool is_write, uint64_t ops, uint64_t bytes,
                     void *data)
{
        struct counting *counting = data;

        /* Nothing has changed yet. */
        g_assert_cmpuint(is_write ? handle->writes : handle->reads, ==, ops - 1);
        counting->handle = handle->token;
        counting->ops = ops;
        counting->bytes = bytes;
        counting->before++;
        return !counting->refuse;
}

static void on_counted(void *data)
{
        ((struct counting *)data)->after++;
}

static void test_count_observer(struct fixture *f, gconstpointer data)
{
        struct life *life = first_life(f);
        struct counting counting = {.ops = 0};
        const struct count_observer observer = {on_count, on_counted, &counting};
        struct description *d = open_as(life, 0, getpid(), O_RDWR);
        struct kept_handle *kept = record_of(life, d->opener);

        lazy_set_count_observer(life->lazy, &observer);
        description_count_read(d, getpid(), 100);
        description_count_read(d, getpid(), 11);
        g_assert_cmpuint(counting.handle, ==, d->opener);
        g_assert_cmpuint(counting.ops, ==, 2);
        g_assert_cmpuint(counting.bytes, ==, 111);
        g_assert_cmpuint(counting.before, ==, 2);
        g_assert_cmpuint(counting.after, ==, 2);
        counting.refuse = true;
        description_count_write(d, getpid(), 5);
        g_assert_cmpuint(counting.after, ==, 2);
        g_assert_cmpuint(kept->writes, ==, 0);
        g_assert_cmpuint(kept->read_bytes, ==, 111);
        lazy_set_count(life->lazy, d->opener, true, 3, 33);
        lazy_set_count(life->lazy, d->opener + 1, true, 4, 44); /* stale */
        g_assert_cmpuint(kept->writes, ==, 3);
        g_assert_cmpuint(kept->write_bytes, ==, 33);
        lazy_set_count_observer(life->lazy, NULL);
        life_end(life);
}

#define MADE 16 /* where a life counts what it made, behind the ids of what it has open */

/* What a process that is killed at any moment leaves: it opens, re-opens as itself, reads,
 * releases. */
static void busy_life(struct fixture *f, struct keep *keep, uint64_t *kept_open)
{
        struct life *life = life_new(f, keep);
        struct description *d[16] = {NULL};
        unsigned seed = (unsigned)getpid();

        client_table_resume(cobj_clients(life->cobj));
        lazy_resume(life->lazy, object_of, life, &life->resumed);
        client_table_settle(cobj_clients(life->cobj));
        for (;;) {
                const unsigned i = (unsigned)rand_r(&seed) % G_N_ELEMENTS(d);

                if (d[i]) {
                        kept_open[i] = 0;
                        description_release(g_steal_pointer(&d[i]));
                        continue;
                }
                d[i] = open_as(life, i % THINGS, rand_r(&seed) % 2 ? getppid() : getpid(), O_RDWR);
                reopen_as(d[i], getppid(), 0);
                description_count_read(d[i], getppid(), 8);
                kept_open[i] = d[i]->id;
                kept_open[MADE]++;
        }
}

/* Each life is another process, which is killed; the one that looks is a third. */
static void test_kill(struct fixture *f, gconstpointer data)
{
        struct keep *keep;
        uint64_t *shared =
                mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        unsigned checked = 0;

        g_assert_cmpint(keep_create(f->dirfd, "keep-0", &keep), ==, 0);
        f->lives = 1;
        keep_close(keep);
        for (unsigned round = 0; round < 60; round++) {
                struct life *life;
                uint32_t damaged;
                pid_t pid;

                g_assert_cmpint(keep_adopt(f->dirfd, "keep-0", &keep, &damaged), ==, 0);
                g_assert_cmpuint(damaged, ==, 0);
                memset(shared, 0, 4096);
                pid = fork();
                if (pid == 0)
                        busy_life(f, keep, shared);
                keep_close(keep);
                for (int i = 0; i < 5000 && ((volatile uint64_t *)shared)[MADE] == 0; i++)
                        g_usleep(1000);
                g_usleep((gulong)g_test_rand_int_range(0, 10000));
                g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
                g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);

                life = next_life(f); /* on a copy */
                for (unsigned i = 0; i < 16; i++) {
                        struct description *d;
                        struct kept_handle *kept;

                        if (!shared[i])
                                continue;
                        d = description_from_fh(life->lazy, shared[i]);
                        g_assert_nonnull(d);
                        g_assert_cmpuint(d->opener, !=, XHANDLE_NONE);
                        kept = record_of(life, reopen_as(d, getpid(), 0).token);
                        g_assert_nonnull(kept);
                        g_assert_cmpuint(kept->reads, ==, 1);
                        g_assert_cmpuint(kept->read_bytes, ==, 8);
                        checked++;
                }
                life_end(life);
                /* The next round's daemon finds what this one's left; take the copies away. */
                for (; f->lives > 1; f->lives--) {
                        g_autofree char *name = g_strdup_printf("keep-%u", f->lives - 1);

                        unlinkat(f->dirfd, name, 0);
                }
                if (round % 10 == 9) {
                        g_assert_cmpint(keep_create(f->dirfd, "keep-0", &keep), ==, 0);
                        keep_close(keep);
                }
        }
        g_assert_cmpuint(checked, >, 60);
        munmap(shared, 4096);
}

/* Of this thread, µs: others may be busy. */
static int64_t processor_time(void)
{
        struct timespec now;

        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
        return now.tv_sec * G_USEC_PER_SEC + now.tv_nsec / 1000;
}

/* The mount waits for this: it must be quick however much is open. */
static void test_many(struct fixture *f, gconstpointer data)
{
        struct life *one = first_life(f), *two;
        const pid_t child = child_start(f->children);
        struct keep *keep;
        uint32_t damaged;
        int64_t from, to;

        for (unsigned i = 0; i < 5000; i++) {
                const struct description_how how = {
                        .fd = -1, .flags = O_RDONLY, .tid = getpid(), .io_class = IO_CLASS_FAST};
                struct description *d;

                g_assert_cmpint(
                        description_open(one->lazy, &one->things[i % THINGS].object, &how, &d), ==,
                        0);
                reopen_as(d, child, d->opener);
        }
        keep = killed(f, &damaged);
        two = life_new(f, keep);
        from = processor_time();
        g_assert_cmpuint(client_table_resume(cobj_clients(two->cobj)), ==, 0);
        lazy_resume(two->lazy, object_of, two, &two->resumed);
        to = processor_time();
        client_table_settle(cobj_clients(two->cobj));
        g_assert_cmpuint(two->resumed.descriptions, ==, 5000);
        g_assert_cmpuint(two->resumed.handles, ==, 10000);
        g_test_message("10000 handles came back in %d us", (int)(to - from));
        g_assert_cmpint(to - from, <, 1000000); /* 10 ms without sanitizers */
        life_end(one);
        life_end(two);
}

static void quiet(const char *domain, GLogLevelFlags level, const char *message, void *data)
{
}

/* Bytes are flipped in all kinds of records: nothing crashes, and all memory is given back. */
static void test_damage(struct fixture *f, gconstpointer data)
{
        struct life *one = first_life(f);
        const pid_t child = child_start(f->children);

        for (unsigned i = 0; i < 60; i++) {
                struct description *d = open_as(one, i % THINGS, i % 3 ? getpid() : child, O_RDWR);

                if (i % 2)
                        reopen_as(d, child, 0);
                if (i % 5 == 0)
                        xobj_free(one->cobj, d->opener);
        }
        g_log_set_always_fatal(G_LOG_LEVEL_CRITICAL | G_LOG_FATAL_MASK);
        for (unsigned round = 0; round < 100; round++) {
                uint32_t damaged;
                struct keep *keep = killed(f, &damaged);
                struct life *life;

                for (int type = KEEP_CLIENT; type <= KEEP_HOLDER; type++) {
                        uint64_t cursor = 0;
                        unsigned char *record;
                        size_t size;

                        while ((record = keep_next(keep, (enum keep_type)type, &cursor, &size)))
                                for (unsigned i = 0; i < 3; i++)
                                        if (g_test_rand_int_range(0, 100) < (int)round)
                                                record[g_test_rand_int_range(0, (int)size)] =
                                                        (unsigned char)g_test_rand_int();
                }
                life = life_new(f, keep);
                g_log_set_handler(NULL, G_LOG_LEVEL_WARNING, quiet, NULL);
                client_table_resume(cobj_clients(life->cobj));
                lazy_resume(life->lazy, object_of, life, &life->resumed);
                client_table_settle(cobj_clients(life->cobj));
                life_end(life);
                for (; f->lives > 1; f->lives--) {
                        g_autofree char *name = g_strdup_printf("keep-%u", f->lives - 1);

                        unlinkat(f->dirfd, name, 0);
                }
        }
        life_end(one);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
#define ADD(name, fn) g_test_add(name, struct fixture, NULL, set_up, fn, tear_down)
        ADD("/resume/comes-back", test_comes_back);
        ADD("/resume/ended-meanwhile", test_ended_meanwhile);
        ADD("/resume/pid-reused", test_pid_reused);
        ADD("/resume/holders", test_holders);
        ADD("/resume/without-client", test_without_client);
        ADD("/resume/half-done", test_half_done);
        ADD("/resume/given-while-freed", test_given_while_freed);
        ADD("/resume/dropped", test_dropped);
        ADD("/resume/doubtful", test_doubtful);
        ADD("/resume/made", test_made);
        ADD("/resume/count-observer", test_count_observer);
        ADD("/resume/kill", test_kill);
        ADD("/resume/many", test_many);
        ADD("/resume/damage", test_damage);
        return g_test_run();
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Object handles and xhandles on a made-up server object that counts what happens to it. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cobj/xobj.h"

struct thing {
        struct server_object object; /* must be first */
        struct cobj *cobj;
        atomic_int refs, freed, emptied;
        bool keep;               /* do not free client data, but mark it */
        struct thing_data *kept; /* of one thread at a time */
};

struct thing_data {
        struct client_data base; /* must be first */
        struct thing_data *next;
        atomic_bool ended;
};

struct fixture {
        struct cobj *cobj;
        struct thing thing;
        atomic_int given_notices, freed_notices;
};

static void thing_ref(struct server_object *object)
{
        atomic_fetch_add(&((struct thing *)object)->refs, 1);
}

static void thing_unref(struct server_object *object)
{
        atomic_fetch_sub(&((struct thing *)object)->refs, 1);
}

static int thing_give(struct server_object *object, struct client *client, access_rights match,
                      access_rights nomatch, const void *how, struct object_handle *ret_handle)
{
        struct thing_data *data = calloc(1, sizeof *data);
        struct cobj *cobj = ((struct thing *)object)->cobj;
        int r;

        g_assert_cmpint(client_data_init(cobj, &data->base), ==, 0);
        r = give_access_internal(cobj, object, client, match, nomatch, &data->base, ret_handle);
        if (r < 0) {
                client_data_clear(cobj, &data->base);
                free(data);
        }
        return r;
}

static void thing_being_freed(struct server_object *object, const struct xobj *xobj)
{
        struct thing *thing = (struct thing *)object;
        struct thing_data *ended = (struct thing_data *)xobj_client_data(xobj);

        atomic_fetch_add(&thing->freed, 1);
        if (!thing->keep) {
                client_data_clear(thing->cobj, &ended->base);
                free(ended);
                return;
        }
        g_assert_false(atomic_exchange(&ended->ended, true));
        ended->next = thing->kept;
        thing->kept = ended;
}

static void thing_emptied(struct server_object *object)
{
        atomic_fetch_add(&((struct thing *)object)->emptied, 1);
}

static char *thing_describe(struct server_object *object)
{
        return g_strdup("/thing");
}

static const struct server_object_ops thing_ops = {
        .give_access_set_client_data = thing_give,
        .being_freed = thing_being_freed,
        .exported_xobject_list_empty = thing_emptied,
        .ref = thing_ref,
        .unref = thing_unref,
        .describe = thing_describe,
};

static void on_given(const struct xobj *xobj, void *data)
{
        atomic_fetch_add(&((struct fixture *)data)->given_notices, 1);
}

static void on_freed(const struct xobj *xobj, void *data)
{
        atomic_fetch_add(&((struct fixture *)data)->freed_notices, 1);
}

static void set_up(struct fixture *f, gconstpointer data)
{
        const struct cobj_observer observer = {
                .handle_given = on_given, .handle_freed = on_freed, .data = f};

        g_assert_cmpint(cobj_new(&observer, NULL, &f->cobj), ==, 0);
        f->thing.cobj = f->cobj;
        server_object_init(&f->thing.object, &thing_ops);
}

/* Nothing may be left, and everything was told once. */
static void tear_down(struct fixture *f, gconstpointer data)
{
        g_assert_cmpuint(cobj_handle_count(f->cobj), ==, 0);
        g_assert_cmpint(f->given_notices, ==, f->freed_notices);
        g_assert_cmpint(f->thing.freed, ==, f->freed_notices);
        g_assert_cmpint(f->thing.refs, ==, 0);
        while (f->thing.kept) {
                struct thing_data *next = f->thing.kept->next;

                client_data_clear(f->cobj, &f->thing.kept->base);
                free(f->thing.kept);
                f->thing.kept = next;
        }
        cobj_free(f->cobj);
        server_object_clear(&f->thing.object);
}

static struct client *client_of(struct fixture *f, pid_t pid)
{
        struct client *client = NULL;

        g_assert_cmpint(client_table_get(cobj_clients(f->cobj), pid, &client), ==, 0);
        return client;
}

static xhandle give(struct fixture *f, struct client *client, access_rights match,
                    access_rights nomatch)
{
        struct object_handle oh;

        g_assert_cmpint(give_access_by_server(&f->thing.object, client, match, nomatch, NULL, &oh),
                        ==, 0);
        g_assert_true(oh.server == &f->thing.object);
        return oh.xh;
}

static pid_t start_child(void)
{
        pid_t pid = fork();

        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;)
                        pause();
        }
        return pid;
}

static void end_child(pid_t pid)
{
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                ;
}

static void test_tokens(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Client) me = client_of(f, getpid()), other = NULL;
        pid_t child = start_child();
        struct xobj *xobj = NULL;
        struct object_handle oh;
        xhandle token;

        other = client_of(f, child);
        token = give(f, me, RIGHT_READ | RIGHT_WRITE, RIGHT_READ);
        g_assert_cmpint(xhandle_trans(f->cobj, token, me, RIGHT_READ | RIGHT_WRITE, &xobj), ==, 0);
        g_assert_cmpuint(xobj_token(xobj), ==, token);
        g_assert_true(xobj_client(xobj) == me);
        xobj_unref(xobj);
        /* Another process: only what nomatch says. */
        g_assert_cmpint(xhandle_trans(f->cobj, token, other, RIGHT_READ, &xobj), ==, 0);
        xobj_unref(xobj);
        g_assert_cmpint(xhandle_trans(f->cobj, token, other, RIGHT_WRITE, &xobj), ==, -EACCES);
        g_assert_cmpint(xhandle_trans(f->cobj, token, NULL, RIGHT_WRITE, &xobj), ==, -EACCES);
        /* Forged and stale. */
        g_assert_cmpint(xhandle_trans(f->cobj, XHANDLE_NONE, me, 0, &xobj), ==, -ESTALE);
        g_assert_cmpint(xhandle_trans(f->cobj, token + 1, me, 0, &xobj), ==, -ESTALE);
        g_assert_cmpint(xhandle_trans(f->cobj, token + (UINT64_C(1) << 32), me, 0, &xobj), ==,
                        -ESTALE);
        g_assert_true(xobj_free(f->cobj, token));
        g_assert_false(xobj_free(f->cobj, token));
        g_assert_cmpint(xhandle_trans(f->cobj, token, me, 0, &xobj), ==, -ESTALE);
        /* nomatch is never more than match */
        g_assert_cmpint(
                give_access_by_server(&f->thing.object, me, RIGHT_READ, RIGHT_WRITE, NULL, &oh), ==,
                -EINVAL);
        end_child(child);
}

static void test_restrict(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Client) me = client_of(f, getpid());
        xhandle token = give(f, me, RIGHTS_ALL, RIGHTS_ALL);
        g_autoptr(K42Xobj) xobj = cobj_get_xobj(f->cobj, token);
        access_rights match, nomatch;

        g_assert_cmpint(xobj_restrict(xobj, RIGHT_READ | RIGHT_DUPLICATE, RIGHT_READ), ==, 0);
        for (access_rights rights = 0; rights <= RIGHTS_ALL; rights++) {
                const bool fits = access_rights_subset(rights, RIGHT_READ | RIGHT_DUPLICATE);

                if (!fits)
                        g_assert_cmpint(xobj_restrict(xobj, rights, 0), ==, -EPERM);
        }
        xobj_get_rights(xobj, &match, &nomatch);
        g_assert_cmpuint(match, ==, RIGHT_READ | RIGHT_DUPLICATE);
        g_assert_cmpuint(nomatch, ==, RIGHT_READ);
        g_assert_cmpint(xobj_restrict(xobj, match, RIGHT_DUPLICATE), ==, -EPERM);
        g_assert_cmpint(xobj_restrict(xobj, RIGHT_DUPLICATE, RIGHT_READ), ==, -EINVAL);
        xobj_free(f->cobj, token);
}

static void test_last_client(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Client) me = client_of(f, getpid());

        for (int round = 1; round <= 3; round++) {
                xhandle a = give(f, me, RIGHTS_ALL, 0), b = give(f, me, RIGHTS_ALL, 0);

                xobj_free(f->cobj, a);
                g_assert_cmpint(f->thing.emptied, ==, round - 1);
                xobj_free(f->cobj, b);
                g_assert_cmpint(f->thing.emptied, ==, round);
        }
}

static void test_dead_client(struct fixture *f, gconstpointer data)
{
        pid_t child = start_child();
        struct client *client = client_of(f, child);
        struct object_handle oh;

        for (int i = 0; i < 100; i++)
                give(f, client, RIGHTS_ALL, 0);
        end_child(child);
        for (int i = 0; i < 500 && cobj_handle_count(f->cobj) > 0; i++)
                g_usleep(10000);
        g_assert_cmpuint(cobj_handle_count(f->cobj), ==, 0);
        g_assert_cmpint(give_access_by_server(&f->thing.object, client, RIGHTS_ALL, 0, NULL, &oh),
                        ==, -ESRCH);
        client_unref(client);
}

/* Handles for processes that are just ending: each is ended, by whoever comes last. */
static void test_exiting_clients(struct fixture *f, gconstpointer data)
{
        for (int i = 0; i < 300; i++) {
                pid_t child = fork();
                struct client *client = NULL;
                struct object_handle oh;

                if (child == 0)
                        _exit(0);
                if (client_table_get(cobj_clients(f->cobj), child, &client) == 0) {
                        for (int k = 0; k < 5; k++)
                                (void)give_access_by_server(&f->thing.object, client, RIGHTS_ALL, 0,
                                                            NULL, &oh);
                        client_unref(client);
                }
                waitpid(child, NULL, 0);
        }
        for (int i = 0; i < 500 && cobj_handle_count(f->cobj) > 0; i++)
                g_usleep(10000);
        g_assert_cmpuint(cobj_handle_count(f->cobj), ==, 0);
}

struct storm {
        struct fixture *f;
        struct client *client;
        _Atomic uint64_t tokens[8];
};

static void touch_one(struct xobj *xobj, void *data)
{
        atomic_fetch_add(&xobj_client_data(xobj)->kept->reads, 1);
}

static void *storm_thread(void *data)
{
        struct storm *storm = data;
        unsigned seed = (unsigned)(uintptr_t)&seed;

        for (int i = 0; i < 5000; i++) {
                const unsigned k = (seed = seed * 1103515245 + 12345) >> 16 & 7;
                struct xobj *xobj;

                switch (seed & 3) {
                case 0: {
                        xhandle token = give(storm->f, storm->client, RIGHTS_ALL, RIGHTS_ALL);

                        token = atomic_exchange(&storm->tokens[k], token);
                        if (token)
                                xobj_free(storm->f->cobj, token);
                        break;
                }
                case 1:
                        xobj_free(storm->f->cobj, atomic_load(&storm->tokens[k]));
                        break;
                default:
                        if (xhandle_trans(storm->f->cobj, atomic_load(&storm->tokens[k]),
                                          storm->client, RIGHT_READ, &xobj) == 0) {
                                atomic_fetch_add(&xobj_client_data(xobj)->kept->reads, 1);
                                xobj_unref(xobj);
                        }
                        if (i % 512 == 0)
                                cobj_foreach_handle(storm->f->cobj, touch_one, NULL);
                }
        }
        return NULL;
}

static void test_storm(struct fixture *f, gconstpointer data)
{
        struct storm storm = {.f = f, .client = client_of(f, getpid())};
        pthread_t threads[8];

        for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
                pthread_create(&threads[i], NULL, storm_thread, &storm);
        for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
                pthread_join(threads[i], NULL);
        for (unsigned k = 0; k < G_N_ELEMENTS(storm.tokens); k++)
                xobj_free(f->cobj, storm.tokens[k]);
        client_unref(storm.client);
}

/* Two threads that do something to the same moment, many times. */
struct duel {
        struct fixture *f;
        void (*act)(struct duel *duel, unsigned who);
        struct xobj *xobj;
        xhandle tokens[2];
        atomic_uint at[2]; /* the round that each has been told to do … */
        atomic_uint done;  /* … and how many have done theirs */
        atomic_bool stop;
        int64_t until;     /* µs of the monotonic clock */
        atomic_uint freed; /* by xobj_free()'s own account */
};

/* They meet most closely when both spin; the other one may have no processor, though. */
static void rest(unsigned spins)
{
        if (spins > 2000)
                sched_yield();
}

static void *second_of_duel(void *data)
{
        struct duel *duel = data;

        for (unsigned round = 1;; round++) {
                for (unsigned i = 0; atomic_load(&duel->at[0]) < round; i++) {
                        if (atomic_load(&duel->stop))
                                return NULL;
                        rest(i);
                }
                atomic_store(&duel->at[1], round);
                duel->act(duel, 1);
                atomic_fetch_add(&duel->done, 1);
        }
}

static void duel_round(struct duel *duel, unsigned round)
{
        atomic_store(&duel->done, 0);
        atomic_store(&duel->at[0], round);
        for (unsigned i = 0; atomic_load(&duel->at[1]) < round; i++)
                rest(i);
        duel->act(duel, 0);
        for (unsigned i = 0; atomic_load(&duel->done) == 0; i++)
                rest(i);
}

#define DUELS     30000u
#define DUELS_MIN 500u
#define DUELS_US  (3 * G_USEC_PER_SEC) /* a busy machine need not fight all of them */

static bool fight_on(struct duel *duel, unsigned round)
{
        if (round == 1)
                duel->until = g_get_monotonic_time() + DUELS_US;
        return round <= DUELS_MIN || (round <= DUELS && g_get_monotonic_time() < duel->until);
}

static void unref_one(struct duel *duel, unsigned who)
{
        xobj_unref(duel->xobj);
}

/*
 * Question 6 of 2006: decRefCount dropped its lock and then read the count again.  Two threads that
 * give their references back at the same moment would then both read 0 and free twice.  Here the
 * one decrement's own result decides.
 */
static void test_q6(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Client) me = client_of(f, getpid());
        struct duel duel = {.f = f, .act = unref_one};
        pthread_t thread;

        g_assert_cmpint(pthread_create(&thread, NULL, second_of_duel, &duel), ==, 0);
        for (unsigned round = 1; fight_on(&duel, round); round++) {
                xhandle token = give(f, me, RIGHTS_ALL, 0);

                duel.xobj = cobj_get_xobj(f->cobj, token);
                xobj_ref(duel.xobj);
                g_assert_true(xobj_free(f->cobj, token));
                g_assert_cmpuint(f->thing.freed, ==, round - 1); /* two references are left */
                duel_round(&duel, round);
                g_assert_cmpuint(f->thing.freed, ==, round);
        }
        atomic_store(&duel.stop, true);
        pthread_join(thread, NULL);
}

static void free_one(struct duel *duel, unsigned who)
{
        if (xobj_free(duel->f->cobj, duel->tokens[who]))
                atomic_fetch_add(&duel->freed, 1);
}

/* One handle, ended by two: one of them is told that it did it. */
static void test_free_twice(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Client) me = client_of(f, getpid());
        struct duel duel = {.f = f, .act = free_one};
        pthread_t thread;

        g_assert_cmpint(pthread_create(&thread, NULL, second_of_duel, &duel), ==, 0);
        for (unsigned round = 1; fight_on(&duel, round); round++) {
                duel.tokens[0] = duel.tokens[1] = give(f, me, RIGHTS_ALL, 0);
                duel_round(&duel, round);
                g_assert_cmpuint(duel.freed, ==, round);
                g_assert_cmpuint(f->thing.freed, ==, round);
                g_assert_cmpuint(f->thing.emptied, ==, round);
        }
        atomic_store(&duel.stop, true);
        pthread_join(thread, NULL);
}

/* The object's last two handles go at the same moment: one notice. */
static void test_last_two(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Client) me = client_of(f, getpid());
        struct duel duel = {.f = f, .act = free_one};
        pthread_t thread;

        g_assert_cmpint(pthread_create(&thread, NULL, second_of_duel, &duel), ==, 0);
        for (unsigned round = 1; fight_on(&duel, round); round++) {
                duel.tokens[0] = give(f, me, RIGHTS_ALL, 0);
                duel.tokens[1] = give(f, me, RIGHTS_ALL, 0);
                duel_round(&duel, round);
                g_assert_cmpuint(duel.freed, ==, 2 * round);
                g_assert_cmpuint(f->thing.emptied, ==, round);
        }
        atomic_store(&duel.stop, true);
        pthread_join(thread, NULL);
}

/* A handle is translated while it is ended: the client data can be used or the token is stale. */
static void trans_or_free(struct duel *duel, unsigned who)
{
        struct xobj *xobj;

        if (who == 0) {
                free_one(duel, 0);
                return;
        }
        while (xhandle_trans(duel->f->cobj, duel->tokens[0], NULL, RIGHT_READ, &xobj) == 0) {
                struct thing_data *td = (struct thing_data *)xobj_client_data(xobj);

                g_assert_false(atomic_load(&td->ended));
                atomic_fetch_add(&td->base.kept->reads, 1);
                g_assert_cmpuint(xobj_token(xobj), ==, duel->tokens[0]);
                g_assert_false(atomic_load(&td->ended));
                xobj_unref(xobj);
        }
}

static void test_trans_against_free(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Client) me = client_of(f, getpid());
        struct duel duel = {.f = f, .act = trans_or_free};
        pthread_t thread;

        f->thing.keep = true;

        g_assert_cmpint(pthread_create(&thread, NULL, second_of_duel, &duel), ==, 0);
        for (unsigned round = 1; fight_on(&duel, round); round++) {
                duel.tokens[0] = give(f, me, RIGHT_READ, RIGHT_READ);
                duel_round(&duel, round);
                g_assert_cmpuint(f->thing.freed, ==, round);
        }
        atomic_store(&duel.stop, true);
        pthread_join(thread, NULL);
}

/* What is there all the time is visited, however much comes in meanwhile at lower indexes. */
struct census {
        struct fixture *f;
        struct client *client;
        xhandle old[100];
        unsigned seen, all;
};

static void take_census(struct xobj *xobj, void *data)
{
        struct census *census = data;

        for (unsigned i = 0; i < G_N_ELEMENTS(census->old); i++)
                if (census->old[i] == xobj_token(xobj))
                        census->seen++;
        census->all++;
}

static void *busy_thread(void *data)
{
        struct census *census = data;
        xhandle tokens[200];

        for (int i = 0; i < 300; i++) {
                for (unsigned k = 0; k < G_N_ELEMENTS(tokens); k++)
                        tokens[k] = give(census->f, census->client, RIGHTS_ALL, 0);
                for (unsigned k = 0; k < G_N_ELEMENTS(tokens); k++)
                        g_assert_true(xobj_free(census->f->cobj, tokens[k]));
        }
        return NULL;
}

static void test_foreach(struct fixture *f, gconstpointer data)
{
        struct census census = {.f = f, .client = client_of(f, getpid())};
        xhandle low[400];
        pthread_t threads[2];

        for (unsigned i = 0; i < G_N_ELEMENTS(low); i++)
                low[i] = give(f, census.client, RIGHTS_ALL, 0);
        for (unsigned i = 0; i < G_N_ELEMENTS(census.old); i++)
                census.old[i] = give(f, census.client, RIGHTS_ALL, 0);
        for (unsigned i = 0; i < G_N_ELEMENTS(low); i++)
                xobj_free(f->cobj, low[i]);
        cobj_foreach_handle(f->cobj, take_census, &census);
        g_assert_cmpuint(census.all, ==, G_N_ELEMENTS(census.old));
        for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
                pthread_create(&threads[i], NULL, busy_thread, &census);
        for (int i = 0; i < 3000; i++) {
                census.seen = 0;
                cobj_foreach_handle(f->cobj, take_census, &census);
                g_assert_cmpuint(census.seen, ==, G_N_ELEMENTS(census.old));
        }
        for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
                pthread_join(threads[i], NULL);
        g_assert_cmpuint(client_free_handles(f->cobj, census.client), ==, G_N_ELEMENTS(census.old));
        client_unref(census.client);
}

/* Several threads give handles to children that exit at once; nothing may be left of them. */
struct givers {
        struct fixture *f;
        _Atomic pid_t pids[500];
        atomic_int gave;
};

static void *giver_thread(void *data)
{
        struct givers *givers = data;

        for (unsigned i = 0; i < G_N_ELEMENTS(givers->pids); i++) {
                struct client *client;
                struct object_handle oh;
                pid_t pid;

                while ((pid = atomic_load(&givers->pids[i])) == 0)
                        g_usleep(20);
                if (client_table_get(cobj_clients(givers->f->cobj), pid, &client) < 0)
                        continue;
                while (give_access_by_server(&givers->f->thing.object, client, RIGHTS_ALL, 0, NULL,
                                             &oh) == 0)
                        if (atomic_fetch_add(&givers->gave, 1) % 16 == 15)
                                g_usleep(20); /* let them come to their end */
                client_unref(client);
        }
        return NULL;
}

static void test_exit_storm(struct fixture *f, gconstpointer data)
{
        struct givers givers = {.f = f};
        pthread_t threads[3];

        for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
                pthread_create(&threads[i], NULL, giver_thread, &givers);
        for (unsigned i = 0; i < G_N_ELEMENTS(givers.pids); i++) {
                pid_t pid = fork();

                g_assert_cmpint(pid, >=, 0);
                if (pid == 0)
                        _exit(0);
                atomic_store(&givers.pids[i], pid);
        }
        for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
                pthread_join(threads[i], NULL);
        for (unsigned i = 0; i < G_N_ELEMENTS(givers.pids); i++)
                waitpid(givers.pids[i], NULL, 0);
        for (int i = 0; i < 500 && client_table_count(cobj_clients(f->cobj)) > 0; i++)
                g_usleep(10000);
        g_test_message("%d handles were given to exiting processes", givers.gave);
        g_assert_cmpint(givers.gave, >, 0);
        g_assert_cmpuint(client_table_count(cobj_clients(f->cobj)), ==, 0);
        for (int i = 0; i < 500 && cobj_handle_count(f->cobj) > 0; i++)
                g_usleep(10000);
        g_assert_cmpuint(cobj_handle_count(f->cobj), ==, 0);
}

#define ADD(name, function)                                                                        \
        g_test_add("/xobj/" name, struct fixture, NULL, set_up, function, tear_down)

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        ADD("tokens", test_tokens);
        ADD("restrict", test_restrict);
        ADD("last-client", test_last_client);
        ADD("dead-client", test_dead_client);
        ADD("exiting-clients", test_exiting_clients);
        ADD("exit-storm", test_exit_storm);
        ADD("storm", test_storm);
        ADD("q6_one_decrement_decides", test_q6);
        ADD("free-twice", test_free_twice);
        ADD("last-two", test_last_two);
        ADD("trans-against-free", test_trans_against_free);
        ADD("foreach", test_foreach);
        return g_test_run();
}

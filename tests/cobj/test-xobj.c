/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Object handles and xhandles on a made-up server object that counts what happens to it. */
#include <errno.h>
#include <pthread.h>
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
        struct client_data *data = calloc(1, sizeof *data);
        int r = give_access_internal(((struct thing *)object)->cobj, object, client, match, nomatch,
                                     data, ret_handle);

        if (r < 0)
                free(data);
        return r;
}

static void thing_being_freed(struct server_object *object, const struct xobj *xobj)
{
        atomic_fetch_add(&((struct thing *)object)->freed, 1);
        free(xobj_client_data(xobj));
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

        g_assert_cmpint(cobj_new(&observer, &f->cobj), ==, 0);
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
        atomic_fetch_add(&xobj_client_data(xobj)->reads, 1);
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
                                atomic_fetch_add(&xobj_client_data(xobj)->reads, 1);
                                xobj_unref(xobj);
                        }
                        if (i % 512 == 0)
                                cobj_foreach_handle(storm->f->cobj, touch_one, NULL);
                }
        }
        return NULL;
}

#define MEETINGS_US G_USEC_PER_SEC

struct meeting {
        struct xobj *xobj;
        atomic_uint begun, done; /* rounds */
        atomic_bool over;
};

static void await(atomic_uint *what, unsigned value)
{
        /* No system call while the other one is about to come: they have to meet within
         * nanoseconds.  On one processor it would never come. */
        for (unsigned spins = 1; atomic_load(what) != value; spins++)
                if (spins % 4096 == 0)
                        g_thread_yield();
}

static void *meeting_thread(void *data)
{
        struct meeting *meeting = data;

        for (unsigned round = 1;; round++) {
                await(&meeting->begun, round);
                if (atomic_load(&meeting->over))
                        return NULL;
                xobj_unref(meeting->xobj);
                atomic_store(&meeting->done, round);
        }
}

/*
 * Question 6 of 2006: decRefCount dropped its lock and then read the count again.  Two threads that
 * give their references back at the same moment then both read 0, and both free: a second
 * being_freed() of a handle that is gone, which the counts show, and ASan as a use after free.
 * (TSan sees the read of a count in memory that the other one frees.)  Here the one decrement's own
 * result decides.  So the last two references of a handle are given back by two threads at once,
 * for a second.
 */
static void test_q6(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Client) me = client_of(f, getpid());
        const int64_t deadline = g_get_monotonic_time() + MEETINGS_US;
        struct meeting meeting = {.xobj = NULL};
        unsigned round = 1;
        pthread_t thread;

        g_assert_cmpint(pthread_create(&thread, NULL, meeting_thread, &meeting), ==, 0);
        for (; g_get_monotonic_time() < deadline; round++) {
                xhandle token = give(f, me, RIGHTS_ALL, 0);

                meeting.xobj = cobj_get_xobj(f->cobj, token);
                xobj_ref(meeting.xobj);
                g_assert_true(xobj_free(f->cobj, token)); /* these two are the last ones now */
                g_assert_cmpint(f->thing.freed, ==, round - 1);
                atomic_store(&meeting.begun, round);
                for (unsigned late = round % 64; late > 0;
                     late--) /* it takes the other one a while */
                        atomic_load(&meeting.over);
                xobj_unref(meeting.xobj);
                await(&meeting.done, round);
                g_assert_cmpint(f->thing.freed, ==, round);
        }
        atomic_store(&meeting.over, true);
        atomic_store(&meeting.begun, round);
        pthread_join(thread, NULL);
        g_test_message("%u handles", round - 1);
}

/* Everything at once; tear_down() compares the counts. */
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
        ADD("q6-one-decrement-decides", test_q6);
        ADD("storm", test_storm);
        return g_test_run();
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the calls on a request's path cost: `meson test --benchmark`.  The median of several rounds.
 */
#include <fcntl.h>
#include <glib.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cobj/xobj.h"

#define ROUNDS 9

static struct cobj *cobj;
static struct id_table *table;
static uint64_t ids[1024];
static struct server_object object;
static struct client *me;
static pid_t children[200];

static void no_ref(struct server_object *o)
{
}

static int give(struct server_object *o, struct client *client, access_rights match,
                access_rights nomatch, const void *how, struct object_handle *ret_handle)
{
        struct client_data *data = calloc(1, sizeof *data);
        int r;

        g_assert_nonnull(data);
        g_assert_cmpint(client_data_init(cobj, data), ==, 0);
        r = give_access_internal(cobj, o, client, match, nomatch, data, ret_handle);
        if (r < 0) {
                client_data_clear(cobj, data);
                free(data);
        }
        return r;
}

static void being_freed(struct server_object *o, const struct xobj *xobj)
{
        client_data_clear(cobj, xobj_client_data(xobj));
        free(xobj_client_data(xobj));
}

static const struct server_object_ops ops = {
        .give_access_set_client_data = give,
        .being_freed = being_freed,
        .ref = no_ref,
        .unref = no_ref,
};

static struct keep *keep;

static void bench_keep(unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                void *record = keep_alloc(keep, 104);

                keep_commit(record, KEEP_HANDLE);
                keep_free(keep, record);
        }
}

#define KEEP_THREADS 10

static void *keep_thread(void *data)
{
        bench_keep(*(const unsigned *)data);
        return NULL;
}

/* As many in all: what it takes is what one costs when all of them are at it. */
static void bench_keep_threads(unsigned n)
{
        unsigned each = n / KEEP_THREADS;
        pthread_t threads[KEEP_THREADS];

        for (unsigned i = 0; i < KEEP_THREADS; i++)
                g_assert_cmpint(pthread_create(&threads[i], NULL, keep_thread, &each), ==, 0);
        for (unsigned i = 0; i < KEEP_THREADS; i++)
                pthread_join(threads[i], NULL);
}

static void bench_get(unsigned n)
{
        for (unsigned i = 0; i < n; i++)
                g_assert_nonnull(id_table_get(table, ids[i & 1023]));
}

static void bench_give_free(unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                struct object_handle oh;

                g_assert_cmpint(give_access_by_server(&object, me, RIGHTS_ALL, 0, NULL, &oh), ==,
                                0);
                g_assert_true(xobj_free(cobj, oh.xh));
        }
}

static void bench_trans(unsigned n)
{
        struct object_handle oh;

        g_assert_cmpint(give_access_by_server(&object, me, RIGHTS_ALL, 0, NULL, &oh), ==, 0);
        for (unsigned i = 0; i < n; i++) {
                struct xobj *xobj;

                g_assert_cmpint(xhandle_trans(cobj, oh.xh, me, RIGHT_READ, &xobj), ==, 0);
                xobj_unref(xobj);
        }
        xobj_free(cobj, oh.xh);
}

static void get_one(pid_t tid)
{
        struct client *client;

        g_assert_cmpint(client_table_get(cobj_clients(cobj), tid, &client), ==, 0);
        client_unref(client);
}

static void bench_leader(unsigned n)
{
        for (unsigned i = 0; i < n; i++)
                get_one(getpid());
}

static void *thread(void *data)
{
        unsigned n = *(unsigned *)data;

        while (n-- > 0)
                get_one(gettid());
        return NULL;
}

static void bench_thread(unsigned n)
{
        g_thread_join(g_thread_new("bench", thread, &n));
}

static void *first_time(void *data)
{
        get_one(gettid());
        return NULL;
}

static void empty_threads(unsigned n)
{
        while (n-- > 0)
                g_thread_join(g_thread_new("bench", (GThreadFunc)getenv, (gpointer) "HOME"));
}

static void bench_new_threads(unsigned n)
{
        while (n-- > 0)
                g_thread_join(g_thread_new("bench", first_time, NULL));
}

static void start_children(void)
{
        for (unsigned i = 0; i < G_N_ELEMENTS(children); i++) {
                children[i] = fork();
                g_assert_cmpint(children[i], >=, 0);
                if (children[i] == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        for (;;)
                                pause();
                }
        }
}

static void end_children(void)
{
        for (unsigned i = 0; i < G_N_ELEMENTS(children); i++)
                kill(children[i], SIGKILL);
        for (unsigned i = 0; i < G_N_ELEMENTS(children); i++)
                waitpid(children[i], NULL, 0);
        while (client_table_count(cobj_clients(cobj)) > 1)
                g_usleep(1000);
}

static void bench_new(unsigned n)
{
        for (unsigned i = 0; i < n; i++)
                get_one(children[i]);
}

static int compare(const void *a, const void *b)
{
        const double x = *(const double *)a, y = *(const double *)b;

        return (x > y) - (x < y);
}

static void measure(const char *what, void (*before)(void), void (*bench)(unsigned), unsigned n,
                    void (*after)(void))
{
        double ns[ROUNDS];

        for (unsigned i = 0; i < ROUNDS; i++) {
                struct timespec from, to;

                if (before)
                        before();
                clock_gettime(CLOCK_MONOTONIC, &from);
                bench(n);
                clock_gettime(CLOCK_MONOTONIC, &to);
                ns[i] = ((double)(to.tv_sec - from.tv_sec) * 1e9 +
                         (double)(to.tv_nsec - from.tv_nsec)) /
                        n;
                if (after)
                        after();
        }
        qsort(ns, ROUNDS, sizeof ns[0], compare);
        printf("%-44s %9.1f ns (best %.1f)\n", what, ns[ROUNDS / 2], ns[0]);
}

/* A keep in a directory that is removed at once. */
static struct keep *make_keep(void)
{
        g_autofree char *dir = g_dir_make_tmp("k42-bench-XXXXXX", NULL);
        int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct keep *made;

        g_assert_cmpint(keep_create(dirfd, "keep", &made), ==, 0);
        unlinkat(dirfd, "keep", 0);
        close(dirfd);
        rmdir(dir);
        return made;
}

int main(void)
{
        const struct cobj_observer nobody = {0};

        keep = make_keep();
        g_assert_cmpint(cobj_new(&nobody, keep, &cobj), ==, 0);
        table = id_table_new(1, 2048);
        g_assert_nonnull(table);
        for (unsigned i = 0; i < G_N_ELEMENTS(ids); i++)
                g_assert_cmpint(id_table_alloc(table, &ids[i], &ids[i]), ==, 0);
        server_object_init(&object, &ops);
        g_assert_cmpint(client_table_get(cobj_clients(cobj), getpid(), &me), ==, 0);

        measure("keep_alloc, keep_commit and keep_free", NULL, bench_keep, 1000000, NULL);
        measure("the same, spread over 10 threads", NULL, bench_keep_threads, 1000000, NULL);
        measure("id_table_get", NULL, bench_get, 1000000, NULL);
        measure("xhandle_trans and xobj_unref", NULL, bench_trans, 1000000, NULL);
        measure("give_access_by_server and xobj_free", NULL, bench_give_free, 200000, NULL);
        measure("client_table_get, cached leader", NULL, bench_leader, 100000, NULL);
        measure("client_table_get, cached other thread", NULL, bench_thread, 100000, NULL);
        measure("client_table_get, new process", start_children, bench_new, G_N_ELEMENTS(children),
                end_children);
        measure("a thread's start and end alone", NULL, empty_threads, 1000, NULL);
        measure("the same with its first client_table_get", NULL, bench_new_threads, 1000, NULL);

        client_unref(me);
        cobj_free(cobj);
        keep_close(keep);
        server_object_clear(&object);
        id_table_unref(table);
        return 0;
}

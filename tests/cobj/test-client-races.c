/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The client table when something goes wrong at the worst moment.  The linker puts the __wrap_
 * functions of this file where client.c calls id_table_publish() and epoll_ctl().
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cobj/client.h"
#include "cobj/id_table.h"

struct fixture {
        struct client_table *table;
        atomic_int appeared, exited;
        pid_t child;
};

/* What happens in the middle of client.c; none by default. */
static void (*before_publish)(void);
static int epoll_add_fails_with;

void __wrap_id_table_publish(struct id_table *table, uint64_t id, void *object);
void __real_id_table_publish(struct id_table *table, uint64_t id, void *object);
int __wrap_epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event);
int __real_epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event);

void __wrap_id_table_publish(struct id_table *table, uint64_t id, void *object)
{
        if (before_publish)
                before_publish();
        __real_id_table_publish(table, id, object);
}

int __wrap_epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event)
{
        if (operation == EPOLL_CTL_ADD && epoll_add_fails_with) {
                errno = epoll_add_fails_with;
                return -1;
        }
        return __real_epoll_ctl(epoll_fd, operation, fd, event);
}

static void on_appeared(struct client *client, void *data)
{
        atomic_fetch_add(&((struct fixture *)data)->appeared, 1);
}

static void on_exited(struct client *client, void *data)
{
        atomic_fetch_add(&((struct fixture *)data)->exited, 1);
}

static void reap(pid_t pid)
{
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                ;
}

static void set_up(struct fixture *f, gconstpointer data)
{
        atomic_init(&f->appeared, 0);
        atomic_init(&f->exited, 0);
        g_assert_cmpint(client_table_new(on_appeared, on_exited, f, NULL, &f->table), ==, 0);
        f->child = fork();
        g_assert_cmpint(f->child, >=, 0);
        if (f->child == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;)
                        pause();
        }
}

static void tear_down(struct fixture *f, gconstpointer data)
{
        if (f->child > 0) {
                kill(f->child, SIGKILL);
                reap(f->child);
        }
        alarm(20); /* for a table that cannot be emptied */
        client_table_free(f->table);
        alarm(0);
        g_assert_cmpint(f->appeared, ==, f->exited);
}

/* Kills the child of the fixture; a zombie is left, whose id nobody else gets. */
static void make_zombie(struct fixture *f)
{
        kill(f->child, SIGKILL);
        while (waitid(P_PID, (id_t)f->child, NULL, WEXITED | WNOWAIT) < 0 && errno == EINTR)
                ;
}

static void await_end(struct client *client)
{
        for (int i = 0; i < 200 && client_alive(client); i++)
                g_usleep(10000);
        g_assert_false(client_alive(client));
}

static struct {
        struct fixture *f;
        pthread_t thread;
        atomic_bool done;
} other;

static void *other_thread(void *data)
{
        struct client *client;

        if (client_table_get(other.f->table, other.f->child, &client) == 0)
                client_unref(client);
        atomic_store(&other.done, true);
        return NULL;
}

/* The process ends, and another of its requests notices, or has to wait until the client is whole.
 */
static void let_another_end_it(void)
{
        before_publish = NULL;
        make_zombie(other.f);
        g_assert_cmpint(pthread_create(&other.thread, NULL, other_thread, NULL), ==, 0);
        for (int i = 0; i < 30 && !atomic_load(&other.done); i++)
                g_usleep(10000);
}

static void test_ends_while_made(struct fixture *f, gconstpointer data)
{
        struct client *client = NULL;

        other.f = f;
        atomic_store(&other.done, false);
        before_publish = let_another_end_it;
        g_assert_cmpint(client_table_get(f->table, f->child, &client), ==, 0);
        pthread_join(other.thread, NULL);
        await_end(client);
        client_unref(client);
        g_assert_cmpuint(client_table_count(f->table), ==, 0);
        client_table_sweep(f->table); /* looks at what the table has */
}

static int64_t cpu_ms(void)
{
        struct timespec t;

        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* A dead client may be referenced for long (handles that are looked at, lineage): that costs
 * nothing. */
static void test_dead_costs_nothing(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Client) client = NULL;
        int64_t before;

        g_assert_cmpint(client_table_get(f->table, f->child, &client), ==, 0);
        make_zombie(f);
        await_end(client);
        before = cpu_ms();
        g_usleep(600000);
        g_assert_cmpint(cpu_ms() - before, <, 200);
}

/* The kernel has no room for one more watch: the exit is noticed by the sweep. */
static void test_not_watched(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Client) client = NULL;

        epoll_add_fails_with = ENOSPC;
        g_assert_cmpint(client_table_get(f->table, f->child, &client), ==, 0);
        epoll_add_fails_with = 0;
        client_table_sweep(f->table);
        g_assert_true(client_alive(client));
        make_zombie(f);
        g_usleep(100000);
        g_assert_true(client_alive(client)); /* nobody looked */
        client_table_sweep(f->table);
        g_assert_false(client_alive(client));
}

/* Leaves room for `n` more descriptors; returns how it was before. */
static struct rlimit leave_descriptors(int n)
{
        struct rlimit before, now;
        int fds[16], last = -1;

        for (int i = 0; i <= n; i++) {
                fds[i] = dup(0);
                last = MAX(last, fds[i]);
        }
        for (int i = 0; i <= n; i++)
                close(fds[i]);
        getrlimit(RLIMIT_NOFILE, &before);
        now = (struct rlimit){.rlim_cur = (rlim_t)last, .rlim_max = before.rlim_max};
        g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &now), ==, 0);
        return before;
}

/* Without room for a descriptor neither can /proc be read nor a pidfd be held. */
static struct client *client_without_pidfd(struct fixture *f)
{
        struct client *client = NULL;
        struct rlimit before = leave_descriptors(0);
        int r = client_table_get(f->table, f->child, &client);

        setrlimit(RLIMIT_NOFILE, &before);
        g_assert_cmpint(r, ==, 0);
        g_assert_cmpint(client_info(client)->pid, ==, f->child);
        return client;
}

static void test_without_pidfd(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Client) client = client_without_pidfd(f), again = NULL;

        g_assert_cmpint(client_table_get(f->table, f->child, &again), ==, 0);
        g_assert_true(again == client);
        client_table_sweep(f->table);
        g_assert_true(client_alive(client));
        make_zombie(f); /* a parent may be slow to reap, or never do it */
        g_usleep(100000);
        g_assert_true(client_alive(client));
        client_table_sweep(f->table);
        g_assert_false(client_alive(client));
        g_assert_null(client_table_find_pid(f->table, f->child));
}

/* No descriptor at all: what cannot be looked at has not ended. */
static void test_no_descriptors(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Client) client = client_without_pidfd(f), again = NULL, new = NULL;
        struct rlimit before = leave_descriptors(0);
        int r;

        client_table_sweep(f->table);
        r = client_table_get(f->table, f->child, &again);
        setrlimit(RLIMIT_NOFILE, &before);
        g_assert_true(client_alive(client));
        g_assert_cmpint(r, ==, 0);
        g_assert_true(again == client);
        /* Of a new one little can be said, but which process it is. */
        before = leave_descriptors(0);
        r = client_table_get(f->table, getpid(), &new);
        setrlimit(RLIMIT_NOFILE, &before);
        g_assert_cmpint(r, ==, 0);
        g_assert_cmpint(client_info(new)->pid, ==, getpid());
        g_assert_cmpint(f->appeared, ==, 2);
}

#define ADD(name, function)                                                                        \
        g_test_add("/client-races/" name, struct fixture, NULL, set_up, function, tear_down)

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        ADD("ends-while-made", test_ends_while_made);
        ADD("dead-costs-nothing", test_dead_costs_nothing);
        ADD("not-watched", test_not_watched);
        ADD("without-pidfd", test_without_pidfd);
        ADD("no-descriptors", test_no_descriptors);
        return g_test_run();
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The client table, with real processes as clients. */
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cobj/client.h"

struct fixture {
        struct client_table *table;
        atomic_int appeared, exited;
};

static void on_appeared(struct client *client, void *data)
{
        atomic_fetch_add(&((struct fixture *)data)->appeared, 1);
}

static void on_exited(struct client *client, void *data)
{
        g_assert_false(client_alive(client));
        atomic_fetch_add(&((struct fixture *)data)->exited, 1);
}

static void set_up(struct fixture *f, gconstpointer data)
{
        atomic_init(&f->appeared, 0);
        atomic_init(&f->exited, 0);
        g_assert_cmpint(client_table_new(on_appeared, on_exited, f, &f->table), ==, 0);
}

static void tear_down(struct fixture *f, gconstpointer data)
{
        client_table_free(f->table);
        g_assert_cmpint(f->appeared, ==,
                        f->exited); /* each is told of once, and once when it ends */
}

/* A child that waits until it is killed. */
static pid_t start_child(const char *name)
{
        char byte = 0;
        int fds[2];
        pid_t pid;

        g_assert_cmpint(pipe(fds), ==, 0);
        pid = fork();
        g_assert_cmpint(pid, >=, 0);
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (name)
                        prctl(PR_SET_NAME, name);
                if (write(fds[1], &byte, 1) != 1)
                        _exit(1);
                for (;;)
                        pause();
        }
        g_assert_cmpint(read(fds[0], &byte, 1), ==, 1); /* its name is set */
        close(fds[0]);
        close(fds[1]);
        return pid;
}

static void end_child(pid_t pid)
{
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                ;
}

static void wait_until_dead(struct client *client)
{
        for (int i = 0; i < 200 && client_alive(client); i++)
                g_usleep(10000);
        g_assert_false(client_alive(client));
}

static void test_process(struct fixture *f, gconstpointer data)
{
        pid_t pid = start_child("a) b (\nc");
        g_autoptr(K42Client) client = NULL, again = NULL, found = NULL;
        g_autofree char *comm = NULL, *exe = NULL, *self = NULL;

        g_assert_cmpint(client_table_get(f->table, pid, &client), ==, 0);
        g_assert_cmpint(client_info(client)->pid, ==, pid);
        g_assert_cmpint(client_info(client)->ppid, ==, getpid());
        g_assert_cmpuint(client_info(client)->uid, ==, getuid());
        g_assert_cmpuint(client_info(client)->start_time, >, 0);
        comm = client_dup_comm(client);
        g_assert_cmpstr(comm, ==, "a) b (\nc");
        exe = client_dup_exe(client);
        self = g_file_read_link("/proc/self/exe", NULL);
        g_assert_cmpstr(exe, ==, self);
        g_assert_cmpint(client_table_get(f->table, pid, &again), ==, 0);
        g_assert_true(again == client);
        found = client_table_find_pid(f->table, pid);
        g_assert_true(found == client);
        g_assert_cmpuint(client_table_count(f->table), ==, 1);
        end_child(pid);
        wait_until_dead(client); /* by the watcher */
        g_assert_null(client_table_find_pid(f->table, pid));
        g_assert_cmpuint(client_table_count(f->table), ==, 0);
}

/* Of this process: its second thread asks, as FUSE would, by its own id. */
static void *asking_thread(void *data)
{
        struct fixture *f = data;
        const pid_t tid = (pid_t)syscall(SYS_gettid);
        g_autoptr(K42Client) by_thread = NULL, by_process = NULL, cached = NULL;

        g_assert_cmpint(tid, !=, getpid());
        g_assert_null(client_table_peek(f->table, tid));
        g_assert_cmpint(client_table_get(f->table, tid, &by_thread), ==, 0);
        g_assert_cmpint(client_info(by_thread)->pid, ==, getpid());
        g_assert_cmpint(client_table_get(f->table, getpid(), &by_process), ==, 0);
        g_assert_true(by_thread == by_process);
        cached = client_table_peek(f->table, tid);
        g_assert_true(cached == by_thread);
        return NULL;
}

static void test_threads(struct fixture *f, gconstpointer data)
{
        pthread_t thread;

        g_assert_cmpint(pthread_create(&thread, NULL, asking_thread, f), ==, 0);
        pthread_join(thread, NULL);
}

static void test_gone(struct fixture *f, gconstpointer data)
{
        struct client *client = NULL;
        pid_t pid = fork();

        if (pid == 0)
                _exit(0);
        waitid(P_PID, (id_t)pid, NULL, WEXITED | WNOWAIT); /* a zombie now */
        g_assert_cmpint(client_table_get(f->table, pid, &client), ==, -ESRCH);
        waitpid(pid, NULL, 0);
        g_assert_cmpint(client_table_get(f->table, pid, &client), ==, -ESRCH);
        g_assert_null(client);
}

static void test_nobody(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Client) client = NULL, peeked = client_table_peek(f->table, 0);

        g_assert_cmpint(client_table_get(f->table, 0, &client), ==, 0);
        g_assert_true(client == peeked);
        g_assert_cmpint(client_info(client)->pid, ==, 0);
        g_assert_true(client_alive(client));
        g_assert_cmpuint(client_table_count(f->table), ==, 0);
}

/* No descriptor for a pidfd is to be had: the client works, and the sweep notices its exit. */
static void test_without_pidfd(struct fixture *f, gconstpointer data)
{
        pid_t pid = start_child(NULL);
        g_autoptr(K42Client) client = NULL;
        struct rlimit before, now;
        int fds[64], n = 0, last;

        getrlimit(RLIMIT_NOFILE, &before);
        last = dup(0);
        close(last);
        /* /proc's files need one descriptor at a time; the pidfd would be held beside them. */
        now = (struct rlimit){.rlim_cur = (rlim_t)last + 1, .rlim_max = before.rlim_max};
        g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &now), ==, 0);
        while (n < 64 && (fds[n] = dup(0)) >= 0)
                n++;
        g_assert_cmpint(n, ==, 1);
        close(fds[0]);
        (void)client_table_get(f->table, pid, &client);
        setrlimit(RLIMIT_NOFILE, &before);
        if (!client) { /* the pidfd was had, and then /proc could not be read: an error, no more */
                g_assert_cmpint(client_table_get(f->table, pid, &client), ==, 0);
                end_child(pid);
                wait_until_dead(client);
                return;
        }
        client_table_sweep(f->table);
        g_assert_true(client_alive(client));
        end_child(pid);
        client_table_sweep(f->table);
        wait_until_dead(client);
}

struct race {
        struct fixture *f;
        pid_t pid;
        struct client *got[8];
        atomic_int next;
};

static void *race_thread(void *data)
{
        struct race *race = data;
        const int i = atomic_fetch_add(&race->next, 1);

        g_assert_cmpint(client_table_get(race->f->table, race->pid, &race->got[i]), ==, 0);
        return NULL;
}

static void test_one_client_for_all(struct fixture *f, gconstpointer data)
{
        for (int round = 0; round < 30; round++) {
                struct race race = {.f = f, .pid = start_child(NULL)};
                pthread_t threads[8];

                for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
                        pthread_create(&threads[i], NULL, race_thread, &race);
                for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
                        pthread_join(threads[i], NULL);
                for (unsigned i = 1; i < G_N_ELEMENTS(threads); i++)
                        g_assert_true(race.got[i] == race.got[0]);
                g_assert_cmpint(f->appeared, ==, round + 1);
                end_child(race.pid);
                for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
                        client_unref(race.got[i]);
        }
}

/* A program that starts many short threads, each of which opens something. */
static void *short_thread(void *data)
{
        struct fixture *f = data;
        g_autoptr(K42Client) client = NULL;

        g_assert_cmpint(client_table_get(f->table, (pid_t)syscall(SYS_gettid), &client), ==, 0);
        g_assert_cmpint(client_info(client)->pid, ==, getpid());
        return NULL;
}

static void test_many_threads(struct fixture *f, gconstpointer data)
{
        for (int i = 0; i < 1000; i++) {
                pthread_t thread;

                g_assert_cmpint(pthread_create(&thread, NULL, short_thread, f), ==, 0);
                pthread_join(thread, NULL);
        }
        g_assert_cmpint(f->appeared, ==, 1);
}

#define ADD(name, function)                                                                        \
        g_test_add("/client/" name, struct fixture, NULL, set_up, function, tear_down)

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        ADD("process", test_process);
        ADD("threads", test_threads);
        ADD("gone", test_gone);
        ADD("nobody", test_nobody);
        ADD("without-pidfd", test_without_pidfd);
        ADD("one-client-for-all", test_one_client_for_all);
        ADD("many-threads", test_many_threads);
        return g_test_run();
}

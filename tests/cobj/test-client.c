/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The client table, with real processes as clients. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/sched.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
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
        g_assert_cmpint(client_table_new(on_appeared, on_exited, f, NULL, &f->table), ==, 0);
}

static void tear_down(struct fixture *f, gconstpointer data)
{
        client_table_free(f->table);
        g_assert_cmpint(f->appeared, ==,
                        f->exited); /* each is told of once, and once when it ends */
}

static void *pause_thread(void *ret_tid)
{
        if (ret_tid)
                *(volatile pid_t *)ret_tid = (pid_t)syscall(SYS_gettid);
        for (;;)
                pause();
        return NULL;
}

/* ---- children ----
 *
 * They are this program, anew: who is forked from a process with threads cannot be sure of the locks of malloc()
 * and of a sanitizer, and would hang once in a while when it makes a thread. */

static void *thread_until_told(void *data);
static void *exec_thread(void *data);

static void say_tid(pid_t tid)
{
        if (write(STDOUT_FILENO, &tid, sizeof tid) != sizeof tid)
                _exit(1);
}

/* Says the id of its second thread, or 0, and waits.  `what`: see start_child(). */
static int be_child(const char *what, const char *name)
{
        pthread_t thread;
        pid_t tid = 0;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (*name)
                prctl(PR_SET_NAME, name);
        if (strcmp(what, "told") == 0) {
                pthread_create(&thread, NULL, thread_until_told, NULL);
        } else if (strcmp(what, "execs") == 0) {
                say_tid(0);
                pthread_create(&thread, NULL, exec_thread, NULL);
        } else {
                if (strcmp(what, "waits") != 0)
                        pthread_create(&thread, NULL, pause_thread, &tid);
                while (strcmp(what, "waits") != 0 && *(volatile pid_t *)&tid == 0)
                        usleep(100);
                say_tid(tid);
        }
        if (strcmp(what, "leader-ends") == 0)
                syscall(SYS_exit, 0); /* this thread only */
        pause_thread(NULL);
        return 0;
}

/* A child that
 *   waits
 *   threads      waits with a second thread
 *   told         whose second thread ends when a byte is written to *ret_tell
 *   execs        whose second thread runs sleep in its place
 *   leader-ends  whose first thread ends, and the second goes on
 * `ret_tid` gets the second thread's id; it and `ret_tell` may be NULL. */
static pid_t start_child(const char *what, const char *name, pid_t *ret_tid, int *ret_tell)
{
        char *argv[] = {(char *)"test-client", (char *)"--child", (char *)what, (char *)(name ? name : ""), NULL};
        posix_spawn_file_actions_t actions;
        int say[2], tell[2];
        pid_t pid, tid;

        g_assert_true(pipe2(say, O_CLOEXEC) == 0 && pipe2(tell, O_CLOEXEC) == 0);
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, tell[0], STDIN_FILENO);
        posix_spawn_file_actions_adddup2(&actions, say[1], STDOUT_FILENO);
        g_assert_cmpint(posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, environ), ==, 0);
        posix_spawn_file_actions_destroy(&actions);
        close(say[1]);
        close(tell[0]);
        g_assert_cmpint(read(say[0], &tid, sizeof tid), ==, sizeof tid);
        close(say[0]);
        if (ret_tell)
                *ret_tell = tell[1];
        else
                close(tell[1]);
        if (ret_tid)
                *ret_tid = tid;
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
        pid_t pid = start_child("waits", "a) b (\nc", NULL, NULL);
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

static void test_threads(struct fixture *f, gconstpointer data)
{
        pid_t tid, pid = start_child("threads", NULL, &tid, NULL);
        g_autoptr(K42Client) by_thread = NULL, by_process = NULL, cached = NULL;

        g_assert_cmpint(tid, !=, pid);
        g_assert_null(client_table_peek(f->table, tid));
        g_assert_cmpint(client_table_get(f->table, tid, &by_thread), ==, 0);
        g_assert_cmpint(client_info(by_thread)->pid, ==, pid);
        g_assert_cmpint(client_table_get(f->table, pid, &by_process), ==, 0);
        g_assert_true(by_thread == by_process);
        cached = client_table_peek(f->table, tid);
        g_assert_true(cached == by_thread);
        end_child(pid);
        wait_until_dead(by_thread);
        g_assert_null(client_table_peek(f->table, tid));
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

/* Takes every descriptor there is, and gives them back. */
struct no_fds {
        struct rlimit before;
        int fds[64], n;
};

static void take_fds(struct no_fds *no)
{
        struct rlimit now;
        int next = dup(0);

        g_assert_cmpint(next, >=, 0);
        close(next);
        getrlimit(RLIMIT_NOFILE, &no->before);
        now = (struct rlimit){.rlim_cur = (rlim_t)next + 1, .rlim_max = no->before.rlim_max};
        g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &now), ==, 0);
        for (no->n = 0; no->n < 64 && (no->fds[no->n] = dup(0)) >= 0;)
                no->n++;
        g_assert_cmpint(no->n, ==, 1);
}

static void give_back_fds(struct no_fds *no)
{
        setrlimit(RLIMIT_NOFILE, &no->before);
        while (no->n > 0)
                close(no->fds[--no->n]);
}

/* No descriptor is to be had: the client works, lives as long as its process, and is swept. */
static void test_without_pidfd(struct fixture *f, gconstpointer data)
{
        pid_t tid, pid = start_child("threads", NULL, &tid, NULL);
        g_autoptr(K42Client) client = NULL, again = NULL, other = NULL;
        struct no_fds no;
        int r, r_thread;

        take_fds(&no);
        r = client_table_get(f->table, pid, &client);
        client_table_sweep(f->table);
        if (r == 0)
                r = client_table_get(f->table, pid, &again);
        r_thread = client_table_get(f->table, tid, &other); /* may work, or be nobody's */
        give_back_fds(&no);

        g_assert_cmpint(r, ==, 0);
        g_assert_true(again == client);
        g_assert_true(r_thread == -ESRCH || (r_thread == 0 && other == client));
        g_assert_cmpint(client_info(client)->pid, ==, pid);
        g_assert_true(client_alive(client));
        client_table_sweep(f->table);
        g_assert_true(client_alive(client));
        g_assert_cmpuint(client_table_count(f->table), ==, 1);
        kill(pid, SIGKILL);
        waitid(P_PID, (id_t)pid, NULL, WEXITED | WNOWAIT); /* a zombie has ended, too */
        client_table_sweep(f->table);
        g_assert_false(client_alive(client));
        g_assert_cmpuint(client_table_count(f->table), ==, 0);
        end_child(pid);
}

/* A client that was made in better times goes on working when there is no descriptor. */
static void test_no_descriptor_later(struct fixture *f, gconstpointer data)
{
        pid_t tid, pid = start_child("threads", NULL, &tid, NULL);
        g_autoptr(K42Client) client = NULL, again = NULL, by_thread = NULL;
        struct no_fds no;
        int r, r_thread;

        g_assert_cmpint(client_table_get(f->table, tid, &client), ==, 0);
        take_fds(&no);
        r = client_table_get(f->table, pid, &again);
        r_thread = client_table_get(f->table, tid, &by_thread);
        client_refresh(client);
        client_table_sweep(f->table);
        give_back_fds(&no);
        g_assert_cmpint(r, ==, 0);
        g_assert_true(again == client);
        g_assert_cmpint(r_thread, ==, 0);
        g_assert_true(by_thread == client);
        g_assert_true(client_alive(client));
        end_child(pid);
        wait_until_dead(client);
}

/* Somebody holds on to a client whose process is gone: the watcher must not spin meanwhile. */
static void test_watcher_rests(struct fixture *f, gconstpointer data)
{
        pid_t pid = start_child("waits", NULL, NULL, NULL);
        g_autoptr(K42Client) client = NULL;
        struct timespec before, after;
        double used;

        g_assert_cmpint(client_table_get(f->table, pid, &client), ==, 0);
        end_child(pid);
        wait_until_dead(client);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
        g_usleep(500000);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
        used = (double)(after.tv_sec - before.tv_sec) +
               (double)(after.tv_nsec - before.tv_nsec) / 1e9;
        g_test_message("%.4f s of processor time in half a second", used);
        g_assert_cmpfloat(used, <, 0.03);
}

/* A child with a given process id, or -1 and errno. */
static pid_t start_child_as(pid_t pid)
{
        struct clone_args args = {
                .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&pid, .set_tid_size = 1};
        pid_t child = -1;

        /* An id may be free a moment later than waitpid() says. */
        for (int i = 0; i < 100 && child < 0 && (i == 0 || errno == EEXIST); i++) {
                if (i > 0)
                        g_usleep(1000);
                child = (pid_t)syscall(SYS_clone3, &args, sizeof args);
        }
        if (child == 0) {
                syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
                for (;;)
                        syscall(SYS_nanosleep, &(struct timespec){.tv_sec = 1000}, NULL);
        }
        return child;
}

static bool skip_without_set_tid(pid_t child)
{
        if (child >= 0)
                return false;
        g_test_skip("a process id can't be chosen here (clone3 with set_tid), or was taken");
        return true;
}

/* A process id is used again at once: another process, another client. */
static void test_pid_reuse(struct fixture *f, gconstpointer data)
{
        for (int round = 0; round < 20; round++) {
                pid_t pid = start_child("waits", NULL, NULL, NULL), second;
                g_autoptr(K42Client) before = NULL, after = NULL;

                g_assert_cmpint(client_table_get(f->table, pid, &before), ==, 0);
                end_child(pid);
                second = start_child_as(pid);
                if (skip_without_set_tid(second))
                        return;
                g_assert_cmpint(client_table_get(f->table, pid, &after), ==, 0);
                g_assert_true(after != before);
                wait_until_dead(before);
                g_assert_true(client_alive(after));
                g_assert_cmpuint(client_info(after)->id, !=, client_info(before)->id);
                g_assert_cmpuint(client_info(after)->start_time, >=,
                                 client_info(before)->start_time);
                end_child(second);
                wait_until_dead(after);
        }
}

static void *thread_until_told(void *data)
{
        char byte;

        say_tid((pid_t)syscall(SYS_gettid));
        if (read(STDIN_FILENO, &byte, 1) != 1)
                _exit(1);
        return NULL;
}

/* The id of a thread becomes that of another process, while the thread's own process lives on: the
 * cached answer must not be used. */
static void test_tid_reuse(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Client) before = NULL, after = NULL, again = NULL, cached = NULL;
        int tell;
        pid_t tid, pid = start_child("told", NULL, &tid, &tell), second;

        g_assert_cmpint(client_table_get(f->table, tid, &before), ==, 0);
        g_assert_cmpint(client_info(before)->pid, ==, pid);
        g_assert_cmpint(write(tell, "", 1), ==, 1);
        close(tell);
        second = start_child_as(tid);
        if (!skip_without_set_tid(second)) {
                cached = client_table_peek(f->table, tid);
                g_assert_true(cached == before); /* that is what makes it a trap */
                g_assert_cmpint(client_table_get(f->table, tid, &after), ==, 0);
                g_assert_cmpint(client_info(after)->pid, ==, tid);
                g_assert_true(after != before);
                g_assert_cmpint(client_table_get(f->table, tid, &again), ==, 0);
                g_assert_true(again == after);
                g_assert_true(client_alive(before));
                end_child(second);
                wait_until_dead(after);
        }
        end_child(pid);
        wait_until_dead(before);
}

static void *exec_thread(void *data)
{
        usleep(50000);
        execlp("sleep", "sleep", "1000", NULL);
        _exit(127);
}

/* A thread that is not the leader calls exec and takes the leader's place: the process goes on. */
static void test_exec_in_thread(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Client) client = NULL, again = NULL;
        g_autofree char *comm = NULL;
        pid_t pid = start_child("execs", NULL, NULL, NULL);

        g_assert_cmpint(client_table_get(f->table, pid, &client), ==, 0);
        for (int i = 0; i < 200 && g_strcmp0(comm, "sleep") != 0; i++) {
                g_usleep(10000);
                g_free(comm);
                client_refresh(client);
                comm = client_dup_comm(client);
        }
        g_assert_cmpstr(comm, ==, "sleep");
        g_usleep(50000);
        g_assert_true(client_alive(client));
        g_assert_cmpint(client_table_get(f->table, pid, &again), ==, 0);
        g_assert_true(again == client);
        end_child(pid);
        wait_until_dead(client);
}

/* The leader's thread ends before the others: the process goes on. */
static void test_leader_ends(struct fixture *f, gconstpointer data)
{
        g_autoptr(K42Client) client = NULL, by_thread = NULL;
        pid_t tid, pid = start_child("leader-ends", NULL, &tid, NULL);

        g_usleep(50000);
        g_assert_cmpint(client_table_get(f->table, tid, &by_thread), ==, 0);
        g_assert_cmpint(client_info(by_thread)->pid, ==, pid);
        g_assert_cmpint(client_table_get(f->table, pid, &client), ==, 0);
        g_assert_true(client == by_thread);
        client_table_sweep(f->table);
        g_assert_true(client_alive(client));
        end_child(pid);
        wait_until_dead(client);
}

/* Processes end while several threads ask for them and sweep: each ends once, nothing is left. */
struct churn {
        struct fixture *f;
        _Atomic pid_t pid;
        atomic_bool stop;
};

static void *churn_thread(void *data)
{
        struct churn *churn = data;

        for (unsigned i = 0; !atomic_load(&churn->stop); i++) {
                struct client *client;

                if (client_table_get(churn->f->table, atomic_load(&churn->pid), &client) == 0)
                        client_unref(client);
                client = client_table_find_pid(churn->f->table, atomic_load(&churn->pid));
                client_unref(client);
                if (i % 64 == 0)
                        client_table_sweep(churn->f->table);
        }
        return NULL;
}

static void test_churn(struct fixture *f, gconstpointer data)
{
        struct churn churn = {.f = f};
        pthread_t threads[3];

        for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
                pthread_create(&threads[i], NULL, churn_thread, &churn);
        for (int i = 0; i < 300; i++) {
                pid_t pid = fork();

                if (pid == 0) {
                        syscall(SYS_nanosleep, &(struct timespec){.tv_nsec = 500000}, NULL);
                        _exit(0);
                }
                atomic_store(&churn.pid, pid);
                waitpid(pid, NULL, 0);
        }
        atomic_store(&churn.stop, true);
        for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
                pthread_join(threads[i], NULL);
        for (int i = 0; i < 200 && client_table_count(f->table) > 0; i++)
                g_usleep(10000);
        g_assert_cmpuint(client_table_count(f->table), ==, 0);
        g_assert_cmpint(f->appeared, >, 0);
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
                struct race race = {.f = f, .pid = start_child("waits", NULL, NULL, NULL)};
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
        if (argc == 4 && strcmp(argv[1], "--child") == 0)
                return be_child(argv[2], argv[3]);
        g_test_init(&argc, &argv, NULL);
        ADD("process", test_process);
        ADD("threads", test_threads);
        ADD("gone", test_gone);
        ADD("nobody", test_nobody);
        ADD("without-pidfd", test_without_pidfd);
        ADD("no-descriptor-later", test_no_descriptor_later);
        ADD("watcher-rests", test_watcher_rests);
        ADD("pid-reuse", test_pid_reuse);
        ADD("tid-reuse", test_tid_reuse);
        ADD("exec-in-thread", test_exec_in_thread);
        ADD("leader-ends", test_leader_ends);
        ADD("churn", test_churn);
        ADD("one-client-for-all", test_one_client_for_all);
        ADD("many-threads", test_many_threads);
        return g_test_run();
}

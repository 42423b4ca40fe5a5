/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stalls --kill=N --holder=PID           [--every=MS] [--goal=MS] [--beside=DIRECTORY] MOUNTPOINT
 * stalls --upgrade=N --ctl=K42CTL --binary=PROGRAM  (likewise)
 *
 * How long a client waits when the worker dies, or another program takes over.  Two threads do stat, open,
 * read, write and close on files in MOUNTPOINT, one call after the other, and every call must succeed.
 * Meanwhile the worker is killed, or upgraded, N times.  Of each time it is known
 *
 *   the longest stall   the longest call of a client
 *   killed -> served    from the kill to the end of the first call that began after the worker was dead
 *
 * and their median, 99th percentile and maximum are printed, with a histogram.  With --goal the p99 (of
 * "killed -> served", or of the stalls of upgrades) is compared, which is said and no more: it depends on
 * what else the machine does.  Ends with 1 if a call failed, or nobody served within 60 s.
 *
 * With --beside=DIRECTORY a third thread does the same there, without a file system of ours between: what its
 * calls wait for is the machine's.  A call that lasts longer than a second is told, with what everybody waits for.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS    2 /* and one more beside */
#define EVENTS_MAX 100000
#define BLOCK      512
#define PATIENCE_S 60
#define SLOW_NS    INT64_C(1000000000)

struct client {
        pthread_t thread;
        char path[4096];
        bool beside;
        _Atomic int64_t began;   /* ns; the call that runs now */
        const char *_Atomic call;
        _Atomic int64_t longest; /* ns; of those that ended since the main thread has set it to 0 */
        uint64_t calls;
};

static struct client clients[CLIENTS + 1];
static int n_clients = CLIENTS;
static atomic_bool over, failed;

/* What the main thread waits for: a call that begins after `dead` (0: nothing yet) ends at `served`. */
static _Atomic int64_t dead, served;

static int64_t now_ns(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- the clients ---- */

static void begin(struct client *client, const char *call)
{
        atomic_store(&client->call, call);
        atomic_store(&client->began, now_ns());
}

/* The end of a call that returned `r`. */
static bool ended(struct client *client, long r)
{
        const int err = errno;
        const int64_t began = atomic_load(&client->began), now = now_ns(), died = atomic_load(&dead);
        int64_t none = 0;

        if (now - began > atomic_load(&client->longest))
                atomic_store(&client->longest, now - began);
        if (died != 0 && began > died && !client->beside)
                atomic_compare_exchange_strong(&served, &none, now);
        client->calls++;
        if (r >= 0)
                return true;
        fprintf(stderr, "WRONG: %s: %s: %s\n", client->path, atomic_load(&client->call), strerror(err));
        atomic_store(&failed, true);
        return false;
}

static bool one_round(struct client *client)
{
        struct statx st;
        char block[BLOCK];
        int fd;

        begin(client, "stat");
        if (!ended(client, statx(AT_FDCWD, client->path, AT_STATX_FORCE_SYNC, STATX_ALL, &st)))
                return false;
        begin(client, "open");
        fd = open(client->path, O_RDWR | O_CLOEXEC);
        if (!ended(client, fd))
                return false;
        begin(client, "read");
        if (!ended(client, pread(fd, block, sizeof block, 0)))
                return false;
        begin(client, "write");
        if (!ended(client, pwrite(fd, block, sizeof block, 0)))
                return false;
        begin(client, "close");
        return ended(client, close(fd));
}

static void *run_client(void *data)
{
        while (!atomic_load(&over) && one_round(data))
                ;
        return NULL;
}

static int start_clients(const char *directory, const char *beside)
{
        static const char block[BLOCK] = "stalls";

        n_clients += beside != NULL;
        for (int i = 0; i < n_clients; i++) {
                struct client *client = &clients[i];
                int fd;

                snprintf(client->path, sizeof client->path, "%s/stalls.%d", i < CLIENTS ? directory : beside, i);
                client->beside = i >= CLIENTS;
                fd = open(client->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
                if (fd < 0 || write(fd, block, BLOCK) != BLOCK) {
                        fprintf(stderr, "stalls: %s: %s\n", client->path, strerror(errno));
                        return -1;
                }
                close(fd);
                if (pthread_create(&client->thread, NULL, run_client, client) != 0)
                        return -1;
        }
        return 0;
}

static uint64_t end_clients(void)
{
        uint64_t calls = 0;

        atomic_store(&over, true);
        for (int i = 0; i < n_clients; i++) {
                pthread_join(clients[i].thread, NULL);
                calls += i < CLIENTS ? clients[i].calls : 0;
                unlink(clients[i].path);
        }
        return calls;
}

/* ---- what is done to the mount ---- */

/* The child of the holder that serves, or 0 if there is none just now. */
static pid_t find_worker(pid_t holder)
{
        char path[64], name[32];
        FILE *children;
        int pid;
        pid_t worker = 0;

        snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)holder, (int)holder);
        children = fopen(path, "re");
        while (children && worker == 0 && fscanf(children, "%d", &pid) == 1) {
                FILE *comm;

                snprintf(path, sizeof path, "/proc/%d/comm", pid);
                comm = fopen(path, "re");
                if (comm && fgets(name, sizeof name, comm) && strcmp(name, "k42fs\n") == 0)
                        worker = pid; /* one that only waits has another name */
                if (comm)
                        fclose(comm);
        }
        if (children)
                fclose(children);
        return worker;
}

static void pause_ms(int ms)
{
        poll(NULL, 0, ms);
}

/* Kills the worker and waits until it is dead.  Returns the time of the kill, or 0. */
static int64_t kill_worker(pid_t holder)
{
        pid_t worker = 0;
        struct pollfd pidfd;
        int64_t at;

        for (int i = 0; i < PATIENCE_S * 1000 && (worker = find_worker(holder)) == 0; i++)
                pause_ms(1);
        pidfd = (struct pollfd){.fd = (int)syscall(SYS_pidfd_open, worker, 0), .events = POLLIN};
        if (worker == 0 || pidfd.fd < 0)
                return 0;
        at = now_ns();
        kill(worker, SIGKILL);
        poll(&pidfd, 1, PATIENCE_S * 1000);
        close(pidfd.fd);
        return at;
}

static bool upgrade(const char *ctl, const char *mountpoint, const char *binary)
{
        char *const argv[] = {(char *)ctl, (char *)"upgrade", (char *)mountpoint, (char *)binary, NULL};
        posix_spawn_file_actions_t actions;
        pid_t pid;
        int status = -1;

        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
        if (posix_spawn(&pid, ctl, &actions, NULL, argv, environ) == 0)
                waitpid(pid, &status, 0);
        posix_spawn_file_actions_destroy(&actions);
        if (status != 0)
                fprintf(stderr, "WRONG: an upgrade ended with %x\n", (unsigned)status);
        return status == 0;
}

/* ---- figures ---- */

static int compare(const void *a, const void *b)
{
        const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

        return x < y ? -1 : x > y;
}

static double ms_at(const int64_t *sorted, unsigned n, double part)
{
        const unsigned i = (unsigned)(part * n);

        return (double)sorted[i < n ? i : n - 1] / 1e6;
}

static double print_figures(const char *what, int64_t *times, unsigned n)
{
        static const int bounds[] = {2, 5, 10, 20, 30, 40, 50, 75, 100, 150, 200, 500, 1000};
        const unsigned n_bounds = sizeof bounds / sizeof bounds[0];
        unsigned i = 0;

        qsort(times, n, sizeof *times, compare);
        printf("%s, of %u: p50 %.1f ms, p90 %.1f ms, p99 %.1f ms, max %.1f ms\n  ", what, n,
               ms_at(times, n, 0.5), ms_at(times, n, 0.9), ms_at(times, n, 0.99), ms_at(times, n, 1));
        for (unsigned b = 0; b <= n_bounds; b++) {
                const unsigned first = i;

                while (i < n && (b == n_bounds || times[i] < (int64_t)bounds[b] * 1000000))
                        i++;
                if (i > first && b < n_bounds)
                        printf(" <%d ms: %u", bounds[b], i - first);
                else if (i > first)
                        printf(" more: %u", i - first);
        }
        printf("\n");
        return ms_at(times, n, 0.99);
}

/* ---- */

struct plan {
        unsigned kills, upgrades;
        int every, goal;
        pid_t holder;
        const char *ctl, *binary, *mountpoint, *beside;
};

static int64_t stalls[EVENTS_MAX], serves[EVENTS_MAX], beside[EVENTS_MAX];

static bool wait_until_served(void)
{
        for (int64_t until = now_ns() + (int64_t)PATIENCE_S * 1000000000; now_ns() < until; pause_ms(1)) {
                bool all = atomic_load(&served) != 0;

                for (int i = 0; i < CLIENTS; i++) /* nobody is in a call that began before */
                        all = all && atomic_load(&clients[i].began) > atomic_load(&dead);
                if (all || atomic_load(&failed))
                        return all;
        }
        fprintf(stderr, "WRONG: nobody serves\n");
        return false;
}

/* The n-th kill or upgrade, with all that is seen of it. */
static bool one_event(const struct plan *plan, unsigned n)
{
        int64_t at;

        for (int i = 0; i < n_clients; i++)
                atomic_store(&clients[i].longest, 0);
        atomic_store(&dead, 0);
        atomic_store(&served, 0);
        at = now_ns();
        if (plan->kills > 0)
                at = kill_worker(plan->holder);
        else if (!upgrade(plan->ctl, plan->mountpoint, plan->binary))
                return false;
        atomic_store(&dead, now_ns());
        if (at == 0 || !wait_until_served())
                return false;
        serves[n] = atomic_load(&served) - at;
        for (int i = 0; i < CLIENTS; i++)
                if (atomic_load(&clients[i].longest) > stalls[n])
                        stalls[n] = atomic_load(&clients[i].longest);
        beside[n] = atomic_load(&clients[CLIENTS].longest);
        return true;
}

/* What the threads of process `pid` wait for, in the kernel. */
static void tell_waits(pid_t pid)
{
        char command[256];

        snprintf(command, sizeof command,
                 "for t in /proc/%d/task/*; do echo \"  $(cat $t/comm) ${t##*/}: $(cat $t/stat | cut -d ' ' -f 3) "
                 "$(tr '\\n' ' ' <$t/stack)\"; done >&2", (int)pid);
        if (system(command) != 0)
                fprintf(stderr, "  (nothing known of %d)\n", (int)pid);
}

/* Tells of each call that has lasted for longer than SLOW_NS. */
static void *watch(void *data)
{
        const struct plan *plan = data;
        int64_t told[CLIENTS + 1] = {0};

        for (; !atomic_load(&over); pause_ms(100)) {
                for (int i = 0; i < n_clients; i++) {
                        const int64_t began = atomic_load(&clients[i].began);

                        if (began == told[i] || began == 0 || now_ns() - began < SLOW_NS)
                                continue;
                        told[i] = began;
                        fprintf(stderr, "slow: %s of %s\n", atomic_load(&clients[i].call), clients[i].path);
                        tell_waits(getpid());
                        tell_waits(plan->holder);
                        tell_waits(find_worker(plan->holder));
                }
        }
        return NULL;
}

static int run(const struct plan *plan)
{
        const unsigned n = plan->kills + plan->upgrades;
        pthread_t watcher;
        unsigned done = 0;
        uint64_t calls;
        double p99;

        if (start_clients(plan->mountpoint, plan->beside) < 0)
                return 1;
        if (pthread_create(&watcher, NULL, watch, (void *)plan) != 0)
                return 1;
        while (done < n && !atomic_load(&failed) && one_event(plan, done)) {
                done++;
                pause_ms(plan->every / 2 + (plan->every > 1 ? rand() % plan->every : 0));
        }
        calls = end_clients();
        pthread_join(watcher, NULL);
        if (done < n || atomic_load(&failed))
                return 1;
        printf("%u %s, %llu calls of clients, 0 failed\n", n, plan->kills > 0 ? "kills" : "upgrades",
               (unsigned long long)calls);
        p99 = print_figures("longest stall", stalls, n);
        if (plan->beside)
                print_figures("the same without us between", beside, n);
        if (plan->kills > 0)
                p99 = print_figures("killed -> served", serves, n);
        if (plan->goal > 0)
                printf("goal p99 < %d ms: %s\n", plan->goal, p99 < plan->goal ? "holds" : "MISSED");
        return 0;
}

int main(int argc, char **argv)
{
        static const struct option options[] = {
                {"kill", required_argument, NULL, 'k'},   {"upgrade", required_argument, NULL, 'u'},
                {"every", required_argument, NULL, 'e'},  {"goal", required_argument, NULL, 'g'},
                {"holder", required_argument, NULL, 'h'}, {"ctl", required_argument, NULL, 'c'},
                {"binary", required_argument, NULL, 'b'}, {"beside", required_argument, NULL, 'd'},
                {0},
        };
        struct plan plan = {.every = 100};
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
                switch (c) {
                case 'k': plan.kills = (unsigned)atoi(optarg); break;
                case 'u': plan.upgrades = (unsigned)atoi(optarg); break;
                case 'e': plan.every = atoi(optarg); break;
                case 'g': plan.goal = atoi(optarg); break;
                case 'h': plan.holder = atoi(optarg); break;
                case 'c': plan.ctl = optarg; break;
                case 'b': plan.binary = optarg; break;
                case 'd': plan.beside = optarg; break;
                default: return 2;
                }
        }
        if (optind + 1 != argc || (plan.kills == 0) == (plan.upgrades == 0) ||
            plan.kills + plan.upgrades > EVENTS_MAX || (plan.kills > 0 && plan.holder <= 0) ||
            (plan.upgrades > 0 && (!plan.ctl || !plan.binary))) {
                fprintf(stderr, "stalls: see the head of stalls.c\n");
                return 2;
        }
        plan.mountpoint = argv[optind];
        return run(&plan);
}

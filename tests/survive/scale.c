/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * scale FILES HANDLES ROUNDS CPU_GOAL_MS SOURCE MOUNTPOINT HOLDER_PID
 *
 * How long the next worker takes until it serves, when the last one knew FILES nodes and HANDLES open files.
 * The files are made in SOURCE, each with its own number in it; looked up through MOUNTPOINT, which must be
 * mounted with timeouts so long that the kernel keeps them; and every (FILES / HANDLES)th of them is held open by
 * one of several processes.  Then the worker is killed, ROUNDS times.  After each
 *
 *   wall   from the kill to the first answer of the next worker
 *   cpu    what that worker has used of the processor by then, with all its threads, which says how much there
 *          was to do, whatever else the machine does: so this is what must be below CPU_GOAL_MS
 *
 * are printed, every handle reads what is its own, and a sample of the nodes is asked for their attributes.
 * Ends with 1 if anything is wrong.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PER_DIR     1000
#define PER_PROCESS 2000 /* handles */
#define PROCESSES   32   /* at most */
#define SAMPLE      1000 /* nodes */
#define PATIENCE_MS 60000

/* A process that has handles: it verifies them whenever it reads a byte, and answers with one. */
struct keeper {
        pid_t pid;
        int ask, answer;
};

static unsigned n_files, n_handles, n_keepers;
static const char *source, *mountpoint;
static struct keeper keepers[PROCESSES];

static double now_ms(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static int wrong(const char *what, const char *path)
{
        fprintf(stderr, "WRONG: %s: %s: %s\n", what, path, strerror(errno));
        return -1;
}

static void path_of(char path[static 4096], const char *top, unsigned file)
{
        snprintf(path, 4096, "%s/d%u/f%u", top, file / PER_DIR, file % PER_DIR);
}

/* ---- the files ---- */

static int make_file(unsigned file)
{
        char path[4096];
        int fd;

        path_of(path, source, file);
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd < 0 || write(fd, &file, sizeof file) != sizeof file)
                return wrong("make", path);
        return close(fd);
}

static int look_up_file(unsigned file)
{
        char path[4096];
        struct stat st;

        path_of(path, mountpoint, file);
        return stat(path, &st) < 0 ? wrong("stat", path) : 0;
}

/* Calls `act` for all files, by two processes, as there are never fewer processors for them than one. */
static int for_all_files(int (*act)(unsigned file))
{
        const unsigned half = n_files / 2;
        const pid_t other = fork();
        int status = 0, r = 0;

        if (other < 0)
                return wrong("fork", "");
        for (unsigned i = other == 0 ? half : 0; r == 0 && i < (other == 0 ? n_files : half); i++)
                r = act(i);
        if (other == 0)
                _exit(r < 0);
        return waitpid(other, &status, 0) == other && status == 0 ? r : -1;
}

static int make_all(void)
{
        for (unsigned d = 0; d <= (n_files - 1) / PER_DIR; d++) {
                char path[4096];

                snprintf(path, sizeof path, "%s/d%u", source, d);
                if (mkdir(path, 0755) < 0)
                        return wrong("mkdir", path);
        }
        return for_all_files(make_file);
}

/* Of nodes that nobody has open: the kernel asks by number, and by name only if there is no such node. */
static int verify_sample(void)
{
        unsigned bad = 0;

        for (unsigned i = 0; i < SAMPLE; i++) {
                const unsigned file = (unsigned)((uint64_t)i * n_files / SAMPLE);
                char path[4096];
                struct statx st;
                struct stat there;

                path_of(path, source, file);
                if (stat(path, &there) < 0)
                        return wrong("stat", path);
                path_of(path, mountpoint, file);
                if (statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &st) < 0) {
                        wrong("statx", path);
                        bad++;
                } else if (st.stx_ino != there.st_ino || st.stx_size != sizeof file) {
                        fprintf(stderr, "WRONG: %s is another file\n", path);
                        bad++;
                }
        }
        return bad == 0 ? 0 : -1;
}

/* ---- handles ---- */

static unsigned held_file(unsigned handle)
{
        return (unsigned)((uint64_t)handle * n_files / n_handles);
}

static bool verify_handle(unsigned handle, int fd)
{
        unsigned contents = 0;
        char path[4096];

        path_of(path, mountpoint, held_file(handle));
        /* not from the page cache */
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        if (pread(fd, &contents, sizeof contents, 0) != sizeof contents)
                return wrong("read through a handle", path) == 0;
        if (contents == held_file(handle))
                return true;
        fprintf(stderr, "WRONG: %s: what is open is another file, %u\n", path, contents);
        return false;
}

static _Noreturn void keep_handles(unsigned first, unsigned n, int asked, int answer)
{
        static int fds[PER_PROCESS];
        char byte, bad = 0;

        for (unsigned i = 0; i < n; i++) {
                char path[4096];

                path_of(path, mountpoint, held_file(first + i));
                fds[i] = open(path, O_RDONLY | O_CLOEXEC);
                if (fds[i] < 0) {
                        wrong("open", path);
                        _exit(1);
                }
        }
        while (write(answer, &bad, 1) == 1 && read(asked, &byte, 1) == 1)
                for (unsigned i = 0; i < n; i++)
                        bad |= !verify_handle(first + i, fds[i]);
        _exit(0);
}

static int start_keeper(unsigned first, unsigned n)
{
        struct keeper *keeper = &keepers[n_keepers];
        int ask[2], answer[2];

        if (pipe2(ask, O_CLOEXEC) < 0 || pipe2(answer, O_CLOEXEC) < 0)
                return wrong("pipe", "");
        keeper->pid = fork();
        if (keeper->pid < 0)
                return wrong("fork", "");
        if (keeper->pid == 0) {
                for (unsigned i = 0; i < n_keepers; i++)
                        close(keepers[i].ask); /* that its end of file is seen */
                close(ask[1]);
                close(answer[0]);
                keep_handles(first, n, ask[0], answer[1]);
        }
        close(ask[0]);
        close(answer[1]);
        keeper->ask = ask[1];
        keeper->answer = answer[0];
        n_keepers++;
        return 0;
}

/* Waits for the answers of all. */
static int keepers_say(void)
{
        int r = 0;

        for (unsigned i = 0; i < n_keepers; i++) {
                char bad = 1;

                if (read(keepers[i].answer, &bad, 1) != 1 || bad)
                        r = -1;
        }
        return r;
}

static int start_keepers(void)
{
        for (unsigned first = 0; first < n_handles; first += PER_PROCESS)
                if (n_keepers == PROCESSES ||
                    start_keeper(first, n_handles - first < PER_PROCESS ? n_handles - first : PER_PROCESS) < 0)
                        return -1;
        return keepers_say();
}

static int verify_handles(void)
{
        for (unsigned i = 0; i < n_keepers; i++)
                if (write(keepers[i].ask, "?", 1) != 1)
                        return wrong("ask", "");
        return keepers_say();
}

static int end_keepers(void)
{
        int r = 0;

        for (unsigned i = 0; i < n_keepers; i++) {
                int status = 1;

                close(keepers[i].ask);
                close(keepers[i].answer);
                if (waitpid(keepers[i].pid, &status, 0) < 0 || status != 0)
                        r = -1;
        }
        return r;
}

/* ---- workers ---- */

/* The child of the holder of that name, or 0. */
static pid_t find_child(pid_t holder, const char *wanted)
{
        char path[64], name[32] = "";
        FILE *children;
        pid_t found = 0;
        int pid;

        snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)holder, (int)holder);
        children = fopen(path, "re");
        while (children && found == 0 && fscanf(children, "%d", &pid) == 1) {
                FILE *comm;

                snprintf(path, sizeof path, "/proc/%d/comm", pid);
                comm = fopen(path, "re");
                if (comm && fgets(name, sizeof name, comm) && strcmp(name, wanted) == 0)
                        found = pid;
                if (comm)
                        fclose(comm);
        }
        if (children)
                fclose(children);
        return found;
}

/* What it has used of the processor, in ms: the sum of its threads. */
static double cpu_of(pid_t pid)
{
        char path[64];
        struct dirent *d;
        double sum = 0;
        DIR *tasks;

        snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
        tasks = opendir(path);
        while (tasks && (d = readdir(tasks))) {
                unsigned long long ns;
                char of_task[sizeof path + sizeof d->d_name + 16];
                FILE *f;

                snprintf(of_task, sizeof of_task, "%s/%s/schedstat", path, d->d_name);
                f = d->d_name[0] == '.' ? NULL : fopen(of_task, "re");
                if (f && fscanf(f, "%llu", &ns) == 1)
                        sum += (double)ns / 1e6;
                if (f)
                        fclose(f);
        }
        if (tasks)
                closedir(tasks);
        return sum;
}

/* One kill.  Returns 0 with both figures, in ms. */
static int kill_once(pid_t holder, double *ret_wall, double *ret_cpu)
{
        pid_t worker = 0, waiting = 0;
        struct pollfd pidfd = {.events = POLLIN};
        double began, before;
        struct statx st;

        for (int i = 0; i < PATIENCE_MS / 10 && (worker == 0 || waiting == 0); i++) {
                poll(NULL, 0, 10);
                worker = find_child(holder, "k42fs\n");
                waiting = find_child(holder, "k42fs-waiting\n");
        }
        pidfd.fd = worker ? (int)syscall(SYS_pidfd_open, worker, 0) : -1;
        if (waiting == 0 || pidfd.fd < 0)
                return wrong("no worker", mountpoint);
        before = cpu_of(waiting); /* what it has used to get ready */
        began = now_ms();
        kill(worker, SIGKILL);
        poll(&pidfd, 1, PATIENCE_MS);
        close(pidfd.fd);
        if (statx(AT_FDCWD, mountpoint, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &st) < 0)
                return wrong("statx", mountpoint);
        *ret_wall = now_ms() - began;
        worker = find_child(holder, "k42fs\n");
        *ret_cpu = cpu_of(worker) - (worker == waiting ? before : 0);
        return 0;
}

static int rounds(unsigned n, double goal, pid_t holder)
{
        int r = 0;

        for (unsigned i = 0; i < n; i++) {
                double wall = 0, cpu = 0;

                if (kill_once(holder, &wall, &cpu) < 0)
                        return -1;
                printf("killed -> served: wall %.0f ms, cpu %.0f ms\n", wall, cpu);
                fflush(stdout);
                if (cpu > goal) {
                        fprintf(stderr, "WRONG: it took the worker more than %.0f ms\n", goal);
                        r = -1;
                }
                if (verify_sample() < 0 || verify_handles() < 0)
                        r = -1;
        }
        return r;
}

int main(int argc, char **argv)
{
        double began = now_ms();
        struct rlimit limit;
        int r;

        if (argc != 8) {
                fprintf(stderr, "usage: scale FILES HANDLES ROUNDS CPU_GOAL_MS SOURCE MOUNTPOINT HOLDER_PID\n");
                return 2;
        }
        n_files = (unsigned)atoi(argv[1]);
        n_handles = (unsigned)atoi(argv[2]);
        source = argv[5];
        mountpoint = argv[6];
        if (n_handles == 0 || n_files < n_handles || n_files < SAMPLE)
                return 2;
        if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
                limit.rlim_cur = limit.rlim_max;
                setrlimit(RLIMIT_NOFILE, &limit);
        }
        r = make_all();
        printf("%u files made: %.1f s\n", n_files, (now_ms() - began) / 1e3);
        began = now_ms();
        if (r == 0)
                r = for_all_files(look_up_file);
        printf("looked up: %.1f s\n", (now_ms() - began) / 1e3);
        began = now_ms();
        fflush(stdout);
        if (r == 0)
                r = start_keepers();
        printf("%u opened: %.1f s\n", n_handles, (now_ms() - began) / 1e3);
        if (r == 0)
                r = rounds((unsigned)atoi(argv[3]), atof(argv[4]), (pid_t)atoi(argv[7]));
        if (end_keepers() < 0)
                r = -1;
        return r < 0;
}

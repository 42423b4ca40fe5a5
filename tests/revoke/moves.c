/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * moves: after `k42ctl revoke` has returned no byte moves.
 *
 *   moves FILE WHAT ROUNDS K42CTL [OPTION…]
 *
 * Processes read, write and use mappings of FILE as fast as they can, by descriptors of their own and by
 * inherited ones; each notes, in memory that all share, when the last operation began that succeeded.
 * Then WHAT is revoked: `file`, `process` (each of the victims), `tree` (their common parent) or `handle` (of
 * one victim that is listed by `k42ctl list`).  No operation of a victim that began after the reply may
 * succeed.  Those that nothing was taken from (there are some unless WHAT is `file`) must go on.
 *
 * With K42_CACHED=1 (class cached) those who read, and use mappings, are not judged by that they can: a
 * page that one of them fills by write(2), which fails, is there for the others meanwhile.  But nothing of
 * the file may be in it.  So what is in the file are capital letters, LATER for what is put there behind
 * the mount after the reply; who writes when that is not allowed any more writes other bytes; and nobody
 * may see a capital letter after the reply.  Nor may anything get into the file.
 *
 * A mapping is only given to those that something is taken from: pages that others still map stay.  So
 * where victims are revoked one after the other only one of them has one.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LATER   'Z'
#define SIZE    (256 * 1024)
#define VICTIMS 6
#define OTHERS  2
#define WORKERS (VICTIMS + OTHERS)

struct worker {
        _Atomic int64_t last;       /* when the last one that succeeded began, ns */
        _Atomic uint64_t succeeded; /* how many */
        _Atomic uint64_t failed;    /* … and EBADF or SIGBUS */
        atomic_int wrong;           /* an errno that nobody expects */
        atomic_int pid;
};

static struct worker *workers; /* shared */
static atomic_int *ready;      /* shared */
static atomic_int *taking;     /* shared */
static sigjmp_buf fault;
static int cached;

static int64_t now(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void on_sigbus(int sig)
{
        siglongjmp(fault, 1);
}

static void note(struct worker *me, int64_t began, ssize_t n)
{
        if (n > 0) {
                atomic_store(&me->last, began);
                atomic_fetch_add(&me->succeeded, 1);
        } else {
                if (n < 0 && errno != EBADF)
                        atomic_store(&me->wrong, errno);
                atomic_fetch_add(&me->failed, 1);
                usleep(200);
        }
}

static int is_of_file(const char *buf, ssize_t n)
{
        for (ssize_t i = 0; i < n; i++)
                if (buf[i] >= 'A' && buf[i] <= 'Z')
                        return 1;
        return 0;
}

static void note_read(struct worker *me, int64_t began, ssize_t n, const char *buf)
{
        if (cached && n > 0 && !is_of_file(buf, n))
                atomic_fetch_add(&me->succeeded, 1);
        else
                note(me, began, n);
}

static void use_mapping(struct worker *me, volatile char *map, unsigned i, int stores)
{
        const size_t at = (size_t)(i * 7919u) % SIZE;
        int64_t began = now();

        if (sigsetjmp(fault, 1) == 0) {
                char seen = LATER;

                if (stores)
                        map[at] = (char)(i % 64);
                else
                        seen = map[at];
                if (!cached || (!stores && is_of_file(&seen, 1)))
                        note(me, began, 1);
                else
                        atomic_fetch_add(&me->succeeded, 1);
        } else {
                note(me, began, 0);
        }
}

/* 0, 1: read, write; 2, 3: load from and store to a mapping; 4, 5: the same as 0 and 1 by pieces that do
 * not end at pages. */
static void work(struct worker *me, int kind, int fd)
{
        char buf[8192], before[8192], after[8192];
        char *map = MAP_FAILED;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGBUS, on_sigbus);
        memset(before, 'B', sizeof before);
        memset(after, 'w', sizeof after);
        atomic_store(&me->pid, getpid());
        if (kind == 2 || kind == 3) {
                map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
                if (map == MAP_FAILED)
                        atomic_store(&me->wrong, errno);
        }
        atomic_fetch_add(ready, 1);
        for (unsigned i = 0;; i++) {
                const size_t size = kind >= 4 ? 1 + i % 5000 : 4096;
                const off_t at = (off_t)(i * 4096u) % SIZE;
                const int64_t began = now();

                if (map != MAP_FAILED)
                        use_mapping(me, map, i, kind == 3);
                else if (kind & 1)
                        note(me, began, pwrite(fd, atomic_load(taking) ? after : before, size, at));
                else
                        note_read(me, began, pread(fd, buf, size, at), buf);
        }
}

static pid_t start_worker(int i, const char *file, int inherited, int mappings)
{
        pid_t pid = fork();

        if (pid == 0) {
                int fd = inherited >= 0 ? inherited : open(file, O_RDWR);

                if (fd < 0)
                        _exit(1);
                work(&workers[i], i == 3 && mappings < 2 ? 5 : i % VICTIMS, fd);
        }
        return pid;
}

static int ctl(char *const *options, const char *ctl_path, const char *verb, const char *target)
{
        const char *argv[16] = {ctl_path, verb, target};
        int n = 3, status;
        pid_t pid;

        while (*options && n < 14)
                argv[n++] = *options++;
        pid = fork();
        if (pid == 0) {
                execv(ctl_path, (char **)argv);
                _exit(127);
        }
        waitpid(pid, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* The handle that the process has on FILE, as list tells: the first column. */
static int handle_of(const char *ctl_path, pid_t pid, char handle[32])
{
        char command[4096], line[4096];
        int found = -1;
        FILE *list;

        snprintf(command, sizeof command, "%s list -o handle,pid,type --no-headings %s", ctl_path,
                 getenv("K42_MNT"));
        list = popen(command, "r");
        while (list && fgets(line, sizeof line, list)) {
                char id[32], type[16];
                int owner;

                if (sscanf(line, "%31s %d %15s", id, &owner, type) == 3 && owner == pid &&
                    strcmp(type, "FILE") == 0) {
                        strcpy(handle, id);
                        found = 0;
                }
        }
        if (list)
                pclose(list);
        return found;
}

/* Takes it away; the first and the last victim that are meant. */
static int take(const char *what, const char *file, pid_t parent, char **argv, int *ret_first,
                int *ret_last)
{
        char text[32];
        int r = 0;

        *ret_first = 0;
        *ret_last = VICTIMS - 1;
        if (strcmp(what, "file") == 0) {
                *ret_last = WORKERS - 1;
                return ctl(argv + 5, argv[4], "revoke", file);
        }
        if (strcmp(what, "tree") == 0) {
                char option[] = "--tree", *options[] = {option, argv[5], NULL};

                snprintf(text, sizeof text, "%d", (int)parent);
                return ctl(options, argv[4], "revoke", text);
        }
        if (strcmp(what, "handle") == 0) {
                *ret_last = 0;
                if (handle_of(argv[4], atomic_load(&workers[0].pid), text) < 0)
                        return 99;
                return ctl(argv + 5, argv[4], "revoke", text);
        }
        for (int i = 0; i < VICTIMS && r == 0; i++) {
                snprintf(text, sizeof text, "%d", atomic_load(&workers[i].pid));
                r = ctl(argv + 5, argv[4], "revoke", text);
        }
        return r;
}

static int judge(int first, int last, int64_t replied, const uint64_t *before)
{
        int bad = 0;

        for (int i = 0; i < WORKERS; i++) {
                const struct worker *worker = &workers[i];
                const int64_t late = atomic_load(&worker->last) - replied;

                if (atomic_load(&worker->wrong))
                        fprintf(stderr, "worker %d: %s\n", i, strerror(worker->wrong)), bad = 1;
                if (i >= first && i <= last) {
                        if (late > 0)
                                fprintf(stderr,
                                        "worker %d: something that began %lld us after the reply "
                                        "succeeded\n",
                                        i, (long long)late / 1000),
                                        bad = 1;
                        if (before[i] == 0)
                                fprintf(stderr, "worker %d: never did anything\n", i), bad = 1;
                } else if (i >= VICTIMS && late <= 0) {
                        fprintf(stderr, "worker %d: nothing was taken from it, and it stopped\n",
                                i),
                                bad = 1;
                }
        }
        return bad;
}

static void fill(const char *backing)
{
        static char later[SIZE];
        int fd = open(backing, O_WRONLY);

        memset(later, LATER, SIZE);
        if (fd < 0 || pwrite(fd, later, SIZE, 0) != SIZE)
                exit(1);
        close(fd);
}

static int contents_sum(const char *backing, uint64_t *ret_sum)
{
        static unsigned char buf[SIZE];
        int fd = open(backing, O_RDONLY);
        ssize_t n = fd < 0 ? -1 : pread(fd, buf, SIZE, 0);

        close(fd);
        *ret_sum = 0;
        for (ssize_t i = 0; i < n; i++)
                *ret_sum = *ret_sum * 1099511628211u + buf[i];
        return n == SIZE ? 0 : -1;
}

/* The victims' parent: so that they are a tree of their own.  Half of them inherit its descriptor. */
static pid_t start_victims(const char *file, int mappings)
{
        pid_t pid = fork();

        if (pid == 0) {
                int fd = open(file, O_RDWR);

                prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (int i = 0; i < VICTIMS; i++)
                        start_worker(i, file, i & 1 ? fd : -1, mappings);
                for (;;)
                        pause();
        }
        return pid;
}

static int one_round(const char *file, const char *what, char **argv)
{
        const char *backing = getenv("K42_BACKING");
        uint64_t before[WORKERS], sum_before = 0, sum_after = 0;
        int64_t replied;
        int first, last, r, bad = 0;
        pid_t parent;

        memset(workers, 0, WORKERS * sizeof *workers);
        atomic_store(ready, 0);
        atomic_store(taking, 0);
        parent = start_victims(file, strcmp(what, "process") == 0 ? 1 : 2);
        for (int i = VICTIMS; i < WORKERS; i++)
                start_worker(i, file, -1, 2);
        for (int i = 0; i < 5000 && atomic_load(ready) < WORKERS; i++)
                usleep(1000);
        usleep(100000 + (unsigned)rand() % 50000);
        atomic_store(taking, 1);
        r = take(what, file, parent, argv, &first, &last);
        replied = now();
        if (backing && last == WORKERS - 1)
                contents_sum(backing, &sum_before);
        for (int i = 0; i < WORKERS; i++)
                before[i] = atomic_load(&workers[i].succeeded);
        usleep(150000);
        if (backing && last == WORKERS - 1) {
                /* Not earlier: that the file changes makes the kernel drop pages, too. */
                if (contents_sum(backing, &sum_after) < 0 || sum_before != sum_after)
                        fprintf(stderr, "the file has changed after the reply\n"), bad = 1;
                fill(backing);
                contents_sum(backing, &sum_before);
        }
        usleep(80000);
        bad |= judge(first, last, replied, before);
        if (r != 0)
                fprintf(stderr, "k42ctl revoke: status %d\n", r), bad = 1;
        for (int i = 0; i < WORKERS; i++)
                if (atomic_load(&workers[i].pid) > 0)
                        kill(atomic_load(&workers[i].pid), SIGKILL);
        kill(parent, SIGKILL);
        while (wait(NULL) > 0)
                ;
        /* Only now: what was dirty has been written back when the last of them has gone. */
        if (backing && last == WORKERS - 1 &&
            (contents_sum(backing, &sum_after) < 0 || sum_before != sum_after))
                fprintf(stderr, "the file has changed after the reply\n"), bad = 1;
        return bad;
}

int main(int argc, char **argv)
{
        static char first[SIZE];
        unsigned seed;
        int bad = 0, fd;

        if (argc < 5)
                return 2;
        memset(first, 'A', SIZE);
        cached = getenv("K42_CACHED") != NULL;
        seed = getenv("K42_SEED") ? (unsigned)strtoul(getenv("K42_SEED"), NULL, 10) : (unsigned)time(NULL);
        printf("K42_SEED=%u\n", seed);
        fflush(stdout);
        srand(seed);
        workers = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        ready = (atomic_int *)((char *)workers + 60000);
        taking = ready + 1;
        for (int round = 0; round < atoi(argv[3]) && !bad; round++) {
                fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0644);
                if (fd < 0 || write(fd, first, SIZE) != SIZE)
                        return 1;
                close(fd);
                bad = one_round(argv[1], argv[2], argv);
        }
        return bad;
}

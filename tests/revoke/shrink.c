/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * shrink: rights only shrink, in random trees of processes that fork, dup and are restricted.
 *
 *   shrink FILE MOUNTPOINT STEPS SEED K42CTL
 *
 * Each process does what it is told through a pipe: fork, copy its descriptor, or try what it may do with
 * it (by raw system calls; there is no shim).  Beside it stands a model of what it must be able to do: a
 * process gets at its first use what its nearest ancestor that has used the descriptor has, if that may
 * pass it on; a restriction takes from a process, and from what has not derived yet.  Nobody may ever do
 * more than the model says, nor less.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#define SLOTS 24

enum { R = 1, W = 2, D = 4, ALL = 7 };

static int to[SLOTS][2], from[SLOTS][2]; /* pipes */
static const char *k42ctl, *mountpoint;

struct model {
        bool used;    /* a process is here */
        bool has;     /* it has a handle */
        int parent;   /* slot, -1: none */
        int rights;   /* of its handle */
        int limit;    /* taken from it before it had one */
        int given;    /* what it could do when it was last tried; -1: never */
        pid_t pid;
};
static struct model model[SLOTS];

static uint64_t seed;

static unsigned pick(unsigned n)
{
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        return (unsigned)(seed >> 33) % n;
}

/* ---- in the processes ---- */

static int try_all(int fd)
{
        char byte = 'x';
        int rights = 0;

        if (syscall(SYS_pread64, fd, &byte, 1, 0) == 1)
                rights |= R;
        else if (errno != EBADF)
                rights |= 64;
        if (syscall(SYS_pwrite64, fd, "x", 1, 0) == 1)
                rights |= W;
        else if (errno != EBADF)
                rights |= 128;
        return rights;
}

static void serve(int slot, int fd)
{
        struct {
                char what;
                int arg;
        } order;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (read(to[slot][0], &order, sizeof order) == sizeof order) {
                int answer = 0;

                if (order.what == 'f') {
                        answer = fork();
                        if (answer == 0) {
                                slot = order.arg;
                                prctl(PR_SET_PDEATHSIG, SIGKILL);
                                continue; /* the parent answers with its pid */
                        }
                } else if (order.what == 'd') {
                        fd = dup(fd);
                } else {
                        answer = try_all(fd);
                }
                if (write(from[slot][1], &answer, sizeof answer) < 0)
                        _exit(1);
        }
        _exit(0);
}

/* ---- in the one who tells them ---- */

static int tell(int slot, char what, int arg)
{
        struct {
                char what;
                int arg;
        } order = {what, arg};
        int answer = -1;

        if (write(to[slot][1], &order, sizeof order) != sizeof order ||
            read(from[slot][0], &answer, sizeof answer) != sizeof answer) {
                fprintf(stderr, "slot %d does not answer\n", slot);
                exit(1);
        }
        return answer;
}

static int random_used(void)
{
        int slot;

        do
                slot = (int)pick(SLOTS);
        while (!model[slot].used);
        return slot;
}

static void fork_one(int slot)
{
        for (int i = 0; i < SLOTS; i++) {
                if (model[i].used)
                        continue;
                model[i] = (struct model){.used = true, .parent = slot, .limit = ALL, .given = -1};
                model[i].pid = tell(slot, 'f', i);
                return;
        }
}

/* What a process has at its first use; -1: nothing, and no handle. */
static int derive(int slot)
{
        int limit = ALL, at = model[slot].parent;

        for (; !model[at].has; at = model[at].parent)
                limit &= model[at].limit;
        limit &= model[at].rights;
        return limit & D ? limit & model[slot].limit : -1;
}

static int expected(int slot)
{
        int rights;

        if (!model[slot].has) {
                rights = derive(slot);
                if (rights < 0)
                        return 0;
                model[slot].has = true;
                model[slot].rights = rights;
        }
        return model[slot].rights & (R | W);
}

static int run_ctl(const char *pid, const char *rights)
{
        int status;
        pid_t child = fork();

        if (child == 0) {
                execl(k42ctl, k42ctl, "restrict", pid, rights, mountpoint, NULL);
                _exit(127);
        }
        waitpid(child, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void restrict_one(int slot, int rights)
{
        char pid[16], text[5], *end = text;

        for (int i = 0; i < 3; i++)
                if (rights & 1 << i)
                        *end++ = "rwd"[i];
        if (end == text)
                *end++ = '-';
        *end = '\0';
        snprintf(pid, sizeof pid, "%d", (int)model[slot].pid);
        if (run_ctl(pid, text) != 0) {
                fprintf(stderr, "k42ctl restrict failed\n");
                exit(1);
        }
        if (model[slot].has)
                model[slot].rights &= rights;
        model[slot].limit &= rights;
}

static int check(int slot)
{
        const int want = expected(slot), got = tell(slot, 't', 0);

        if (got != want || (model[slot].given >= 0 && (got & ~model[slot].given))) {
                fprintf(stderr, "slot %d (pid %d): may %d, should %d, could %d before\n", slot,
                        (int)model[slot].pid, got, want, model[slot].given);
                return 1;
        }
        model[slot].given = got;
        return 0;
}

static int step(void)
{
        const int slot = random_used();

        switch (pick(8)) {
        case 0:
        case 1:
                fork_one(slot);
                return 0;
        case 2:
                tell(slot, 'd', 0);
                return 0;
        case 3:
                /* Mostly one thing at a time, so that something is left for a while. */
                restrict_one(slot, pick(6) == 0 ? (int)pick(ALL + 1) : ALL & ~(1 << pick(3)));
                return 0;
        default:
                return check(slot);
        }
}

int main(int argc, char **argv)
{
        int bad = 0, fd;

        if (argc != 6)
                return 2;
        mountpoint = argv[2];
        k42ctl = argv[5];
        seed = strtoull(argv[4], NULL, 10);
        printf("seed %s\n", argv[4]);
        fd = open(argv[1], O_RDWR | O_CREAT, 0644);
        if (fd < 0 || write(fd, "x", 1) != 1)
                return 1;
        for (int i = 0; i < SLOTS; i++)
                if (pipe(to[i]) < 0 || pipe(from[i]) < 0)
                        return 1;
        /* The opener is slot 0, and a process of its own: this one only tells. */
        model[0] = (struct model){.used = true, .parent = -1, .limit = ALL, .given = -1};
        model[0].pid = fork();
        if (model[0].pid == 0) {
                close(fd);
                fd = open(argv[1], O_RDWR);
                serve(0, fd);
        }
        model[0].has = true;
        model[0].rights = ALL;
        bad = check(0);
        for (int i = 0; i < atoi(argv[3]) && !bad; i++)
                bad = step();
        for (int i = 0; i < SLOTS && !bad; i++)
                if (model[i].used)
                        bad = check(i);
        kill(model[0].pid, SIGKILL);
        return bad;
}

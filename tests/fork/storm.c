/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * storm fork DIR PARENTS CHILDREN        PARENTS processes at the same time, each makes CHILDREN
 *                                        children, one after the other; a child touches some of the
 *                                        inherited descriptors, and ends by exit, by a signal, or
 * by closing everything first storm threads DIR PARENTS ROUNDS       as above, but every parent has
 * threads that fork, touch, dup, close, open and end all at the same time
 *
 * The files DIR/f00000 … f00015 must be there.  Everything that is read is compared with the file;
 * exits with 0 if all was right and every child ended as it was meant to.
 *
 * The descriptors in `shared` are opened before the threads start and closed after they have ended;
 * everything else belongs to one thread.  A child of a process with threads only does what is
 * async-signal-safe.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILES   16
#define THREADS 5

static const char *folder;
static int shared[FILES];

static unsigned next_random(unsigned *seed)
{
        *seed = *seed * 1103515245u + 12345u;
        return *seed >> 16;
}

static int open_file(int i, int flags)
{
        char path[4096];

        snprintf(path, sizeof(path), "%s/f%05d", folder, i);
        return open(path, flags | O_CLOEXEC);
}

/* pread, because others move the offset; each file begins with its own name. */
static int right_contents(int fd, int i)
{
        char text[6], expected[6] = {'f', '0', '0', '0', '0' + i / 10, '0' + i % 10};

        return pread(fd, text, 6, 0) == 6 && memcmp(text, expected, 6) == 0;
}

/* What a child does: returns what it exits with, 0 if all was right. */
static int child_life(unsigned seed)
{
        int copy;

        for (unsigned n = next_random(&seed) % 6; n > 0; n--) {
                int i = next_random(&seed) % FILES;
                if (!right_contents(shared[i], i))
                        return 1;
        }
        switch (next_random(&seed) % 5) {
        case 0:
                for (int i = 0; i < FILES; i++)
                        close(shared[i]);
                break;
        case 1:
                copy = dup(shared[3]);
                close(shared[3]);
                if (copy < 0 || !right_contents(copy, 3))
                        return 2;
                break;
        case 2: /* a grandchild that outlives us touches, too */
                if (_Fork() == 0)
                        _exit(right_contents(shared[5], 5) ? 0 : 3);
                break;
        case 3:
                if (dup2(shared[1], shared[2]) < 0 || !right_contents(shared[2], 1))
                        return 4;
                break;
        default:
                break;
        }
        return 0;
}

/* Returns 0 if the child ended as it was meant to. */
static int one_child(unsigned seed)
{
        int killed = seed % 7 == 0, status, result;
        pid_t pid = fork();

        if (pid == 0) {
                result = child_life(seed);
                if (killed && !result)
                        kill(getpid(), SIGKILL);
                _exit(result);
        }
        if (pid < 0)
                return 1;
        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return 1;
        if (killed ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL : status == 0)
                return 0;
        fprintf(stderr, "storm: a child ended with status %#x\n", status);
        return 1;
}

struct thread {
        pthread_t id;
        int kind, rounds, bad;
        unsigned seed;
};

static int one_round(struct thread *t)
{
        int i = next_random(&t->seed) % FILES, fd, right;

        switch (t->kind) {
        case 0:
        case 1:
                return one_child(next_random(&t->seed));
        case 2: /* touches, through copies that come and go */
                fd = fcntl(shared[i], F_DUPFD_CLOEXEC, 3);
                break;
        case 3: /* opens and closes on numbers that a fork may just be copying */
                fd = open_file(i, next_random(&t->seed) % 2 ? O_RDWR : O_RDONLY);
                break;
        default:
                return right_contents(shared[i], i) ? 0 : 1;
        }
        if (fd < 0)
                return 1;
        right = right_contents(fd, i);
        close(fd);
        return right ? 0 : 1;
}

static void *thread_main(void *data)
{
        struct thread *t = data;
        int rounds = t->kind < 2 ? t->rounds : t->rounds * 20;

        for (int n = 0; n < rounds && !t->bad; n++)
                t->bad = one_round(t);
        if (t->bad)
                fprintf(stderr, "storm: a thread of kind %d: %s\n", t->kind, strerror(errno));
        return NULL;
}

static int parent_life(int number, int count, int with_threads)
{
        struct thread threads[THREADS];
        int bad = 0;

        for (int i = 0; i < FILES; i++)
                if ((shared[i] = open_file(i, O_RDONLY)) < 0)
                        return 1;
        if (!with_threads) {
                for (int n = 0; n < count; n++)
                        bad += one_child(number * 100003u + n);
                return bad != 0;
        }
        for (int k = 0; k < THREADS; k++) {
                threads[k] = (struct thread){.kind = k, .rounds = count, .seed = number * 77u + k};
                if (pthread_create(&threads[k].id, NULL, thread_main, &threads[k]))
                        return 1;
        }
        for (int k = 0; k < THREADS; k++) {
                pthread_join(threads[k].id, NULL);
                bad += threads[k].bad;
        }
        for (int i = 0; i < FILES; i++)
                close(shared[i]);
        return bad != 0;
}

int main(int argc, char **argv)
{
        int bad = 0, status, parents, count;

        if (argc != 5) {
                fprintf(stderr, "usage: storm fork|threads DIR PARENTS COUNT\n");
                return 2;
        }
        folder = argv[2];
        parents = atoi(argv[3]);
        count = atoi(argv[4]);
        for (int i = 0; i < parents; i++) {
                pid_t pid = fork();
                if (pid == 0)
                        _exit(parent_life(i, count, !strcmp(argv[1], "threads")));
                bad += pid < 0;
        }
        while (wait(&status) > 0)
                bad += status != 0;
        printf("%d parents, %d of them had something wrong\n", parents, bad);
        return bad ? 1 : 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Private mode: what belongs to the process (locks, mappings), and what goes on at the same time. */
#include "cases.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

static bool try_lock(int fd)
{
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};

        return fcntl(fd, F_SETLK, &lock) == 0;
}

/* A descriptor that is replaced is closed for a moment, which would end the process's locks. */
void case_locks(void)
{
        const int fd = make(O_RDWR);
        const pid_t pid = fork();

        if (pid == 0) {
                const int own = open(path, O_RDWR);
                pid_t other;

                CHECK(own > 2 && try_lock(own));
                CHECK(reads(fd, 0, 10));
                other = fork();
                if (other == 0)
                        _exit(!try_lock(own) ? 0 : 1); /* still locked by its parent */
                reap(other);
                _exit(0);
        }
        reap(pid);
}

void case_mappings(void)
{
        const int fd = make(O_RDWR);
        unsigned char *before = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        pid_t pid;

        CHECK(before != MAP_FAILED && reads(fd, 0, 100));
        pid = fork();
        if (pid == 0) {
                unsigned char *after = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);

                CHECK(after != MAP_FAILED && after[300] == byte_at(300));
                before[300] = 'Z';
                CHECK(after[300] == 'Z' && reads(fd, 100, 100));
                _exit(0);
        }
        reap(pid);
        CHECK(before[300] == 'Z' && at(fd) == 100);
}

#define THREADS 8

static _Atomic unsigned seen[SIZE / 100];
static atomic_bool stop;

static void *read_some(void *data)
{
        const int fd = *(const int *)data;
        unsigned char chunk[100];

        while (read(fd, chunk, sizeof chunk) == (ssize_t)sizeof chunk)
                for (int i = 0; i < SIZE / 100; i++)
                        if (chunk[0] == byte_at(100 * i) && chunk[99] == byte_at(100 * i + 99) &&
                            chunk[50] == byte_at(100 * i + 50))
                                seen[i]++;
        return NULL;
}

/* All threads of the child touch it first, at the same moment: one description for all. */
void case_threads(void)
{
        int fd = make(O_RDONLY);

        for (int round = 0; round < 20; round++) {
                const pid_t pid = fork();

                if (pid == 0) {
                        pthread_t threads[THREADS];

                        for (int i = 0; i < THREADS; i++)
                                CHECK(pthread_create(&threads[i], NULL, read_some, &fd) == 0);
                        for (int i = 0; i < THREADS; i++)
                                pthread_join(threads[i], NULL);
                        CHECK(at(fd) == SIZE);
                        for (int i = 0; i < SIZE / 100; i++)
                                CHECK(seen[i] >= 1);
                        _exit(0);
                }
                reap(pid);
                CHECK(at(fd) == 0);
        }
}

static void *open_and_close(void *data)
{
        while (!atomic_load(&stop)) {
                const int a = open(path, O_RDONLY | O_CLOEXEC), b = open("/dev/null", O_RDONLY);
                unsigned char byte;

                CHECK(a > 2 && lseek(a, 50, SEEK_SET) == 50 && read(a, &byte, 1) == 1);
                close(b);
                close(a);
        }
        return NULL;
}

/* K42's second question: other threads open, move and close while one forks.  Whatever number a child
 * finds open is a file, at 0, 50 or 51, with the contents that belong there. */
void case_parent_threads(void)
{
        const int fd = make(O_RDONLY);
        pthread_t threads[4];

        CHECK(reads(fd, 0, 1000));
        for (int i = 0; i < 4; i++)
                CHECK(pthread_create(&threads[i], NULL, open_and_close, NULL) == 0);
        for (int round = 0; round < 60; round++) {
                const pid_t pid = fork();

                if (pid == 0) {
                        for (int other = fd + 1; other < 20; other++) {
                                struct stat st;
                                int64_t where;

                                if (fstat(other, &st) < 0 || !S_ISREG(st.st_mode))
                                        continue;
                                where = at(other);
                                CHECK(where == 0 || where == 50 || where == 51);
                                CHECK(reads(other, where, 10) && at(other) == where + 10);
                        }
                        CHECK(reads(fd, 1000, 10));
                        _exit(0);
                }
                reap(pid);
        }
        atomic_store(&stop, true);
        for (int i = 0; i < 4; i++)
                pthread_join(threads[i], NULL);
        CHECK(at(fd) == 1000);
}

static int handled_fd;
static atomic_int handled;

static void handler(int sig)
{
        const int saved = errno;
        unsigned char byte;

        if (pread(handled_fd, &byte, 1, 123) == 1 && byte == byte_at(123))
                atomic_fetch_add(&handled, 1);
        errno = saved;
}

/* Signal handlers that touch, in the parent while it forks and in the child while it re-opens. */
void case_signals(void)
{
        const int fd = make(O_RDONLY);
        struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
        const struct itimerspec every = {{0, 300000}, {0, 300000}};

        handled_fd = fd;
        CHECK(sigaction(SIGALRM, &action, NULL) == 0 && reads(fd, 0, 10));
        for (int round = 0; round < 50; round++) {
                timer_t timer;
                pid_t pid;

                CHECK(timer_create(CLOCK_MONOTONIC, NULL, &timer) == 0);
                CHECK(timer_settime(timer, 0, &every, NULL) == 0);
                pid = fork();
                if (pid == 0) {
                        raise(SIGALRM);
                        _exit(reads(fd, 10, 20) ? 0 : 1);
                }
                reap(pid);
                timer_delete(timer);
                CHECK(at(fd) == 10);
        }
        CHECK(atomic_load(&handled) > 0);
}

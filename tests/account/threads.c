/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * threads MOUNT: more threads than an account has lanes (lazy/protocol.h) read and write through the same
 * descriptors at once, end, and others come; between the waves the descriptors are others, so that slots have other
 * handles, and a child does the same.  Prints the sums of what the calls returned, as `ledger show` does: with 0
 * for the mappings.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 40
#define FILES   4
#define WAVES   6
#define CALLS   400

struct sums {
        _Atomic uint64_t reads, read_bytes, writes, write_bytes;
};

static struct sums sums[FILES];
static int fds[FILES];
static const char *mount_path;
static unsigned first; /* number of the first file */

static _Noreturn void fail(const char *what)
{
        fprintf(stderr, "threads: %s: %s\n", what, strerror(errno));
        exit(1);
}

static void *work(void *data)
{
        const unsigned me = (unsigned)(uintptr_t)data;
        char buffer[512] = "";

        for (unsigned i = 0; i < CALLS; i++) {
                struct sums *s = &sums[(me + i) % FILES];
                const int fd = fds[(me + i) % FILES];
                const size_t size = 1 + (me * 7 + i) % sizeof buffer;
                const ssize_t n = i % 5 ? pread(fd, buffer, size, 0) : pwrite(fd, buffer, size, 0);

                if (n < 0)
                        fail("read or write");
                atomic_fetch_add(i % 5 ? &s->reads : &s->writes, 1);
                atomic_fetch_add(i % 5 ? &s->read_bytes : &s->write_bytes, (uint64_t)n);
        }
        return NULL;
}

static void wave(void)
{
        pthread_t threads[THREADS];

        for (unsigned i = 0; i < THREADS; i++)
                if (pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)i) != 0)
                        fail("pthread_create");
        for (unsigned i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
}

static void tell(void)
{
        for (unsigned i = 0; i < FILES; i++) {
                printf("%d /%03u %llu %llu %llu %llu 0 0 0\n", (int)getpid(), first + i,
                       (unsigned long long)atomic_load(&sums[i].reads),
                       (unsigned long long)atomic_load(&sums[i].read_bytes),
                       (unsigned long long)atomic_load(&sums[i].writes),
                       (unsigned long long)atomic_load(&sums[i].write_bytes));
                memset(&sums[i], 0, sizeof sums[i]);
        }
        fflush(stdout);
}

static void child(void)
{
        const pid_t pid = fork();
        int status;

        if (pid == 0) {
                memset(sums, 0, sizeof sums);
                wave();
                tell();
                _exit(0);
        }
        if (pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0)
                fail("child");
}

static void *run(void *unused)
{
        char path[4096];

        for (unsigned n = 0; n < WAVES; n++) {
                first = n * FILES;
                for (unsigned i = 0; i < FILES; i++) {
                        snprintf(path, sizeof path, "%s/%03u", mount_path, first + i);
                        fds[i] = open(path, O_RDWR | O_CLOEXEC);
                        if (fds[i] < 0)
                                fail(path);
                }
                wave();
                if (n == WAVES / 2)
                        child(); /* of a thread that is not the first */
                wave();
                for (unsigned i = 0; i < FILES; i++)
                        close(fds[i]);
                tell();
        }
        return unused;
}

int main(int argc, char **argv)
{
        pthread_t thread;

        if (argc != 2)
                return 2;
        mount_path = argv[1];
        if (pthread_create(&thread, NULL, run, NULL) != 0)
                fail("pthread_create");
        pthread_join(thread, NULL);
        return 0;
}

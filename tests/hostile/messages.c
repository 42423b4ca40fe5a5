/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * messages: the shim's messages (lazy/protocol.h), as no shim sends them.
 *
 *   messages fuzz FILE SEED COUNT     random and boundary ones, by a child and by who has only received the file
 *   messages theft FILE               a child claims what its parent has open
 *   messages lineage FILE             a grandchild names its grandparent's handle as its parent
 *   messages flood FILE PROCESSES SECONDS
 *   messages forks FILE CHILDREN      each touches what it inherited
 *
 * In all of them somebody else has FILE open, too; its handle must stay what it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lazy/protocol.h"

static const char *file;

static _Noreturn void fail(const char *what)
{
        fprintf(stderr, "messages: %s: %s\n", what, strerror(errno));
        exit(1);
}

static int open_it(int flags)
{
        const int fd = open(file, flags);

        if (fd < 0)
                fail(file);
        return fd;
}

static struct k42_lazy_reopen touched(int fd)
{
        struct k42_lazy_reopen message = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message}};

        if (ioctl(fd, K42_IOC_LAZY_REOPEN, &message) < 0)
                fail("LAZY_REOPEN");
        return message;
}

static struct k42_identify identified(int fd)
{
        struct k42_identify message = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message}};

        if (ioctl(fd, K42_IOC_IDENTIFY, &message) < 0)
                fail("IDENTIFY");
        return message;
}

/* What the owner of a handle sees of it: all of it, but how it is shared. */
static void expect_same(int fd, const struct k42_lazy_reopen *before, const struct k42_identify *named)
{
        const struct k42_lazy_reopen now = touched(fd);
        const struct k42_identify name = identified(fd);
        char c;

        errno = 0;
        if (now.token != before->token || now.parent != before->parent || now.rights != before->rights)
                fail("the handle of somebody else has changed");
        if (name.description != named->description || name.opener != named->opener ||
            name.opener_pid != named->opener_pid)
                fail("the description of somebody else has changed");
        if (pread(fd, &c, 1, 0) != 1 || pwrite(fd, &c, 1, 0) != 1)
                fail("somebody else cannot use its descriptor");
}

static void expect_good_end(pid_t pid)
{
        int status;

        if (waitpid(pid, &status, 0) != pid || status != 0) {
                fprintf(stderr, "messages: a child ended with %d\n", status);
                exit(1);
        }
}

/* ---- fuzz ---- */

static uint64_t state;

static uint64_t number(void)
{
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state;
}

static const struct kind {
        unsigned request;
        uint16_t length;
} kinds[] = {
        {K42_IOC_LAZY_REOPEN, sizeof(struct k42_lazy_reopen)},
        {K42_IOC_IDENTIFY, sizeof(struct k42_identify)},
        {K42_IOC_WHERE, sizeof(struct k42_where)},
        {K42_IOC_PRIVATE_REOPEN, sizeof(struct k42_private_reopen)},
        {K42_IOC_WITHHOLD, sizeof(struct k42_withhold)},
};
#define KINDS (sizeof kinds / sizeof kinds[0])

/* A token that may be somebody's, a boundary, or noise. */
static uint64_t word(void)
{
        static const uint64_t boundaries[] = {0, 1, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX,
                                              UINT64_C(1) << 63};

        switch (number() % 4) {
        case 0:
                return 0;
        case 1:
                return (1 + number() % 3) << 32 | number() % 16;
        case 2:
                return boundaries[number() % (sizeof boundaries / sizeof boundaries[0])];
        default:
                return number();
        }
}

static unsigned request_of(const struct kind *kind)
{
        switch (number() % 8) {
        case 0: /* another size */
                return _IOC(_IOC_READ | _IOC_WRITE, 'K', _IOC_NR(kind->request), number() % 1025);
        case 1: /* another direction */
                return _IOC(number() % 4, 'K', _IOC_NR(kind->request), kind->length);
        case 2: /* another number */
                return _IOC(_IOC_READ | _IOC_WRITE, 'K', 0x90 + number() % 32, kind->length);
        default:
                return kind->request;
        }
}

/* What may be said of nonsense: each of them is in protocol.h. */
static int is_clear(int error)
{
        static const int clear[] = {EMSGSIZE, EPROTONOSUPPORT, EINVAL, ENOTTY,    EACCES,
                                    ESTALE,   EXDEV,           EBADF,  EOPNOTSUPP};

        for (unsigned i = 0; i < sizeof clear / sizeof clear[0]; i++)
                if (clear[i] == error)
                        return 1;
        return 0;
}

static void fuzz_once(const int *fds, unsigned n)
{
        const struct kind *kind = &kinds[number() % KINDS];
        uint64_t message[2048] = {0};
        struct k42_header *header = (void *)message;
        const unsigned request = request_of(kind);

        for (unsigned i = 1; i < 8; i++)
                message[i] = number() % 3 ? 0 : word();
        *header = (struct k42_header){K42_PROTOCOL_VERSION, kind->length, 0};
        if (number() % 8 == 0)
                header->version = (uint16_t)word();
        if (number() % 8 == 0)
                header->length = (uint16_t)word();
        if (number() % 8 == 0)
                header->flags = (uint32_t)word();
        /* a child's child would get nothing any more, which is what it asks for */
        if (request == K42_IOC_WITHHOLD && number() % 4)
                return;
        if (ioctl(fds[number() % n], request, message) < 0 && !is_clear(errno))
                fail("fuzz");
}

static int fuzz(const char *seed, const char *count)
{
        const int fd = open_it(O_RDWR), other = open_it(O_RDWR);
        const struct k42_lazy_reopen before = touched(fd), other_before = touched(other);
        const struct k42_identify named = identified(fd), other_named = identified(other);

        for (unsigned who = 0; who < 2; who++) {
                const pid_t pid = fork();

                if (pid == 0) {
                        const int fds[] = {fd, other, open_it(O_RDONLY), open_it(O_RDWR)};

                        if (who == 1 && geteuid() == 0 && setuid(65534) < 0)
                                fail("setuid");
                        state = strtoull(seed, NULL, 0) * 2 + who + 1;
                        for (long i = strtol(count, NULL, 0); i > 0; i--)
                                fuzz_once(fds, 4);
                        exit(0);
                }
                expect_good_end(pid);
                expect_same(fd, &before, &named);
                expect_same(other, &other_before, &other_named);
        }
        return 0;
}

/* ---- theft ---- */

/* Who inherits a descriptor for reading and writing says that it uses that from now on, instead of its own one for
 * reading. */
static int theft(void)
{
        const int fd = open_it(O_RDWR);
        const struct k42_lazy_reopen before = touched(fd);
        const struct k42_identify named = identified(fd);
        const pid_t pid = fork();

        if (pid == 0) {
                const int own = open_it(O_RDONLY);
                struct k42_private_reopen message = {
                        .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message},
                        .from = touched(own).token};

                (void)ioctl(fd, K42_IOC_PRIVATE_REOPEN, &message);
                exit(0);
        }
        expect_good_end(pid);
        expect_same(fd, &before, &named);
        return 0;
}

/* Who wants to be no part of its parent's tree names another parent. */
static int lineage(void)
{
        const int fd = open_it(O_RDWR);
        const struct k42_lazy_reopen opener = touched(fd);
        const pid_t pid = fork();

        if (pid == 0) {
                const struct k42_lazy_reopen own = touched(fd);
                const pid_t child = fork();
                struct k42_lazy_reopen forged = {
                        .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof forged},
                        .parent = opener.token};

                if (child == 0) {
                        if (ioctl(fd, K42_IOC_LAZY_REOPEN, &forged) < 0)
                                fail("LAZY_REOPEN");
                        errno = 0;
                        if (forged.parent != own.token)
                                fail("it chose its parent itself");
                        exit(0);
                }
                expect_good_end(child);
                exit(0);
        }
        expect_good_end(pid);
        return 0;
}

/* ---- many ---- */

static _Noreturn void flood_for_ever(int fd)
{
        struct k42_lazy_reopen message;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
                message = (struct k42_lazy_reopen){
                        .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message}};
                (void)ioctl(fd, K42_IOC_LAZY_REOPEN, &message);
                message.header.version++;
                (void)ioctl(fd, K42_IOC_LAZY_REOPEN, &message);
        }
}

static double now(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int flood(const char *processes, const char *seconds)
{
        const int n = atoi(processes), fd = open_it(O_RDWR);
        const struct k42_lazy_reopen before = touched(fd);
        const struct k42_identify named = identified(fd);
        pid_t pids[64];
        unsigned done = 0;
        double began, longest = 0;

        if (n > 64)
                return 2;
        for (int i = 0; i < n; i++)
                if ((pids[i] = fork()) == 0)
                        flood_for_ever(fd);
        for (began = now(); now() - began < atof(seconds); done++) {
                const double start = now();
                const int own = open_it(O_RDONLY);
                struct stat st;
                char c;

                if (pread(own, &c, 1, 0) != 1 || fstat(own, &st) < 0 || close(own) < 0)
                        fail("beside a flood");
                longest = now() - start > longest ? now() - start : longest;
        }
        for (int i = 0; i < n; i++) {
                kill(pids[i], SIGKILL);
                waitpid(pids[i], NULL, 0);
        }
        expect_same(fd, &before, &named);
        printf("%u %.3f\n", done, longest);
        return 0;
}

static int forks(const char *children)
{
        const int fd = open_it(O_RDWR);
        const struct k42_lazy_reopen before = touched(fd);
        const struct k42_identify named = identified(fd);
        const int n = atoi(children);

        for (int i = 0, running = 0; i < n || running > 0;) {
                int status;

                if (i < n && running < 100) {
                        if (fork() == 0) {
                                char c;

                                if (touched(fd).token == before.token)
                                        _exit(2);
                                _exit(pread(fd, &c, 1, 0) != 1);
                        }
                        i++;
                        running++;
                        continue;
                }
                if (wait(&status) < 0 || status != 0)
                        fail("a child that touches");
                running--;
        }
        expect_same(fd, &before, &named);
        return 0;
}

int main(int argc, char **argv)
{
        if (argc < 3)
                return 2;
        file = argv[2];
        if (strcmp(argv[1], "fuzz") == 0 && argc == 5)
                return fuzz(argv[3], argv[4]);
        if (strcmp(argv[1], "theft") == 0)
                return theft();
        if (strcmp(argv[1], "lineage") == 0)
                return lineage();
        if (strcmp(argv[1], "flood") == 0 && argc == 5)
                return flood(argv[3], argv[4]);
        if (strcmp(argv[1], "forks") == 0 && argc == 4)
                return forks(argv[3]);
        return 2;
}

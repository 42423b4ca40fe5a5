/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hostile-account FILE: makes accounts of all bad kinds (lazy/protocol.h) and opens FILE of the mount with
 * each: the daemon must take none of them for more than it is, and answer all opens.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lazy/protocol.h"

#define GOOD_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

static const char *path;

static _Noreturn void fail(const char *what)
{
        fprintf(stderr, "hostile-account: %s: %s\n", what, strerror(errno));
        exit(1);
}

static struct k42_account *map(int fd, size_t length)
{
        static uint64_t nonce = 1;
        const int kind = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
        struct k42_account *account = mmap((void *)(uintptr_t)K42_ACCOUNT_ADDRESS, length,
                                           PROT_READ | PROT_WRITE, kind | MAP_FIXED, fd, 0);

        if (account == MAP_FAILED)
                fail("mmap");
        /* An ordinary user's daemon takes what is offered, another one looks at what is mapped. */
        account->head = (struct k42_account_head){K42_ACCOUNT_VERSION, K42_ACCOUNT_LENGTH, getpid(), fd, nonce++};
        return account;
}

static int make(off_t length, int seals)
{
        const int fd = memfd_create("hostile", MFD_ALLOW_SEALING);

        if (fd < 0 || ftruncate(fd, length) < 0 || fcntl(fd, F_ADD_SEALS, seals) < 0)
                fail("memfd");
        return fd;
}

static int open_it(void)
{
        const int fd = open(path, O_RDWR);

        if (fd < 0)
                fail(path);
        return fd;
}

static unsigned posts(const struct k42_account *account)
{
        unsigned n = 0;

        for (unsigned i = 0; i < K42_ACCOUNT_POSTS; i++)
                n += account->post[i].token != 0 && account->post[i].slot != 0;
        return n;
}

/* What is no account must get no post. */
static void expect_none(const struct k42_account *account, const char *what)
{
        const int fd = open_it();

        if (posts(account) != 0) {
                fprintf(stderr, "hostile-account: %s was taken for one\n", what);
                exit(1);
        }
        close(fd);
}

static void bad_files(void)
{
        struct k42_account *account;
        int fd;

        expect_none(map(make(K42_ACCOUNT_LENGTH, 0), K42_ACCOUNT_LENGTH), "one without seals");
        expect_none(map(make(2 * K42_ACCOUNT_LENGTH, GOOD_SEALS), 2 * K42_ACCOUNT_LENGTH), "a long one");
        munmap((void *)(uintptr_t)K42_ACCOUNT_ADDRESS, 2 * K42_ACCOUNT_LENGTH);
        expect_none(map(make(K42_ACCOUNT_LENGTH / 2, GOOD_SEALS), K42_ACCOUNT_LENGTH / 2), "a short one");
        munmap((void *)(uintptr_t)K42_ACCOUNT_ADDRESS, K42_ACCOUNT_LENGTH);
        expect_none(map(-1, K42_ACCOUNT_LENGTH), "memory");
        account = map(make(K42_ACCOUNT_LENGTH, GOOD_SEALS), K42_ACCOUNT_LENGTH);
        account->head.version++;
        expect_none(account, "another version");
        account = map(make(K42_ACCOUNT_LENGTH, GOOD_SEALS), K42_ACCOUNT_LENGTH);
        account->head.pid++;
        expect_none(account, "another process's");
        /* Nothing can be written to it but by the mapping that is there already. */
        fd = make(K42_ACCOUNT_LENGTH, GOOD_SEALS);
        account = map(fd, K42_ACCOUNT_LENGTH);
        if (fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) < 0)
                fail("F_SEAL_FUTURE_WRITE");
        expect_none(account, "one that only its process can write");
        /* A file of the mount itself: to open it the daemon would wait for itself. */
        fd = open_it();
        if (ftruncate(fd, K42_ACCOUNT_LENGTH) < 0)
                fail("ftruncate");
        expect_none(map(fd, K42_ACCOUNT_LENGTH), "a file of the mount");
        /* What is offered is not what is mapped. */
        account = map(-1, K42_ACCOUNT_LENGTH);
        for (int other = 0; other < 3; other++) {
                int ends[2];

                if (pipe(ends) < 0)
                        fail("pipe");
                account->head.fd = other == 0 ? ends[0] : other == 1 ? make(K42_ACCOUNT_LENGTH, GOOD_SEALS) : 12345678;
                account->head.nonce += 1000;
                expect_none(account, "a descriptor of something else");
        }
}

/* Good ones that their process cannot write itself, or does not have any more. */
static void gone(void)
{
        const struct k42_account_head head = {K42_ACCOUNT_VERSION, K42_ACCOUNT_LENGTH, getpid(), 0,
                                              UINT64_MAX};
        const int fd = make(K42_ACCOUNT_LENGTH, GOOD_SEALS);

        if (pwrite(fd, &head, sizeof head, 0) != sizeof head ||
            mmap((void *)(uintptr_t)K42_ACCOUNT_ADDRESS, K42_ACCOUNT_LENGTH, PROT_READ, MAP_SHARED | MAP_FIXED,
                 fd, 0) == MAP_FAILED)
                fail("a mapping to read");
        close(open_it());
        munmap((void *)(uintptr_t)K42_ACCOUNT_ADDRESS, K42_ACCOUNT_LENGTH);
        close(open_it());
        /* What is left of it lies: the daemon still has the file. */
        for (unsigned i = 1; i < 64; i++)
                if (pwrite(fd, &(struct k42_account_slot){.token = UINT64_C(1) << 32 | i, .counters = {UINT64_MAX}},
                           sizeof(struct k42_account_slot),
                           (off_t)(offsetof(struct k42_account, slot) + i * sizeof(struct k42_account_slot))) < 0)
                        fail("pwrite");
        close(open_it());
        close(fd);
}

/* A good one, and what it says is nonsense. */
static void bad_words(void)
{
        struct k42_account *account = map(make(K42_ACCOUNT_LENGTH, GOOD_SEALS), K42_ACCOUNT_LENGTH);
        const int fd = open_it();
        uint64_t token = 0;

        for (unsigned i = 0; i < K42_ACCOUNT_POSTS; i++)
                if (account->post[i].token != 0 && account->post[i].slot != 0)
                        token = account->post[i].token;
        if (token == 0) {
                fprintf(stderr, "hostile-account: a good one got no post\n");
                exit(1);
        }
        /* Tokens of others, among them that of who has another file open. */
        for (unsigned i = 1; i < K42_ACCOUNT_SLOTS; i++) {
                struct k42_account_slot *slot = &account->slot[i];

                if (slot->token != token)
                        slot->token = (UINT64_C(1) + i / 64 % 8) << 32 | i % 64;
                memset(slot->counters, i % 2 ? 0xff : 0x33, sizeof slot->counters);
                slot->flags = UINT64_MAX;
        }
        for (unsigned lane = 0; lane < K42_ACCOUNT_LANES; lane++)
                memset(account->lane[lane], lane % 3 ? 0x3f : 0xff, 50 * sizeof account->lane[lane][0]);
        close(open_it());
        account->head.nonce += 1000; /* another one, it says: what is there is read, and refused */
        close(open_it());
        memset(account, 0xff, sizeof *account);
        close(open_it());
        close(fd);
}

int main(int argc, char **argv)
{
        int status;

        if (argc != 2)
                return 2;
        path = argv[1];
        bad_files();
        gone();
        if (fork() == 0) {
                bad_words();
                kill(getpid(), SIGKILL);
        }
        if (wait(&status) < 0 || !WIFSIGNALED(status))
                return 1;
        return 0;
}

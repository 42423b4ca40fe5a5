/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * messages FILE DIR: sends every wrong message, and the right ones, and compares each answer with
 * what lazy/protocol.h says.  FILE and DIR are on the mount.  Prints a line for each group of
 * messages and for each wrong answer; exits with 1 if there was one.
 *
 * Where a message is wrong in several ways, every answer that names one of them is right.
 */
#include "lazy/protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANY_SIZE 16384 /* what a message of any size fits in */
_Static_assert(_IOC_SIZEMASK == 16383, "the size in a request number has 14 bits");
/* 16 KiB is beyond what a request number can say: it runs over into the direction, and what is left
 * of the size is 0. */
_Static_assert(_IOC(_IOC_READ | _IOC_WRITE, 'K', 0xa0, 16384) ==
                       _IOC(_IOC_READ | _IOC_WRITE, 'K', 0xa0, 0),
               "16,384 is sent as 0");

struct kind {
        const char *name;
        unsigned number;
        size_t size;
        size_t reserved; /* offset of the reserved bytes … */
        size_t reserved_size;
};

static const struct kind kinds[] = {
        {"LAZY_REOPEN", 0xa0, sizeof(struct k42_lazy_reopen),
         offsetof(struct k42_lazy_reopen, reserved32), 28},
        {"IDENTIFY", 0xa1, sizeof(struct k42_identify), offsetof(struct k42_identify, reserved),
         32},
        {"WHERE", 0xa2, sizeof(struct k42_where), offsetof(struct k42_where, reserved), 4},
        {"PRIVATE_REOPEN", 0xa3, sizeof(struct k42_private_reopen),
         offsetof(struct k42_private_reopen, reserved32), 28},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static long sent, wrong;
static unsigned char message[ANY_SIZE], before[ANY_SIZE];
static uint64_t own_token; /* what the file's or directory's first answer said */

static void header(uint16_t version, uint16_t length, uint32_t flags)
{
        struct k42_header h = {.version = version, .length = length, .flags = flags};

        memset(message, 0, sizeof(message));
        memcpy(message, &h, sizeof(h));
}

static void complain(const char *what, const char *detail, long value, int got)
{
        if (wrong++ < 40)
                printf("WRONG: %s, %s %ld: %s\n", what, detail, value,
                       got ? strerrorname_np(got) : "success");
}

/* Sends `message`; returns 0 or errno.  An error must have left the message alone. */
static int send_it(int fd, unsigned direction, unsigned type, unsigned number, size_t size)
{
        int r;

        sent++;
        memcpy(before, message, sizeof(before));
        r = ioctl(fd, _IOC(direction, type, number, size), message);
        if (r == 0)
                return 0;
        if (r > 0)
                complain("a positive result", "", r, 0);
        else if (memcmp(before, message, sizeof(before)))
                complain("an error with contents", "number", number, errno);
        return r < 0 ? errno : -1;
}

static int send_kind(int fd, const struct kind *kind)
{
        return send_it(fd, _IOC_READ | _IOC_WRITE, 'K', kind->number, kind->size);
}

/* A right message and a right answer to it. */
static void right(int fd, const struct kind *kind)
{
        int err;

        header(K42_PROTOCOL_VERSION, kind->size, 0);
        err = send_kind(fd, kind);
        if (kind->number == 0xa3) { /* in form; but it names no handle */
                if (err != ESTALE)
                        complain(kind->name, "without a handle", 0, err);
                return;
        }
        if (err) {
                complain(kind->name, "right, version", K42_PROTOCOL_VERSION, err);
                return;
        }
        if (memcmp(before, message, sizeof(struct k42_header)))
                complain(kind->name, "answer's header", 0, 0);
        for (size_t i = 0; i < kind->reserved_size; i++)
                if (message[kind->reserved + i])
                        complain(kind->name, "answer's reserved byte", i, 0);
        for (size_t i = kind->size; i < sizeof(message); i++)
                if (message[i])
                        complain(kind->name, "answer's byte beyond the message", i, 0);
        if (kind->number == 0xa0) {
                struct k42_lazy_reopen m;
                memcpy(&m, message, sizeof(m));
                own_token = own_token ? own_token : m.token;
                if (m.token == 0 || m.token != own_token)
                        complain(kind->name, "another token", (long)m.token, 0);
                if (m.parent || m.sharing != K42_SHARING_NON_SHARED)
                        complain(kind->name, "the opener is alone; sharing", m.sharing, 0);
        } else if (kind->number == 0xa1) {
                struct k42_identify m;
                memcpy(&m, message, sizeof(m));
                if (!m.description || m.opener_pid != getpid() || m.handles != 1)
                        complain(kind->name, "opener, handles", m.handles, 0);
        } else {
                struct k42_where m;
                memcpy(&m, message, sizeof(m));
                if (m.worker_pid <= 0 || m.state_dir[0] != '/' ||
                    !memchr(m.state_dir, 0, sizeof(m.state_dir)))
                        complain(kind->name, "worker", m.worker_pid, 0);
        }
}

static void expect(int fd, const struct kind *kind, int expected, const char *detail, long value)
{
        int err = send_kind(fd, kind);

        if (err != expected)
                complain(kind->name, detail, value, err);
}

/* Every size, with a header that agrees with the size, and with one that claims the right length.
 */
static void lengths(int fd, const struct kind *kind)
{
        for (size_t size = 0; size <= _IOC_SIZEMASK; size++) {
                for (int honest = 0; honest < 2; honest++) {
                        int err;
                        if (size == kind->size)
                                continue;
                        header(K42_PROTOCOL_VERSION, honest ? size : kind->size, 0);
                        err = send_it(fd, _IOC_READ | _IOC_WRITE, 'K', kind->number, size);
                        if (err != EMSGSIZE)
                                complain(kind->name, honest ? "size" : "lying size", size, err);
                }
        }
        header(K42_PROTOCOL_VERSION, kind->size, 0);
        if (send_it(fd, _IOC_READ | _IOC_WRITE, 'K', kind->number, 16384) != EMSGSIZE)
                complain(kind->name, "size", 16384, 0);
        for (unsigned length = 0; length <= 65535; length += length < 300 ? 1 : 97) {
                if (length == kind->size)
                        continue;
                header(K42_PROTOCOL_VERSION, length, 0);
                expect(fd, kind, EMSGSIZE, "header's length", length);
        }
}

static void fields(int fd, const struct kind *kind)
{
        static const unsigned versions[] = {0, 2, 3, 255, 256, 257, 0x7fff, 0x8001, 65535};

        for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
                header(versions[i], kind->size, 0);
                expect(fd, kind, EPROTONOSUPPORT, "version", versions[i]);
        }
        for (int bit = 0; bit < 32; bit++) {
                header(K42_PROTOCOL_VERSION, kind->size, UINT32_C(1) << bit);
                expect(fd, kind, EINVAL, "flag bit", bit);
        }
        for (size_t i = 0; i < kind->reserved_size * 8; i++) {
                header(K42_PROTOCOL_VERSION, kind->size, 0);
                message[kind->reserved + i / 8] = 1 << i % 8;
                expect(fd, kind, EINVAL, "reserved bit", i);
        }
        right(fd, kind);
}

/* A parent that is no handle, or nobody's, is a hint that helps nothing. */
static void hints(int fd)
{
        static const uint64_t parents[] = {1,
                                           UINT64_MAX,
                                           UINT64_C(1) << 63,
                                           0xffffffff,
                                           UINT64_C(1) << 32 | 1,
                                           0xdeadbeefdeadbeef};

        for (size_t i = 0; i < sizeof(parents) / sizeof(parents[0]); i++) {
                struct k42_lazy_reopen m;
                int err;
                header(K42_PROTOCOL_VERSION, sizeof(m), 0);
                memcpy(&m, message, sizeof(m));
                m.parent = parents[i];
                memcpy(message, &m, sizeof(m));
                err = send_kind(fd, &kinds[0]);
                memcpy(&m, message, sizeof(m));
                if (err || m.token != own_token || m.parent)
                        complain("LAZY_REOPEN", "forged parent", i, err);
        }
}

/* Requests that there are not. */
static void unknown(int fd)
{
        static const size_t sizes[] = {0, 1, 7, 8, 63, 64, 65, 512, 1024, 4096, 16383};
        static const unsigned types[] = {'K' ^ 0x80, 'Z', 0xe0};

        for (unsigned number = 0; number < 256; number++) {
                if (number >= 0xa0 && number <= 0xa3)
                        continue;
                for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                        int err;
                        header(K42_PROTOCOL_VERSION, sizes[i], 0);
                        err = send_it(fd, _IOC_READ | _IOC_WRITE, 'K', number, sizes[i]);
                        if (err != ENOTTY)
                                complain("an unknown number", "number", number, err);
                }
        }
        for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
                for (size_t k = 0; k < KINDS; k++) {
                        int err;
                        header(K42_PROTOCOL_VERSION, kinds[k].size, 0);
                        err = send_it(fd, _IOC_READ | _IOC_WRITE, types[i], kinds[k].number,
                                      kinds[k].size);
                        if (err != ENOTTY)
                                complain("an unknown type", "type", types[i], err);
                }
}

/* The right number and size, but one way only: there is no such request, or nothing came. */
static void one_way(int fd, const struct kind *kind)
{
        for (unsigned direction = 0; direction <= _IOC_READ; direction++) {
                int err;
                header(K42_PROTOCOL_VERSION, kind->size, 0);
                err = send_it(fd, direction, 'K', kind->number, kind->size);
                if (err != ENOTTY && err != EMSGSIZE && err != EINVAL)
                        complain(kind->name, "direction", direction, err);
        }
}

/* Noise with a right size: any of the errors, but for the one in 2^80 that is right. */
static void noise(int fd, const struct kind *kind)
{
        for (int i = 0; i < 2000; i++) {
                int err;
                for (size_t k = 0; k < sizeof(message); k++)
                        message[k] = random();
                err = send_kind(fd, kind);
                if (err != EMSGSIZE && err != EPROTONOSUPPORT && err != EINVAL)
                        complain(kind->name, "noise", i, err);
        }
}

static void everything(const char *path, int flags)
{
        int fd = open(path, flags | O_CLOEXEC);

        if (fd < 0) {
                fprintf(stderr, "messages: %s: %s\n", path, strerror(errno));
                exit(2);
        }
        own_token = 0;
        for (size_t k = 0; k < KINDS; k++) {
                right(fd, &kinds[k]);
                lengths(fd, &kinds[k]);
                fields(fd, &kinds[k]);
                one_way(fd, &kinds[k]);
                noise(fd, &kinds[k]);
                right(fd, &kinds[k]);
                printf("%s %s: %ld sent, %ld wrong answers\n", flags & O_DIRECTORY ? "dir" : "file",
                       kinds[k].name, sent, wrong);
        }
        unknown(fd);
        hints(fd);
        right(fd, &kinds[0]);
        printf("%s: %ld sent, %ld wrong answers\n", flags & O_DIRECTORY ? "dir" : "file", sent,
               wrong);
        close(fd);
}

/* Descriptors that carry no message at all. */
static void carries_nothing(const char *path)
{
        int fd = open(path, O_PATH | O_CLOEXEC);
        int err;

        header(K42_PROTOCOL_VERSION, sizeof(struct k42_lazy_reopen), 0);
        err = send_kind(fd, &kinds[0]);
        if (err != EBADF)
                complain("O_PATH", "", 0, err);
        close(fd);
}

int main(int argc, char **argv)
{
        if (argc != 3) {
                fprintf(stderr, "usage: messages FILE DIR\n");
                return 2;
        }
        everything(argv[1], O_RDWR);
        everything(argv[2], O_RDONLY | O_DIRECTORY);
        carries_nothing(argv[1]);
        printf("%ld messages, %ld wrong answers\n", sent, wrong);
        return wrong ? 1 : 0;
}

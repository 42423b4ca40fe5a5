/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * P3 as a property: random trees of processes that fork, read, seek, copy and close, each compared with a
 * model of what private mode promises.
 *
 *   trees DIR SEED TREES [FILES]    needs DIR writable, and the shim with K42_FORK=private
 *
 * The model of one process: for each descriptor its description; for each description its file and
 * offset.  A fork copies the model, offsets included, which is all that private mode says.  Every read
 * is compared with the file's known contents at the model's offset, and every seek's result with the
 * model.  Parent and children run at the same time, so that one that moved another's offset is found
 * out; where they wait for each other is random too.
 *
 * Prints its seed on failure; exits 0 if all was right, 1 if not, 99 if it could not try.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SLOTS     12
#define FILES_MAX 8
#define SIZE      20000
#define STEPS     40
#define DEPTH_MAX 3
#define SPLIT     4 /* how many children in one process's life, at most */

struct model {
        int fd[SLOTS];          /* -1: none */
        int description[SLOTS]; /* index into the next two */
        int64_t offset[SLOTS];
        int file[SLOTS];
        bool used[SLOTS];
};

static uint64_t state, seed;
static unsigned n_files = 4;
static const char *dir;

static uint32_t draw(uint32_t below)
{
        state = state * 6364136223846793005u + 1442695040888963407u;
        return (uint32_t)(state >> 33) % below;
}

/* The byte of a file at an offset: what every process knows without reading. */
static unsigned char byte_at(int file, int64_t at)
{
        return (unsigned char)((uint64_t)(at * 31 + at / 251 + file * 101) & 0xff);
}

static void wrong(const char *what, long got, long expected)
{
        fprintf(stderr, "trees: seed %llu: %s: %ld, expected %ld (%s)\n",
                (unsigned long long)seed, what, got, expected, strerror(errno));
        _exit(1);
}

static void name_of(char *path, size_t size, int file)
{
        if ((size_t)snprintf(path, size, "%s/tree%d", dir, file) >= size)
                _exit(99);
}

static void make_files(void)
{
        for (unsigned f = 0; f < n_files; f++) {
                unsigned char data[SIZE];
                char path[4096];
                int fd;

                for (int i = 0; i < SIZE; i++)
                        data[i] = byte_at((int)f, i);
                name_of(path, sizeof path, (int)f);
                fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
                if (fd < 0 || write(fd, data, SIZE) != SIZE || close(fd) < 0) {
                        perror(path);
                        exit(99);
                }
        }
}

static int free_slot(const struct model *m)
{
        const int first = (int)draw(SLOTS);

        for (int i = 0; i < SLOTS; i++)
                if (m->fd[(first + i) % SLOTS] < 0)
                        return (first + i) % SLOTS;
        return -1;
}

static int open_slot(const struct model *m)
{
        const int first = (int)draw(SLOTS);

        for (int i = 0; i < SLOTS; i++)
                if (m->fd[(first + i) % SLOTS] >= 0)
                        return (first + i) % SLOTS;
        return -1;
}

static void step_open(struct model *m)
{
        const int slot = free_slot(m), file = (int)draw(n_files);
        char path[4096];
        int d = 0;

        if (slot < 0)
                return;
        while (m->used[d])
                d++;
        name_of(path, sizeof path, file);
        m->fd[slot] = open(path, (draw(2) ? O_RDONLY : O_RDWR) | (draw(2) ? O_CLOEXEC : 0));
        if (m->fd[slot] < 0)
                wrong("open", m->fd[slot], 0);
        m->description[slot] = d;
        m->used[d] = true;
        m->file[d] = file;
        m->offset[d] = 0;
}

static void step_dup(struct model *m)
{
        const int from = open_slot(m), to = free_slot(m);

        if (from < 0 || to < 0)
                return;
        m->fd[to] = draw(2) ? dup(m->fd[from]) : fcntl(m->fd[from], F_DUPFD_CLOEXEC, 20 + draw(50));
        if (m->fd[to] < 0)
                wrong("dup", m->fd[to], 0);
        m->description[to] = m->description[from];
}

static void drop(struct model *m, int slot)
{
        const int d = m->description[slot];

        m->fd[slot] = -1;
        m->used[d] = false;
        for (int i = 0; i < SLOTS; i++)
                if (m->fd[i] >= 0 && m->description[i] == d)
                        m->used[d] = true;
}

static void step_close(struct model *m)
{
        const int slot = open_slot(m);

        if (slot < 0)
                return;
        if (close(m->fd[slot]) < 0)
                wrong("close", -1, 0);
        drop(m, slot);
}

/* dup2 onto an open descriptor: it changes its description. */
static void step_dup2(struct model *m)
{
        const int from = open_slot(m), to = open_slot(m);
        const int d = from < 0 ? 0 : m->description[from];

        if (from < 0 || from == to)
                return;
        if (dup2(m->fd[from], m->fd[to]) != m->fd[to])
                wrong("dup2", -1, m->fd[to]);
        {
                const int fd = m->fd[to];

                drop(m, to);
                m->fd[to] = fd;
                m->description[to] = d;
                m->used[d] = true;
        }
}

static void check_bytes(int file, int64_t at, const unsigned char *data, long n)
{
        for (long i = 0; i < n; i++)
                if (data[i] != byte_at(file, at + i))
                        wrong("a byte", data[i], byte_at(file, at + i));
}

static void step_read(struct model *m)
{
        const int slot = open_slot(m), want = 1 + (int)draw(700);
        unsigned char data[700];
        int64_t *offset;
        long n, expected;

        if (slot < 0)
                return;
        offset = &m->offset[m->description[slot]];
        expected = *offset >= SIZE ? 0 : SIZE - *offset < want ? SIZE - *offset : want;
        n = read(m->fd[slot], data, (size_t)want);
        if (n != expected)
                wrong("read", n, expected);
        check_bytes(m->file[m->description[slot]], *offset, data, n);
        *offset += n;
}

static void step_pread(struct model *m)
{
        const int slot = open_slot(m);
        const int64_t at = draw(SIZE - 100);
        unsigned char data[100];

        if (slot < 0)
                return;
        if (pread(m->fd[slot], data, sizeof data, at) != (ssize_t)sizeof data)
                wrong("pread", -1, sizeof data);
        check_bytes(m->file[m->description[slot]], at, data, sizeof data);
}

static void step_seek(struct model *m)
{
        const int slot = open_slot(m), whence = (int)draw(3);
        int64_t *offset, to, got;

        if (slot < 0)
                return;
        offset = &m->offset[m->description[slot]];
        to = draw(SIZE);
        got = lseek(m->fd[slot],
                    whence == SEEK_SET   ? to
                    : whence == SEEK_CUR ? to - *offset
                                         : to - SIZE,
                    whence);
        if (got != to)
                wrong("lseek", got, to);
        *offset = to;
}

static void step_tell(struct model *m)
{
        const int slot = open_slot(m);

        if (slot >= 0 && lseek(m->fd[slot], 0, SEEK_CUR) != m->offset[m->description[slot]])
                wrong("the offset", lseek(m->fd[slot], 0, SEEK_CUR),
                      m->offset[m->description[slot]]);
}

static int close_on_exec_of(int fd)
{
        return fcntl(fd, F_GETFD) & FD_CLOEXEC;
}

static void pause_a_little(void)
{
        const struct timespec time = {.tv_nsec = draw(3) * 300000};

        nanosleep(&time, NULL);
}

static int live(struct model *m, unsigned depth);

static pid_t step_fork(struct model *m, unsigned depth)
{
        int before[SLOTS];
        const uint64_t child_state = state ^ (UINT64_C(0x9e3779b97f4a7c15) * (depth + 2));
        pid_t pid;

        for (int i = 0; i < SLOTS; i++)
                before[i] = m->fd[i] < 0 ? 0 : close_on_exec_of(m->fd[i]);
        pid = fork();
        if (pid < 0)
                wrong("fork", -1, 0);
        if (pid > 0)
                return pid;
        state = child_state;
        pause_a_little();
        for (int i = 0; i < SLOTS && depth % 2; i++) { /* some touch all at once */
                char byte;

                if (m->fd[i] < 0)
                        continue;
                if (pread(m->fd[i], &byte, 1, 0) != 1)
                        wrong("pread", -1, 1);
                if (close_on_exec_of(m->fd[i]) != before[i])
                        wrong("close on exec", close_on_exec_of(m->fd[i]), before[i]);
        }
        _exit(live(m, depth + 1));
}

static int live(struct model *m, unsigned depth)
{
        void (*const steps[])(struct model *) = {
                step_open, step_open, step_dup,  step_dup2, step_close, step_read, step_read,
                step_read, step_seek, step_tell, step_pread,
        };
        pid_t children[SPLIT];
        unsigned n = 0;
        int status, bad = 0;

        for (int i = 0; i < STEPS; i++) {
                if (depth < DEPTH_MAX && n < SPLIT - depth && draw(12) == 0)
                        children[n++] = step_fork(m, depth);
                else
                        steps[draw(sizeof steps / sizeof steps[0])](m);
        }
        for (unsigned i = 0; i < n; i++) {
                if (waitpid(children[i], &status, 0) < 0)
                        return 99;
                if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                        bad = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
        }
        for (int i = 0; i < SLOTS; i++)
                if (m->fd[i] >= 0 && lseek(m->fd[i], 0, SEEK_CUR) !=
                                             m->offset[m->description[i]])
                        wrong("the offset at the end", lseek(m->fd[i], 0, SEEK_CUR),
                              m->offset[m->description[i]]);
        return bad;
}

int main(int argc, char **argv)
{
        int bad = 0;
        unsigned trees;

        if (argc < 4)
                return 99;
        dir = argv[1];
        seed = strtoull(argv[2], NULL, 10);
        trees = (unsigned)atoi(argv[3]);
        if (argc > 4)
                n_files = (unsigned)atoi(argv[4]);
        if (n_files < 1 || n_files > FILES_MAX)
                return 99;
        make_files();
        for (unsigned i = 0; i < trees && bad == 0; i++) {
                struct model m = {.used = {false}};

                for (int slot = 0; slot < SLOTS; slot++)
                        m.fd[slot] = -1;
                state = seed + i * UINT64_C(7919);
                draw(2);
                for (int n = 0; n < 5; n++)
                        step_open(&m);
                bad = live(&m, 0);
                for (int slot = 0; slot < SLOTS; slot++)
                        if (m.fd[slot] >= 0)
                                close(m.fd[slot]);
        }
        if (bad)
                fprintf(stderr, "trees: seed %llu failed\n", (unsigned long long)seed);
        return bad;
}

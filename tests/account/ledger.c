/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ledger: P7.  A random tree of processes reads, writes, copies and maps files that it opens and inherits,
 * and each process keeps a ledger of what its system calls returned, in a file that is mapped MAP_SHARED.
 * The test compares it with what `k42ctl history` and `list` say.
 *
 *   ledger run LEDGER MOUNT SEED STEPS          begins; ends with all its processes
 *   ledger show LEDGER                          pid, file and the sums, one line each, for the comparison
 *
 * Each file is opened once, so that (process, file) is one handle.  A process that dies does it to itself,
 * between two system calls.
 *
 * With K42CTL in the environment, rights and files are also taken: LEDGER_TAKES names what, of `file` (revoke FILE),
 * `process` (revoke PID, of the process that does it) and `restrict`.  What is taken at random times from others,
 * too, must neither count nor move: a call that fails counts nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILES     200
#define FIRST     8 /* opened by the first process */
#define ROWS      512
#define FILE_SIZE 65536
#define DEPTH_MAX 3
#define FDS_MAX   40

struct sums {
        uint64_t reads, read_bytes, writes, write_bytes, mappings, mapped_bytes;
        uint64_t pieces; /* not one call for each piece: the calls are not compared */
};

struct row {
        uint64_t pid;
        struct sums sums[FILES];
};

struct ledger {
        _Atomic uint64_t rows, opened;
        struct row row[ROWS];
};

static struct ledger *ledger;
static struct row *mine;
static char *ledger_path, *mount_path, *program;
static uint64_t state;
static const char *takes; /* NULL: nothing is taken */
static unsigned depth;
static struct {
        int fd;
        unsigned file;
} fds[FDS_MAX];
static unsigned n_fds;
static char buffer[FILE_SIZE];

static unsigned pick(unsigned n)
{
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return (unsigned)((state >> 33) % n);
}

static _Noreturn void fail(const char *what)
{
        fprintf(stderr, "ledger: %s: %s\n", what, strerror(errno));
        exit(2);
}

/* What may fail: rights can have been taken away. */
static void check(ssize_t n, const char *what)
{
        if (n < 0 && errno != EBADF && !(takes && errno == EACCES))
                fail(what);
}

static void note_read(unsigned file, ssize_t n)
{
        check(n, "read");
        if (n < 0)
                return;
        mine->sums[file].reads++;
        mine->sums[file].read_bytes += (uint64_t)n;
}

static void note_write(unsigned file, ssize_t n)
{
        check(n, "write");
        if (n < 0)
                return;
        mine->sums[file].writes++;
        mine->sums[file].write_bytes += (uint64_t)n;
}

static void take_row(void)
{
        const uint64_t i = atomic_fetch_add(&ledger->rows, 1);

        if (i >= ROWS) {
                fprintf(stderr, "ledger: too many processes\n");
                exit(2);
        }
        mine = &ledger->row[i];
        mine->pid = (uint64_t)getpid();
}

static void open_ledger(bool make)
{
        const int fd = open(ledger_path, O_RDWR | O_CLOEXEC | (make ? O_CREAT | O_TRUNC : 0), 0600);

        if (fd < 0 || (make && ftruncate(fd, sizeof *ledger) < 0))
                fail(ledger_path);
        ledger = mmap(NULL, sizeof *ledger, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (ledger == MAP_FAILED)
                fail("mmap");
        close(fd);
}

/* The path of a file that nobody has opened yet, or NULL. */
static const char *next_file(unsigned *ret_file)
{
        static char path[4096];
        const uint64_t i = atomic_fetch_add(&ledger->opened, 1);

        if (i >= FILES)
                return NULL;
        snprintf(path, sizeof path, "%s/%03u", mount_path, (unsigned)i);
        *ret_file = (unsigned)i;
        return path;
}

static void add_fd(int fd, unsigned file)
{
        if (fd < 0)
                fail("open");
        fds[n_fds].fd = fd;
        fds[n_fds++].file = file;
}

static void do_open(void)
{
        unsigned file;
        const char *path = n_fds < FDS_MAX ? next_file(&file) : NULL;

        if (path)
                add_fd(open(path, O_RDWR), file);
}

static void do_stdio(void)
{
        unsigned file;
        const char *path = next_file(&file);
        FILE *stream = path ? fopen(path, pick(2) ? "r" : "w") : NULL;
        const size_t n = 1 + pick(20000);
        struct sums *sums;

        if (!path)
                return;
        if (!stream)
                fail(path);
        sums = &mine->sums[file];
        sums->pieces = 1; /* as stdio divides it */
        if ((fcntl(fileno(stream), F_GETFL) & O_ACCMODE) == O_RDONLY) {
                if (fread(buffer, 1, n, stream) != n)
                        fail("fread");
                sums->read_bytes += (uint64_t)lseek(fileno(stream), 0, SEEK_CUR);
        } else {
                if (fwrite(buffer, 1, n, stream) != n || fflush(stream))
                        fail("fwrite");
                sums->write_bytes += n;
        }
        fclose(stream);
}

static void do_mmap(int fd, unsigned file)
{
        const size_t n = 4096 * (1 + pick(8));
        volatile char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        if (p == MAP_FAILED) {
                if (errno != ENODEV) /* the class counted without a backing file */
                        check(-1, "mmap");
                return;
        }
        mine->sums[file].mappings++;
        mine->sums[file].mapped_bytes += n;
        munmap((void *)p, n);
}

/* sendfile(2) reads through the page cache, which the daemon does not see: with the shim only. */
static bool may_send(void)
{
        return getenv("LEDGER_SENDS") != NULL;
}

static void do_copy(int from, unsigned from_file, int to, unsigned to_file)
{
        off64_t at = pick(FILE_SIZE / 2), to_at = pick(FILE_SIZE / 2);
        const size_t n = 1 + pick(FILE_SIZE / 2);
        const bool send = pick(2) && may_send();
        ssize_t moved;

        if (from_file == to_file)
                return;
        if (send)
                moved = sendfile64(to, from, &at, n);
        else
                moved = copy_file_range(from, &at, to, &to_at, n, 0);
        check(moved, "copy");
        if (moved < 0)
                return;
        mine->sums[from_file].pieces = mine->sums[to_file].pieces = 1;
        mine->sums[from_file].read_bytes += (uint64_t)moved;
        mine->sums[to_file].write_bytes += (uint64_t)moved;
}

struct job {
        int fd;
        ssize_t n;
};

static void *read_in_thread(void *data)
{
        struct job *job = data;

        job->n = pread(job->fd, buffer, 777, 0);
        return NULL;
}

static void do_thread(int fd, unsigned file)
{
        struct job job = {.fd = fd};
        pthread_t thread;

        if (pthread_create(&thread, NULL, read_in_thread, &job) != 0)
                fail("pthread_create");
        pthread_join(thread, NULL);
        if (job.n < 0)
                errno = EBADF;
        note_read(file, job.n);
}

static void do_io(void)
{
        const unsigned which = pick(n_fds);
        const int fd = fds[which].fd;
        const unsigned file = fds[which].file, other = pick(n_fds);
        const size_t n = 1 + pick(9000), half = n / 2;
        const struct iovec iov[2] = {{buffer, half}, {buffer + half, n - half}};
        const off_t at = pick(FILE_SIZE);

        switch (pick(11)) {
        case 0:
                note_read(file, read(fd, buffer, n));
                break;
        case 1:
                note_read(file, pread(fd, buffer, n, at));
                break;
        case 2:
                note_read(file, readv(fd, iov, 2));
                break;
        case 3:
                note_read(file, preadv(fd, iov, 2, at));
                break;
        case 4:
                lseek(fd, at, SEEK_SET);
                note_write(file, write(fd, buffer, n));
                break;
        case 5:
                note_write(file, pwrite(fd, buffer, n, at));
                break;
        case 6:
                note_write(file, pwritev(fd, iov, 2, at));
                break;
        case 7:
                do_copy(fd, file, fds[other].fd, fds[other].file);
                break;
        case 8:
                do_mmap(fd, file);
                break;
        case 9:
                do_thread(fd, file);
                break;
        case 10:
                lseek(fd, at, SEEK_SET);
                break;
        }
}

static void do_descriptors(void)
{
        const unsigned which = pick(n_fds);

        if (pick(3) && n_fds < FDS_MAX) {
                add_fd(dup(fds[which].fd), fds[which].file);
        } else if (n_fds > 3) {
                close(fds[which].fd);
                fds[which] = fds[--n_fds];
        }
}

static void k42ctl(const char *verb, const char *target, const char *rights)
{
        const char *program_path = getenv("K42CTL");
        int status;
        pid_t pid;

        fflush(stdout);
        pid = fork();
        if (pid == 0) {
                unsetenv("LD_PRELOAD"); /* it can be a sanitizer's build, which wants to be first */
                if (*target == '/') /* a file tells its mount */
                        execl(program_path, program_path, verb, target, NULL);
                else if (rights)
                        execl(program_path, program_path, verb, target, rights, mount_path, NULL);
                else
                        execl(program_path, program_path, verb, target, mount_path, NULL);
                _exit(127);
        }
        while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
        /* 1: there is no handle to take, or what others have begun is not over yet. */
        if (pid < 0 || !WIFEXITED(status) || WEXITSTATUS(status) > 1)
                fail("k42ctl");
}

/* Each takes from this process, and `file` from all. */
static void do_take(void)
{
        static const char *const rights[] = {"rd", "rwd", "wd", "rwdc"};
        const unsigned which = pick(n_fds), what = pick(3);
        char target[4096];

        if (!takes)
                return;
        if (what == 0 && strstr(takes, "file")) {
                snprintf(target, sizeof target, "%s/%03u", mount_path, fds[which].file);
                k42ctl("revoke", target, NULL);
                return;
        }
        snprintf(target, sizeof target, "%d", (int)getpid());
        if (what == 1 && strstr(takes, "process") && pick(4) == 0)
                k42ctl("revoke", target, NULL);
        else if (what == 2 && strstr(takes, "restrict"))
                k42ctl("restrict", target, rights[pick(4)]);
}

static void run(unsigned steps);

static void do_fork(unsigned steps)
{
        const bool room = depth < DEPTH_MAX && atomic_load(&ledger->rows) < ROWS / 2;
        const pid_t pid = room ? fork() : -1;

        if (pid < 0)
                return;
        if (pid == 0) {
                depth++;
                state = state * 31 + (uint64_t)depth + atomic_load(&ledger->rows);
                take_row();
                run(steps / 2);
                _exit(0);
        }
}

/* The same process goes on with a new image, and what it says about its descriptors. */
static void do_exec(unsigned steps)
{
        static char numbers[4][32], list[FDS_MAX * 16];
        static char go[] = "go";
        char *args[] = {program, go, ledger_path, mount_path, numbers[0],
                        numbers[1], numbers[2], numbers[3], list, NULL};
        char *end = list;

        for (unsigned i = 0; i < n_fds; i++)
                end += sprintf(end, "%d:%u,", fds[i].fd, fds[i].file);
        sprintf(numbers[0], "%llu", (unsigned long long)state);
        sprintf(numbers[1], "%u", steps);
        sprintf(numbers[2], "%u", depth);
        sprintf(numbers[3], "%u", (unsigned)(mine - ledger->row));
        execv(program, args);
        fail("execv");
}

static void run(unsigned steps)
{
        int status;

        while (steps-- > 0) {
                const unsigned what = pick(100);

                if (what < 80)
                        do_io();
                else if (what < 88)
                        do_descriptors();
                else if (what < 91)
                        do_open();
                else if (what < 94)
                        do_stdio();
                else if (what < 97)
                        do_fork(steps);
                else if (what < 98 && depth > 0)
                        do_exec(steps);
                else if (what == 98)
                        do_take();
                else if (what == 99 && depth > 0 && pick(4) == 0)
                        kill(getpid(), SIGKILL);
        }
        while (wait(&status) > 0)
                if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
                        exit(WEXITSTATUS(status));
}

static void go_on(char **args)
{
        char *at = args[6];

        state = strtoull(args[2], NULL, 10);
        depth = (unsigned)atoi(args[4]);
        open_ledger(false);
        mine = &ledger->row[atoi(args[5])];
        while (*at) {
                const int fd = (int)strtol(at, &at, 10);

                add_fd(fd, (unsigned)strtoul(at + 1, &at, 10));
                at++;
        }
        run((unsigned)atoi(args[3]));
}

static void begin(char **args)
{
        state = strtoull(args[2], NULL, 10) * 2654435761u + 88172645463325252u;
        open_ledger(true);
        take_row();
        for (unsigned i = 0; i < FIRST; i++)
                do_open();
        run((unsigned)atoi(args[3]));
}

static void show(void)
{
        open_ledger(false);
        for (uint64_t i = 0; i < atomic_load(&ledger->rows); i++)
                for (unsigned file = 0; file < FILES; file++) {
                        const struct sums *s = &ledger->row[i].sums[file];

                        if (s->reads | s->writes | s->mappings | s->pieces)
                                printf("%llu /%03u %llu %llu %llu %llu %llu %llu %llu\n",
                                       (unsigned long long)ledger->row[i].pid, file,
                                       (unsigned long long)s->reads, (unsigned long long)s->read_bytes,
                                       (unsigned long long)s->writes, (unsigned long long)s->write_bytes,
                                       (unsigned long long)s->mappings,
                                       (unsigned long long)s->mapped_bytes,
                                       (unsigned long long)s->pieces);
                }
}

int main(int argc, char **argv)
{
        static char self[4096];
        const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

        if (n < 0 || argc < 3)
                return 2;
        takes = getenv("K42CTL") ? getenv("LEDGER_TAKES") : NULL;
        program = self;
        ledger_path = argv[2];
        mount_path = argc > 3 ? argv[3] : NULL;
        if (argc == 3 && strcmp(argv[1], "show") == 0)
                show();
        else if (argc == 6 && strcmp(argv[1], "run") == 0)
                begin(argv + 2);
        else if (argc == 9 && strcmp(argv[1], "go") == 0)
                go_on(argv + 2);
        else
                return 2;
        return 0;
}

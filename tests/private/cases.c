/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What private mode promises, one case at a time.
 *
 *   cases CASE DIR      runs it on files of its own in DIR; `cases list` names all
 *
 * Exits 0 if it held, 1 and says what did not, 77 if this process cannot try it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE 50000
#define SKIP 77

extern char **environ;
static char path[4096];
static const char *self;

#define CHECK(what)                                                                                \
        do {                                                                                       \
                if (!(what)) {                                                                     \
                        fprintf(stderr, "cases: line %d: not so: %s (%s)\n", __LINE__, #what,      \
                                strerror(errno));                                                  \
                        _exit(1);                                                                  \
                }                                                                                  \
        } while (0)

static unsigned char byte_at(int64_t at)
{
        return (unsigned char)(at * 7 + at / 256);
}

static int make(int flags)
{
        unsigned char data[SIZE];
        int fd;

        for (int i = 0; i < SIZE; i++)
                data[i] = byte_at(i);
        unlink(path);
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_TRUNC, 0600);
        CHECK(fd >= 0 && write(fd, data, SIZE) == SIZE);
        close(fd);
        fd = open(path, flags);
        CHECK(fd > 2);
        return fd;
}

static int64_t at(int fd)
{
        return lseek(fd, 0, SEEK_CUR);
}

/* Reads `n` bytes, which must be those from `from` on. */
static bool reads(int fd, int64_t from, int n)
{
        unsigned char data[4096];

        if (read(fd, data, (size_t)n) != n)
                return false;
        for (int i = 0; i < n; i++)
                if (data[i] != byte_at(from + i))
                        return false;
        return true;
}

static void reap(pid_t pid)
{
        int status;

        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
        CHECK(WIFEXITED(status));
        if (WEXITSTATUS(status))
                _exit(WEXITSTATUS(status));
}

/* A place where a child waits for its parent. */
static int gate[2];

static void gate_make(void)
{
        CHECK(pipe2(gate, O_CLOEXEC) == 0);
}

static void gate_wait(void)
{
        char byte;

        close(gate[1]);
        CHECK(read(gate[0], &byte, 1) == 0);
}

static void gate_open(void)
{
        close(gate[1]);
        close(gate[0]);
}

/* ---- the offset ---- */

static void case_offset(void)
{
        const int fd = make(O_RDONLY);
        pid_t pid;

        gate_make();
        CHECK(reads(fd, 0, 1000));
        pid = fork();
        if (pid == 0) {
                gate_wait(); /* the parent has moved on by now */
                CHECK(reads(fd, 1000, 500));
                CHECK(at(fd) == 1500 && lseek(fd, 10, SEEK_SET) == 10);
                _exit(0);
        }
        CHECK(reads(fd, 1000, 2000));
        gate_open();
        reap(pid);
        CHECK(at(fd) == 3000);
}

static void case_nested(void)
{
        const int fd = make(O_RDONLY);
        pid_t pid;

        gate_make();
        CHECK(reads(fd, 0, 100));
        pid = fork();
        if (pid == 0) {
                pid_t untouched, touched;

                gate_wait();
                untouched = fork(); /* this process has not touched it: 100 for that one, too */
                if (untouched == 0) {
                        CHECK(reads(fd, 100, 30) && at(fd) == 130);
                        _exit(0);
                }
                CHECK(reads(fd, 100, 50));
                touched = fork();
                if (touched == 0) {
                        CHECK(reads(fd, 150, 5));
                        _exit(0);
                }
                CHECK(reads(fd, 150, 1));
                reap(untouched);
                reap(touched);
                CHECK(at(fd) == 151);
                _exit(0);
        }
        CHECK(reads(fd, 100, 700));
        gate_open();
        reap(pid);
        CHECK(at(fd) == 800);
}

static void case_fork_variants(void)
{
        const int fd = make(O_RDONLY);
        pid_t pid;

        CHECK(reads(fd, 0, 100));
        pid = _Fork();
        if (pid == 0)
                _exit(reads(fd, 100, 10) ? 0 : 1);
        reap(pid);
        CHECK(at(fd) == 100);
        pid = fork();
        if (pid == 0) {
                CHECK(daemon(1, 1) == 0); /* forks inside libc */
                CHECK(reads(fd, 100, 10));
                _exit(0);
        }
        reap(pid);
        usleep(100000);
        CHECK(at(fd) == 100);
}

/* ---- groups, and what stays shared ---- */

static void case_groups(void)
{
        const int fd = make(O_RDONLY), other = open(path, O_RDONLY | O_CLOEXEC);
        const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 30);
        pid_t pid;

        CHECK(copy >= 30 && other > 2);
        CHECK(reads(fd, 0, 100) && reads(other, 0, 7));
        pid = fork();
        if (pid == 0) {
                const int late = dup(copy); /* made before the touch: in the group */

                CHECK(reads(copy, 100, 20) && reads(fd, 120, 20) && reads(late, 140, 20));
                CHECK(at(other) == 7 && reads(other, 7, 3) && at(fd) == 160);
                CHECK((fcntl(copy, F_GETFD) & FD_CLOEXEC) && !(fcntl(fd, F_GETFD) & FD_CLOEXEC));
                CHECK((fcntl(other, F_GETFD) & FD_CLOEXEC) && !(fcntl(late, F_GETFD) & FD_CLOEXEC));
                _exit(0);
        }
        reap(pid);
        CHECK(at(fd) == 100 && at(copy) == 100 && at(other) == 7);
}

static void case_standard(void)
{
        const int fd = make(O_RDONLY), own = open(path, O_RDONLY);
        pid_t pid;

        CHECK(dup2(fd, 0) == 0 && reads(0, 0, 100));
        pid = fork();
        if (pid == 0) /* 0 and its copy share, with the parent too; another open of it does not */
                _exit(reads(0, 100, 50) && reads(fd, 150, 50) && reads(own, 0, 9) ? 0 : 1);
        reap(pid);
        CHECK(at(0) == 200 && at(fd) == 200 && at(own) == 0);
}

static void case_append(void)
{
        const int fd = make(O_RDWR | O_APPEND);
        pid_t pid;

        CHECK(reads(fd, 0, 100));
        pid = fork();
        if (pid == 0)
                _exit(reads(fd, 100, 50) && write(fd, "x", 1) == 1 ? 0 : 1);
        reap(pid);
        CHECK(at(fd) == SIZE + 1);
}

static void case_flags(void)
{
        int fd, flags;
        pid_t pid;

        unlink(path);
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_TRUNC | O_SYNC, 0600);
        CHECK(fd > 2 && write(fd, "0123456789", 10) == 10);
        flags = fcntl(fd, F_GETFL);
        pid = fork();
        if (pid == 0) {
                struct stat st;
                char byte;

                CHECK(write(fd, "abc", 3) == 3 && at(fd) == 13);
                CHECK(fstat(fd, &st) == 0 && st.st_size == 13);
                CHECK(fcntl(fd, F_GETFL) == flags);
                CHECK(read(fd, &byte, 1) < 0 && errno == EBADF);
                CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
                _exit(0);
        }
        reap(pid);
        CHECK(at(fd) == 10 && fcntl(fd, F_GETFL) == flags);
}

static void case_set_flags_first(void)
{
        const int fd = make(O_RDONLY);
        const pid_t pid = fork();

        if (pid == 0)
                _exit(fcntl(fd, F_SETFL, O_NONBLOCK) == 0 ? 0 : 1);
        reap(pid);
        CHECK(!(fcntl(fd, F_GETFL) & O_NONBLOCK));
}

/* ---- what became of the file since ---- */

static void case_unlinked(void)
{
        const int fd = make(O_RDWR);
        pid_t pid;

        CHECK(reads(fd, 0, 100) && unlink(path) == 0);
        pid = fork();
        if (pid == 0)
                _exit(reads(fd, 100, 50) && write(fd, "y", 1) == 1 ? 0 : 1);
        reap(pid);
        CHECK(at(fd) == 100);
}

static void case_tmpfile(void)
{
        char dir[sizeof path];
        int fd;
        pid_t pid;

        strcpy(dir, path);
        *strrchr(dir, '/') = '\0';
        fd = open(dir, O_TMPFILE | O_RDWR, 0600);
        if (fd < 0)
                _exit(SKIP);
        CHECK(write(fd, "0123456789", 10) == 10 && lseek(fd, 3, SEEK_SET) == 3);
        pid = fork();
        if (pid == 0) {
                char byte;

                _exit(read(fd, &byte, 1) == 1 && byte == '3' && at(fd) == 4 ? 0 : 1);
        }
        reap(pid);
        CHECK(at(fd) == 3);
}

static void case_renamed(void)
{
        const int fd = make(O_RDONLY);
        char other[sizeof path + 8];
        pid_t pid;

        snprintf(other, sizeof other, "%s.new", path);
        CHECK(reads(fd, 0, 10) && rename(path, other) == 0);
        pid = fork();
        if (pid == 0)
                _exit(reads(fd, 10, 50) ? 0 : 1);
        reap(pid);
        CHECK(at(fd) == 10 && unlink(other) == 0);
}

/* The child may not open the file any more, and the daemon does; what may not be written is not. */
static void case_dropped(void)
{
        const int fd = make(O_RDONLY), writable = open(path, O_WRONLY);
        pid_t pid;

        if (getuid() != 0)
                _exit(SKIP);
        CHECK(reads(fd, 0, 100) && writable > 2 && lseek(writable, 40000, SEEK_SET) == 40000);
        pid = fork();
        if (pid == 0) {
                char byte;

                CHECK(setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0);
                CHECK(open(path, O_RDONLY) < 0);
                CHECK(reads(fd, 100, 50) && at(fd) == 150);
                CHECK(write(fd, "n", 1) < 0 && errno == EBADF);
                CHECK(write(writable, "w", 1) == 1 && at(writable) == 40001);
                CHECK(read(writable, &byte, 1) < 0 && errno == EBADF);
                _exit(0);
        }
        reap(pid);
        CHECK(at(fd) == 100 && at(writable) == 40000);
}

static void case_chmod(void)
{
        const int fd = make(O_RDONLY);
        pid_t pid;

        CHECK(reads(fd, 0, 100) && chmod(path, 0) == 0);
        pid = fork();
        if (pid == 0)
                _exit(reads(fd, 100, 50) ? 0 : 1);
        reap(pid);
        CHECK(at(fd) == 100);
}

/* ---- failing ---- */

static void case_no_descriptor_left(void)
{
        const int fd = make(O_RDONLY);
        struct rlimit limit;
        pid_t pid;

        CHECK(reads(fd, 0, 100));
        pid = fork();
        if (pid == 0) {
                char byte;
                struct rlimit none;

                CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
                none = limit;
                none.rlim_cur = 0;
                CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
                errno = 0;
                CHECK(read(fd, &byte, 1) < 0 && errno == EMFILE);
                CHECK(lseek(fd, 0, SEEK_CUR) < 0 && errno == EMFILE);
                CHECK(mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED);
                CHECK(posix_fallocate(fd, 0, 1) == EMFILE);
                CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
                CHECK(reads(fd, 100, 50)); /* nothing was lost */
                _exit(0);
        }
        reap(pid);
        CHECK(at(fd) == 100);
}

/* ---- stdio and directories ---- */

static void write_lines(void)
{
        FILE *f = fopen(path, "w");

        CHECK(f);
        for (int i = 0; i < 3000; i++)
                fprintf(f, "line %d\n", i);
        CHECK(fclose(f) == 0);
}

static bool next_line(FILE *f, int n)
{
        char line[64], expected[64];

        snprintf(expected, sizeof expected, "line %d\n", n);
        return fgets(line, sizeof line, f) && strcmp(line, expected) == 0;
}

/* The buffer holds what was read ahead; exit() gives it back to the offset. */
static void case_stdio(void)
{
        FILE *f;
        long where;

        write_lines();
        f = fopen(path, "r");
        for (int i = 0; i < 10; i++)
                CHECK(next_line(f, i));
        where = ftell(f);
        for (int round = 0; round < 3; round++) {
                const pid_t pid = fork();

                if (pid == 0) {
                        if (round == 1) {
                                CHECK(ftell(f) == where);
                                for (int i = 10; i < 3000; i++)
                                        CHECK(next_line(f, i));
                                CHECK(!next_line(f, 3000) && feof(f));
                        } else if (round == 2) {
                                CHECK(next_line(f, 10) && fseek(f, 0, SEEK_SET) == 0);
                                CHECK(next_line(f, 0) && fseek(f, 20000, SEEK_CUR) == 0);
                        }
                        exit(0);
                }
                reap(pid);
        }
        for (int i = 10; i < 3000; i++)
                CHECK(next_line(f, i));
        CHECK(!next_line(f, 3000) && feof(f));
}

/* The loop that reads its input again: each child exits with the buffer half read. */
static void case_stdio_loop(void)
{
        FILE *f;
        int n = 0;

        write_lines();
        f = fopen(path, "r");
        while (n <= 4000 && next_line(f, n)) {
                if (++n % 100 == 0) {
                        const pid_t pid = fork();

                        if (pid == 0)
                                exit(0);
                        reap(pid);
                }
        }
        CHECK(n == 3000);
}

static void make_entries(char *dir)
{
        char name[sizeof path + 16];

        strcpy(dir, path);
        CHECK(mkdir(dir, 0700) == 0 || errno == EEXIST);
        for (int i = 0; i < 500; i++) {
                snprintf(name, sizeof name, "%s/e%d", dir, i);
                close(open(name, O_CREAT | O_WRONLY, 0600));
        }
}

static int rest_of(DIR *d)
{
        int n = 0;

        errno = 0;
        while (readdir(d))
                n++;
        CHECK(errno == 0);
        return n;
}

static void case_directory(void)
{
        char dir[sizeof path];
        int before;
        DIR *d;

        make_entries(dir);
        d = opendir(dir);
        CHECK(d);
        for (before = 0; before < 100; before++)
                CHECK(readdir(d));
        for (int round = 0; round < 3; round++) {
                const pid_t pid = fork();

                if (pid == 0) {
                        if (round == 1)
                                rewinddir(d);
                        CHECK(round == 2 || rest_of(d) == 502 - (round == 1 ? 0 : before));
                        closedir(d);
                        exit(0);
                }
                reap(pid);
        }
        CHECK(rest_of(d) == 502 - before);
        for (int i = 0; i < 500; i++) {
                char name[sizeof dir + 16];

                snprintf(name, sizeof name, "%s/e%d", dir, i);
                unlink(name);
        }
        rmdir(dir);
}

/* ---- other ways to a new process ---- */

static void case_exec(void)
{
        const int fd = make(O_RDONLY);
        char number[16];
        pid_t pid;

        CHECK(reads(fd, 0, 100));
        snprintf(number, sizeof number, "%d", fd);
        pid = fork();
        if (pid == 0) {
                execl(self, self, "read-here", number, NULL);
                _exit(1);
        }
        reap(pid);
        CHECK(at(fd) == 110); /* as POSIX says */
        CHECK(posix_spawn(&pid, self, NULL, NULL,
                          (char *[]){(char *)self, (char *)"read-here", number, NULL},
                          environ) == 0);
        reap(pid);
        CHECK(at(fd) == 120);
        pid = vfork();
        if (pid == 0) {
                execl(self, self, "read-here", number, NULL);
                _exit(1);
        }
        reap(pid);
        CHECK(at(fd) == 130 && reads(fd, 130, 5));
        /* what is private already stays so over exec */
        pid = fork();
        if (pid == 0) {
                CHECK(reads(fd, 135, 5));
                execl(self, self, "read-here", number, NULL);
                _exit(1);
        }
        reap(pid);
        CHECK(at(fd) == 135);
}

static void case_raw_clone(void)
{
        const int fd = make(O_RDONLY);
        pid_t pid;

        CHECK(reads(fd, 0, 100));
        pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
        if (pid == 0)
                _exit(reads(fd, 100, 10) ? 0 : 1);
        reap(pid);
        CHECK(at(fd) == 110);
        pid = fork(); /* and it has not confused anything */
        if (pid == 0)
                _exit(reads(fd, 110, 10) ? 0 : 1);
        reap(pid);
        CHECK(at(fd) == 110);
}

/* In a program that inherited it over exec: `cases exec-then-fork-2 FD`. */
static void fork_after_exec(int fd)
{
        const int64_t where = at(fd);
        pid_t pid;

        CHECK(where == 100);
        pid = fork();
        if (pid == 0)
                _exit(reads(fd, 100, 10) ? 0 : 1);
        reap(pid);
        CHECK(at(fd) == 100);
}

static void case_exec_then_fork(void)
{
        const int fd = make(O_RDONLY);
        char number[16];

        CHECK(reads(fd, 0, 100));
        snprintf(number, sizeof number, "%d", fd);
        execl(self, self, "exec-then-fork-2", number, NULL);
        _exit(1);
}

static void case_received(void)
{
        const int fd = make(O_RDONLY);
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
        char byte = 'x';
        struct iovec iov = {.iov_base = &byte, .iov_len = 1};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
        struct cmsghdr *cmsg = (struct cmsghdr *)control;
        int pair[2], got;
        pid_t pid;

        CHECK(reads(fd, 0, 100) && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        pid = fork(); /* after a fork, so that what is open has been looked at */
        if (pid == 0)
                _exit(0);
        reap(pid);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(cmsg), &fd, sizeof fd);
        CHECK(sendmsg(pair[0], &msg, 0) == 1 && recvmsg(pair[1], &msg, 0) == 1);
        memcpy(&got, CMSG_DATA(cmsg), sizeof got);
        CHECK(got != fd);
        pid = fork();
        if (pid == 0)
                _exit(reads(got, 100, 10) && at(fd) == 110 ? 0 : 1);
        reap(pid);
        CHECK(at(got) == 100);
}

/* ---- locks, mappings, threads, signals ---- */

static bool try_lock(int fd)
{
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};

        return fcntl(fd, F_SETLK, &lock) == 0;
}

/* A descriptor that is replaced is closed for a moment, which would end the process's locks. */
static void case_locks(void)
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

static void case_mappings(void)
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
static void case_threads(void)
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
static void case_parent_threads(void)
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
static void case_signals(void)
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

static const struct {
        const char *name;
        void (*run)(void);
} cases[] = {
        {"offset", case_offset},
        {"nested", case_nested},
        {"fork-variants", case_fork_variants},
        {"groups", case_groups},
        {"standard", case_standard},
        {"append", case_append},
        {"flags", case_flags},
        {"set-flags-first", case_set_flags_first},
        {"unlinked", case_unlinked},
        {"tmpfile", case_tmpfile},
        {"renamed", case_renamed},
        {"dropped", case_dropped},
        {"chmod", case_chmod},
        {"no-descriptor-left", case_no_descriptor_left},
        {"stdio", case_stdio},
        {"stdio-loop", case_stdio_loop},
        {"directory", case_directory},
        {"exec", case_exec},
        {"raw-clone", case_raw_clone},
        {"exec-then-fork", case_exec_then_fork},
        {"received", case_received},
        {"locks", case_locks},
        {"mappings", case_mappings},
        {"threads", case_threads},
        {"parent-threads", case_parent_threads},
        {"signals", case_signals},
};

int main(int argc, char **argv)
{
        self = "/proc/self/exe";
        if (argc == 3 && strcmp(argv[1], "read-here") == 0)
                return reads(atoi(argv[2]), at(atoi(argv[2])), 10) ? 0 : 1;
        if (argc == 3 && strcmp(argv[1], "exec-then-fork-2") == 0) {
                fork_after_exec(atoi(argv[2]));
                return 0;
        }
        for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                if (argc == 2 && strcmp(argv[1], "list") == 0)
                        puts(cases[i].name);
                if (argc == 3 && strcmp(argv[1], cases[i].name) == 0) {
                        snprintf(path, sizeof path, "%s/case-%s", argv[2], cases[i].name);
                        cases[i].run();
                        return 0;
                }
        }
        return argc == 2 ? 0 : 99;
}

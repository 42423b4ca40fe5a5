/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What private mode promises, one case at a time.
 *
 *   cases CASE DIR      runs it on files of its own in DIR; `cases list` names all
 *
 * Here are the offset, groups of descriptors, what became of the file since, and failing.
 */
#include "cases.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

char path[4096];
const char *const self = "/proc/self/exe";

unsigned char byte_at(int64_t at)
{
        return (unsigned char)(at * 7 + at / 256);
}

int make(int flags)
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

int64_t at(int fd)
{
        return lseek(fd, 0, SEEK_CUR);
}

/* Reads `n` bytes, which must be those from `from` on. */
bool reads(int fd, int64_t from, int n)
{
        unsigned char data[4096];

        if (read(fd, data, (size_t)n) != n)
                return false;
        for (int i = 0; i < n; i++)
                if (data[i] != byte_at(from + i))
                        return false;
        return true;
}

void reap(pid_t pid)
{
        int status;

        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
        CHECK(WIFEXITED(status));
        if (WEXITSTATUS(status))
                _exit(WEXITSTATUS(status));
}

/* A place where a child waits for its parent. */
int gate[2];

void gate_make(void)
{
        CHECK(pipe2(gate, O_CLOEXEC) == 0);
}

void gate_wait(void)
{
        char byte;

        close(gate[1]);
        CHECK(read(gate[0], &byte, 1) == 0);
}

void gate_open(void)
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

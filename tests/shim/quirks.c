/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What programs do that a preloaded library easily breaks.  Each case checks itself, is run with
 * the shim and without it, and must be right both times; with it, what the tables say must be right
 * too.
 *
 *   quirks CASE     exits 0, or prints what was wrong and exits 1
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include <wchar.h>

#include "shim/fd_table.h"

/* NULL without the shim. */
static unsigned (*fd_state)(int fd);
static int (*check)(void);

#define MUST(condition)                                                                            \
        do {                                                                                       \
                if (!(condition))                                                                  \
                        wrong(__LINE__, #condition);                                               \
        } while (0)

static void wrong(int line, const char *condition)
{
        dprintf(2, "quirks.c:%d: not so: %s (%s)\n", line, condition, strerror(errno));
        _exit(1);
}

/* True if the shim says so, or is not there. */
static bool state_is(int fd, unsigned bits)
{
        return !fd_state || fd_state(fd) == bits;
}

static void tables_are_right(void)
{
        MUST(!check || check() == -1);
}

static int open_file(int flags)
{
        int fd = open("/etc/passwd", O_RDONLY | flags);

        MUST(fd >= 0);
        return fd;
}

static char read_one(int fd)
{
        char byte = 0;

        MUST(read(fd, &byte, 1) == 1);
        return byte;
}

static void await_child(pid_t pid)
{
        int status;

        while (waitpid(pid, &status, 0) < 0)
                MUST(errno == EINTR);
        MUST(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static int untouched, touched_by_handler, opened_by_handler = -1;

static void atfork_child(void)
{
        read_one(touched_by_handler);
        opened_by_handler = open_file(O_CLOEXEC);
}

/* A library that reads and opens in its atfork handler: that is done then, and not to be done
 * again. */
static void atfork(void)
{
        pid_t pid;

        untouched = open_file(0);
        touched_by_handler = open_file(0);
        MUST(pthread_atfork(NULL, NULL, atfork_child) == 0);
        pid = fork();
        MUST(pid >= 0);
        if (pid == 0) {
                MUST(opened_by_handler >= 0);
                MUST(state_is(untouched, FD_ACTIVE | FD_READY));
                MUST(state_is(touched_by_handler, FD_ACTIVE));
                MUST(state_is(opened_by_handler, FD_ACTIVE | FD_COE));
                tables_are_right();
                _exit(0);
        }
        await_child(pid);
        MUST(state_is(untouched, FD_ACTIVE) && state_is(touched_by_handler, FD_ACTIVE));
}

/* Children on the parent's memory, with descriptors of their own. */
static void borrowed(void)
{
        const int kept = open_file(O_CLOEXEC), other = open_file(0);
        pid_t pid = vfork();
        int fd;

        MUST(pid >= 0);
        if (pid == 0) {
                close(kept);
                dup2(other, 150);
                fcntl(other, F_SETFD, FD_CLOEXEC);
                closefrom(5);
                fd = open("/etc/passwd", O_RDONLY);
                if (fd >= 0)
                        (void)read_one(fd);
                execl("/bin/true", "true", NULL);
                _exit(127);
        }
        await_child(pid);
        MUST(state_is(kept, FD_ACTIVE | FD_COE));
        MUST(state_is(other, FD_ACTIVE));
        MUST(state_is(150, 0));
        MUST(read_one(kept) == read_one(other));
        tables_are_right();
}

/* fork where the shim cannot see it; and a child of that child. */
static void raw_clone(void)
{
        const int fd = open_file(0);
        pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);

        MUST(pid >= 0);
        if (pid == 0) {
                read_one(fd);
                MUST(state_is(fd, FD_ACTIVE)); /* it was ready, and is touched now */
                pid = fork();
                if (pid == 0) {
                        MUST(state_is(fd, FD_ACTIVE | FD_READY));
                        tables_are_right();
                        _exit(0);
                }
                await_child(pid);
                _exit(0);
        }
        await_child(pid);
        MUST(state_is(fd, FD_ACTIVE));
}

static void close_all(void)
{
        for (int way = 0; way < 4; way++) {
                const struct rlimit many = {.rlim_cur = 4096, .rlim_max = 4096};
                int fds[300], again;
                pid_t pid;

                (void)setrlimit(RLIMIT_NOFILE, &many);
                pid = fork();
                MUST(pid >= 0);
                if (pid > 0) {
                        await_child(pid);
                        continue;
                }
                for (int i = 0; i < 300; i++)
                        fds[i] = open_file(0);
                switch (way) {
                case 0:
                        closefrom(3);
                        break;
                case 1:
                        MUST(close_range(3, ~0u, 0) == 0);
                        break;
                case 2:
                        for (int fd = 3; fd < 4096; fd++)
                                close(fd);
                        break;
                case 3: /* only at exec: still open */
                        MUST(close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) == 0);
                        for (int i = 0; i < 300; i++) {
                                MUST(state_is(fds[i], FD_ACTIVE | FD_COE));
                                MUST(fcntl(fds[i], F_GETFD) == FD_CLOEXEC);
                        }
                        _exit(0);
                }
                for (int i = 0; i < 300; i++) {
                        MUST(fcntl(fds[i], F_GETFD) < 0 && errno == EBADF);
                        MUST(state_is(fds[i], 0));
                }
                again = open_file(0);
                MUST(again == 3 && state_is(3, FD_ACTIVE));
                read_one(again);
                tables_are_right();
                _exit(0);
        }
}

static int handler_fd;
static volatile sig_atomic_t handled;

static void on_alarm(int signal)
{
        const int saved = errno;
        char byte;

        if (pread(handler_fd, &byte, 1, 0) != 1)
                _exit(3);
        handled++;
        errno = saved;
}

/* read() in a signal handler while the program forks: at any place of the shim's own code. */
static void signals(void)
{
        const struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
        const struct itimerval often = {.it_interval.tv_usec = 300, .it_value.tv_usec = 300},
                               never = {0};
        sigset_t alarm_only, before;

        handler_fd = open_file(0);
        MUST(sigaction(SIGALRM, &action, NULL) == 0);
        MUST(setitimer(ITIMER_REAL, &often, NULL) == 0);
        for (int i = 0; i < 300; i++) {
                const pid_t pid = fork();

                if (pid == 0) {
                        raise(SIGALRM); /* the timer is not inherited */
                        MUST(handled > 0);
                        MUST(state_is(handler_fd, FD_ACTIVE));
                        tables_are_right();
                        _exit(0);
                }
                if (pid < 0) {
                        MUST(errno == EINTR || errno == EAGAIN);
                        continue;
                }
                await_child(pid);
                close(open_file(0));
        }
        sigemptyset(&alarm_only);
        sigaddset(&alarm_only, SIGALRM);
        sigprocmask(SIG_BLOCK, &alarm_only, &before);
        setitimer(ITIMER_REAL, &never, NULL);
        MUST(handled > 10);
        tables_are_right();
}

/* Whatever starts a program in one call inside libc. */
static void spawns(void)
{
        static char sh[] = "sh", c[] = "-c", command[] = "read line <&9 && echo \"$line\" >&8";
        char *const args[] = {sh, c, command, NULL};
        posix_spawn_file_actions_t actions;
        int pipe_fds[2], fd = open_file(O_CLOEXEC), status;
        char first[256], again[256];
        ssize_t n;
        pid_t pid;
        FILE *stream;

        MUST(pipe2(pipe_fds, O_CLOEXEC) == 0);
        MUST(posix_spawn_file_actions_init(&actions) == 0);
        MUST(posix_spawn_file_actions_adddup2(&actions, fd, 9) == 0);
        MUST(posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], 8) == 0);
        MUST(posix_spawn(&pid, "/bin/sh", &actions, NULL, args, environ) == 0);
        posix_spawn_file_actions_destroy(&actions);
        await_child(pid);
        n = read(pipe_fds[0], first, sizeof first - 1);
        MUST(n > 1);
        first[n] = '\0';
        stream = popen("head -n 1 /etc/passwd", "r");
        MUST(stream && fgets(again, sizeof again, stream) && strcmp(first, again) == 0);
        MUST(pclose(stream) == 0);
        status = system("exit 41");
        MUST(WIFEXITED(status) && WEXITSTATUS(status) == 41);
        MUST(state_is(fd, FD_ACTIVE | FD_COE) && state_is(8, 0) && state_is(9, 0));
        tables_are_right();
}

/* daemon() forks inside libc and changes 0 to 2. */
static void daemons(void)
{
        const int fd = open_file(0);
        int report[2];
        char byte = 0;
        pid_t pid;

        MUST(pipe(report) == 0);
        pid = fork();
        MUST(pid >= 0);
        if (pid == 0) {
                MUST(daemon(0, 0) == 0);
                read_one(fd);
                if (getsid(0) == getpid() && state_is(fd, FD_ACTIVE) && (!check || check() == -1))
                        (void)!write(report[1], "y", 1);
                _exit(0);
        }
        close(report[1]);
        await_child(pid);
        MUST(read(report[0], &byte, 1) == 1 && byte == 'y');
}

/* What the standard says of errors stays: the shim asks the kernel, and nobody sees that. */
static void errors(void)
{
        char byte;
        int fd;

        errno = 0;
        MUST(read(999, &byte, 1) == -1 && errno == EBADF);
        MUST(close(999) == -1 && errno == EBADF);
        MUST(dup2(999, 5) == -1 && errno == EBADF);
        MUST(open("/nowhere/at/all", O_RDONLY) == -1 && errno == ENOENT);
        MUST(read(-1, &byte, 1) == -1 && errno == EBADF);
        MUST(lseek(0x7fffffff, 0, SEEK_SET) == -1 && errno == EBADF);
        errno = EDOM;
        MUST(close(open_file(0)) == 0 && errno == EDOM);
        fd = memfd_create("no mount", MFD_CLOEXEC); /* it is asked about, and answers ENOTTY */
        MUST(fd >= 0 && read(fd, &byte, 1) == 0 && errno == EDOM);
        tables_are_right();
}

/* A new child, in which all that is inherited is ready: 0 in it, as fork() says. */
static pid_t new_child(void)
{
        const pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);

        MUST(pid >= 0);
        if (pid > 0)
                await_child(pid);
        return pid;
}

static void by_dprintf(FILE *stream)
{
        MUST(dprintf(fileno(stream), "%d", 42) == 2);
}

static void by_fflush(FILE *stream)
{
        MUST(fputc('x', stream) == 'x' && fflush(stream) == 0);
}

static void by_fread(FILE *stream)
{
        char text[10];

        MUST(fread(text, 1, sizeof text, stream) == sizeof text);
}

static void by_getline(FILE *stream)
{
        char *line = NULL;
        size_t room = 0;

        MUST(getline(&line, &room, stream) > 0);
        free(line);
}

static void by_fscanf(FILE *stream)
{
        char word[20];

        MUST(fscanf(stream, "%19s", word) == 1);
}

static void by_fgetwc(FILE *stream)
{
        MUST(fgetwc(stream) != WEOF);
}

static void by_ftell(FILE *stream)
{
        MUST(ftell(stream) == 0);
}

/* What reads, writes and moves inside libc is seen, too. */
static void stdio(void)
{
        static const struct {
                const char *path, *mode;
                void (*use)(FILE *stream);
        } uses[] = {{"/dev/null", "w", by_dprintf},  {"/dev/null", "w", by_fflush},
                    {"/etc/passwd", "r", by_fread},  {"/etc/passwd", "r", by_getline},
                    {"/etc/passwd", "r", by_fscanf}, {"/etc/passwd", "r", by_fgetwc},
                    {"/etc/passwd", "r", by_ftell}};

        for (unsigned i = 0; i < sizeof uses / sizeof uses[0]; i++) {
                FILE *stream = fopen(uses[i].path, uses[i].mode);
                int fd;

                MUST(stream);
                fd = fileno(stream);
                MUST(state_is(fd, FD_ACTIVE));
                if (new_child() == 0) {
                        close(open_file(0)); /* the first call marks the tables */
                        MUST(state_is(fd, FD_ACTIVE | FD_READY));
                        uses[i].use(stream);
                        MUST(state_is(fd, FD_ACTIVE));
                        MUST(fclose(stream) == 0 && state_is(fd, 0));
                        _exit(0);
                }
                MUST(fclose(stream) == 0);
                MUST(state_is(fd, 0));
        }
}

static const struct {
        const char *name;
        void (*run)(void);
} cases[] = {{"atfork", atfork},       {"borrowed", borrowed}, {"raw-clone", raw_clone},
             {"close-all", close_all}, {"signals", signals},   {"spawns", spawns},
             {"daemons", daemons},     {"errors", errors},     {"stdio", stdio}};

int main(int argc, char **argv)
{
        *(void **)&fd_state = dlsym(RTLD_DEFAULT, "k42_shim_fd_state");
        *(void **)&check = dlsym(RTLD_DEFAULT, "k42_shim_check");
        if ((getenv("LD_PRELOAD") != NULL) != (fd_state && check)) {
                fprintf(stderr, "quirks: the shim is not what LD_PRELOAD says\n");
                return 99;
        }
        for (unsigned i = 0; argc == 2 && i < sizeof cases / sizeof cases[0]; i++) {
                if (strcmp(cases[i].name, argv[1]) == 0) {
                        cases[i].run();
                        return 0;
                }
        }
        fprintf(stderr, "quirks: needs the name of a case\n");
        return 99;
}

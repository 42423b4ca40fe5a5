/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * touch CONTROL-DIR NAME: a process that does with descriptors what it is told, one thing at a
 * time, so that a script can look at the daemon's counts in between.
 *
 * It reads lines from the FIFO CONTROL-DIR/NAME.in and answers each with one line, "ok …" or "no
 * …", on CONTROL-DIR/NAME.out.  `fork OTHER` makes a process that listens at OTHER.in.  Descriptors
 * are named by their index in a table that children and new images have a copy of.
 *
 *   open DIR COUNT [rw]   opens DIR/f00000 …      path FILE [rw|dir]   opens one      -> ok
 * FIRST-INDEX touch FROM COUNT [TIMES]    reads a byte, TIMES times (default 2); directories: an
 * entry read I BYTES -> ok TEXT     write I TEXT     seek I OFFSET     offset I dup I    dup2 I J
 * close FROM COUNT    number I send I   recv               over a socket pair that all processes
 * share stream I                    a FILE on it     getc I COUNT dir I                       a DIR
 * on it      next I COUNT -> ok NAME…   offdir I token I [PARENT]            LAZY_REOPEN -> ok
 * TOKEN PARENT SHARING, or: no ERRNO threads I COUNT             COUNT threads read a byte at the
 * same time fork NAME   exec   exec-cleared   forks COUNT   reap   pid   exit
 *
 * One thread, but for `threads`.  It never touches the mount on its own account: what is counted
 * was asked for.
 */
#include "lazy/protocol.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_DESCRIPTORS 16384
#define MAX_WORDS       5

static int fds[MAX_DESCRIPTORS], fds_count;
static FILE *streams[MAX_DESCRIPTORS];
static DIR *dirs[MAX_DESCRIPTORS];
static int sock[2], in = -1, out = -1;
static char self[PATH_MAX];
static const char *control;
static char name[NAME_MAX];

static void answer(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void answer(const char *format, ...)
{
        char line[PIPE_BUF];
        va_list args;
        int n;

        va_start(args, format);
        n = vsnprintf(line, sizeof(line) - 1, format, args);
        va_end(args);
        n = n < (int)sizeof(line) - 2 ? n : (int)sizeof(line) - 2;
        line[n++] = '\n';
        if (write(out, line, n) != n)
                _exit(99);
}

static void answer_errno(int err)
{
        answer("no %s", strerrorname_np(err));
}

/* Both ends of both FIFOs, so that neither side ever waits for the other to open. */
static int open_fifo(const char *who, const char *direction, bool make)
{
        char path[PATH_MAX];
        int fd;

        snprintf(path, sizeof(path), "%s/%s.%s", control, who, direction);
        if (make && mkfifo(path, 0600) < 0 && errno != EEXIST)
                return -1;
        fd = open(path, O_RDWR | O_CLOEXEC);
        return fd;
}

static int descriptor(const char *word)
{
        int i = word ? atoi(word) : -1;

        return i >= 0 && i < fds_count ? fds[i] : -1;
}

static int keep(int fd)
{
        if (fds_count >= MAX_DESCRIPTORS) {
                close(fd);
                return -1;
        }
        fds[fds_count] = fd;
        return fds_count++;
}

static int flags_of(const char *word)
{
        if (word && !strcmp(word, "rw"))
                return O_RDWR;
        if (word && !strcmp(word, "append"))
                return O_WRONLY | O_APPEND;
        return word && !strcmp(word, "dir") ? O_RDONLY | O_DIRECTORY : O_RDONLY;
}

static void do_open(char **word)
{
        int first = fds_count, count = word[2] ? atoi(word[2]) : 1;
        char path[PATH_MAX];

        for (int i = 0; i < count; i++) {
                int fd;
                snprintf(path, sizeof(path), "%s/f%05d", word[1], i);
                fd = open(path, flags_of(word[3]));
                if (fd < 0 || keep(fd) < 0) {
                        answer_errno(errno);
                        return;
                }
        }
        answer("ok %d", first);
}

static void do_path(char **word)
{
        int fd = open(word[1], flags_of(word[2]));

        if (fd < 0)
                answer_errno(errno);
        else
                answer("ok %d", keep(fd));
}

static int touch_once(int fd)
{
        char byte[512];

        if (read(fd, byte, 1) >= 0)
                return 0;
        if (errno == EISDIR)
                return getdents64(fd, byte, sizeof(byte)) < 0 ? -errno : 0;
        return -errno;
}

static void do_touch(char **word)
{
        int from = atoi(word[1]), count = word[2] ? atoi(word[2]) : 1;
        int times = word[2] && word[3] ? atoi(word[3]) : 2;

        for (int i = from; i < from + count; i++)
                for (int k = 0; k < times; k++) {
                        int r = i < fds_count ? touch_once(fds[i]) : -EINVAL;
                        if (r < 0) {
                                answer_errno(-r);
                                return;
                        }
                }
        answer("ok");
}

static void do_read(char **word)
{
        char text[2048];
        int bytes = word[2] ? atoi(word[2]) : 1;
        ssize_t n = read(descriptor(word[1]), text, bytes < 2048 ? bytes : 2048);

        if (n < 0)
                answer_errno(errno);
        else
                answer("ok %.*s", (int)n, text);
}

static void do_write(char **word)
{
        if (write(descriptor(word[1]), word[2], strlen(word[2])) < 0)
                answer_errno(errno);
        else
                answer("ok");
}

static void do_seek(char **word)
{
        off_t at = word[2] ? lseek(descriptor(word[1]), atoll(word[2]), SEEK_SET)
                           : lseek(descriptor(word[1]), 0, SEEK_CUR);

        if (at < 0)
                answer_errno(errno);
        else
                answer("ok %lld", (long long)at);
}

static void do_dup(char **word)
{
        int fd =
                word[2] ? dup2(descriptor(word[1]), descriptor(word[2])) : dup(descriptor(word[1]));

        if (fd < 0)
                answer_errno(errno);
        else
                answer("ok %d", word[2] ? atoi(word[2]) : keep(fd));
}

static void do_close(char **word)
{
        int from = atoi(word[1]), count = word[2] ? atoi(word[2]) : 1;

        for (int i = from; i < from + count && i < fds_count; i++) {
                int r = streams[i] ? fclose(streams[i])
                        : dirs[i]  ? closedir(dirs[i])
                                   : close(fds[i]);
                streams[i] = NULL;
                dirs[i] = NULL;
                fds[i] = -1;
                if (r < 0) {
                        answer_errno(errno);
                        return;
                }
        }
        answer("ok");
}

union fd_space {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
};

static void do_send(char **word)
{
        char byte = 'd';
        union fd_space space = {.space = {0}};
        struct iovec iov = {&byte, 1};
        struct msghdr message = {.msg_iov = &iov,
                                 .msg_iovlen = 1,
                                 .msg_control = space.space,
                                 .msg_controllen = sizeof(space.space)};
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        int fd = descriptor(word[1]);

        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof(int));
        if (sendmsg(sock[0], &message, MSG_DONTWAIT) < 0)
                answer_errno(errno);
        else
                answer("ok");
}

static void do_recv(char **word)
{
        char byte;
        union fd_space space;
        struct iovec iov = {&byte, 1};
        struct msghdr message = {.msg_iov = &iov,
                                 .msg_iovlen = 1,
                                 .msg_control = space.space,
                                 .msg_controllen = sizeof(space.space)};
        struct cmsghdr *header;
        int fd;

        if (recvmsg(sock[1], &message, MSG_DONTWAIT) < 0) {
                answer_errno(errno);
                return;
        }
        header = CMSG_FIRSTHDR(&message);
        if (!header) {
                answer("no descriptor");
                return;
        }
        memcpy(&fd, CMSG_DATA(header), sizeof(int));
        answer("ok %d", keep(fd));
}

static void do_stream(char **word)
{
        int i = atoi(word[1]);

        streams[i] = fdopen(descriptor(word[1]), "r");
        if (streams[i])
                answer("ok");
        else
                answer_errno(errno);
}

static void do_getc(char **word)
{
        char text[2048];
        int i = atoi(word[1]);
        size_t n = fread(text, 1, word[2] ? (size_t)atoi(word[2]) % sizeof(text) : 1, streams[i]);

        answer("ok %.*s", (int)n, text);
}

static void do_dir(char **word)
{
        int i = atoi(word[1]);

        dirs[i] = fdopendir(descriptor(word[1]));
        if (dirs[i])
                answer("ok");
        else
                answer_errno(errno);
}

static void do_next(char **word)
{
        char text[PIPE_BUF - 100] = "";
        size_t len = 0;
        struct dirent *entry;

        for (int n = word[2] ? atoi(word[2]) : 1;
             n > 0 && len + NAME_MAX + 2 < sizeof(text) && (entry = readdir(dirs[atoi(word[1])]));
             n--)
                len += snprintf(text + len, sizeof(text) - len, " %s", entry->d_name);
        answer("ok%s", text);
}

static void do_token(char **word)
{
        struct k42_lazy_reopen message = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof(message)},
        };
        unsigned parent_index, parent_generation;
        static const char *const sharing[] = {"lazy_init", "non_shared", "shared"};

        if (word[2] && sscanf(word[2], "%u.%u", &parent_index, &parent_generation) == 2)
                message.parent = (uint64_t)parent_generation << 32 | parent_index;
        if (ioctl(descriptor(word[1]), K42_IOC_LAZY_REOPEN, &message) < 0) {
                answer_errno(errno);
                return;
        }
        answer("ok %u.%u %u.%u %s", (uint32_t)message.token, (uint32_t)(message.token >> 32),
               (uint32_t)message.parent, (uint32_t)(message.parent >> 32),
               message.sharing < 3 ? sharing[message.sharing] : "?");
}

static void *touch_in_thread(void *data)
{
        return (void *)(intptr_t)touch_once(*(int *)data);
}

static void do_threads(char **word)
{
        pthread_t threads[64];
        int fd = descriptor(word[1]), count = word[2] ? atoi(word[2]) % 65 : 1, bad = 0;

        for (int i = 0; i < count; i++)
                if (pthread_create(&threads[i], NULL, touch_in_thread, &fd))
                        count = i;
        for (int i = 0; i < count; i++) {
                void *result;
                pthread_join(threads[i], &result);
                bad += result != NULL;
        }
        answer(bad ? "no %d of %d" : "ok", bad, count);
}

static void do_fork(char **word)
{
        int child_in = open_fifo(word[1], "in", true), child_out = open_fifo(word[1], "out", true);
        pid_t pid = child_in < 0 || child_out < 0 ? -1 : fork();

        if (pid == 0) {
                close(in);
                close(out);
                in = child_in;
                out = child_out;
                snprintf(name, sizeof(name), "%s", word[1]);
                return;
        }
        close(child_in);
        close(child_out);
        if (pid < 0)
                answer_errno(errno);
        else
                answer("ok %d", (int)pid);
}

static void do_forks(char **word)
{
        int bad = 0;

        for (int n = atoi(word[1]); n > 0; n--) {
                int status = 1;
                pid_t pid = fork();
                if (pid == 0)
                        _exit(0);
                if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
                        bad++;
        }
        answer(bad ? "no %d" : "ok", bad);
}

/* The new image finds its descriptors by their numbers on its command line. */
static void do_exec(bool clear)
{
        char **argv = calloc(fds_count + 6, sizeof(char *));
        static char *const nothing[] = {NULL};
        int n = 0;

        argv[n++] = self;
        argv[n++] = (char *)control;
        argv[n++] = name;
        for (int i = -2; i < fds_count; i++)
                if (asprintf(&argv[n++], "%d", i < 0 ? sock[i + 2] : fds[i]) < 0)
                        abort();
        execve(self, argv, clear ? nothing : environ);
        answer_errno(errno);
        free(argv);
}

static bool in_table(char **word)
{
        static const struct {
                const char *name;
                void (*run)(char **word);
        } verbs[] = {
                {"open", do_open},   {"path", do_path},       {"touch", do_touch},
                {"read", do_read},   {"write", do_write},     {"seek", do_seek},
                {"offset", do_seek}, {"dup", do_dup},         {"dup2", do_dup},
                {"close", do_close}, {"send", do_send},       {"stream", do_stream},
                {"getc", do_getc},   {"dir", do_dir},         {"next", do_next},
                {"token", do_token}, {"threads", do_threads}, {"fork", do_fork},
                {"forks", do_forks},
        };

        if (!strcmp(word[0], "recv")) {
                do_recv(word);
                return true;
        }
        for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
                if (!strcmp(verbs[i].name, word[0]) && word[1]) {
                        verbs[i].run(word);
                        return true;
                }
        return false;
}

static void obey(char **word)
{
        int status = -1;

        if (in_table(word))
                return;
        if (!strcmp(word[0], "exec") || !strcmp(word[0], "exec-cleared")) {
                do_exec(word[0][4]);
        } else if (!strcmp(word[0], "reap")) {
                pid_t pid = wait(&status);
                answer(pid > 0 && status == 0 ? "ok %d" : "no %d %d", (int)pid, status);
        } else if (!strcmp(word[0], "number")) {
                answer("ok %d", descriptor(word[1]));
        } else if (!strcmp(word[0], "pid")) {
                answer("ok %d", (int)getpid());
        } else if (!strcmp(word[0], "exit")) {
                answer("ok");
                _exit(0);
        } else {
                answer("no such command: %s", word[0]);
        }
}

/* A byte at a time: what follows the line may be for the image that this process becomes. */
static bool read_line(char *line, size_t size)
{
        size_t n = 0;
        ssize_t r;

        while ((r = read(in, line + n, 1)) != 0) {
                if (r < 0 && errno == EINTR)
                        continue;
                if (r < 0)
                        return false;
                if (line[n] == '\n') {
                        line[n] = 0;
                        return true;
                }
                if (n + 1 < size)
                        n++;
        }
        return false;
}

int main(int argc, char **argv)
{
        char line[PATH_MAX + 100];
        ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
        bool again = argc >= 5;

        if (argc < 3 || n < 0) {
                fprintf(stderr, "usage: touch CONTROL-DIR NAME\n");
                return 2;
        }
        control = argv[1];
        snprintf(name, sizeof(name), "%s", argv[2]);
        in = open_fifo(name, "in", !again);
        out = open_fifo(name, "out", !again);
        if (in < 0 || out < 0)
                return 1;
        if (again) {
                sock[0] = atoi(argv[3]);
                sock[1] = atoi(argv[4]);
                for (int i = 5; i < argc; i++)
                        keep(atoi(argv[i]));
        } else if (socketpair(AF_UNIX, SOCK_DGRAM, 0, sock) < 0) {
                return 1;
        }
        answer("ok %d", (int)getpid());
        while (read_line(line, sizeof(line))) {
                char *word[MAX_WORDS + 1] = {NULL}, *rest;
                int i = 0;
                for (char *w = strtok_r(line, " ", &rest); w && i < MAX_WORDS;
                     w = strtok_r(NULL, " ", &rest))
                        word[i++] = w;
                if (i)
                        obey(word);
        }
        return 1;
}

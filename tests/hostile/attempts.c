/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * attempts FILE STATUS K42CTL VERB [ARGUMENT…]
 *
 * Makes FILE, lets everybody get hold of it (attempts.h), runs K42CTL VERB ARGUMENT…, in which "PID" is
 * replaced by the VICTIM's id and which must end with STATUS; then makes every attempt, and prints a line
 * for each: its name, and `ok`, `nothing`, what errno says or the signal.  The last line is `marked` or
 * `not marked`: whether one of the writes got into the file, as somebody sees it who opens it now.
 */
#include "attempts.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct held held = {.fd = -1};

static int sockets[WHO][2]; /* [0] is MASTER's, or the VICTIM's for its CHILD */
static pid_t pids[WHO];
static int way[2];          /* where the descriptor for LATE is meanwhile */
static sigjmp_buf out;

static _Noreturn void fail(const char *what)
{
        fprintf(stderr, "attempts: %s: %s\n", what, strerror(errno));
        exit(1);
}

long raw(long r)
{
        return r < 0 ? -errno : 0;
}

long got(long r, char byte)
{
        if (r < 0)
                return -errno;
        return r > 0 && (byte == CONTENTS || byte == MARK) ? 0 : GOT_NOTHING;
}

long read_from(int fd)
{
        char c = 0;
        long r;

        if (fd < 0)
                return -errno;
        r = pread(fd, &c, 1, 300);
        r = got(r, c);
        close(fd);
        return r;
}

static void on_signal(int number)
{
        siglongjmp(out, number);
}

static void print(const char *name, long r)
{
        if (r > SIGNAL)
                printf("%s: %s\n", name, sigabbrev_np((int)r - SIGNAL));
        else if (r == SKIPPED)
                printf("%s: skipped\n", name);
        else
                printf("%s: %s\n", name, r == 0 ? "ok" : r > 0 ? "nothing" : strerrorname_np((int)-r));
        fflush(stdout);
}

static long attempt(long (*fn)(void))
{
        const int number = sigsetjmp(out, 1);

        return number ? SIGNAL + number : fn();
}

static void make_attempts(const struct attempt *attempts, enum who who)
{
        for (const struct attempt *a = attempts; a->name; a++)
                if (a->who == who)
                        print(a->name, attempt(a->fn));
}

static void make_all(enum who who)
{
        signal(SIGBUS, on_signal);
        signal(SIGSEGV, on_signal);
        make_attempts(data_attempts, who);
        make_attempts(open_attempts, who);
        make_attempts(look_attempts, who);
        make_attempts(message_attempts, who);
}

/* ---- descriptors over sockets ---- */

static void send_fd(int to, int fd)
{
        char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
        struct iovec iov = {&byte, 1};
        struct msghdr message = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);

        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
        if (sendmsg(to, &message, 0) < 0)
                fail("sendmsg");
}

static int receive_fd(int from)
{
        char control[CMSG_SPACE(sizeof(int))], byte;
        struct iovec iov = {&byte, 1};
        struct msghdr message = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        int fd;

        if (recvmsg(from, &message, 0) <= 0 || !CMSG_FIRSTHDR(&message))
                fail("recvmsg");
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
        return fd;
}

static void say(int socket)
{
        if (write(socket, "", 1) != 1)
                fail("write");
}

static void hear(int socket)
{
        char byte;

        if (read(socket, &byte, 1) != 1)
                exit(1); /* whoever ended has said why */
}

/* ---- the processes ---- */

static void use(int fd)
{
        char c;

        if (pread(fd, &c, 1, 300) != 1 || pwrite(fd, &c, 1, 300) != 1)
                fail("use");
}

/* Waits until it is its turn, tries, and stays until the end. */
static _Noreturn void take_turn(enum who who)
{
        say(sockets[who][1]);
        hear(sockets[who][1]);
        if (who == LATE)
                held.fd = receive_fd(way[1]);
        make_all(who);
        say(sockets[who][1]);
        for (;;)
                pause();
}

static void start(enum who who, void (*run)(void))
{
        if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets[who]) < 0)
                fail("socketpair");
        pids[who] = fork();
        if (pids[who] == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                run();
                take_turn(who);
        }
}

static void user(void)
{
        held.fd = receive_fd(sockets[USER][1]);
        use(held.fd);
}

static void late(void) {}

static void child(void)
{
        munmap((void *)held.map, SIZE);
        munmap((void *)held.read_only_map, SIZE);
        munmap((void *)held.private_map, SIZE);
        use(held.fd);
}

static volatile char *map(int prot, int flags)
{
        char *at = mmap(NULL, SIZE, prot, flags, held.fd, 0);

        if (at == MAP_FAILED)
                fail("mmap");
        return at;
}

static void make_file(void)
{
        static char contents[SIZE];
        char dir[512];

        memset(contents, CONTENTS, SIZE);
        snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(held.file, '/') - held.file), held.file);
        held.fd = open(held.file, O_RDWR | O_CREAT | O_EXCL, 0666);
        held.other = open(dir, O_TMPFILE | O_RDWR, 0600);
        held.dir_fd = open(dir, O_RDONLY | O_DIRECTORY);
        held.path_fd = open(held.file, O_PATH);
        if (held.fd < 0 || held.other < 0 || held.dir_fd < 0 || held.path_fd < 0 ||
            pwrite(held.fd, contents, SIZE, 0) != SIZE)
                fail(held.file);
        memset(contents, MARK, SIZE);
        if (pwrite(held.other, contents, SIZE, 0) != SIZE)
                fail("O_TMPFILE");
}

/* The parts of `held` that others need go to them through shared memory. */
static struct held *shared;

static void victim(void)
{
        make_file();
        held.copy = dup(held.fd);
        if (held.copy < 0 || pipe2(held.pipe, O_NONBLOCK) < 0 || pipe2(held.full_pipe, O_NONBLOCK) < 0 ||
            splice(held.fd, &(loff_t){4096}, held.full_pipe[1], NULL, 1, 0) != 1)
                fail("pipe");
        held.map = map(PROT_READ | PROT_WRITE, MAP_SHARED);
        held.read_only_map = map(PROT_READ, MAP_SHARED);
        held.private_map = map(PROT_READ | PROT_WRITE, MAP_PRIVATE);
        for (long at = 0; at < SIZE; at += 4096) /* all pages are there */
                if (held.map[at] != CONTENTS || held.read_only_map[at] != CONTENTS)
                        fail("contents");
        held.private_map[0] = CONTENTS;
        prepare_names();
        prepare_ring();
        send_fd(sockets[USER][0], held.fd);
        send_fd(way[0], held.fd);
        start(CHILD, child);
        hear(sockets[CHILD][0]);
        held.victim = getpid();
        *shared = held;
}

static void run_ctl(char **argv, int expected)
{
        char text[16];
        int status;
        const pid_t runner = fork();

        snprintf(text, sizeof text, "%d", (int)held.victim);
        for (char **arg = argv; *arg; arg++)
                if (strcmp(*arg, "PID") == 0)
                        *arg = text;
        if (runner == 0) {
                execv(argv[0], argv);
                _exit(127);
        }
        if (waitpid(runner, &status, 0) != runner || !WIFEXITED(status) || WEXITSTATUS(status) != expected) {
                fprintf(stderr, "attempts: %s %s: status %d\n", argv[0], argv[1], WEXITSTATUS(status));
                exit(1);
        }
}

static void turn(enum who who)
{
        say(sockets[who][0]);
        hear(sockets[who][0]);
}

/* The VICTIM's child is asked by the VICTIM. */
static void victims_turn(void)
{
        say(sockets[VICTIM][1]);
        hear(sockets[VICTIM][1]);
        make_all(VICTIM);
        turn(CHILD);
        say(sockets[VICTIM][1]);
        for (;;)
                pause();
}

static void be_victim(void)
{
        victim();
        victims_turn();
}

static const char *marked(void)
{
        static char contents[2 * SIZE];
        const int fd = open(held.file, O_RDONLY);
        const ssize_t n = read(fd, contents, sizeof contents);

        return n < 0 ? strerrorname_np(errno) : memchr(contents, MARK, (size_t)n) ? "marked" : "not marked";
}

int main(int argc, char **argv)
{
        if (argc < 5)
                return 2;
        signal(SIGPIPE, SIG_IGN);
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        held.file = argv[1];
        shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (shared == MAP_FAILED || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, way) < 0)
                fail("socketpair");
        start(USER, user);
        start(LATE, late);
        hear(sockets[LATE][0]);
        start(VICTIM, be_victim);
        hear(sockets[USER][0]);
        hear(sockets[VICTIM][0]);
        held = *shared;
        run_ctl(argv + 3, atoi(argv[2]));
        turn(VICTIM);
        turn(LATE);
        turn(USER);
        make_all(MASTER);
        printf("%s\n", marked());
        /* Nobody is left when we end: the VICTIM's CHILD ends with it, and comes to us. */
        for (enum who who = VICTIM; who <= LATE; who++)
                if (pids[who] > 0)
                        kill(pids[who], SIGKILL);
        while (wait(NULL) > 0)
                ;
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hostile: what a program that wants to get round it can do when something was taken from it.
 *
 *   hostile FILE K42CTL VERB [ARGUMENT…]
 *
 * A process opens FILE for reading and writing and maps it; a child inherits both, uses both, and then
 *   K42CTL VERB ARGUMENT…       with "PID" replaced by the child's id
 * is run.  The child then tries everything, one way after the other, without the shim and by raw system
 * calls, and prints a line for each: `ok`, what errno says, or the signal.  A last line is about the
 * parent, from which nothing was taken (unless FILE itself was revoked).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE 65536

static const char *file;
static int fd, other, pipe_fds[2], stranger;
static volatile char *inherited;

static long raw(long r)
{
        return r < 0 ? -errno : 0;
}

static long try_read(void) { char c; return raw(syscall(SYS_read, fd, &c, 1)); }
static long try_pread(void) { char c; return raw(syscall(SYS_pread64, fd, &c, 1, 0)); }
static long try_write(void) { return raw(syscall(SYS_write, fd, "x", 1)); }
static long try_pwrite(void) { return raw(syscall(SYS_pwrite64, fd, "x", 1, 0)); }
static long try_ftruncate(void) { return raw(syscall(SYS_ftruncate, fd, SIZE)); }
static long try_fallocate(void) { return raw(syscall(SYS_fallocate, fd, 0, 0, 10)); }
static long try_sendfile(void) { off_t at = 0; return raw(sendfile(pipe_fds[1], fd, &at, 10)); }

static long try_splice_in(void)
{
        loff_t at = 0;

        if (write(pipe_fds[1], "y", 1) != 1)
                return -EPIPE;
        return raw(splice(pipe_fds[0], NULL, fd, &at, 1, 0));
}

static long try_splice_out(void)
{
        loff_t at = 0;

        return raw(splice(fd, &at, pipe_fds[1], NULL, 1, 0));
}

static long try_copy_from(void)
{
        loff_t at = 0, to = 0;

        return raw(syscall(SYS_copy_file_range, fd, &at, other, &to, 10, 0));
}

static long try_copy_to(void)
{
        loff_t at = 0, to = 0;

        return raw(syscall(SYS_copy_file_range, other, &at, fd, &to, 10, 0));
}

static long try_aio(int opcode)
{
        static char byte = 'x';
        struct iocb cb = {.aio_lio_opcode = (unsigned short)opcode,
                          .aio_fildes = (unsigned)fd,
                          .aio_buf = (unsigned long)&byte,
                          .aio_nbytes = 1};
        struct iocb *cbs[] = {&cb};
        struct io_event event;
        aio_context_t context = 0;

        if (syscall(SYS_io_setup, 1, &context) < 0)
                return -errno;
        if (syscall(SYS_io_submit, context, 1, cbs) != 1)
                return -errno;
        if (syscall(SYS_io_getevents, context, 1, 1, &event, NULL) != 1)
                return -errno;
        syscall(SYS_io_destroy, context);
        return event.res < 0 ? (long)event.res : 0;
}

static long try_aio_read(void) { return try_aio(IOCB_CMD_PREAD); }
static long try_aio_write(void) { return try_aio(IOCB_CMD_PWRITE); }

/* Where no other try has been: the kernel may have pages of what was tried. */
static long try_old_load(void) { return (void)inherited[20000], 0; }
static long try_old_store(void) { return inherited[30000] = 'm', 0; }

static long try_map(int prot, int flags, int store)
{
        volatile char *map = mmap(NULL, SIZE, prot, flags, fd, 0);

        if (map == MAP_FAILED)
                return -errno;
        if (store)
                map[40000] = 'm';
        else
                (void)map[50000];
        return 0;
}

static long try_new_load(void) { return try_map(PROT_READ, MAP_SHARED, 0); }
static long try_new_store(void) { return try_map(PROT_READ | PROT_WRITE, MAP_SHARED, 1); }
static long try_private(void) { return try_map(PROT_READ, MAP_PRIVATE, 0); }

static long try_dup(void)
{
        int copy = (int)syscall(SYS_dup, fd);

        return raw(syscall(SYS_pwrite64, copy, "x", 1, 0));
}

static long in_child(long (*fn)(void))
{
        int status;
        pid_t pid = fork();

        if (pid == 0)
                _exit((int)-fn());
        waitpid(pid, &status, 0);
        return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : -WEXITSTATUS(status);
}

static long try_child(void) { return in_child(try_pwrite); }
static long try_child_read(void) { return in_child(try_pread); }

/* A grandchild whose parent is gone before it does anything. */
static long orphan(void)
{
        int answers[2], answer = EIO;

        if (pipe(answers) < 0)
                return -errno;
        if (fork() == 0) {
                const pid_t me = getpid();

                if (fork() > 0)
                        _exit(0);
                while (getppid() == me)
                        usleep(1000);
                answer = (int)-try_pwrite();
                _exit(write(answers[1], &answer, sizeof answer) < 0);
        }
        wait(NULL);
        close(answers[1]);
        return read(answers[0], &answer, sizeof answer) < 0 ? -errno : -answer;
}

static long try_exec(void)
{
        char command[] = "exec 2>/dev/null; printf x >&9"; /* no shell takes more than a digit */
        int status;
        pid_t pid = fork();

        if (pid == 0) {
                char *argv[] = {(char *)"sh", (char *)"-c", command, NULL}, *env[] = {NULL};

                if (fd != 9)
                        dup2(fd, 9);
                execve("/bin/sh", argv, env);
        }
        waitpid(pid, &status, 0);
        return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBADF;
}

/* Somebody who has nothing to do with us gets the descriptor and writes. */
static long try_pass(void)
{
        char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
        struct iovec iov = {&byte, 1};
        struct msghdr message = {.msg_iov = &iov,
                                 .msg_iovlen = 1,
                                 .msg_control = control,
                                 .msg_controllen = sizeof control};
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        int answer;

        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
        if (sendmsg(stranger, &message, 0) < 0 || read(stranger, &answer, sizeof answer) < 0)
                return -errno;
        return -answer;
}

static long try_proc(void)
{
        char path[64];

        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        return raw(open(path, O_RDWR));
}

static long try_open(void) { return raw(open(file, O_RDWR)); }
static long try_truncate(void) { return raw(truncate(file, SIZE)); }
static long try_seek_data(void) { return raw(lseek(fd, 0, SEEK_DATA)); }
static long try_fstat(void) { char buf[256]; return raw(syscall(SYS_fstat, fd, buf)); }

static const struct {
        const char *name;
        long (*fn)(void);
} tries[] = {
        {"read", try_read},
        {"pread", try_pread},
        {"write", try_write},
        {"pwrite", try_pwrite},
        {"ftruncate", try_ftruncate},
        {"fallocate", try_fallocate},
        {"sendfile", try_sendfile},
        {"splice from it", try_splice_out},
        {"splice to it", try_splice_in},
        {"copy_file_range from it", try_copy_from},
        {"copy_file_range to it", try_copy_to},
        {"io_submit pread", try_aio_read},
        {"io_submit pwrite", try_aio_write},
        {"inherited mapping, load", try_old_load},
        {"inherited mapping, store", try_old_store},
        {"new mapping, load", try_new_load},
        {"new mapping, store", try_new_store},
        {"private mapping, load", try_private},
        {"write to a copy", try_dup},
        {"child, read", try_child_read},
        {"child, write", try_child},
        {"orphan, write", orphan},
        {"exec, no environment", try_exec},
        {"stranger, write", try_pass},
        {"seek data", try_seek_data},
        {"fstat", try_fstat},
        {"open /proc/self/fd", try_proc},
        {"open by name", try_open},
        {"truncate by name", try_truncate},
};

/* A daemon of ours: its parent is gone, and it was there before the file was opened. */
static void start_stranger(void)
{
        int sockets[2];

        if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets) < 0)
                exit(1);
        if (fork() == 0) {
                char control[CMSG_SPACE(sizeof(int))], byte;
                struct iovec iov = {&byte, 1};
                struct msghdr message = {.msg_iov = &iov,
                                         .msg_iovlen = 1,
                                         .msg_control = control,
                                         .msg_controllen = sizeof control};
                int answer = EIO;

                close(sockets[0]);
                if (fork() > 0)
                        _exit(0);
                if (recvmsg(sockets[1], &message, 0) <= 0 || !CMSG_FIRSTHDR(&message))
                        _exit(0);
                memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
                answer = (int)-try_pwrite();
                _exit(write(sockets[1], &answer, sizeof answer) < 0);
        }
        wait(NULL);
        close(sockets[1]);
        stranger = sockets[0];
}

static void print(const char *name, long r)
{
        if (r > 1000)
                printf("%s: %s\n", name, sigabbrev_np((int)r - 1000));
        else
                printf("%s: %s\n", name, r == 0 ? "ok" : strerrorname_np((int)-r));
        fflush(stdout);
}

static int child(int go)
{
        char byte;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        try_pread();
        try_pwrite();
        (void)inherited[20000];
        inherited[30000] = 'a';
        if (read(go, &byte, 1) != 1)
                return 1;
        /* Each in a process of its own, which a signal may end; but by our handle: a thread of ours
         * would be as good, and could not be ended alone. */
        for (unsigned i = 0; i < sizeof tries / sizeof tries[0]; i++) {
                int status;
                pid_t pid = (pid_t)syscall(SYS_fork);

                if (pid == 0)
                        _exit((int)-tries[i].fn());
                waitpid(pid, &status, 0);
                print(tries[i].name,
                      WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : -WEXITSTATUS(status));
        }
        print("itself, read", try_pread());
        print("itself, write", try_pwrite());
        return 0;
}

static int run_ctl(char **argv, pid_t pid)
{
        char text[16];
        int status;
        pid_t runner = fork();

        snprintf(text, sizeof text, "%d", (int)pid);
        for (char **arg = argv; *arg; arg++)
                if (strcmp(*arg, "PID") == 0)
                        *arg = text;
        if (runner == 0) {
                execv(argv[0], argv);
                _exit(127);
        }
        waitpid(runner, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

int main(int argc, char **argv)
{
        int go[2], status;
        pid_t pid;

        if (argc < 4 || pipe(go) < 0 || pipe(pipe_fds) < 0)
                return 2;
        signal(SIGPIPE, SIG_IGN);
        file = argv[1];
        start_stranger();
        other = open(".", O_TMPFILE | O_RDWR, 0600);
        if (other < 0 || ftruncate(other, SIZE) < 0)
                return 1;
        fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0666);
        if (fd < 0 || ftruncate(fd, SIZE) < 0 || pwrite(fd, "first", 5, 0) != 5)
                return 1;
        inherited = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (inherited == MAP_FAILED)
                return 1;
        pid = fork();
        if (pid == 0)
                return child(go[0]);
        usleep(200000);
        if (!getenv("K42_STAYS_MAPPED"))
                munmap((void *)inherited, SIZE);
        status = run_ctl(argv + 2, pid);
        if (status != 0) {
                fprintf(stderr, "%s %s: status %d\n", argv[2], argv[3], status);
                kill(pid, SIGKILL);
                return 1;
        }
        if (write(go[1], "g", 1) != 1)
                return 1;
        waitpid(pid, &status, 0);
        print("parent, read", try_pread());
        print("parent, write", try_pwrite());
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

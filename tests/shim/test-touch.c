/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * touch.c by itself: which descriptors a message is sent for, and what any answer to it changes.
 *
 * A memfd lies on a device without a major number, as a file of a mount does; what is sent goes to
 * answer() below.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lazy/protocol.h"
#include "shim/touch.h"

#define TOKEN UINT64_C(0x123456789abcdef0)

static struct k42_lazy_reopen answer_with; /* all of it, as a lying file system would */
static struct k42_lazy_reopen asked;
static int calls, result;

static int answer(int fd, unsigned long request, void *message)
{
        g_assert_cmpuint(request, ==, K42_IOC_LAZY_REOPEN);
        calls++;
        memcpy(&asked, message, sizeof asked);
        memcpy(message, &answer_with, sizeof answer_with);
        errno = ERANGE;
        return result;
}

static void right_answer(void)
{
        answer_with = (struct k42_lazy_reopen){
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof answer_with},
                .token = TOKEN,
        };
        result = 0;
}

/* A file that may be one of a mount, unknown to the tables. */
static int new_file(void)
{
        int fd = memfd_create("file", MFD_CLOEXEC);
        struct stat st;

        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(fstat(fd, &st), ==, 0);
        g_assert_cmpuint(major(st.st_dev), ==, 0);
        g_assert_cmpuint(fd_table_bits(fd), ==, 0);
        return fd;
}

static void done(int fd)
{
        fd_table_closing(fd);
        close(fd);
}

/* Touches, and says how many messages that took; errno is the program's. */
static int touches(int fd)
{
        calls = 0;
        errno = EDOM;
        touch(fd);
        g_assert_cmpint(errno, ==, EDOM);
        return calls;
}

static void test_message(void)
{
        const struct k42_lazy_reopen expected = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof expected}};
        int fd = new_file();

        right_answer();
        g_assert_cmpint(touches(fd), ==, 1);
        g_assert_cmpmem(&asked, sizeof asked, &expected,
                        sizeof expected); /* nothing but zeros else */
        g_assert_cmpuint(fd_table_token(fd), ==, TOKEN);
        g_assert_cmpuint(fd_table_bits(fd), ==, FD_ACTIVE);
        for (int i = 0; i < 100; i++)
                g_assert_cmpint(touches(fd), ==, 0);
        done(fd);
}

/* What the process opened itself is settled; so is a copy of it, and a copy of what was touched. */
static void test_settled(void)
{
        int fd = new_file(), copy, other = new_file();

        right_answer();
        fd_table_opened(fd, true);
        g_assert_cmpint(touches(fd), ==, 0);
        copy = dup(fd);
        fd_table_duped(fd, copy, false);
        g_assert_cmpint(touches(copy), ==, 0);
        done(copy);
        done(fd);
        g_assert_cmpint(touches(other), ==, 1);
        copy = dup(other);
        fd_table_duped(other, copy, false);
        g_assert_cmpint(touches(copy), ==, 0);
        g_assert_cmpuint(fd_table_token(copy), ==, TOKEN);
        done(copy);
        done(other);
}

/* An inherited one is asked about once, with the parent's token; close-on-exec stays. */
static int inherited_fd;

static void child_of_fork(void)
{
        const unsigned coe = fd_table_bits(inherited_fd) & FD_COE;

        g_assert_cmpuint(fd_table_mine(), ==, true);
        g_assert_cmpuint(coe, ==, FD_COE);
        g_assert_cmpuint(fd_table_bits(inherited_fd), ==, FD_ACTIVE | FD_READY | FD_COE);
        answer_with.token = 77;
        g_assert_cmpint(touches(inherited_fd), ==, 1);
        g_assert_cmpuint(asked.parent, ==, TOKEN);
        g_assert_cmpuint(fd_table_token(inherited_fd), ==, 77);
        g_assert_cmpuint(fd_table_bits(inherited_fd), ==, FD_ACTIVE | FD_COE);
        g_assert_cmpint(touches(inherited_fd), ==, 0);
}

static void test_inherited(void)
{
        int status;
        pid_t pid;

        right_answer();
        inherited_fd = new_file();
        g_assert_cmpint(touches(inherited_fd), ==, 1);
        fd_table_set_coe(inherited_fd, true);
        pid = fork();
        if (pid == 0) {
                child_of_fork();
                _exit(0);
        }
        g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
        g_assert_cmpint(status, ==, 0);
        g_assert_cmpint(touches(inherited_fd), ==, 0);
        g_assert_cmpuint(fd_table_token(inherited_fd), ==, TOKEN);
        done(inherited_fd);
}

/* Any one byte of the header that is wrong, and no token: as if nobody had answered. */
static void test_lies(void)
{
        for (unsigned at = 0; at < sizeof(struct k42_header); at++) {
                for (unsigned value = 1; value < 256; value += 37) {
                        int fd = new_file();

                        right_answer();
                        ((unsigned char *)&answer_with)[at] ^= (unsigned char)value;
                        g_assert_cmpint(touches(fd), ==, 1);
                        g_assert_cmpuint(fd_table_token(fd), ==, 0);
                        g_assert_cmpuint(fd_table_bits(fd), ==, FD_ACTIVE);
                        g_assert_cmpint(touches(fd), ==, 0);
                        done(fd);
                }
        }
}

static void test_garbage(void)
{
        for (int round = 0; round < 2000; round++) {
                int fd = new_file();

                for (unsigned i = 0; i < sizeof answer_with; i++)
                        ((unsigned char *)&answer_with)[i] = (unsigned char)g_test_rand_int();
                result = round % 2 ? g_test_rand_int_range(1, G_MAXINT) : 0;
                g_assert_cmpint(touches(fd), ==, 1);
                g_assert_cmpuint(fd_table_token(fd), ==, 0);
                g_assert_cmpint(touches(fd), ==, 0);
                done(fd);
        }
        memset(&answer_with, 0, sizeof answer_with);
        result = 0;
        for (int round = 0; round < 2; round++) {
                int fd = new_file();

                if (round == 1) { /* a right header, and no token */
                        right_answer();
                        answer_with.token = 0;
                }
                g_assert_cmpint(touches(fd), ==, 1);
                g_assert_cmpuint(fd_table_token(fd), ==, 0);
                g_assert_cmpint(touches(fd), ==, 0);
                done(fd);
        }
}

/* Whatever is refused is not asked again, and the device is not held against its other files; but a
 * signal is no answer. */
static void test_errors(void)
{
        for (int err = 1; err < 134; err++) {
                int fd;

                if (err == ENOTTY || err == ENOSYS || err == EOPNOTSUPP)
                        continue;
                fd = new_file();
                right_answer();
                result = -err;
                g_assert_cmpint(touches(fd), ==, 1);
                g_assert_cmpuint(fd_table_token(fd), ==, 0);
                if (err == EINTR) {
                        g_assert_cmpuint(fd_table_bits(fd), ==, 0);
                        g_assert_cmpint(touches(fd), ==, 1);
                        result = 0;
                        g_assert_cmpint(touches(fd), ==, 1);
                        g_assert_cmpuint(fd_table_token(fd), ==, TOKEN);
                } else {
                        g_assert_cmpuint(fd_table_bits(fd), ==, FD_ACTIVE);
                }
                g_assert_cmpint(touches(fd), ==, 0);
                done(fd);
        }
}

/* An interrupted first touch of an inherited descriptor leaves it ready. */
static void test_interrupted_child(void)
{
        int status, fd = new_file();
        pid_t pid;

        fd_table_opened(fd, false);
        pid = fork();
        if (pid == 0) {
                right_answer();
                result = -EINTR;
                g_assert_cmpint(touches(fd), ==, 1);
                g_assert_cmpuint(fd_table_bits(fd), ==, FD_ACTIVE | FD_READY);
                _exit(0);
        }
        g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
        g_assert_cmpint(status, ==, 0);
        done(fd);
}

static void not_asked(int fd)
{
        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(touches(fd), ==, 0);
        g_assert_cmpuint(fd_table_bits(fd), ==, FD_ACTIVE); /* settled by a look */
        g_assert_cmpuint(fd_table_token(fd), ==, 0);
        done(fd);
}

static void test_other_kinds(void)
{
        int fds[2];

        right_answer();
        g_assert_cmpint(pipe2(fds, O_CLOEXEC), ==, 0);
        not_asked(fds[0]);
        not_asked(fds[1]);
        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
        not_asked(fds[0]);
        not_asked(fds[1]);
        not_asked(open("/dev/null", O_RDWR | O_CLOEXEC));
        not_asked(eventfd(0, EFD_CLOEXEC));
}

static void test_closed(void)
{
        int fd = new_file();

        close(fd);
        right_answer();
        g_assert_cmpint(touches(fd), ==, 0);
        g_assert_cmpuint(fd_table_bits(fd), ==, 0); /* the next that gets the number is looked at */
        g_assert_cmpint(touches(-1), ==, 0);
        g_assert_cmpint(touches(FD_TABLE_MAX), ==, 0);
}

static void test_directory(void)
{
        int fd = open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0 || major(st.st_dev) != 0) {
                g_test_skip("/dev/shm is not a file system without a device");
                if (fd >= 0)
                        close(fd);
                return;
        }
        right_answer();
        g_assert_cmpint(touches(fd), ==, 1);
        done(fd);
}

static void test_disk(void)
{
        int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
        struct stat st;

        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(fstat(fd, &st), ==, 0);
        if (major(st.st_dev) == 0) {
                g_test_skip("this program is not on a file system with a device");
                close(fd);
                return;
        }
        not_asked(fd);
}

/* Nothing is asked on the memory of a parent, where nothing can be noted. */
static int touch_on_borrowed_memory(void *data)
{
        *(int *)data = touches(inherited_fd);
        return 0;
}

static void test_borrowed_memory(void)
{
        static char stack[65536];
        int n = -1;
        pid_t pid;

        right_answer();
        inherited_fd = new_file();
        pid = clone(touch_on_borrowed_memory, stack + sizeof stack,
                    CLONE_VM | CLONE_VFORK | SIGCHLD, &n);
        g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
        g_assert_cmpint(n, ==, 0);
        g_assert_cmpuint(fd_table_bits(inherited_fd), ==, 0);
        g_assert_cmpint(touches(inherited_fd), ==, 1);
        done(inherited_fd);
}

/* In children, because a foreign device stays one: the others are of another device then. */
static void test_foreign(void)
{
        static const int foreign_errors[] = {ENOTTY, ENOSYS, EOPNOTSUPP};

        for (unsigned i = 0; i < G_N_ELEMENTS(foreign_errors); i++) {
                int status;
                pid_t pid = fork();

                if (pid == 0) {
                        int fd = new_file(), another = new_file();

                        right_answer();
                        result = -foreign_errors[i];
                        g_assert_cmpint(touches(fd), ==, 1);
                        g_assert_cmpuint(fd_table_bits(fd), ==, FD_ACTIVE);
                        result = 0;
                        not_asked(another);
                        fd_table_closing(fd);
                        not_asked(fd);
                        not_asked(new_file());
                        _exit(0);
                }
                g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
                g_assert_cmpint(status, ==, 0);
        }
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_assert_cmpint(fd_table_init(), ==, 0);
        touch_send = answer;
        g_test_add_func("/touch/message", test_message);
        g_test_add_func("/touch/settled", test_settled);
        g_test_add_func("/touch/inherited", test_inherited);
        g_test_add_func("/touch/lies", test_lies);
        g_test_add_func("/touch/garbage", test_garbage);
        g_test_add_func("/touch/errors", test_errors);
        g_test_add_func("/touch/interrupted-child", test_interrupted_child);
        g_test_add_func("/touch/other-kinds", test_other_kinds);
        g_test_add_func("/touch/closed", test_closed);
        g_test_add_func("/touch/directory", test_directory);
        g_test_add_func("/touch/disk", test_disk);
        g_test_add_func("/touch/borrowed-memory", test_borrowed_memory);
        g_test_add_func("/touch/foreign", test_foreign);
        return g_test_run();
}

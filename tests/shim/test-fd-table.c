/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fd_table and touch without interceptions: this program calls them itself. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lazy/protocol.h"
#include "shim/touch.h"

#define SOME 40000 /* the numbers need not be open for the tables */

static void test_bits(void)
{
        g_assert_cmpuint(fd_table_bits(SOME), ==, 0);
        g_assert_false(fd_table_settled(SOME));
        fd_table_opened(SOME, true);
        g_assert_cmpuint(fd_table_bits(SOME), ==, FD_ACTIVE | FD_COE);
        g_assert_true(fd_table_settled(SOME));
        fd_table_set_coe(SOME, false);
        g_assert_cmpuint(fd_table_bits(SOME), ==, FD_ACTIVE);
        fd_table_touched(SOME, 77);
        fd_table_duped(SOME, SOME + 1, true);
        g_assert_cmpuint(fd_table_bits(SOME + 1), ==, FD_ACTIVE | FD_COE);
        g_assert_cmpuint(fd_table_token(SOME + 1), ==, 77);
        fd_table_duped(SOME + 2, SOME + 3, false); /* a copy of an unknown one */
        g_assert_cmpuint(fd_table_bits(SOME + 3), ==, 0);
        fd_table_set_coe(SOME + 3, true); /* the invariant: not active, so not coe */
        g_assert_cmpuint(fd_table_bits(SOME + 3), ==, 0);
        fd_table_closing(SOME);
        fd_table_closing(SOME + 1);
        g_assert_cmpuint(fd_table_bits(SOME), ==, 0);
        g_assert_cmpint(fd_table_check(), ==, -1);
}

static void test_numbers_without_bits(void)
{
        const int numbers[] = {-1, FD_TABLE_MAX, G_MAXINT, G_MININT};

        for (unsigned i = 0; i < G_N_ELEMENTS(numbers); i++) {
                fd_table_opened(numbers[i], true);
                fd_table_duped(numbers[i], numbers[i], true);
                fd_table_touched(numbers[i], 1);
                fd_table_closing(numbers[i]);
                g_assert_cmpuint(fd_table_bits(numbers[i]), ==, 0);
                g_assert_true(fd_table_settled(numbers[i]));
        }
        fd_table_opened(FD_TABLE_MAX - 1, false);
        g_assert_cmpuint(fd_table_bits(FD_TABLE_MAX - 1), ==, FD_ACTIVE);
        fd_table_closing(FD_TABLE_MAX - 1);
}

static void test_ranges(void)
{
        const unsigned borders[] = {0, 1, 62, 63, 64, 65, 127, 128, 129, 200};

        for (unsigned a = 0; a < G_N_ELEMENTS(borders); a++) {
                for (unsigned b = a; b < G_N_ELEMENTS(borders); b++) {
                        const unsigned first = SOME / 64 * 64 + borders[a],
                                       last = SOME / 64 * 64 + borders[b];

                        for (unsigned fd = SOME / 64 * 64; fd < SOME / 64 * 64 + 300; fd++)
                                fd_table_opened((int)fd, false);
                        fd_table_set_coe_range(first, last);
                        for (unsigned fd = SOME / 64 * 64; fd < SOME / 64 * 64 + 300; fd++)
                                g_assert_cmpuint(fd_table_bits((int)fd), ==,
                                                 FD_ACTIVE |
                                                         (fd >= first && fd <= last ? FD_COE : 0));
                        fd_table_closing_range(first, last);
                        for (unsigned fd = SOME / 64 * 64; fd < SOME / 64 * 64 + 300; fd++)
                                g_assert_cmpuint(fd_table_bits((int)fd), ==,
                                                 fd >= first && fd <= last ? 0 : FD_ACTIVE);
                }
        }
        fd_table_closing_range(SOME / 64 * 64, UINT32_MAX);
        fd_table_closing_range(10, 5); /* empty */
        g_assert_cmpuint(fd_table_bits(SOME), ==, 0);
}

/* Runs `fn` in a child of the kind that `flags` say; its result. */
static int in_clone(unsigned long flags, int (*fn)(void))
{
        int status;
        pid_t pid = (pid_t)syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, 0);

        g_assert_cmpint(pid, >=, 0);
        if (pid == 0)
                _exit(fn());
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static int child_is_marked(void)
{
        if (fd_table_settled(SOME))
                return 1;
        if (!fd_table_mine())
                return 2;
        if (fd_table_bits(SOME) != (FD_ACTIVE | FD_READY))
                return 3;
        if (fd_table_bits(SOME + 1) != 0 || fd_table_check() >= 0)
                return 4;
        fd_table_touched(SOME, 5);
        return fd_table_settled(SOME) ? 0 : 5;
}

static void test_child_marks(void)
{
        fd_table_opened(SOME, false);
        /* A clone of its own, not fork(): no handler runs, only the wiped page tells. */
        g_assert_cmpint(in_clone(0, child_is_marked), ==, 0);
        g_assert_cmpuint(fd_table_bits(SOME), ==, FD_ACTIVE); /* the parent has nothing to do */
        fd_table_closing(SOME);
}

static void test_grandchild(void)
{
        int status;
        pid_t pid;

        fd_table_opened(SOME, false);
        fd_table_touched(SOME, 9);
        pid = fork();
        if (pid == 0) {
                if (!fd_table_mine() || fd_table_bits(SOME) != (FD_ACTIVE | FD_READY))
                        _exit(10);
                /* untouched here: still ready, and with the token that names the ancestor's handle
                 */
                _exit(in_clone(0, child_is_marked) == 0 && fd_table_token(SOME) == 9 ? 0 : 11);
        }
        waitpid(pid, &status, 0);
        g_assert_cmpint(WEXITSTATUS(status), ==, 0);
        fd_table_closing(SOME);
}

static int use_fast(void)
{
        return fd_table_settled(SOME) ? 1 : 0;
}

/* The fast test alone finds that it is a child. */
static void test_fast_test_in_child(void)
{
        fd_table_opened(SOME, false);
        fd_table_touched(SOME, 3);
        g_assert_true(fd_table_settled(SOME));
        g_assert_cmpint(in_clone(0, use_fast), ==, 0);
        g_assert_true(fd_table_settled(SOME));
        fd_table_closing(SOME);
}

static int meddle(void *ret_mine)
{
        *(volatile int *)ret_mine = fd_table_mine();
        fd_table_closing(SOME);
        fd_table_closing_range(0, UINT32_MAX);
        fd_table_opened(SOME + 1, false);
        fd_table_set_coe(SOME, false);
        return 0;
}

/* A child on the parent's memory, the parent waiting: what vfork() makes. */
static void test_borrowed_memory(void)
{
        static char stack[65536];
        int status, mine = -1;
        pid_t pid;

        fd_table_opened(SOME, true);
        pid = clone(meddle, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &mine);
        g_assert_cmpint(pid, >, 0);
        waitpid(pid, &status, 0);
        g_assert_cmpint(mine, ==, 0);
        g_assert_cmpuint(fd_table_bits(SOME), ==, FD_ACTIVE | FD_COE);
        g_assert_cmpuint(fd_table_bits(SOME + 1), ==, 0);
        fd_table_closing(SOME);
}

#define STORM_THREADS 8
#define STORM_FDS     (64 * 2) /* two words, in which every thread has descriptors */

static atomic_bool storm_over;

/* Descriptor numbers are one thread's at a time, as the kernel gives them out; the words are
 * everybody's.  What a thread says of its own must be there, whatever the others do next to it. */
static void *storm_thread(void *data)
{
        const unsigned me = GPOINTER_TO_UINT(data);
        unsigned seed = me, expected[STORM_FDS] = {0};

        while (!atomic_load(&storm_over)) {
                const unsigned k = (seed = seed * 1103515245 + 12345) >> 8,
                               at = k % (STORM_FDS / STORM_THREADS) * STORM_THREADS + me;
                const int fd = SOME + (int)at;

                g_assert_cmpuint(fd_table_bits(fd), ==, expected[at]);
                switch (seed >> 16 & 7) {
                case 0:
                case 1:
                        fd_table_opened(fd, seed >> 20 & 1);
                        expected[at] = FD_ACTIVE | (seed >> 20 & 1 ? FD_COE : 0);
                        break;
                case 2:
                        fd_table_touched(fd, seed);
                        expected[at] = FD_ACTIVE | (expected[at] & FD_COE);
                        g_assert_cmpuint(fd_table_token(fd), ==, seed);
                        break;
                case 3:
                        fd_table_set_coe(fd, seed >> 20 & 1);
                        if (expected[at])
                                expected[at] = FD_ACTIVE | (seed >> 20 & 1 ? FD_COE : 0);
                        break;
                case 4:
                        fd_table_closing_range((unsigned)fd, (unsigned)fd);
                        expected[at] = 0;
                        break;
                default:
                        fd_table_closing(fd);
                        expected[at] = 0;
                }
        }
        return NULL;
}

static void *checking_thread(void *data)
{
        while (!atomic_load(&storm_over))
                g_assert_cmpint(fd_table_check(), ==, -1);
        return NULL;
}

static void test_storm(void)
{
        pthread_t threads[STORM_THREADS], checker;

        atomic_store(&storm_over, false);
        pthread_create(&checker, NULL, checking_thread, NULL);
        for (unsigned i = 0; i < STORM_THREADS; i++)
                pthread_create(&threads[i], NULL, storm_thread, GUINT_TO_POINTER(i));
        g_usleep(500000);
        atomic_store(&storm_over, true);
        for (unsigned i = 0; i < STORM_THREADS; i++)
                pthread_join(threads[i], NULL);
        pthread_join(checker, NULL);
        g_assert_cmpint(fd_table_check(), ==, -1);
        fd_table_closing_range(SOME, UINT32_MAX);
}

static int look_in_storm(void)
{
        if (fd_table_check() >= 0 || !fd_table_mine())
                return 1;
        for (int fd = SOME; fd < SOME + STORM_FDS; fd++) {
                const unsigned bits = fd_table_bits(fd);

                if ((bits & FD_ACTIVE) && !(bits & FD_READY))
                        return 2;
                if (!(bits & FD_ACTIVE) && bits)
                        return 3;
        }
        return fd_table_check() >= 0 ? 4 : 0;
}

/* Children made in the middle of it, from the memory of that moment. */
static void test_children_in_storm(void)
{
        pthread_t threads[STORM_THREADS];

        atomic_store(&storm_over, false);
        for (unsigned i = 0; i < STORM_THREADS; i++)
                pthread_create(&threads[i], NULL, storm_thread, GUINT_TO_POINTER(i));
        for (int i = 0; i < 200; i++)
                g_assert_cmpint(in_clone(0, look_in_storm), ==, 0);
        atomic_store(&storm_over, true);
        for (unsigned i = 0; i < STORM_THREADS; i++)
                pthread_join(threads[i], NULL);
        fd_table_closing_range(SOME, UINT32_MAX);
}

/* What the stand-in for the daemon does. */
static struct {
        int calls, result;
        void (*spoil)(struct k42_lazy_reopen *message);
        uint64_t parent_asked;
} daemon_side;

static int answer(int fd, unsigned long request, void *data)
{
        struct k42_lazy_reopen *message = data;

        g_assert_cmpuint(request, ==, K42_IOC_LAZY_REOPEN);
        g_assert_cmpuint(message->header.version, ==, K42_PROTOCOL_VERSION);
        g_assert_cmpuint(message->header.length, ==, sizeof *message);
        g_assert_cmpuint(message->token, ==, 0);
        daemon_side.calls++;
        daemon_side.parent_asked = message->parent;
        message->token = 4242;
        if (daemon_side.spoil)
                daemon_side.spoil(message);
        errno = ERANGE; /* must not be seen by the program */
        return daemon_side.result;
}

static int touch_once(int fd)
{
        daemon_side.calls = 0;
        errno = EDOM;
        touch(fd);
        g_assert_cmpint(errno, ==, EDOM);
        return daemon_side.calls;
}

static void test_touch(void)
{
        int fd = memfd_create("touched", MFD_CLOEXEC);

        memset(&daemon_side, 0, sizeof daemon_side);
        g_assert_cmpint(touch_once(fd), ==, 1);
        g_assert_cmpuint(fd_table_token(fd), ==, 4242);
        g_assert_cmpuint(daemon_side.parent_asked, ==, 0);
        g_assert_cmpint(touch_once(fd), ==, 0);
        close(fd);
        fd_table_closing(fd);
}

static void spoil_version(struct k42_lazy_reopen *message)
{
        message->header.version = 99;
}

static void spoil_length(struct k42_lazy_reopen *message)
{
        message->header.length = 63;
}

static void spoil_flags(struct k42_lazy_reopen *message)
{
        message->header.flags = 1;
}

static void spoil_token(struct k42_lazy_reopen *message)
{
        message->token = 0;
}

static void spoil_all(struct k42_lazy_reopen *message)
{
        memset(message, 0xff, sizeof *message);
}

static void test_lies(void)
{
        void (*const spoils[])(struct k42_lazy_reopen *) = {spoil_version, spoil_length,
                                                            spoil_flags, spoil_token, spoil_all};

        for (unsigned i = 0; i < G_N_ELEMENTS(spoils); i++) {
                int fd = memfd_create("lied-to", MFD_CLOEXEC);

                daemon_side.spoil = spoils[i];
                g_assert_cmpint(touch_once(fd), ==, 1);
                g_assert_cmpuint(fd_table_token(fd), ==, 0);
                g_assert_cmpint(touch_once(fd), ==, 0); /* not asked for ever */
                close(fd);
                fd_table_closing(fd);
        }
        daemon_side.spoil = NULL;
}

static void test_errors(void)
{
        int fd = memfd_create("refused", MFD_CLOEXEC);

        daemon_side.result = -EINTR; /* no answer: asked again */
        g_assert_cmpint(touch_once(fd), ==, 1);
        g_assert_cmpint(touch_once(fd), ==, 1);
        daemon_side.result = -EIO;
        g_assert_cmpint(touch_once(fd), ==, 1);
        g_assert_cmpint(touch_once(fd), ==, 0);
        fd_table_closing(fd);
        daemon_side.result = -ENOTTY; /* another file system: the whole device is left alone */
        g_assert_cmpint(touch_once(fd), ==, 1);
        fd_table_closing(fd);
        g_assert_cmpint(touch_once(fd), ==, 0);
        daemon_side.result = 0;
        close(fd);
        fd_table_closing(fd);
}

static void test_not_asked(void)
{
        int pipe_fds[2], closed = 900;

        g_assert_cmpint(pipe2(pipe_fds, O_CLOEXEC), ==, 0);
        g_assert_cmpint(touch_once(pipe_fds[0]), ==, 0);
        g_assert_true(fd_table_settled(pipe_fds[0]));
        g_assert_cmpint(touch_once(closed), ==, 0);
        g_assert_cmpuint(fd_table_bits(closed), ==, 0); /* nobody's number stays unknown */
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        fd_table_closing(pipe_fds[0]);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_assert_cmpint(fd_table_init(), ==, 0);
        touch_send = answer;
        g_test_add_func("/fd-table/bits", test_bits);
        g_test_add_func("/fd-table/numbers-without-bits", test_numbers_without_bits);
        g_test_add_func("/fd-table/ranges", test_ranges);
        g_test_add_func("/fd-table/child-marks", test_child_marks);
        g_test_add_func("/fd-table/fast-test-in-child", test_fast_test_in_child);
        g_test_add_func("/fd-table/grandchild", test_grandchild);
        g_test_add_func("/fd-table/borrowed-memory", test_borrowed_memory);
        g_test_add_func("/fd-table/storm", test_storm);
        g_test_add_func("/fd-table/children-in-storm", test_children_in_storm);
        g_test_add_func("/touch/once", test_touch);
        g_test_add_func("/touch/lies", test_lies);
        g_test_add_func("/touch/not-asked", test_not_asked);
        g_test_add_func("/touch/errors", test_errors); /* last: it makes the device foreign */
        return g_test_run();
}

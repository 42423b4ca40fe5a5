/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which handles are ended: made-up handles of this process and its children on a file that is no
 * k42fs's; only the device and inode numbers count.
 */
#include <fcntl.h>
#include <glib.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fusefs/control/reconcile.h"
#include "tests/control/fake_daemon.h"

#define SECOND G_TIME_SPAN_SECOND

struct fixture {
        struct k42_mount mount;
        char *path;
        int fd;
        uint64_t ino;
};

static void set_up(struct fixture *f, const void *data)
{
        struct stat st;

        f->fd = g_file_open_tmp("k42reconcile.XXXXXX", &f->path, NULL);
        g_assert_cmpint(f->fd, >=, 0);
        g_assert_cmpint(ftruncate(f->fd, 4096), ==, 0);
        g_assert_cmpint(fstat(f->fd, &st), ==, 0);
        f->mount.dev = st.st_dev;
        f->ino = st.st_ino;
}

static void tear_down(struct fixture *f, const void *data)
{
        fake_clear();
        close(f->fd);
        unlink(f->path);
        g_free(f->path);
}

static uint64_t give(struct fixture *f, uint64_t ino, int flags)
{
        return fake_give(getpid(), 0, ino, flags, 0, 10 * SECOND);
}

static void test_open_stays(struct fixture *f, const void *data)
{
        uint64_t mine = give(f, f->ino, O_RDWR), twin = give(f, f->ino, O_RDWR);

        reconcile_handles(&f->mount);
        g_assert_true(fake_has(mine));
        g_assert_true(fake_has(twin)); /* which of the two has the descriptor cannot be told */
}

static void test_closed_goes(struct fixture *f, const void *data)
{
        uint64_t mine = give(f, f->ino, O_RDWR);
        uint64_t other_file = give(f, f->ino + 1, O_RDWR);
        uint64_t other_mode = give(f, f->ino, O_RDONLY);

        reconcile_handles(&f->mount);
        g_assert_true(fake_has(mine));
        g_assert_false(fake_has(other_file));
        g_assert_false(fake_has(other_mode));
}

static void test_mapped_stays(struct fixture *f, const void *data)
{
        int fd = open(f->path, O_RDONLY | O_CLOEXEC);
        void *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
        uint64_t mapped = give(f, f->ino, O_RDONLY);

        g_assert_true(map != MAP_FAILED);
        close(fd);
        reconcile_handles(&f->mount);
        g_assert_true(fake_has(mapped));
        munmap(map, 4096);
        reconcile_handles(&f->mount);
        g_assert_false(fake_has(mapped));
}

static void test_nobody_stays(struct fixture *f, const void *data)
{
        uint64_t nobody = fake_give(0, 0, f->ino, O_RDONLY, 0, 10 * SECOND);

        reconcile_handles(&f->mount);
        g_assert_true(fake_has(nobody));
}

/* An open(2) that has not returned: the handle is there, the descriptor is not. */
static void *open_late(void *data)
{
        struct fixture *f = data;

        g_usleep(100000);
        return GINT_TO_POINTER(open(f->path, O_RDONLY | O_CLOEXEC));
}

static void test_young_opener_stays(struct fixture *f, const void *data)
{
        uint64_t young = fake_give(getpid(), 0, f->ino, O_RDONLY, 0, 0);
        GThread *thread = g_thread_new("late", open_late, f);

        reconcile_handles(&f->mount);
        g_assert_true(fake_has(young));
        close(GPOINTER_TO_INT(g_thread_join(thread)));
}

static void test_young_opener_goes_in_time(struct fixture *f, const void *data)
{
        uint64_t young = fake_give(getpid(), 0, f->ino, O_RDONLY, 0, 0);
        int64_t before = g_get_monotonic_time();

        reconcile_handles(&f->mount);
        g_assert_false(fake_has(young));
        g_assert_cmpint(g_get_monotonic_time() - before, >=, 240 * G_TIME_SPAN_MILLISECOND);
}

/* A re-opened handle needs no grace. */
static void test_young_child_goes(struct fixture *f, const void *data)
{
        uint64_t young = fake_give(getpid(), 0, f->ino, O_RDONLY, 99, 0);
        int64_t before = g_get_monotonic_time();

        reconcile_handles(&f->mount);
        g_assert_false(fake_has(young));
        g_assert_cmpint(g_get_monotonic_time() - before, <, 200 * G_TIME_SPAN_MILLISECOND);
}

static void test_clock_set_back(struct fixture *f, const void *data)
{
        uint64_t future = fake_give(getpid(), 0, f->ino, O_RDONLY, 0, -3600 * SECOND);

        reconcile_handles(&f->mount);
        g_assert_false(fake_has(future));
}

/* The parent closes, the child keeps: the parent's handle goes, the child's stays. */
static void test_parent_closes(struct fixture *f, const void *data)
{
        int fd = open(f->path, O_WRONLY | O_CLOEXEC);
        pid_t child = fork();
        uint64_t parents, childs;

        if (child == 0) {
                pause();
                _exit(0);
        }
        close(fd);
        parents = fake_give(getpid(), 0, f->ino, O_WRONLY, 0, 10 * SECOND);
        childs = fake_give(child, 0, f->ino, O_WRONLY, parents, 0);
        reconcile_handles(&f->mount);
        g_assert_false(fake_has(parents));
        g_assert_true(fake_has(childs));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
}

static void test_not_mounted_yet(struct fixture *f, const void *data)
{
        uint64_t other = give(f, f->ino + 1, O_RDWR);

        f->mount.dev = 0;
        reconcile_handles(&f->mount);
        g_assert_true(fake_has(other));
}

static void *reconcile_once(void *data)
{
        reconcile_handles(data);
        return NULL;
}

/* Callers at the same time share rounds: each comes back with what was closed before it came. */
static void test_many_callers(struct fixture *f, const void *data)
{
        GThread *threads[8];
        uint64_t gone = give(f, f->ino + 1, O_RDWR), kept = give(f, f->ino, O_RDWR);

        for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
                threads[i] = g_thread_new("caller", reconcile_once, &f->mount);
        for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
                g_thread_join(threads[i]);
        g_assert_false(fake_has(gone));
        g_assert_true(fake_has(kept));
}

/* A descriptor that is moved to and fro all the time is never missed twice. */
static int moving; /* atomic */

static void *move_descriptor(void *data)
{
        struct fixture *f = data;
        int fd = open(f->path, O_WRONLY | O_CLOEXEC);

        g_atomic_int_set(&moving, 1);
        while (g_atomic_int_get(&moving)) {
                int other = fcntl(fd, F_DUPFD_CLOEXEC, fd > 500 ? 3 : 600);

                close(fd);
                fd = other;
                g_usleep(50);
        }
        close(fd);
        return NULL;
}

static void test_moving_descriptor(struct fixture *f, const void *data)
{
        GThread *thread = g_thread_new("mover", move_descriptor, f);
        uint64_t moved;

        while (!g_atomic_int_get(&moving))
                g_usleep(100);
        moved = give(f, f->ino, O_WRONLY);
        for (int i = 0; i < 50; i++)
                reconcile_handles(&f->mount);
        g_assert_true(fake_has(moved));
        g_atomic_int_set(&moving, 0);
        g_thread_join(thread);
}

#define ADD(name, fn) g_test_add("/reconcile/" name, struct fixture, NULL, set_up, fn, tear_down)

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        ADD("open-stays", test_open_stays);
        ADD("closed-goes", test_closed_goes);
        ADD("mapped-stays", test_mapped_stays);
        ADD("nobody-stays", test_nobody_stays);
        ADD("young-opener-stays", test_young_opener_stays);
        ADD("young-opener-goes-in-time", test_young_opener_goes_in_time);
        ADD("young-child-goes", test_young_child_goes);
        ADD("clock-set-back", test_clock_set_back);
        ADD("parent-closes", test_parent_closes);
        ADD("not-mounted-yet", test_not_mounted_yet);
        ADD("many-callers", test_many_callers);
        ADD("moving-descriptor", test_moving_descriptor);
        return g_test_run();
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What /proc tells of a process's descriptors and mappings, on any file system: the oracle is this
 * process, which knows what it opened.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fusefs/control/proc_files.h"

struct fixture {
        char *path;
        int fd;
        dev_t dev;
        struct proc_want want;
        K42ProcMounts mounts;
};

static void set_up(struct fixture *f, const void *data)
{
        struct stat st;

        f->fd = g_file_open_tmp("k42proc.XXXXXX", &f->path, NULL);
        g_assert_cmpint(f->fd, >=, 0);
        g_assert_cmpint(ftruncate(f->fd, 4096), ==, 0);
        g_assert_cmpint(fstat(f->fd, &st), ==, 0);
        f->dev = st.st_dev;
        f->want.ino = st.st_ino;
        f->want.modes = 1u << O_RDONLY | 1u << O_WRONLY;
}

static void tear_down(struct fixture *f, const void *data)
{
        proc_mounts_clear(&f->mounts);
        if (f->fd >= 0)
                close(f->fd);
        unlink(f->path);
        g_free(f->path);
}

static void look(struct fixture *f)
{
        f->want.mapped = true; /* must be cleared */
        g_assert_cmpint(proc_files_look(&f->mounts, getpid(), f->dev, &f->want, 1), ==, 0);
}

static void test_modes(struct fixture *f, const void *data)
{
        int read_only = open(f->path, O_RDONLY | O_CLOEXEC);
        int copy = dup(read_only);
        int path_only = open(f->path, O_PATH | O_CLOEXEC);

        look(f);
        g_assert_cmpuint(f->want.descriptors[O_RDWR], ==, 1);
        g_assert_cmpuint(f->want.descriptors[O_RDONLY], ==, 2);
        g_assert_cmpuint(f->want.descriptors[O_WRONLY], ==, 0);
        g_assert_false(f->want.mapped);
        close(read_only);
        close(copy);
        look(f);
        g_assert_cmpuint(f->want.descriptors[O_RDONLY], ==, 0);
        close(path_only);
}

static void test_mapped(struct fixture *f, const void *data)
{
        void *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, f->fd, 0);

        g_assert_true(map != MAP_FAILED);
        close(f->fd);
        f->fd = -1;
        look(f);
        g_assert_true(f->want.mapped);
        g_assert_cmpuint(f->want.descriptors[O_RDWR], ==, 0);
        munmap(map, 4096);
        look(f);
        g_assert_false(f->want.mapped);
}

/* The inode number alone is not enough where the mount is known to be another one. */
static void test_other_device(struct fixture *f, const void *data)
{
        g_assert_cmpint(proc_files_look(&f->mounts, getpid(), f->dev + 1, &f->want, 1), ==, 0);
        g_assert_cmpuint(f->want.descriptors[O_RDWR], ==, 0);
}

/* A mount that the process does not see is in doubt: it counts. */
static void test_unknown_mount(struct fixture *f, const void *data)
{
        struct proc_want want = {0};
        struct stat st;
        int pipe_fds[2];

        g_assert_cmpint(pipe2(pipe_fds, O_CLOEXEC), ==, 0);
        g_assert_cmpint(fstat(pipe_fds[0], &st), ==, 0);
        want.ino = st.st_ino;
        g_assert_cmpint(proc_files_look(&f->mounts, getpid(), f->dev, &want, 1), ==, 0);
        g_assert_cmpuint(want.descriptors[O_RDONLY], ==, 1);
        g_assert_cmpuint(want.descriptors[O_WRONLY], ==, 1);
        close(pipe_fds[0]);
        close(pipe_fds[1]);
}

static atomic_int thread_step; /* not a GMutex: the thread sanitizer does not know those */

static void thread_wait(int step)
{
        while (atomic_load(&thread_step) < step)
                g_usleep(1000);
}

static void *own_table(void *data)
{
        struct fixture *f = data;
        int fd;

        g_assert_cmpint(unshare(CLONE_FILES), ==, 0);
        fd = open(f->path, O_WRONLY | O_CLOEXEC);
        g_assert_cmpint(fd, >=, 0);
        atomic_store(&thread_step, 1);
        thread_wait(2);
        close(fd);
        return NULL;
}

static void test_thread_with_own_table(struct fixture *f, const void *data)
{
        GThread *thread;

        close(f->fd);
        f->fd = -1;
        thread = g_thread_new("own table", own_table, f);
        thread_wait(1);
        look(f);
        g_assert_cmpuint(f->want.descriptors[O_WRONLY], ==, 1);
        atomic_store(&thread_step, 2);
        g_thread_join(thread);
}

static void test_gone(struct fixture *f, const void *data)
{
        pid_t child = fork();

        if (child == 0)
                _exit(0);
        g_assert_cmpint(waitpid(child, NULL, 0), ==, child);
        g_assert_cmpint(proc_files_look(&f->mounts, child, f->dev, &f->want, 1), ==, -ESRCH);
}

/* Not ours to look into: an error, and not "nothing open". */
static void test_not_permitted(struct fixture *f, const void *data)
{
        pid_t child;
        int status;

        if (geteuid() != 0) {
                g_test_skip("only root can become somebody else");
                return;
        }
        child = fork();
        if (child == 0) {
                K42ProcMounts mounts = {0};
                struct proc_want want = {.ino = f->want.ino, .modes = 1};

                if (setresuid(65534, 65534, 65534) < 0)
                        _exit(99);
                _exit(proc_files_look(&mounts, getppid(), f->dev, &want, 1) == -EACCES ? 0 : 1);
        }
        g_assert_cmpint(waitpid(child, &status, 0), ==, child);
        g_assert_cmpint(WEXITSTATUS(status), ==, 0);
}

static void test_many(struct fixture *f, const void *data)
{
        enum { MANY = 5000 };
        g_autofree int *fds = g_new(int, MANY);
        int64_t before, took;

        for (int i = 0; i < MANY; i++) {
                fds[i] = dup(f->fd);
                if (fds[i] < 0) {
                        while (i-- > 0)
                                close(fds[i]);
                        g_test_skip("not that many descriptors here");
                        return;
                }
        }
        before = g_get_monotonic_time();
        look(f);
        took = g_get_monotonic_time() - before;
        g_test_message("5,000 descriptors: %" G_GINT64_FORMAT " µs", took);
        g_assert_cmpuint(f->want.descriptors[O_RDWR], ==, MANY + 1);
        for (int i = 0; i < MANY; i++)
                close(fds[i]);
}

static void test_own(struct fixture *f, const void *data)
{
        int before = proc_files_own();
        int fd = dup(f->fd);

        g_assert_cmpint(before, >=, 4); /* 0, 1, 2 and the file */
        g_assert_cmpint(proc_files_own(), ==, before + 1);
        close(fd);
}

/* It has nothing any more, but is still in /proc until its parent waits for it. */
static void test_zombie(struct fixture *f, const void *data)
{
        pid_t child = fork();
        siginfo_t info;

        if (child == 0)
                _exit(0);
        g_assert_no_errno(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT));
        g_assert_cmpint(proc_files_look(&f->mounts, child, f->dev, &f->want, 1), ==, -ESRCH);
        g_assert_cmpint(waitpid(child, NULL, 0), ==, child);
}

#define ADD(name, fn) g_test_add("/proc_files/" name, struct fixture, NULL, set_up, fn, tear_down)

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        ADD("modes", test_modes);
        ADD("mapped", test_mapped);
        ADD("other-device", test_other_device);
        ADD("unknown-mount", test_unknown_mount);
        ADD("thread-with-own-table", test_thread_with_own_table);
        ADD("gone", test_gone);
        ADD("zombie", test_zombie);
        ADD("not-permitted", test_not_permitted);
        ADD("many", test_many);
        ADD("own", test_own);
        return g_test_run();
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A node is the file that it was, or says ESTALE: names and inode numbers that are used again, and
 * files that are exchanged at the worst moment.
 */
#include "nodes.h"

#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* statx with the birth time that a test wants. */
static int64_t fake_btime;

static int statx_fake_btime(int dirfd, const char *name, int flags, unsigned mask,
                            struct statx *stx)
{
        int r = statx(dirfd, name, flags, mask, stx);

        if (r == 0 && S_ISREG(stx->stx_mode)) {
                stx->stx_btime.tv_sec = fake_btime;
                stx->stx_btime.tv_nsec = 0;
        }
        return r;
}

/* The number is found again, but the birth time is another one: another file. */
void test_inode_reused(struct fixture *f, gconstpointer data)
{
        struct server_file *old, *new;

        make_file(f, "a");
        g_assert_true(fs_file_syscall_override("statx", (void (*)(void))statx_fake_btime));
        fake_btime = 1000;
        old = look(f, "a");
        g_assert_cmpint(node_fd_get(old), >=, 0);
        node_fd_put(old);
        g_assert_cmpuint(node_fds_shrink(&f->table->fds), ==, 1);
        fake_btime = 2000;
        new = look(f, "a");
        g_assert_true(new != old);
        g_assert_cmpint(old->kept->ino, ==, new->kept->ino);
        g_assert_true(look(f, "a") == new);
        /* Nothing leads from the old node to the new file. */
        g_assert_cmpint(node_fd_get(old), ==, -ESTALE);
        g_assert_cmpint(node_fd_get(new), >=, 0);
        node_fd_put(new);
        fs_file_syscall_override("statx", NULL);
}

/* Two names are exchanged between the look at the file and its handle, once. */
static const char *exchange_a, *exchange_b;

static int exchange_then_handle(int dirfd, const char *name, struct file_handle *handle,
                                int *mount_id, int flags)
{
        if (exchange_a && strcmp(name, "a") == 0) {
                g_assert_cmpint(syscall(SYS_renameat2, AT_FDCWD, exchange_a, AT_FDCWD, exchange_b,
                                        2 /* RENAME_EXCHANGE */),
                                ==, 0);
                exchange_a = NULL;
        }
        return name_to_handle_at(dirfd, name, handle, mount_id, flags);
}

/* The node has got another file's handle; it must not be of no use for as long as it is known. */
void test_exchanged(struct fixture *f, gconstpointer data)
{
        g_autofree char *path_a = at(f, "a"), *path_b = at(f, "b");
        struct server_file *was_a, *is_a;
        struct fs_stat st;
        int fd;

        make_file(f, "a");
        make_file(f, "b");
        g_assert_true(fs_file_syscall_override("name_to_handle_at",
                                               (void (*)(void))exchange_then_handle));
        exchange_a = path_a;
        exchange_b = path_b;
        was_a = look(f, "a");
        fs_file_syscall_override("name_to_handle_at", NULL);
        /* No name of it is known: nothing but ESTALE; or there was no handle, and it is open. */
        fd = node_fd_get(was_a);
        if (fd >= 0)
                node_fd_put(was_a);
        is_a = look(f, "a");
        fd = node_fd_get(is_a);
        g_assert_cmpint(fd, >=, 0);
        node_fd_put(is_a);
        g_assert_true(look(f, "b") == was_a || was_a == is_a);
        is_a = look(f, "b");
        fd = node_fd_get(is_a);
        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(fs_stat(fd, &st), ==, 0);
        g_assert_cmpuint(st.st.st_ino, ==, is_a->kept->ino);
        node_fd_put(is_a);
}

/* Where time goes in steps a new file can have a removed one's number and birth time: only its
 * handle tells that it is another one.  Who is told ESTALE looks it up again, and must find it. */
void test_reused_at_once(struct fixture *f, gconstpointer data)
{
        g_autofree char *path = at(f, "a");
        struct server_file *old, *new;
        ino_t ino;
        struct stat st;
        int fd;

        fake_btime = 1000;
        g_assert_true(fs_file_syscall_override("statx", (void (*)(void))statx_fake_btime));
        make_file(f, "a");
        old = look(f, "a");
        ino = old->kept->ino;
        node_fds_shrink(&f->table->fds);
        remove_file(f, "a");
        fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
        g_assert_cmpint(fd, >=, 0);
        close(fd);
        g_assert_cmpint(stat(path, &st), ==, 0);
        if (st.st_ino != ino) {
                g_test_skip("this file system does not use a number again at once");
        } else {
                new = look(f, "a");
                fd = node_fd_get(new);
                if (fd == -ESTALE) { /* as the kernel does */
                        new = look(f, "a");
                        fd = node_fd_get(new);
                }
                g_assert_cmpint(fd, >=, 0);
                node_fd_put(new);
        }
        fs_file_syscall_override("statx", NULL);
}

/* As above, and the new file is made through the mount, which has it open. */
void test_reused_by_create(struct fixture *f, gconstpointer data)
{
        g_autofree char *path = at(f, "a");
        struct server_file *old, *new;
        struct fs_stat st;
        int fd, io_fd;

        fake_btime = 1000;
        g_assert_true(fs_file_syscall_override("statx", (void (*)(void))statx_fake_btime));
        make_file(f, "a");
        old = look(f, "a");
        node_fds_shrink(&f->table->fds);
        remove_file(f, "a");
        io_fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
        g_assert_cmpint(io_fd, >=, 0);
        g_assert_cmpint(fs_stat(io_fd, &st), ==, 0);
        if (st.st.st_ino != old->kept->ino || geteuid() != 0) {
                g_test_skip("no handles, or numbers are not used again at once");
        } else {
                g_assert_cmpint(node_table_instantiate_by_handle(f->table, &st, io_fd, &new), ==,
                                0);
                fd = fs_reopen_path(io_fd);
                g_assert_cmpint(node_table_instantiate(f->table, &st, fd, &new), ==, 0);
                g_assert_true(new != old);
                node_fds_shrink(&f->table->fds);
                g_assert_cmpint(node_fd_get(new), >=, 0);
                node_fd_put(new);
                server_file_unref(new);
        }
        close(io_fd);
        fs_file_syscall_override("statx", NULL);
}

/* What is only read is opened by its handle alone; and not once the file is gone. */
void test_unopened(struct fixture *f, gconstpointer data)
{
        struct server_file *file;
        char text[2] = "";
        int fd;

        make_file(f, "a");
        file = look(f, "a");
        node_fds_shrink(&f->table->fds);
        fd = node_fd_open_unopened(file, O_RDONLY);
        if (fd < 0) {
                g_test_skip("no handles, or not of a kind whose inode number is known");
                return;
        }
        g_assert_cmpint(node_fd_get_open(file), ==, -EBADF);
        g_assert_cmpint(fs_pread(fd, text, 1, 0), ==, 1);
        g_assert_cmpstr(text, ==, "a");
        fs_close(fd);
        remove_file(f, "a");
        make_file(f, "a");
        g_assert_cmpint(node_fd_open_unopened(file, O_RDONLY), ==, -ESTALE);
}

static char *fifo_path;

/* Between statx and the handle the name becomes a FIFO's, with the file's number if it can be had. */
static int handle_of_fifo(int dirfd, const char *name, struct file_handle *handle, int *mount_id,
                          int flags)
{
        if (unlink(fifo_path) == 0)
                g_assert_cmpint(mkfifo(fifo_path, 0600), ==, 0);
        return name_to_handle_at(dirfd, name, handle, mount_id, flags);
}

/* A FIFO must not keep a thread waiting for a writer, and is not the file. */
void test_unopened_fifo(struct fixture *f, gconstpointer data)
{
        struct server_file *file;

        if (f->table->fds.mount_fd < 0) {
                g_test_skip("no handles");
                return;
        }
        fifo_path = at(f, "a");
        make_file(f, "a");
        g_assert_true(fs_file_syscall_override("name_to_handle_at", (void (*)(void))handle_of_fifo));
        file = look(f, "a");
        fs_file_syscall_override("name_to_handle_at", NULL);
        node_fds_shrink(&f->table->fds);
        g_assert_cmpint(node_fd_open_unopened(file, O_RDONLY), <, 0);
        g_assert_cmpint(node_fd_get(file), ==, -ESTALE);
        g_free(fifo_path);
}

/* As on overlayfs: a new birth time, but the open descriptor proves that it is the same file. */
void test_birth_time_changes(struct fixture *f, gconstpointer data)
{
        struct server_file *file;

        make_file(f, "a");
        g_assert_true(fs_file_syscall_override("statx", (void (*)(void))statx_fake_btime));
        fake_btime = 1000;
        file = look(f, "a");
        g_assert_cmpint(node_fd_get(file), >=, 0);
        fake_btime = 2000;
        g_assert_true(look(f, "a") == file);
        node_fd_put(file);
        fs_file_syscall_override("statx", NULL);
}

/* Replaced behind our back while nothing of it was open. */
void test_replaced(struct fixture *f, gconstpointer data)
{
        struct server_file *old, *new;
        g_autofree char *a = at(f, "a"), *b = at(f, "b");

        make_file(f, "a");
        make_file(f, "b");
        old = look(f, "a");
        node_fds_shrink(&f->table->fds);
        g_assert_cmpint(rename(b, a), ==, 0);
        g_assert_cmpint(node_fd_get(old), ==, -ESTALE);
        new = look(f, "a");
        g_assert_true(new != old);
        g_assert_cmpint(node_fd_get(old), ==, -ESTALE);
}

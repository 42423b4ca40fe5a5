/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The nodes on a real backing directory, without a mount: identity, lookup counts, descriptors,
 * names, and what happens when a system call fails.
 */
#include <errno.h>
#include <glib/gstdio.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fusefs/dir_linux_fs.h"
#include "fusefs/node_table.h"
#include "fusefs/ops.h"

struct fixture {
        char *source;
        struct k42_mount mount;
        struct node_table *table;
        struct dir_linux_fs *root;
        int rootfd;
        unsigned fds_before;
};

static unsigned open_fds(void)
{
        GDir *dir = g_dir_open("/proc/self/fd", 0, NULL);
        unsigned n = 0;

        while (g_dir_read_name(dir))
                n++;
        g_dir_close(dir);
        return n - 1; /* the listing's own */
}

static char *at(struct fixture *f, const char *name)
{
        return g_build_filename(f->source, name, NULL);
}

static void make_file(struct fixture *f, const char *name)
{
        g_autofree char *path = at(f, name);

        g_assert_true(g_file_set_contents(path, name, -1, NULL));
}

static void remove_file(struct fixture *f, const char *name)
{
        g_autofree char *path = at(f, name);

        g_assert_cmpint(unlink(path), ==, 0);
}

static void open_table(struct fixture *f)
{
        f->mount.options.source = f->source;
        g_assert_cmpint(fs_file_init(), ==, 0); /* never closed: not to be counted as a leak */
        f->fds_before = open_fds();
        g_assert_cmpint(node_table_new(&f->mount, &f->table), ==, 0);
        f->root = dir_linux_fs_of(node_table_file(f->table, FUSE_ROOT_ID));
        f->rootfd = node_fd_get(&f->root->file);
        g_assert_cmpint(f->rootfd, >=, 0);
}

static void setup(struct fixture *f, gconstpointer data)
{
        f->source = g_dir_make_tmp("k42nodes.XXXXXX", NULL);
        g_assert_nonnull(f->source);
        open_table(f);
}

static void teardown(struct fixture *f, gconstpointer data)
{
        g_autofree char *command = g_strdup_printf("rm -rf -- '%s'", f->source);

        node_fd_put(&f->root->file);
        node_table_free(f->table);
        g_assert_cmpuint(open_fds(), ==, f->fds_before);
        g_assert_cmpint(system(command), ==, 0);
        g_free(f->source);
}

/* The node of `name` in the root; known to the kernel once more. */
static struct server_file *look(struct fixture *f, const char *name)
{
        struct fuse_entry_param entry;

        g_assert_cmpint(ops_lookup(f->root, f->rootfd, name, &entry), ==, 0);
        return node_table_file(f->table, entry.ino);
}

static void assert_path(struct server_file *file, const char *path)
{
        g_autofree char *is = server_file_describe(file);

        g_assert_cmpstr(is, ==, path);
}

static void test_counts(struct fixture *f, gconstpointer data)
{
        struct server_file *a, *twin;
        g_autofree char *from = at(f, "a"), *to = at(f, "twin");
        const uint64_t forgotten_id = 77;

        make_file(f, "a");
        g_assert_cmpint(link(from, to), ==, 0);
        a = look(f, "a");
        twin = look(f, "twin");
        g_assert_true(a == twin);
        g_assert_true(look(f, "a") == a);
        g_assert_cmpuint(a->kept->nlookup, ==, 3);
        g_assert_cmpuint(node_table_count(f->table), ==, 2);
        server_file_forget(a, 2);
        g_assert_cmpuint(node_table_count(f->table), ==, 2);
        server_file_forget(a, 1);
        g_assert_cmpuint(node_table_count(f->table), ==, 1);
        g_assert_null(node_table_file(f->table, forgotten_id));
}

static void test_forgotten_too_often(struct fixture *f, gconstpointer data)
{
        struct server_file *a;

        make_file(f, "a");
        a = look(f, "a");
        g_test_expect_message(NULL, G_LOG_LEVEL_WARNING, "*forgotten 4 times more often*");
        server_file_forget(a, 5);
        g_test_assert_expected_messages();
        g_assert_cmpuint(node_table_count(f->table), ==, 1);
}

/* An id of a node that is gone never means another one. */
static void test_ids(struct fixture *f, gconstpointer data)
{
        uint64_t first, second;
        struct server_file *file;

        make_file(f, "a");
        file = look(f, "a");
        first = file->id;
        server_file_forget(file, 1);
        g_assert_null(node_table_file(f->table, first));
        file = look(f, "a");
        second = file->id;
        g_assert_cmpuint(first, !=, second);
        g_assert_null(node_table_file(f->table, first));
}

static void test_names(struct fixture *f, gconstpointer data)
{
        g_autofree char *long_name = g_strnfill(1025, 'x');

        g_assert_cmpint(fs_name_check("a"), ==, 0);
        g_assert_cmpint(fs_name_check("..."), ==, 0);
        g_assert_cmpint(fs_name_check(""), ==, -EINVAL);
        g_assert_cmpint(fs_name_check("."), ==, -EINVAL);
        g_assert_cmpint(fs_name_check(".."), ==, -EINVAL);
        g_assert_cmpint(fs_name_check("a/b"), ==, -EINVAL);
        g_assert_cmpint(fs_name_check("/"), ==, -EINVAL);
        g_assert_cmpint(fs_name_check(long_name), ==, -ENAMETOOLONG);
}

/* A symbolic link is a node of its own; nothing follows it. */
static void test_symlink(struct fixture *f, gconstpointer data)
{
        g_autofree char *path = at(f, "out");
        struct server_file *out;
        char target[100];
        int fd;

        g_assert_cmpint(symlink("/etc/passwd", path), ==, 0);
        out = look(f, "out");
        g_assert_true(S_ISLNK(out->type));
        fd = node_fd_get(out);
        g_assert_cmpint(fs_readlink(fd, target, sizeof target), ==, strlen("/etc/passwd"));
        g_assert_cmpint(fs_reopen(fd, O_RDONLY), ==, -ELOOP);
        node_fd_put(out);
}

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
static void test_inode_reused(struct fixture *f, gconstpointer data)
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
static void test_exchanged(struct fixture *f, gconstpointer data)
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
static void test_reused_at_once(struct fixture *f, gconstpointer data)
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
static void test_reused_by_create(struct fixture *f, gconstpointer data)
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
static void test_unopened(struct fixture *f, gconstpointer data)
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
static void test_unopened_fifo(struct fixture *f, gconstpointer data)
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
static void test_birth_time_changes(struct fixture *f, gconstpointer data)
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
static void test_replaced(struct fixture *f, gconstpointer data)
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

static void test_many(struct fixture *f, gconstpointer data)
{
        enum { N = 400 };
        struct server_file *files[N];
        const unsigned limit = node_table_fds_limit(f->table);

        g_assert_cmpuint(limit, ==, 16);
        for (unsigned i = 0; i < N; i++) {
                g_autofree char *name = g_strdup_printf("f%u", i);

                make_file(f, name);
                files[i] = look(f, name);
                g_assert_cmpuint(node_table_fds(f->table), <=, limit + 2);
        }
        for (unsigned round = 0; round < 3; round++)
                for (unsigned i = 0; i < N; i++) {
                        g_autofree char *name = g_strdup_printf("f%u", i);
                        char text[16] = "";
                        int io_fd, fd = node_fd_get(files[i]);

                        g_assert_cmpint(fd, >=, 0);
                        io_fd = fs_reopen(fd, O_RDONLY);
                        g_assert_cmpint(read(io_fd, text, sizeof text - 1), >, 0);
                        close(io_fd);
                        node_fd_put(files[i]);
                        g_assert_cmpstr(text, ==, name);
                        g_assert_cmpuint(node_table_fds(f->table), <=, limit + 2);
                }
        for (unsigned i = 0; i < N; i++)
                server_file_forget(files[i], 1);
        g_assert_cmpuint(node_table_count(f->table), ==, 1);
}

/* Descriptors in use are not closed, pinned ones neither; but they are not lost for ever. */
static void test_in_use(struct fixture *f, gconstpointer data)
{
        struct server_file *used, *pinned;
        int fd, pinned_fd;

        make_file(f, "used");
        make_file(f, "pinned");
        used = look(f, "used");
        pinned = look(f, "pinned");
        fd = node_fd_get(used);
        pinned_fd = node_fd_pin(pinned);
        g_assert_cmpuint(node_fds_shrink(&f->table->fds), ==, 0);
        g_assert_cmpint(fcntl(fd, F_GETFD), ==, FD_CLOEXEC);
        g_assert_cmpint(fcntl(pinned_fd, F_GETFD), ==, FD_CLOEXEC);
        node_fd_put(used);
        node_fd_unpin(pinned);
        g_assert_cmpuint(node_fds_shrink(&f->table->fds), ==, 2);
}

/* Deep directories, all closed, and renamed above: names lead back, verified. */
static void test_by_name(struct fixture *f, gconstpointer data)
{
        struct dir_linux_fs *dir = f->root;
        struct server_file *chain[5];
        struct fuse_entry_param entry;
        g_autofree char *deep = at(f, "0/1/2/3/4");
        int fd;

        g_assert_cmpint(g_mkdir_with_parents(deep, 0755), ==, 0);
        for (unsigned i = 0; i < G_N_ELEMENTS(chain); i++) {
                char name[] = {(char)('0' + i), '\0'};

                fd = node_fd_get(&dir->file);
                g_assert_cmpint(ops_lookup(dir, fd, name, &entry), ==, 0);
                node_fd_put(&dir->file);
                chain[i] = node_table_file(f->table, entry.ino);
                dir = dir_linux_fs_of(chain[i]);
        }
        assert_path(chain[4], "/0/1/2/3/4");
        node_fds_shrink(&f->table->fds);
        fd = server_file_open_by_name(chain[4]);
        g_assert_cmpint(fd, >=, 0);
        close(fd);

        g_assert_cmpint(fs_rename(f->rootfd, "0", f->rootfd, "x", 0), ==, 0);
        g_assert_cmpint(server_file_open_by_name(chain[4]), ==, -ESTALE);
        g_assert_true(look(f, "x") == chain[0]);
        assert_path(chain[4], "/x/1/2/3/4");
        fd = server_file_open_by_name(chain[4]);
        g_assert_cmpint(fd, >=, 0);
        close(fd);
}

/* Names that were true at different times can lead in a circle. */
static void test_circle(struct fixture *f, gconstpointer data)
{
        g_autofree char *ab = at(f, "a/b");
        struct fuse_entry_param entry;
        struct server_file *a, *b;
        int fd;

        g_assert_cmpint(g_mkdir_with_parents(ab, 0755), ==, 0);
        a = look(f, "a");
        fd = node_fd_get(a);
        g_assert_cmpint(ops_lookup(dir_linux_fs_of(a), fd, "b", &entry), ==, 0);
        b = node_table_file(f->table, entry.ino);
        node_fd_put(a);
        g_assert_cmpint(fs_rename(fd, "b", f->rootfd, "b", 0), ==, 0);
        fd = node_fd_get(b);
        g_assert_cmpint(fs_rename(f->rootfd, "a", fd, "a", 0), ==, 0);
        g_assert_cmpint(ops_lookup(dir_linux_fs_of(b), fd, "a", &entry), ==, 0);
        node_fd_put(b);
        node_fds_shrink(&f->table->fds);
        /* a is said to be in b, and b in a. */
        g_assert_cmpint(server_file_open_by_name(a), ==, -ESTALE);
        g_free(server_file_describe(a));
        /* teardown sees that nothing is left of it */
}

static void test_links(struct fixture *f, gconstpointer data)
{
        struct server_file *a;
        g_autofree char *path = at(f, "a");
        int fd;

        make_file(f, "a");
        a = look(f, "a");
        assert_path(a, "/a");
        for (unsigned i = 0; i < 3 * FILE_LINKS_MAX; i++) {
                g_autofree char *name = g_strdup_printf("l%u", i), *to = at(f, name);

                g_assert_cmpint(link(path, to), ==, 0);
                g_assert_true(look(f, name) == a);
        }
        g_assert_cmpuint(a->n_links, ==, FILE_LINKS_MAX);
        /* Any name that is still true will do. */
        for (unsigned i = 3 * FILE_LINKS_MAX - 1; i > 2 * FILE_LINKS_MAX; i--) {
                g_autofree char *name = g_strdup_printf("l%u", i);

                remove_file(f, name);
        }
        fd = server_file_open_by_name(a);
        g_assert_cmpint(fd, >=, 0);
        close(fd);
        server_file_forget(a, 1 + 3 * FILE_LINKS_MAX);
        g_assert_cmpuint(node_table_count(f->table), ==, 1);
        g_assert_cmpuint(f->root->children.count, ==, 0);
}

/* A name that is gone is not remembered; the negative answer makes no node. */
static void test_absent(struct fixture *f, gconstpointer data)
{
        struct fuse_entry_param entry;

        make_file(f, "a");
        look(f, "a");
        remove_file(f, "a");
        g_assert_cmpint(ops_lookup(f->root, f->rootfd, "a", &entry), ==, -ENOENT);
        g_assert_null(dir_child(f->root, "a"));
        g_assert_cmpint(ops_lookup(f->root, f->rootfd, "b", &entry), ==, -ENOENT);
        g_assert_cmpuint(node_table_count(f->table), ==, 2);
}

/* Makes the n-th of the calls that a lookup makes fail. */
static int fail_at, fail_errno;

static bool fails(void)
{
        if (--fail_at != 0)
                return false;
        errno = fail_errno;
        return true;
}

static int failing_openat2(int dirfd, const char *name, void *how, size_t size)
{
        return fails() ? -1 : (int)syscall(SYS_openat2, dirfd, name, how, size);
}

static int failing_openat(int dirfd, const char *name, int flags, mode_t mode)
{
        return fails() ? -1 : openat(dirfd, name, flags, mode);
}

static int failing_statx(int dirfd, const char *name, int flags, unsigned mask, struct statx *stx)
{
        return fails() ? -1 : statx(dirfd, name, flags, mask, stx);
}

static int failing_name_to_handle_at(int dirfd, const char *name, struct file_handle *handle,
                                     int *mount_id, int flags)
{
        return fails() ? -1 : name_to_handle_at(dirfd, name, handle, mount_id, flags);
}

static int failing_open_by_handle_at(int mount_fd, struct file_handle *handle, int flags)
{
        return fails() ? -1 : open_by_handle_at(mount_fd, handle, flags);
}

static const struct {
        const char *name;
        void (*fn)(void);
} failing[] = {
        {"openat2", (void (*)(void))failing_openat2},
        {"openat", (void (*)(void))failing_openat},
        {"statx", (void (*)(void))failing_statx},
        {"name_to_handle_at", (void (*)(void))failing_name_to_handle_at},
        {"open_by_handle_at", (void (*)(void))failing_open_by_handle_at},
};

/* What a request does: find two files, one of them again after its descriptor was closed. */
static int some_lookups(struct fixture *f)
{
        struct fuse_entry_param a, b;
        struct server_file *file;
        int r = ops_lookup(f->root, f->rootfd, "a", &a), fd;

        if (r < 0)
                return r;
        file = node_table_file(f->table, a.ino);
        r = ops_lookup(f->root, f->rootfd, "b", &b);
        if (r == 0)
                ops_entry_undo(f->table, &b);
        node_fds_shrink(&f->table->fds);
        fd = r == 0 ? node_fd_get(file) : r;
        if (fd >= 0) {
                char text[2] = "";
                int io_fd = ops_reopen(f->table, fd, O_RDONLY);

                r = io_fd;
                if (io_fd >= 0) {
                        g_assert_cmpint(read(io_fd, text, 1), ==, 1);
                        g_assert_cmpstr(text, ==, "a");
                        close(io_fd);
                        r = 0;
                }
                node_fd_put(file);
        } else {
                r = fd;
        }
        ops_entry_undo(f->table, &a);
        return r;
}

static void test_nth_call_fails(struct fixture *f, gconstpointer data)
{
        static const int errors[] = {EMFILE, ENFILE, ENOMEM, EIO, EACCES, ESTALE};
        unsigned failed = 0;

        make_file(f, "a");
        make_file(f, "b");
        for (unsigned e = 0; e < G_N_ELEMENTS(errors); e++)
                for (int n = 1;; n++) {
                        unsigned fds;
                        int r, left;

                        node_fds_shrink(&f->table->fds);
                        fds = open_fds();
                        for (unsigned i = 0; i < G_N_ELEMENTS(failing); i++)
                                fs_file_syscall_override(failing[i].name, failing[i].fn);
                        fail_at = n;
                        fail_errno = errors[e];
                        r = some_lookups(f);
                        left = fail_at;
                        for (unsigned i = 0; i < G_N_ELEMENTS(failing); i++)
                                fs_file_syscall_override(failing[i].name, NULL);

                        /* Nothing is left, and it works again. */
                        g_assert_cmpuint(node_table_count(f->table), ==, 1);
                        g_assert_cmpuint(open_fds(), ==, fds);
                        g_assert_cmpint(some_lookups(f), ==, 0);
                        if (left > 0)
                                break; /* no n-th call */
                        if (r < 0) {
                                failed++;
                                g_assert_true(r == -errors[e] || r == -ESTALE);
                        }
                }
        g_assert_cmpuint(failed, >, 10);
        g_assert_false(fs_file_syscall_override("no such call", NULL));
}

/* Out of descriptors for real: what is idle makes room. */
static void test_no_descriptors(struct fixture *f, gconstpointer data)
{
        g_autofree char *path = at(f, "last");
        struct rlimit before, tight;
        struct fuse_entry_param entry;
        const bool handles = f->table->fds.mount_fd >= 0;

        make_file(f, "new");
        for (unsigned i = 0; i < 12; i++) {
                g_autofree char *name = g_strdup_printf("f%u", i);
                struct server_file *file;

                make_file(f, name);
                file = look(f, name);
                g_assert_cmpint(node_fd_get(file), >=, 0);
                node_fd_put(file);
        }
        g_assert_cmpint(mkdir(path, 0755), ==, 0); /* a directory is opened when it is looked up */
        g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &before), ==, 0);
        tight = before;
        tight.rlim_cur = 0;
        g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &tight), ==, 0);
        g_assert_cmpint(ops_lookup(f->root, f->rootfd, "last", &entry), ==, -EMFILE);
        /* Where there are handles a file, known or not, is not even opened. */
        g_assert_cmpint(ops_lookup(f->root, f->rootfd, "new", &entry), ==, handles ? 0 : -EMFILE);
        g_assert_cmpuint(node_table_fds(f->table), ==, 1); /* it has tried everything */
        g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &before), ==, 0);
        g_assert_cmpint(ops_lookup(f->root, f->rootfd, "last", &entry), ==, 0);
}

enum { N_THREADS = 4, N_NAMES = 24, N_ROUNDS = 3000 };

static gpointer hammer(gpointer data)
{
        struct fixture *f = data;
        GRand *rand = g_rand_new();

        for (unsigned i = 0; i < N_ROUNDS; i++) {
                g_autofree char *name = g_strdup_printf("n%d", g_rand_int_range(rand, 0, N_NAMES));
                g_autofree char *other = g_strdup_printf("n%d", g_rand_int_range(rand, 0, N_NAMES));
                struct fuse_entry_param entry;

                if (ops_lookup(f->root, f->rootfd, name, &entry) == 0) {
                        struct server_file *file = node_table_file(f->table, entry.ino);
                        struct fs_stat st;
                        int fd = node_fd_get(file);

                        g_assert_nonnull(file);
                        if (fd >= 0) {
                                g_assert_cmpint(fs_stat(fd, &st), ==, 0);
                                g_assert_cmpuint(st.st.st_ino, ==, file->kept->ino);
                                node_fd_put(file);
                        } else {
                                g_assert_cmpint(fd, ==, -ESTALE);
                        }
                        g_free(server_file_describe(file));
                        server_file_forget(file, 1);
                }
                switch (i % 5) {
                case 0:
                        if (fs_rename(f->rootfd, name, f->rootfd, other, 0) == 0)
                                dir_unlink(f->root, name, i % 2);
                        break;
                case 1:
                        fs_unlink(f->rootfd, name);
                        break;
                case 2:
                case 3:
                        fs_mknod(f->rootfd, name, S_IFREG | 0600, 0);
                        break;
                default:
                        node_fds_shrink(&f->table->fds);
                }
        }
        g_rand_free(rand);
        return NULL;
}

static void test_threads(struct fixture *f, gconstpointer data)
{
        GThread *threads[N_THREADS];

        for (unsigned i = 0; i < N_THREADS; i++)
                threads[i] = g_thread_new("hammer", hammer, f);
        for (unsigned i = 0; i < N_THREADS; i++)
                g_thread_join(threads[i]);
        g_assert_cmpuint(node_table_count(f->table), ==, 1);
        g_assert_cmpuint(f->root->children.count, ==, 0);
}

struct item {
        struct hash_link link;
        bool in;
};

static void test_hash(void)
{
        enum { N = 5000 };
        struct item *items = g_new0(struct item, N);
        struct hash table = {.buckets = NULL};
        size_t count = 0;
        GRand *rand = g_rand_new_with_seed(42);

        for (unsigned i = 0; i < 20 * N; i++) {
                struct item *item = &items[g_rand_int_range(rand, 0, N)];
                const uint64_t hash = hash_mix((uint64_t)(item - items) / 3); /* collisions */

                if (item->in)
                        hash_remove(&table, &item->link);
                else
                        hash_insert(&table, &item->link, hash);
                item->in = !item->in;
                count += item->in ? 1 : (size_t)-1;
                g_assert_cmpuint(table.count, ==, count);
        }
        for (unsigned i = 0; i < N; i++) {
                struct hash_link *link = hash_first(&table, hash_mix(i / 3));

                while (link && link != &items[i].link)
                        link = hash_next(link);
                g_assert_true((link != NULL) == items[i].in);
                if (link)
                        hash_remove(&table, link);
        }
        g_assert_cmpuint(table.count, ==, 0);
        hash_clear(&table);
        g_rand_free(rand);
        g_free(items);
}

/* All of it once more as nobody, who has no file handles. */
static int run_as_nobody(void)
{
        const pid_t pid = fork();
        int status;

        if (pid == 0) {
                if (setgroups(0, NULL) < 0 || setgid(65534) < 0 || setuid(65534) < 0)
                        _exit(77);
                dup2(STDERR_FILENO, STDOUT_FILENO); /* the results are ours */
                execl("/proc/self/exe", "test-nodes", "-q", NULL);
                _exit(127);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid)
                return -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void test_unprivileged(void)
{
        int status;

        if (geteuid() != 0) {
                g_test_skip("not root: the other tests have run without privileges");
                return;
        }
        status = run_as_nobody();
        if (status == 126 || status == 127) {
                g_test_skip("this program cannot be run by others");
                return;
        }
        g_assert_cmpint(status, ==, 0);
}

#define ADD(name, fn) g_test_add("/nodes/" name, struct fixture, NULL, setup, fn, teardown)

int main(int argc, char **argv)
{
        struct rlimit nofile;

        /* The smallest cache, so that it is full soon. */
        getrlimit(RLIMIT_NOFILE, &nofile);
        nofile.rlim_cur = MIN(nofile.rlim_max, 128);
        setrlimit(RLIMIT_NOFILE, &nofile);

        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/nodes/hash", test_hash);
        ADD("counts", test_counts);
        ADD("forgotten-too-often", test_forgotten_too_often);
        ADD("ids", test_ids);
        ADD("names", test_names);
        ADD("symlink", test_symlink);
        ADD("inode-reused", test_inode_reused);
        ADD("exchanged", test_exchanged);
        ADD("reused-at-once", test_reused_at_once);
        ADD("unopened", test_unopened);
        ADD("unopened-fifo", test_unopened_fifo);
        ADD("reused-by-create", test_reused_by_create);
        ADD("birth-time-changes", test_birth_time_changes);
        ADD("replaced", test_replaced);
        ADD("many", test_many);
        ADD("in-use", test_in_use);
        ADD("by-name", test_by_name);
        ADD("circle", test_circle);
        ADD("links", test_links);
        ADD("absent", test_absent);
        ADD("nth-call-fails", test_nth_call_fails);
        ADD("no-descriptors", test_no_descriptors);
        ADD("threads", test_threads);
        g_test_add_func("/nodes/unprivileged", test_unprivileged);
        return g_test_run();
}

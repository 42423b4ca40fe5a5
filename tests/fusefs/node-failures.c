/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Each system call of a lookup fails once, and descriptors run out: nothing is left over. */
#include "nodes.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

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

void test_nth_call_fails(struct fixture *f, gconstpointer data)
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
void test_no_descriptors(struct fixture *f, gconstpointer data)
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

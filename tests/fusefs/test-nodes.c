/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The nodes on a real backing directory, without a mount: lookup counts, descriptors, names, many
 * threads.  What makes two files the same one is in node-identity.c, and what happens when a
 * system call fails in node-failures.c.
 */
#include "nodes.h"

#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nodes.h"

#include <stdlib.h>
#include <unistd.h>

unsigned open_fds(void)
{
        GDir *dir = g_dir_open("/proc/self/fd", 0, NULL);
        unsigned n = 0;

        while (g_dir_read_name(dir))
                n++;
        g_dir_close(dir);
        return n - 1; /* the listing's own */
}

char *at(struct fixture *f, const char *name)
{
        return g_build_filename(f->source, name, NULL);
}

void make_file(struct fixture *f, const char *name)
{
        g_autofree char *path = at(f, name);

        g_assert_true(g_file_set_contents(path, name, -1, NULL));
}

void remove_file(struct fixture *f, const char *name)
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

void setup(struct fixture *f, gconstpointer data)
{
        f->source = g_dir_make_tmp("k42nodes.XXXXXX", NULL);
        g_assert_nonnull(f->source);
        open_table(f);
}

void teardown(struct fixture *f, gconstpointer data)
{
        g_autofree char *command = g_strdup_printf("rm -rf -- '%s'", f->source);

        node_fd_put(&f->root->file);
        node_table_free(f->table);
        g_assert_cmpuint(open_fds(), ==, f->fds_before);
        g_assert_cmpint(system(command), ==, 0);
        g_free(f->source);
}

/* The node of `name` in the root; known to the kernel once more. */
struct server_file *look(struct fixture *f, const char *name)
{
        struct fuse_entry_param entry;

        g_assert_cmpint(ops_lookup(f->root, f->rootfd, name, &entry), ==, 0);
        return node_table_file(f->table, entry.ino);
}

void assert_path(struct server_file *file, const char *path)
{
        g_autofree char *is = server_file_describe(file);

        g_assert_cmpstr(is, ==, path);
}

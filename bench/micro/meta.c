/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System calls on names.  Figures are microseconds a call (or a group of calls, where the name has
 * several); a readdir figure is the whole listing.
 */
#include "bench/micro/micro.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct file_set {
        const char *dir;
        unsigned files;
};

static void stat_one(const void *data, unsigned i)
{
        const struct file_set *set = data;
        char name[PATH_MAX];
        struct stat st;

        set_name(name, sizeof(name), set->dir, i % set->files);
        if (stat(name, &st) != 0)
                give_up("stat", name);
}

/* The first pass is a figure of its own: nothing may be cached yet. */
int measure_stat(int argc, char **argv)
{
        const struct file_set set = {argv[0], parse_count(argv[1])};
        const unsigned passes = parse_count(argv[2]);

        put_figure("first", time_batches(set.files, stat_one, &set));
        if (passes > 1)
                put_figure("warm", time_batches(set.files * (passes - 1), stat_one, &set));
        return 0;
}

static void open_one(const void *data, unsigned i)
{
        const struct file_set *set = data;
        char name[PATH_MAX];
        int fd;

        set_name(name, sizeof(name), set->dir, i % set->files);
        fd = open(name, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                give_up("open", name);
        if (close(fd) != 0)
                give_up("close", name);
}

int measure_open(int argc, char **argv)
{
        const struct file_set set = {argv[0], parse_count(argv[1])};
        const unsigned passes = parse_count(argv[2]);

        /* The names are known; the open itself is what is measured. */
        time_batches(set.files, stat_one, &set);
        put_figure("open_close", time_batches(set.files * passes, open_one, &set));
        return 0;
}

static void create_one(const void *data, unsigned i)
{
        static const char content[100];
        char name[PATH_MAX];
        int fd;

        set_name(name, sizeof(name), data, i);
        fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd < 0)
                give_up("create", name);
        if (write(fd, content, sizeof(content)) != (ssize_t)sizeof(content))
                give_up("write", name);
        if (close(fd) != 0)
                give_up("close", name);
        if (unlink(name) != 0)
                give_up("unlink", name);
}

int measure_create(int argc, char **argv)
{
        put_figure("create_unlink", time_batches(parse_count(argv[1]), create_one, argv[0]));
        return 0;
}

static void rename_one(const void *data, unsigned i)
{
        char from[PATH_MAX], to[PATH_MAX];

        set_name(from, sizeof(from), data, i);
        set_name(to, sizeof(to), data, i + 1);
        if (rename(from, to) != 0)
                give_up("rename", from);
}

int measure_rename(int argc, char **argv)
{
        const unsigned renames = parse_count(argv[1]);
        char name[PATH_MAX];
        int fd;

        set_name(name, sizeof(name), argv[0], 0);
        fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0 || close(fd) != 0)
                give_up("create", name);
        put_figure("rename", time_batches(renames, rename_one, argv[0]));
        set_name(name, sizeof(name), argv[0], renames);
        if (unlink(name) != 0)
                give_up("unlink", name);
        return 0;
}

int measure_readdir(int argc, char **argv)
{
        const unsigned passes = parse_count(argv[1]);
        unsigned long entries = 0;
        const double start = now();

        for (unsigned pass = 0; pass < passes; pass++) {
                DIR *dir = opendir(argv[0]);

                if (!dir)
                        give_up("opendir", argv[0]);
                while (readdir(dir))
                        entries++;
                closedir(dir);
        }
        put_figure("listing", (now() - start) / passes * 1e6);
        put_figure("entries", (double)(entries / passes));
        return 0;
}

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

static double stat_all(const char *dir, unsigned files)
{
        const double start = now();

        for (unsigned i = 0; i < files; i++) {
                char name[PATH_MAX];
                struct stat st;

                set_name(name, sizeof(name), dir, i);
                if (stat(name, &st) != 0)
                        give_up("stat", name);
        }
        return (now() - start) / files * 1e6;
}

/* The first pass is a figure of its own (nothing may be cached yet); `warm` is the best later one.
 */
int measure_stat(int argc, char **argv)
{
        const unsigned files = parse_count(argv[1]);
        const unsigned passes = parse_count(argv[2]);
        double best = 0;

        put_figure("first", stat_all(argv[0], files));
        for (unsigned pass = 1; pass < passes; pass++) {
                const double figure = stat_all(argv[0], files);

                if (pass == 1 || figure < best)
                        best = figure;
        }
        if (passes > 1)
                put_figure("warm", best);
        return 0;
}

int measure_open(int argc, char **argv)
{
        const unsigned files = parse_count(argv[1]);
        const unsigned passes = parse_count(argv[2]);
        double start;

        stat_all(argv[0], files); /* the names are known; the open itself is what is measured */
        start = now();
        for (unsigned pass = 0; pass < passes; pass++) {
                for (unsigned i = 0; i < files; i++) {
                        char name[PATH_MAX];
                        int fd;

                        set_name(name, sizeof(name), argv[0], i);
                        fd = open(name, O_RDONLY | O_CLOEXEC);
                        if (fd < 0)
                                give_up("open", name);
                        if (close(fd) != 0)
                                give_up("close", name);
                }
        }
        put_figure("open_close", (now() - start) / passes / files * 1e6);
        return 0;
}

int measure_create(int argc, char **argv)
{
        static const char content[100];
        const unsigned files = parse_count(argv[1]);
        const double start = now();

        for (unsigned i = 0; i < files; i++) {
                char name[PATH_MAX];
                int fd;

                set_name(name, sizeof(name), argv[0], i);
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
        put_figure("create_unlink", (now() - start) / files * 1e6);
        return 0;
}

int measure_rename(int argc, char **argv)
{
        const unsigned renames = parse_count(argv[1]);
        char from[PATH_MAX], to[PATH_MAX];
        double start;
        int fd;

        set_name(from, sizeof(from), argv[0], 0);
        fd = open(from, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0 || close(fd) != 0)
                give_up("create", from);
        start = now();
        for (unsigned i = 1; i <= renames; i++) {
                set_name(from, sizeof(from), argv[0], i - 1);
                set_name(to, sizeof(to), argv[0], i);
                if (rename(from, to) != 0)
                        give_up("rename", from);
        }
        put_figure("rename", (now() - start) / renames * 1e6);
        if (unlink(to) != 0)
                give_up("unlink", to);
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

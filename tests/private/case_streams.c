/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Private mode: stdio and directories, which keep in buffers what they have read ahead. */
#include "cases.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

static void write_lines(void)
{
        FILE *f = fopen(path, "w");

        CHECK(f);
        for (int i = 0; i < 3000; i++)
                fprintf(f, "line %d\n", i);
        CHECK(fclose(f) == 0);
}

static bool next_line(FILE *f, int n)
{
        char line[64], expected[64];

        snprintf(expected, sizeof expected, "line %d\n", n);
        return fgets(line, sizeof line, f) && strcmp(line, expected) == 0;
}

/* The buffer holds what was read ahead; exit() gives it back to the offset. */
void case_stdio(void)
{
        FILE *f;
        long where;

        write_lines();
        f = fopen(path, "r");
        for (int i = 0; i < 10; i++)
                CHECK(next_line(f, i));
        where = ftell(f);
        for (int round = 0; round < 3; round++) {
                const pid_t pid = fork();

                if (pid == 0) {
                        if (round == 1) {
                                CHECK(ftell(f) == where);
                                for (int i = 10; i < 3000; i++)
                                        CHECK(next_line(f, i));
                                CHECK(!next_line(f, 3000) && feof(f));
                        } else if (round == 2) {
                                CHECK(next_line(f, 10) && fseek(f, 0, SEEK_SET) == 0);
                                CHECK(next_line(f, 0) && fseek(f, 20000, SEEK_CUR) == 0);
                        }
                        exit(0);
                }
                reap(pid);
        }
        for (int i = 10; i < 3000; i++)
                CHECK(next_line(f, i));
        CHECK(!next_line(f, 3000) && feof(f));
}

/* The loop that reads its input again: each child exits with the buffer half read. */
void case_stdio_loop(void)
{
        FILE *f;
        int n = 0;

        write_lines();
        f = fopen(path, "r");
        while (n <= 4000 && next_line(f, n)) {
                if (++n % 100 == 0) {
                        const pid_t pid = fork();

                        if (pid == 0)
                                exit(0);
                        reap(pid);
                }
        }
        CHECK(n == 3000);
}

static void make_entries(char *dir)
{
        char name[sizeof path + 16];

        strcpy(dir, path);
        CHECK(mkdir(dir, 0700) == 0 || errno == EEXIST);
        for (int i = 0; i < 500; i++) {
                snprintf(name, sizeof name, "%s/e%d", dir, i);
                close(open(name, O_CREAT | O_WRONLY, 0600));
        }
}

static int rest_of(DIR *d)
{
        int n = 0;

        errno = 0;
        while (readdir(d))
                n++;
        CHECK(errno == 0);
        return n;
}

void case_directory(void)
{
        char dir[sizeof path];
        int before;
        DIR *d;

        make_entries(dir);
        d = opendir(dir);
        CHECK(d);
        for (before = 0; before < 100; before++)
                CHECK(readdir(d));
        for (int round = 0; round < 3; round++) {
                const pid_t pid = fork();

                if (pid == 0) {
                        if (round == 1)
                                rewinddir(d);
                        CHECK(round == 2 || rest_of(d) == 502 - (round == 1 ? 0 : before));
                        closedir(d);
                        exit(0);
                }
                reap(pid);
        }
        CHECK(rest_of(d) == 502 - before);
        for (int i = 0; i < 500; i++) {
                char name[sizeof dir + 16];

                snprintf(name, sizeof name, "%s/e%d", dir, i);
                unlink(name);
        }
        rmdir(dir);
}

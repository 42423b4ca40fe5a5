/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * k42bench: system calls in a loop, timed from inside, for ./bench/run.  An interpreter spends
 * longer on a call than the kernel does, which would hide the difference between two file systems.
 *
 * Each measurement prints lines of `NAME VALUE`.  The first thing that fails ends the program with
 * a message that has the errno in words: the harness puts it into the table.
 *
 * One thread, no locks; every measurement owns what it opens until the program ends.
 */
#include "bench/micro/micro.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCH 25 /* calls */

static const struct {
        const char *name;
        measurement measure;
        int argc;
        const char *usage;
} table[] = {
        {"stat", measure_stat, 3, "DIR FILES PASSES"},
        {"open", measure_open, 3, "DIR FILES PASSES"},
        {"create", measure_create, 2, "DIR FILES"},
        {"rename", measure_rename, 2, "DIR RENAMES"},
        {"readdir", measure_readdir, 2, "DIR PASSES"},
        {"fork", measure_fork, 4, "exit|exec|touch DIR FILES MILLISECONDS"},
        {"read", measure_read, 2, "FILE READS"},
        {"childread", measure_child_read, 2, "FILE READS"},
        {"start", measure_start, 3, "PROGRAM TIMES PRELOAD"},
};

double now(void)
{
        struct timespec time;

        clock_gettime(CLOCK_MONOTONIC, &time);
        return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b)
{
        const double x = *(const double *)a, y = *(const double *)b;

        return (x > y) - (x < y);
}

double median(double *values, size_t n)
{
        qsort(values, n, sizeof(*values), compare);
        return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

double time_batches(unsigned n, void (*op)(const void *data, unsigned i), const void *data)
{
        const unsigned batches = (n + BATCH - 1) / BATCH;
        double *figures = calloc(batches, sizeof(*figures));
        double quartile;

        if (!figures)
                give_up("calloc", "");
        for (unsigned batch = 0, i = 0; batch < batches; batch++) {
                const unsigned from = i;
                const double start = now();

                for (; i < n && i < from + BATCH; i++)
                        op(data, i);
                figures[batch] = (now() - start) / (i - from) * 1e6;
        }
        qsort(figures, batches, sizeof(*figures), compare);
        quartile = figures[batches / 4];
        free(figures);
        return quartile;
}

unsigned parse_count(const char *text)
{
        char *end;
        const unsigned long n = strtoul(text, &end, 10);

        if (*end || n < 1 || n > 100000000) {
                fprintf(stderr, "k42bench: %s: not a number from 1 to 100000000\n", text);
                exit(2);
        }
        return (unsigned)n;
}

void set_name(char *name, size_t size, const char *dir, unsigned i)
{
        if ((size_t)snprintf(name, size, "%s/f%06u", dir, i) >= size) {
                errno = ENAMETOOLONG;
                give_up("name", dir);
        }
}

void give_up(const char *what, const char *path)
{
        fprintf(stderr, "%s %s: %s\n", what, path, strerror(errno));
        exit(1);
}

void put_figure(const char *name, double value)
{
        printf("%s %.9g\n", name, value);
}

int main(int argc, char **argv)
{
        for (size_t i = 0; argc > 1 && i < sizeof(table) / sizeof(table[0]); i++) {
                int status;

                if (strcmp(argv[1], table[i].name) != 0 || argc - 2 != table[i].argc)
                        continue;
                status = table[i].measure(argc - 2, argv + 2);
                return fflush(stdout) == 0 ? status : 1;
        }
        fputs("usage:\n", stderr);
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
                fprintf(stderr, "  k42bench %s %s\n", table[i].name, table[i].usage);
        return 2;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * matrix [--alone] [--only PREFIX] [--op NAME] DIR
 *
 * Prints one line a cell, "CREATION/AFTER/DESCRIPTOR/OPERATION: child… | parent… | file…".  Groups
 * go to stderr as they are done.  With --alone each cell has a child of its own (slower; the output
 * must be the same).  --only and --op choose, for whoever looks for one cell's fault.
 */
#include "matrix.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const struct op *ops[MATRIX_CELLS];
static int ops_count;
static char self[PATH_MAX];
static const char *folder;

void put(struct out *out, const char *text)
{
        while (*text && out->len < sizeof(out->text))
                out->text[out->len++] = *text++;
}

void put_number(struct out *out, const char *label, long long number)
{
        char digits[24];
        int n = 0;
        unsigned long long rest =
                number < 0 ? -(unsigned long long)number : (unsigned long long)number;

        put(out, " ");
        put(out, label);
        put(out, *label ? "=" : "");
        put(out, number < 0 ? "-" : "");
        do
                digits[n++] = '0' + rest % 10;
        while ((rest /= 10));
        while (n) {
                char one[2] = {digits[--n], 0};
                put(out, one);
        }
}

void put_result(struct out *out, const char *label, long long result)
{
        const char *name;

        if (result >= 0) {
                put_number(out, label, result);
                return;
        }
        name = strerrorname_np(errno);
        put(out, " ");
        put(out, label);
        put(out, *label ? "=" : "");
        put(out, name ? name : "E?");
}

void put_bytes(struct out *out, const char *label, const void *bytes, long long n)
{
        const char *b = bytes;

        if (n < 0) {
                put_result(out, label, n);
                return;
        }
        put(out, " ");
        put(out, label);
        put(out, *label ? "=" : "");
        put(out, "[");
        for (long long i = 0; i < n; i++) {
                char one[2] = {b[i] == '\n' ? '/' : b[i] ? b[i] : '@', 0};
                put(out, one);
        }
        put(out, "]");
}

void put_offset(struct out *out, int fd)
{
        put_result(out, "off", lseek(fd, 0, SEEK_CUR));
}

void matrix_child(struct group *group)
{
        for (int i = 0; i < group->count; i++) {
                struct cell cell = group->cells[i];
                struct out out = {.len = 0};
                int fd;

                cell.child = true;
                put(&out, cell.op->name);
                fd = dup_take(group->dup, &cell, group->index[i], group->sock[1]);
                if (fd < 0) {
                        errno = -fd;
                        put_result(&out, "descriptor", -1);
                } else {
                        cell.op->run(&cell, fd, &out);
                }
                out.len = out.len < sizeof(out.text) ? out.len : sizeof(out.text) - 1;
                put(&out, "\n");
                if (write(group->report, out.text, out.len) != (ssize_t)out.len)
                        _exit(125);
        }
}

static void die(const char *what)
{
        fprintf(stderr, "matrix: %s: %s\n", what, strerror(errno));
        exit(1);
}

static void make_file(const char *path, int lines)
{
        char text[MATRIX_LINE * MATRIX_LINES + 1];
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

        for (int i = 0; i < lines; i++)
                snprintf(text + MATRIX_LINE * i, MATRIX_LINE + 1, "%05d\n", i);
        if (fd < 0 || write(fd, text, MATRIX_LINE * lines) != MATRIX_LINE * lines || close(fd) < 0)
                die(path);
}

static void path_of(const struct op *op, char *ret_path)
{
        snprintf(ret_path, MATRIX_PARENT_MAX, "%s/m.%s", folder, op->directory ? "dir" : op->name);
}

/* Returns why the cell cannot be, or NULL. */
static const char *impossible(const struct group *group, const struct op *op)
{
        bool made = op->allocates && op->prepare;

        if (group->after == AFTER_NONE && create_needs_exec(group->create))
                return "it always runs a new image";
        if (group->after == AFTER_NONE && create_shares_memory(group->create) && op->allocates)
                return "not async-signal-safe on the parent's memory";
        if (made && group->after != AFTER_NONE)
                return "a stream does not live through exec";
        if (made && !dup_same_stream(group->dup))
                return "the stream is on another descriptor";
        return NULL;
}

static void open_cell(struct cell *cell, const struct op *op)
{
        char buf[256];

        *cell = (struct cell){.op = op, .origin = getpid()};
        path_of(op, cell->path);
        if (!op->directory)
                make_file(cell->path, MATRIX_LINES);
        cell->orig = cell->use = open(cell->path, op->flags);
        if (cell->orig < 0)
                die(cell->path);
        if (!op->directory && lseek(cell->orig, op->start, SEEK_SET) != op->start)
                die("lseek");
        if (op->directory && op->start && syscall(SYS_getdents64, cell->orig, buf, op->start) < 0)
                die("getdents64");
}

static void checksum(const char *path, struct out *out)
{
        char buf[65536];
        uint32_t hash = 2166136261u;
        long long size = 0;
        ssize_t n;
        int fd = open(path, O_RDONLY | O_CLOEXEC);

        while ((n = read(fd, buf, sizeof(buf))) > 0) {
                for (ssize_t i = 0; i < n; i++)
                        hash = (hash ^ (unsigned char)buf[i]) * 16777619u;
                size += n;
        }
        put_result(out, "size", n < 0 ? n : size);
        put_number(out, "sum", hash);
        close(fd);
}

static void close_cell(struct cell *cell)
{
        if (cell->made && cell->op->directory)
                closedir((void *)cell->made);
        else if (cell->made)
                fclose(cell->made);
        if (cell->use >= 0 && cell->use != cell->orig)
                close(cell->use);
        close(cell->orig);
}

static void print_cell(struct cell *cell, const char *name, const char *reports)
{
        struct out parent = {.len = 0}, file = {.len = 0};
        size_t len = strlen(cell->op->name);
        const char *line = reports, *child = " nothing";
        int child_len = strlen(child), fd = cell->made ? cell->use : cell->orig;

        while (*line) {
                const char *end = strchrnul(line, '\n');
                if (!strncmp(line, cell->op->name, len) && line[len] == ' ') {
                        child = line + len;
                        child_len = end - child;
                }
                line = *end ? end + 1 : end;
        }
        cell->op->run(cell, fd, &parent);
        close_cell(cell);
        if (!cell->op->directory) {
                checksum(cell->path, &file);
                unlink(cell->path);
        }
        printf("%s/%s: child%.*s | parent%.*s | file%.*s\n", name, cell->op->name, child_len, child,
               (int)parent.len, parent.text, (int)file.len, file.text);
}

/* The new image's command line: --child DIR DUP REPORT SOCK ORIGIN {OPERATION DESCRIPTOR}… */
static void make_argv(struct group *group, char **argv, char (*numbers)[12])
{
        int n = 0, k = 0;

        argv[n++] = self;
        argv[n++] = (char *)"--child";
        argv[n++] = (char *)folder;
        snprintf(numbers[k], 12, "%d", (int)group->dup);
        argv[n++] = numbers[k++];
        snprintf(numbers[k], 12, "%d", group->report);
        argv[n++] = numbers[k++];
        snprintf(numbers[k], 12, "%d", group->sock[1]);
        argv[n++] = numbers[k++];
        snprintf(numbers[k], 12, "%d", (int)getpid());
        argv[n++] = numbers[k++];
        for (int i = 0; i < group->count; i++) {
                snprintf(numbers[k], 12, "%d", group->index[i]);
                argv[n++] = numbers[k++];
                snprintf(numbers[k], 12, "%d", group->cells[i].use);
                argv[n++] = numbers[k++];
        }
        argv[n] = NULL;
        group->argv = argv;
}

static int child_main(int argc, char **argv)
{
        struct cell cells[MATRIX_CELLS];
        int index[MATRIX_CELLS];
        struct group group = {.cells = cells, .index = index};

        folder = argv[2];
        group.dup = atoi(argv[3]);
        group.report = atoi(argv[4]);
        group.sock[1] = atoi(argv[5]);
        for (int i = 7; i + 1 < argc && group.count < MATRIX_CELLS; i += 2) {
                struct cell *cell = &cells[group.count];
                index[group.count++] = atoi(argv[i]);
                *cell = (struct cell){.op = ops[atoi(argv[i])],
                                      .use = atoi(argv[i + 1]),
                                      .origin = atoi(argv[6])};
                path_of(cell->op, cell->path);
        }
        matrix_child(&group);
        return 0;
}

static void run_group(struct group *group, const char *name)
{
        static char reports[64 * 1024];
        char *argv[2 * MATRIX_CELLS + 8], numbers[2 * MATRIX_CELLS + 8][12], decoy[PATH_MAX];
        int report[2];

        snprintf(decoy, sizeof(decoy), "%s/m.decoy", folder);
        if (pipe(report) < 0 || socketpair(AF_UNIX, SOCK_DGRAM, 0, group->sock) < 0)
                die("pipe");
        fcntl(report[0], F_SETFD, FD_CLOEXEC);
        fcntl(group->sock[0], F_SETFD, FD_CLOEXEC);
        group->report = report[1];
        for (int i = 0; i < group->count; i++) {
                struct cell *cell = &group->cells[i];
                open_cell(cell, ops[group->index[i]]);
                cell->use = dup_leave(group->dup, cell, group->index[i], decoy, group->sock[0]);
                if (cell->use < -1)
                        die("duplicate");
                if (cell->op->prepare)
                        cell->op->prepare(cell);
        }
        make_argv(group, argv, numbers);
        fflush(stdout);
        create_and_wait(group, report[0], reports, sizeof(reports));
        for (int i = 0; i < group->count; i++)
                print_cell(&group->cells[i], name, reports);
        printf("%s: %s", name, strstr(reports, "\nend") ? strstr(reports, "\nend") + 1 : reports);
        close(report[0]);
        close(group->sock[0]);
        close(group->sock[1]);
        unlink(decoy);
}

struct choice {
        bool alone;
        const char *only, *op;
        int done;
};

static void one_group(struct group *group, struct choice *choice)
{
        struct cell cells[MATRIX_CELLS];
        int index[MATRIX_CELLS];
        char name[100];

        snprintf(name, sizeof(name), "%s/%s/%s", create_names[group->create],
                 after_names[group->after], dup_names[group->dup]);
        if (choice->only && strncmp(name, choice->only, strlen(choice->only)))
                return;
        group->cells = cells;
        group->index = index;
        group->count = 0;
        for (int i = 0; i < ops_count; i++) {
                const char *why = impossible(group, ops[i]);
                if (choice->op && strcmp(choice->op, ops[i]->name))
                        continue;
                if (why) {
                        printf("%s/%s: n/a: %s\n", name, ops[i]->name, why);
                        continue;
                }
                index[group->count++] = i;
                if (choice->alone) {
                        run_group(group, name);
                        group->count = 0;
                }
        }
        if (group->count)
                run_group(group, name);
        choice->done++;
}

static void all_groups(struct choice *choice)
{
        struct timespec now;

        for (int create = 0; create < CREATIONS; create++)
                for (int after = 0; after < AFTERS; after++) {
                        for (int kind = 0; kind < DUP_KINDS; kind++) {
                                struct group group = {
                                        .create = create, .after = after, .dup = kind};
                                one_group(&group, choice);
                        }
                        clock_gettime(CLOCK_MONOTONIC, &now);
                        fprintf(stderr, "# %ld.%03ld %s/%s\n", (long)now.tv_sec,
                                now.tv_nsec / 1000000, create_names[create], after_names[after]);
                }
}

static void make_directory(bool make)
{
        char path[PATH_MAX];

        snprintf(path, sizeof(path), "%s/m.dir", folder);
        if (make && mkdir(path, 0755) < 0)
                die(path);
        for (int i = 0; i < MATRIX_ENTRIES; i++) {
                snprintf(path, sizeof(path), "%s/m.dir/e%02d", folder, i);
                if (make)
                        make_file(path, i);
                else
                        unlink(path);
        }
        snprintf(path, sizeof(path), "%s/m.dir", folder);
        if (!make && rmdir(path) < 0)
                die(path);
}

int main(int argc, char **argv)
{
        struct choice choice = {0};
        ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

        umask(022);
        for (size_t i = 0; i < matrix_io_ops_count; i++)
                ops[ops_count++] = &matrix_io_ops[i];
        for (size_t i = 0; i < matrix_file_ops_count; i++)
                ops[ops_count++] = &matrix_file_ops[i];
        if (argc > 7 && !strcmp(argv[1], "--child"))
                return child_main(argc, argv);
        for (int i = 1; i < argc; i++) {
                if (!strcmp(argv[i], "--alone"))
                        choice.alone = true;
                else if (!strcmp(argv[i], "--only") && i + 1 < argc)
                        choice.only = argv[++i];
                else if (!strcmp(argv[i], "--op") && i + 1 < argc)
                        choice.op = argv[++i];
                else
                        folder = argv[i];
        }
        if (!folder || n < 0 || strchr(folder, '\'')) {
                fprintf(stderr, "usage: matrix [--alone] [--only PREFIX] [--op NAME] DIR\n");
                return 2;
        }
        make_directory(true);
        all_groups(&choice);
        make_directory(false);
        printf("%d groups of %d operations\n", choice.done, ops_count);
        return fflush(stdout) == 0 ? 0 : 1;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is done with stdio, directories, locks, flags and attributes.
 *
 * "made" operations use a FILE or DIR that the parent made and used before the child existed, with
 * something in its buffer: the child goes on with its own copy of that memory.
 */
#include "matrix.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WHO(cell) ((cell)->child ? "<child>" : "(paren)")

static void read_stream(FILE *stream, struct out *out)
{
        char buf[8], line[16] = "";

        put_bytes(out, "", buf, fread(buf, 1, 7, stream));
        put_number(out, "tell", ftello(stream));
        if (fgets(line, sizeof(line), stream))
                put_bytes(out, "line", line, strlen(line));
        put_number(out, "c", fgetc(stream));
        put_offset(out, fileno(stream));
        put_result(out, "fflush", fflush(stream));
        put_offset(out, fileno(stream));
        put_result(out, "fseek", fseeko(stream, 5000, SEEK_SET));
        put_bytes(out, "there", buf, fread(buf, 1, 5, stream));
        put_number(out, "tell", ftello(stream));
        put_number(out, "ungetc", ungetc('x', stream));
}

static void do_fread(struct cell *cell, int fd, struct out *out)
{
        FILE *stream = fdopen(fd, "r");

        if (!stream) {
                put_result(out, "fdopen", -1);
                return;
        }
        read_stream(stream, out);
        put_result(out, "fclose", fclose(stream));
        put_result(out, "closed", fcntl(fd, F_GETFD));
}

static void prepare_fread(struct cell *cell)
{
        char buf[8];

        cell->made = fdopen(cell->use, "r");
        if (!cell->made || fread(buf, 1, 7, cell->made) != 7)
                abort();
}

static void do_made_fread(struct cell *cell, int fd, struct out *out)
{
        read_stream(cell->made, out);
}

static void write_stream(struct cell *cell, FILE *stream, struct out *out)
{
        char buf[8];

        put_number(out, "printed", fprintf(stream, "%s%d\n", WHO(cell), 7));
        put_number(out, "tell", ftello(stream));
        put_offset(out, fileno(stream));
        put_result(out, "fflush", fflush(stream));
        put_offset(out, fileno(stream));
        put_result(out, "fseek", fseeko(stream, 100, SEEK_SET));
        put_bytes(out, "there", buf, fread(buf, 1, 5, stream));
        put_result(out, "fseek", fseeko(stream, 0, SEEK_CUR));
        put_number(out, "putc", fputc('!', stream));
        put_result(out, "fflush", fflush(stream));
        put_offset(out, fileno(stream));
}

static void do_fwrite(struct cell *cell, int fd, struct out *out)
{
        FILE *stream = fdopen(fd, "r+");

        if (!stream) {
                put_result(out, "fdopen", -1);
                return;
        }
        write_stream(cell, stream, out);
        put_number(out, "puts", fputs("at the end", stream) >= 0);
        put_result(out, "fclose", fclose(stream));
}

/* What is in the buffer at the fork gets written by both, as everybody learns once. */
static void prepare_fwrite(struct cell *cell)
{
        cell->made = fdopen(cell->use, "r+");
        if (!cell->made || fputs("unflushed ", cell->made) < 0)
                abort();
}

static void do_made_fwrite(struct cell *cell, int fd, struct out *out)
{
        write_stream(cell, cell->made, out);
}

static void read_directory(DIR *dir, struct out *out)
{
        struct dirent *entry;
        uint32_t hash = 2166136261u;
        int n = 0;

        while ((entry = readdir(dir))) {
                if (n++ == 0)
                        put_bytes(out, "first", entry->d_name, strlen(entry->d_name));
                for (const char *c = entry->d_name; *c; c++)
                        hash = (hash ^ (unsigned char)*c) * 16777619u;
                hash = (hash ^ entry->d_type) * 16777619u;
        }
        put_number(out, "n", n);
        put_number(out, "hash", hash);
}

static void do_readdir(struct cell *cell, int fd, struct out *out)
{
        DIR *dir = fdopendir(fd);

        if (!dir) {
                put_result(out, "fdopendir", -1);
                return;
        }
        read_directory(dir, out);
        rewinddir(dir);
        read_directory(dir, out);
        put_result(out, "closedir", closedir(dir));
}

static void prepare_readdir(struct cell *cell)
{
        cell->made = fdopendir(cell->use);
        for (int i = 0; i < 5; i++)
                if (!cell->made || !readdir(cell->made))
                        abort();
}

static void do_made_readdir(struct cell *cell, int fd, struct out *out)
{
        long here = telldir(cell->made);

        read_directory(cell->made, out);
        seekdir(cell->made, here);
        read_directory(cell->made, out);
        seekdir(cell->made, here);
}

static void do_getdents(struct cell *cell, int fd, struct out *out)
{
        char buf[240] __attribute__((aligned(8)));
        long n = syscall(SYS_getdents64, fd, buf, sizeof(buf));

        put_result(out, "", n);
        for (long i = 0; i < n;) {
                const char *name = buf + i + offsetof(struct dirent64, d_name);
                unsigned short length;
                memcpy(&length, buf + i + offsetof(struct dirent64, d_reclen), sizeof(length));
                put_bytes(out, "", name, strlen(name));
                i += length;
        }
}

static void do_openat(struct cell *cell, int fd, struct out *out)
{
        struct stat st = {0};
        char buf[8];
        int inside = openat(fd, "e07", O_RDONLY | O_CLOEXEC);

        put_result(out, "openat", inside < 0 ? -1 : 0);
        put_bytes(out, "", buf, read(inside, buf, 7));
        close(inside);
        put_result(out, "fstatat", fstatat(fd, "e08", &st, 0));
        put_number(out, "size", st.st_size);
        put_result(out, "missing", openat(fd, "none", O_RDONLY | O_CLOEXEC));
        put_result(out, "faccessat", faccessat(fd, "e09", R_OK, 0));
        put_result(out, "mkdirat", mkdirat(fd, cell->child ? "dc" : "dp", 0755));
        put_result(out, "unlinkat", unlinkat(fd, cell->child ? "dc" : "dp", AT_REMOVEDIR));
}

static void do_flock(struct cell *cell, int fd, struct out *out)
{
        int other = open(cell->path, O_RDWR | O_CLOEXEC);

        put_result(out, "flock", flock(fd, LOCK_EX | LOCK_NB));
        put_result(out, "other", flock(other, LOCK_SH | LOCK_NB));
        close(other);
        other = open(cell->path, O_RDWR | O_CLOEXEC);
        put_result(out, "still", flock(other, LOCK_SH | LOCK_NB));
        close(other);
}

static void do_ofd_lock(struct cell *cell, int fd, struct out *out)
{
        struct flock lock = {.l_type = F_WRLCK, .l_len = 10};
        struct flock there = {.l_type = F_WRLCK, .l_len = 10};
        int other = open(cell->path, O_RDWR | O_CLOEXEC);

        put_result(out, "lock", fcntl(fd, F_OFD_SETLK, &lock));
        put_result(out, "getlk", fcntl(other, F_OFD_GETLK, &there));
        put_number(out, "type", there.l_type);
        put_number(out, "pid", there.l_pid);
        close(other);
}

static void look_at_lock(struct cell *cell, int fd, struct out *out)
{
        struct flock there = {.l_type = F_WRLCK, .l_len = 4};

        put_result(out, "getlk", fcntl(fd, F_GETLK, &there));
        put_number(out, "type", there.l_type);
        put_number(out, "by-opener", there.l_type != F_UNLCK && there.l_pid == cell->origin);
}

static void prepare_posix_lock(struct cell *cell)
{
        struct flock lock = {.l_type = F_WRLCK, .l_len = 4};

        if (fcntl(cell->orig, F_SETLK, &lock) < 0)
                abort();
}

/* Asked through another description: that sees this process's own locks, too.  To be called last,
 * because closing it drops them. */
static void look_from_outside(struct cell *cell, struct out *out)
{
        static const off_t starts[] = {0, 8};
        int other = open(cell->path, O_RDWR | O_CLOEXEC);

        for (int i = 0; i < 2; i++) {
                struct flock there = {.l_type = F_WRLCK, .l_start = starts[i], .l_len = 4};
                put_result(out, "getlk", fcntl(other, F_OFD_GETLK, &there));
                put_number(out, "type", there.l_type);
                put_number(out, "own", there.l_type != F_UNLCK && there.l_pid == getpid());
        }
        close(other);
}

/* Whoever opens and closes a file behind a program's back takes its POSIX locks away; the lock is
 * made where a library does not see it, so that the read is the first it sees. */
static void do_posix_lock(struct cell *cell, int fd, struct out *out)
{
        struct flock own = {.l_type = F_WRLCK, .l_start = 8, .l_len = 4};
        char buf[8];

        put_result(out, "own", syscall(SYS_fcntl, fd, F_SETLK, &own));
        put_bytes(out, "", buf, read(fd, buf, 7));
        if (cell->child)
                look_at_lock(cell, fd, out);
        put_offset(out, fd);
        look_from_outside(cell, out);
}

static void do_setfl(struct cell *cell, int fd, struct out *out)
{
        int mask = O_ACCMODE | O_APPEND | O_NONBLOCK, flags = fcntl(fd, F_GETFL);

        put_number(out, "getfl", flags & mask);
        put_result(out, "setfl", fcntl(fd, F_SETFL, flags ^ O_APPEND ^ O_NONBLOCK));
        put_number(out, "getfl", fcntl(fd, F_GETFL) & mask);
        put_result(out, "wrote", write(fd, WHO(cell), 7));
        put_offset(out, fd);
}

/* Counted by system calls of our own, so that a library's descriptors cannot hide. */
static int count_descriptors(void)
{
        int count = 0;

        for (int i = 0; i < 1024; i++)
                count += syscall(SYS_fcntl, i, F_GETFD) >= 0;
        return count;
}

static void do_dup_and_close(struct cell *cell, int fd, struct out *out)
{
        int count = count_descriptors(), copy = dup(fd), above;
        char buf[8];

        put_number(out, "cloexec", fcntl(fd, F_GETFD));
        put_bytes(out, "copy", buf, read(copy, buf, 4));
        close(copy);
        above = fcntl(fd, F_DUPFD_CLOEXEC, 700);
        put_number(out, "above", above);
        put_bytes(out, "", buf, read(above, buf, 4));
        put_result(out, "close", close(above));
        put_result(out, "again", close(above));
        put_bytes(out, "", buf, read(fd, buf, 4));
        put_offset(out, fd);
        put_number(out, "left-open", count_descriptors() - count);
}

static void do_fstat(struct cell *cell, int fd, struct out *out)
{
        struct stat st = {0}, by_path = {0};
        struct statx stx = {0};

        put_result(out, "fstat", fstat(fd, &st));
        put_result(out, "stat", stat(cell->path, &by_path));
        put_number(out, "same", st.st_ino == by_path.st_ino && st.st_dev == by_path.st_dev);
        put_number(out, "size", st.st_size);
        put_number(out, "mode", st.st_mode);
        put_number(out, "nlink", st.st_nlink);
        put_result(out, "statx", statx(fd, "", AT_EMPTY_PATH, STATX_SIZE, &stx));
        put_number(out, "size", stx.stx_size);
        put_result(out, "fchmod", fchmod(fd, cell->child ? 0640 : 0600));
        put_result(out, "fstat", fstat(fd, &st));
        put_number(out, "mode", st.st_mode);
        put_offset(out, fd);
}

const struct op matrix_file_ops[] = {
        {.name = "fread", .flags = O_RDONLY, .start = 10, .allocates = true, .run = do_fread},
        {.name = "fwrite", .flags = O_RDWR, .start = 10, .allocates = true, .run = do_fwrite},
        {.name = "made-fread",
         .flags = O_RDONLY,
         .start = 10,
         .allocates = true,
         .prepare = prepare_fread,
         .run = do_made_fread},
        {.name = "made-fwrite",
         .flags = O_RDWR,
         .start = 10,
         .allocates = true,
         .prepare = prepare_fwrite,
         .run = do_made_fwrite},
        {.name = "readdir",
         .flags = O_RDONLY | O_DIRECTORY,
         .directory = true,
         .start = 240,
         .allocates = true,
         .run = do_readdir},
        {.name = "made-readdir",
         .flags = O_RDONLY | O_DIRECTORY,
         .directory = true,
         .allocates = true,
         .prepare = prepare_readdir,
         .run = do_made_readdir},
        {.name = "getdents64",
         .flags = O_RDONLY | O_DIRECTORY,
         .directory = true,
         .start = 240,
         .run = do_getdents},
        {.name = "openat", .flags = O_RDONLY | O_DIRECTORY, .directory = true, .run = do_openat},
        {.name = "flock", .flags = O_RDWR, .start = 10, .run = do_flock},
        {.name = "F_OFD_SETLK", .flags = O_RDWR, .start = 10, .run = do_ofd_lock},
        {.name = "F_SETLK",
         .flags = O_RDWR,
         .start = 10,
         .prepare = prepare_posix_lock,
         .run = do_posix_lock},
        {.name = "F_SETFL", .flags = O_RDWR, .start = 10, .run = do_setfl},
        {.name = "dup-close", .flags = O_RDONLY, .start = 10, .run = do_dup_and_close},
        {.name = "fstat", .flags = O_RDWR, .start = 10, .run = do_fstat},
};
const size_t matrix_file_ops_count = sizeof(matrix_file_ops) / sizeof(matrix_file_ops[0]);

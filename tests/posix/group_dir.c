/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading directories: types, inode numbers, small buffers, positions, many entries, and changes
 * meanwhile.
 */
#include "parity.h"

#include <linux/fs.h>

#define MANY 5000

struct linux_dirent64 {
        uint64_t d_ino;
        int64_t d_off;
        unsigned short d_reclen;
        unsigned char d_type;
        char d_name[];
};

static void make_each(struct run *r)
{
        put(r, "file", "x");
        SET(r, mkdir("dir", 0755));
        SET(r, symlink("file", "link"));
        SET(r, mkfifo("fifo", 0644));
        SET(r, mknod("socket", S_IFSOCK | 0644, 0));
        if (r->root) {
                SET(r, mknod("char", S_IFCHR | 0644, 0x103));
                SET(r, mknod("block", S_IFBLK | 0644, 0x700));
        }
}

/* d_ino of every entry against lstat(), '.' and '..' too. */
static void inode_numbers(struct run *r, const char *path)
{
        DIR *dir = opendir(path);
        struct dirent *entry;
        unsigned right = 0, wrong = 0;

        step(r, "d_ino in '%s'", path);
        if (dir == NULL) {
                rec(r, "opendir: %s", strerrorname_np(errno));
                return;
        }
        while ((entry = readdir(dir)) != NULL) {
                struct stat st;

                if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
                    st.st_ino == entry->d_ino) {
                        right++;
                } else {
                        wrong++;
                        rec(r, "wrong: %s", entry->d_name);
                }
        }
        closedir(dir);
        rec(r, "%u right %u wrong", right, wrong);
}

static void small_buffers(struct run *r)
{
        static const size_t sizes[] = {0,  1,  19,  23,  24,   25,   32,
                                       40, 64, 100, 280, 1000, 4096, 32768};
        static char buffer[32768];
        size_t i;

        for (i = 0; i < N_ELEMENTS(sizes); i++) {
                int fd = SET(r, open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
                unsigned entries = 0;
                uint64_t sum = 0;
                long n;

                step(r, "getdents64 by %zu", sizes[i]);
                while ((n = syscall(SYS_getdents64, fd, buffer, sizes[i])) > 0) {
                        long at;

                        for (at = 0; at < n;) {
                                struct linux_dirent64 *entry = (void *)(buffer + at);
                                const char *p;
                                uint64_t h = 5381;

                                for (p = entry->d_name; *p != '\0'; p++)
                                        h = h * 33 + (unsigned char)*p;
                                sum += h * (entry->d_type + 1u);
                                entries++;
                                at += entry->d_reclen;
                        }
                }
                rec(r, "%u entries, sum %" PRIx64, entries, sum);
                rec_result(r, n);
                SAY(r, syscall(SYS_getdents64, fd, buffer, sizes[i]), "and again by %zu", sizes[i]);
                SAY(r, lseek(fd, 0, SEEK_SET), "rewind by %zu", sizes[i]);
                n = syscall(SYS_getdents64, fd, buffer, sizeof buffer);
                rec(r, "%s", n > 0 ? "entries again" : strerrorname_np(errno));
                close(fd);
        }
}

void group_readdir(struct run *r)
{
        char buffer[1024];
        int file, dir;

        make_each(r);
        step(r, "each type");
        rec_listing(r, ".");
        step(r, "an empty directory");
        rec_listing(r, "dir");
        inode_numbers(r, ".");
        SET(r, mkdir("dir/sub", 0755));
        inode_numbers(r, "dir");
        inode_numbers(r, "dir/sub");
        small_buffers(r);
        file = open("file", O_RDONLY | O_CLOEXEC);
        SAY(r, syscall(SYS_getdents64, file, buffer, sizeof buffer), "getdents64 of a file");
        dir = open("dir", O_PATH | O_CLOEXEC);
        SAY(r, syscall(SYS_getdents64, dir, buffer, sizeof buffer), "getdents64 of O_PATH");
        dir = open("dir/sub", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        SET(r, rmdir("dir/sub"));
        SAY(r, syscall(SYS_getdents64, dir, buffer, sizeof buffer),
            "getdents64 of a removed directory");
        dir = open("dir", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        SAY(r, syscall(SYS_getdents64, dir, bad_address(), 1024), "getdents64 to a bad address");
        step(r, "opendir of a file");
        rec_listing(r, "file");
        step(r, "opendir of nothing");
        rec_listing(r, "absent");
        step(r, "opendir by a link");
        SET(r, symlink("dir", "dirlink"));
        rec_listing(r, "dirlink");
}

static void make_many(struct run *r)
{
        unsigned i;

        for (i = 0; i < MANY; i++) {
                char name[40];
                int fd;

                snprintf(name, sizeof name, "many/entry-number-%05u", i);
                fd = SET(r, open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
                close(fd);
        }
}

/* The position of every tenth entry is remembered, and leads back to it. */
static void positions(struct run *r)
{
        static long at[MANY / 10 + 1];
        static char names[MANY / 10 + 1][32];
        DIR *dir = opendir("many");
        struct dirent *entry;
        unsigned n = 0, kept = 0, right = 0, i;
        long end;

        step(r, "telldir and seekdir");
        if (dir == NULL)
                return;
        for (;;) {
                long here = telldir(dir);

                entry = readdir(dir);
                if (entry == NULL)
                        break;
                if (n++ % 10 == 0) {
                        at[kept] = here;
                        snprintf(names[kept++], sizeof names[0], "%.31s", entry->d_name);
                }
        }
        end = telldir(dir);
        for (i = 0; i < kept; i++) {
                unsigned k = i * 7 % kept;

                seekdir(dir, at[k]);
                entry = readdir(dir);
                right += entry != NULL && strncmp(entry->d_name, names[k], 31) == 0;
        }
        rec(r, "%u entries, %u of %u positions right", n, right, kept);
        seekdir(dir, end);
        rec(r, "at the end: %s", readdir(dir) == NULL ? "nothing" : "an entry");
        rewinddir(dir);
        for (n = 0; readdir(dir) != NULL; n++)
                ;
        rec(r, "%u after rewinddir", n);
        put(r, "many/added", "x");
        rewinddir(dir);
        for (n = 0; readdir(dir) != NULL; n++)
                ;
        rec(r, "%u after adding one and rewinddir", n);
        SET(r, unlink("many/added"));
        closedir(dir);
}

void group_readdir_large(struct run *r)
{
        unsigned i, seen = 0;
        DIR *one, *two;

        SET(r, mkdir("many", 0755));
        make_many(r);
        step(r, "all entries");
        rec_listing(r, "many");
        positions(r);
        one = opendir("many");
        two = opendir("many");
        step(r, "two readers in turn");
        if (one == NULL || two == NULL)
                return;
        for (i = 0; i < MANY + 2; i++) {
                struct dirent *a = readdir(one), *b = readdir(two);

                seen += a != NULL && b != NULL && strcmp(a->d_name, b->d_name) == 0;
        }
        rec(r, "%u the same", seen);
        closedir(one);
        closedir(two);
        SAY(r, rmdir("many"), "rmdir of it");
}

/* Every entry that stays is seen once, whatever is removed meanwhile. */
static void remove_meanwhile(struct run *r)
{
        static unsigned char seen[MANY];
        DIR *dir = opendir("many");
        struct dirent *entry;
        unsigned i, once = 0, twice = 0;

        step(r, "unlink while reading");
        if (dir == NULL)
                return;
        while ((entry = readdir(dir)) != NULL) {
                unsigned n;

                if (sscanf(entry->d_name, "entry-number-%u", &n) != 1 || n >= MANY)
                        continue;
                seen[n]++;
                if (n % 2 == 0)
                        SET(r, unlinkat(dirfd(dir), entry->d_name, 0));
        }
        closedir(dir);
        for (i = 0; i < MANY; i++) {
                once += seen[i] == 1;
                twice += seen[i] > 1;
        }
        rec(r, "once %u twice %u", once, twice);
        rec_listing(r, "many");
}

void group_readdir_changing(struct run *r)
{
        DIR *dir;
        struct dirent *entry;
        unsigned n = 0, removed = 0;
        char name[300];

        SET(r, mkdir("many", 0755));
        make_many(r);
        remove_meanwhile(r);
        dir = opendir("many");
        step(r, "rename all while reading");
        if (dir == NULL)
                return;
        while ((entry = readdir(dir)) != NULL && n < 3 * MANY) {
                if (strncmp(entry->d_name, "entry", 5) != 0)
                        continue;
                n++;
                snprintf(name, sizeof name, "../out-%s", entry->d_name);
                SET(r, renameat(dirfd(dir), entry->d_name, dirfd(dir), name));
        }
        rec(r, "%u moved", n);
        closedir(dir);
        rec_listing(r, "many");
        dir = opendir(".");
        step(r, "rm -rf, as nftw does");
        if (dir == NULL)
                return;
        while ((entry = readdir(dir)) != NULL) {
                if (strncmp(entry->d_name, "out-", 4) == 0) {
                        SET(r, unlink(entry->d_name));
                        removed++;
                }
        }
        closedir(dir);
        rec(r, "%u removed", removed);
        SAY(r, rmdir("many"), "rmdir of the emptied");
        rec_listing(r, ".");
}

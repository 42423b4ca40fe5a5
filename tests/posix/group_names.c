/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What makes and removes names: mkdir, mknod, symlink, link, unlink; odd, long and deep names; '.'
 * and '..'.
 */
#include "parity.h"

#include <sys/sysmacros.h>

static const char *const targets[] = {
        "file",      "absent",   "dir",       "full",     "link",     "dangling", "dirlink",
        "fifo",      ".",        "..",        "/",        "",         "dir/",     "absent/",
        "file/",     "dirlink/", "dir/.",     "dir/..",   "file/x",   "absent/x", "dir/x",
        "dirlink/x", "link/x",   "dir//x///", "dir/../y", "dangling/"};

/* Everything in `targets` as it is told by its name; safe to call again. */
static void make_targets(struct run *r)
{
        put(r, "file", "content");
        mkdir("dir", 0755);
        mkdir("full", 0755);
        put(r, "full/in", "x");
        if (symlink("file", "link") < 0 && errno != EEXIST)
                set_failed(r, "symlink", __LINE__);
        if (symlink("nowhere", "dangling") < 0 && errno != EEXIST)
                set_failed(r, "symlink", __LINE__);
        if (symlink("dir", "dirlink") < 0 && errno != EEXIST)
                set_failed(r, "symlink", __LINE__);
        mkfifo("fifo", 0644);
}

static void remove_made(void)
{
        static const char *const made[] = {"absent", "nowhere", "dir/x", "y"};
        size_t i;

        for (i = 0; i < N_ELEMENTS(made); i++) {
                if (unlink(made[i]) < 0)
                        rmdir(made[i]);
        }
}

void group_mkdir(struct run *r)
{
        static const mode_t modes[] = {0, 0777, 0700, 01777, 02755, 04755, 07777};
        size_t i;
        int dir;

        make_targets(r);
        for (i = 0; i < N_ELEMENTS(targets); i++) {
                SAY(r, mkdir(targets[i], 0755), "mkdir '%s'", targets[i]);
                rec_lstat(r, ".");
                rec_listing(r, ".");
                rec_listing(r, "dir");
                remove_made();
        }
        for (i = 0; i < N_ELEMENTS(targets); i++) {
                SAY(r, rmdir(targets[i]), "rmdir '%s'", targets[i]);
                rec_lstat(r, ".");
                rec_listing(r, ".");
                make_targets(r);
        }
        for (i = 0; i < N_ELEMENTS(modes); i++) {
                SAY(r, mkdir("moded", modes[i]), "mkdir with %04o", modes[i]);
                rec_lstat(r, "moded");
                SET(r, rmdir("moded"));
        }
        SET(r, mkdir("open", 0755));
        dir = open("open", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        SET(r, mkdir("open/sub", 0755));
        step(r, "links of a directory with one in it");
        rec_fstat(r, dir);
        SAY(r, rmdir("open"), "rmdir of a full directory");
        SET(r, rmdir("open/sub"));
        SAY(r, rmdir("open"), "rmdir of an open directory");
        rec_fstat(r, dir);
        SAY(r, mkdirat(dir, "sub", 0755), "mkdir in a removed directory");
        SAY(r, unlinkat(dir, "sub", AT_REMOVEDIR), "rmdir in a removed directory");
        SAY(r, unlinkat(AT_FDCWD, "dir", 0x4000), "unlinkat with an unknown flag");
        SAY(r, unlinkat(dir, "", AT_REMOVEDIR), "unlinkat of an empty name");
}

void group_mknod(struct run *r)
{
        static const struct {
                const char *name;
                mode_t mode;
        } types[] = {{"no type", 0},         {"regular", S_IFREG}, {"fifo", S_IFIFO},
                     {"socket", S_IFSOCK},   {"char", S_IFCHR},    {"block", S_IFBLK},
                     {"directory", S_IFDIR}, {"symlink", S_IFLNK}, {"unknown", 0110000}};
        static const struct {
                unsigned major, minor;
        } numbers[] = {{0, 0}, {1, 3}, {255, 255}, {259, 70000}, {4095, 1048575}};
        size_t i, k;

        make_targets(r);
        for (i = 0; i < N_ELEMENTS(types); i++) {
                for (k = 0; k < N_ELEMENTS(numbers); k++) {
                        SAY(r,
                            mknod("node", types[i].mode | 0644,
                                  makedev(numbers[k].major, numbers[k].minor)),
                            "mknod %s %u:%u", types[i].name, numbers[k].major, numbers[k].minor);
                        rec_lstat(r, "node");
                        rec_listing(r, ".");
                        unlink("node");
                }
        }
        for (i = 0; i < N_ELEMENTS(targets); i++) {
                SAY(r, mknod(targets[i], S_IFREG | 0600, 0), "mknod at '%s'", targets[i]);
                remove_made();
                SAY(r, mknod(targets[i], S_IFIFO | 0600, 0), "mkfifo at '%s'", targets[i]);
                remove_made();
        }
        SAY(r, mknod("bits", S_IFREG | 07777, 0), "mknod with all bits");
        rec_lstat(r, "bits");
}

void group_symlink(struct run *r)
{
        static const size_t lengths[] = {1, 59, 60, 61, 255, 256, 1000, 4094, 4095, 4096};
        static char text[5000], back[5000];
        size_t i;
        int fd;

        make_targets(r);
        for (i = 0; i < N_ELEMENTS(lengths); i++) {
                pattern(text, lengths[i], i);
                text[lengths[i]] = '\0';
                SAY(r, symlink(text, "long"), "symlink of %zu bytes", lengths[i]);
                rec_lstat(r, "long");
                rec_data(
                        r, back,
                        SAY(r, readlink("long", back, sizeof back), "readlink of %zu", lengths[i]));
                rec_data(r, back,
                         SAY(r, readlink("long", back, 10), "readlink of %zu into 10", lengths[i]));
                SAY(r, readlink("long", back, 0), "readlink of %zu into 0", lengths[i]);
                SAY(r, access("long", F_OK), "access through %zu", lengths[i]);
                unlink("long");
        }
        SAY(r, symlink("", "empty"), "symlink to nothing");
        for (i = 0; i < N_ELEMENTS(targets); i++) {
                SAY(r, symlink("to", targets[i]), "symlink at '%s'", targets[i]);
                remove_made();
                SAY(r, readlink(targets[i], back, sizeof back), "readlink of '%s'", targets[i]);
        }
        SET(r, symlink("\x01\xff weird \n", "weird"));
        rec_data(r, back, SAY(r, readlink("weird", back, sizeof back), "odd bytes"));
        fd = open("weird", O_PATH | O_NOFOLLOW | O_CLOEXEC);
        SAY(r, readlinkat(fd, "", back, sizeof back), "readlinkat of the fd");
        SAY(r, chmod("dangling", 0600), "chmod through a dangling one");
        SAY(r, fchmodat(AT_FDCWD, "dangling", 0600, AT_SYMLINK_NOFOLLOW), "chmod of a symlink");
        for (i = 0; i < 45; i++) {
                char from[20], to[20];

                snprintf(from, sizeof from, "c%zu", i);
                snprintf(to, sizeof to, i == 0 ? "file" : "c%zu", i - 1);
                SET(r, symlink(to, from));
        }
        SAY(r, access("c38", F_OK), "a chain of 39");
        SAY(r, access("c39", F_OK), "a chain of 40");
        SAY(r, access("c40", F_OK), "a chain of 41");
        SAY(r, access("c44", F_OK), "a chain of 45");
}

void group_link(struct run *r)
{
        struct stat one, two;
        size_t i;
        int fd;

        make_targets(r);
        for (i = 0; i < N_ELEMENTS(targets); i++) {
                /* which file system '/' is on is nobody's business */
                if (strcmp(targets[i], "/") == 0)
                        continue;
                SAY(r, link(targets[i], "new"), "link of '%s'", targets[i]);
                rec_lstat(r, "new");
                unlink("new");
                SAY(r, link("file", targets[i]), "link to '%s'", targets[i]);
                rec_lstat(r, "file");
                remove_made();
                SAY(r, linkat(AT_FDCWD, targets[i], AT_FDCWD, "new", AT_SYMLINK_FOLLOW),
                    "link of '%s', followed", targets[i]);
                rec_lstat(r, "new");
                unlink("new");
        }
        for (i = 0; i < 50; i++) {
                char name[20];

                snprintf(name, sizeof name, "l%zu", i);
                SET(r, link("file", name));
        }
        SAY(r, link("file", "full/there"), "link in another directory");
        rec_lstat(r, "file");
        SET(r, stat("file", &one));
        SET(r, stat("full/there", &two));
        rec(r, "same inode %d", one.st_ino == two.st_ino && one.st_dev == two.st_dev);
        put(r, "l7", "written by one name");
        step(r, "read by another name");
        rec_file(r, "full/there");
        SET(r, chmod("l8", 0640));
        step(r, "chmod by one name");
        rec_lstat(r, "l9");
        SET(r, unlink("file"));
        step(r, "after unlink of the first name");
        rec_lstat(r, "full/there");
        fd = open("l1", O_RDONLY | O_CLOEXEC);
        SAY(r, linkat(fd, "", AT_FDCWD, "byfd", AT_EMPTY_PATH), "linkat of a descriptor");
        SAY(r, linkat(AT_FDCWD, "l1", AT_FDCWD, "flag", 0x8000), "linkat with an unknown flag");
        SAY(r, link("l1", "/proc/x"), "link to another file system");
        SAY(r, link("/proc/self/status", "x"), "link from another file system");
}

static void open_and_unlinked(struct run *r)
{
        char proc[40], buffer[64];
        int fd = SET(r, open("gone", O_RDWR | O_CREAT | O_CLOEXEC, 0644));
        int other;

        SET(r, write(fd, "before", 6));
        SAY(r, unlink("gone"), "unlink of an open file");
        rec_fstat(r, fd);
        SAY(r, write(fd, " after", 6), "write after unlink");
        rec_fstat(r, fd);
        rec_data(r, buffer, SAY(r, pread(fd, buffer, sizeof buffer, 0), "read after unlink"));
        SAY(r, ftruncate(fd, 3), "ftruncate after unlink");
        SAY(r, fchmod(fd, 0600), "fchmod after unlink");
        SAY(r, fsync(fd), "fsync after unlink");
        rec_fstat(r, fd);
        other = FD(r, open("gone", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644), "the name again");
        SET(r, write(other, "other", 5));
        rec_data(r, buffer,
                 SAY(r, pread(fd, buffer, sizeof buffer, 0), "the first is another file"));
        rec_file(r, "gone");
        snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
        SAY(r, linkat(AT_FDCWD, proc, AT_FDCWD, "back", AT_SYMLINK_FOLLOW), "link back by /proc");
        SAY(r, linkat(fd, "", AT_FDCWD, "back", AT_EMPTY_PATH), "link back by the fd");
        close(other);
        other = FD(r, open(proc, O_RDONLY | O_CLOEXEC), "open the unlinked by /proc");
        rec_data(r, buffer, SAY(r, pread(other, buffer, sizeof buffer, 0), "read it there"));
        rec_fstat(r, other);
        buffer[SET(r, readlink(proc, buffer, sizeof buffer - 1))] = '\0';
        close(other);
        close(fd);
        fd = SET(r, open("linked", O_RDWR | O_CREAT | O_CLOEXEC, 0644));
        SET(r, link("linked", "second"));
        SET(r, unlink("linked"));
        step(r, "one of two names unlinked");
        rec_fstat(r, fd);
        SET(r, unlink("second"));
        step(r, "both names unlinked");
        rec_fstat(r, fd);
}

void group_unlink(struct run *r)
{
        size_t i;

        make_targets(r);
        for (i = 0; i < N_ELEMENTS(targets); i++) {
                SAY(r, unlink(targets[i]), "unlink '%s'", targets[i]);
                rec_listing(r, ".");
                make_targets(r);
        }
        open_and_unlinked(r);
        for (i = 0; i < 30; i++) {
                int fd = SET(r, open("again", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));

                SET(r, write(fd, "0123456789", i % 10));
                SET(r, unlink("again"));
                close(fd);
        }
        put(r, "again", "last");
        step(r, "made and removed 30 times");
        rec_file(r, "again");
        rec_lstat(r, "again");
}

void group_names(struct run *r)
{
        static const char *const odd[] = {"-",         "-rf", "...",           " ",     "a\nb",
                                          "\\",        "*",   ".fuse_hidden1", ".k42",  "\xc3\xa4",
                                          "a\xcc\x88", "CON", "name.",         "name ", "A",
                                          "a",         "%s",  "\xff\xfe"};
        char name[8];
        size_t i;
        unsigned byte;

        for (byte = 1; byte < 256; byte++) {
                if (byte == '/')
                        continue;
                snprintf(name, sizeof name, "x%cy", (int)byte);
                put(r, name, name);
        }
        step(r, "every byte");
        rec_listing(r, ".");
        for (byte = 1; byte < 256; byte++) {
                if (byte == '/')
                        continue;
                snprintf(name, sizeof name, "x%cy", (int)byte);
                step(r, "byte %02x", byte);
                rec_file(r, name);
                rec_lstat(r, name);
                SET(r, unlink(name));
        }
        for (i = 0; i < N_ELEMENTS(odd); i++) {
                SAY(r, mkdir(odd[i], 0755), "mkdir of the odd name %zu", i);
                rec_lstat(r, odd[i]);
        }
        step(r, "the odd names");
        rec_listing(r, ".");
}

void group_deep(struct run *r)
{
        char path[40 * 20 + 20] = "";
        char name[256];
        struct stat st, here;
        size_t n = 0, i;
        int fd;

        for (i = 0; i < 40; i++) {
                n += (size_t)snprintf(path + n, sizeof path - n, "%slevel-%zu", i ? "/" : "", i);
                SAY(r, mkdir(path, 0755), "mkdir level %zu", i);
        }
        strcat(path, "/file");
        put(r, path, "deep");
        step(r, "a file 40 levels down");
        rec_file(r, path);
        rec_lstat(r, path);
        *strrchr(path, '/') = '\0';
        SAY(r, chdir(path), "chdir there");
        for (i = 0; i < 40; i++)
                SET(r, chdir(".."));
        SET(r, stat(".", &st));
        SET(r, stat(r->top, &here));
        step(r, "40 times up");
        rec(r, "we are back %d", st.st_ino == here.st_ino);
        memset(name, 'd', 255);
        name[255] = '\0';
        for (i = 0; i < 20; i++) {
                SAY(r, mkdir(name, 0755), "long name, level %zu", i);
                SAY(r, chdir(name), "into level %zu", i);
        }
        put(r, "file", "below PATH_MAX");
        step(r, "a file below PATH_MAX");
        rec_file(r, "file");
        SAY(r, rename("file", "file2"), "rename there");
        fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        SAY(r, unlinkat(fd, "file2", 0), "unlinkat there");
        for (i = 0; i < 20; i++) {
                SET(r, chdir(".."));
                SAY(r, rmdir(name), "up and rmdir %zu", i);
        }
}

void group_cwd(struct run *r)
{
        char path[PATH_MAX + 1];
        int dir, file;

        make_targets(r);
        SAY(r, chdir("dir"), "chdir");
        step(r, "getcwd");
        rec_path(r, getcwd(path, sizeof path) ?: strerrorname_np(errno));
        SET(r, rename("../dir", "../moved"));
        step(r, "getcwd after a rename");
        rec_path(r, getcwd(path, sizeof path) ?: strerrorname_np(errno));
        SAY(r, chdir("../file"), "chdir to a file");
        SAY(r, chdir("../absent"), "chdir to nothing");
        SAY(r, chdir("../dangling"), "chdir to a dangling link");
        SAY(r, chdir(".."), "chdir up");
        SET(r, rename("moved", "dir"));
        SAY(r, chdir("dirlink"), "chdir by a link");
        step(r, "getcwd there");
        rec_path(r, getcwd(path, sizeof path) ?: strerrorname_np(errno));
        SAY(r, rmdir("../dir"), "rmdir of the working directory");
        step(r, "getcwd in a removed directory");
        rec_path(r, getcwd(path, sizeof path) ?: strerrorname_np(errno));
        SAY(r, access(".", F_OK), "access of '.'");
        SAY(r, open("x", O_RDWR | O_CREAT | O_CLOEXEC, 0600) >= 0, "create in it");
        SAY(r, mkdir("x", 0700), "mkdir in it");
        SAY(r, chdir(".."), "up from it");
        SET(r, chdir(r->top));
        dir = open("full", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        file = open("file", O_RDONLY | O_CLOEXEC);
        SAY(r, fchdir(dir), "fchdir");
        rec_listing(r, ".");
        SAY(r, fchdir(file), "fchdir to a file");
        SAY(r, fchdir(99), "fchdir to nothing");
        SET(r, chdir(r->top));
        step(r, "/proc/self/cwd");
        path[SET(r, readlink("/proc/self/cwd", path, PATH_MAX))] = '\0';
        rec_path(r, path);
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
        {
                char back[PATH_MAX + 1];

                step(r, "/proc/self/fd");
                back[SET(r, readlink(path, back, PATH_MAX))] = '\0';
                rec_path(r, back);
                SET(r, unlink("file"));
                step(r, "/proc/self/fd after unlink");
                back[SET(r, readlink(path, back, PATH_MAX))] = '\0';
                rec_path(r, back);
        }
}

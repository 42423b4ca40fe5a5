/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rename: every type over every type, with every flag; open files and directories; into itself;
 * hard links.
 */
#include "parity.h"

#include <linux/fs.h>

static const char *const kinds[] = {"file",    "absent", "empty", "full",     "link",
                                    "dirlink", "fifo",   "twin",  "dangling", "socket"};

static void make(struct run *r, const char *where, const char *kind)
{
        char path[64], inner[80];

        snprintf(path, sizeof path, "%s/%s", where, kind);
        if (strcmp(kind, "file") == 0)
                put(r, path, where);
        else if (strcmp(kind, "empty") == 0)
                SET(r, mkdir(path, 0755));
        else if (strcmp(kind, "link") == 0)
                SET(r, symlink("../shared", path));
        else if (strcmp(kind, "dangling") == 0)
                SET(r, symlink("nowhere", path));
        else if (strcmp(kind, "dirlink") == 0)
                SET(r, symlink("..", path));
        else if (strcmp(kind, "fifo") == 0)
                SET(r, mkfifo(path, 0644));
        else if (strcmp(kind, "socket") == 0)
                SET(r, mknod(path, S_IFSOCK | 0644, 0));
        else if (strcmp(kind, "twin") == 0)
                SET(r, link("shared", path));
        else if (strcmp(kind, "full") == 0) {
                SET(r, mkdir(path, 0755));
                snprintf(inner, sizeof inner, "%s/in", path);
                put(r, inner, where);
        }
}

static void clear(const char *where)
{
        char path[64], inner[80];
        struct stat st;
        size_t i;

        for (i = 0; i < N_ELEMENTS(kinds); i++) {
                snprintf(path, sizeof path, "%s/%s", where, kinds[i]);
                snprintf(inner, sizeof inner, "%s/in", path);
                /* not through a symbolic link, wherever an exchange has left it */
                if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
                        unlink(inner);
                if (unlink(path) < 0)
                        rmdir(path);
        }
}

static void look(struct run *r, const char *from, const char *to)
{
        rec_lstat(r, from);
        rec_lstat(r, to);
        rec_lstat(r, "shared");
        rec_lstat(r, "a");
        rec_lstat(r, "b");
        rec_listing(r, "a");
        rec_listing(r, "b");
}

static void every_pair(struct run *r, unsigned flags, const char *name)
{
        size_t i, k;

        for (i = 0; i < N_ELEMENTS(kinds); i++) {
                for (k = 0; k < N_ELEMENTS(kinds); k++) {
                        char from[64], to[64];

                        snprintf(from, sizeof from, "a/%s", kinds[i]);
                        snprintf(to, sizeof to, "b/%s", kinds[k]);
                        make(r, "a", kinds[i]);
                        make(r, "b", kinds[k]);
                        SAY(r, syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags),
                            "%s over %s%s", kinds[i], kinds[k], name);
                        look(r, from, to);
                        clear("a");
                        clear("b");
                }
        }
}

static void make_two(struct run *r)
{
        put(r, "shared", "shared content");
        SET(r, mkdir("a", 0755));
        SET(r, mkdir("b", 0755));
}

void group_rename_types(struct run *r)
{
        size_t i;

        make_two(r);
        every_pair(r, 0, "");
        for (i = 0; i < N_ELEMENTS(kinds); i++) {
                char from[64], to[64];

                make(r, "a", kinds[i]);
                snprintf(from, sizeof from, "a/%s", kinds[i]);
                SAY(r, rename(from, from), "%s onto itself", kinds[i]);
                look(r, from, from);
                SAY(r, rename(from, "a/new"), "%s in its directory", kinds[i]);
                look(r, from, "a/new");
                SAY(r, rename("a/new", from), "%s back", kinds[i]);
                snprintf(to, sizeof to, "b/%s/", kinds[i]);
                SAY(r, rename(from, to), "%s to a name with a slash", kinds[i]);
                look(r, from, "b");
                clear("a");
                clear("b");
        }
}

void group_rename_flags(struct run *r)
{
        static const struct {
                const char *name;
                unsigned flags;
        } all[] = {{" EXCHANGE|NOREPLACE", RENAME_EXCHANGE | RENAME_NOREPLACE},
                   {" EXCHANGE|WHITEOUT", RENAME_EXCHANGE | RENAME_WHITEOUT},
                   {" NOREPLACE|WHITEOUT", RENAME_NOREPLACE | RENAME_WHITEOUT},
                   {" unknown", 1u << 8}};
        size_t i;

        make_two(r);
        every_pair(r, RENAME_NOREPLACE, " NOREPLACE");
        every_pair(r, RENAME_EXCHANGE, " EXCHANGE");
        every_pair(r, RENAME_WHITEOUT, " WHITEOUT");
        for (i = 0; i < N_ELEMENTS(all); i++) {
                make(r, "a", "file");
                SAY(r, syscall(SYS_renameat2, AT_FDCWD, "a/file", AT_FDCWD, "b/new", all[i].flags),
                    "file to nothing%s", all[i].name);
                look(r, "a/file", "b/new");
                unlink("b/new");
                clear("a");
                make(r, "a", "file");
                make(r, "b", "full");
                SAY(r, syscall(SYS_renameat2, AT_FDCWD, "a/file", AT_FDCWD, "b/full", all[i].flags),
                    "file and directory%s", all[i].name);
                look(r, "a/file", "b/full");
                unlink("b/full");
                clear("a");
                clear("b");
        }
}

static void open_ones(struct run *r)
{
        char buffer[64];
        int moved, replaced, dir, old;

        put(r, "moved", "the moved one");
        put(r, "replaced", "the replaced one");
        moved = SET(r, open("moved", O_RDWR | O_CLOEXEC));
        replaced = SET(r, open("replaced", O_RDWR | O_CLOEXEC));
        SAY(r, rename("moved", "replaced"), "of an open file over an open file");
        rec_fstat(r, moved);
        rec_fstat(r, replaced);
        rec_data(r, buffer, SAY(r, pread(moved, buffer, sizeof buffer, 0), "read the moved"));
        rec_data(r, buffer, SAY(r, pread(replaced, buffer, sizeof buffer, 0), "read the replaced"));
        SAY(r, pwrite(moved, "THE", 3, 0), "write to the moved");
        rec_file(r, "replaced");
        SAY(r, pwrite(replaced, "x", 1, 0), "write to the replaced");
        rec_file(r, "replaced");
        SET(r, mkdir("d", 0755));
        SET(r, mkdir("e", 0755));
        dir = SET(r, open("d", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        old = SET(r, open("e", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        SAY(r, rename("d", "e"), "of an open directory over an open one");
        rec_fstat(r, dir);
        rec_fstat(r, old);
        SAY(r, mkdirat(dir, "in", 0755), "mkdir in the moved");
        rec_listing(r, "e");
        SAY(r, mkdirat(old, "in", 0755), "mkdir in the replaced");
        SAY(r, syscall(SYS_renameat2, dir, "in", old, "in", 0), "from the moved to the replaced");
        SAY(r, syscall(SYS_renameat2, dir, "in", AT_FDCWD, "out", 0), "from the moved to here");
        rec_fstat(r, dir);
        rec_lstat(r, ".");
        SAY(r, renameat(dir, "../replaced", dir, "file"), "by '..' of the moved");
        rec_listing(r, "e");
        SAY(r, renameat(moved, "x", dir, "y"), "from a file's descriptor");
}

static void subdirectories(struct run *r)
{
        SET(r, mkdir("p", 0755));
        SET(r, mkdir("p/q", 0755));
        SET(r, mkdir("p/q/s", 0755));
        SAY(r, rename("p", "p/q"), "into its child");
        SAY(r, rename("p", "p/q/s/t"), "into its grandchild");
        SAY(r, rename("p/q", "p"), "over its parent");
        SAY(r, rename("p/q/s", "p"), "over its grandparent");
        SAY(r, rename("p/.", "n"), "of '.'");
        SAY(r, rename("p/..", "n"), "of '..'");
        SAY(r, rename("p", "."), "over '.'");
        SAY(r, rename("p", ".."), "over '..'");
        SAY(r, rename("p", ""), "to nothing");
        SAY(r, rename("", "n"), "from nothing");
        SAY(r, rename("p", "/proc/x"), "to another file system");
        SAY(r, rename("p/q/s", "s"), "up two levels");
        rec_lstat(r, "p/q");
        rec_lstat(r, "p");
        rec_lstat(r, ".");
        step(r, "'..' of the moved directory is here");
        {
                struct stat one, two;

                SET(r, stat("s/..", &one));
                SET(r, stat(".", &two));
                rec(r, "%d", one.st_ino == two.st_ino);
        }
}

void group_rename_more(struct run *r)
{
        char name[300];

        open_ones(r);
        subdirectories(r);
        put(r, "one", "x");
        SET(r, link("one", "two"));
        SAY(r, rename("one", "two"), "of a hard link over its twin: both stay");
        rec_lstat(r, "one");
        rec_lstat(r, "two");
        SAY(r, unlink("one"), "unlink of one of them");
        rec_lstat(r, "two");
        memset(name, 'r', 255);
        name[255] = '\0';
        SAY(r, rename("two", name), "to 255 bytes");
        name[255] = 'r';
        name[256] = '\0';
        SAY(r, rename("two", name), "to 256 bytes");
        name[255] = '\0';
        SAY(r, rename(name, "two"), "from 255 bytes");
        SAY(r, rename("two/", "three"), "of a file with a slash");
        SAY(r, rename("two", "three/"), "of a file to a slash");
        SET(r, mkdir("dir", 0755));
        SAY(r, rename("dir/", "dir2/"), "of a directory with slashes");
        SAY(r, rename("two", "dir2/two"), "into a directory");
        SAY(r, access("dir2/two", F_OK), "and it is there");
        SAY(r, access("two", F_OK), "and not here");
}

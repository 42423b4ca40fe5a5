/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who may do what: access() in its forms for every mode, files and directories of others, sticky
 * directories.
 */
#include "parity.h"

#include <grp.h>

static void ask(struct run *r, void *data)
{
        static const int wants[] = {F_OK, R_OK, W_OK, X_OK, R_OK | W_OK | X_OK};
        const char *name = data;
        const char *who = r->root ? "root" : "user";
        size_t i;

        for (i = 0; i < N_ELEMENTS(wants); i++) {
                SAY(r, access(name, wants[i]), "access %d of %s, %s", wants[i], name, who);
                SAY(r, syscall(SYS_faccessat2, AT_FDCWD, name, wants[i], AT_EACCESS),
                    "faccessat2 AT_EACCESS %d of %s, %s", wants[i], name, who);
        }
}

static void effective(struct run *r, void *data)
{
        if (setresuid(0, OTHER_UID, 0) < 0)
                return;
        SAY(r, access("0600", R_OK), "access with another effective id");
        SAY(r, faccessat(AT_FDCWD, "0600", R_OK, AT_EACCESS), "faccessat AT_EACCESS so");
        SAY(r, syscall(SYS_faccessat2, AT_FDCWD, "0600", R_OK, AT_EACCESS), "faccessat2 so");
        SAY(r, open("0600", O_RDONLY | O_CLOEXEC) >= 0, "open so");
}

void group_access(struct run *r)
{
        static const char *const odd[] = {"absent", "dangling", "link", "",
                                          "0644/x", "dir/",     "0644/"};
        char name[16];
        size_t i;
        mode_t mode;

        SET(r, chmod(".", 0777));
        for (mode = 0; mode < 8; mode++) {
                mode_t all[] = {mode << 6, mode << 3, mode, mode | mode << 3 | mode << 6};

                for (i = 0; i < N_ELEMENTS(all); i++) {
                        snprintf(name, sizeof name, "%04o", all[i]);
                        put(r, name, "x");
                        SET(r, chmod(name, all[i]));
                        ask(r, name);
                        if (r->root)
                                as_other(r, ask, name);
                        unlink(name);
                }
        }
        put(r, "0600", "x");
        SET(r, chmod("0600", 0600));
        put(r, "0644", "x");
        SET(r, mkdir("dir", 0755));
        SET(r, symlink("0644", "link"));
        SET(r, symlink("nowhere", "dangling"));
        for (i = 0; i < N_ELEMENTS(odd); i++) {
                SAY(r, access(odd[i], F_OK), "access of '%s'", odd[i]);
                SAY(r, syscall(SYS_faccessat2, AT_FDCWD, odd[i], F_OK, AT_SYMLINK_NOFOLLOW),
                    "NOFOLLOW of '%s'", odd[i]);
        }
        SAY(r, access("0644", 9), "access with a bad mode");
        SAY(r, syscall(SYS_faccessat2, AT_FDCWD, "0644", R_OK, 0x8000), "faccessat2 unknown flag");
        if (r->root)
                in_child(r, effective, NULL);
}

/* Every operation on every file of `names`, by whoever runs it. */
static void try_all(struct run *r, void *data)
{
        static const char *const names[] = {
                "0600",  "0640",     "0604",     "0060",     "0006",     "0666",    "0444",
                "group", "d0700/in", "d0711/in", "d0744/in", "d0755/in", "d0733/in"};
        const char *who = data;
        char inner[64];
        size_t i;
        int fd;

        for (i = 0; i < N_ELEMENTS(names); i++) {
                struct stat st;

                fd = FD(r, open(names[i], O_RDONLY | O_CLOEXEC), "%s: read %s", who, names[i]);
                close(fd);
                fd = FD(r, open(names[i], O_WRONLY | O_CLOEXEC), "%s: write %s", who, names[i]);
                close(fd);
                fd = FD(r, open(names[i], O_RDWR | O_CREAT | O_CLOEXEC, 0600), "%s: O_CREAT %s",
                        who, names[i]);
                close(fd);
                fd = FD(r, open(names[i], O_RDONLY | O_NOATIME | O_CLOEXEC), "%s: O_NOATIME %s",
                        who, names[i]);
                close(fd);
                SAY(r, lstat(names[i], &st), "%s: lstat %s", who, names[i]);
                SAY(r, truncate(names[i], 4), "%s: truncate %s", who, names[i]);
                SAY(r, utimensat(AT_FDCWD, names[i], NULL, 0), "%s: touch %s", who, names[i]);
                SAY(r, link(names[i], "linked"), "%s: link %s", who, names[i]);
                unlink("linked");
                SAY(r, execl(names[i], names[i], NULL), "%s: exec %s", who, names[i]);
        }
        for (i = 0; i < 5; i++) {
                static const char *const dirs[] = {"d0700", "d0711", "d0744", "d0755", "d0733"};

                step(r, "%s: list %s", who, dirs[i]);
                rec_listing(r, dirs[i]);
                SAY(r, chdir(dirs[i]), "%s: chdir %s", who, dirs[i]);
                SET(r, chdir(r->top));
                snprintf(inner, sizeof inner, "%s/new", dirs[i]);
                SAY(r, mkdir(inner, 0755), "%s: mkdir %s", who, inner);
                SAY(r, rename(inner, "moved"), "%s: rename %s", who, inner);
                rmdir("moved");
                rmdir(inner);
                SAY(r, symlink("x", inner), "%s: symlink %s", who, inner);
                unlink(inner);
                SAY(r, mkfifo(inner, 0600), "%s: mkfifo %s", who, inner);
                unlink(inner);
                SAY(r, rmdir(dirs[i]), "%s: rmdir %s", who, dirs[i]);
                snprintf(inner, sizeof inner, "%s/..", dirs[i]);
                SAY(r, access(inner, R_OK), "%s: access %s", who, inner);
                snprintf(inner, sizeof inner, "%s/absent", dirs[i]);
                SAY(r, access(inner, R_OK), "%s: access %s", who, inner);
        }
        SAY(r, unlink("d0755/in"), "%s: unlink in 0755", who);
        SAY(r, rename("d0755/in", "d0755/out"), "%s: rename in 0755", who);
}

/* OTHER_UID with THIRD_ID as a supplementary group. */
static void try_in_group(struct run *r, void *data)
{
        gid_t group = THIRD_ID;

        if (setgroups(1, &group) < 0 || setresgid(OTHER_GID, OTHER_GID, OTHER_GID) < 0 ||
            setresuid(OTHER_UID, OTHER_UID, OTHER_UID) < 0)
                _exit(99);
        r->root = false;
        try_all(r, data);
}

void group_permissions(struct run *r)
{
        static const mode_t files[] = {0600, 0640, 0604, 0060, 0006, 0666, 0444};
        static const mode_t dirs[] = {0700, 0711, 0744, 0755, 0733};
        char name[40];
        size_t i;

        for (i = 0; i < N_ELEMENTS(files); i++) {
                snprintf(name, sizeof name, "%04o", files[i]);
                put(r, name, "content");
                SET(r, chmod(name, files[i]));
        }
        put(r, "group", "content");
        SET(r, chmod("group", 0660));
        for (i = 0; i < N_ELEMENTS(dirs); i++) {
                snprintf(name, sizeof name, "d%04o", dirs[i]);
                SET(r, mkdir(name, 0755));
                strcat(name, "/in");
                put(r, name, "content");
                SET(r, chmod(name, 0644));
                *strchr(name, '/') = '\0';
                SET(r, chmod(name, dirs[i]));
        }
        if (!r->root) {
                try_all(r, (void *)"owner");
                return;
        }
        SET(r, chown("group", 0, THIRD_ID));
        SET(r, chown("d0744", 0, THIRD_ID));
        SET(r, chmod("d0744", 0774));
        SET(r, chmod(".", 0777));
        STATUS(r, as_other(r, try_all, (void *)"other"), "an ordinary user");
        STATUS(r, in_child(r, try_in_group, (void *)"group"), "a user with the group");
        STATUS(r, in_child(r, try_all, (void *)"root"), "root");
}

static void in_sticky(struct run *r, void *data)
{
        const char *dir = data;
        char path[64], to[64];
        static const char *const names[] = {"theirs", "mine", "emptydir"};
        size_t i;

        for (i = 0; i < N_ELEMENTS(names); i++) {
                snprintf(path, sizeof path, "%s/%s", dir, names[i]);
                snprintf(to, sizeof to, "%s/to", dir);
                SAY(r, rename(path, to), "rename of %s", path);
                SAY(r, rename(to, path), "rename back of %s", path);
                SAY(r, link(path, to), "link of %s", path);
                SAY(r, unlink(to), "unlink of the link of %s", path);
        }
        snprintf(path, sizeof path, "%s/mine", dir);
        snprintf(to, sizeof to, "%s/theirs", dir);
        SAY(r, rename(path, to), "rename over, %s", dir);
        SAY(r, unlink(to), "unlink of theirs in %s", dir);
        SAY(r, unlink(path), "unlink of mine in %s", dir);
        snprintf(path, sizeof path, "%s/emptydir", dir);
        SAY(r, rmdir(path), "rmdir in %s", dir);
        rec_listing(r, dir);
}

void group_sticky(struct run *r)
{
        static const char *const dirs[] = {"sticky", "own-sticky", "open"};
        size_t i;

        SET(r, chmod(".", 0777));
        for (i = 0; i < N_ELEMENTS(dirs); i++) {
                char path[64];

                SET(r, mkdir(dirs[i], 0777));
                snprintf(path, sizeof path, "%s/theirs", dirs[i]);
                put(r, path, "x");
                SET(r, chmod(path, 0666));
                snprintf(path, sizeof path, "%s/mine", dirs[i]);
                put(r, path, "x");
                if (r->root)
                        SET(r, chown(path, OTHER_UID, OTHER_GID));
                snprintf(path, sizeof path, "%s/emptydir", dirs[i]);
                SET(r, mkdir(path, 0777));
                if (r->root && i == 1)
                        SET(r, chown(dirs[i], OTHER_UID, OTHER_GID));
                SET(r, chmod(dirs[i], i == 2 ? 0777 : 01777));
                STATUS(r, as_other(r, in_sticky, (void *)dirs[i]), "in %s", dirs[i]);
        }
}

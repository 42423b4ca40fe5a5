/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * open: the whole matrix of flags by what is there, O_PATH, O_TMPFILE, names that are no good,
 * openat2.
 */
#include "parity.h"

#include <linux/openat2.h>
#include <sys/resource.h>

struct flag {
        const char *name;
        int value;
};

static const struct flag access_modes[] = {
        {"RDONLY", O_RDONLY}, {"WRONLY", O_WRONLY}, {"RDWR", O_RDWR}};
static const struct flag flags[] = {
        {"CREAT", O_CREAT},   {"EXCL", O_EXCL},           {"TRUNC", O_TRUNC},
        {"APPEND", O_APPEND}, {"DIRECTORY", O_DIRECTORY}, {"NOFOLLOW", O_NOFOLLOW},
        {"DIRECT", O_DIRECT}, {"SYNC", O_SYNC},
};

static const char *const kinds[] = {"file", "absent",  "dir",  "link",    "dangling",
                                    "fifo", "dirlink", "loop", "readonly"};

static void make_kinds(struct run *r)
{
        put(r, "file", "0123456789");
        put(r, "readonly", "abc");
        SET(r, chmod("readonly", 0444));
        SET(r, mkdir("dir", 0755));
        SET(r, symlink("file", "link"));
        SET(r, symlink("nowhere", "dangling"));
        SET(r, symlink("dir", "dirlink"));
        SET(r, symlink("loop", "loop"));
        SET(r, mkfifo("fifo", 0644));
}

static char *flag_names(char *to, size_t size, unsigned bits)
{
        size_t n = 0, i;

        to[0] = '\0';
        for (i = 0; i < N_ELEMENTS(flags); i++) {
                if (bits & (1u << i))
                        n += (size_t)snprintf(to + n, size - n, "|%s", flags[i].name);
        }
        return to;
}

static int flag_values(unsigned bits)
{
        int value = 0;
        size_t i;

        for (i = 0; i < N_ELEMENTS(flags); i++) {
                if (bits & (1u << i))
                        value |= flags[i].value;
        }
        return value;
}

/* What the open left, on the descriptor and on the names; then as before. */
static void look_and_restore(struct run *r, int fd)
{
        static const char *const made[] = {"absent", "nowhere"};
        struct stat st;
        size_t i;

        if (fd >= 0) {
                rec(r, "flags %o", fcntl(fd, F_GETFL));
                rec_fstat(r, fd);
                close(fd);
        }
        for (i = 0; i < N_ELEMENTS(made); i++) {
                if (lstat(made[i], &st) == 0) {
                        rec(r, "made %s", made[i]);
                        rec_stat(r, &st);
                        SET(r, unlink(made[i]));
                }
        }
        if (stat("file", &st) == 0 && st.st_size != 10) {
                rec(r, "file is now %lld", (long long)st.st_size);
                put(r, "file", "0123456789");
        }
        if (r->root && stat("readonly", &st) == 0 && st.st_size != 3) {
                rec(r, "readonly is now %lld", (long long)st.st_size);
                put(r, "readonly", "abc");
        }
}

void group_open_matrix(struct run *r)
{
        size_t kind, mode;
        unsigned bits;
        char names[128];

        make_kinds(r);
        for (kind = 0; kind < N_ELEMENTS(kinds); kind++) {
                for (mode = 0; mode < N_ELEMENTS(access_modes); mode++) {
                        for (bits = 0; bits < 1u << N_ELEMENTS(flags); bits++) {
                                int value = access_modes[mode].value | flag_values(bits);
                                int fd;

                                if (strcmp(kinds[kind], "fifo") == 0)
                                        value |= O_NONBLOCK;
                                fd = FD(r, open(kinds[kind], value | O_CLOEXEC, 0640), "%s %s%s",
                                        kinds[kind], access_modes[mode].name,
                                        flag_names(names, sizeof names, bits));
                                look_and_restore(r, fd);
                        }
                }
        }
}

/* What an O_PATH descriptor can and cannot do. */
static void use_path_fd(struct run *r, const char *kind, int fd)
{
        char buffer[16], proc[40];
        int again;

        SAY(r, read(fd, buffer, sizeof buffer), "O_PATH %s: read", kind);
        SAY(r, write(fd, "x", 1), "O_PATH %s: write", kind);
        SAY(r, fchmod(fd, 0600), "O_PATH %s: fchmod", kind);
        SAY(r, ftruncate(fd, 0), "O_PATH %s: ftruncate", kind);
        SAY(r, fsync(fd), "O_PATH %s: fsync", kind);
        SAY(r, syscall(SYS_ioctl, fd, 0x5401, buffer), "O_PATH %s: ioctl", kind);
        SAY(r, fchdir(fd), "O_PATH %s: fchdir", kind);
        SET(r, chdir(r->top));
        SAY(r, readlinkat(fd, "", buffer, sizeof buffer), "O_PATH %s: readlinkat", kind);
        SAY(r, faccessat(fd, "", R_OK, AT_EMPTY_PATH), "O_PATH %s: faccessat", kind);
        SAY(r, linkat(fd, "", AT_FDCWD, "linked", AT_EMPTY_PATH), "O_PATH %s: linkat empty", kind);
        unlink("linked");
        snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
        again = FD(r, open(proc, O_RDONLY | O_CLOEXEC | O_NONBLOCK), "O_PATH %s: re-open", kind);
        if (again >= 0) {
                rec_fstat(r, again);
                close(again);
        }
        SAY(r, fchmodat(AT_FDCWD, proc, 0711, 0), "O_PATH %s: chmod by /proc", kind);
        rec_fstat(r, fd);
}

void group_open_path(struct run *r)
{
        static const struct flag more[] = {
                {"", 0},
                {"|DIRECTORY", O_DIRECTORY},
                {"|NOFOLLOW", O_NOFOLLOW},
                {"|DIRECTORY|NOFOLLOW", O_DIRECTORY | O_NOFOLLOW},
                {"|CREAT", O_CREAT},
                {"|CREAT|EXCL", O_CREAT | O_EXCL},
                {"|TRUNC|RDWR", O_TRUNC | O_RDWR},
                {"|APPEND|WRONLY", O_APPEND | O_WRONLY},
                {"|DIRECT", O_DIRECT},
        };
        size_t kind, i;

        make_kinds(r);
        for (kind = 0; kind < N_ELEMENTS(kinds); kind++) {
                for (i = 0; i < N_ELEMENTS(more); i++) {
                        int fd = FD(r, open(kinds[kind], O_PATH | more[i].value | O_CLOEXEC, 0640),
                                    "%s PATH%s", kinds[kind], more[i].name);

                        look_and_restore(r, fd);
                }
                for (i = 0; i < 2; i++) {
                        int fd = open(kinds[kind], O_PATH | O_CLOEXEC | (i ? O_NOFOLLOW : 0));

                        if (fd < 0)
                                continue;
                        use_path_fd(r, i ? "nofollow" : kinds[kind], fd);
                        close(fd);
                        look_and_restore(r, -1);
                }
        }
}

static void link_tmpfile(struct run *r, int fd, const char *how)
{
        char proc[40];

        snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
        SAY(r, linkat(AT_FDCWD, proc, AT_FDCWD, "linked", AT_SYMLINK_FOLLOW), "%s: linkat", how);
        rec_fstat(r, fd);
        rec_lstat(r, "linked");
        rec_file(r, "linked");
        SAY(r, linkat(AT_FDCWD, proc, AT_FDCWD, "linked", AT_SYMLINK_FOLLOW), "%s: linkat again",
            how);
        SAY(r, linkat(fd, "", AT_FDCWD, "linked2", AT_EMPTY_PATH), "%s: linkat of the fd", how);
        rec_fstat(r, fd);
        unlink("linked");
        unlink("linked2");
}

void group_open_tmpfile(struct run *r)
{
        static const struct flag more[] = {
                {"", 0},
                {"|EXCL", O_EXCL},
                {"|APPEND", O_APPEND},
                {"|TRUNC", O_TRUNC},
                {"|SYNC", O_SYNC},
                {"|DIRECT", O_DIRECT},
                {"|CREAT", O_CREAT},
                {"|NOFOLLOW", O_NOFOLLOW},
        };
        char name[64];
        size_t kind, mode, i;

        make_kinds(r);
        for (kind = 0; kind < N_ELEMENTS(kinds); kind++) {
                for (mode = 0; mode < N_ELEMENTS(access_modes); mode++) {
                        for (i = 0; i < N_ELEMENTS(more); i++) {
                                int value = O_TMPFILE | access_modes[mode].value | more[i].value;
                                int fd;

                                fd = FD(r, open(kinds[kind], value | O_CLOEXEC, 0640), "%s %s%s",
                                        kinds[kind], access_modes[mode].name, more[i].name);
                                if (fd < 0)
                                        continue;
                                rec(r, "flags %o", fcntl(fd, F_GETFL));
                                rec_fstat(r, fd);
                                if (!(value & O_DIRECT))
                                        SET(r, write(fd, "hello", 5));
                                rec_fstat(r, fd);
                                rec_listing(r, ".");
                                snprintf(name, sizeof name, "%s %s%s", kinds[kind],
                                         access_modes[mode].name, more[i].name);
                                link_tmpfile(r, fd, name);
                                close(fd);
                        }
                }
        }
        umask(077);
        FD(r, open("dir", O_TMPFILE | O_RDWR | O_CLOEXEC, 0666), "umask 077");
        FD(r, open("dir", O_TMPFILE | O_RDWR | O_CLOEXEC, 07777), "all bits");
        FD(r, open("nothing", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), "in nothing");
}

static void open_long_names(struct run *r)
{
        static const size_t lengths[] = {1, 254, 255, 256, 300};
        char name[400];
        char *path = malloc(PATH_MAX + 10);
        size_t i;
        int fd;

        for (i = 0; i < N_ELEMENTS(lengths); i++) {
                memset(name, 'n', lengths[i]);
                name[lengths[i]] = '\0';
                fd = FD(r, open(name, O_CREAT | O_RDWR | O_CLOEXEC, 0600), "create, %zu bytes",
                        lengths[i]);
                close(fd);
                fd = FD(r, open(name, O_RDONLY | O_CLOEXEC), "open, %zu bytes", lengths[i]);
                close(fd);
        }
        for (i = PATH_MAX - 3; i <= PATH_MAX + 1; i++) {
                size_t at;

                for (at = 0; at < i; at++)
                        path[at] = at % 2 ? '/' : '.';
                path[i] = '\0';
                fd = FD(r, open(path, O_RDONLY | O_CLOEXEC), "path of %zu", i);
                close(fd);
        }
        free(path);
}

void group_open_names(struct run *r)
{
        static const char *const paths[] = {
                "",       "file/",  "dir/",       "absent/",   "link/",    "dirlink/",  "dir/.",
                "dir/..", "file/x", "file/..",    "absent/x",  "dir//./x", "dangling/", "loop/x",
                ".",      "..",     "dir/absent", "dirlink/x", "link/x",   "./file"};
        static const struct flag how[] = {
                {"RDONLY", O_RDONLY},
                {"RDWR", O_RDWR},
                {"RDWR|CREAT", O_RDWR | O_CREAT},
                {"RDWR|CREAT|EXCL", O_RDWR | O_CREAT | O_EXCL},
                {"RDONLY|DIRECTORY", O_RDONLY | O_DIRECTORY},
                {"PATH", O_PATH},
                {"ACCMODE", O_ACCMODE},
                {"ACCMODE|CREAT|TRUNC", O_ACCMODE | O_CREAT | O_TRUNC},
                {"NOATIME", O_NOATIME},
        };
        static const mode_t modes[] = {0, 0400, 0200, 0100, 0777, 0666, 01777, 02777, 04777, 07777};
        struct rlimit limit = {20, 20};
        size_t i, k;
        int fd, dir;

        make_kinds(r);
        for (i = 0; i < N_ELEMENTS(paths); i++) {
                for (k = 0; k < N_ELEMENTS(how); k++) {
                        fd = FD(r, open(paths[i], how[k].value | O_CLOEXEC, 0640), "'%s' %s",
                                paths[i], how[k].name);
                        if (fd >= 0)
                                rec_fstat(r, fd);
                        close(fd);
                        unlink("dir/x");
                        unlink("dir/absent");
                }
        }
        open_long_names(r);
        for (i = 0; i < N_ELEMENTS(modes); i++) {
                fd = FD(r, open("moded", O_CREAT | O_RDWR | O_CLOEXEC, modes[i]), "create %04o",
                        modes[i]);
                rec_fstat(r, fd);
                SAY(r, write(fd, "x", 1), "write to a file created %04o", modes[i]);
                close(fd);
                fd = FD(r, open("moded", O_RDWR | O_CLOEXEC), "open a file of %04o again",
                        modes[i]);
                close(fd);
                SET(r, unlink("moded"));
        }
        dir = open("dir", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        FD(r, openat(dir, "../file", O_RDONLY | O_CLOEXEC), "openat ../file");
        FD(r, openat(dir, "x", O_RDWR | O_CREAT | O_CLOEXEC, 0600), "openat create");
        FD(r, openat(-7, "x", O_RDONLY | O_CLOEXEC), "openat bad fd");
        fd = open("file", O_RDONLY | O_CLOEXEC);
        FD(r, openat(fd, "x", O_RDONLY | O_CLOEXEC), "openat of a file");
        SET(r, unlink("dir/x"));
        SET(r, rmdir("dir"));
        FD(r, openat(dir, "x", O_RDWR | O_CREAT | O_CLOEXEC, 0600),
           "create in a removed directory");
        FD(r, openat(dir, ".", O_RDONLY | O_CLOEXEC), "'.' of a removed directory");
        FD(r, openat(dir, "..", O_RDONLY | O_CLOEXEC), "'..' of a removed directory");
        FD(r, open(bad_address(), O_RDONLY | O_CLOEXEC), "EFAULT");
        SET(r, setrlimit(RLIMIT_NOFILE, &limit));
        while ((fd = open("file", O_RDONLY | O_CLOEXEC)) >= 0)
                ;
        FD(r, open("emfile", O_RDWR | O_CREAT | O_CLOEXEC, 0600), "EMFILE");
        rec_lstat(r, "emfile");
}

void group_openat2(struct run *r)
{
        static const struct flag resolve[] = {
                {"none", 0},
                {"NO_XDEV", RESOLVE_NO_XDEV},
                {"NO_SYMLINKS", RESOLVE_NO_SYMLINKS},
                {"BENEATH", RESOLVE_BENEATH},
                {"IN_ROOT", RESOLVE_IN_ROOT},
                {"NO_MAGICLINKS", RESOLVE_NO_MAGICLINKS},
                {"invalid", 1 << 20},
        };
        static const char *const paths[] = {"file",  "link",     "dir/../file",     "../x",
                                            "/file", "dangling", "dirlink/../file", "absent"};
        size_t i, k;

        make_kinds(r);
        for (i = 0; i < N_ELEMENTS(paths); i++) {
                for (k = 0; k < N_ELEMENTS(resolve); k++) {
                        struct open_how how = {.flags = O_RDONLY | O_CLOEXEC,
                                               .resolve = (uint64_t)resolve[k].value};
                        int fd = FD(r, syscall(SYS_openat2, AT_FDCWD, paths[i], &how, sizeof how),
                                    "%s %s", paths[i], resolve[k].name);

                        if (fd >= 0)
                                rec_fstat(r, fd);
                        close(fd);
                }
        }
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Modes, owners, times: chmod, chown, what clears setuid and setgid, umask, setgid directories,
 * utimensat, stat.
 */
#include "parity.h"

#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

static void make_each(struct run *r)
{
        put(r, "file", "content");
        SET(r, mkdir("dir", 0755));
        SET(r, symlink("file", "link"));
        SET(r, symlink("nowhere", "dangling"));
        SET(r, mkfifo("fifo", 0644));
        SET(r, mknod("socket", S_IFSOCK | 0644, 0));
}

static const char *const each[] = {"file", "dir", "link", "dangling", "fifo", "socket", "absent"};

void group_chmod(struct run *r)
{
        static const mode_t modes[] = {0,     0777,  0644,  01777, 02755,   02644,
                                       04755, 04644, 06755, 07777, 0100777, 0600};
        size_t i, k;

        make_each(r);
        for (i = 0; i < N_ELEMENTS(each); i++) {
                for (k = 0; k < N_ELEMENTS(modes); k++) {
                        SAY(r, chmod(each[i], modes[k]), "chmod %04o %s", modes[k], each[i]);
                        rec_mode(r, each[i]);
                        rec_mode(r, "file");
                }
                SAY(r, fchmodat(AT_FDCWD, each[i], 0700, AT_SYMLINK_NOFOLLOW),
                    "fchmodat NOFOLLOW %s", each[i]);
                rec_mode(r, each[i]);
                SAY(r, syscall(452, AT_FDCWD, each[i], 0711, AT_SYMLINK_NOFOLLOW),
                    "fchmodat2 NOFOLLOW %s", each[i]);
                rec_mode(r, each[i]);
                SAY(r, syscall(452, AT_FDCWD, each[i], 0711, 0x8000), "fchmodat2 unknown flag %s",
                    each[i]);
        }
        for (i = 0; i < 2; i++) {
                int fd = SET(r, open(i ? "dir" : "file", O_RDONLY | O_CLOEXEC));

                for (k = 0; k < N_ELEMENTS(modes); k++) {
                        SAY(r, fchmod(fd, modes[k]), "fchmod %04o %s", modes[k],
                            i ? "dir" : "file");
                        rec_fstat(r, fd);
                }
                close(fd);
        }
        SAY(r, fchmod(99, 0600), "fchmod of nothing");
}

static void chmod_of_others(struct run *r, void *data)
{
        size_t i;

        for (i = 0; i < N_ELEMENTS(each); i++) {
                SAY(r, chmod(each[i], 0600), "other: chmod %s", each[i]);
                SAY(r, lchown(each[i], geteuid(), (gid_t)-1), "other: chown to oneself %s",
                    each[i]);
                SAY(r, lchown(each[i], (uid_t)-1, (gid_t)-1), "other: chown to nobody %s", each[i]);
        }
        SAY(r, chmod("mine", 0640), "other: chmod of one's own");
        SAY(r, chmod("mine", 06755), "other: chmod 6755 of one's own");
        rec_lstat(r, "mine");
        SAY(r, chown("mine", 0, (gid_t)-1), "other: give one's own away");
        SAY(r, chown("mine", geteuid(), (gid_t)-1), "other: keep one's own");
        rec_lstat(r, "mine");
        SAY(r, chown("mine", (uid_t)-1, getegid()), "other: to one's own group");
        rec_lstat(r, "mine");
        SAY(r, chown("mine", (uid_t)-1, THIRD_ID), "other: to a foreign group");
        rec_lstat(r, "mine");
        SAY(r, chmod("foreign-group", 02755), "other: setgid of a foreign group is dropped");
        rec_lstat(r, "foreign-group");
        SAY(r, truncate("foreign-group", 3), "other: truncate");
        rec_lstat(r, "foreign-group");
}

void group_chown(struct run *r)
{
        static const struct {
                uid_t uid;
                gid_t gid;
        } owners[] = {
                {0, 0},         {1000, (gid_t)-1},    {(uid_t)-1, 1000},    {(uid_t)-1, (gid_t)-1},
                {65534, 65534}, {70000, 4000000000u}, {THIRD_ID, THIRD_ID}, {0, 0}};
        size_t i, k;
        int fd;

        make_each(r);
        for (i = 0; i < N_ELEMENTS(each); i++) {
                for (k = 0; k < N_ELEMENTS(owners); k++) {
                        SAY(r, lchown(each[i], owners[k].uid, owners[k].gid), "lchown %u:%u %s",
                            owners[k].uid, owners[k].gid, each[i]);
                        rec_lstat(r, each[i]);
                        SAY(r, chown(each[i], owners[k].uid, owners[k].gid), "chown %u:%u %s",
                            owners[k].uid, owners[k].gid, each[i]);
                        rec_lstat(r, each[i]);
                        rec_lstat(r, "file");
                }
        }
        fd = open("file", O_RDONLY | O_CLOEXEC);
        for (k = 0; k < N_ELEMENTS(owners); k++) {
                SET(r, fchmod(fd, 06755));
                SAY(r, fchown(fd, owners[k].uid, owners[k].gid), "fchown %u:%u of 06755",
                    owners[k].uid, owners[k].gid);
                rec_fstat(r, fd);
                SET(r, fchmod(fd, 06644));
                SAY(r, fchown(fd, owners[k].uid, owners[k].gid), "fchown %u:%u of 06644",
                    owners[k].uid, owners[k].gid);
                rec_fstat(r, fd);
        }
        SET(r, chmod("dir", 06755));
        SAY(r, chown("dir", r->root ? 1000 : geteuid(), (gid_t)-1),
            "chown keeps a directory's bits");
        rec_lstat(r, "dir");
        SET(r, chmod(".", 0777));
        put(r, "mine", "content");
        put(r, "foreign-group", "content");
        if (r->root) {
                SET(r, chown("mine", OTHER_UID, OTHER_GID));
                SET(r, chown("foreign-group", OTHER_UID, THIRD_ID));
        }
        STATUS(r, as_other(r, chmod_of_others, NULL), "as another user");
}

/* One way to change a file's content or owner, with the setuid and setgid bits before and after. */
static void change_by(struct run *r, int way, int fd)
{
        static const char *const names[] = {"write",           "pwrite",    "write nothing",
                                            "writev",          "ftruncate", "ftruncate to the same",
                                            "truncate",        "O_TRUNC",   "fallocate",
                                            "copy_file_range", "sendfile",  "mmap",
                                            "chown",           "utimens",   "link",
                                            "rename",          "punch"};
        struct iovec vector = {(void *)"v", 1};
        char *map;
        int other;

        step(r, "%s of %s by %s", names[way], r->root ? "06755" : "bits",
             r->root ? "root" : "the owner");
        errno = 0;
        switch (way) {
        case 0:
                rec_result(r, write(fd, "x", 1));
                break;
        case 1:
                rec_result(r, pwrite(fd, "x", 1, 3));
                break;
        case 2:
                rec_result(r, write(fd, "", 0));
                break;
        case 3:
                rec_result(r, writev(fd, &vector, 1));
                break;
        case 4:
                rec_result(r, ftruncate(fd, 1));
                break;
        case 5:
                rec_result(r, ftruncate(fd, 7));
                break;
        case 6:
                rec_result(r, truncate("bits", 2));
                break;
        case 7:
                rec_result(r, close(open("bits", O_WRONLY | O_TRUNC | O_CLOEXEC)));
                break;
        case 8:
                rec_result(r, fallocate(fd, 0, 0, 5000));
                break;
        case 9:
                rec_result(r, copy_file_range(fd, &(loff_t){0}, fd, &(loff_t){4}, 3, 0));
                break;
        case 10:
                other = open("source", O_RDONLY | O_CLOEXEC);
                rec_result(r, sendfile(fd, other, NULL, 3));
                close(other);
                break;
        case 11:
                map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
                if (map != MAP_FAILED) {
                        map[0] = 'M';
                        rec_result(r, msync(map, 4096, MS_SYNC));
                        munmap(map, 4096);
                }
                break;
        case 12:
                rec_result(r, chown("bits", geteuid(), getegid()));
                break;
        case 13:
                rec_result(r, utimensat(AT_FDCWD, "bits", NULL, 0));
                break;
        case 14:
                rec_result(r, link("bits", "bits2"));
                unlink("bits2");
                break;
        case 15:
                rec_result(r, rename("bits", "bits3"));
                rename("bits3", "bits");
                break;
        default:
                rec_result(r, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 5000));
                break;
        }
        rec_fstat(r, fd);
        rec_mode(r, "bits");
}

static void clear_all_ways(struct run *r, void *data)
{
        static const mode_t bits[] = {06755, 04755, 02755, 02745, 06644, 01755};
        size_t i;
        int way;

        for (i = 0; i < N_ELEMENTS(bits); i++) {
                for (way = 0; way < 17; way++) {
                        int fd;

                        /* opened before: the caller may be somebody else by the time of the change
                         */
                        put(r, "bits", "content");
                        fd = SET(r, open("bits", O_RDWR | O_CLOEXEC));
                        SET(r, chmod("bits", bits[i]));
                        change_by(r, way, fd);
                        rec(r, "of %04o", bits[i]);
                        close(fd);
                        SET(r, unlink("bits"));
                }
        }
}

static void write_foreign(struct run *r, void *data)
{
        int fd = *(int *)data;

        SAY(r, write(fd, "x", 1), "another user's write by an inherited descriptor");
        rec_fstat(r, fd);
}

void group_suid_clear(struct run *r)
{
        int fd;

        SET(r, chmod(".", 0777));
        put(r, "source", "source");
        clear_all_ways(r, NULL);
        if (!r->root)
                return;
        STATUS(r, as_other(r, clear_all_ways, NULL), "the same as an ordinary user");
        put(r, "inherited", "content");
        fd = SET(r, open("inherited", O_RDWR | O_CLOEXEC));
        SET(r, fchmod(fd, 06777));
        STATUS(r, as_other(r, write_foreign, &fd), "inherited");
        rec_fstat(r, fd);
}

void group_umask(struct run *r)
{
        static const mode_t masks[] = {0, 022, 077, 0777, 0111, 07777};
        size_t i;

        for (i = 0; i < N_ELEMENTS(masks); i++) {
                char name[40];
                int fd;

                umask(masks[i]);
                snprintf(name, sizeof name, "f%zu", i);
                fd = FD(r, open(name, O_RDWR | O_CREAT | O_CLOEXEC, 07777), "create under %04o",
                        masks[i]);
                rec_lstat(r, name);
                close(fd);
                snprintf(name, sizeof name, "d%zu", i);
                SAY(r, mkdir(name, 07777), "mkdir under %04o", masks[i]);
                rec_lstat(r, name);
                snprintf(name, sizeof name, "n%zu", i);
                SAY(r, mknod(name, S_IFREG | 07777, 0), "mknod under %04o", masks[i]);
                rec_lstat(r, name);
                snprintf(name, sizeof name, "p%zu", i);
                SAY(r, mkfifo(name, 0777), "mkfifo under %04o", masks[i]);
                rec_lstat(r, name);
                snprintf(name, sizeof name, "l%zu", i);
                SAY(r, symlink("x", name), "symlink under %04o", masks[i]);
                rec_lstat(r, name);
        }
}

static void make_in_setgid(struct run *r, void *data)
{
        const char *who = r->root ? "root" : "user";
        char name[40];
        int fd;

        snprintf(name, sizeof name, "g/file-%s", who);
        fd = FD(r, open(name, O_RDWR | O_CREAT | O_CLOEXEC, 02775), "create in setgid, %s", who);
        rec_lstat(r, name);
        close(fd);
        snprintf(name, sizeof name, "g/dir-%s", who);
        SAY(r, mkdir(name, 0755), "mkdir in setgid, %s", who);
        rec_lstat(r, name);
        snprintf(name, sizeof name, "g/link-%s", who);
        SAY(r, symlink("x", name), "symlink in setgid, %s", who);
        rec_lstat(r, name);
        snprintf(name, sizeof name, "g/fifo-%s", who);
        SAY(r, mknod(name, S_IFIFO | 02755, 0), "mknod in setgid, %s", who);
        rec_lstat(r, name);
        snprintf(name, sizeof name, "g/dir-%s/deeper", who);
        SAY(r, mkdir(name, 0700), "mkdir two down, %s", who);
        rec_lstat(r, name);
        fd = FD(r, open("g", O_TMPFILE | O_RDWR | O_CLOEXEC, 02775), "O_TMPFILE in setgid, %s",
                who);
        if (fd >= 0)
                rec_fstat(r, fd);
        SAY(r, rename("plain", "g/plain"), "rename into setgid, %s", who);
        rec_lstat(r, "g/plain");
        SAY(r, rename("g/plain", "plain"), "rename out of setgid, %s", who);
}

void group_setgid_dir(struct run *r)
{
        SET(r, chmod(".", 0777));
        SET(r, mkdir("g", 0777));
        put(r, "plain", "x");
        if (r->root)
                SET(r, chown("g", 0, THIRD_ID));
        SET(r, chmod("g", 02777));
        make_in_setgid(r, NULL);
        if (r->root) {
                STATUS(r, as_other(r, make_in_setgid, NULL), "as another user");
        }
}

static void rec_times(struct run *r, const char *path)
{
        struct stat st;

        if (lstat(path, &st) < 0) {
                rec(r, "lstat: %s", strerrorname_np(errno));
                return;
        }
        /* times near now are not compared: the second is told as "now" */
        if (labs(st.st_atim.tv_sec - time(NULL)) < 1000)
                rec(r, "a now");
        else
                rec(r, "a %lld.%09ld", (long long)st.st_atim.tv_sec, st.st_atim.tv_nsec);
        if (labs(st.st_mtim.tv_sec - time(NULL)) < 1000)
                rec(r, "m now");
        else
                rec(r, "m %lld.%09ld", (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static const struct {
        const char *name;
        struct timespec times[2];
} stamps[] = {
        {"1 and 2", {{1, 0}, {2, 0}}},
        {"nanoseconds", {{1000000000, 123456789}, {1200000000, 999999999}}},
        {"now and now", {{0, UTIME_NOW}, {0, UTIME_NOW}}},
        {"omit and omit", {{0, UTIME_OMIT}, {0, UTIME_OMIT}}},
        {"5 and omit", {{5, 5}, {0, UTIME_OMIT}}},
        {"omit and 6", {{0, UTIME_OMIT}, {6, 6}}},
        {"now and 7", {{0, UTIME_NOW}, {7, 7}}},
        {"8 and now", {{8, 8}, {0, UTIME_NOW}}},
        {"negative", {{-1000, 5}, {-2000000000, 7}}},
        {"zero", {{0, 0}, {0, 0}}},
        {"far", {{4294967296, 1}, {10000000000, 2}}},
        {"too far", {{99999999999, 1}, {999999999999999, 2}}},
        {"bad nanoseconds", {{1, 1000000000}, {1, 0}}},
        {"negative nanoseconds", {{1, -1}, {1, 0}}},
};

static void utimens_all(struct run *r, void *data)
{
        static const char *const names[] = {"file", "dir",    "link",   "dangling",
                                            "fifo", "absent", "foreign"};
        size_t i, k;

        for (i = 0; i < N_ELEMENTS(names); i++) {
                for (k = 0; k < N_ELEMENTS(stamps); k++) {
                        SAY(r, utimensat(AT_FDCWD, names[i], stamps[k].times, 0), "%s %s, %s",
                            names[i], stamps[k].name, r->root ? "root" : "user");
                        rec_times(r, names[i]);
                        SAY(r, utimensat(AT_FDCWD, names[i], stamps[k].times, AT_SYMLINK_NOFOLLOW),
                            "NOFOLLOW %s %s, %s", names[i], stamps[k].name,
                            r->root ? "root" : "user");
                        rec_times(r, names[i]);
                }
                SAY(r, utimensat(AT_FDCWD, names[i], NULL, 0), "%s NULL, %s", names[i],
                    r->root ? "root" : "user");
                rec_times(r, names[i]);
        }
}

void group_utimens(struct run *r)
{
        static const struct timespec fixed[2] = {{1234567, 1}, {7654321, 2}};
        struct remembered t;
        int fd;

        make_each(r);
        SET(r, chmod(".", 0777));
        put(r, "foreign", "x");
        SET(r, chmod("foreign", 0666));
        utimens_all(r, NULL);
        fd = open("file", O_RDONLY | O_CLOEXEC);
        SAY(r, futimens(fd, fixed), "futimens");
        rec_times(r, "file");
        t = remember("file");
        SAY(r, futimens(fd, fixed), "futimens to the same");
        rec_changes(r, &t, "file");
        t = remember("file");
        SAY(r, utimensat(AT_FDCWD, "file", stamps[3].times, 0), "omit both");
        rec_changes(r, &t, "file");
        SAY(r, utimensat(AT_FDCWD, "file", fixed, 0x8000), "unknown flag");
        SAY(r, utimensat(fd, "", fixed, AT_EMPTY_PATH), "empty path");
        fd = open("file", O_PATH | O_CLOEXEC);
        SAY(r, futimens(fd, fixed), "futimens of O_PATH");
        fd = open("file", O_RDWR | O_CLOEXEC);
        SET(r, futimens(fd, fixed));
        SET(r, write(fd, "x", 1));
        step(r, "a write after futimens");
        rec_times(r, "file");
        SET(r, futimens(fd, fixed));
        SET(r, close(fd));
        step(r, "close does not change what futimens set");
        rec_times(r, "file");
        if (r->root) {
                STATUS(r, as_other(r, utimens_all, NULL), "as another user");
        }
}

static void one_stat(struct run *r, const char *name)
{
        struct stat by_name, by_fd;
        struct statx x;
        int fd = open(name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

        step(r, "ways to stat %s", name);
        if (lstat(name, &by_name) < 0 || fstat(fd, &by_fd) < 0) {
                rec(r, "%s", strerrorname_np(errno));
                return;
        }
        rec_stat(r, &by_name);
        rec_stat(r, &by_fd);
        rec(r, "same %d %d", by_name.st_ino == by_fd.st_ino, by_name.st_dev == by_fd.st_dev);
        SAY(r, statx(AT_FDCWD, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &x), "statx basic %s",
            name);
        rec(r, "mask %x", x.stx_mask & STATX_BASIC_STATS);
        rec(r, "%o %u %u %u %llu %llu", x.stx_mode, x.stx_nlink, x.stx_uid, x.stx_gid,
            (unsigned long long)x.stx_size, (unsigned long long)x.stx_blocks);
        rec(r, "same %d", x.stx_ino == by_name.st_ino);
        SAY(r, statx(fd, "", AT_EMPTY_PATH, STATX_SIZE, &x), "statx size %s", name);
        rec(r, "size %llu", (unsigned long long)x.stx_size);
        SAY(r, statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_ALL, &x), "statx forced %s",
            name);
        rec(r, "size %llu", (unsigned long long)x.stx_size);
        SAY(r, statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_ALL, &x), "statx lazy %s",
            name);
        rec(r, "size %llu", (unsigned long long)x.stx_size);
        SAY(r, statx(AT_FDCWD, name, AT_SYMLINK_NOFOLLOW, STATX_BTIME, &x), "statx btime %s", name);
        rec(r, "btime %d", (x.stx_mask & STATX_BTIME) != 0);
        SAY(r, statx(AT_FDCWD, name, AT_SYMLINK_NOFOLLOW, STATX_DIOALIGN, &x), "statx dioalign %s",
            name);
        rec(r, "mask %x", x.stx_mask & STATX_DIOALIGN);
        SAY(r, statx(AT_FDCWD, name, 0x8000, STATX_ALL, &x), "statx unknown flag %s", name);
        SAY(r, statx(AT_FDCWD, name, 0, 0x80000000u, &x), "statx reserved mask %s", name);
        step(r, "statx attributes of %s", name);
        SET(r, statx(AT_FDCWD, name, AT_SYMLINK_NOFOLLOW, STATX_ALL, &x));
        rec(r, "%llx of %llx", (unsigned long long)x.stx_attributes,
            (unsigned long long)x.stx_attributes_mask);
        close(fd);
}

void group_stat(struct run *r)
{
        static const char *const paths[] = {"",       "file/",  "dir/",      "link/",
                                            "absent", "file/x", "dangling/", "."};
        struct stat st;
        size_t i;

        make_each(r);
        for (i = 0; i < N_ELEMENTS(each) - 1; i++)
                one_stat(r, each[i]);
        for (i = 0; i < N_ELEMENTS(paths); i++) {
                SAY(r, stat(paths[i], &st), "stat '%s'", paths[i]);
                SAY(r, lstat(paths[i], &st), "lstat '%s'", paths[i]);
        }
        SAY(r, stat("file", bad_address()), "stat to a bad address");
        for (i = 0; i < 3; i++) {
                char name[20];

                snprintf(name, sizeof name, "dir/d%zu", i);
                SET(r, mkdir(name, 0755));
                step(r, "nlink of a directory with %zu in it", i + 1);
                rec_lstat(r, "dir");
        }
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a descriptor and a file system tell about themselves: statfs, ioctl, fcntl, /proc/self/fd,
 * handles.
 */
#include "parity.h"

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <termios.h>

static void rec_statfs(struct run *r, const struct statfs *fs)
{
        rec(r, "bsize %ld frsize %ld namelen %ld blocks %lld files %lld", (long)fs->f_bsize,
            (long)fs->f_frsize, (long)fs->f_namelen, (long long)fs->f_blocks,
            (long long)fs->f_files);
        rec(r, "free below total %d %d", fs->f_bfree <= fs->f_blocks, fs->f_ffree <= fs->f_files);
        rec(r, "available below free %d", fs->f_bavail <= fs->f_bfree);
}

void group_statfs(struct run *r)
{
        static const char *const names[] = {"file", "dir", "link", "fifo", "absent", ""};
        struct statfs fs;
        struct statvfs vfs;
        size_t i;
        int fd;

        put(r, "file", "x");
        SET(r, mkdir("dir", 0755));
        SET(r, symlink("file", "link"));
        SET(r, mkfifo("fifo", 0644));
        for (i = 0; i < N_ELEMENTS(names); i++) {
                memset(&fs, 0, sizeof fs);
                if (SAY(r, statfs(names[i], &fs), "statfs '%s'", names[i]) == 0)
                        rec_statfs(r, &fs);
        }
        fd = open("file", O_RDONLY | O_CLOEXEC);
        if (SAY(r, fstatfs(fd, &fs), "fstatfs") == 0)
                rec_statfs(r, &fs);
        SAY(r, fstatvfs(fd, &vfs), "fstatvfs");
        rec(r, "bsize %lu namemax %lu read-only %d nosuid %d", vfs.f_bsize, vfs.f_namemax,
            (vfs.f_flag & ST_RDONLY) != 0, (vfs.f_flag & ST_NOSUID) != 0);
        step(r, "pathconf");
        rec(r, "%ld %ld %ld %ld %ld", pathconf("file", _PC_LINK_MAX), pathconf("dir", _PC_NAME_MAX),
            pathconf("dir", _PC_PATH_MAX), pathconf("fifo", _PC_PIPE_BUF),
            pathconf("file", _PC_FILESIZEBITS));
        step(r, "the type");
        rec(r, "%lx", (unsigned long)fs.f_type);
        close(fd);
}

void group_ioctl(struct run *r)
{
        static const struct {
                const char *name;
                unsigned long request;
        } requests[] = {{"FIONREAD", FIONREAD},
                        {"TCGETS", TCGETS},
                        {"FIOCLEX", FIOCLEX},
                        {"FIONCLEX", FIONCLEX},
                        {"FIONBIO", FIONBIO},
                        {"FIGETBSZ", FIGETBSZ},
                        {"FIBMAP", FIBMAP},
                        {"FIOQSIZE", FIOQSIZE},
                        {"FS_IOC_GETFLAGS", FS_IOC_GETFLAGS},
                        {"FS_IOC_GETVERSION", _IOR('v', 1, long)},
                        {"FS_IOC_FSGETXATTR", FS_IOC_FSGETXATTR},
                        {"FS_IOC_FIEMAP", FS_IOC_FIEMAP},
                        {"BLKGETSIZE64", BLKGETSIZE64},
                        {"unknown", _IOWR('Z', 77, long)}};
        static const char *const names[] = {"file", "dir"};
        size_t i, k;

        put(r, "file", "0123456789");
        SET(r, mkdir("dir", 0755));
        for (k = 0; k < N_ELEMENTS(names); k++) {
                int fd = SET(r, open(names[k], O_RDONLY | O_CLOEXEC));

                SET(r, fsync(fd)); /* FIOQSIZE tells what is allocated */
                for (i = 0; i < N_ELEMENTS(requests); i++) {
                        unsigned char answer[256] = {0};

                        SAY(r, ioctl(fd, requests[i].request, answer), "%s of %s", requests[i].name,
                            names[k]);
                        if (requests[i].request == FIONREAD || requests[i].request == FIGETBSZ ||
                            requests[i].request == FIOQSIZE ||
                            requests[i].request == FS_IOC_GETFLAGS)
                                rec_data(r, answer, 8);
                }
                if (k == 0) {
                        int left = -1;

                        SET(r, lseek(fd, 4, SEEK_SET));
                        SAY(r, ioctl(fd, FIONREAD, &left), "FIONREAD in the middle");
                        rec(r, "%d", left);
                        SET(r, lseek(fd, 40, SEEK_SET));
                        SAY(r, ioctl(fd, FIONREAD, &left), "FIONREAD behind the end");
                        rec(r, "%d", left);
                }
                close(fd);
        }
        for (k = 0; k < N_ELEMENTS(names); k++) {
                int fd = SET(r, open(names[k], O_RDONLY | O_CLOEXEC));
                int flags = 0;

                SAY(r, ioctl(fd, FS_IOC_GETFLAGS, &flags), "flags of %s", names[k]);
                flags |= FS_NODUMP_FL;
                SAY(r, ioctl(fd, FS_IOC_SETFLAGS, &flags), "set NODUMP of %s", names[k]);
                SAY(r, ioctl(fd, FS_IOC_GETFLAGS, &flags), "flags of %s afterwards", names[k]);
                rec(r, "NODUMP %d", (flags & FS_NODUMP_FL) != 0);
                SAY(r, ioctl(fd, FICLONE, fd), "FICLONE of %s", names[k]);
                close(fd);
        }
}

void group_fcntl(struct run *r)
{
        static const struct {
                const char *name;
                int flags;
        } sets[] = {{"APPEND", O_APPEND},
                    {"NONBLOCK", O_NONBLOCK},
                    {"NOATIME", O_NOATIME},
                    {"DIRECT", O_DIRECT},
                    {"ASYNC", O_ASYNC},
                    {"SYNC", O_SYNC},
                    {"CREAT|TRUNC", O_CREAT | O_TRUNC},
                    {"RDONLY", O_RDONLY},
                    {"none", 0}};
        static const char *const names[] = {"file", "dir"};
        size_t i, k;
        int fd, copy;

        put(r, "file", "0123456789");
        SET(r, mkdir("dir", 0755));
        for (k = 0; k < N_ELEMENTS(names); k++) {
                fd = SET(r, open(names[k], k ? O_RDONLY : O_RDWR));
                SAY(r, fcntl(fd, F_GETFL), "F_GETFL of %s", names[k]);
                SAY(r, fcntl(fd, F_GETFD), "F_GETFD of %s", names[k]);
                SAY(r, fcntl(fd, F_SETFD, FD_CLOEXEC), "F_SETFD of %s", names[k]);
                SAY(r, fcntl(fd, F_GETFD), "F_GETFD afterwards of %s", names[k]);
                for (i = 0; i < N_ELEMENTS(sets); i++) {
                        SAY(r, fcntl(fd, F_SETFL, sets[i].flags), "F_SETFL %s of %s", sets[i].name,
                            names[k]);
                        rec(r, "%o", fcntl(fd, F_GETFL));
                }
                copy = FD(r, fcntl(fd, F_DUPFD, 50), "F_DUPFD of %s", names[k]);
                rec(r, "%d %d", copy, fcntl(copy, F_GETFD));
                copy = FD(r, fcntl(fd, F_DUPFD_CLOEXEC, 60), "F_DUPFD_CLOEXEC of %s", names[k]);
                rec(r, "%d %d", copy, fcntl(copy, F_GETFD));
                copy = FD(r, dup3(fd, 70, O_CLOEXEC), "dup3 of %s", names[k]);
                rec(r, "%d", fcntl(copy, F_GETFD));
                SAY(r, syscall(SYS_kcmp, getpid(), getpid(), 0, fd, copy), "kcmp of %s", names[k]);
                SAY(r, fcntl(fd, F_GETOWN), "F_GETOWN of %s", names[k]);
                SAY(r, fcntl(fd, F_GETPIPE_SZ), "F_GETPIPE_SZ of %s", names[k]);
                SAY(r, fcntl(fd, 1034 /* F_GET_SEALS */), "F_GET_SEALS of %s", names[k]);
                SAY(r, fcntl(fd, F_NOTIFY, 0), "F_NOTIFY of %s", names[k]);
                {
                        uint64_t hint = 77;

                        SAY(r, fcntl(fd, F_GET_RW_HINT, &hint), "F_GET_RW_HINT of %s", names[k]);
                        rec(r, "%llu", (unsigned long long)hint);
                        hint = 3;
                        SAY(r, fcntl(fd, F_SET_RW_HINT, &hint), "F_SET_RW_HINT of %s", names[k]);
                }
                SAY(r, fcntl(fd, 9999), "unknown of %s", names[k]);
                close(fd);
        }
        fd = open("file", O_RDONLY | O_CLOEXEC);
        SAY(r, close_range((unsigned)fd, (unsigned)fd, 0), "close_range");
        SAY(r, close(fd), "close twice");
}

void group_proc_fd(struct run *r)
{
        static const int opens[] = {O_RDONLY,
                                    O_WRONLY,
                                    O_RDWR,
                                    O_WRONLY | O_TRUNC,
                                    O_RDWR | O_APPEND,
                                    O_RDONLY | O_DIRECTORY,
                                    O_RDONLY | O_NOFOLLOW};
        char proc[64], text[PATH_MAX], buffer[32];
        int ro, dir, again;
        size_t i;

        put(r, "file", "0123456789");
        SET(r, mkdir("dir", 0755));
        put(r, "dir/in", "inner");
        ro = SET(r, open("file", O_RDONLY | O_CLOEXEC));
        dir = SET(r, open("dir", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        SET(r, lseek(ro, 3, SEEK_SET));
        snprintf(proc, sizeof proc, "/proc/self/fd/%d", ro);
        for (i = 0; i < N_ELEMENTS(opens); i++) {
                again = FD(r, open(proc, opens[i] | O_CLOEXEC), "re-open %o", opens[i]);
                if (again >= 0) {
                        rec(r, "flags %o offset %ld", fcntl(again, F_GETFL),
                            (long)lseek(again, 0, SEEK_CUR));
                        rec_fstat(r, again);
                        close(again);
                }
                put(r, "file", "0123456789");
        }
        again = SET(r, open(proc, O_RDWR | O_CLOEXEC));
        SET(r, unlink("file"));
        rec_data(r, buffer, SAY(r, read(again, buffer, 4), "read after unlink"));
        close(again);
        again = FD(r, open(proc, O_RDWR | O_CLOEXEC), "re-open of an unlinked file");
        SAY(r, write(again, "new", 3), "write to it");
        rec_data(r, buffer, SAY(r, read(ro, buffer, 10), "and read by the first"));
        step(r, "what fdinfo says");
        {
                FILE *f;
                char line[256];
                int flags = 0, pos = 0;

                snprintf(text, sizeof text, "/proc/self/fdinfo/%d", ro);
                f = fopen(text, "re");
                while (f != NULL && fgets(line, sizeof line, f) != NULL) {
                        sscanf(line, "flags: %o", (unsigned *)&flags);
                        sscanf(line, "pos: %d", &pos);
                }
                rec(r, "pos %d flags %o", pos, flags);
                if (f != NULL)
                        fclose(f);
        }
        snprintf(proc, sizeof proc, "/proc/self/fd/%d/in", dir);
        step(r, "by a directory's descriptor");
        rec_file(r, proc);
        SET(r, rename("dir", "moved"));
        step(r, "by a moved directory's descriptor");
        rec_file(r, proc);
}

void group_handles(struct run *r)
{
        struct {
                struct file_handle handle;
                unsigned char bytes[128];
        } h = {.handle = {.handle_bytes = sizeof h.bytes}};
        int mount, fd;

        put(r, "file", "content");
        SAY(r, name_to_handle_at(AT_FDCWD, "file", &h.handle, &mount, 0), "name_to_handle_at");
        fd = FD(r, open_by_handle_at(AT_FDCWD, &h.handle, O_RDONLY | O_CLOEXEC),
                "open_by_handle_at");
        if (fd >= 0)
                rec_fstat(r, fd);
        SET(r, rename("file", "moved"));
        fd = FD(r, open_by_handle_at(AT_FDCWD, &h.handle, O_RDONLY | O_CLOEXEC), "after a rename");
        SET(r, unlink("moved"));
        close(fd);
        fd = FD(r, open_by_handle_at(AT_FDCWD, &h.handle, O_RDONLY | O_CLOEXEC), "after unlink");
        close(fd);
        h.handle.handle_bytes = 1;
        SAY(r, name_to_handle_at(AT_FDCWD, ".", &h.handle, &mount, 0), "with too little room");
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One operation of a file system each, with what a program sees of it.  `prepare` is done in peace;
 * somewhere in `run` the daemon dies.
 */
#include "tests/once/once.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "lazy/protocol.h"

/* Paths in the operation's directory; four at a time. */
static const char *in(struct place *at, const char *name)
{
        static char paths[4][512];
        static unsigned next;
        char *path = paths[next++ % 4];

        snprintf(path, sizeof paths[0], "%s/%s", at->path, name);
        return path;
}

/* Says what a call returned: 0 for all that is good, for descriptors differ. */
static long said(struct place *at, const char *what, long r)
{
        const int err = errno;

        if (r < 0)
                fprintf(at->say, "%s: %s\n", what, strerrorname_np(err));
        else
                fprintf(at->say, "%s: %s\n", what, "good");
        errno = err;
        return r;
}

static long said_number(struct place *at, const char *what, long r)
{
        if (r < 0)
                return said(at, what, r);
        fprintf(at->say, "%s: %ld\n", what, r);
        return r;
}

static void make(struct place *at, const char *name, const char *text)
{
        const int fd = open(in(at, name), O_CREAT | O_WRONLY | O_TRUNC, 0644);

        if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
                said(at, "prepare", -1);
        close(fd);
}

static void say_contents(struct place *at, int fd)
{
        char text[256];
        ssize_t n = pread(fd, text, sizeof text - 1, 0);

        if (said_number(at, "pread", n) >= 0) {
                text[n] = '\0';
                fprintf(at->say, "contents: %s\n", text);
        }
}

static void say_fstat(struct place *at, int fd)
{
        struct stat st;

        if (said(at, "fstat", fstat(fd, &st)) == 0)
                fprintf(at->say, "mode %o, %lu links, %ld bytes\n", st.st_mode,
                        (unsigned long)st.st_nlink, (long)st.st_size);
}

static void done(struct place *at, int *fd)
{
        if (*fd >= 0)
                said(at, "close", close(*fd));
        *fd = -1;
}

/* ---- making ---- */

static void prepare_old(struct place *at)
{
        make(at, "old", "old contents");
        make(at, "other", "the other's");
}

static void create_with(struct place *at, const char *name, int flags, mode_t mode)
{
        at->fd = (int)said(at, "open", open(in(at, name), flags, mode));
        if (at->fd >= 0 && (flags & O_ACCMODE) != O_RDONLY)
                said_number(at, "write", write(at->fd, "new", 3));
        done(at, &at->fd);
}

static void run_create(struct place *at)
{
        create_with(at, "new", O_CREAT | O_WRONLY, 0640);
}

static void run_create_excl(struct place *at)
{
        create_with(at, "new", O_CREAT | O_EXCL | O_RDWR, 0600);
        create_with(at, "new", O_CREAT | O_EXCL | O_RDWR, 0600); /* EEXIST for the second */
}

static void run_create_readonly(struct place *at)
{
        create_with(at, "new", O_CREAT | O_EXCL | O_RDWR, 0444); /* as git does */
}

static void run_create_trunc(struct place *at)
{
        create_with(at, "old", O_CREAT | O_TRUNC | O_WRONLY, 0644);
}

static void run_tmpfile(struct place *at)
{
        char path[64];

        at->fd = (int)said(at, "tmpfile", open(at->path, O_TMPFILE | O_RDWR, 0600));
        if (at->fd < 0)
                return;
        said_number(at, "write", write(at->fd, "nameless", 8));
        snprintf(path, sizeof path, "/proc/self/fd/%d", at->fd);
        said(at, "linkat", linkat(AT_FDCWD, path, AT_FDCWD, in(at, "named"), AT_SYMLINK_FOLLOW));
        say_contents(at, at->fd);
        say_fstat(at, at->fd);
        done(at, &at->fd);
}

static void run_mkdir(struct place *at)
{
        said(at, "mkdir", mkdir(in(at, "dir"), 0750));
        said(at, "again", mkdir(in(at, "dir"), 0750));
}

static void run_mknod(struct place *at)
{
        said(at, "mkfifo", mkfifo(in(at, "pipe"), 0640));
        said(at, "mknod", mknod(in(at, "file"), S_IFREG | 0600, 0));
}

static void run_symlink(struct place *at)
{
        char target[64];

        said(at, "symlink", symlink("nowhere/at all", in(at, "link")));
        said_number(at, "readlink", readlink(in(at, "link"), target, sizeof target));
}

static void run_link(struct place *at)
{
        said(at, "link", link(in(at, "old"), in(at, "second")));
        said(at, "again", link(in(at, "old"), in(at, "second")));
        said(at, "other", link(in(at, "other"), in(at, "second")));
}

/* ---- removing ---- */

static void run_unlink(struct place *at)
{
        said(at, "unlink", unlink(in(at, "old")));
        said(at, "again", unlink(in(at, "old")));
}

static void prepare_two_names(struct place *at)
{
        prepare_old(at);
        said(at, "link", link(in(at, "old"), in(at, "second")));
}

static void run_unlink_one_of_two(struct place *at)
{
        run_unlink(at);
        at->fd = (int)said(at, "open", open(in(at, "second"), O_RDONLY));
        say_contents(at, at->fd);
        say_fstat(at, at->fd);
        done(at, &at->fd);
}

static void prepare_open(struct place *at)
{
        prepare_old(at);
        at->fd = (int)said(at, "open", open(in(at, "old"), O_RDWR));
}

static void run_unlink_open(struct place *at)
{
        run_unlink(at);
        say_fstat(at, at->fd);
        say_contents(at, at->fd);
        said_number(at, "pwrite", pwrite(at->fd, "NEW", 3, 4));
        said(at, "fchmod", fchmod(at->fd, 0600));
        say_contents(at, at->fd);
        done(at, &at->fd);
}

static void prepare_dir(struct place *at)
{
        said(at, "mkdir", mkdir(in(at, "dir"), 0755));
        said(at, "mkdir", mkdir(in(at, "empty"), 0755));
        make(at, "dir/file", "in it");
}

static void run_rmdir(struct place *at)
{
        said(at, "rmdir", rmdir(in(at, "empty")));
        said(at, "full", rmdir(in(at, "dir")));
}

static void prepare_open_dir(struct place *at)
{
        prepare_dir(at);
        at->fd = (int)said(at, "open", open(in(at, "empty"), O_RDONLY | O_DIRECTORY));
}

static void run_rmdir_open(struct place *at)
{
        struct stat st;

        said(at, "rmdir", rmdir(in(at, "empty")));
        said(at, "fstat", fstat(at->fd, &st));
        said(at, "in it", mkdirat(at->fd, "x", 0700));
        done(at, &at->fd);
}

/* ---- renaming ---- */

static void run_rename(struct place *at)
{
        said(at, "rename", rename(in(at, "old"), in(at, "new")));
        said(at, "again", rename(in(at, "old"), in(at, "new")));
}

static void run_rename_over(struct place *at)
{
        said(at, "rename", rename(in(at, "other"), in(at, "old")));
}

static void run_rename_over_open(struct place *at)
{
        run_rename_over(at);
        say_fstat(at, at->fd);
        say_contents(at, at->fd);
        done(at, &at->fd);
}

static void run_rename_exchange(struct place *at)
{
        said(at, "exchange",
             renameat2(AT_FDCWD, in(at, "old"), AT_FDCWD, in(at, "other"), RENAME_EXCHANGE));
}

static void run_rename_noreplace(struct place *at)
{
        said(at, "free",
             renameat2(AT_FDCWD, in(at, "old"), AT_FDCWD, in(at, "new"), RENAME_NOREPLACE));
        said(at, "taken",
             renameat2(AT_FDCWD, in(at, "other"), AT_FDCWD, in(at, "new"), RENAME_NOREPLACE));
}

static void run_rename_same(struct place *at)
{
        said(at, "rename", rename(in(at, "old"), in(at, "second")));
}

static void run_rename_dir(struct place *at)
{
        struct stat st;

        said(at, "rename", rename(in(at, "dir"), in(at, "empty")));
        said(at, "stat", stat(in(at, "empty/file"), &st));
        said(at, "back", rename(in(at, "empty"), in(at, "dir")));
        said(at, "stat", stat(in(at, "dir/file"), &st));
}

/* ---- extended attributes ---- */

static void run_setxattr(struct place *at)
{
        const char *file = in(at, "old");

        said(at, "create", setxattr(file, "user.a", "1", 1, XATTR_CREATE));
        said(at, "exists", setxattr(file, "user.a", "2", 1, XATTR_CREATE));
        said(at, "replace", setxattr(file, "user.a", "22", 2, XATTR_REPLACE));
        said(at, "none", setxattr(file, "user.b", "3", 1, XATTR_REPLACE));
        said(at, "plain", setxattr(file, "user.c", "4", 1, 0));
}

static void prepare_xattr(struct place *at)
{
        prepare_old(at);
        said(at, "setxattr", setxattr(in(at, "old"), "user.a", "1", 1, 0));
        said(at, "setxattr", setxattr(in(at, "old"), "user.b", "2", 1, 0));
}

static void run_removexattr(struct place *at)
{
        char list[256], value[16];

        said(at, "remove", removexattr(in(at, "old"), "user.a"));
        said(at, "again", removexattr(in(at, "old"), "user.a"));
        said_number(at, "list", listxattr(in(at, "old"), list, sizeof list));
        said_number(at, "get", getxattr(in(at, "old"), "user.b", value, sizeof value));
}

/* ---- contents ---- */

static void prepare_append(struct place *at)
{
        prepare_old(at);
        at->fd = (int)said(at, "open", open(in(at, "old"), O_RDWR | O_APPEND));
}

static void run_append(struct place *at)
{
        said_number(at, "write", write(at->fd, "+one", 4));
        said_number(at, "write", write(at->fd, "+one", 4));
        say_contents(at, at->fd);
        done(at, &at->fd);
}

static void prepare_append_only(struct place *at)
{
        prepare_old(at);
        at->fd = (int)said(at, "open", open(in(at, "old"), O_WRONLY | O_APPEND));
}

static void run_append_only(struct place *at)
{
        char *many = calloc(1, 200000);

        if (many)
                said_number(at, "write", write(at->fd, many, 200000));
        free(many);
        say_fstat(at, at->fd);
        done(at, &at->fd);
}

static void run_write(struct place *at)
{
        said_number(at, "write", write(at->fd, "OLD", 3));
        said_number(at, "pwrite", pwrite(at->fd, "tail", 4, 20));
        say_fstat(at, at->fd);
        say_contents(at, at->fd);
        said(at, "fsync", fsync(at->fd));
        said_number(at, "data", lseek(at->fd, 0, SEEK_DATA));
        done(at, &at->fd);
}

static void run_ftruncate(struct place *at)
{
        said(at, "ftruncate", ftruncate(at->fd, 5));
        say_contents(at, at->fd);
        said(at, "truncate", truncate(in(at, "other"), 3));
        done(at, &at->fd);
}

static void run_open_trunc(struct place *at)
{
        int fd = (int)said(at, "open", open(in(at, "old"), O_RDWR | O_TRUNC));

        say_fstat(at, at->fd);
        done(at, &fd);
        done(at, &at->fd);
}

static void run_fallocate(struct place *at)
{
        said(at, "fallocate", fallocate(at->fd, 0, 0, 8192));
        said(at, "punch", fallocate(at->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4));
        say_fstat(at, at->fd);
        done(at, &at->fd);
}

static void run_copy_range(struct place *at)
{
        int to = (int)said(at, "open", open(in(at, "other"), O_RDWR));
        off_t from_at = 4, to_at = 2;

        said_number(at, "copy", copy_file_range(at->fd, &from_at, to, &to_at, 8, 0));
        say_contents(at, to);
        done(at, &to);
        done(at, &at->fd);
}

/* ---- attributes ---- */

static void run_chmod(struct place *at)
{
        said(at, "chmod", chmod(in(at, "old"), 0751));
        said(at, "fchmod", fchmod(at->fd, 04755));
        say_fstat(at, at->fd);
        done(at, &at->fd);
}

static void run_chown(struct place *at)
{
        said(at, "chown", chown(in(at, "old"), getuid() ? (uid_t)-1 : 7, getuid() ? (gid_t)-1 : 8));
        say_fstat(at, at->fd);
        done(at, &at->fd);
}

static void run_utimens(struct place *at)
{
        const struct timespec times[2] = {{.tv_sec = 1000000001}, {.tv_sec = 1000000002}};
        struct stat st;

        said(at, "utimensat", utimensat(AT_FDCWD, in(at, "old"), times, 0));
        if (said(at, "fstat", fstat(at->fd, &st)) == 0)
                fprintf(at->say, "times %ld %ld\n", (long)st.st_atime, (long)st.st_mtime);
        done(at, &at->fd);
}

static void run_setflags(struct place *at)
{
        int flags = 0;

        said(at, "getflags", ioctl(at->fd, FS_IOC_GETFLAGS, &flags));
        flags |= FS_NODUMP_FL;
        said(at, "setflags", ioctl(at->fd, FS_IOC_SETFLAGS, &flags));
        flags = 0;
        said(at, "getflags", ioctl(at->fd, FS_IOC_GETFLAGS, &flags));
        fprintf(at->say, "nodump: %d\n", !!(flags & FS_NODUMP_FL));
        done(at, &at->fd);
}

/* ---- looking ---- */

static void run_open(struct place *at)
{
        struct statvfs fs;
        struct stat st;

        at->fd = (int)said(at, "open", open(in(at, "old"), O_RDONLY));
        say_contents(at, at->fd);
        done(at, &at->fd);
        said(at, "none", stat(in(at, "none"), &st));
        said(at, "access", access(in(at, "old"), R_OK));
        said(at, "statvfs", statvfs(at->path, &fs));
}

static void prepare_many(struct place *at)
{
        char name[32];

        for (int i = 0; i < 40; i++) {
                snprintf(name, sizeof name, "file-%02d", i);
                make(at, name, name);
        }
}

static int by_name(const void *a, const void *b)
{
        return strcmp(*(char *const *)a, *(char *const *)b);
}

static void list_names(struct place *at, const char *path)
{
        char *names[256];
        struct dirent *entry;
        unsigned n = 0;
        DIR *dir = opendir(path);

        said(at, "opendir", dir ? 0 : -1);
        while (dir && n < 256 && (entry = readdir(dir)))
                names[n++] = strdup(entry->d_name);
        if (dir)
                said(at, "closedir", closedir(dir));
        qsort(names, n, sizeof *names, by_name);
        for (unsigned i = 0; i < n; i++) {
                struct stat st;

                fprintf(at->say, "%s %d\n", names[i], stat(in(at, names[i]), &st));
                free(names[i]);
        }
}

static void run_readdir(struct place *at)
{
        list_names(at, at->path);
}

/* What the kernel forgets, it forgets when nobody waits: a few requests later. */
static void run_forget(struct place *at)
{
        char name[32];
        struct stat st;

        for (int i = 0; i < 40; i++) {
                snprintf(name, sizeof name, "file-%02d", i);
                said(at, "unlink", unlink(in(at, name)));
        }
        for (int i = 0; i < 20; i++) {
                usleep(1000);
                said(at, "stat", stat(in(at, "file-00"), &st));
        }
}

/* ---- our own ---- */

static void prepare_child(struct place *at)
{
        prepare_open(at);
}

static void touch_in_child(struct place *at)
{
        const struct k42_header header = {.version = K42_PROTOCOL_VERSION, .length = 64};
        struct k42_lazy_reopen first = {.header = header}, again = {.header = header};
        struct k42_identify who = {.header = header};
        struct k42_where where = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof where}};

        said(at, "touch", ioctl(at->fd, K42_IOC_LAZY_REOPEN, &first));
        said(at, "touch", ioctl(at->fd, K42_IOC_LAZY_REOPEN, &again));
        said(at, "identify", ioctl(at->fd, K42_IOC_IDENTIFY, &who));
        said(at, "where", ioctl(at->fd, K42_IOC_WHERE, &where));
        fprintf(at->say, "same: %d, a parent: %d, sharing %u, %u handles\n",
                first.token == again.token, first.parent == who.opener, again.sharing, who.handles);
        fflush(at->say);
}

static void run_touch(struct place *at)
{
        int status = 0;
        pid_t child;

        fflush(at->say);
        child = fork();
        if (child == 0) {
                touch_in_child(at);
                _exit(0);
        }
        waitpid(child, &status, 0);
        said_number(at, "child", status);
        done(at, &at->fd);
}

/* True if the daemon still has to die in this point: the text that says so is in the first page of
 * the file `requests` of the state directory.  (Nobody may be there to be asked.) */
static bool to_be_died_in(const char *point)
{
        char path[512], page[4096];
        ssize_t n;
        int fd;

        snprintf(path, sizeof path, "%s/requests", state_dir);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? -1 : read(fd, page, sizeof page);
        if (fd >= 0)
                close(fd);
        return n > 0 && memmem(page, (size_t)n, point, strlen(point));
}

/* A caller who is killed while no daemon answers him: what he asked for is done or not, and it is
 * the same everywhere.  So nothing is said of it here, and what is in the directory is made the
 * same.  He is killed when the kernel has been told to send again, and there is nobody yet to whom:
 * then it never does. */
static void kill_in(struct place *at, void (*call)(struct place *at))
{
        int status = 0;
        pid_t child = fork();

        if (child == 0) {
                call(at);
                _exit(0);
        }
        for (int i = 0; i < 5000 && to_be_died_in("resent"); i++)
                usleep(1000);
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
}

static void call_mkdir(struct place *at)
{
        mkdir(in(at, "dir"), 0755);
}

static void run_killed(struct place *at)
{
        kill_in(at, call_mkdir);
        mkdir(in(at, "dir"), 0755);
        said(at, "rmdir", rmdir(in(at, "dir")));
        said(at, "again", rmdir(in(at, "dir")));
}

static void call_open(struct place *at)
{
        (void)!open(in(at, "old"), O_RDONLY);
}

static void run_killed_open(struct place *at)
{
        kill_in(at, call_open);
        at->fd = (int)said(at, "open", open(in(at, "old"), O_RDWR));
        say_contents(at, at->fd);
        done(at, &at->fd);
}

static void on_alarm(int sig)
{
}

/* Signals that are no reason to end: the kernel tells the daemon that the caller would rather not
 * wait, and it goes on. */
static void run_interrupted(struct place *at)
{
        const struct itimerval often = {{0, 3000}, {0, 3000}}, never = {{0, 0}, {0, 0}};
        struct sigaction action = {.sa_handler = on_alarm};

        sigaction(SIGALRM, &action, NULL);
        setitimer(ITIMER_REAL, &often, NULL);
        for (int i = 0; i < 5; i++) {
                said(at, "mkdir", mkdir(in(at, "dir"), 0755));
                said(at, "rename", rename(in(at, "dir"), in(at, "other")));
                said(at, "rmdir", rmdir(in(at, "other")));
        }
        setitimer(ITIMER_REAL, &never, NULL);
}

const struct operation operations[] = {
        {"create", NULL, run_create},
        {"create-excl", NULL, run_create_excl},
        {"create-readonly", NULL, run_create_readonly},
        {"create-trunc", prepare_old, run_create_trunc},
        {"tmpfile", NULL, run_tmpfile},
        {"mkdir", NULL, run_mkdir},
        {"mknod", NULL, run_mknod},
        {"symlink", NULL, run_symlink},
        {"link", prepare_old, run_link},
        {"unlink", prepare_old, run_unlink},
        {"unlink-one-of-two", prepare_two_names, run_unlink_one_of_two},
        {"unlink-open", prepare_open, run_unlink_open},
        {"rmdir", prepare_dir, run_rmdir},
        {"rmdir-open", prepare_open_dir, run_rmdir_open},
        {"rename", prepare_old, run_rename},
        {"rename-over", prepare_old, run_rename_over},
        {"rename-over-open", prepare_open, run_rename_over_open},
        {"rename-exchange", prepare_old, run_rename_exchange},
        {"rename-noreplace", prepare_old, run_rename_noreplace},
        {"rename-same", prepare_two_names, run_rename_same},
        {"rename-dir", prepare_dir, run_rename_dir},
        {"setxattr", prepare_old, run_setxattr},
        {"removexattr", prepare_xattr, run_removexattr},
        {"append", prepare_append, run_append},
        {"append-only", prepare_append_only, run_append_only},
        {"write", prepare_open, run_write},
        {"ftruncate", prepare_open, run_ftruncate},
        {"open-trunc", prepare_open, run_open_trunc},
        {"fallocate", prepare_open, run_fallocate},
        {"copy-range", prepare_open, run_copy_range},
        {"chmod", prepare_open, run_chmod},
        {"chown", prepare_open, run_chown},
        {"utimens", prepare_open, run_utimens},
        {"setflags", prepare_open, run_setflags},
        {"open", prepare_old, run_open},
        {"readdir", prepare_many, run_readdir},
        {"forget", prepare_many, run_forget},
        {"touch", prepare_child, run_touch},
        {"killed", NULL, run_killed},
        {"killed-open", prepare_old, run_killed_open},
        {"interrupted", NULL, run_interrupted},
};
const unsigned n_operations = sizeof operations / sizeof operations[0];

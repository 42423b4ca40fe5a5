/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owned by the caller altogether: no globals, no locks.  Nothing here aborts when memory or
 * descriptors run out; the look then fails and its caller leaves things as they are.
 */
#include "fusefs/control/proc_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

G_DEFINE_AUTOPTR_CLEANUP_FUNC(DIR, closedir)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(FILE, fclose)

/* The mounts that a process in one namespace sees and that are not ours.  (A descriptor can be on a
 * mount that its process does not see: received over a socket, or after chroot.) */
struct proc_mounts_of {
        struct proc_mounts_of *next;
        dev_t ns_dev;
        ino_t ns_ino;      /* 0: could not be told, belongs to no other process */
        uint64_t *foreign; /* sorted */
        size_t n_foreign;
};

static int compare_u64(const void *a, const void *b)
{
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return x < y ? -1 : x > y;
}

void proc_mounts_clear(struct proc_mounts *mounts)
{
        struct proc_mounts_of *next;

        for (struct proc_mounts_of *m = mounts->namespaces; m; m = next) {
                next = m->next;
                free(m->foreign);
                free(m);
        }
        mounts->namespaces = NULL;
}

static FILE *open_text(pid_t pid, const char *name)
{
        char path[64];

        snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
        return fopen(path, "re");
}

#define CLOSED_SINCE 1
#define LOOKS        4 /* at a process that closes descriptors all the time */

/* ENOENT in /proc/PID means that the process is gone. */
static int proc_errno(void)
{
        return errno == ENOENT || errno == ESRCH ? -ESRCH : errno ? -errno : -EIO;
}

static int read_mountinfo(pid_t pid, dev_t dev, struct proc_mounts_of *of)
{
        g_autoptr(FILE) file = open_text(pid, "mountinfo");
        char *line = NULL;
        size_t room = 0, have = 0;
        int r = 0;

        if (!file) /* EINVAL: it has ended, and has no namespaces any more; its parent has not waited for it */
                return errno == EINVAL ? -ESRCH : proc_errno();
        while (getline(&line, &room, file) >= 0) {
                unsigned id, dev_major, dev_minor;

                if (sscanf(line, "%u %*u %u:%u", &id, &dev_major, &dev_minor) != 3 ||
                    makedev(dev_major, dev_minor) == dev)
                        continue;
                if (of->n_foreign == have) {
                        uint64_t *grown;

                        have = have ? have * 2 : 64;
                        grown = reallocarray(of->foreign, have, sizeof(*grown));
                        if (!grown) {
                                r = -ENOMEM;
                                break;
                        }
                        of->foreign = grown;
                }
                of->foreign[of->n_foreign++] = id;
        }
        if (ferror(file))
                r = -EIO;
        free(line);
        if (of->n_foreign > 0)
                qsort(of->foreign, of->n_foreign, sizeof(*of->foreign), compare_u64);
        return r;
}

static int mounts_of(struct proc_mounts *mounts, pid_t pid, dev_t dev,
                     const struct proc_mounts_of **ret_of)
{
        struct proc_mounts_of *of;
        struct stat st = {0};
        char path[64];
        int r;

        snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)pid);
        if (stat(path, &st) < 0)
                st.st_ino = 0;
        for (of = mounts->namespaces; of && st.st_ino; of = of->next)
                if (of->ns_ino == st.st_ino && of->ns_dev == st.st_dev) {
                        *ret_of = of;
                        return 0;
                }
        of = calloc(1, sizeof(*of));
        if (!of)
                return -ENOMEM;
        of->ns_ino = st.st_ino;
        of->ns_dev = st.st_dev;
        r = read_mountinfo(pid, dev, of);
        if (r < 0) {
                free(of->foreign);
                free(of);
                return r;
        }
        of->next = mounts->namespaces;
        mounts->namespaces = of;
        *ret_of = of;
        return 0;
}

static int compare_want(const void *key, const void *element)
{
        uint64_t ino = *(const uint64_t *)key;
        const struct proc_want *want = element;

        return ino < want->ino ? -1 : ino > want->ino;
}

static struct proc_want *find_want(struct proc_want *want, size_t n, uint64_t ino)
{
        return bsearch(&ino, want, n, sizeof(*want), compare_want);
}

/* One fdinfo file: "pos:\t0\nflags:\t0100000\nmnt_id:\t35\nino:\t12\n", in this order, then what
 * the file's kind adds.  Returns 0, CLOSED_SINCE or -errno. */
static int look_at_fdinfo(int dirfd, const char *name, const struct proc_mounts_of *of,
                          struct proc_want *want, size_t n)
{
        unsigned flags;
        uint64_t mount_id, ino;
        struct proc_want *found;
        const char *p;
        char text[512];
        ssize_t got;
        int fd;

        fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? CLOSED_SINCE : -errno;
        got = read(fd, text, sizeof(text) - 1);
        if (got < 0)
                got = errno == ENOENT ? 0 : -errno;
        close(fd);
        if (got <= 0)
                return got < 0 ? (int)got : CLOSED_SINCE;
        text[got] = '\0';

        p = strstr(text, "flags:");
        if (!p ||
            sscanf(p, "flags: %o mnt_id: %" SCNu64 " ino: %" SCNu64, &flags, &mount_id, &ino) != 3)
                return -EIO; /* a kernel before 5.14 does not tell the inode */
        found = find_want(want, n, ino);
        if (!found || (flags & O_PATH) ||
            (of->n_foreign > 0 &&
             bsearch(&mount_id, of->foreign, of->n_foreign, sizeof(*of->foreign), compare_u64)))
                return 0;
        found->descriptors[flags & O_ACCMODE]++;
        return 0;
}

/* Returns 0, or CLOSED_SINCE if one that was listed has been closed before it was looked at, or -errno. */
static int look_at_descriptors(const char *path, const struct proc_mounts_of *of,
                               struct proc_want *want, size_t n)
{
        g_autoptr(DIR) dir = opendir(path);
        struct dirent *entry;
        int r, closed = 0;

        if (!dir)
                return proc_errno();
        for (errno = 0; (entry = readdir(dir)); errno = 0) {
                if (!g_ascii_isdigit(entry->d_name[0]))
                        continue;
                r = look_at_fdinfo(dirfd(dir), entry->d_name, of, want, n);
                if (r < 0)
                        return r;
                closed |= r;
        }
        return errno ? proc_errno() : closed;
}

/* Then the threads and mappings need no look. */
static bool all_found(const struct proc_want *want, size_t n)
{
        for (size_t i = 0; i < n; i++)
                for (unsigned mode = 0; mode < 4; mode++)
                        if ((want[i].modes & 1u << mode) && want[i].descriptors[mode] == 0)
                                return false;
        return true;
}

/* A thread can have a table of its own (unshare(CLONE_FILES)), and has it alone when the first
 * thread has ended. */
static int look_at_threads(pid_t pid, const struct proc_mounts_of *of, struct proc_want *want,
                           size_t n)
{
        g_autoptr(DIR) dir = NULL;
        struct dirent *entry;
        char path[64];
        int r;

        snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
        dir = opendir(path);
        if (!dir)
                return proc_errno();
        for (errno = 0; (entry = readdir(dir)); errno = 0) {
                int tid = atoi(entry->d_name);

                if (tid <= 0 || tid == pid ||
                    syscall(SYS_kcmp, pid, tid, KCMP_FILES, 0UL, 0UL) == 0)
                        continue;
                snprintf(path, sizeof(path), "/proc/%d/task/%d/fdinfo", (int)pid, tid);
                r = look_at_descriptors(path, of, want, n);
                if (r < 0 && r != -ESRCH)
                        return r;
        }
        return errno ? proc_errno() : 0;
}

static int look_at_mappings(pid_t pid, dev_t dev, struct proc_want *want, size_t n)
{
        g_autoptr(FILE) file = open_text(pid, "maps");
        struct proc_want *found;
        char *line = NULL;
        size_t room = 0;
        int r = 0;

        if (!file)
                return proc_errno();
        errno = 0;
        while (getline(&line, &room, file) >= 0) {
                unsigned dev_major, dev_minor;
                uint64_t ino;

                if (sscanf(line, "%*x-%*x %*s %*x %x:%x %" SCNu64, &dev_major, &dev_minor, &ino) !=
                            3 ||
                    makedev(dev_major, dev_minor) != dev)
                        continue;
                found = find_want(want, n, ino);
                if (found)
                        found->mapped = true;
        }
        if (ferror(file))
                r = proc_errno();
        else if (errno == ENOMEM)
                r = -ENOMEM;
        free(line);
        return r;
}

int proc_files_look(struct proc_mounts *mounts, pid_t pid, dev_t dev, struct proc_want *want,
                    size_t n)
{
        const struct proc_mounts_of *of = NULL;
        char path[64];
        int r = mounts_of(mounts, pid, dev, &of);

        if (r < 0)
                return r;
        snprintf(path, sizeof(path), "/proc/%d/fdinfo", (int)pid);
        /* What was closed between the listing and the look may have a number by now that was listed before it. */
        for (int look = 0; look < LOOKS; look++) {
                for (size_t i = 0; i < n; i++)
                        want[i] = (struct proc_want){.ino = want[i].ino, .modes = want[i].modes};
                r = look_at_descriptors(path, of, want, n);
                if (r < 0)
                        return r;
                if (r != CLOSED_SINCE || all_found(want, n))
                        break;
        }
        if (all_found(want, n))
                return 0;
        r = look_at_threads(pid, of, want, n);
        if (r < 0)
                return r;
        return look_at_mappings(pid, dev, want, n);
}

/* Has it, to `modes`' mind: 1; 0; -errno. */
static int has_inode(struct proc_mounts *mounts, pid_t pid, dev_t dev, uint64_t ino, unsigned modes)
{
        struct proc_want want = {.ino = ino, .modes = modes};
        int r = proc_files_look(mounts, pid, dev, &want, 1);

        if (r < 0)
                return r;
        for (unsigned mode = 0; mode < 4; mode++)
                if ((modes & 1u << mode) && want.descriptors[mode] > 0)
                        return 1;
        return want.mapped;
}

int proc_files_anybody(dev_t dev, uint64_t ino, unsigned modes)
{
        g_auto(K42ProcMounts) mounts = {NULL};
        g_autoptr(DIR) dir = opendir("/proc");
        struct dirent *entry;
        int unseen = 0;

        if (!dir)
                return -errno;
        for (errno = 0; (entry = readdir(dir)); errno = 0) {
                const int pid = atoi(entry->d_name);
                int r;

                if (pid <= 0 || pid == getpid())
                        continue;
                r = has_inode(&mounts, pid, dev, ino, modes);
                if (r > 0)
                        return r;
                if (r < 0 && r != -ESRCH)
                        unseen = r;
        }
        return errno ? -errno : unseen;
}

int proc_files_own(void)
{
        g_autoptr(DIR) dir = opendir("/proc/self/fd");
        struct dirent *entry;
        int n = -1; /* the one that reads the directory */

        if (!dir)
                return -errno;
        while ((entry = readdir(dir)))
                if (g_ascii_isdigit(entry->d_name[0]))
                        n++;
        return n;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Our own look at every process.  What costs nothing comes first: /proc/PID/fdinfo tells mount and
 * inode of each descriptor without a request to any file system; only descriptors of the mount are
 * then copied (pidfd_getfd) and asked.  Where that is not permitted they are known by their inode.
 */
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

#include "ctl/check.h"
#include "ctl/print.h"
#include "lazy/protocol.h"

struct scan {
        dev_t dev;
        struct seen *seen;
        GHashTable *row_pids; /* processes that have rows */
        GHashTable *mounts;   /* mount namespace → GHashTable of mount ids that are ours */
};

static char *read_text(const char *path)
{
        char *text = NULL;

        return g_file_get_contents(path, &text, NULL, NULL) ? text : NULL;
}

/* The mount ids of ours in a process's mountinfo; all copies and bind mounts of it. */
static GHashTable *mount_ids(struct scan *scan, pid_t pid)
{
        g_autofree char *ns_path = g_strdup_printf("/proc/%d/ns/mnt", (int)pid);
        g_autofree char *path = g_strdup_printf("/proc/%d/mountinfo", (int)pid);
        g_autofree char *root_path = g_strdup_printf("/proc/%d/root", (int)pid);
        g_autofree char *ns = g_file_read_link(ns_path, NULL),
                        *root = g_file_read_link(root_path, NULL);
        g_autofree char *key = NULL, *text = NULL;
        g_auto(GStrv) lines = NULL;
        GHashTable *ids;

        /* a process in a chroot sees fewer mounts than others of its namespace */
        key = ns && root ? g_strdup_printf("%s %s", ns, root) : g_strdup_printf("pid %d", (int)pid);
        ids = g_hash_table_lookup(scan->mounts, key);
        if (ids)
                return ids;
        ids = g_hash_table_new(NULL, NULL);
        g_hash_table_insert(scan->mounts, g_steal_pointer(&key), ids);
        text = read_text(path);
        lines = g_strsplit(text ? text : "", "\n", -1);
        for (char **line = lines; *line; line++) {
                unsigned id, dev_major, dev_minor;

                if (sscanf(*line, "%u %*u %u:%u", &id, &dev_major, &dev_minor) == 3 &&
                    makedev(dev_major, dev_minor) == scan->dev)
                        g_hash_table_add(ids, GUINT_TO_POINTER(id));
        }
        return ids;
}

/* Asks the kernel which description is behind descriptor `fd` of `pidfd`'s process. */
static void identify(int pidfd, int fd, struct seen_descriptor *descriptor)
{
        struct k42_identify message = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof(message)},
        };
        int copy = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
        struct stat st;

        if (copy < 0)
                return;
        /* between fdinfo and here the number may have become another file */
        if (fstat(copy, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) &&
            st.st_ino == descriptor->ino && ioctl(copy, K42_IOC_IDENTIFY, &message) == 0 &&
            message.header.length == sizeof(message) && message.description != 0) {
                descriptor->exact = true;
                descriptor->description = message.description;
                descriptor->opener_pid = message.opener_pid;
        }
        close(copy);
}

/* Looks at one fdinfo directory.  `pidfd` is -1 where descriptors cannot be copied. */
static bool scan_fdinfo(struct scan *scan, pid_t pid, int pidfd, const char *path, GHashTable *ids)
{
        g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
        const char *name;

        if (!dir)
                return access(path, F_OK) < 0 && errno == ENOENT; /* gone is no failure */
        while ((name = g_dir_read_name(dir))) {
                struct seen_descriptor descriptor = {.pid = pid, .fd = atoi(name)};
                g_autofree char *file = g_build_filename(path, name, NULL);
                g_autofree char *text = read_text(file);
                const char *flags_at = text ? strstr(text, "flags:") : NULL;
                unsigned flags, mount_id;

                if (!flags_at || sscanf(flags_at, "flags: %o mnt_id: %u ino: %" SCNu64, &flags,
                                        &mount_id, &descriptor.ino) != 3)
                        continue;
                if ((flags & O_PATH) || !g_hash_table_contains(ids, GUINT_TO_POINTER(mount_id)))
                        continue;
                if (pid == getpid()) {
                        scan->seen->own++;
                        continue;
                }
                if (pidfd >= 0)
                        identify(pidfd, descriptor.fd, &descriptor);
                g_array_append_val(scan->seen->descriptors, descriptor);
        }
        return true;
}

/* Threads with descriptor tables of their own; known by inode, since a pidfd is the process's. */
static void scan_threads(struct scan *scan, pid_t pid, GHashTable *ids)
{
        g_autofree char *path = g_strdup_printf("/proc/%d/task", (int)pid);
        g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
        const char *name;

        while (dir && (name = g_dir_read_name(dir))) {
                pid_t tid = atoi(name);
                g_autofree char *fdinfo = g_build_filename(path, name, "fdinfo", NULL);

                if (tid != pid && syscall(SYS_kcmp, pid, tid, KCMP_FILES, 0UL, 0UL) != 0)
                        scan_fdinfo(scan, pid, -1, fdinfo, ids);
        }
}

static bool scan_mappings(struct scan *scan, pid_t pid)
{
        g_autofree char *path = g_strdup_printf("/proc/%d/maps", (int)pid);
        g_autofree char *text = read_text(path);
        g_auto(GStrv) lines = NULL;

        if (!text)
                return access(path, F_OK) < 0 && errno == ENOENT;
        lines = g_strsplit(text, "\n", -1);
        for (char **line = lines; *line; line++) {
                struct seen_mapping mapping = {.pid = pid};
                unsigned dev_major, dev_minor;

                if (sscanf(*line, "%*x-%*x %*s %*x %x:%x %" SCNu64, &dev_major, &dev_minor,
                           &mapping.ino) == 3 &&
                    makedev(dev_major, dev_minor) == scan->dev)
                        g_array_append_val(scan->seen->mappings, mapping);
        }
        return true;
}

static void scan_process(struct scan *scan, pid_t pid)
{
        g_autofree char *fdinfo = g_strdup_printf("/proc/%d/fdinfo", (int)pid);
        int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        GHashTable *ids = mount_ids(scan, pid);
        bool whole = scan_fdinfo(scan, pid, pidfd, fdinfo, ids);

        g_hash_table_add(scan->seen->living, GINT_TO_POINTER(pid));
        scan_threads(scan, pid, ids);
        if (g_hash_table_contains(scan->row_pids, GINT_TO_POINTER(pid)))
                whole = scan_mappings(scan, pid) && whole;
        if (!whole)
                g_hash_table_add(scan->seen->closed_off, GINT_TO_POINTER(pid));
        if (pidfd >= 0)
                close(pidfd);
}

struct seen *seen_scan(dev_t dev, JsonArray *rows)
{
        g_autoptr(GHashTable) row_pids = g_hash_table_new(NULL, NULL);
        g_autoptr(GHashTable) mounts = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                                             (GDestroyNotify)g_hash_table_unref);
        g_autoptr(GDir) proc = g_dir_open("/proc", 0, NULL);
        struct scan scan = {.dev = dev, .row_pids = row_pids, .mounts = mounts};
        const char *name;

        if (!proc)
                return NULL;
        for (guint i = 0; i < json_array_get_length(rows); i++) {
                JsonObject *row = json_array_get_object_element(rows, i);

                g_hash_table_add(row_pids, GINT_TO_POINTER((gint)member_int(row, "pid")));
        }
        scan.seen = seen_new();
        while ((name = g_dir_read_name(proc)))
                if (g_ascii_isdigit(name[0]))
                        scan_process(&scan, atoi(name));
        return scan.seen;
}

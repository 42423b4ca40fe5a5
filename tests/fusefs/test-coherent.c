/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * coherent without a mount: the linker gives it a kernel that writes down what it is told (--wrap),
 * so that a test can have it answer as it likes.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <linux/fanotify.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fusefs/worker/channel.h"
#include "fusefs/coherent/coherent.h"
#include "fusefs/coherent/coherent_events.h"
#include "fusefs/coherent/coherent_marks.h"
#include "fusefs/node/dir_linux_fs.h"
#include "fusefs/node/node_table.h"
#include "fusefs/node/timeouts.h"

#define WAIT_US (2 * G_USEC_PER_SEC)

/* ---- the kernel ---- */

static GMutex lock;
static GString *told;         /* a word for each message; under lock */
static unsigned unknown_left; /* so many questions about inodes get ENOENT; under lock */

int __wrap_channel_inval_inode(struct channel *channel, fuse_ino_t ino, bool data);
int __wrap_channel_inval_entry(struct channel *channel, fuse_ino_t parent, const char *name,
                               bool expire);

int __wrap_channel_inval_inode(struct channel *channel, fuse_ino_t ino, bool data)
{
        int r = 0;

        g_mutex_lock(&lock);
        g_string_append_printf(told, "%s:%" G_GUINT64_FORMAT " ", data ? "data" : "attr", ino);
        if (unknown_left > 0) {
                unknown_left--;
                r = -ENOENT;
        }
        g_mutex_unlock(&lock);
        return r;
}

int __wrap_channel_inval_entry(struct channel *channel, fuse_ino_t parent, const char *name,
                               bool expire)
{
        g_mutex_lock(&lock);
        g_string_append_printf(told, "%s:%" G_GUINT64_FORMAT "/%s ", expire ? "expire" : "name",
                               parent, name);
        g_mutex_unlock(&lock);
        return 0;
}

static bool was_told(const char *text)
{
        bool found;

        g_mutex_lock(&lock);
        found = strstr(told->str, text);
        g_mutex_unlock(&lock);
        return found;
}

static void forget_told(void)
{
        g_mutex_lock(&lock);
        g_string_truncate(told, 0);
        g_mutex_unlock(&lock);
}

static void expect_told(const char *text)
{
        const gint64 until = g_get_monotonic_time() + WAIT_US;

        while (!was_told(text) && g_get_monotonic_time() < until)
                g_usleep(1000);
        if (!was_told(text))
                g_error("never told: %s; but: %s", text, told->str);
}

/* ---- fixture ---- */

struct fixture {
        struct k42_mount mount;
        char *source;
        struct server_file *root;
        bool usable;
};

static void setup(struct fixture *f, gconstpointer data)
{
        f->source = g_dir_make_tmp("k42coherent.XXXXXX", NULL);
        g_assert_nonnull(f->source);
        told = g_string_new(NULL);
        f->mount.options.source = f->source;
        f->mount.options.attr_timeout = f->mount.options.entry_timeout = TIMEOUT_UNSET;
        f->mount.privileged = geteuid() == 0;
        g_assert_cmpint(node_table_new(&f->mount, &f->mount.nodes), ==, 0);
        f->root = node_table_file(f->mount.nodes, FUSE_ROOT_ID);
        g_assert_cmpint(coherent_new(&f->mount, &f->mount.coherent), ==, 0);
        f->usable = coherent_active(f->mount.coherent);
        if (f->usable)
                g_assert_cmpint(coherent_start(f->mount.coherent), ==, 0);
        else
                g_test_skip("not root, or the file system of the temporary files is not covered");
}

static void teardown(struct fixture *f, gconstpointer data)
{
        g_autofree char *command = g_strdup_printf("rm -rf %s", f->source);

        coherent_stop(f->mount.coherent, true);
        coherent_free(f->mount.coherent);
        node_table_free(f->mount.nodes);
        g_assert_cmpint(system(command), ==, 0);
        g_free(f->source);
        g_string_free(told, TRUE);
}

/* As another process. */
G_GNUC_PRINTF(2, 3) static void other(struct fixture *f, const char *format, ...)
{
        g_autofree char *what = NULL, *command = NULL;
        va_list ap;

        va_start(ap, format);
        what = g_strdup_vprintf(format, ap);
        va_end(ap);
        command = g_strdup_printf("cd %s && %s", f->source, what);
        g_assert_cmpint(system(command), ==, 0);
}

static struct server_file *lookup(struct fixture *f, struct server_file *dir, const char *name)
{
        const int dirfd = node_fd_get(dir);
        int fd = node_table_open_at(f->mount.nodes, dirfd, name);
        struct server_file *file;
        struct fs_stat st;

        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(fs_stat(fd, &st), ==, 0);
        g_assert_cmpint(node_table_instantiate(f->mount.nodes, &st, fd, &file), ==, 0);
        g_assert_cmpint(dir_saw(dir_linux_fs_of(dir), name, file), ==, 0);
        node_fd_put(dir);
        return file;
}

static void test_changes(struct fixture *f, gconstpointer data)
{
        g_autofree char *attr = NULL, *contents = NULL;
        SERVER_FILE(file);

        if (!f->usable)
                return;
        other(f, "echo old >f");
        expect_told("expire:1/f data:1 ");
        file = lookup(f, f->root, "f");
        attr = g_strdup_printf("attr:%" G_GUINT64_FORMAT " ", file->id);
        contents = g_strdup_printf("data:%" G_GUINT64_FORMAT " ", file->id);
        g_usleep(50000);
        forget_told();

        other(f, "chmod 600 f");
        expect_told(attr);
        g_assert_false(was_told(contents));
        other(f, "echo newer >>f");
        expect_told(contents);
        other(f, "mv f g");
        expect_told("name:1/f ");
        expect_told("expire:1/g ");
        g_assert_cmpint((gint64)coherent_invalidations(f->mount.coherent), >=, 5);
}

static void test_own(struct fixture *f, gconstpointer data)
{
        g_autofree char *path = g_build_filename(f->source, "f", NULL);

        if (!f->usable)
                return;
        g_assert_true(g_file_set_contents(path, "x", 1, NULL));
        g_assert_cmpint(chmod(path, 0600), ==, 0);
        g_assert_cmpint(unlink(path), ==, 0);
        g_usleep(100000);
        g_assert_cmpstr(told->str, ==, "");
}

static void test_directory(struct fixture *f, gconstpointer data)
{
        SERVER_FILE(dir);

        if (!f->usable)
                return;
        other(f, "mkdir d");
        expect_told("expire:1/d ");
        dir = lookup(f, f->root, "d");
        forget_told();
        other(f, "mv d e && mv e d");
        expect_told("expire:1/d "); /* it is what it was */
        other(f, "mv d e");
        expect_told("name:1/d ");
}

/* A reply that names the inode is on its way to the kernel: the name first, and then once more. */
static void test_not_known_yet(struct fixture *f, gconstpointer data)
{
        g_autofree char *sequence = NULL;
        SERVER_FILE(file);

        if (!f->usable)
                return;
        other(f, "touch f");
        expect_told("expire:1/f ");
        file = lookup(f, f->root, "f");
        g_usleep(50000);
        forget_told();
        server_file_known(server_file_ref(file));
        g_mutex_lock(&lock);
        unknown_left = 1;
        g_mutex_unlock(&lock);
        sequence = g_strdup_printf("attr:%" G_GUINT64_FORMAT " expire:1/f attr:%" G_GUINT64_FORMAT,
                                   file->id, file->id);
        other(f, "chmod 600 f");
        expect_told(sequence);
        server_file_forget(file, 1);
}

static void test_changed(struct fixture *f, gconstpointer data)
{
        struct coherent *c = f->mount.coherent;
        struct fs_stat st = {.st.st_nlink = 1};
        SERVER_FILE(file);
        uint64_t before, after;

        if (!f->usable)
                return;
        other(f, "touch f");
        expect_told("expire:1/f ");
        g_usleep(50000);
        file = lookup(f, f->root, "f");
        before = coherent_seen(c);
        g_assert_false(coherent_changed(c, file, before));
        g_assert_cmpfloat(timeouts_attr(file, &st, before), ==, 60);
        g_assert_cmpfloat(timeouts_entry(dir_linux_fs_of(f->root), before), ==, 3600);
        g_assert_cmpfloat(timeouts_negative(dir_linux_fs_of(f->root), before), ==, 10);
        forget_told();
        other(f, "chmod 600 f");
        expect_told("attr:");
        after = coherent_seen(c);
        g_assert_cmpint((gint64)after, >, (gint64)before);
        g_assert_true(coherent_changed(c, file, before));
        g_assert_cmpfloat(timeouts_attr(file, &st, before), ==, 0);
        g_assert_cmpfloat(timeouts_attr(file, &st, after), ==, 60);
        other(f, "touch g");
        expect_told("expire:1/g ");
        g_assert_cmpfloat(timeouts_entry(dir_linux_fs_of(f->root), before), ==, 0);
        g_assert_cmpfloat(timeouts_negative(dir_linux_fs_of(f->root), before), ==, 0);
        st.st.st_nlink = 0;
        g_assert_cmpfloat(timeouts_attr(file, &st, coherent_seen(c)), ==, 1);
        st.st.st_nlink = 1;
        timeouts_opened_fast(file, O_WRONLY, IO_CLASS_FAST);
        g_assert_cmpfloat(timeouts_attr(file, &st, coherent_seen(c)), ==, 60);
        timeouts_opened_fast(file, O_RDWR, IO_CLASS_FAST);
        g_assert_cmpfloat(timeouts_attr(file, &st, coherent_seen(c)), ==, 1);
}

static void test_timeouts(struct fixture *f, gconstpointer data)
{
        struct k42_options *options = &f->mount.options;
        struct dir_linux_fs *dir = dir_linux_fs_of(f->root);
        struct coherent *c = f->mount.coherent;
        struct fs_stat st = {.st.st_nlink = 2};

        g_assert_cmpint(fs_stat(node_fd_get(f->root), &st), ==, 0);
        node_fd_put(f->root);
        if (c)
                g_assert_cmpfloat(timeouts_attr(f->root, &st, coherent_seen(c)), ==, 3600);
        f->mount.coherent = NULL;
        g_assert_cmpfloat(timeouts_attr(f->root, &st, 0), ==, 1);
        g_assert_cmpfloat(timeouts_entry(dir, 0), ==, 1);
        g_assert_cmpfloat(timeouts_negative(dir, 0), ==, 0);
        options->attr_timeout = 7;
        options->entry_timeout = 8;
        g_assert_cmpfloat(timeouts_attr(f->root, &st, 0), ==, 7);
        g_assert_cmpfloat(timeouts_entry(dir, 0), ==, 8);
        g_assert_cmpfloat(timeouts_negative(dir, 0), ==, 0);
        options->exclusive = true;
        g_assert_cmpfloat(timeouts_attr(f->root, &st, 0), ==, 7);
        g_assert_cmpfloat(timeouts_negative(dir, 0), ==, 8);
        options->attr_timeout = options->entry_timeout = TIMEOUT_UNSET;
        g_assert_cmpfloat(timeouts_attr(f->root, &st, 0), ==, 1e9);
        g_assert_cmpfloat(timeouts_entry(dir, 0), ==, 1e9);
        f->mount.coherent = c;
}

/* ---- what the kernel reports ---- */

/* One event: a name in a directory, and a second record of a kind that is not known. */
static size_t make_event(unsigned char *buf)
{
        struct fanotify_event_metadata metadata = {
                .vers = FANOTIFY_METADATA_VERSION,
                .metadata_len = sizeof metadata,
                .mask = FAN_CREATE,
                .pid = 77,
        };
        struct fanotify_event_info_header info = {.info_type = FAN_EVENT_INFO_TYPE_DFID_NAME,
                                                  .len = 36};
        const int fsid[2] = {5, 6};
        const unsigned handle[4] = {8, 1, 4711, 1}; /* bytes, type, inode, generation */
        unsigned char *at = buf + sizeof metadata;

        memcpy(at, &info, sizeof info);
        memcpy(at + 4, fsid, sizeof fsid);
        memcpy(at + 12, handle, sizeof handle);
        memcpy(at + 28, "name\0\0\0", 8);
        at += info.len;
        info = (struct fanotify_event_info_header){.info_type = 200, .len = 12};
        memset(at, 0, info.len);
        memcpy(at, &info, sizeof info);
        at += info.len;
        metadata.event_len = (unsigned)(at - buf);
        memcpy(buf, &metadata, sizeof metadata);
        return metadata.event_len;
}

static void test_parse(void)
{
        unsigned char buf[256];
        const size_t size = make_event(buf);
        struct coherent_event event;
        size_t offset = 0;
        bool broken;
        ino_t ino;

        g_assert_true(coherent_event_next(buf, size, &offset, &event, &broken));
        g_assert_cmpuint(offset, ==, size);
        g_assert_cmpint(event.pid, ==, 77);
        g_assert_cmpint(event.fsid[1], ==, 6);
        g_assert_cmpstr(event.name, ==, "name");
        g_assert_true(
                coherent_handle_ino(event.handle_type, event.handle_bytes, event.handle, &ino));
        g_assert_cmpuint(ino, ==, 4711);
        g_assert_false(coherent_event_next(buf, size, &offset, &event, &broken));
        g_assert_false(broken);
        for (size_t n = 1; n < size; n++) { /* cut anywhere */
                offset = 0;
                g_assert_false(coherent_event_next(buf, n, &offset, &event, &broken));
                g_assert_true(broken);
        }
}

/* Whatever stands there: nothing is read outside of the buffer (AddressSanitizer), and it ends. */
static void test_garbage(void)
{
        for (unsigned i = 0; i < 200000; i++) {
                unsigned char whole[256];
                const size_t size = make_event(whole);
                g_autofree unsigned char *buf = g_memdup2(whole, size);
                struct coherent_event event;
                size_t offset = 0, sum = 0;
                bool broken;
                ino_t ino;

                for (unsigned n = g_random_int_range(1, 6); n > 0; n--)
                        buf[g_random_int_range(0, (gint)size)] = (unsigned char)g_random_int();
                while (coherent_event_next(buf, size, &offset, &event, &broken)) {
                        sum += event.name ? strlen(event.name) : 0;
                        if (event.handle)
                                coherent_handle_ino(event.handle_type, event.handle_bytes,
                                                    event.handle, &ino);
                }
                g_assert_cmpuint(sum, <=, size);
        }
}

static void test_handles(void)
{
        const unsigned tmpfs[3] = {9, 0x10, 0x20}, xfs[3] = {0x30, 0x40, 9};
        const unsigned char *t = (const void *)tmpfs, *x = (const void *)xfs;
        ino_t ino;

        g_assert_true(coherent_handle_ino(1, 12, t, &ino));
        g_assert_cmphex(ino, ==, UINT64_C(0x2000000010));
        g_assert_true(coherent_handle_ino(0x81, 12, x, &ino));
        g_assert_cmphex(ino, ==, UINT64_C(0x4000000030));
        g_assert_false(coherent_handle_ino(0x81, 8, x, &ino));
        g_assert_false(coherent_handle_ino(1, 4, t, &ino));
        g_assert_false(coherent_handle_ino(0x4d, 20, t, &ino));
}

static void test_mounts(void)
{
        static const char text[] = "20 1 8:1 / / rw - ext4 /dev/a rw\n"
                                   "21 20 0:5 / /s/a\\040b rw - tmpfs none rw\n"
                                   "22 20 0:6 / /srv rw - tmpfs none rw\n";
        g_autofree char *path = NULL;
        int fd = g_file_open_tmp("k42mounts.XXXXXX", &path, NULL);

        g_assert_cmpint(write(fd, text, sizeof text - 1), ==, sizeof text - 1);
        g_assert_cmpuint(coherent_mounts_below(fd, "/s/a b"), ==, 0); /* not below: SOURCE itself */
        g_assert_cmpuint(coherent_mounts_below(fd, "/sr"), ==, 0);
        g_assert_cmpuint(coherent_mounts_below(fd, "/s"), !=, 0);
        g_assert_cmpuint(coherent_mounts_below(fd, "/"), !=, coherent_mounts_below(fd, "/s"));
        close(fd);
        g_unlink(path);
}

#define ADD(name, fn) g_test_add("/coherent/" name, struct fixture, NULL, setup, fn, teardown)

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_mutex_init(&lock);
        g_test_add_func("/coherent/parse", test_parse);
        g_test_add_func("/coherent/garbage", test_garbage);
        g_test_add_func("/coherent/handles", test_handles);
        g_test_add_func("/coherent/mounts", test_mounts);
        ADD("changes", test_changes);
        ADD("own", test_own);
        ADD("directory", test_directory);
        ADD("not-known-yet", test_not_known_yet);
        ADD("changed", test_changed);
        ADD("timeouts", test_timeouts);
        return g_test_run();
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a daemon finds of the requests of one that was killed, and what it makes of it: the slots of
 * the file `requests`, the rules of intent.h on a real directory, and resume.h on real nodes.  A
 * kill is simulated by leaving a slot as it is and opening the file once more.
 */
#include <errno.h>
#include <glib/gstdio.h>
#include <linux/fs.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fusefs/resume/intent.h"
#include "fusefs/node/node_table.h"
#include "fusefs/ops/ops.h"
#include "fusefs/resume/requests.h"
#include "fusefs/resume/resume.h"

#define MAX_WRITE (128 * 1024)

struct fixture {
        char *top, *source;
        int state_fd;
        struct k42_mount mount;
        struct dir_linux_fs *root;
        int rootfd;
        struct request *request; /* the calling thread's */
};

static void take(struct fixture *f)
{
        f->request = requests_take(f->mount.requests);
        g_assert_nonnull(f->request);
        request_set_current(f->request);
}

static void setup(struct fixture *f, gconstpointer data)
{
        f->top = g_dir_make_tmp("k42requests.XXXXXX", NULL);
        g_assert_nonnull(f->top);
        f->source = g_build_filename(f->top, "src", NULL);
        g_assert_cmpint(g_mkdir(f->source, 0755), ==, 0);
        f->state_fd = open(f->top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        g_assert_cmpint(requests_create(f->state_fd, 2, MAX_WRITE, &f->mount.requests), ==, 0);
        f->mount.options.source = f->source;
        f->mount.noflush = true;
        g_assert_cmpint(node_table_new(&f->mount, &f->mount.nodes), ==, 0);
        f->root = dir_linux_fs_of(node_table_file(f->mount.nodes, FUSE_ROOT_ID));
        f->rootfd = node_fd_get(&f->root->file);
        take(f);
}

static void teardown(struct fixture *f, gconstpointer data)
{
        g_autofree char *command = g_strdup_printf("rm -rf -- '%s'", f->top);

        request_set_current(NULL);
        requests_give_back(f->mount.requests, f->request);
        node_fd_put(&f->root->file);
        node_table_free(f->mount.nodes);
        requests_close(f->mount.requests);
        close(f->state_fd);
        g_assert_cmpint(system(command), ==, 0);
        g_free(f->source);
        g_free(f->top);
}

/* As the kernel does it, which nobody has noticed yet. */
static void fill(struct request *request, uint32_t opcode, uint64_t unique, size_t size)
{
        struct fuse_in_header *header = request_buffer(request);

        request_before_read(request);
        header->len = (uint32_t)(sizeof *header + size);
        header->opcode = opcode;
        header->unique = unique;
}

static void begin(struct fixture *f, uint32_t opcode)
{
        static uint64_t unique;

        fill(f->request, opcode, unique += 2, 0);
        request_was_read(f->request);
}

/* The daemon dies; the next one opens the file. */
static struct request *die(struct fixture *f)
{
        struct request *orphan;
        unsigned cursor = 0;

        request_set_current(NULL);
        requests_close(f->mount.requests);
        g_assert_cmpint(requests_adopt(f->state_fd, NULL, &f->mount.requests), ==, 0);
        g_assert_cmpuint(requests_max_write(f->mount.requests), ==, MAX_WRITE);
        orphan = requests_next_orphan(f->mount.requests, &cursor);
        f->request = orphan;
        request_set_current(orphan);
        return orphan;
}

/* ---- slots ---- */

static void test_phases(struct fixture *f, gconstpointer data)
{
        struct request *orphan;
        struct fuse_out_header out = {.len = sizeof out, .unique = 42};
        const struct iovec iov = {&out, sizeof out};

        g_assert_null(die(f)); /* nothing was under way */
        take(f);
        fill(f->request, FUSE_MKDIR, 42 | UINT64_C(1) << 63, 10);
        orphan = die(f); /* the kernel had filled the buffer: that is enough */
        g_assert_nonnull(orphan);
        g_assert_cmpuint(orphan->phase, ==, REQUEST_READ);
        g_assert_true(requests_find_orphan(f->mount.requests, 42) == orphan);
        g_assert_null(requests_find_orphan(f->mount.requests, 44));

        request_was_read(orphan);
        g_assert_cmpuint(orphan->unique, ==, 42);
        request_done(orphan, -ENOSPC);
        orphan = die(f);
        g_assert_cmpuint(orphan->phase, ==, REQUEST_DONE);
        g_assert_cmpint(orphan->result, ==, -ENOSPC);

        request_reply(orphan, &iov, 1, false);
        orphan = die(f);
        g_assert_cmpuint(orphan->phase, ==, REQUEST_REPLY);
        g_assert_cmpuint(orphan->reply_size, ==, sizeof out);
        g_assert_cmpmem(orphan->reply, orphan->reply_size, &out, sizeof out);

        request_answered(orphan);
        g_assert_null(die(f));
        take(f);
}

/* A slot of an orphan is nobody's until it is resolved. */
static void test_orphans_stay(struct fixture *f, gconstpointer data)
{
        struct request *orphan, *all[64];
        unsigned n = 0;

        begin(f, FUSE_UNLINK);
        orphan = die(f);
        g_assert_nonnull(orphan);
        while ((all[n] = requests_take(f->mount.requests))) {
                g_assert_true(all[n] != orphan);
                g_assert_cmpuint(++n, <, G_N_ELEMENTS(all));
        }
        g_assert_cmpuint(n, >=, 3); /* a slot for each thread, and one to resume with */
        requests_resolved(f->mount.requests, orphan);
        g_assert_true(requests_take(f->mount.requests) == orphan);
        while (n > 0)
                requests_give_back(f->mount.requests, all[--n]);
        f->request = orphan;
}

/* A thread that is ended has read a request and not served it: that is for the next daemon. */
static void test_given_back(struct fixture *f, gconstpointer data)
{
        struct request *request = f->request;

        begin(f, FUSE_FORGET);
        requests_give_back(f->mount.requests, request);
        g_assert_true(die(f) == request);
        request_answered(request);
        requests_give_back(f->mount.requests, request);
        g_assert_null(die(f));
        take(f);
}

static void test_big_reply(struct fixture *f, gconstpointer data)
{
        static char big[REQUEST_REPLY_MAX + 1];
        const struct iovec fits = {big, REQUEST_REPLY_MAX}, not = {big, sizeof big};

        begin(f, FUSE_GETXATTR);
        request_reply(f->request, &not, 1, false);
        g_assert_cmpuint(f->request->reply_size, ==, 0);
        request_reply(f->request, &fits, 1, false);
        g_assert_cmpuint(f->request->reply_size, ==, REQUEST_REPLY_MAX);
        request_reply(f->request, &fits, 1, true);
        g_assert_cmpuint(f->request->reply_size, ==, 0);
}

static void test_raising(struct fixture *f, gconstpointer data)
{
        struct requests *requests = f->mount.requests;

        begin(f, FUSE_LOOKUP);
        g_assert_false(requests_raising(requests, 7));
        request_raise(f->request, 7);
        g_assert_true(requests_raising(requests, 7));
        request_raised(f->request);
        g_assert_true(requests_raising(requests, 7));
        g_assert_false(requests_raising(requests, 8));
        request_answered(f->request);
        g_assert_false(requests_raising(requests, 7));
        g_assert_false(requests_raising(NULL, 7));

        begin(f, FUSE_READDIRPLUS);
        for (unsigned i = 0; i < REQUEST_RAISED_MAX; i++) {
                g_assert_true(request_can_raise(f->request));
                request_raise(f->request, 100 + i);
                request_raised(f->request);
        }
        g_assert_false(request_can_raise(f->request));
}

static void test_counted_once(struct fixture *f, gconstpointer data)
{
        begin(f, FUSE_WRITE);
        g_assert_true(request_count(f->request, REQUEST_WRITES, 5, 1, 100));
        die(f);
        g_assert_cmpuint(f->request->counts[REQUEST_WRITES].handle, ==, 5);
        g_assert_cmpuint(f->request->counts[REQUEST_WRITES].bytes, ==, 100);
        g_assert_false(f->request->counts[REQUEST_WRITES].counted);
        request_counted(f->request, REQUEST_WRITES);
        die(f);
        g_assert_false(request_count(f->request, REQUEST_WRITES, 5, 2, 200));
        g_assert_true(request_count(f->request, REQUEST_READS, 5, 1, 100));
}

static void put(struct fixture *f, off_t at, const void *bytes, size_t size)
{
        const int fd = openat(f->state_fd, "requests", O_WRONLY | O_CLOEXEC);

        g_assert_cmpint(pwrite(fd, bytes, size, at), ==, (ssize_t)size);
        close(fd);
}

/* A file that does not check is refused; nonsense in a slot leads nowhere. */
static void test_damaged(struct fixture *f, gconstpointer data)
{
        const uint32_t newer = REQUESTS_VERSION + 1, version = REQUESTS_VERSION, no_slots = 0;
        const uint32_t buffer = MAX_WRITE + REQUEST_HEADERS;
        const uint32_t buffers[] = {0, REQUEST_HEADERS, buffer + 4096, buffer + 1, UINT32_MAX};
        struct requests *other;
        struct request *orphan;

        put(f, 8, &newer, 4);
        g_assert_cmpint(requests_adopt(f->state_fd, NULL, &other), ==, -EPROTO);
        put(f, 8, &version, 4);
        for (unsigned i = 0; i < G_N_ELEMENTS(buffers); i++) {
                put(f, 20, &buffers[i], 4);
                g_assert_cmpint(requests_adopt(f->state_fd, NULL, &other), ==, -EBADMSG);
        }
        put(f, 20, &buffer, 4);
        put(f, 12, &no_slots, 4);
        g_assert_cmpint(requests_adopt(f->state_fd, NULL, &other), ==, -EBADMSG);
        g_assert_cmpint(unlinkat(f->state_fd, "requests", 0), ==, 0);
        g_assert_cmpint(requests_adopt(f->state_fd, NULL, &other), ==, -ENOENT);

        requests_close(f->mount.requests);
        g_assert_cmpint(requests_create(f->state_fd, 2, MAX_WRITE, &f->mount.requests), ==, 0);
        take(f);
        begin(f, FUSE_READDIRPLUS);
        f->request->n_raised = UINT32_MAX;
        f->request->reply_size = UINT32_MAX;
        f->request->phase = 77;
        orphan = die(f);
        g_assert_cmpuint(orphan->n_raised, ==, REQUEST_RAISED_MAX);
        g_assert_cmpuint(orphan->reply_size, ==, 0);
        g_assert_cmpuint(orphan->phase, ==, REQUEST_READ);
        ((struct fuse_in_header *)request_buffer(orphan))->len = 3;
        g_assert_null(die(f));
        take(f);
}

/* The daemon dies with a request whose outcome is known, and then `size` bytes of its slot are changed. */
static void die_and_damage(struct fixture *f, size_t at, size_t size)
{
        requests_close(f->mount.requests);
        g_assert_cmpint(requests_create(f->state_fd, 2, MAX_WRITE, &f->mount.requests), ==, 0);
        take(f);
        begin(f, FUSE_MKDIR);
        f->request->facts.kind = 1;
        f->request->facts.size = 4711;
        request_intended(f->request);
        request_done(f->request, -17);
        if (size == 0) {
                g_assert_nonnull(die(f));
                g_assert_false(requests_lost(f->mount.requests));
                return;
        }
        for (size_t i = 0; i < size; i++)
                ((unsigned char *)f->request)[at + i] ^= 0x55;
        g_test_expect_message(NULL, G_LOG_LEVEL_WARNING, "*of a request is damaged*");
        g_assert_null(die(f));
        g_test_assert_expected_messages();
        g_assert_true(requests_lost(f->mount.requests));
}

/* What the next daemon would go by is right, or it is not gone by. */
static void test_damaged_slot(struct fixture *f, gconstpointer data)
{
        static const struct {
                size_t at, size;
        } damages[] = {
                {offsetof(struct request, unique), 1},
                {offsetof(struct request, opcode), 4},
                {offsetof(struct request, result), 8},
                {offsetof(struct request, facts.kind), 1},
                {offsetof(struct request, facts.size), 1},
                {offsetof(struct request, facts.name), 2},
                {offsetof(struct request, check_facts), 1},
        };

        die_and_damage(f, 0, 0);
        for (unsigned i = 0; i < G_N_ELEMENTS(damages); i++)
                die_and_damage(f, damages[i].at, damages[i].size);
        take(f);
}

/* Killed while the kernel hands it over, and then at each step of becoming known: nothing is damaged. */
static void test_unknown(struct fixture *f, gconstpointer data)
{
        struct fuse_in_header *header;
        struct request *orphan;

        request_before_read(f->request);
        header = request_buffer(f->request);
        *header = (struct fuse_in_header){.len = sizeof *header, .opcode = FUSE_MKDIR, .unique = 42};
        orphan = die(f);
        g_assert_nonnull(orphan);
        g_assert_false(request_is_known(orphan));
        orphan->opcode = FUSE_MKDIR;
        orphan = die(f);
        orphan->unique = 42;
        orphan = die(f);
        g_assert_false(request_is_known(orphan));
        request_identify(orphan);
        orphan->facts.kind = 1;
        request_intended(orphan);
        orphan = die(f);
        g_assert_true(request_is_known(orphan));
        g_assert_cmpuint(orphan->phase, ==, REQUEST_INTENT);
        header = request_buffer(orphan);
        header->opcode = FUSE_CREATE; /* as channel.c shows a TMPFILE to libfuse */
        header->unique |= UINT64_C(1) << 63;
        orphan = die(f);
        g_assert_cmpuint(orphan->phase, ==, REQUEST_INTENT);
        g_assert_false(requests_lost(f->mount.requests));
}

/* The copy of INIT goes before what the file says, and cannot be changed. */
static void test_saved_init(struct fixture *f, gconstpointer data)
{
        const char in[] = "init", out[] = "its reply";
        const struct iovec iov = {(void *)out, sizeof out};
        const void *in_now, *out_now;
        size_t in_size, out_size;
        int fd;

        g_assert_cmpint(requests_save_init(f->mount.requests), ==, -ENODATA);
        requests_set_init(f->mount.requests, in, sizeof in, &iov, 1);
        fd = requests_save_init(f->mount.requests);
        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(pwrite(fd, in, sizeof in, 0), ==, -1);
        g_assert_cmpint(ftruncate(fd, 0), ==, -1);
        requests_close(f->mount.requests);
        g_assert_cmpint(requests_renew(-1, 2, MAX_WRITE, &f->mount.requests), ==, 0);
        g_assert_true(requests_lost(f->mount.requests));
        g_assert_cmpint(requests_restore_init(f->mount.requests, f->state_fd), ==, -EBADMSG);
        g_assert_false(requests_get_init(f->mount.requests, &in_now, &in_size, &out_now, &out_size));
        g_assert_cmpint(requests_restore_init(f->mount.requests, fd), ==, 0);
        g_assert_true(requests_get_init(f->mount.requests, &in_now, &in_size, &out_now, &out_size));
        g_assert_cmpmem(in_now, in_size, in, sizeof in);
        g_assert_cmpmem(out_now, out_size, out, sizeof out);
        close(fd);
        take(f);
}

static void test_init(struct fixture *f, gconstpointer data)
{
        const char in[] = "init", out[] = "its reply";
        const struct iovec iov = {(void *)out, sizeof out};
        const void *in_now, *out_now;
        size_t in_size, out_size;

        g_assert_false(
                requests_get_init(f->mount.requests, &in_now, &in_size, &out_now, &out_size));
        requests_set_init(f->mount.requests, in, sizeof in, &iov, 1);
        die(f);
        g_assert_true(requests_get_init(f->mount.requests, &in_now, &in_size, &out_now, &out_size));
        g_assert_cmpmem(in_now, in_size, in, sizeof in);
        g_assert_cmpmem(out_now, out_size, out, sizeof out);
        take(f);
}

/* ---- intents ---- */

static int64_t about_to_make(struct fixture *f, const char *name, mode_t type)
{
        return intent_make(f->root, f->rootfd, name, type, -1);
}

static void test_make(struct fixture *f, gconstpointer data)
{
        int fd;

        begin(f, FUSE_MKDIR);
        g_assert_cmpint(about_to_make(f, "a", S_IFDIR), ==, INTENT_RUN);
        die(f); /* before the call */
        g_assert_cmpint(about_to_make(f, "a", S_IFDIR), ==, INTENT_RUN);
        g_assert_cmpint(mkdirat(f->rootfd, "a", 0755), ==, 0);
        die(f); /* after it */
        g_assert_cmpint(about_to_make(f, "a", S_IFDIR), ==, 0);
        request_done(f->request, -EDQUOT);
        die(f); /* with the result known */
        g_assert_cmpint(about_to_make(f, "a", S_IFDIR), ==, -EDQUOT);

        begin(f, FUSE_MKDIR); /* what was there is not ours */
        g_assert_cmpint(about_to_make(f, "a", S_IFDIR), ==, INTENT_RUN);
        die(f);
        g_assert_cmpint(about_to_make(f, "a", S_IFDIR), ==, INTENT_RUN);

        begin(f, FUSE_SYMLINK); /* nor is what is of another kind */
        g_assert_cmpint(about_to_make(f, "b", S_IFLNK), ==, INTENT_RUN);
        g_assert_cmpint(mkdirat(f->rootfd, "b", 0755), ==, 0);
        die(f);
        g_assert_cmpint(about_to_make(f, "b", S_IFLNK), ==, INTENT_RUN);

        begin(f, FUSE_LINK); /* or another file */
        fd = openat(f->rootfd, "f", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
        g_assert_cmpint(intent_make(f->root, f->rootfd, "g", 0, fd), ==, INTENT_RUN);
        close(openat(f->rootfd, "g", O_CREAT | O_RDWR | O_CLOEXEC, 0600));
        die(f);
        g_assert_cmpint(intent_make(f->root, f->rootfd, "g", 0, fd), ==, INTENT_RUN);
        g_assert_cmpint(unlinkat(f->rootfd, "g", 0), ==, 0);
        g_assert_cmpint(intent_make(f->root, f->rootfd, "g", 0, fd), ==, INTENT_RUN);
        g_assert_cmpint(linkat(f->rootfd, "f", f->rootfd, "g", 0), ==, 0);
        die(f);
        g_assert_cmpint(intent_make(f->root, f->rootfd, "g", 0, fd), ==, 0);
        close(fd);
}

static void test_nobody_waits(struct fixture *f, gconstpointer data)
{
        begin(f, FUSE_MKDIR);
        g_assert_cmpint(about_to_make(f, "a", S_IFDIR), ==, INTENT_RUN);
        die(f);
        request_flag(f->request, REQUEST_GONE);
        g_assert_cmpint(about_to_make(f, "a", S_IFDIR), ==, -EINTR);
}

static void test_remove(struct fixture *f, gconstpointer data)
{
        dev_t dev;
        ino_t ino;

        close(openat(f->rootfd, "a", O_CREAT | O_RDWR | O_CLOEXEC, 0600));
        begin(f, FUSE_UNLINK);
        g_assert_cmpint(intent_remove(f->root, f->rootfd, "a"), ==, INTENT_RUN);
        die(f);
        g_assert_cmpint(intent_remove(f->root, f->rootfd, "a"), ==, INTENT_RUN);
        g_assert_true(intent_name_was(0, &dev, &ino));
        g_assert_cmpint(renameat(f->rootfd, "a", f->rootfd, "kept"), ==,
                        0); /* so its number is not free */
        die(f);
        g_assert_cmpint(intent_remove(f->root, f->rootfd, "a"), ==, 0);
        close(openat(f->rootfd, "a", O_CREAT | O_RDWR | O_CLOEXEC, 0600)); /* another one */
        g_assert_cmpint(intent_remove(f->root, f->rootfd, "a"), ==, 0);

        begin(f, FUSE_UNLINK);
        g_assert_cmpint(intent_remove(f->root, f->rootfd, "none"), ==, INTENT_RUN);
        die(f);
        g_assert_cmpint(intent_remove(f->root, f->rootfd, "none"), ==, INTENT_RUN);
}

static int64_t about_to_rename(struct fixture *f, bool exchange)
{
        return intent_rename(f->root, f->rootfd, "a", f->root, f->rootfd, "b", exchange);
}

static void test_rename(struct fixture *f, gconstpointer data)
{
        close(openat(f->rootfd, "a", O_CREAT | O_RDWR | O_CLOEXEC, 0600));
        close(openat(f->rootfd, "b", O_CREAT | O_RDWR | O_CLOEXEC, 0600));
        begin(f, FUSE_RENAME2);
        g_assert_cmpint(about_to_rename(f, true), ==, INTENT_RUN);
        die(f);
        g_assert_cmpint(about_to_rename(f, true), ==, INTENT_RUN);
        g_assert_cmpint(renameat2(f->rootfd, "a", f->rootfd, "b", RENAME_EXCHANGE), ==, 0);
        die(f);
        g_assert_cmpint(about_to_rename(f, true), ==, 0);

        begin(f, FUSE_RENAME);
        g_assert_cmpint(about_to_rename(f, false), ==, INTENT_RUN);
        die(f);
        g_assert_cmpint(about_to_rename(f, false), ==, INTENT_RUN);
        g_assert_cmpint(renameat(f->rootfd, "a", f->rootfd, "b"), ==, 0);
        die(f);
        g_assert_cmpint(about_to_rename(f, false), ==, 0);

        g_assert_cmpint(linkat(f->rootfd, "b", f->rootfd, "a", 0), ==,
                        0); /* two names of one file */
        begin(f, FUSE_RENAME);
        g_assert_cmpint(about_to_rename(f, false), ==, INTENT_RUN);
        die(f);
        g_assert_cmpint(about_to_rename(f, false), ==, INTENT_RUN);
}

static void test_xattr(struct fixture *f, gconstpointer data)
{
        int fd = openat(f->rootfd, "a", O_CREAT | O_RDWR | O_CLOEXEC, 0600);

        if (fsetxattr(fd, "user.test", "1", 1, 0) < 0) {
                g_test_skip("no extended attributes in the temporary directory");
                close(fd);
                return;
        }
        begin(f, FUSE_SETXATTR);
        g_assert_cmpint(intent_setxattr(fd, "user.test", XATTR_CREATE), ==, INTENT_RUN);
        die(f); /* it was there before */
        g_assert_cmpint(intent_setxattr(fd, "user.test", XATTR_CREATE), ==, INTENT_RUN);

        begin(f, FUSE_REMOVEXATTR);
        g_assert_cmpint(intent_removexattr(fd, "user.test"), ==, INTENT_RUN);
        g_assert_cmpint(fremovexattr(fd, "user.test"), ==, 0);
        die(f);
        g_assert_cmpint(intent_removexattr(fd, "user.test"), ==, 0);

        begin(f, FUSE_SETXATTR);
        g_assert_cmpint(intent_setxattr(fd, "user.test", XATTR_CREATE), ==, INTENT_RUN);
        g_assert_cmpint(fsetxattr(fd, "user.test", "1", 1, XATTR_CREATE), ==, 0);
        die(f);
        g_assert_cmpint(intent_setxattr(fd, "user.test", XATTR_CREATE), ==, 0);

        begin(f, FUSE_REMOVEXATTR);
        g_assert_cmpint(intent_removexattr(fd, "user.none"), ==, INTENT_RUN);
        die(f);
        g_assert_cmpint(intent_removexattr(fd, "user.none"), ==, INTENT_RUN);
        close(fd);
}

static void test_append(struct fixture *f, gconstpointer data)
{
        int fd = openat(f->rootfd, "a", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
        size_t there;

        g_assert_cmpint(write(fd, "old", 3), ==, 3);
        begin(f, FUSE_WRITE);
        g_assert_cmpint(intent_append(fd, "12345", 5, &there), ==, INTENT_RUN);
        die(f); /* before the call */
        g_assert_cmpint(intent_append(fd, "12345", 5, &there), ==, INTENT_RUN);
        g_assert_cmpuint(there, ==, 0);
        g_assert_cmpint(write(fd, "12", 2), ==, 2);
        die(f); /* in the middle of it, twice */
        g_assert_cmpint(intent_append(fd, "12345", 5, &there), ==, INTENT_RUN);
        g_assert_cmpuint(there, ==, 2);
        g_assert_cmpint(write(fd, "3", 1), ==, 1);
        die(f);
        g_assert_cmpint(intent_append(fd, "12345", 5, &there), ==, INTENT_RUN);
        g_assert_cmpuint(there, ==, 3);
        g_assert_cmpint(write(fd, "45 and what others append", 25), ==, 25);
        die(f);
        g_assert_cmpint(intent_append(fd, "12345", 5, &there), ==, 5);

        begin(f, FUSE_WRITE);
        g_assert_cmpint(intent_append(fd, "12345", 5, &there), ==, INTENT_RUN);
        g_assert_cmpint(write(fd, "12x", 3), ==, 3); /* somebody else's */
        die(f);
        g_assert_cmpint(intent_append(fd, "12345", 5, &there), ==, INTENT_RUN);
        g_assert_cmpuint(there, ==, 0);
        close(fd);
}

static void test_others(struct fixture *f, gconstpointer data)
{
        int fd = openat(f->rootfd, "a", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
        struct stat st = {.st_mode = 0640, .st_uid = 5, .st_gid = 6}, now = {.st_mode = 0600};

        begin(f, FUSE_FALLOCATE);
        g_assert_cmpint(intent_resize(fd), ==, INTENT_RUN);
        die(f);
        g_assert_cmpint(intent_resize(fd), ==, INTENT_RUN);
        g_assert_cmpint(ftruncate(fd, 100), ==, 0);
        die(f);
        g_assert_cmpint(intent_resize(fd), ==, 0);

        begin(f, FUSE_SETATTR);
        g_assert_cmpint(intent_attr(&st), ==, INTENT_RUN);
        die(f);
        g_assert_cmpint(intent_attr(&now), ==, INTENT_RUN);
        g_assert_cmpuint(now.st_mode, ==, 0640);
        g_assert_cmpuint(now.st_uid, ==, 5);
        g_assert_cmpuint(now.st_gid, ==, 6);

        begin(f, FUSE_WRITE);
        g_assert_cmpint(intent_once(), ==, INTENT_RUN);
        die(f);
        g_assert_cmpint(intent_once(), ==, INTENT_RUN);
        request_done(f->request, 17);
        die(f);
        g_assert_cmpint(intent_once(), ==, 17);
        close(fd);
}

/* ---- what had been raised, and was to be forgotten ---- */

static struct server_file *look(struct fixture *f, const char *name)
{
        struct fuse_entry_param entry;

        g_assert_cmpint(ops_lookup(f->root, f->rootfd, name, &entry), ==, 0);
        return node_table_file(f->mount.nodes, entry.ino);
}

static uint64_t lookups(struct server_file *file)
{
        return atomic_load(&file->kept->nlookup);
}

static void test_undo(struct fixture *f, gconstpointer data)
{
        struct server_file *a;

        g_assert_cmpint(mkdirat(f->rootfd, "a", 0755), ==, 0);
        begin(f, FUSE_LOOKUP);
        a = look(f, "a");
        request_answered(f->request);
        begin(f, FUSE_LOOKUP);
        g_assert_true(look(f, "a") == a);
        g_assert_cmpuint(lookups(a), ==, 2);
        die(f);
        resume_undo(&f->mount, f->request);
        g_assert_cmpuint(lookups(a), ==, 1);
        resume_undo(&f->mount,
                    f->request); /* another death in the middle of it: nothing is left to undo */
        g_assert_cmpuint(lookups(a), ==, 1);
        g_assert_cmpuint(atomic_load(&a->kept->doubt), ==, 0);

        begin(f, FUSE_LOOKUP); /* the kernel did not take the answer, and that was undone already */
        look(f, "a");
        ops_entry_undo(f->mount.nodes, &(struct fuse_entry_param){.ino = a->id});
        g_assert_cmpuint(lookups(a), ==, 1);
        die(f);
        resume_undo(&f->mount, f->request);
        g_assert_cmpuint(lookups(a), ==, 1);
        g_assert_cmpuint(atomic_load(&a->kept->doubt), ==, 0);

        request_raise(f->request, a->id); /* raised or not: nobody knows */
        die(f);
        resume_undo(&f->mount, f->request);
        g_assert_cmpuint(lookups(a), ==, 1);
        g_assert_cmpuint(atomic_load(&a->kept->doubt), ==, 1);
        request_answered(f->request);
}

static void test_doubt(struct fixture *f, gconstpointer data)
{
        struct server_file *a;

        g_assert_cmpint(mkdirat(f->rootfd, "a", 0755), ==, 0);
        begin(f, FUSE_READDIRPLUS);
        a = look(f, "a");
        die(f);
        resume_doubt(&f->mount, f->request);
        g_assert_cmpuint(lookups(a), ==, 1);
        g_assert_cmpuint(atomic_load(&a->kept->doubt), ==, 1);
        request_answered(f->request);
}

static void test_forget(struct fixture *f, gconstpointer data)
{
        struct server_file *files[3];
        struct fuse_batch_forget_in *batch;
        struct fuse_forget_one *list;

        for (unsigned i = 0; i < G_N_ELEMENTS(files); i++) {
                const char name[] = {(char)('a' + i), '\0'};

                g_assert_cmpint(mkdirat(f->rootfd, name, 0755), ==, 0);
                begin(f, FUSE_LOOKUP);
                look(f, name);
                files[i] = look(f, name);
                g_assert_cmpuint(lookups(files[i]), ==, 2);
                request_answered(f->request);
        }
        fill(f->request, FUSE_BATCH_FORGET, 2, sizeof *batch + 3 * sizeof *list);
        batch = (void *)((struct fuse_in_header *)request_buffer(f->request) + 1);
        list = (void *)(batch + 1);
        batch->count = 1000; /* not more than there is room for */
        for (unsigned i = 0; i < G_N_ELEMENTS(files); i++)
                list[i] = (struct fuse_forget_one){.nodeid = files[i]->id, .nlookup = 1};
        request_forget(f->request, 1); /* the first one was begun */
        die(f);
        resume_forget(&f->mount, f->request);
        g_assert_cmpuint(lookups(files[0]), ==, 2);
        g_assert_cmpuint(atomic_load(&files[0]->kept->doubt), ==, 1);
        g_assert_cmpuint(lookups(files[1]), ==, 1);
        g_assert_cmpuint(lookups(files[2]), ==, 1);
        resume_forget(&f->mount, f->request); /* it is over */
        g_assert_cmpuint(lookups(files[1]), ==, 1);
        request_answered(f->request);
}

int main(int argc, char **argv)
{
        static const struct {
                const char *name;
                void (*fn)(struct fixture *f, gconstpointer data);
        } tests[] = {
                {"/requests/phases", test_phases},
                {"/requests/orphans-stay", test_orphans_stay},
                {"/requests/given-back", test_given_back},
                {"/requests/big-reply", test_big_reply},
                {"/requests/raising", test_raising},
                {"/requests/counted-once", test_counted_once},
                {"/requests/damaged", test_damaged},
                {"/requests/damaged-slot", test_damaged_slot},
                {"/requests/unknown", test_unknown},
                {"/requests/init", test_init},
                {"/requests/saved-init", test_saved_init},
                {"/intent/make", test_make},
                {"/intent/nobody-waits", test_nobody_waits},
                {"/intent/remove", test_remove},
                {"/intent/rename", test_rename},
                {"/intent/xattr", test_xattr},
                {"/intent/append", test_append},
                {"/intent/others", test_others},
                {"/resume/undo", test_undo},
                {"/resume/doubt", test_doubt},
                {"/resume/forget", test_forget},
        };

        g_test_init(&argc, &argv, NULL);
        for (unsigned i = 0; i < G_N_ELEMENTS(tests); i++)
                g_test_add(tests[i].name, struct fixture, NULL, setup, tests[i].fn, teardown);
        return g_test_run();
}

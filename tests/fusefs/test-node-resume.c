/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Nodes that come back.  The first daemon is a child process, which makes a table of nodes on a
 * real directory and is killed in the middle of it (kill -9); what it has to tell us, the ids, is
 * in shared memory.  Then the next table is made here, of what is left in the keep.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dying_daemon.h"
#include "fusefs/resume/node_resume.h"
#include "fusefs/ops/ops.h"

/* ---- tests ---- */

static void make_tree(struct fixture *f)
{
        struct server_file *d, *e;

        d = look(f, "d");
        e = look_in(f, d, "e");
        f->said->ids[0] = d->id;
        f->said->ids[1] = e->id;
        f->said->ids[2] = look_in(f, e, "x")->id;
        look_in(f, e, "x");
        look(f, "twin");
        f->said->ids[3] = look(f, "a")->id;
        server_file_forget(node(f, 3), 1);
        g_assert_null(node(f, 3)); /* freed: its id must stay free of meaning */
        kept_node_set(e->kept, NODE_STORES_UNSEEN);
}

/* Everything is as it was, and nothing was asked of the backing directory for it. */
static unsigned calls;

static int statx_counted(int dirfd, const char *name, int flags, unsigned mask, struct statx *stx)
{
        calls++;
        return statx(dirfd, name, flags, mask, stx);
}

static void test_tree(struct fixture *f, gconstpointer data)
{
        g_autofree char *from = at(f, "d/e/x"), *to = at(f, "twin");
        struct server_file *d, *e, *x, *again;

        make_dir(f, "d");
        make_dir(f, "d/e");
        make_file(f, "d/e/x");
        make_file(f, "a");
        g_assert_cmpint(link(from, to), ==, 0);
        daemon_dies(f, make_tree);

        g_assert_true(fs_file_syscall_override("statx", (void (*)(void))statx_counted));
        calls = 0;
        resume(f);
        g_assert_cmpuint(calls, <=, 2); /* the root */
        fs_file_syscall_override("statx", NULL);

        d = node(f, 0);
        e = node(f, 1);
        x = node(f, 2);
        g_assert_true(d && e && x);
        g_assert_null(node(f, 3));
        g_assert_cmpuint(node_table_count(f->table), ==, 4);
        g_assert_cmpuint(x->kept->nlookup, ==, 3);
        g_assert_cmpuint(e->kept->nlookup, ==, 1);
        g_assert_true(server_file_has(e, NODE_STORES_UNSEEN));
        g_assert_cmpuint(x->n_links, ==, 2);
        assert_path(e, "/d/e");
        node_table_resumed(f->table);
        g_assert_cmpuint(node_table_count(f->table), ==, 4);
        assert_content(x, "d/e/x");
        g_assert_true(look(f, "twin") == x);
        g_assert_true(look(f, "d") == d);
        again = look(f, "a");
        g_assert_cmpuint(again->id, !=, f->said->ids[3]);
        g_assert_null(node(f, 3));

        server_file_forget(again, 1);
        server_file_forget(d, 2);
        server_file_forget(e, 1);
        server_file_forget(x, 4);
        g_assert_cmpuint(node_table_count(f->table), ==, 1);
        g_assert_cmpuint(records(f), ==, 0);
}

/* The daemon may die again and again. */
static void resume_and_look(struct fixture *f)
{
        g_assert_true(look(f, "a")->id == f->said->ids[0]);
}

static void make_a(struct fixture *f)
{
        f->said->ids[0] = look(f, "a")->id;
}

static void test_twice(struct fixture *f, gconstpointer data)
{
        struct server_file *a;

        make_file(f, "a");
        daemon_dies(f, make_a);
        for (unsigned i = 0; i < 3; i++) {
                const pid_t pid = fork();
                int status;

                if (pid == 0) {
                        resume(f);
                        node_table_resumed(f->table);
                        resume_and_look(f);
                        kill(getpid(), SIGKILL);
                }
                g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
                g_assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        }
        resume(f);
        node_table_resumed(f->table);
        a = node(f, 0);
        g_assert_nonnull(a);
        g_assert_cmpuint(a->kept->nlookup, ==, 4);
        assert_content(a, "a");
}

/* Found on disk, but no reply ever named it: nobody will forget it. */
static void find_only(struct fixture *f)
{
        struct server_file *d = look(f, "d"), *file;
        struct fs_stat st;
        int fd = node_fd_get(d);

        g_assert_cmpint(node_table_lookup(f->table, d, fd, "x", &st, &file), ==, 0);
        g_assert_cmpint(dir_saw(dir_linux_fs_of(d), "x", file), ==, 0);
        f->said->ids[0] = file->id;
        f->said->ids[1] = d->id;
        server_file_known(server_file_ref(file));
        server_file_forget(file, 1);
        server_file_forget(d, 1); /* its child keeps it */
}

static void test_unanswered(struct fixture *f, gconstpointer data)
{
        make_dir(f, "d");
        make_file(f, "d/x");
        daemon_dies(f, find_only);
        resume(f);
        g_assert_nonnull(node(f, 0)); /* until all is resolved */
        g_assert_nonnull(node(f, 1));
        node_table_resumed(f->table);
        g_assert_null(node(f, 0));
        g_assert_null(node(f, 1));
        g_assert_cmpuint(node_table_count(f->table), ==, 1);
}

static void look_at_some(struct fixture *f)
{
        f->said->ids[0] = look(f, "a")->id;
        f->said->ids[1] = look_in(f, look(f, "d"), "x")->id;
        f->said->ids[2] = look(f, "gone")->id;
        f->said->ids[3] = look(f, "moved")->id;
}

/* While nobody watched, others did this and that. */
static void test_changed_meanwhile(struct fixture *f, gconstpointer data)
{
        struct server_file *a, *is_a;

        make_dir(f, "d");
        make_file(f, "a");
        make_file(f, "d/x");
        make_file(f, "gone");
        make_file(f, "moved");
        make_file(f, "new");
        daemon_dies(f, look_at_some);
        move(f, "new", "a");
        remove_name(f, "gone");
        move(f, "moved", "here");
        resume(f);
        node_table_resumed(f->table);

        a = node(f, 0);
        g_assert_cmpint(server_file_open_again(a, O_RDONLY), ==, -ESTALE);
        is_a = look(f, "a");
        g_assert_true(is_a != a);
        assert_content(is_a, "new");
        assert_content(node(f, 1), "d/x");
        g_assert_cmpint(server_file_open_again(node(f, 2), O_RDONLY), ==, -ESTALE);
        if (f->table->fds.mount_fd >= 0)
                assert_content(node(f, 3), "moved");
        else
                g_assert_cmpint(server_file_open_again(node(f, 3), O_RDONLY), ==, -ESTALE);
        g_assert_true(look(f, "here")->kept->ino == node(f, 3)->kept->ino);
}

/* As the operations do it. */
static void remove_as_we_do(struct fixture *f, struct server_file *file, const char *name,
                            unsigned steps)
{
        const int fd = node_fd_pin(file);

        g_assert_cmpint(fd, >=, 0);
        park_before_removal(file, fd);
        if (steps > 0)
                remove_name(f, name);
        if (steps > 1) {
                server_file_set_deleted(file);
                park_after_removal(file, fd);
                dir_unlink(f->root, name, true);
        }
}

/* What is removed while it is open: killed before the removal, right after it, and later. */
static void remove_in_steps(struct fixture *f)
{
        for (unsigned steps = 0; steps < 3; steps++) {
                g_autofree char *name = g_strdup_printf("file%u", steps);
                g_autofree char *dir = g_strdup_printf("dir%u", steps);
                struct server_file *file = look(f, name), *d = look(f, dir);

                f->said->ids[2 * steps] = file->id;
                f->said->ids[2 * steps + 1] = d->id;
                atomic_fetch_add(&file->opens.all, 1);
                remove_as_we_do(f, file, name, steps);
                remove_as_we_do(f, d, dir, steps);
        }
}

static void test_removed(struct fixture *f, gconstpointer data)
{
        struct stat st;
        int fd;

        for (unsigned steps = 0; steps < 3; steps++) {
                g_autofree char *name = g_strdup_printf("file%u", steps);
                g_autofree char *dir = g_strdup_printf("dir%u", steps);

                make_file(f, name);
                make_dir(f, dir);
        }
        daemon_dies(f, remove_in_steps);
        g_assert_cmpuint(count_parked(), ==, 6);
        resume(f);
        g_assert_cmpuint(node_table_parked(f->table), ==, 6);
        node_table_resumed(f->table);
        /* Those that are still there need it no more. */
        g_assert_cmpuint(node_table_parked(f->table), ==, 4);
        g_assert_cmpuint(count_parked(), ==, 4);

        assert_content(node(f, 0), "file0");
        assert_content(node(f, 2), "file1");
        assert_content(node(f, 4), "file2");
        g_assert_false(server_file_has(node(f, 0), NODE_DELETED));
        g_assert_true(server_file_has(node(f, 2), NODE_DELETED));
        g_assert_true(server_file_has(node(f, 4), NODE_DELETED));
        g_assert_false(server_file_has(node(f, 1), NODE_DELETED));
        g_assert_true(server_file_has(node(f, 3), NODE_DELETED));
        assert_path(node(f, 4), "/file2 (deleted)");
        fd = server_file_open_again(node(f, 5), O_RDONLY);
        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(fstat(fd, &st), ==, 0);
        g_assert_true(S_ISDIR(st.st_mode));
        close(fd);
        /* They can be written to, and stay there however many others are opened. */
        fd = server_file_open_again(node(f, 4), O_RDWR | O_TRUNC | O_CREAT | O_EXCL);
        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(write(fd, "F", 1), ==, 1);
        close(fd);
        node_fds_shrink(&f->table->fds);
        assert_content(node(f, 4), "File2");
        server_file_forget(node(f, 4), 1);
        g_assert_cmpuint(count_parked(), ==, 3);
        g_assert_cmpuint(node_table_parked(f->table), ==, 3);
}

/* A file without a name, which gets one after the daemon's death, and one that does not. */
static void make_nameless(struct fixture *f)
{
        for (unsigned i = 0; i < 2; i++) {
                const int fd = fs_tmpfile(f->rootfd, O_RDWR | O_TMPFILE, 0600);
                struct server_file *file;
                struct fs_stat st;

                g_assert_cmpint(fd, >=, 0);
                g_assert_cmpint(write(fd, "nameless", 8), ==, 8);
                g_assert_cmpint(fs_stat(fd, &st), ==, 0);
                g_assert_cmpint(node_table_instantiate(f->table, &st, fs_reopen_path(fd), &file),
                                ==, 0);
                server_file_known(file);
                f->said->ids[i] = file->id;
                g_assert_cmpint(node_fd_pin(file), >=, 0);
                kept_node_set(file->kept, NODE_NAMELESS);
                park_node(file, node_fd_get_open(file));
        }
}

static void test_nameless(struct fixture *f, gconstpointer data)
{
        struct file_link *link;
        struct server_file *file;

        daemon_dies(f, make_nameless);
        resume(f);
        node_table_resumed(f->table);
        g_assert_cmpuint(count_parked(), ==, 2);
        assert_content(node(f, 0), "nameless");
        file = node(f, 1);
        assert_content(file, "nameless");
        g_assert_cmpuint(file->fd.pins, ==, 1);
        if (fs_link(file->fd.fd, f->rootfd, "name") == 0) { /* needs rights */
                link = file_link_new(f->root, "name");
                dir_link(link, file);
                g_assert_true(kept_node_clear(file->kept, NODE_NAMELESS));
                park_node_over(file);
                node_fd_unpin(file);
                node_fds_shrink(&f->table->fds);
                assert_content(file, "nameless");
                g_assert_cmpuint(count_parked(), ==, 1);
        }
}

/* As if it had been killed between two changes: a record that the lists do not know. */
static void leave_link(struct fixture *f, uint64_t parent, const char *name, uint64_t child)
{
        struct kept_link *kept = keep_alloc(f->mount.keep, sizeof *kept + strlen(name) + 1);

        kept->parent = parent;
        kept->child = child;
        kept->listed = true;
        strcpy(kept->name, name);
        keep_commit(kept, KEEP_LINK);
}

static void leave_contradictions(struct fixture *f)
{
        struct server_file *d = look(f, "d"), *a = look(f, "a"), *b = look(f, "b");

        f->said->ids[0] = d->id;
        f->said->ids[1] = look_in(f, d, "x")->id;
        f->said->ids[2] = a->id;
        f->said->ids[3] = b->id;
        remove_name(f, "none");
        /* d was moved to "moved"; a and b have changed places. */
        move(f, "d", "moved");
        leave_link(f, FUSE_ROOT_ID, "moved", d->id);
        move(f, "a", "c");
        move(f, "b", "a");
        move(f, "c", "b");
        leave_link(f, FUSE_ROOT_ID, "b", a->id);
        leave_link(f, FUSE_ROOT_ID, "a", b->id);
        /* A directory that has been freed, and one that is none. */
        leave_link(f, 12345, "lost", a->id);
        leave_link(f, a->id, "no directory", b->id);
}

static void test_contradictions(struct fixture *f, gconstpointer data)
{
        struct server_file *child;

        make_dir(f, "d");
        make_file(f, "d/x");
        make_file(f, "a");
        make_file(f, "b");
        make_file(f, "none");
        daemon_dies(f, leave_contradictions);
        resume(f);
        node_table_resumed(f->table);
        assert_path(node(f, 0), "/moved");
        assert_path(node(f, 1), "/moved/x");
        assert_content(node(f, 1), "d/x");
        child = dir_child(f->root, "a");
        g_assert_true(child == node(f, 3));
        server_file_unref(child);
        child = dir_child(f->root, "b");
        g_assert_true(child == node(f, 2));
        server_file_unref(child);
        g_assert_null(dir_child(f->root, "d"));
        assert_content(node(f, 2), "a");
        assert_content(node(f, 3), "b");
}

/* Nonsense in the records, and nodes that were being freed. */
static void leave_nonsense(struct fixture *f)
{
        struct kept_node *kept;
        struct kept_link *link;

        f->said->ids[0] = look(f, "a")->id;
        for (unsigned i = 0; i < 6; i++) {
                kept = keep_alloc(f->mount.keep, KEPT_NODE_SIZE);
                kept->id = UINT64_C(1) << 32 | (100 + i);
                kept->type = S_IFREG;
                switch (i) {
                case 0:
                        kept->handle_room = 255;
                        break;
                case 1:
                        kept->handle_bytes = 8;
                        break;
                case 2:
                        kept->nlookup = UINT64_MAX;
                        break;
                case 3:
                        kept->id = FUSE_ROOT_ID;
                        break;
                case 4:
                        kept->id = f->said->ids[0];
                        break;
                default:
                        kept_node_set(kept, NODE_DEAD);
                }
                keep_commit(kept, KEEP_NODE);
        }
        link = keep_alloc(f->mount.keep, 40);
        link->parent = FUSE_ROOT_ID;
        link->child = f->said->ids[0];
        link->listed = true;
        memset(link->name, 'x', 48 - offsetof(struct kept_link, name));
        keep_commit(link, KEEP_LINK);
        leave_link(f, FUSE_ROOT_ID, "../../etc/passwd", f->said->ids[0]);
}

static void test_nonsense(struct fixture *f, gconstpointer data)
{
        make_file(f, "a");
        daemon_dies(f, leave_nonsense);
        g_test_expect_message(NULL, G_LOG_LEVEL_WARNING, "*7 records*damaged*");
        resume(f);
        g_test_assert_expected_messages();
        node_table_resumed(f->table);
        g_assert_cmpuint(node_table_count(f->table), ==, 2);
        g_assert_cmpuint(records(f), ==, 2);
        assert_content(node(f, 0), "a");
}

/* ---- doubt ---- */

static void test_doubt(struct fixture *f, gconstpointer data)
{
        const int64_t later = DOUBT_QUIET_S * G_USEC_PER_SEC + 1;
        int64_t now = g_get_monotonic_time();
        struct server_file *a, *b;

        make_file(f, "a");
        make_file(f, "b");
        daemon_dies(f, make_a);
        resume(f);
        node_table_resumed(f->table);
        f->table->doubts.raising = raising;
        a = node(f, 0);
        look(f, "a");
        server_file_doubt(a, 1); /* 2, of which the kernel may know only 1 */
        g_assert_cmpuint(doubts_count(&f->table->doubts), ==, 0);
        server_file_forget(a, 1);
        g_assert_cmpuint(doubts_count(&f->table->doubts), ==, 1);

        doubts_look(&f->mount, now += G_USEC_PER_SEC); /* not quiet for long enough */
        g_assert_cmpuint(asked, ==, 0);
        raising_now = true;
        doubts_look(&f->mount, now += later); /* a reply is on its way */
        g_assert_cmpuint(asked, ==, 0);
        raising_now = false;
        doubts_look(&f->mount, now += G_USEC_PER_SEC);
        g_assert_cmpuint(asked, ==, 0);
        kernel_knows = a->id;
        doubts_look(&f->mount, now += later);
        g_assert_cmpuint(asked, ==, 1);
        g_assert_cmpuint(doubts_count(&f->table->doubts), ==, 0);
        g_assert_cmpuint(a->kept->nlookup, ==, 1);

        /* The kernel looks it up again and forgets it; now it does not know it. */
        g_assert_true(look(f, "a") == a);
        server_file_forget(a, 1);
        kernel_knows = 0;
        now = MAX(now, g_get_monotonic_time());
        doubts_look(&f->mount, now += later);
        g_assert_cmpuint(asked, ==, 2);
        g_assert_null(node(f, 0));
        g_assert_cmpuint(node_table_count(f->table), ==, 1);

        /* A doubt that was not justified. */
        b = look(f, "b");
        server_file_doubt(b, 1);
        g_assert_cmpuint(doubts_count(&f->table->doubts), ==, 1);
        server_file_forget(b, 1);
        doubts_look(&f->mount, now += later);
        g_assert_cmpuint(node_table_count(f->table), ==, 1);
        g_assert_cmpuint(asked, ==, 2);
}

static void leave_doubt(struct fixture *f)
{
        make_a(f);
        server_file_doubt(look(f, "a"), 2);
}

/* The doubt outlives the daemon, too. */
static void test_doubt_survives(struct fixture *f, gconstpointer data)
{
        make_file(f, "a");
        daemon_dies(f, leave_doubt);
        resume(f);
        node_table_resumed(f->table);
        g_assert_cmpuint(doubts_count(&f->table->doubts), ==, 1);
        doubts_look(&f->mount,
                    g_get_monotonic_time() + DOUBT_QUIET_S * G_USEC_PER_SEC + G_USEC_PER_SEC);
        g_assert_null(node(f, 0));
}

/* ---- descriptions in doubt ---- */

static struct description *open_doubtful(struct fixture *f, struct server_file *file)
{
        const struct description_how how = {.fd = server_file_open_again(file, O_RDONLY),
                                            .flags = O_RDONLY,
                                            .io_class = IO_CLASS_CACHED,
                                            .tid = getpid()};
        struct description *description;

        g_assert_cmpint(description_open(f->mount.lazy, &file->object, &how, &description), ==, 0);
        park_opened(file, description, how.fd);
        description_set_doubtful(description);
        return description;
}

static void test_doubtful(struct fixture *f, gconstpointer data)
{
        const struct cobj_observer nobody = {.data = NULL};
        struct description *a, *b;
        struct server_file *file;
        uint64_t a_id;

        f->mount.io_class = IO_CLASS_CACHED;
        make_file(f, "a");
        daemon_dies(f, make_a);
        resume(f);
        node_table_resumed(f->table);
        file = node(f, 0);
        g_assert_cmpint(cobj_new(&nobody, NULL, &f->mount.cobj), ==, 0);
        g_assert_cmpint(lazy_new(f->mount.cobj, &f->mount.lazy), ==, 0);
        a = open_doubtful(f, file);
        b = open_doubtful(f, file);
        a_id = a->id;

        anybody = 1; /* somebody has the file open, or it cannot be told */
        g_assert_cmpuint(doubtful_look(&f->mount), ==, 2);
        anybody = -EACCES;
        g_assert_cmpuint(doubtful_look(&f->mount), ==, 2);
        anybody = 0;
        g_assert_cmpuint(doubtful_look(&f->mount), ==, 2); /* one look is not enough */
        g_assert_cmpuint(lazy_description_count(f->mount.lazy), ==, 2);
        /* The kernel names one of them: it has it. */
        g_assert_true(description_from_fh(f->mount.lazy, b->id) == b);
        g_assert_cmpuint(doubtful_look(&f->mount), ==, 0);
        g_assert_cmpuint(lazy_description_count(f->mount.lazy), ==, 1);
        g_assert_null(description_from_fh(f->mount.lazy, a_id));
        g_assert_cmpuint(atomic_load(&file->opens.all), ==, 1);
        asked = 0;
        g_assert_cmpuint(doubtful_look(&f->mount), ==, 0);
        g_assert_cmpuint(asked, ==, 0);
        ops_release(file, b);
        doubtful_stop(&f->mount);
        lazy_free(f->mount.lazy);
        cobj_free(f->mount.cobj);
}

/* ---- backing ids ---- */

/* 1 is open, 2 was, 3 is too but nothing else will say so, 4 was being closed, 5 was being registered. */
static void leave_backing_ids(struct fixture *f)
{
        static const char *const names[] = {"a", "b", "c", "d", "e"};

        for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
                struct server_file *file = look(f, names[i]);
                const int fd = server_file_open_again(file, O_RDONLY);
                const struct file_open how = {.fd = fd, .path_fd = -1, .flags = O_RDONLY};

                f->said->ids[i] = file->id;
                die_in_backing_open = i == 4;
                g_assert_cmpint(file_opens_begin(file, &how), ==, IO_CLASS_FAST);
                g_assert_cmpint(file->kept->backing_id, ==, i + 1);
                file_opens_recorded(file);
                if (i == 1)
                        file_opens_end(file, IO_CLASS_FAST, O_RDONLY, fd);
                if (i == 3) {
                        kept_node_clear(file->kept, NODE_FAST);
                        kept_node_set(file->kept, NODE_BACKING_CLOSING);
                }
        }
}

static void test_backing(struct fixture *f, gconstpointer data)
{
        struct server_file *a;

        make_file(f, "a");
        make_file(f, "b");
        make_file(f, "c");
        make_file(f, "d");
        make_file(f, "e");
        daemon_dies(f, leave_backing_ids);
        g_assert_cmpint(f->said->last_backing, ==, 5);
        resume(f);
        a = node(f, 0);
        file_opens_resume(a, IO_CLASS_FAST, O_RDONLY);
        /* The open that was interrupted comes again. */
        file_opens_begin(node(f, 4), &(struct file_open){.fd = -1, .path_fd = -1});
        g_assert_cmpint(node(f, 4)->kept->backing_id, ==, 6);
        g_test_expect_message(NULL, G_LOG_LEVEL_WARNING, "*a way that is not known any more: 1;*");
        node_table_resumed(f->table);
        g_test_assert_expected_messages();
        for (unsigned i = 0; i < 5; i++)
                g_assert_cmpint(server_file_has(node(f, i), NODE_WITHDRAWN), ==, i == 2);
        g_assert_cmpuint(closed[7], ==, 1); /* that was to find out how far they go */
        g_assert_cmpuint(closed[6], ==, 0);
        g_assert_cmpuint(closed[1], ==, 0);
        g_assert_cmpuint(closed[3], ==, 1);
        g_assert_cmpuint(closed[4], ==, 1);
        g_assert_cmpuint(closed[5], ==, 1);
        g_assert_cmpint(node(f, 2)->kept->backing_id, ==, 0);
        g_assert_cmpint(a->kept->backing_id, ==, 1);
        file_opens_end(node(f, 4), IO_CLASS_FAST, O_RDONLY, -1);
        g_assert_cmpuint(closed[6], ==, 1);
        file_opens_end(a, IO_CLASS_FAST, O_RDONLY, -1);
        g_assert_cmpuint(closed[1], ==, 1);
}

int main(int argc, char **argv)
{
        static const struct {
                const char *name;
                void (*fn)(struct fixture *f, gconstpointer data);
        } tests[] = {
                {"/node-resume/tree", test_tree},
                {"/node-resume/twice", test_twice},
                {"/node-resume/unanswered", test_unanswered},
                {"/node-resume/changed-meanwhile", test_changed_meanwhile},
                {"/node-resume/removed", test_removed},
                {"/node-resume/nameless", test_nameless},
                {"/node-resume/contradictions", test_contradictions},
                {"/node-resume/nonsense", test_nonsense},
                {"/node-resume/backing", test_backing},
                {"/node-resume/doubtful", test_doubtful},
                {"/node-resume/doubt", test_doubt},
                {"/node-resume/doubt-survives", test_doubt_survives},
        };

        g_test_init(&argc, &argv, NULL);
        g_assert_cmpint(fs_file_init(), ==, 0);
        for (unsigned i = 0; i < G_N_ELEMENTS(tests); i++)
                g_test_add(tests[i].name, struct fixture, NULL, setup, tests[i].fn, teardown);
        return g_test_run();
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of struct k42_mount are made in one order and ended in the other; a part that cannot be
 * made ends those before it, so that a failure leaves nothing behind.  The main thread then runs a
 * GMainLoop for the control socket, the signals and the link; requests are served by the session's threads.
 */
#include "fusefs/worker/worker.h"

#include <errno.h>
#include <glib-unix.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cobj/journal.h"
#include "fusefs/control/blocked.h"
#include "fusefs/coherent/coherent.h"
#include "fusefs/control/control.h"
#include "fusefs/control/control_listen.h"
#include "fusefs/daemon.h"
#include "fusefs/failpoint.h"
#include "fusefs/holder/link.h"
#include "fusefs/mount.h"
#include "fusefs/holder/mount_record.h"
#include "fusefs/node/node.h"
#include "fusefs/resume/node_resume.h"
#include "fusefs/node/node_table.h"
#include "fusefs/options.h"
#include "fusefs/node/passthrough.h"
#include "fusefs/control/reopen_socket.h"
#include "fusefs/resume/requests.h"
#include "fusefs/resume/resume.h"
#include "fusefs/worker/session.h"
#include "fusefs/state_dir.h"
#include "fusefs/worker/worker_state.h"
#include "lazy/lazy_resume.h"

#define CONTROL_SETTLE_US (3 * G_USEC_PER_SEC)

/* How a worker ends. */
enum end {
        END_MOUNT,    /* the mount ends with it */
        END_STOPPED,  /* another program's worker goes on */
        END_ORPHANED, /* the holder is dead: the mount ends, and what the holder would clear up is ours */
};

struct worker {
        struct k42_mount mount;
        struct requests *requests_ahead; /* NULL: none, or used */
        GMainLoop *loop;
        enum end end;
};

static gboolean quit_idle(gpointer data)
{
        struct worker *worker = data;

        g_main_loop_quit(worker->loop);
        return G_SOURCE_REMOVE;
}

/* The mount has ended.  From any thread, and perhaps before the main loop runs: so it has to be a source of
 * it, and not called at once. */
static void on_mount_ended(void *data)
{
        g_idle_add_full(G_PRIORITY_DEFAULT, quit_idle, data, NULL);
}

/* k42ctl wants the mount to end: the holder decides. */
static void on_asked(void *data)
{
        struct worker *worker = data;

        link_tell_asked(worker->mount.link, 0);
}

static gboolean on_sigterm(gpointer data)
{
        struct worker *worker = data;

        link_tell_asked(worker->mount.link, SIGTERM);
        return G_SOURCE_CONTINUE;
}

static gboolean on_sigint(gpointer data)
{
        struct worker *worker = data;

        link_tell_asked(worker->mount.link, SIGINT);
        return G_SOURCE_CONTINUE;
}

static gboolean on_link(int fd, GIOCondition condition, gpointer data)
{
        struct worker *worker = data;
        struct link_message message;
        int fds[LINK_PARKED_MAX], r;
        unsigned n_fds;

        r = link_receive(fd, &message, fds, &n_fds, MSG_DONTWAIT);
        if (r == -EAGAIN)
                return G_SOURCE_CONTINUE;
        while (r == 0 && n_fds > 0)
                close(fds[--n_fds]);
        if (r == 0 && message.head.type == LINK_STOP)
                worker->end = END_STOPPED;
        else if (r == 0 && message.head.type == LINK_END)
                worker->end = END_MOUNT;
        else if (r == 0 && message.head.type == LINK_NEWS) {
                link_set_news(worker->mount.link, &message.start);
                return G_SOURCE_CONTINUE;
        }
        else if (r == -EPIPE)
                worker->end = link_start(worker->mount.link)->kept ? END_STOPPED : END_ORPHANED;
        else
                return G_SOURCE_CONTINUE;
        g_main_loop_quit(worker->loop);
        return r == 0 ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

/* Closing a file there can report an error that write did not (delayed writes over a network), or
 * has effects of its own (another FUSE file system): FLUSH must be asked. */
static bool close_can_fail(int source_fd)
{
        static const long remote[] = {
                NFS_SUPER_MAGIC, SMB_SUPER_MAGIC,  CIFS_SUPER_MAGIC,  SMB2_SUPER_MAGIC,
                AFS_SUPER_MAGIC, AFS_FS_MAGIC,     CEPH_SUPER_MAGIC,  CODA_SUPER_MAGIC,
                V9FS_MAGIC,      FUSE_SUPER_MAGIC, OCFS2_SUPER_MAGIC,
        };
        struct statfs st;

        if (fstatfs(source_fd, &st) < 0)
                return true;
        for (unsigned i = 0; i < G_N_ELEMENTS(remote); i++)
                if ((long)(unsigned int)st.f_type == remote[i])
                        return true;
        return false;
}

/* IO_AUTO: fast where we may ask for it; passthrough_probe() finds out whether the kernel agrees.
 */
static enum io_class class_of(enum io_option io)
{
        switch (io) {
        case IO_COUNTED:
                return IO_CLASS_COUNTED;
        case IO_CACHED:
                return IO_CLASS_CACHED;
        case IO_FAST:
                return IO_CLASS_FAST;
        default:
                return geteuid() == 0 ? IO_CLASS_FAST : IO_CLASS_CACHED;
        }
}

static bool request_is_raising(void *data, uint64_t id)
{
        return requests_raising(data, id);
}

/* Nodes, clients, descriptions and handles. */
static int resume_objects(struct k42_mount *mount)
{
        struct lazy_resumed resumed;
        int r = node_table_resume(mount->nodes);

        if (r < 0)
                return r;
        client_table_resume(cobj_clients(mount->cobj));
        lazy_resume(mount->lazy, node_table_object, mount->nodes, &resumed);
        node_table_resume_descriptions(mount->nodes);
        store_resume(mount->store);
        client_table_settle(cobj_clients(mount->cobj));
        return 0;
}

static int start_mount(struct worker *worker)
{
        struct k42_mount *mount = &worker->mount;
        int r = worker_state_open(mount, g_steal_pointer(&worker->requests_ahead));

        if (r == 0)
                r = node_table_new(mount, &mount->nodes);
        if (r == 0) {
                mount->nodes->doubts.raising = request_is_raising;
                mount->nodes->doubts.data = mount->requests;
        }
        if (r == 0 && mount->resume)
                r = resume_objects(mount);
        if (r == 0)
                r = blocked_new(mount, &mount->blocked);
        idle_backing_init(mount);
        if (r == 0)
                r = coherent_new(mount, &mount->coherent);
        if (r == 0)
                r = session_start(mount, on_mount_ended, worker, &mount->session);
        if (r == 0)
                worker_state_begun(mount);
        if (r == 0)
                passthrough_probe(mount);
        if (r == 0 && mount->coherent)
                r = coherent_start(mount->coherent);
        if (r == 0 && mount->resume)
                doubtful_start(mount);
        if (r == 0)
                r = control_start(mount, link_control_fd(mount->link), on_asked, worker, &mount->control);
        if (r == 0)
                r = reopen_socket_start(mount, &mount->reopen_socket);
        return r;
}

/* The requests of k42ctl that were begun; false if one is stuck, so that nothing may be freed. */
static bool settle_control(struct k42_mount *mount)
{
        if (control_settle(mount->control, CONTROL_SETTLE_US))
                return true;
        g_message("%s: a request of k42ctl is stuck and was left", mount->options.mountpoint);
        return false;
}

/* The mount is for the next worker: nothing of what it needs may be taken down, so nothing is freed.  Clients
 * wait from the pause on: what the store has not written yet is in the journal, for the next one's. */
static void leave_mount(struct k42_mount *mount)
{
        reopen_socket_stop(mount->reopen_socket);
        control_shut(mount->control);
        coherent_stop(mount->coherent, false);
        session_pause(mount->session);
        settle_control(mount);
        _exit(LINK_EXIT_STOPPED);
}

/* What the holder clears up, if it is dead. */
static void clear_orphaned(struct worker *worker)
{
        struct k42_mount *mount = &worker->mount;

        if (worker->end != END_ORPHANED)
                return;
        control_remove_device_link(mount->state_dir, mount->dev);
        state_dir_remove_orphaned(mount->state_dir);
}

static void stop_mount(struct worker *worker, int status)
{
        struct k42_mount *mount = &worker->mount;

        reopen_socket_stop(mount->reopen_socket);
        control_shut(mount->control);
        coherent_stop(mount->coherent, true);
        session_stop(
                mount->session); /* first: a request of k42ctl may wait for one of its callers */
        if (!settle_control(mount)) {
                clear_orphaned(worker);
                _exit(status); /* nothing may be freed under its feet */
        }
        control_stop(mount->control);
        doubtful_stop(mount);
        if (mount->lazy)
                lazy_release_all(mount->lazy);
        store_close(mount->store);
        if (mount->journal)
                journal_close(mount->journal); /* the clients still end */
        idle_backing_clear(mount);
        coherent_free(mount->coherent);
        blocked_free(mount->blocked);
        node_table_free(mount->nodes);
        lazy_free(mount->lazy);
        cobj_free(mount->cobj);
        journal_free(mount->journal);
        requests_close(mount->requests);
        keep_close(mount->keep);
        clear_orphaned(worker);
        state_dir_free(mount->state_dir);
}

static void watch(struct worker *worker)
{
        g_unix_signal_add(SIGTERM, on_sigterm, worker);
        g_unix_signal_add(SIGINT, on_sigint, worker);
        if (worker->mount.options.foreground)
                g_unix_signal_add(SIGHUP, on_sigint, worker);
        else
                signal(SIGHUP, SIG_IGN);
        signal(SIGUSR2, SIG_IGN); /* the holder's */
        g_unix_fd_add(link_fd(worker->mount.link), G_IO_IN, on_link, worker);
}

/* By this a new holder finds a worker whose own one has died.  It ends with this process. */
static void lock_record(struct k42_mount *mount)
{
        int fd = mount_record_open(LINK_FD_STATE), r = fd < 0 ? fd : mount_record_lock(fd);

        if (r < 0)
                g_warning("%s: `mount` in the state directory cannot be locked: %s",
                          mount->options.mountpoint, g_strerror(-r));
}

static void init_mount(struct k42_mount *mount)
{
        const struct link_start *start = link_start(mount->link);

        mount->source_fd = LINK_FD_SOURCE;
        mount->fuse_fd = link_fuse_fd(mount->link);
        mount->resume = start->resume;
        mount->dev = start->dev;
        mount->started = start->started;
        mount->io_class = class_of(mount->options.io);
        atomic_init(&mount->passthrough, mount->io_class == IO_CLASS_FAST);
        mount->noflush = !close_can_fail(mount->source_fd);
        mount->privileged = geteuid() == 0;
}

static void serve(struct worker *worker)
{
        struct k42_mount *mount = &worker->mount;

        if (!mount->options.foreground && !link_start(mount->link)->resume)
                daemon_detach();
        link_tell(mount->link, LINK_READY, -1);
        g_main_loop_run(worker->loop);
        if (worker->end == END_STOPPED)
                leave_mount(mount);
        link_tell(mount->link, LINK_ENDING, -1);
}

/* Until its turn comes, which may be in a moment or never: everything that takes time and does not depend on
 * what the worker before leaves. */
static int wait_for_turn(struct worker *worker)
{
        int r;

        prctl(PR_SET_NAME, WORKER_WAITING_NAME);
        store_init_process();
        worker->requests_ahead = requests_map_ahead(LINK_FD_STATE);
        r = link_wait(worker->mount.link);
        if (r < 0)
                requests_close(worker->requests_ahead);
        else
                prctl(PR_SET_NAME, "k42fs");
        return r;
}

/* A worker that dumps core dies only when all its threads have stopped, and the teller may wait for a page
 * that only the next worker can answer: so neither would ever come.  Where /proc/self would be closed to us then,
 * as to an ordinary user, the limit must do, which a program that gets cores by a pipe does not heed. */
static void never_dump_core(void)
{
        const struct rlimit none = {0, 0};

        setrlimit(RLIMIT_CORE, &none);
        prctl(PR_SET_DUMPABLE, 0);
        if (access("/proc/self/fd", R_OK) < 0)
                prctl(PR_SET_DUMPABLE, 1);
}

int worker_run(int argc, char **argv)
{
        struct worker worker = {.end = END_MOUNT};
        struct k42_mount *mount = &worker.mount;
        int status, r;

        never_dump_core();
        if (!k42_options_parse_checked(argc, argv, &mount->options, &status))
                return status;
        if (link_open(&mount->link) < 0)
                return K42_EXIT_FAILED;
        r = wait_for_turn(&worker);
        if (r < 0) {
                link_close(mount->link);
                k42_options_clear(&mount->options);
                return r == -EPIPE ? K42_EXIT_OK : K42_EXIT_FAILED; /* the holder has gone */
        }
        if (!mount->options.foreground && link_start(mount->link)->resume)
                daemon_detach();
        init_mount(mount);
        lock_record(mount);
        worker.loop = g_main_loop_new(NULL, FALSE);
        watch(&worker);
        r = start_mount(&worker);
        if (r == 0)
                serve(&worker);
        else if (r == -ENODEV && mount->resume)
                link_tell(mount->link, LINK_ENDING, -1); /* unmounted while nobody served it */
        else if (mount->resume)
                _exit(K42_EXIT_FAILED); /* what earlier workers left is the next one's: nothing is freed */
        status = r == 0 || (r == -ENODEV && mount->resume) ? K42_EXIT_OK : K42_EXIT_FAILED;
        stop_mount(&worker, status);
        g_main_loop_unref(worker.loop);
        k42_options_clear(&mount->options);
        link_close(mount->link);
        return status;
}

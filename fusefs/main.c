/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * k42fs: the daemon's life from the command line to the last file removed.
 *
 * The parts of struct k42_mount are made in one order and ended in the other; a part that cannot be
 * made ends those before it, so that a failure leaves nothing behind.  The main thread then runs a
 * GMainLoop for the control socket and the signals; requests are served by the session's threads.
 */
#include <errno.h>
#include <glib-unix.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cobj/journal.h"
#include "fusefs/coherent.h"
#include "fusefs/control.h"
#include "fusefs/daemon.h"
#include "fusefs/mount.h"
#include "fusefs/node.h"
#include "fusefs/options.h"
#include "fusefs/passthrough.h"
#include "fusefs/reopen_socket.h"
#include "fusefs/session.h"
#include "fusefs/state_dir.h"

#define JOURNAL_RECORDS   32768 /* 4 MiB */
#define CONTROL_SETTLE_US (3 * G_USEC_PER_SEC)

/* A hard limit of descriptors below this is somebody's wish; others are raised as far as we may. */
#define NOFILE_DELIBERATE 4096

static GMainLoop *loop;

static gboolean on_quit_signal(gpointer data)
{
        g_main_loop_quit(loop);
        return G_SOURCE_CONTINUE;
}

static gboolean quit_idle(gpointer data)
{
        g_main_loop_quit(loop);
        return G_SOURCE_REMOVE;
}

/* From any thread. */
static void request_quit(void *data)
{
        g_main_context_invoke(NULL, quit_idle, NULL);
}

/* Closing a file there can report an error that write did not (delayed writes over a network), or
 * has effects of its own (another FUSE file system): FLUSH must be asked. */
static bool close_can_fail(const char *source)
{
        static const long remote[] = {
                NFS_SUPER_MAGIC, SMB_SUPER_MAGIC,  CIFS_SUPER_MAGIC,  SMB2_SUPER_MAGIC,
                AFS_SUPER_MAGIC, AFS_FS_MAGIC,     CEPH_SUPER_MAGIC,  CODA_SUPER_MAGIC,
                V9FS_MAGIC,      FUSE_SUPER_MAGIC, OCFS2_SUPER_MAGIC,
        };
        struct statfs st;

        if (statfs(source, &st) < 0)
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

/* Every open file of every user is a descriptor of ours. */
static void raise_descriptor_limit(void)
{
        g_autofree char *text = NULL;
        struct rlimit nofile, raised;

        if (getrlimit(RLIMIT_NOFILE, &nofile) < 0)
                return;
        raised = nofile;
        if (nofile.rlim_max >= NOFILE_DELIBERATE &&
            g_file_get_contents("/proc/sys/fs/nr_open", &text, NULL, NULL))
                raised.rlim_max = MAX(nofile.rlim_max, g_ascii_strtoull(text, NULL, 10));
        raised.rlim_cur = raised.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
                return;
        nofile.rlim_cur = nofile.rlim_max; /* without CAP_SYS_RESOURCE */
        setrlimit(RLIMIT_NOFILE, &nofile);
}

/* What the process as a whole needs before it serves anybody. */
static void prepare_process(void)
{
        umask(0);
        signal(SIGPIPE, SIG_IGN);
        signal(SIGUSR2, SIG_IGN); /* nothing of ours, and no reason to leave a dead mount */
        signal(SIGALRM, SIG_IGN);
        signal(SIGXFSZ, SIG_IGN); /* a limit of ours is an EFBIG for the caller, not our end */
        raise_descriptor_limit();
        if (chdir("/") < 0)
                g_warning("/: chdir failed: %s", g_strerror(errno));
}

static int start_store(struct k42_mount *mount)
{
        g_autofree char *path = state_dir_file(mount->state_dir, "state.db");
        g_autofree char *error = NULL;
        const struct store_config config = {
                .path = path,
                .mountpoint = mount->options.mountpoint,
                .source = mount->options.source,
                .journal = mount->journal,
                .cobj = mount->cobj,
                .history = mount->options.history,
        };
        int r = store_open(&config, &mount->store, &error);

        if (r < 0)
                g_warning("%s", error);
        return r;
}

static int start_state(struct k42_mount *mount)
{
        struct cobj_observer observer;
        int r;

        r = state_dir_open(mount->options.state, mount->options.mountpoint, &mount->state_dir);
        if (r < 0)
                return r;
        r = journal_create(state_dir_fd(mount->state_dir), "journal", JOURNAL_RECORDS,
                           &mount->journal);
        if (r < 0) {
                g_warning("%s/journal: cannot be made: %s", state_dir_path(mount->state_dir),
                          g_strerror(-r));
                return r;
        }
#ifdef K42_WITHOUT_ACCOUNTING /* see meson.build */
        observer = (struct cobj_observer){.data = NULL};
#else
        store_observer_init(&observer, mount->journal);
#endif
        r = cobj_new(&observer, &mount->cobj);
        if (r == 0)
                r = lazy_new(mount->cobj, &mount->lazy);
        if (r < 0) {
                g_warning("%s: cannot start: %s", mount->options.mountpoint, g_strerror(-r));
                return r;
        }
        return start_store(mount);
}

static int start_mount(struct k42_mount *mount)
{
        int r = start_state(mount);

        if (r == 0)
                r = node_table_new(mount, &mount->nodes);
        idle_backing_init(mount);
        if (r == 0)
                r = coherent_new(mount, &mount->coherent);
        if (r == 0)
                r = session_start(mount, request_quit, NULL, &mount->session);
        if (r == 0)
                passthrough_probe(mount);
        if (r == 0 && mount->coherent)
                r = coherent_start(mount->coherent);
        if (r == 0)
                r = control_start(mount, request_quit, NULL, &mount->control);
        if (r == 0)
                r = reopen_socket_start(mount, &mount->reopen_socket);
        return r;
}

static void stop_mount(struct k42_mount *mount, int status)
{
        reopen_socket_stop(mount->reopen_socket);
        control_shut(mount->control);
        coherent_stop(mount->coherent);
        session_stop(
                mount->session); /* first: a request of k42ctl may wait for one of its callers */
        if (!control_settle(mount->control, CONTROL_SETTLE_US)) {
                g_message("%s: a request of k42ctl is stuck and was left",
                          mount->options.mountpoint);
                state_dir_remove(mount->state_dir);
                _exit(status); /* nothing may be freed under its feet */
        }
        control_stop(mount->control);
        if (mount->lazy)
                lazy_release_all(mount->lazy);
        store_close(mount->store);
        if (mount->journal)
                journal_close(mount->journal); /* the clients still end */
        idle_backing_clear(mount);
        coherent_free(mount->coherent);
        node_table_free(mount->nodes);
        lazy_free(mount->lazy);
        cobj_free(mount->cobj);
        journal_free(mount->journal);
        state_dir_remove(mount->state_dir);
}

static void watch_signals(bool foreground)
{
        g_unix_signal_add(SIGTERM, on_quit_signal, NULL);
        g_unix_signal_add(SIGINT, on_quit_signal, NULL);
        if (foreground)
                g_unix_signal_add(SIGHUP, on_quit_signal, NULL);
        else
                signal(SIGHUP, SIG_IGN);
}

int main(int argc, char **argv)
{
        struct k42_mount mount = {.started = 0};
        struct daemon_start *start;
        int status, r;

        daemon_log_init();
        if (!k42_options_parse(argc, argv, &mount.options, &status))
                return status;

        start = daemon_fork(mount.options.foreground);
        prepare_process();
        mount.started = g_get_real_time();
        mount.io_class = class_of(mount.options.io);
        atomic_init(&mount.passthrough, mount.io_class == IO_CLASS_FAST);
        mount.noflush = !close_can_fail(mount.options.source);
        mount.privileged = geteuid() == 0;
        loop = g_main_loop_new(NULL, FALSE);
        watch_signals(mount.options.foreground);

        r = start_mount(&mount);
        if (r == 0) {
                daemon_started(start);
                g_main_loop_run(loop);
        }
        stop_mount(&mount, r == 0 ? K42_EXIT_OK : K42_EXIT_FAILED);
        if (r < 0)
                daemon_failed(start, K42_EXIT_FAILED);
        g_main_loop_unref(loop);
        k42_options_clear(&mount.options);
        return r == 0 ? K42_EXIT_OK : K42_EXIT_FAILED;
}

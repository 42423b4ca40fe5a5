/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is made is in the order in which it stands here, and is ended in the other.  GLib's plain functions
 * (strings, messages) are used before and after the machine, nothing of it that starts a thread.
 */
#include "fusefs/holder/holder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ctl/control_protocol.h"
#include "fusefs/control/control_listen.h"
#include "fusefs/holder/holder_private.h"
#include "fusefs/mount_point.h"
#include "fusefs/options.h"
#include "fusefs/holder/service.h"
#include "fusefs/state_dir.h"

static int say(const char *object, const char *what, int r)
{
        g_warning("%s: %s: %s", object, what, g_strerror(-r));
        return r;
}

/* Moves a descriptor out of the way of enum link_fd.  -1 stays. */
static int move_up(int *fd)
{
        int moved;

        if (*fd < 0)
                return 0;
        moved = fcntl(*fd, F_DUPFD_CLOEXEC, HOLDER_FD_MIN);
        if (moved < 0)
                return -errno;
        close(*fd);
        *fd = moved;
        return 0;
}

static void close_fd(int *fd)
{
        if (*fd >= 0)
                close(*fd);
        *fd = -1;
}

static int open_program(struct holder *h)
{
        ssize_t n = readlink("/proc/self/exe", h->program_path, sizeof h->program_path - 1);

        h->program_path[MAX(n, 0)] = '\0';
        h->program_fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);
        return h->program_fd < 0 ? say("/proc/self/exe", "cannot be opened", -errno)
                                 : move_up(&h->program_fd);
}

static int open_source(struct holder *h, const struct k42_options *options)
{
        h->source_fd = open(options->source, O_PATH | O_DIRECTORY | O_CLOEXEC);
        return h->source_fd < 0 ? say(options->source, "cannot use as SOURCE", -errno)
                                : move_up(&h->source_fd);
}

static int open_record(struct holder *h, const char *state)
{
        h->record_fd = mount_record_open(h->state_fd);
        return h->record_fd < 0 ? say(state, "cannot make `mount` there", h->record_fd)
                                : move_up(&h->record_fd);
}

static int open_state(struct holder *h, const struct k42_options *options,
                      struct state_dir **ret_dir)
{
        int r = state_dir_open(options->state, options->mountpoint, ret_dir);

        if (r < 0)
                return r;
        h->state_fd = fcntl(state_dir_fd(*ret_dir), F_DUPFD_CLOEXEC, HOLDER_FD_MIN);
        if (h->state_fd < 0)
                return say(state_dir_path(*ret_dir), "cannot be used", -errno);
        r = open_record(h, state_dir_path(*ret_dir));
        if (r == 0)
                r = control_listen(*ret_dir, &h->control_fd);
        return r < 0 ? r : move_up(&h->control_fd);
}

/* The signals that the machine reads; they are blocked from here on. */
static int open_signals(struct holder *h)
{
        sigset_t set;

        sigemptyset(&set);
        sigaddset(&set, SIGCHLD);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGUSR2);
        if (h->foreground)
                sigaddset(&set, SIGHUP);
        else
                signal(SIGHUP, SIG_IGN);
        signal(SIGPIPE, SIG_IGN);
        signal(SIGUSR1, SIG_IGN); /* nothing of ours, and no reason to leave a dead mount */
        signal(SIGALRM, SIG_IGN);
        if (sigprocmask(SIG_BLOCK, &set, &h->worker_mask) < 0)
                return -errno;
        h->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        return h->signal_fd < 0 ? -errno : move_up(&h->signal_fd);
}

static int open_mount(struct holder *h, const struct k42_options *options, struct state_dir *dir)
{
        dev_t dev;
        int r = mount_point_mount(options, &h->fuse_fd, &dev);

        if (r < 0)
                return r;
        h->record.dev = dev;
        control_make_device_link(dir, dev);
        r = move_up(&h->fuse_fd);
        return r < 0 ? say(options->mountpoint, "cannot start", r) : 0;
}

static void keep_all(const struct holder *h, const struct state_dir *dir)
{
        service_keep("fuse", h->fuse_fd);
        service_keep("source", h->source_fd);
        service_keep("control", h->control_fd);
        service_keep("state", h->state_fd);
        service_keep("lock", state_dir_lock_fd(dir));
}

/* A new mount. */
static int begin(struct holder *h, const struct k42_options *options, struct state_dir **ret_dir)
{
        int r;

        h->record = (struct mount_record){
                .version = MOUNT_RECORD_VERSION,
                .started = g_get_real_time(),
        };
        if (g_strlcpy(h->record.mountpoint, options->mountpoint, sizeof h->record.mountpoint) >=
                    sizeof h->record.mountpoint ||
            g_strlcpy(h->record.source, options->source, sizeof h->record.source) >=
                    sizeof h->record.source)
                return say(options->mountpoint, "cannot use as MOUNTPOINT", -ENAMETOOLONG);
        r = open_source(h, options);
        if (r == 0)
                r = open_state(h, options, ret_dir);
        if (r == 0)
                r = open_mount(h, options, *ret_dir);
        if (r == 0)
                r = mount_record_write(h->record_fd, &h->record);
        if (r == 0 && h->fdstore)
                keep_all(h, *ret_dir);
        return r;
}

static int take_kept(const char *name, int *ret_fd)
{
        *ret_fd = service_take(name);
        return *ret_fd < 0 ? say(name, "the service manager has not kept it", -ENOENT)
                           : move_up(ret_fd);
}

static int take_all_kept(struct holder *h, int *ret_lock_fd)
{
        int r = take_kept("fuse", &h->fuse_fd);

        if (r == 0)
                r = take_kept("source", &h->source_fd);
        if (r == 0)
                r = take_kept("control", &h->control_fd);
        if (r == 0)
                r = take_kept("state", &h->state_fd);
        if (r == 0)
                r = take_kept("lock", ret_lock_fd);
        return r;
}

/* A mount that another holder has begun, and the service manager has kept. */
static int go_on(struct holder *h, struct k42_options *options, struct state_dir **ret_dir)
{
        g_autofree char *standard = NULL;
        int lock_fd = -1, fd, r;
        uint64_t key;

        r = take_all_kept(h, &lock_fd);
        if (r == 0)
                r = open_record(h, options->mountpoint);
        if (r < 0)
                return r;
        r = mount_record_read(h->record_fd, &h->record);
        if (r < 0)
                return say(options->mountpoint, "the record of the kept mount", r);
        g_free(options->mountpoint);
        g_free(options->source);
        options->mountpoint = g_strdup(h->record.mountpoint);
        options->source = g_strdup(h->record.source);
        standard = control_default_state_dir(options->mountpoint, geteuid());
        r = state_dir_take_over(options->state ? options->state : standard, options->mountpoint,
                                h->state_fd, lock_fd, ret_dir);
        if (r < 0)
                return r;
        listen(h->control_fd, CONTROL_BACKLOG); /* so that k42ctl sees who owns it now */
        while (service_take_parked(&key, &fd))
                if (move_up(&fd) == 0)
                        parked_put(&h->parked, key, fd);
        mount_record_end_worker(h->record_fd);
        return 0;
}

static int open_all(struct holder *h, struct k42_options *options, const char *program,
                    struct state_dir **ret_dir)
{
        struct rlimit nofile;
        int r;

        h->foreground = options->foreground;
        h->fdstore = options->fdstore;
        if (getrlimit(RLIMIT_NOFILE, &nofile) < 0)
                nofile.rlim_cur = 1024;
        r = parked_init(&h->parked, nofile.rlim_cur);
        if (r == 0)
                r = open_signals(h);
        if (r < 0)
                return say(options->mountpoint, "cannot start", r);
        r = open_program(h);
        if (r == 0 && service_inherits()) {
                r = go_on(h, options, ret_dir);
                h->leave = r < 0; /* a program that can go on with it may come */
        } else if (r == 0) {
                r = begin(h, options, ret_dir);
        }
        if (r == 0)
                h->worker_argv = k42_options_format(options, program, "--worker",
                                                    state_dir_path(*ret_dir));
        return r;
}

/* Whatever there is of it. */
static void end_mount(struct holder *h, const struct k42_options *options, struct state_dir *dir)
{
        static const char *const kept[] = {"fuse", "source", "control", "state", "lock"};

        service_stopping();
        if (h->fdstore)
                for (unsigned i = 0; i < G_N_ELEMENTS(kept); i++)
                        service_drop(kept[i]);
        if (h->fdstore)
                for (size_t i = 0; i < h->parked.used; i++)
                        service_drop_parked(h->parked.entries[i].key);
        parked_drop_all(&h->parked);
        if (h->record.dev != 0) {
                mount_point_unmount(options->mountpoint, h->record.dev, mount_point_ended(h->fuse_fd));
                if (dir)
                        control_remove_device_link(dir, h->record.dev);
        }
        close_fd(&h->fuse_fd); /* who waits for an answer gets ENOTCONN now */
        close_fd(&h->control_fd);
        state_dir_remove(dir);
}

int holder_run(struct k42_options *options, const char *program, struct daemon_start *start)
{
        struct holder h = {
                .source_fd = -1,
                .state_fd = -1,
                .signal_fd = -1,
                .record_fd = -1,
                .control_fd = -1,
                .fuse_fd = -1,
                .program_fd = -1,
                .next_program_fd = -1,
                .last_program_fd = -1,
                .link_fd = -1,
                .waiting = {.deadline = -1, .link_fd = -1},
                .deadline = -1,
                .start = start,
                .status = K42_EXIT_FAILED,
        };
        struct state_dir *dir = NULL;

        prctl(PR_SET_NAME, "k42fs");
        if (open_all(&h, options, program, &dir) == 0)
                holder_machine(&h);
        if (h.gave_up)
                g_warning("%s: %u workers in a row failed, the last one %s; the mount is given up",
                          options->mountpoint, MAX(h.failures, h.crashes), h.record.last_death);
        if (h.leave)
                state_dir_free(dir);
        else
                end_mount(&h, options, dir);
        if (h.start)
                daemon_failed(h.start, h.status);
        g_strfreev(h.worker_argv);
        return h.status;
}

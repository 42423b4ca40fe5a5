/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * umount: asks the daemon to end, and waits until mount and daemon are gone.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ctl/clear_dead.h"
#include "ctl/connect.h"
#include "ctl/print.h"

#define LOOK_EVERY_US 20000

/* True once the process behind `pidfd` (-1: not known) has ended; waits at most until `deadline`.
 */
static bool wait_process(int pidfd, int64_t deadline)
{
        struct pollfd wait = {.fd = pidfd, .events = POLLIN};
        int64_t left = MAX(deadline - g_get_monotonic_time(), 0);

        return pidfd < 0 || poll(&wait, 1, (int)(left / 1000)) > 0;
}

static bool wait_mount(const struct target *target, int64_t deadline)
{
        while (target->mountpoint && target_mounted(target)) {
                if (g_get_monotonic_time() >= deadline)
                        return false;
                g_usleep(LOOK_EVERY_US);
        }
        return true;
}

/* --state names no mount: the daemon does. */
static int complete(struct target *target, const struct ctl_options *options)
{
        g_autoptr(JsonNode) status = NULL;
        int r = target_ask(target, options, "status", NULL, &status, NULL);

        if (r == EXIT_GOOD && JSON_NODE_HOLDS_OBJECT(status))
                target_complete(target, member_string(json_node_get_object(status), "mountpoint"),
                                member_string(json_node_get_object(status), "device"));
        return r;
}

/* The process that owns the mount, if it is the mount's owner's (it could be anybody's whom he made listen
 * there); -1 else. */
static int open_holder(const struct target *target, const struct target_listener *listener)
{
        if (listener->pid <= 0 || (target->mountpoint && listener->uid != target->uid))
                return -1;
        return (int)syscall(SYS_pidfd_open, listener->pid, 0);
}

static int wait_end(const struct target *target, const struct ctl_options *options, int pidfd,
                    pid_t pid)
{
        int64_t deadline = g_get_monotonic_time() + options->timeout * G_TIME_SPAN_SECOND;

        if (!wait_mount(target, deadline)) {
                ctl_complain("%s: is still mounted after %d seconds", target->mountpoint,
                             options->timeout);
                return EXIT_FAILED;
        }
        if (!wait_process(pidfd, deadline)) {
                ctl_complain("%s: is unmounted, but its daemon (%d) has not ended in %d seconds",
                             target->mountpoint, (int)pid, options->timeout);
                return EXIT_FAILED;
        }
        return EXIT_GOOD;
}

static int print_nothing(const struct ctl_options *options)
{
        if (options->json)
                puts("{}");
        return EXIT_GOOD;
}

static int run(const struct verb *verb, const struct ctl_options *options)
{
        g_autoptr(GPtrArray) targets = NULL;
        g_autoptr(JsonNode) result = NULL;
        struct target_listener listener = {0};
        struct target *target;
        int r, pidfd;

        r = targets_find(verb, options, 0, &targets);
        if (r != EXIT_GOOD)
                return r;
        target = targets->pdata[0];
        if (target_dead(target, options)) {
                r = clear_dead(target);
                return r == EXIT_GOOD ? print_nothing(options) : r;
        }
        if (!target->mountpoint)
                r = complete(target, options);
        if (r == EXIT_GOOD)
                r = target_ask(target, options, "umount", NULL, &result, &listener);
        pidfd = open_holder(target, &listener);
        /* no worker answers: the process that owns the mount needs none to end it */
        if (r != EXIT_GOOD && !result && listener.unanswered && pidfd >= 0 &&
            syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0) == 0) {
                ctl_complain("%s: the mount's owner (process %d) was asked instead",
                             target->mountpoint ? target->mountpoint : target->state_dir,
                             (int)listener.pid);
                r = EXIT_GOOD;
        }
        if (r == EXIT_GOOD)
                r = wait_end(target, options, pidfd, listener.pid);
        if (r == EXIT_GOOD)
                r = print_nothing(options);
        if (pidfd >= 0)
                close(pidfd);
        return r;
}

const struct verb verb_umount = {
        .name = "umount",
        .arguments = "MOUNTPOINT",
        .summary = "unmount and end the daemon",
        .description =
                "Asks the daemon to unmount and to end, and waits until it has.  Programs that\n"
                "still have files open get errors from then on.  A dead mount, whose daemon was\n"
                "killed, is unmounted, and what its daemon left is removed.",
        .min_rest = 1,
        .max_rest = 1,
        .run = run,
};

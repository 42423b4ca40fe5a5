/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * umount: asks the daemon to end, and waits until mount and daemon are gone.
 */
#include <poll.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

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
static int complete(struct target *target, const struct ctl_options *options, pid_t *ret_pid)
{
        g_autoptr(JsonNode) status = NULL;
        int r = target_ask(target, options, "status", NULL, &status, ret_pid);

        if (r == EXIT_GOOD && !target->mountpoint && JSON_NODE_HOLDS_OBJECT(status))
                target_complete(target, member_string(json_node_get_object(status), "mountpoint"),
                                member_string(json_node_get_object(status), "device"));
        return r;
}

static int run(const struct verb *verb, const struct ctl_options *options)
{
        g_autoptr(GPtrArray) targets = NULL;
        g_autoptr(JsonNode) result = NULL;
        struct target *target;
        int64_t deadline;
        pid_t pid = 0;
        int r, pidfd = -1;

        r = targets_find(verb, options, 0, &targets);
        if (r != EXIT_GOOD)
                return r;
        target = targets->pdata[0];
        r = complete(target, options, &pid);
        if (r != EXIT_GOOD)
                return r;
        if (pid > 0)
                pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        r = target_ask(target, options, "umount", NULL, &result, NULL);
        if (r == EXIT_GOOD) {
                deadline = g_get_monotonic_time() + options->timeout * G_TIME_SPAN_SECOND;
                if (!wait_mount(target, deadline)) {
                        ctl_complain("%s: is still mounted after %d seconds", target->mountpoint,
                                     options->timeout);
                        r = EXIT_FAILED;
                } else if (!wait_process(pidfd, deadline)) {
                        ctl_complain(
                                "%s: is unmounted, but its daemon (%d) has not ended in %d seconds",
                                target->mountpoint, (int)pid, options->timeout);
                        r = EXIT_FAILED;
                } else if (options->json) {
                        print_json(result);
                }
        }
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
                "still have files open get errors from then on.",
        .min_rest = 1,
        .max_rest = 1,
        .run = run,
};

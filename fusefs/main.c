/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * k42fs: two programs in one.  What users start is the holder (holder.h), which owns the mount; it starts
 * the same executable again with --worker (worker.h), which serves it.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/control_protocol.h"
#include "fusefs/daemon.h"
#include "fusefs/failpoint.h"
#include "fusefs/holder/holder.h"
#include "fusefs/options.h"
#include "fusefs/holder/service.h"
#include "fusefs/worker/worker.h"

/* A hard limit of descriptors below this is somebody's wish; others are raised as far as we may. */
#define NOFILE_DELIBERATE 4096

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

/* What a process of ours needs before anything else; the workers inherit most of it. */
static void prepare_process(void)
{
        umask(0);
        signal(SIGPIPE, SIG_IGN);
        signal(SIGALRM, SIG_IGN); /* nothing of ours, and no reason to leave a dead mount */
        signal(SIGXFSZ, SIG_IGN); /* a limit of ours is an EFBIG for the caller, not our end */
        raise_descriptor_limit();
        if (chdir("/") < 0)
                g_warning("/: chdir failed: %s", g_strerror(errno));
}

int main(int argc, char **argv)
{
        struct k42_options options;
        struct daemon_start *start;
        int status;

        daemon_log_init();
        if (argc > 1 && strcmp(argv[1], "--worker") == 0) {
                argv[1] = argv[0];
                return worker_run(argc - 1, argv + 1);
        }
        if (argc == 2 && strcmp(argv[1], "--list-failpoints") == 0) { /* for tests */
                failpoint_list(stdout);
                return K42_EXIT_OK;
        }
        service_init();
        /* the directories of a mount that is there already are not looked at: it would be asked itself */
        if (service_inherits() ? !k42_options_parse_checked(argc, argv, &options, &status)
                               : !k42_options_parse(argc, argv, &options, &status))
                return status;
        start = daemon_fork(options.foreground);
        prepare_process();
        status = holder_run(&options, argv[0], start);
        k42_options_clear(&options);
        return status;
}

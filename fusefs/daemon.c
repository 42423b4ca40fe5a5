/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parent and the child share a pipe: the child writes one byte, the exit status of the parent.
 * When the child dies without a word the parent reads the end of the file and fails.
 */
#include "fusefs/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "fusefs/options.h"

struct daemon_start {
        int pipe_fd; /* -1 in the foreground */
};

static bool to_syslog; /* set before there are threads that log, never reset */

/* A message is one line, whatever bytes a name brings into it.  Free it. */
static char *one_line(const char *message)
{
        GString *line = g_string_new(NULL);

        for (; *message; message++) {
                if (g_ascii_iscntrl(*message))
                        g_string_append_printf(line, "\\%03o", (unsigned char)*message);
                else
                        g_string_append_c(line, *message);
        }
        return g_string_free(line, FALSE);
}

static GLogWriterOutput write_log(GLogLevelFlags level, const GLogField *fields, gsize n_fields,
                                  gpointer data)
{
        const char *message = NULL;
        g_autofree char *line = NULL;

        for (gsize i = 0; i < n_fields; i++)
                if (g_str_equal(fields[i].key, "MESSAGE"))
                        message = fields[i].value;
        if (!message || (level & G_LOG_LEVEL_DEBUG))
                return G_LOG_WRITER_HANDLED;
        line = one_line(message);
        if (to_syslog)
                syslog(level & G_LOG_LEVEL_INFO ? LOG_INFO : LOG_WARNING, "%s", line);
        else
                fprintf(stderr, "k42fs: %s\n", line);
        return G_LOG_WRITER_HANDLED;
}

void daemon_log_init(void)
{
        g_set_prgname("k42fs");
        g_log_set_writer_func(write_log, NULL, NULL);
}

void daemon_say(const char *format, ...)
{
        char text[1024];
        va_list args;

        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        for (char *p = text; *p; p++)
                if (g_ascii_iscntrl(*p))
                        *p = '?';
        if (to_syslog)
                syslog(LOG_WARNING, "%s", text);
        else
                dprintf(STDERR_FILENO, "k42fs: %s\n", text);
}

/* The parent's part: never returns. */
static void wait_for_child(pid_t child, int pipe_fd)
{
        unsigned char status = K42_EXIT_FAILED;
        ssize_t n;
        int wait_status;

        do
                n = read(pipe_fd, &status, 1);
        while (n < 0 && errno == EINTR);
        if (n != 1) {
                waitpid(child, &wait_status, 0);
                if (WIFSIGNALED(wait_status))
                        g_warning("the daemon was killed by signal %d while it started",
                                  WTERMSIG(wait_status));
                status = K42_EXIT_FAILED;
        }
        _exit(status);
}

struct daemon_start *daemon_fork(bool foreground)
{
        struct daemon_start *start = g_new0(struct daemon_start, 1);
        int fds[2];
        pid_t child;

        start->pipe_fd = -1;
        if (foreground)
                return start;
        if (pipe2(fds, O_CLOEXEC) < 0 || (child = fork()) < 0) {
                g_warning("cannot go into the background: %s", g_strerror(errno));
                exit(K42_EXIT_FAILED);
        }
        if (child > 0) {
                close(fds[1]);
                wait_for_child(child, fds[0]);
        }
        close(fds[0]);
        setsid();
        start->pipe_fd = fds[1];
        return start;
}

static void tell_parent(struct daemon_start *start, int status)
{
        const unsigned char byte = (unsigned char)status;

        if (start->pipe_fd >= 0) {
                if (write(start->pipe_fd, &byte, 1) != 1)
                        g_info("nobody waits for the daemon to start");
                close(start->pipe_fd);
        }
        g_free(start);
}

void daemon_detach(void)
{
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        openlog("k42fs", LOG_PID | LOG_NDELAY, LOG_DAEMON);
        to_syslog = true;
        if (null < 0)
                return;
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        if (null > STDERR_FILENO)
                close(null);
}

void daemon_started(struct daemon_start *start)
{
        if (start->pipe_fd >= 0)
                daemon_detach();
        tell_parent(start, K42_EXIT_OK);
}

void daemon_failed(struct daemon_start *start, int status)
{
        tell_parent(start, status);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Running programs from the mount: scripts, binaries, what is busy meanwhile, and setuid.
 */
#include "parity.h"

#include <sys/mman.h>
#include <sys/xattr.h>

/* Copies this very program. */
static void copy_self(struct run *r, const char *to, mode_t mode)
{
        static char buffer[65536];
        int in = SET(r, open(r->self, O_RDONLY | O_CLOEXEC));
        int out = SET(r, open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
        ssize_t n;

        while ((n = read(in, buffer, sizeof buffer)) > 0)
                SET(r, write(out, buffer, (size_t)n));
        close(in);
        close(out);
        SET(r, chmod(to, mode));
}

struct job {
        const char *path;
        char *const *argv;
        int fd; /* >= 0: fexecve of it */
        int out;
};

static void exec_it(struct run *r, void *data)
{
        struct job *job = data;
        char *const environment[] = {(char *)"PATH=/usr/bin:/bin", NULL};

        if (job->out >= 0)
                dup2(job->out, STDOUT_FILENO);
        dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
        if (job->fd >= 0)
                fexecve(job->fd, job->argv, environment);
        else
                execve(job->path, job->argv, environment);
        _exit(100 + errno);
}

/* Runs it, and adds its status and output to a step; 100 + errno where execve failed. */
static void run_it(struct run *r, const char *path, int fd, bool other, const char *name)
{
        char *const argv[] = {(char *)"program", (char *)"--helper", (char *)"ids", NULL};
        char text[200];
        int ends[2], status;
        ssize_t n;
        struct job job = {path, argv, fd, -1};

        SET(r, pipe2(ends, O_CLOEXEC));
        job.out = ends[1];
        status = other ? as_other(r, exec_it, &job) : in_child(r, exec_it, &job);
        close(ends[1]);
        step(r, "%s%s", name, other ? ", by another" : "");
        rec_status(r, status);
        n = read(ends[0], text, sizeof text - 1);
        text[n > 0 ? n : 0] = '\0';
        rec(r, "'%s'", text);
        close(ends[0]);
}

static void scripts(struct run *r)
{
        static const char *const texts[] = {"#!/bin/sh\necho \"$# $0\" | sed 's|.*/||'\nexit 7\n",
                                            "#!/bin/sh -e\nfalse\necho no\n",
                                            "exit 3\n",
                                            "#!/no/such/interpreter\n",
                                            "#!\n",
                                            "",
                                            "#! /bin/cat\nmyself\n"};
        char name[20];
        size_t i;
        int fd;

        for (i = 0; i < N_ELEMENTS(texts); i++) {
                snprintf(name, sizeof name, "script%zu", i);
                put(r, name, texts[i]);
                run_it(r, name, -1, false, "a script without x");
                SET(r, chmod(name, 0755));
                run_it(r, name, -1, false, "a script");
                fd = SET(r, open(name, O_RDONLY));
                run_it(r, name, fd, false, "a script by fexecve");
                close(fd);
        }
}

static void be_busy(struct run *r, const char *path)
{
        int there[2], back[2], fd, status;
        char c;
        pid_t pid;

        SET(r, pipe2(there, O_CLOEXEC));
        SET(r, pipe2(back, O_CLOEXEC));
        flush_step(r);
        pid = fork();
        if (pid == 0) {
                dup2(there[0], STDIN_FILENO);
                dup2(back[1], STDOUT_FILENO);
                execl(path, path, "--helper", "wait", NULL);
                _exit(1);
        }
        close(there[0]);
        close(back[1]);
        SET(r, read(back[0], &c, 1));
        fd = FD(r, open(path, O_WRONLY | O_CLOEXEC), "O_WRONLY of a running program");
        close(fd);
        fd = FD(r, open(path, O_RDWR | O_CLOEXEC), "O_RDWR of a running program");
        close(fd);
        fd = FD(r, open(path, O_WRONLY | O_TRUNC | O_CLOEXEC), "O_TRUNC of a running program");
        close(fd);
        SAY(r, truncate(path, 10), "truncate of a running program");
        fd = FD(r, open(path, O_RDONLY | O_CLOEXEC), "O_RDONLY of a running program");
        close(fd);
        SAY(r, rename(path, "moved"), "rename of a running program");
        SAY(r, unlink("moved"), "unlink of a running program");
        close(there[1]);
        waitpid(pid, &status, 0);
        step(r, "the running program's end");
        rec_status(r, status);
        close(back[0]);
}

void group_exec(struct run *r)
{
        int fd;

        scripts(r);
        copy_self(r, "program", 0755);
        run_it(r, "program", -1, false, "a binary");
        run_it(r, "program", -1, true, "a binary");
        fd = open("program", O_RDONLY | O_CLOEXEC);
        run_it(r, "program", fd, false, "a binary by fexecve");
        close(fd);
        fd = open("program", O_PATH | O_CLOEXEC);
        run_it(r, "program", fd, false, "a binary by fexecve of O_PATH");
        close(fd);
        fd = open("program", O_RDWR | O_CLOEXEC);
        run_it(r, "program", -1, false, "a binary open for writing");
        close(fd);
        run_it(r, "program", -1, false, "a binary closed again");
        SET(r, chmod("program", 0711));
        run_it(r, "program", -1, true, "a binary that may not be read");
        SET(r, chmod("program", 0644));
        run_it(r, "program", -1, false, "a binary without x");
        SET(r, chmod("program", 0010));
        run_it(r, "program", -1, false, "a binary with only the group's x");
        SET(r, chmod("program", 0755));
        SET(r, symlink("program", "link"));
        run_it(r, "link", -1, false, "a binary by a link");
        SET(r, mkdir("dir", 0755));
        run_it(r, "dir", -1, false, "a directory");
        run_it(r, "absent", -1, false, "nothing");
        run_it(r, "program/", -1, false, "a binary with a slash");
        SET(r, truncate("program", 1000));
        run_it(r, "program", -1, false, "a truncated binary");
        copy_self(r, "busy", 0755);
        be_busy(r, "busy");
}

void group_setuid_exec(struct run *r)
{
        static const mode_t modes[] = {04755, 02755, 06755, 04711, 02745};
        static const unsigned char capability[] = {1, 0, 0, 2, 0, 4, 0, 0, 0, 0,
                                                   0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
        size_t i;
        char name[64];

        copy_self(r, "program", 0755);
        for (i = 0; i < N_ELEMENTS(modes); i++) {
                if (r->root)
                        SET(r, chown("program", THIRD_ID, THIRD_ID));
                SET(r, chmod("program", modes[i]));
                snprintf(name, sizeof name, "%04o of a third", modes[i]);
                run_it(r, "program", -1, false, name);
                run_it(r, "program", -1, true, name);
                if (r->root)
                        SET(r, chown("program", 0, 0));
                SET(r, chmod("program", modes[i]));
                snprintf(name, sizeof name, "%04o of root", modes[i]);
                run_it(r, "program", -1, true, name);
        }
        SET(r, chmod("program", 0755));
        SAY(r, setxattr("program", "security.capability", capability, sizeof capability, 0),
            "file capabilities");
        run_it(r, "program", -1, true, "a binary with capabilities");
        SAY(r, getxattr("program", "security.capability", NULL, 0), "they are there");
        {
                int fd = SET(r, open("program", O_WRONLY | O_APPEND | O_CLOEXEC));

                SET(r, write(fd, "x", 1));
                close(fd);
        }
        SAY(r, getxattr("program", "security.capability", NULL, 0), "a write removes them");
        SET(r, setxattr("program", "user.k", "v", 1, 0));
        SAY(r, setxattr("program", "security.capability", capability, sizeof capability, 0),
            "file capabilities again");
        SAY(r, chown("program", r->root ? THIRD_ID : geteuid(), (gid_t)-1), "chown");
        SAY(r, getxattr("program", "security.capability", NULL, 0), "chown removes them");
        SAY(r, getxattr("program", "user.k", NULL, 0), "but not others");
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Locks of the three kinds, between descriptors and between processes, and leases.
 *
 * A rival process is asked step by step over a pair of pipes: it holds a lock while we look, and
 * the other way round.
 */
#include "parity.h"

#include <sys/file.h>

struct rival {
        pid_t pid;
        int to, from; /* a byte each way: "go on", "done" */
};

static void say(int fd)
{
        if (write(fd, "!", 1) != 1)
                _exit(96);
}

static void hear(int fd)
{
        char c;

        if (read(fd, &c, 1) != 1)
                _exit(95);
}

struct rival_job {
        int in, out;
        void (*hold)(struct run *r);
};

/* The rival: takes something, says so, and keeps it until it is told to end. */
static void be_rival(struct run *r, void *data)
{
        struct rival_job *job = data;

        job->hold(r);
        flush_step(r);
        say(job->out);
        hear(job->in);
}

static struct rival rival_start(struct run *r, void (*hold)(struct run *r))
{
        int there[2], back[2];
        struct rival_job job;
        struct rival rival;

        if (pipe2(there, O_CLOEXEC) < 0 || pipe2(back, O_CLOEXEC) < 0)
                abort();
        job = (struct rival_job){there[0], back[1], hold};
        rival = (struct rival){beside(r, be_rival, &job), there[1], back[0]};
        close(there[0]);
        close(back[1]);
        hear(rival.from);
        return rival;
}

static void rival_end(struct rival *rival)
{
        int status;

        say(rival->to);
        waitpid(rival->pid, &status, 0);
        close(rival->to);
        close(rival->from);
}

static void kill_rival(struct rival *rival)
{
        int status;

        kill(rival->pid, SIGKILL);
        waitpid(rival->pid, &status, 0);
        close(rival->to);
        close(rival->from);
}

static void hold_flock(struct run *r)
{
        int fd = SET(r, open("file", O_RDWR | O_CLOEXEC));

        SAY(r, flock(fd, LOCK_EX | LOCK_NB), "the rival's flock");
}

static void unlock_inherited(struct run *r, void *data)
{
        SAY(r, flock(*(int *)data, LOCK_UN), "a child unlocks what it inherited");
}

void group_flock(struct run *r)
{
        struct rival rival;
        int one, two, ro, dir;

        put(r, "file", "x");
        one = SET(r, open("file", O_RDWR | O_CLOEXEC));
        two = SET(r, open("file", O_RDWR | O_CLOEXEC));
        ro = SET(r, open("file", O_RDONLY | O_CLOEXEC));
        dir = SET(r, open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        SAY(r, flock(one, LOCK_SH | LOCK_NB), "one shared");
        SAY(r, flock(two, LOCK_SH | LOCK_NB), "two shared");
        SAY(r, flock(two, LOCK_EX | LOCK_NB), "two exclusive, beside one");
        SAY(r, flock(one, LOCK_UN), "one unlocks");
        SAY(r, flock(two, LOCK_EX | LOCK_NB), "two exclusive");
        SAY(r, flock(ro, LOCK_SH | LOCK_NB), "the read-only one shared");
        SAY(r, flock(two, LOCK_SH | LOCK_NB), "two down to shared");
        SAY(r, flock(ro, LOCK_EX | LOCK_NB), "the read-only one exclusive");
        SAY(r, flock(two, LOCK_UN), "two unlocks");
        SAY(r, flock(ro, LOCK_EX | LOCK_NB), "the read-only one exclusive now");
        SAY(r, flock(one, LOCK_SH | LOCK_NB), "one shared beside it");
        SAY(r, close(ro), "close of the locked");
        SAY(r, flock(one, LOCK_EX | LOCK_NB), "one exclusive after the close");
        in_child(r, unlock_inherited, &one);
        SAY(r, flock(two, LOCK_EX | LOCK_NB), "two exclusive after the child");
        SAY(r, flock(two, LOCK_UN), "two unlocks again");
        SAY(r, flock(dir, LOCK_EX | LOCK_NB), "of a directory");
        SAY(r, flock(one, 77), "of a bad kind");
        SAY(r, flock(99, LOCK_EX), "of nothing");
        rival = rival_start(r, hold_flock);
        SAY(r, flock(one, LOCK_EX | LOCK_NB), "beside the rival");
        rival_end(&rival);
        SAY(r, flock(one, LOCK_EX), "after the rival's end");
        flock(one, LOCK_UN);
        rival = rival_start(r, hold_flock);
        kill_rival(&rival);
        SAY(r, flock(one, LOCK_EX), "after the rival's death");
        SET(r, unlink("file"));
        SAY(r, flock(two, LOCK_EX | LOCK_NB), "two, unlinked, beside one");
}

static int posix_lock(int fd, int command, short type, off_t start, off_t n)
{
        struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = n};

        return fcntl(fd, command, &lock);
}

/* Who would be in the way of a lock: kind and range (not the pid, which must be right, though). */
static void who_holds(struct run *r, int fd, int command, short type, off_t start, off_t n,
                      pid_t holder, const char *name)
{
        struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = n};

        SAY(r, fcntl(fd, command, &lock), "%s", name);
        rec(r, "type %d start %lld len %lld holder %s", lock.l_type, (long long)lock.l_start,
            (long long)lock.l_len,
            lock.l_pid == holder ? "right"
            : lock.l_pid == -1   ? "-1"
            : lock.l_pid == 0    ? "0"
                                 : "wrong");
}

static void hold_posix(struct run *r)
{
        int fd = SET(r, open("file", O_RDWR | O_CLOEXEC));

        SAY(r, posix_lock(fd, F_SETLK, F_WRLCK, 10, 20), "the rival's write lock");
        SAY(r, posix_lock(fd, F_SETLK, F_RDLCK, 50, 10), "the rival's read lock");
}

static void hold_whole(struct run *r)
{
        int fd = SET(r, open("file", O_RDWR | O_CLOEXEC));

        SAY(r, posix_lock(fd, F_SETLK, F_WRLCK, 0, 0), "the rival's lock of all");
        /* closing any descriptor of the file drops it */
        close(open("file", O_RDONLY | O_CLOEXEC));
}

static void on_alarm(int sig)
{
}

static void lock_and_wait(struct run *r, void *data)
{
        struct sigaction action = {.sa_handler = on_alarm};
        int fd = SET(r, open("file", O_RDWR | O_CLOEXEC));

        sigaction(SIGALRM, &action, NULL);
        ualarm(100000, 0);
        SAY(r, posix_lock(fd, F_SETLKW, F_WRLCK, 10, 1), "waiting, interrupted");
        ualarm(100000, 0);
        SAY(r, flock(fd, LOCK_EX), "waiting for flock, interrupted");
}

static void child_keeps(struct run *r, void *data)
{
        int fd = *(int *)data;

        SAY(r, posix_lock(fd, F_SETLK, F_WRLCK, 500, 10), "a child does not inherit the lock");
}

void group_posix_locks(struct run *r)
{
        struct rival rival;
        int fd, ro, wo, dir, other;

        put_n(r, "file", 1000);
        fd = SET(r, open("file", O_RDWR | O_CLOEXEC));
        ro = SET(r, open("file", O_RDONLY | O_CLOEXEC));
        wo = SET(r, open("file", O_WRONLY | O_CLOEXEC));
        dir = SET(r, open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        SAY(r, posix_lock(ro, F_SETLK, F_WRLCK, 0, 1), "write lock of O_RDONLY");
        SAY(r, posix_lock(wo, F_SETLK, F_RDLCK, 0, 1), "read lock of O_WRONLY");
        SAY(r, posix_lock(ro, F_SETLK, F_RDLCK, 0, 1), "read lock of O_RDONLY");
        SAY(r, posix_lock(dir, F_SETLK, F_RDLCK, 0, 1), "read lock of a directory");
        SAY(r, posix_lock(fd, F_SETLK, F_WRLCK, -1, 1), "at -1");
        SAY(r, posix_lock(fd, F_SETLK, F_WRLCK, 10, -5), "of -5 bytes");
        SAY(r, posix_lock(fd, F_SETLK, 9, 0, 1), "of a bad kind");
        SAY(r, posix_lock(fd, F_SETLK, F_UNLCK, 0, 0), "unlock all");
        rival = rival_start(r, hold_posix);
        SAY(r, posix_lock(fd, F_SETLK, F_WRLCK, 15, 1), "in the rival's write lock");
        SAY(r, posix_lock(fd, F_SETLK, F_RDLCK, 15, 1), "read in the rival's write lock");
        SAY(r, posix_lock(fd, F_SETLK, F_RDLCK, 55, 1), "read in the rival's read lock");
        SAY(r, posix_lock(fd, F_SETLK, F_WRLCK, 55, 1), "write in the rival's read lock");
        SAY(r, posix_lock(fd, F_SETLK, F_WRLCK, 30, 20), "between them");
        SAY(r, posix_lock(fd, F_SETLK, F_WRLCK, 0, 0), "all");
        who_holds(r, fd, F_GETLK, F_WRLCK, 0, 0, rival.pid, "who holds any");
        who_holds(r, fd, F_GETLK, F_WRLCK, 52, 3, rival.pid, "who holds 52");
        who_holds(r, fd, F_GETLK, F_RDLCK, 52, 3, rival.pid, "who is in the way of a read lock");
        who_holds(r, fd, F_GETLK, F_WRLCK, 200, 3, rival.pid, "who holds 200");
        in_child(r, lock_and_wait, NULL);
        rival_end(&rival);
        SAY(r, posix_lock(fd, F_SETLKW, F_WRLCK, 0, 0), "all, after the rival's end");
        in_child(r, child_keeps, &fd);
        other = open("file", O_RDONLY | O_CLOEXEC);
        SAY(r, close(other), "close of another descriptor drops the locks");
        rival = rival_start(r, hold_whole);
        SAY(r, posix_lock(fd, F_SETLK, F_WRLCK, 0, 0), "after the rival dropped its own");
        rival_end(&rival);
        SAY(r, posix_lock(fd, F_SETLK, F_UNLCK, 0, 0), "unlock");
        rival = rival_start(r, hold_posix);
        kill_rival(&rival);
        SAY(r, posix_lock(fd, F_SETLKW, F_WRLCK, 0, 0), "after the rival's death");
        SAY(r, lockf(fd, F_TLOCK, 10), "lockf");
        SAY(r, lockf(fd, F_TEST, 10), "lockf test");
        SAY(r, lockf(fd, F_ULOCK, 10), "lockf unlock");
        SET(r, unlink("file"));
        SAY(r, posix_lock(fd, F_SETLK, F_WRLCK, 0, 10), "of an unlinked file");
}

static void hold_ofd(struct run *r)
{
        int fd = SET(r, open("file", O_RDWR | O_CLOEXEC));

        SAY(r, posix_lock(fd, F_OFD_SETLK, F_WRLCK, 10, 20), "the rival's OFD lock");
        close(open("file", O_RDONLY | O_CLOEXEC)); /* changes nothing */
}

void group_ofd_locks(struct run *r)
{
        struct rival rival;
        struct flock bad = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_pid = 7};
        int one, two, copy;

        put_n(r, "file", 1000);
        one = SET(r, open("file", O_RDWR | O_CLOEXEC));
        two = SET(r, open("file", O_RDWR | O_CLOEXEC));
        copy = SET(r, dup(one));
        SAY(r, posix_lock(one, F_OFD_SETLK, F_WRLCK, 0, 100), "one 0-100");
        SAY(r, posix_lock(two, F_OFD_SETLK, F_WRLCK, 50, 100), "two over it");
        SAY(r, posix_lock(two, F_OFD_SETLK, F_WRLCK, 100, 100), "two beside it");
        SAY(r, posix_lock(copy, F_OFD_SETLK, F_WRLCK, 50, 10), "the copy in it");
        SAY(r, posix_lock(one, F_SETLK, F_WRLCK, 50, 10), "a process lock in it");
        SAY(r, fcntl(one, F_OFD_SETLK, &bad), "with a pid");
        who_holds(r, two, F_OFD_GETLK, F_WRLCK, 0, 10, -1, "who holds it");
        SAY(r, close(copy), "close of the copy keeps it");
        SAY(r, posix_lock(two, F_OFD_SETLK, F_WRLCK, 0, 10), "two still");
        SAY(r, close(one), "close of the last");
        SAY(r, posix_lock(two, F_OFD_SETLK, F_WRLCK, 0, 10), "two now");
        SAY(r, posix_lock(two, F_OFD_SETLK, F_UNLCK, 0, 0), "two unlocks");
        rival = rival_start(r, hold_ofd);
        SAY(r, posix_lock(two, F_OFD_SETLK, F_WRLCK, 15, 1), "in the rival's");
        SAY(r, posix_lock(two, F_SETLK, F_WRLCK, 15, 1), "process lock in the rival's");
        who_holds(r, two, F_GETLK, F_WRLCK, 0, 0, rival.pid, "who holds the rival's");
        rival_end(&rival);
        SAY(r, posix_lock(two, F_OFD_SETLKW, F_WRLCK, 15, 1), "after the rival's end");
}

void group_lease(struct run *r)
{
        int fd, ro;

        put(r, "file", "x");
        signal(SIGIO, SIG_IGN);
        ro = SET(r, open("file", O_RDONLY | O_CLOEXEC));
        SAY(r, fcntl(ro, F_GETLEASE), "F_GETLEASE");
        SAY(r, fcntl(ro, F_SETLEASE, F_RDLCK), "F_SETLEASE F_RDLCK");
        SAY(r, fcntl(ro, F_GETLEASE), "F_GETLEASE after F_RDLCK");
        SAY(r, fcntl(ro, F_SETLEASE, F_UNLCK), "F_SETLEASE F_UNLCK");
        close(ro);
        fd = SET(r, open("file", O_RDWR | O_CLOEXEC));
        SAY(r, fcntl(fd, F_SETLEASE, F_RDLCK), "F_SETLEASE F_RDLCK of O_RDWR");
        SAY(r, fcntl(fd, F_SETLEASE, F_WRLCK), "F_SETLEASE F_WRLCK");
        SAY(r, fcntl(fd, F_GETLEASE), "F_GETLEASE after F_WRLCK");
        SAY(r, fcntl(fd, F_SETLEASE, 99), "F_SETLEASE unknown");
        ro = FD(r, open("file", O_RDONLY | O_NONBLOCK | O_CLOEXEC), "open beside the lease");
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What may be waited for: inotify of our own changes, poll and select, FIFOs, unix sockets, device
 * nodes.
 */
#include "parity.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

/* Drains the queue into the step under way. */
static void rec_events(struct run *r, int fd)
{
        static char buffer[65536] __attribute__((aligned(8)));
        ssize_t n, at;

        while ((n = read(fd, buffer, sizeof buffer)) > 0) {
                for (at = 0; at < n;) {
                        struct inotify_event *event = (void *)(buffer + at);

                        rec(r, "%x:%s%s", event->mask, event->len > 0 ? event->name : "",
                            event->cookie != 0 ? ":cookie" : "");
                        at += (ssize_t)(sizeof *event + event->len);
                }
        }
}

#define WATCHED(r, fd, call, ...)                                                                  \
        do {                                                                                       \
                SAY(r, call, __VA_ARGS__);                                                         \
                rec_events(r, fd);                                                                 \
        } while (0)

void group_inotify(struct run *r)
{
        int fd = SET(r, inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
        int file, watch;
        char buffer[16];
        char *map;

        SET(r, mkdir("dir", 0755));
        put(r, "dir/old", "content");
        SAY(r, inotify_add_watch(fd, "absent", IN_ALL_EVENTS), "watch of nothing");
        watch = FD(r, inotify_add_watch(fd, "dir", IN_ALL_EVENTS), "watch of a directory");
        FD(r, inotify_add_watch(fd, "dir/old", IN_ALL_EVENTS), "watch of a file");
        file = SET(r, open("dir/new", O_RDWR | O_CREAT | O_CLOEXEC, 0644));
        step(r, "create");
        rec_events(r, fd);
        WATCHED(r, fd, write(file, "0123456789", 10), "write");
        WATCHED(r, fd, pread(file, buffer, 5, 0), "pread");
        WATCHED(r, fd, ftruncate(file, 5), "ftruncate");
        WATCHED(r, fd, fchmod(file, 0600), "fchmod");
        WATCHED(r, fd, futimens(file, NULL), "futimens");
        WATCHED(r, fd, fallocate(file, 0, 0, 100), "fallocate");
        WATCHED(r, fd, fsync(file), "fsync");
        WATCHED(r, fd, close(file), "close of a written file");
        WATCHED(r, fd, close(open("dir/old", O_RDONLY | O_CLOEXEC)), "open and close");
        WATCHED(r, fd, truncate("dir/old", 3), "truncate");
        WATCHED(r, fd, link("dir/old", "dir/linked"), "link");
        WATCHED(r, fd, unlink("dir/linked"), "unlink of the link");
        WATCHED(r, fd, rename("dir/new", "dir/renamed"), "rename inside");
        WATCHED(r, fd, rename("dir/renamed", "outside"), "rename out");
        WATCHED(r, fd, rename("outside", "dir/inside"), "rename in");
        WATCHED(r, fd, rename("dir/inside", "dir/old"), "rename over the watched file");
        WATCHED(r, fd, mkdir("dir/sub", 0755), "mkdir");
        WATCHED(r, fd, rmdir("dir/sub"), "rmdir");
        WATCHED(r, fd, symlink("x", "dir/link"), "symlink");
        WATCHED(r, fd, mkfifo("dir/fifo", 0600), "mkfifo");
        WATCHED(r, fd, access("dir/old", R_OK), "access");
        WATCHED(r, fd, chmod("dir", 0700), "chmod of the directory");
        step(r, "list");
        rec_listing(r, "dir");
        rec_events(r, fd);
        file = SET(r, open("dir/old", O_RDWR | O_CLOEXEC));
        SET(r, ftruncate(file, 4096));
        rec_events(r, fd);
        map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        step(r, "a store to a mapping");
        if (map != MAP_FAILED) {
                map[0] = 'x';
                munmap(map, 4096);
        }
        rec_events(r, fd);
        WATCHED(r, fd, close(file), "close of the mapped");
        WATCHED(r, fd, inotify_rm_watch(fd, watch), "rm_watch");
        FD(r, inotify_add_watch(fd, "dir", IN_DELETE_SELF | IN_MOVE_SELF), "watch itself");
        WATCHED(r, fd, rename("dir", "dir2"), "move the watched");
        unlink("dir2/old");
        unlink("dir2/link");
        unlink("dir2/fifo");
        WATCHED(r, fd, rmdir("dir2"), "remove the watched");
}

void group_poll(struct run *r)
{
        static const int opens[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDONLY | O_NONBLOCK, O_PATH};
        struct timeval none = {0, 0};
        struct epoll_event event = {.events = EPOLLIN};
        size_t i;
        int dir, epoll;

        put(r, "file", "x");
        epoll = epoll_create1(EPOLL_CLOEXEC);
        for (i = 0; i < N_ELEMENTS(opens); i++) {
                int fd = SET(r, open("file", opens[i] | O_CLOEXEC));
                struct pollfd p = {fd, POLLIN | POLLOUT | POLLPRI | POLLRDHUP, 0};
                fd_set in, out, err;

                SAY(r, poll(&p, 1, 0), "poll %o", opens[i]);
                rec(r, "%x", p.revents);
                SAY(r, poll(&p, 1, 50), "poll, waiting %o", opens[i]);
                rec(r, "%x", p.revents);
                FD_ZERO(&in);
                FD_ZERO(&out);
                FD_ZERO(&err);
                FD_SET(fd, &in);
                FD_SET(fd, &out);
                FD_SET(fd, &err);
                SAY(r, select(fd + 1, &in, &out, &err, &none), "select %o", opens[i]);
                rec(r, "%d%d%d", FD_ISSET(fd, &in) != 0, FD_ISSET(fd, &out) != 0,
                    FD_ISSET(fd, &err) != 0);
                SAY(r, epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), "epoll %o", opens[i]);
                close(fd);
        }
        dir = SET(r, open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        {
                struct pollfd p = {dir, POLLIN | POLLOUT, 0};

                SAY(r, poll(&p, 1, 0), "poll of a directory");
                rec(r, "%x", p.revents);
                SAY(r, epoll_ctl(epoll, EPOLL_CTL_ADD, dir, &event), "epoll of a directory");
        }
}

static void write_to_fifo(struct run *r, void *data)
{
        int fd = open("fifo", O_WRONLY | O_CLOEXEC);
        int i;

        for (i = 0; i < 100; i++) {
                if (write(fd, "0123456789", 10) != 10)
                        _exit(1);
        }
}

void group_fifo(struct run *r)
{
        char buffer[2000];
        size_t n = 0;
        ssize_t got;
        int fd, wr, status;
        pid_t pid;
        struct pollfd p;

        SET(r, mkfifo("fifo", 0644));
        FD(r, open("fifo", O_WRONLY | O_NONBLOCK | O_CLOEXEC), "write without a reader");
        pid = beside(r, write_to_fifo, NULL);
        fd = FD(r, open("fifo", O_RDONLY | O_CLOEXEC), "read");
        while ((got = read(fd, buffer + n, sizeof buffer - n)) > 0)
                n += (size_t)got;
        waitpid(pid, &status, 0);
        step(r, "what another process wrote");
        rec_data(r, buffer, (ssize_t)n);
        rec_status(r, status);
        rec_lstat(r, "fifo");
        close(fd);
        fd = FD(r, open("fifo", O_RDONLY | O_NONBLOCK | O_CLOEXEC), "read without a writer");
        SAY(r, read(fd, buffer, 10), "read of it");
        wr = FD(r, open("fifo", O_WRONLY | O_NONBLOCK | O_CLOEXEC), "write with a reader");
        SAY(r, read(fd, buffer, 10), "read of the empty");
        SAY(r, write(wr, "abc", 3), "write");
        p = (struct pollfd){fd, POLLIN, 0};
        SAY(r, poll(&p, 1, 0), "poll");
        rec(r, "%x", p.revents);
        SAY(r, unlink("fifo"), "unlink while open");
        rec_data(r, buffer, SAY(r, read(fd, buffer, 10), "read after unlink"));
        SAY(r, lseek(fd, 0, SEEK_SET), "lseek");
        SAY(r, ftruncate(wr, 0), "ftruncate");
        SAY(r, fsync(wr), "fsync");
        SAY(r, fcntl(fd, F_GETPIPE_SZ), "F_GETPIPE_SZ");
        close(fd);
        SAY(r, write(wr, "abc", 3), "write after the reader's end");
}

static void connect_and_say(struct run *r, void *data)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
                _exit(errno);
        if (write(fd, "hello", 5) != 5)
                _exit(1);
}

void group_unix_socket(struct run *r)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
        struct sockaddr_un other = {.sun_family = AF_UNIX, .sun_path = "file"};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int second = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int in, status;
        char buffer[10];
        pid_t pid;

        put(r, "file", "x");
        SAY(r, bind(fd, (struct sockaddr *)&address, sizeof address), "bind");
        rec_lstat(r, "socket");
        SAY(r, bind(second, (struct sockaddr *)&address, sizeof address), "bind again");
        SAY(r, connect(second, (struct sockaddr *)&address, sizeof address),
            "connect before listen");
        SAY(r, connect(second, (struct sockaddr *)&other, sizeof other), "connect to a file");
        SAY(r, listen(fd, 5), "listen");
        pid = beside(r, connect_and_say, NULL);
        in = FD(r, accept(fd, NULL, NULL), "accept");
        rec_data(r, buffer, SAY(r, read(in, buffer, sizeof buffer), "read"));
        waitpid(pid, &status, 0);
        rec_status(r, status);
        FD(r, open("socket", O_RDWR | O_CLOEXEC), "open of a socket");
        FD(r, open("socket", O_PATH | O_CLOEXEC), "O_PATH of a socket");
        SET(r, chmod("socket", 0));
        STATUS(r, as_other(r, connect_and_say, NULL),
               "an ordinary user connects to a socket of mode 0");
        SET(r, chmod("socket", 0777));
        SET(r, rename("socket", "moved"));
        SAY(r, connect(second, (struct sockaddr *)&address, sizeof address),
            "connect to the old name");
        strcpy(address.sun_path, "moved");
        SAY(r, connect(second, (struct sockaddr *)&address, sizeof address),
            "connect to the new name");
        SAY(r, unlink("moved"), "unlink");
        close(fd);
}

void group_device(struct run *r)
{
        char buffer[8] = "";
        int fd;

        SAY(r, mknod("null", S_IFCHR | 0666, makedev(1, 3)), "mknod null");
        SAY(r, mknod("zero", S_IFCHR | 0666, makedev(1, 5)), "mknod zero");
        SAY(r, mknod("none", S_IFCHR | 0666, makedev(240, 77)), "mknod of no driver");
        SAY(r, mknod("block", S_IFBLK | 0666, makedev(240, 77)), "mknod of no block driver");
        fd = FD(r, open("null", O_RDWR | O_CLOEXEC), "open null");
        SAY(r, write(fd, "x", 1), "write to null");
        SAY(r, read(fd, buffer, 1), "read of null");
        fd = FD(r, open("zero", O_RDONLY | O_CLOEXEC), "open zero");
        rec_data(r, buffer, SAY(r, read(fd, buffer, 4), "read of zero"));
        FD(r, open("none", O_RDWR | O_CLOEXEC), "open of no driver");
        FD(r, open("block", O_RDWR | O_CLOEXEC), "open of no block driver");
        FD(r, open("null", O_PATH | O_CLOEXEC), "O_PATH of null");
        rec_lstat(r, "null");
        rec_lstat(r, "zero");
}

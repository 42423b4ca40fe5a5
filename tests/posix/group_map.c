/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mmap beside read and write, and what syncs.
 */
#include "parity.h"

#include <sys/mman.h>

static void map_matrix(struct run *r)
{
        static const int opens[] = {O_RDONLY, O_WRONLY, O_RDWR, O_PATH};
        static const int prots[] = {PROT_NONE,
                                    PROT_READ,
                                    PROT_WRITE,
                                    PROT_READ | PROT_WRITE,
                                    PROT_READ | PROT_EXEC,
                                    PROT_READ | PROT_WRITE | PROT_EXEC};
        static const int flags[] = {MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE, 0,
                                    MAP_SHARED_VALIDATE | MAP_SYNC};
        size_t i, j, k;

        for (i = 0; i < N_ELEMENTS(opens); i++) {
                int fd = SET(r, open("file", opens[i] | O_CLOEXEC));

                for (j = 0; j < N_ELEMENTS(prots); j++) {
                        for (k = 0; k < N_ELEMENTS(flags); k++) {
                                void *map;

                                step(r, "mmap open %o prot %x flags %x", opens[i], prots[j],
                                     flags[k]);
                                map = mmap(NULL, 4096, prots[j], flags[k], fd, 0);
                                rec(r, "%s", map == MAP_FAILED ? strerrorname_np(errno) : "mapped");
                                if (map == MAP_FAILED)
                                        continue;
                                rec(r, "mprotect %d", mprotect(map, 4096, PROT_READ | PROT_WRITE));
                                munmap(map, 4096);
                        }
                }
                close(fd);
        }
}

static void touch_byte(struct run *r, void *data)
{
        volatile char *p = data;

        step(r, "a touch that survives");
        rec(r, "%d", *p);
}

static void map_and_truncate(struct run *r)
{
        int fd = SET(r, open("cut", O_RDWR | O_CREAT | O_CLOEXEC, 0644));
        char *map;
        int status;

        SET(r, ftruncate(fd, 10000));
        map = mmap(NULL, 12288, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED) {
                set_failed(r, "mmap", __LINE__);
                return;
        }
        memset(map, 'm', 10000);
        step(r, "stores are seen by read");
        rec_file(r, "cut");
        map[11000] = 'x'; /* behind the end, on the last page */
        step(r, "stores behind the end are not");
        rec_fstat(r, fd);
        rec_file(r, "cut");
        SAY(r, pwrite(fd, "written", 7, 100), "write below the map");
        rec_data(r, map + 98, 11);
        SAY(r, ftruncate(fd, 4000), "cut");
        rec_data(r, map + 3990, 20);
        status = in_child(r, touch_byte, map + 5000);
        step(r, "touch behind the cut");
        rec_status(r, status);
        SAY(r, ftruncate(fd, 10000), "grow again");
        rec_data(r, map + 3990, 20);
        status = in_child(r, touch_byte, map + 5000);
        step(r, "touch after growing");
        rec_status(r, status);
        SAY(r, unlink("cut"), "unlink below the map");
        map[5000] = 'u';
        SAY(r, close(fd), "close below the map");
        rec_data(r, map + 4995, 10);
        SAY(r, munmap(map, 12288), "munmap");
}

static void map_and_times(struct run *r)
{
        int fd = SET(r, open("timed", O_RDWR | O_CREAT | O_CLOEXEC, 0644));
        struct remembered t;
        char *map;

        SET(r, ftruncate(fd, 8192));
        map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED)
                return;
        t = remember("timed");
        map[5] = 'x';
        SAY(r, msync(map, 8192, MS_SYNC), "times after a store and msync");
        rec_changes(r, &t, "timed");
        t = remember("timed");
        map[4096] = 'y';
        munmap(map, 8192);
        SAY(r, fsync(fd), "times after a store, munmap and fsync");
        rec_changes(r, &t, "timed");
        close(fd);
        SET(r, chmod("timed", 0400));
}

void group_mmap(struct run *r)
{
        char *shared, *private, *other;
        int fd, again, dir;

        put_n(r, "file", 9000);
        map_matrix(r);
        fd = open("file", O_RDWR | O_CLOEXEC);
        again = open("file", O_RDWR | O_CLOEXEC);
        dir = open(".", O_RDONLY | O_CLOEXEC);
        step(r, "mmap of a directory");
        rec(r, "%s",
            mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, dir, 0) == MAP_FAILED ? strerrorname_np(errno)
                                                                           : "mapped");
        step(r, "mmap at an odd offset");
        rec(r, "%s",
            mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 100) == MAP_FAILED ? strerrorname_np(errno)
                                                                            : "mapped");
        shared = mmap(NULL, 9000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        private = mmap(NULL, 9000, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
        other = mmap(NULL, 4096, PROT_READ, MAP_SHARED, again, 4096);
        step(r, "the three maps");
        if (shared == MAP_FAILED || private == MAP_FAILED || other == MAP_FAILED) {
                rec(r, "failed");
                return;
        }
        rec_data(r, shared, 9000);
        rec_data(r, other, 4096);
        memcpy(private + 10, "private", 7);
        step(r, "private stores");
        rec_file(r, "file");
        rec_data(r, shared, 9000);
        memcpy(shared + 4100, "shared", 6);
        step(r, "shared stores");
        rec_file(r, "file");
        rec_data(r, other, 20);
        SAY(r, msync(shared, 9000, MS_SYNC), "msync");
        SAY(r, msync(shared, 9000, MS_ASYNC), "msync async");
        SAY(r, msync(shared, 9000, MS_INVALIDATE), "msync invalidate");
        SAY(r, msync(shared, 9000, MS_SYNC | MS_ASYNC), "msync both");
        SAY(r, madvise(shared, 4096, MADV_DONTNEED), "madvise DONTNEED");
        rec_data(r, shared, 9000);
        SAY(r, madvise(shared, 4096, MADV_REMOVE), "madvise REMOVE");
        rec_file(r, "file");
        SAY(r, pwrite(again, "PWRITE", 6, 4096), "pwrite by another descriptor");
        rec_data(r, shared + 4090, 20);
        map_and_truncate(r);
        map_and_times(r);
}

void group_sync(struct run *r)
{
        static const struct {
                const char *name;
                int flags;
        } opens[] = {{"file", O_RDONLY},
                     {"file", O_WRONLY},
                     {"file", O_RDWR | O_APPEND},
                     {".", O_RDONLY | O_DIRECTORY},
                     {"file", O_PATH},
                     {"fifo", O_RDWR | O_NONBLOCK}};
        size_t i;

        put_n(r, "file", 5000);
        SET(r, mkfifo("fifo", 0644));
        for (i = 0; i < N_ELEMENTS(opens); i++) {
                int fd = SET(r, open(opens[i].name, opens[i].flags | O_CLOEXEC));

                SAY(r, fsync(fd), "fsync %s %o", opens[i].name, opens[i].flags);
                SAY(r, fdatasync(fd), "fdatasync %s %o", opens[i].name, opens[i].flags);
                SAY(r, syncfs(fd), "syncfs %s %o", opens[i].name, opens[i].flags);
                SAY(r, sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE), "sync_file_range %s %o",
                    opens[i].name, opens[i].flags);
                SAY(r, sync_file_range(fd, -1, 0, SYNC_FILE_RANGE_WRITE),
                    "sync_file_range at -1 %s %o", opens[i].name, opens[i].flags);
                SAY(r, sync_file_range(fd, 0, 0, 1u << 10), "sync_file_range unknown %s %o",
                    opens[i].name, opens[i].flags);
                close(fd);
        }
        SAY(r, fsync(99), "fsync of nothing");
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * random_io [--seed=N] [--seconds=N] [--ops=N] [--source=PATH] [--spoil=N] [--sync-maps]
 *           [--verbose] FILE
 *
 * Random operations on one file, through up to three descriptors of different kinds at once, and
 * the same on a model in memory.  Every result, every byte that is read, the size after every
 * operation and the modification time are compared.  Now and then, and at the end, everything is
 * compared: through a fresh descriptor or mapping, and, after fsync and msync, with what PATH
 * shows, which is the same file in the directory behind the mount.  FILE is made, and removed at
 * the end when all was right.
 *
 * The operations follow from the seed, which is printed: --seed=N --ops=M does the first M of them
 * again.
 * --sync-maps lets SEEK_DATA and SEEK_HOLE follow msync: where mappings are kept in pages of FUSE,
 * the kernel asks the daemon for holes without writing back first what was stored.
 * --spoil=N writes a wrong bit with every write from operation N on; that has to be found.
 *
 * What is not done, because it is a documented limit: F_SETFL, COLLAPSE_RANGE, INSERT_RANGE,
 * O_DIRECT with odd alignment.
 */
#include "random_io.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Size and times, on a descriptor or by name. */
static void check_stat(const struct timespec *before)
{
        Handle *h = some_handle(0, 0);
        bool by_fd = h && below(2);
        struct timespec after;
        struct stat st;

        expect("stat", by_fd ? fstat(h->fd, &st) : stat(t.file, &st), 0);
        clock_gettime(CLOCK_REALTIME, &after);
        if (st.st_size != (off_t)t.size)
                wrong("%s says size %#llx, not %#zx", by_fd ? "fstat" : "stat",
                      (long long)st.st_size, t.size);
        if (t.changed && compare_times(&st.st_mtim, before) < 0)
                wrong("the modification time is %lld.%09ld, before the change at %lld.%09ld",
                      (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (long long)before->tv_sec,
                      before->tv_nsec);
        if (compare_times(&st.st_mtim, &t.mtime) < 0)
                wrong("the modification time went back from %lld.%09ld to %lld.%09ld",
                      (long long)t.mtime.tv_sec, t.mtime.tv_nsec, (long long)st.st_mtim.tv_sec,
                      st.st_mtim.tv_nsec);
        if (compare_times(&st.st_mtim, &after) > 0)
                wrong("the modification time is in the future");
        t.mtime = st.st_mtim;
}

static void one_operation(void)
{
        struct timespec before;
        uint64_t total = 0, pick;
        size_t i;

        for (i = 0; i < n_ops; i++)
                total += ops[i].weight;
        do {
                t.changed = false;
                pick = below(total);
                for (i = 0; pick >= ops[i].weight; i++)
                        pick -= ops[i].weight;
                clock_gettime(CLOCK_REALTIME_COARSE, &before);
        } while (!ops[i].run());
        t.counts[i]++;
        check_stat(&before);
}

/* What the file system behind can do, the mount has to. */
static void probe(void)
{
        int fd = open(t.source, O_RDWR | O_CLOEXEC), direct;

        if (fd < 0)
                die("%s: open: %m", t.source);
        for (size_t i = 0; i < N_MODES; i++) {
                t.has_mode[i] = fallocate(fd, modes[i], 0, BLOCK) == 0;
                if (!t.has_mode[i])
                        printf("SKIP fallocate mode %#x: not on this file system\n",
                               (unsigned)modes[i]);
        }
        if (ftruncate(fd, 0) < 0)
                die("%s: ftruncate: %m", t.source);
        close(fd);
        direct = open(t.source, O_RDWR | O_DIRECT | O_CLOEXEC);
        t.direct = direct >= 0;
        if (!t.direct)
                printf("SKIP O_DIRECT: not on this file system\n");
        else
                close(direct);
}

static void parse(int argc, char **argv)
{
        const char *v;

        t.seed = (uint64_t)time(NULL) * 1000 + (uint64_t)getpid();
        if ((v = getenv("K42_SEED")))
                t.seed = strtoull(v, NULL, 10);
        for (int i = 1; i < argc; i++) {
                if ((v = option_value(argv[i], "--seed")))
                        t.seed = strtoull(v, NULL, 10);
                else if ((v = option_value(argv[i], "--seconds")))
                        t.seconds = strtod(v, NULL);
                else if ((v = option_value(argv[i], "--ops")))
                        t.max_ops = strtoull(v, NULL, 10);
                else if ((v = option_value(argv[i], "--spoil")))
                        t.spoil = strtoull(v, NULL, 10);
                else if ((v = option_value(argv[i], "--source")))
                        t.source = v;
                else if (strcmp(argv[i], "--sync-maps") == 0)
                        t.sync_maps = true;
                else if (strcmp(argv[i], "--verbose") == 0)
                        t.verbose = true;
                else if (!t.file && *argv[i] != '-')
                        t.file = argv[i];
                else
                        die("what is %s?", argv[i]);
        }
        if (!t.file || (!t.seconds && !t.max_ops))
                die("a file, and --seconds=N or --ops=N");
        if (!t.source)
                t.source = t.file;
}

int main(int argc, char **argv)
{
        double end;
        int fd;

        parse(argc, argv);
        t.rng.state = t.seed;
        printf("seed %llu\n", (unsigned long long)t.seed);
        fflush(stdout);
        t.model = calloc(1, MAX_SIZE);
        t.scratch = memfd_create("random_io", MFD_CLOEXEC);
        if (!t.model || t.scratch < 0 || posix_memalign((void **)&t.buf, BLOCK, MAX_SIZE + BLOCK))
                die("no memory");
        fd = open(t.file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
                die("%s: create: %m", t.file);
        close(fd);
        probe();
        for (int i = 0; i < N_HANDLES; i++)
                t.h[i].fd = -1;
        end = t.seconds ? now() + t.seconds : 0;
        for (; (!t.max_ops || t.op < t.max_ops) && (!end || now() < end); t.op++)
                one_operation();
        note("the end");
        for (int i = 0; i < N_HANDLES; i++)
                if (t.h[i].fd >= 0)
                        let_go(&t.h[i]);
        fd = open(t.file, O_RDWR | O_CLOEXEC);
        if (fd < 0 || fsync(fd) < 0 || close(fd) < 0)
                wrong("fsync at the end: %m");
        compare_all(t.file, "everything at the end", false);
        compare_all(t.source, "the file behind at the end", false);
        if (unlink(t.file) < 0)
                wrong("unlink: %m");
        for (size_t i = 0; i < n_ops; i++)
                printf("%s %llu%s", ops[i].name, (unsigned long long)t.counts[i],
                       i + 1 < n_ops ? ", " : "\n");
        printf("%llu operations\n", (unsigned long long)t.op);
        return 0;
}

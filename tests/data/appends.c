/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * appends [--seconds=N] [--writers=N] [--outside=N --source=PATH] [--truncate] [--words=N]
 * [--spoil] FILE
 *
 * Writers append records of a fixed size with O_APPEND to one file, `outside` of them through PATH,
 * the same file behind the mount.  With --truncate, another process cuts the file to a number of
 * records all the time, through FILE.  In the end the file has to be a number of whole records;
 * each writer's must be in the order in which they were written, and without --truncate none may be
 * missing.
 *
 * Some writers keep their descriptor, some open again for every few records, some write several
 * records with one writev.  The processes share nothing but the file and `t.shared`: how many each
 * has written.
 *
 * --words: of 8 bytes, in a record; 25 if it is not given, so that records lie across the
 * boundaries of pages, and 16 is a size that never does.
 *
 * --spoil: each writer writes one of his records at offset 0 instead of appending it.
 */
#include "data.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
        MAX_WORDS = 64,
        MAX_WRITERS = 16,
        MAX_AT_ONCE = 4,
        MAX_RECORDS = 60000, /* of each writer, where nobody cuts */
};

static struct {
        const char *file, *source;
        double seconds, end;
        unsigned writers, outside, words;
        size_t record; /* bytes */
        bool truncate, spoil;
        struct {
                _Atomic uint64_t written[MAX_WRITERS], cuts;
        } * shared;
} t;

static uint64_t word_of(unsigned writer, uint64_t number, unsigned place)
{
        return (uint64_t)(0x40 + writer) << 56 | number << 8 | place;
}

static void append_all(unsigned me)
{
        const char *path = me < t.outside ? t.source : t.file;
        uint64_t records[MAX_AT_ONCE][MAX_WORDS], number = 0;
        struct iovec iov[MAX_AT_ONCE];
        Rng rng = {me + 1};
        int fd = -1;

        while (now() < t.end && (t.truncate || number + MAX_AT_ONCE < MAX_RECORDS)) {
                unsigned n = me % 2 ? 1 : 1 + (unsigned)rng_below(&rng, MAX_AT_ONCE);

                if (fd < 0 && (fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC)) < 0)
                        die("writer %u: open: %m", me);
                for (unsigned r = 0; r < n; r++, number++) {
                        for (unsigned i = 0; i < t.words; i++)
                                records[r][i] = word_of(me, number, i);
                        iov[r] = (struct iovec){records[r], t.record};
                }
                if (t.spoil && number > 100) {
                        int other = open(path, O_WRONLY | O_CLOEXEC);

                        if (pwritev(other, iov, (int)n, 0) != (ssize_t)(n * t.record))
                                die("writer %u: spoil: %m", me);
                        close(other);
                        t.spoil = false;
                } else if (writev(fd, iov, (int)n) != (ssize_t)(n * t.record)) {
                        die("writer %u: append: %m", me);
                }
                if (me % 3 == 2 && rng_one_in(&rng, 4)) {
                        close(fd);
                        fd = -1;
                }
        }
        t.shared->written[me] = number;
}

/* Only this process makes the file shorter: the size that it sees is never more than the true one,
 * so that it cannot make it longer. */
static void cut_all(void)
{
        int fd = open(t.file, O_RDWR | O_CLOEXEC);
        Rng rng = {4711};
        struct stat st;

        if (fd < 0)
                die("cutter: open: %m");
        while (now() < t.end - 0.02) {
                off_t size;
                int bad;

                if ((rng_below(&rng, 2) ? fstat(fd, &st) : stat(t.file, &st)) < 0)
                        die("cutter: fstat: %m");
                size = (off_t)rng_below(&rng, (uint64_t)st.st_size / t.record + 1) *
                       (off_t)t.record;
                if (rng_one_in(&rng, 4))
                        bad = truncate(t.file, size);
                else if (rng_one_in(&rng, 20))
                        bad = close(open(t.file, O_WRONLY | O_TRUNC | O_CLOEXEC));
                else
                        bad = ftruncate(fd, size);
                if (bad)
                        die("cutter: truncate: %m");
                t.shared->cuts++;
                usleep((useconds_t)rng_below(&rng, 2000));
        }
}

/* Reads it all through `path` and compares; the number of records. */
static uint64_t check(const char *path)
{
        uint64_t next[MAX_WRITERS] = {0}, word[MAX_WORDS], records = 0;
        FILE *in = fopen(path, "re");
        size_t n;

        if (!in)
                die("%s: open at the end: %m", path);
        for (; (n = fread(word, 1, t.record, in)) == t.record; records++) {
                unsigned writer = (unsigned)(word[0] >> 56) - 0x40;
                uint64_t number = word[0] >> 8 & 0xffffffffff;

                if (writer >= t.writers)
                        die("%s: record %llu begins with %#llx", path, (unsigned long long)records,
                            (unsigned long long)word[0]);
                for (unsigned i = 0; i < t.words; i++)
                        if (word[i] != word_of(writer, number, i))
                                die("%s: record %llu is torn: word %u is %#llx", path,
                                    (unsigned long long)records, i, (unsigned long long)word[i]);
                if (number < next[writer] || (number > next[writer] && !t.truncate))
                        die("%s: record %llu of writer %u comes where %llu should be", path,
                            (unsigned long long)number, writer, (unsigned long long)next[writer]);
                next[writer] = number + 1;
        }
        if (n)
                die("%s: %zu bytes are left over", path, n);
        fclose(in);
        for (unsigned i = 0; i < t.writers && !t.truncate; i++)
                if (next[i] != t.shared->written[i])
                        die("%s: writer %u has written %llu records, and %llu are there", path, i,
                            (unsigned long long)t.shared->written[i], (unsigned long long)next[i]);
        return records;
}

static void parse(int argc, char **argv)
{
        const char *v;

        t.seconds = 2;
        t.writers = 4;
        t.words = 25;
        for (int i = 1; i < argc; i++) {
                if ((v = option_value(argv[i], "--seconds")))
                        t.seconds = strtod(v, NULL);
                else if ((v = option_value(argv[i], "--writers")))
                        t.writers = (unsigned)atoi(v);
                else if ((v = option_value(argv[i], "--words")))
                        t.words = (unsigned)atoi(v);
                else if ((v = option_value(argv[i], "--outside")))
                        t.outside = (unsigned)atoi(v);
                else if ((v = option_value(argv[i], "--source")))
                        t.source = v;
                else if (strcmp(argv[i], "--truncate") == 0)
                        t.truncate = true;
                else if (strcmp(argv[i], "--spoil") == 0)
                        t.spoil = true;
                else if (!t.file && *argv[i] != '-')
                        t.file = argv[i];
                else
                        die("what is %s?", argv[i]);
        }
        if (!t.file || !t.writers || t.writers > MAX_WRITERS || t.outside > t.writers ||
            (t.outside && !t.source) || !t.words || t.words > MAX_WORDS)
                die("a file, and 1 to %d writers", MAX_WRITERS);
        t.record = t.words * 8;
}

int main(int argc, char **argv)
{
        uint64_t written = 0, records;
        pid_t pids[MAX_WRITERS + 1];
        unsigned n = 0;
        bool bad = false;
        int fd, status;

        parse(argc, argv);
        t.shared = mmap(NULL, sizeof *t.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                        -1, 0);
        fd = open(t.file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (t.shared == MAP_FAILED || fd < 0)
                die("%s: create: %m", t.file);
        close(fd);
        t.end = now() + t.seconds;
        for (; n < t.writers + t.truncate; n++) {
                if ((pids[n] = fork()) < 0)
                        die("fork: %m");
                if (pids[n] == 0) {
                        if (n < t.writers)
                                append_all(n);
                        else
                                cut_all();
                        return 0;
                }
        }
        while (n-- > 0)
                if (waitpid(pids[n], &status, 0) < 0 || status)
                        bad = true;
        if (bad)
                die("%s: a process has failed", t.file);
        if (t.source)
                check(t.source);
        records = check(t.file);
        for (unsigned i = 0; i < t.writers; i++)
                written += t.shared->written[i];
        printf("%llu records written, %llu there, %llu cuts\n", (unsigned long long)written,
               (unsigned long long)records, (unsigned long long)t.shared->cuts);
        if (!records || (t.truncate && !t.shared->cuts))
                die("nothing was written, or cut");
        unlink(t.file);
        return 0;
}

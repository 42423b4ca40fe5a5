/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mixed [--seconds=N] [--processes=N] [--seed=N] [--source=PATH] [--first=append] [--sync-maps]
 *       [--no-direct-writes] [--grace=SECONDS] [--spoil] FILE
 *
 * Several processes use one file through descriptors of all kinds at once, plain, O_APPEND,
 * O_DIRECT, read-only, write-only, with and without mappings, and with --source also through PATH,
 * which is the same file behind the mount.  They open and close at random.  No call may fail, and
 * nobody may see a byte that is older than what was there when he began to read.
 *
 * The file begins with N_SLOTS blocks.  Each is written by one process only, the whole of it, with
 * words that say block, version and place.  Before a process writes version v it puts v into
 * begun[], after it into done[]; who reads takes done[] before and begun[] after, and each word has
 * to lie between.  These two arrays are in shared memory and the only thing that is shared; they
 * are atomic.  Behind the blocks are records that were appended: who has appended one reads it back
 * through another descriptor, and at the end all must be there, once, in order.
 *
 * --first=append: the first descriptor is O_APPEND and mapped, and stays open for half the time.
 * --sync-maps: a store into a mapping is followed by msync before it counts as done.
 * --grace: so many seconds may something old be seen; that it was is printed as "late".
 * --spoil: one word in some thousand is written wrong, which has to be found.
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
#include <sys/wait.h>
#include <unistd.h>

enum {
        BLOCK = 4096,
        WORDS = BLOCK / 8,
        N_SLOTS = 48,
        FIXED = N_SLOTS * BLOCK,
        MAX_PROCESSES = 8,
        N_HANDLES = 5,
        RECORD_WORDS = 8,
        RECORD = RECORD_WORDS * 8,
        MAX_APPENDS = 20000, /* by each process */
};

typedef struct Shared {
        _Atomic uint64_t begun[N_SLOTS], done[N_SLOTS];
        _Atomic(const char *)
                how[N_SLOTS];      /* the last write; the texts are at the same address in all */
        _Atomic uint64_t appended; /* bytes that are surely there */
        _Atomic bool stop;
} Shared;

typedef struct Kind {
        const char *name;
        int flags;
        int map_prot, map_flags; /* 0: no mapping */
        bool outside;            /* PATH, not FILE */
} Kind;

#define RW (PROT_READ | PROT_WRITE)
static const Kind kinds[] = {
        {"append, shared mapping", O_RDWR | O_APPEND, RW, MAP_SHARED, false},
        {"read", O_RDONLY, 0, 0, false},
        {"read, shared mapping", O_RDONLY, PROT_READ, MAP_SHARED, false},
        {"read, private mapping", O_RDONLY, PROT_READ, MAP_PRIVATE, false},
        {"write", O_WRONLY, 0, 0, false},
        {"both", O_RDWR, 0, 0, false},
        {"both, shared mapping", O_RDWR, RW, MAP_SHARED, false},
        {"append", O_RDWR | O_APPEND, 0, 0, false},
        {"append only", O_WRONLY | O_APPEND, 0, 0, false},
        {"direct", O_RDWR | O_DIRECT, 0, 0, false},
        {"direct read", O_RDONLY | O_DIRECT, 0, 0, false},
        {"direct, shared mapping", O_RDWR | O_DIRECT, RW, MAP_SHARED, false},
        {"outside", O_RDWR, 0, 0, true},
        {"outside, shared mapping", O_RDWR, RW, MAP_SHARED, true},
};
#define N_KINDS (sizeof kinds / sizeof *kinds)

typedef struct Handle {
        int fd; /* -1: closed */
        const Kind *kind;
        uint64_t *map;
} Handle;

/* Of this process; `shared` is everybody's. */
static struct {
        const char *file, *source;
        double seconds, end, grace;
        unsigned processes, me;
        uint64_t seed, appends, reads, writes, opens, loads, stores, late;
        bool first_append, sync_maps, no_direct_writes, spoil;
        Rng rng;
        Handle h[N_HANDLES];
        uint64_t *buf; /* a block, aligned */
        Shared *shared;
} t;

static uint64_t word_of(unsigned slot, uint64_t version, unsigned place)
{
        return version << 16 | (uint64_t)slot << 10 | place;
}

/* A record's words: who, which, and so on. */
static uint64_t record_word(unsigned process, uint64_t number, unsigned place)
{
        return (uint64_t)0xa << 60 | (uint64_t)process << 48 | number << 8 | place;
}

static _Noreturn void stop_all(const char *format, ...) __attribute__((format(printf, 1, 2)));
static _Noreturn void stop_all(const char *format, ...)
{
        char text[800];
        va_list args;

        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        atomic_store(&t.shared->stop, true);
        die("process %u, seed %llu: %s", t.me, (unsigned long long)t.seed, text);
}

static void let_go(Handle *h)
{
        if (h->map && munmap(h->map, FIXED) < 0)
                stop_all("munmap (%s): %m", h->kind->name);
        if (h->fd >= 0 && close(h->fd) < 0)
                stop_all("close (%s): %m", h->kind->name);
        h->fd = -1;
        h->map = NULL;
}

static void open_again(Handle *h, const Kind *kind)
{
        let_go(h);
        h->kind = kind;
        h->fd = open(kind->outside ? t.source : t.file, kind->flags | O_CLOEXEC);
        if (h->fd < 0)
                stop_all("open (%s): %m", kind->name);
        t.opens++;
        if (!kind->map_flags)
                return;
        h->map = mmap(NULL, FIXED, kind->map_prot, kind->map_flags, h->fd, 0);
        if (h->map == MAP_FAILED)
                stop_all("mmap (%s): %m", kind->name);
}

static const Kind *some_kind(void)
{
        const Kind *kind;

        do
                kind = &kinds[rng_below(&t.rng, N_KINDS)];
        while (kind->outside && !t.source);
        return kind;
}

static Handle *some_handle(bool reads, bool writes, bool appends)
{
        for (size_t i = 0, first = rng_below(&t.rng, N_HANDLES); i < N_HANDLES; i++) {
                Handle *h = &t.h[(first + i) % N_HANDLES];
                int access = h->fd < 0 ? 0 : h->kind->flags & O_ACCMODE;

                if (h->fd < 0 || (reads && access == O_WRONLY) || (writes && access == O_RDONLY))
                        continue;
                if (writes && !!(h->kind->flags & O_APPEND) != appends)
                        continue;
                return h;
        }
        return NULL;
}

/* The first word that is none of a version from `from` to `to`; WORDS if all are. */
static unsigned wrong_word(const uint64_t *words, unsigned slot, uint64_t from, uint64_t to)
{
        unsigned i;

        for (i = 0; i < WORDS; i++) {
                uint64_t version = words[i] >> 16;

                if (version < from || version > to || words[i] != word_of(slot, version, i))
                        break;
        }
        return i;
}

static void check_block(const uint64_t *words, unsigned slot, uint64_t from, uint64_t to,
                        const char *how, const Kind *kind)
{
        unsigned i = wrong_word(words, slot, from, to);

        if (i == WORDS)
                return;
        stop_all("%s (%s): block %u, word %u is %#llx, version %llu; %llu to %llu are right, "
                 "%llu is done now, last by %s",
                 how, kind->name, slot, i, (unsigned long long)words[i],
                 (unsigned long long)words[i] >> 16, (unsigned long long)from,
                 (unsigned long long)to, (unsigned long long)t.shared->done[slot],
                 t.shared->how[slot]);
}

static void load_or_read(Handle *h, unsigned slot, bool by_map)
{
        if (by_map) {
                const volatile uint64_t *in = h->map + slot * WORDS;

                for (unsigned i = 0; i < WORDS; i++)
                        t.buf[i] = in[i];
                t.loads++;
        } else {
                ssize_t n = pread(h->fd, t.buf, BLOCK, (off_t)slot * BLOCK);

                if (n != BLOCK)
                        stop_all("pread (%s) of block %u gave %zd: %m", h->kind->name, slot, n);
                t.reads++;
        }
}

static void read_block(void)
{
        Handle *h = some_handle(true, false, false);
        unsigned slot = (unsigned)rng_below(&t.rng, N_SLOTS);
        double patient = now() + t.grace;
        uint64_t from, to;
        bool by_map;

        if (!h)
                return;
        by_map = h->map && rng_below(&t.rng, 2);
        from = atomic_load(&t.shared->done[slot]);
        load_or_read(h, slot, by_map);
        to = atomic_load(&t.shared->begun[slot]);
        while (t.grace && wrong_word(t.buf, slot, from, to) < WORDS && now() < patient) {
                t.late++;
                usleep(500);
                load_or_read(h, slot, by_map);
                to = atomic_load(&t.shared->begun[slot]);
        }
        check_block(t.buf, slot, from, to, by_map ? "load" : "pread", h->kind);
}

static void store_block(Handle *h, unsigned slot)
{
        volatile uint64_t *out = h->map + slot * WORDS;

        for (unsigned i = 0; i < WORDS; i++)
                out[i] = t.buf[i];
        if (t.sync_maps && msync(h->map + slot * WORDS, BLOCK, MS_SYNC) < 0)
                stop_all("msync (%s): %m", h->kind->name);
        t.stores++;
}

static void write_block(void)
{
        unsigned slot = (unsigned)(rng_below(&t.rng, N_SLOTS / t.processes) * t.processes + t.me);
        Handle *h = some_handle(false, true, false);
        bool by_map;
        uint64_t version;

        for (int i = 0; i < N_HANDLES && rng_below(&t.rng, 2); i++)
                if (t.h[i].map && t.h[i].kind->map_prot & PROT_WRITE)
                        h = &t.h[i];
        if (!h)
                return;
        by_map = h->map && (h->kind->flags & O_APPEND || rng_below(&t.rng, 2));
        if (!by_map && h->kind->flags & O_DIRECT && t.no_direct_writes)
                return;
        version = atomic_load(&t.shared->done[slot]) + 1;
        for (unsigned i = 0; i < WORDS; i++)
                t.buf[i] = word_of(slot, version, i);
        if (t.spoil && rng_one_in(&t.rng, 200))
                t.buf[rng_below(&t.rng, WORDS)] ^= 1;
        atomic_store(&t.shared->begun[slot], version);
        if (by_map) {
                store_block(h, slot);
        } else {
                ssize_t n = pwrite(h->fd, t.buf, BLOCK, (off_t)slot * BLOCK);

                if (n != BLOCK)
                        stop_all("pwrite (%s) gave %zd: %m", h->kind->name, n);
                t.writes++;
        }
        atomic_store(&t.shared->how[slot], by_map ? "a store" : h->kind->name);
        atomic_store(&t.shared->done[slot], version);
}

static void append_record(void)
{
        Handle *h = some_handle(false, true, true), *other = some_handle(true, false, false);
        uint64_t record[RECORD_WORDS];
        double patient;
        ssize_t n;
        off_t at;

        if (!h || t.appends == MAX_APPENDS)
                return;
        for (unsigned i = 0; i < RECORD_WORDS; i++)
                record[i] = record_word(t.me, t.appends, i);
        if ((n = write(h->fd, record, RECORD)) != RECORD)
                stop_all("append (%s) gave %zd: %m", h->kind->name, n);
        t.appends++;
        atomic_fetch_add(&t.shared->appended, RECORD);
        at = lseek(h->fd, 0, SEEK_CUR) - RECORD;
        if (at < FIXED || at % RECORD)
                stop_all("appended (%s) at %lld", h->kind->name, (long long)at);
        if (!other || other->kind->flags & O_DIRECT)
                return;
        patient = now() + t.grace;
        while (n = pread(other->fd, t.buf, RECORD, at),
               t.grace && (n != RECORD || memcmp(t.buf, record, RECORD) != 0) && now() < patient) {
                t.late++;
                usleep(500);
        }
        if (n != RECORD || memcmp(t.buf, record, RECORD) != 0)
                stop_all("pread (%s) of what was appended (%s) at %lld gave %zd, %#llx",
                         other->kind->name, h->kind->name, (long long)at, n,
                         (unsigned long long)t.buf[0]);
}

static void look_at_size(void)
{
        Handle *h = some_handle(false, false, false);
        uint64_t least = FIXED + atomic_load(&t.shared->appended);
        struct stat st;

        if (!h)
                return;
        if (fstat(h->fd, &st) < 0)
                stop_all("fstat (%s): %m", h->kind->name);
        if ((uint64_t)st.st_size < least)
                stop_all("fstat (%s) says size %lld, which is less than %lld", h->kind->name,
                         (long long)st.st_size, (long long)least);
}

static void work(void)
{
        double half = now() + (t.end - now()) / 2;

        t.rng.state = t.seed * 1000003 + t.me;
        while (!atomic_load(&t.shared->stop) && now() < t.end) {
                uint64_t what = rng_below(&t.rng, 100);
                size_t which = rng_below(&t.rng, N_HANDLES);

                if (what < 4) {
                        if (t.me || which || !t.first_append || now() > half)
                                open_again(&t.h[which], some_kind());
                } else if (what < 5) {
                        if (t.me || which || !t.first_append || now() > half)
                                let_go(&t.h[which]);
                } else if (what < 60) {
                        read_block();
                } else if (what < 88) {
                        write_block();
                } else if (what < 95) {
                        append_record();
                } else {
                        look_at_size();
                }
        }
        for (size_t i = 0; i < N_HANDLES; i++)
                let_go(&t.h[i]);
        printf("process %u: %llu opens, %llu reads, %llu loads, %llu writes, %llu stores, "
               "%llu appends, %llu late\n",
               t.me, (unsigned long long)t.opens, (unsigned long long)t.reads,
               (unsigned long long)t.loads, (unsigned long long)t.writes,
               (unsigned long long)t.stores, (unsigned long long)t.appends,
               (unsigned long long)t.late);
}

/* Everything once more, through a fresh descriptor. */
static void check_all(const char *path)
{
        uint64_t number[MAX_PROCESSES] = {0}, records = 0;
        Kind fresh = {.name = path};
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n;

        if (fd < 0)
                stop_all("open of %s at the end: %m", path);
        for (unsigned slot = 0; slot < N_SLOTS; slot++) {
                if ((n = read(fd, t.buf, BLOCK)) != BLOCK)
                        stop_all("read of %s at the end gave %zd: %m", path, n);
                check_block(t.buf, slot, t.shared->done[slot], t.shared->done[slot], "at the end",
                            &fresh);
        }
        while ((n = read(fd, t.buf, RECORD)) == RECORD) {
                unsigned process = t.buf[0] >> 48 & 0xfff;

                if (process >= MAX_PROCESSES)
                        stop_all("%s: record %llu is torn", path, (unsigned long long)records);
                for (unsigned i = 0; i < RECORD_WORDS; i++)
                        if (t.buf[i] != record_word(process, number[process], i))
                                stop_all("%s: record %llu: word %u is %#llx, not %#llx", path,
                                         (unsigned long long)records, i,
                                         (unsigned long long)t.buf[i],
                                         (unsigned long long)record_word(process, number[process],
                                                                         i));
                number[process]++;
                records++;
        }
        if (n || records * RECORD != t.shared->appended)
                stop_all("%s: %llu records, not %llu, and %zd bytes", path,
                         (unsigned long long)records,
                         (unsigned long long)t.shared->appended / RECORD, n);
        close(fd);
}

static void parse(int argc, char **argv)
{
        const char *v;

        t.seed = (uint64_t)time(NULL);
        if ((v = getenv("K42_SEED")))
                t.seed = strtoull(v, NULL, 10);
        t.seconds = 5;
        t.processes = 4;
        for (int i = 1; i < argc; i++) {
                if ((v = option_value(argv[i], "--seconds")))
                        t.seconds = strtod(v, NULL);
                else if ((v = option_value(argv[i], "--processes")))
                        t.processes = (unsigned)atoi(v);
                else if ((v = option_value(argv[i], "--seed")))
                        t.seed = strtoull(v, NULL, 10);
                else if ((v = option_value(argv[i], "--source")))
                        t.source = v;
                else if ((v = option_value(argv[i], "--grace")))
                        t.grace = strtod(v, NULL);
                else if (strcmp(argv[i], "--first=append") == 0)
                        t.first_append = true;
                else if (strcmp(argv[i], "--sync-maps") == 0)
                        t.sync_maps = true;
                else if (strcmp(argv[i], "--no-direct-writes") == 0)
                        t.no_direct_writes = true;
                else if (strcmp(argv[i], "--spoil") == 0)
                        t.spoil = true;
                else if (!t.file && *argv[i] != '-')
                        t.file = argv[i];
                else
                        die("what is %s?", argv[i]);
        }
        if (!t.file || !t.processes || t.processes > MAX_PROCESSES || N_SLOTS % t.processes)
                die("a file, and --processes that divides %d", N_SLOTS);
}

/* The file with version 0 of everything; made behind the mount if that is known, so that nothing is
 * open there yet. */
static void make_file(void)
{
        const char *path = t.source ? t.source : t.file;
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

        if (fd < 0)
                die("%s: create: %m", path);
        for (unsigned slot = 0; slot < N_SLOTS; slot++) {
                for (unsigned i = 0; i < WORDS; i++)
                        t.buf[i] = word_of(slot, 0, i);
                if (write(fd, t.buf, BLOCK) != BLOCK)
                        die("%s: write: %m", path);
                t.shared->how[slot] = "the beginning";
        }
        close(fd);
}

int main(int argc, char **argv)
{
        pid_t pids[MAX_PROCESSES];
        bool bad = false;
        int status;

        parse(argc, argv);
        t.shared = mmap(NULL, sizeof *t.shared, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (t.shared == MAP_FAILED || posix_memalign((void **)&t.buf, BLOCK, BLOCK))
                die("no memory");
        printf("seed %llu\n", (unsigned long long)t.seed);
        fflush(stdout);
        make_file();
        for (size_t i = 0; i < N_HANDLES; i++)
                t.h[i].fd = -1;
        t.end = now() + t.seconds;
        for (unsigned i = 0; i < t.processes; i++) {
                if (i == 0 && t.first_append)
                        open_again(&t.h[0], &kinds[0]);
                if ((pids[i] = fork()) < 0)
                        stop_all("fork: %m");
                if (pids[i] == 0) {
                        t.me = i;
                        work();
                        return 0;
                }
                if (i == 0)
                        let_go(&t.h[0]);
        }
        for (unsigned i = 0; i < t.processes; i++)
                if (waitpid(pids[i], &status, 0) < 0 || status)
                        bad = true;
        if (bad)
                die("%s: a process has failed", t.file);
        check_all(t.file);
        if (t.source)
                check_all(t.source);
        unlink(t.file);
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bytes through what was there before: the descriptor, its copies, mappings, pipes, an io_uring. */
#include "attempts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static long pread_of(int fd)
{
        char c = 0;
        const long r = pread(fd, &c, 1, 0);

        return got(r, c);
}

static long pwrite_of(int fd)
{
        const char mark = MARK;

        return raw(pwrite(fd, &mark, 1, 100));
}

static long try_read(void) { return pread_of(held.fd); }
static long try_write(void) { return pwrite_of(held.fd); }
static long try_copy_read(void) { return pread_of(held.copy); }
static long try_copy_write(void) { return pwrite_of(held.copy); }

static long try_readv(void)
{
        char c = 0;
        const struct iovec iov = {&c, 1};
        const long r = preadv2(held.fd, &iov, 1, 0, RWF_HIPRI);

        return got(r, c);
}

static long try_append(void)
{
        char mark = MARK;
        const struct iovec iov = {&mark, 1};

        return raw(pwritev2(held.fd, &iov, 1, 0, RWF_APPEND));
}

static void *write_in_thread(void *ret)
{
        *(long *)ret = try_write();
        return NULL;
}

static long try_thread(void)
{
        pthread_t thread;
        long r = -EAGAIN;

        if (pthread_create(&thread, NULL, write_in_thread, &r) == 0)
                pthread_join(thread, NULL);
        return r;
}

/* Of a descriptor on which flags were changed since: the kernel looks at them at each call. */
static long with_flag(int flag, long (*fn)(void))
{
        const int flags = fcntl(held.fd, F_GETFL);
        long r;

        if (fcntl(held.fd, F_SETFL, flags | flag) < 0)
                return -errno;
        r = fn();
        fcntl(held.fd, F_SETFL, flags);
        return r;
}

static long read_block(void)
{
        char *block = aligned_alloc(4096, 4096);
        const long r = pread(held.fd, block, 4096, 0), result = got(r, r > 0 ? block[0] : CONTENTS);

        free(block);
        return result;
}

static long try_direct(void) { return with_flag(O_DIRECT, read_block); }
static long try_set_append(void) { return with_flag(O_APPEND, try_write); }
static long try_ftruncate(void) { return raw(ftruncate(held.fd, SIZE)); }
static long try_fallocate(void) { return raw(fallocate(held.fd, 0, 0, 10)); }

static long try_punch(void)
{
        return raw(fallocate(held.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 61440, 4096));
}

/* ---- without a buffer ---- */

static long from_pipe(long r)
{
        char c = CONTENTS;

        if (r > 0 && read(held.pipe[0], &c, 1) != 1)
                return -errno;
        return got(r, c);
}

static long try_splice_from(void)
{
        loff_t at = 0;

        return from_pipe(splice(held.fd, &at, held.pipe[1], NULL, 1, 0));
}

static long try_splice_to(void)
{
        const char mark = MARK;
        loff_t at = 100;
        char c;
        long r;

        if (write(held.pipe[1], &mark, 1) != 1)
                return -errno;
        r = raw(splice(held.pipe[0], NULL, held.fd, &at, 1, 0));
        if (r < 0 && read(held.pipe[0], &c, 1) != 1)
                return -EPIPE;
        return r;
}

static long try_sendfile_from(void)
{
        off_t at = 0;

        return from_pipe(sendfile(held.pipe[1], held.fd, &at, 1));
}

static long try_sendfile_to(void)
{
        off_t at = 0;

        if (lseek(held.fd, 100, SEEK_SET) < 0)
                return -errno;
        return raw(sendfile(held.fd, held.other, &at, 1));
}

static long try_copy_from(void)
{
        loff_t at = 0, to = 0;

        return raw(syscall(SYS_copy_file_range, held.fd, &at, held.other, &to, 10, 0));
}

static long try_copy_to(void)
{
        loff_t at = 0, to = 100;

        return raw(syscall(SYS_copy_file_range, held.other, &at, held.fd, &to, 10, 0));
}

static long try_copy_within(void)
{
        loff_t at = 0, to = 200;

        return raw(syscall(SYS_copy_file_range, held.fd, &at, held.fd, &to, 10, 0));
}

static long try_vmsplice(void)
{
        const struct iovec iov = {(void *)(held.map + 8192), 1};

        return from_pipe(vmsplice(held.pipe[1], &iov, 1, 0));
}

/* What was taken from the file before is its own. */
static long try_full_pipe(void)
{
        char c = 0;
        const long r = read(held.full_pipe[0], &c, 1);

        return got(r, c);
}

/* ---- mappings; where no other attempt has been ---- */

static long loaded(char byte) { return got(1, byte); }
static long try_load(void) { return loaded(held.map[16384]); }
static long try_store(void) { return held.map[20480] = MARK, 0; }
static long try_private_load(void) { return loaded(held.private_map[24576]); }
static long try_private_copy(void) { return loaded(held.private_map[0]); }
static long try_map_source(void)
{
        return raw(pwrite(held.other, (const char *)held.map + 28672, 1, 500));
}
static long try_map_target(void) { return raw(pread(held.other, (char *)held.map + 32768, 1, 100)); }

static long try_populate(void)
{
        return raw(madvise((void *)(held.map + 36864), 4096, MADV_POPULATE_WRITE));
}

static long try_mprotect(void)
{
        if (mprotect((void *)held.read_only_map, SIZE, PROT_READ | PROT_WRITE) < 0)
                return -errno;
        return held.read_only_map[40960] = MARK, 0;
}

static long try_mremap(void)
{
        volatile char *copy = mremap((void *)held.map, 0, SIZE, MREMAP_MAYMOVE);

        return copy == MAP_FAILED ? -errno : loaded(copy[45056]);
}

static long new_map(int prot, int flags, long at)
{
        volatile char *map = mmap(NULL, SIZE, prot, flags, held.fd, 0);

        if (map == MAP_FAILED)
                return -errno;
        if (prot & PROT_WRITE)
                return map[at] = MARK, 0;
        return loaded(map[at]);
}

static long try_new_load(void) { return new_map(PROT_READ, MAP_SHARED, 49152); }
static long try_new_store(void) { return new_map(PROT_READ | PROT_WRITE, MAP_SHARED, 53248); }
static long try_new_private(void) { return new_map(PROT_READ, MAP_PRIVATE, 57344); }

/* ---- an io_uring, which has the file registered ---- */

static struct {
        int fd; /* -1: the machine has none */
        char *sq, *cq;
        struct io_uring_sqe *sqes;
        struct io_uring_params params;
} ring;

void prepare_ring(void)
{
        const int prot = PROT_READ | PROT_WRITE;

        ring.fd = (int)syscall(SYS_io_uring_setup, 4, &ring.params);
        if (ring.fd < 0) {
                if (errno == EPERM || errno == ENOSYS)
                        return;
                perror("io_uring_setup");
                exit(1);
        }
        ring.sq = mmap(NULL, ring.params.sq_off.array + ring.params.sq_entries * sizeof(unsigned), prot,
                       MAP_SHARED, ring.fd, IORING_OFF_SQ_RING);
        ring.cq = mmap(NULL,
                       ring.params.cq_off.cqes + ring.params.cq_entries * sizeof(struct io_uring_cqe), prot,
                       MAP_SHARED, ring.fd, IORING_OFF_CQ_RING);
        ring.sqes = mmap(NULL, ring.params.sq_entries * sizeof(struct io_uring_sqe), prot, MAP_SHARED,
                         ring.fd, IORING_OFF_SQES);
        if (ring.sq == MAP_FAILED || ring.cq == MAP_FAILED || ring.sqes == MAP_FAILED ||
            syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_FILES, &held.fd, 1) < 0) {
                perror("io_uring");
                exit(1);
        }
}

static long ring_do(unsigned char opcode, unsigned char flags, char *byte, unsigned long offset)
{
        unsigned *tail = (void *)(ring.sq + ring.params.sq_off.tail);
        unsigned *mask = (void *)(ring.sq + ring.params.sq_off.ring_mask);
        unsigned *array = (void *)(ring.sq + ring.params.sq_off.array);
        unsigned *cq_head = (void *)(ring.cq + ring.params.cq_off.head);
        unsigned *cq_mask = (void *)(ring.cq + ring.params.cq_off.ring_mask);
        struct io_uring_cqe *cqes = (void *)(ring.cq + ring.params.cq_off.cqes);
        unsigned at;
        long r;

        if (ring.fd < 0)
                return SKIPPED;
        at = *tail & *mask;
        ring.sqes[at] = (struct io_uring_sqe){.opcode = opcode,
                                              .flags = IOSQE_FIXED_FILE | flags,
                                              .fd = 0,
                                              .off = offset,
                                              .addr = (unsigned long)byte,
                                              .len = 1};
        array[at] = at;
        __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
        if (syscall(SYS_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
                return -errno;
        r = cqes[*cq_head & *cq_mask].res;
        __atomic_store_n(cq_head, *cq_head + 1, __ATOMIC_RELEASE);
        return r;
}

static long ring_read(unsigned char flags)
{
        char c = 0;
        const long r = ring_do(IORING_OP_READ, flags, &c, 0);

        return r < 0 || ring.fd < 0 ? r : got(r, c);
}

static long ring_write(unsigned char flags)
{
        char mark = MARK;
        const long r = ring_do(IORING_OP_WRITE, flags, &mark, 100);

        return r < 0 || ring.fd < 0 ? r : 0;
}

static long try_ring_read(void) { return ring_read(0); }
static long try_ring_write(void) { return ring_write(0); }
static long try_ring_async_read(void) { return ring_read(IOSQE_ASYNC); } /* by a worker of the kernel's */
static long try_ring_async_write(void) { return ring_write(IOSQE_ASYNC); }

const struct attempt data_attempts[] = {
        {"read", VICTIM, try_read},
        {"write", VICTIM, try_write},
        {"read, a copy made before", VICTIM, try_copy_read},
        {"write, a copy made before", VICTIM, try_copy_write},
        {"preadv2", VICTIM, try_readv},
        {"pwritev2, appending", VICTIM, try_append},
        {"write, another thread", VICTIM, try_thread},
        {"read, O_DIRECT set since", VICTIM, try_direct},
        {"write, O_APPEND set since", VICTIM, try_set_append},
        {"ftruncate", VICTIM, try_ftruncate},
        {"fallocate", VICTIM, try_fallocate},
        {"fallocate, a hole", VICTIM, try_punch},
        {"splice from it", VICTIM, try_splice_from},
        {"splice to it", VICTIM, try_splice_to},
        {"sendfile from it", VICTIM, try_sendfile_from},
        {"sendfile to it", VICTIM, try_sendfile_to},
        {"copy_file_range from it", VICTIM, try_copy_from},
        {"copy_file_range to it", VICTIM, try_copy_to},
        {"copy_file_range within", VICTIM, try_copy_within},
        {"pipe filled before, read", VICTIM, try_full_pipe},
        {"old mapping, vmsplice", VICTIM, try_vmsplice},
        {"old mapping, load", VICTIM, try_load},
        {"old mapping, store", VICTIM, try_store},
        {"old mapping, private, load", VICTIM, try_private_load},
        {"old mapping, private, own copy", VICTIM, try_private_copy},
        {"old mapping, write(2) from it", VICTIM, try_map_source},
        {"old mapping, read(2) to it", VICTIM, try_map_target},
        {"old mapping, MADV_POPULATE_WRITE", VICTIM, try_populate},
        {"old mapping, mprotect, store", VICTIM, try_mprotect},
        {"old mapping, mremap, load", VICTIM, try_mremap},
        {"new mapping, load", VICTIM, try_new_load},
        {"new mapping, store", VICTIM, try_new_store},
        {"new mapping, private, load", VICTIM, try_new_private},
        {"io_uring, registered, read", VICTIM, try_ring_read},
        {"io_uring, registered, write", VICTIM, try_ring_write},
        {"io_uring, registered, worker, read", VICTIM, try_ring_async_read},
        {"io_uring, registered, worker, write", VICTIM, try_ring_async_write},
        {"child from before, read", CHILD, try_read},
        {"child from before, write", CHILD, try_write},
        {"stranger from before, read", USER, try_read},
        {"stranger from before, write", USER, try_write},
        {"stranger, on its way, read", LATE, try_read},
        {"stranger, on its way, write", LATE, try_write},
        {NULL, WHO, NULL},
};

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "shim/account.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

struct k42_account *_Atomic account_page;
struct account_fd *account_fds;

static _Atomic int page_pid; /* whose it is; the last that tried to make one */

/* Lanes: a bit for each that a thread has; in the upper half the process whose threads these are (a child does
 * not have its parent's), 0 in the first one. */
static _Atomic uint64_t lanes;
static pthread_key_t lane_key; /* gives the lane back when the thread ends */
static _Atomic int lanes_on;
__thread unsigned account_lane __attribute__((tls_model("initial-exec")));
static __thread enum { LANE_WANTED, LANE_BUSY, LANE_REFUSED } lane_state __attribute__((tls_model("initial-exec")));

/* Of the first so many keys each thread has the values within its own description: setting one allocates
 * nothing. */
#define KEYS_IN_THREAD 32

static int kernel_pid(void)
{
        return (int)syscall(SYS_getpid);
}

/* The file, with its head.  Returns a descriptor or -1. */
static int make_file(int pid)
{
        struct timespec now = {.tv_sec = 0};
        struct rlimit limit;
        struct k42_account_head head = {K42_ACCOUNT_VERSION, K42_ACCOUNT_LENGTH, pid, 0, 0};
        int fd;

        /* Beyond it the kernel would send SIGXFSZ. */
        if (syscall(SYS_prlimit64, 0, RLIMIT_FSIZE, NULL, &limit) < 0 ||
            limit.rlim_cur < K42_ACCOUNT_LENGTH)
                return -1;
        syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
        head.nonce = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec + 1;
        fd = (int)syscall(SYS_memfd_create, "k42-account", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return -1;
        if (syscall(SYS_ftruncate, fd, (off_t)K42_ACCOUNT_LENGTH) < 0 ||
            syscall(SYS_pwrite64, fd, &head, sizeof head, (off_t)0) != (long)sizeof head ||
            syscall(SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
                syscall(SYS_close, fd);
                return -1;
        }
        return fd;
}

/* Two threads, or a handler, that come here at once want the same address: one of them gets it. */
static void make_page(void)
{
        const int saved = errno, pid = kernel_pid();
        void *page = MAP_FAILED;
        int fd;

        if (atomic_load(&page_pid) == pid) /* it did not work */
                return;
        fd = make_file(pid);
        atomic_store(&page_pid, pid);
        if (fd >= 0) {
                page = (void *)syscall(SYS_mmap, K42_ACCOUNT_ADDRESS, (size_t)K42_ACCOUNT_LENGTH,
                                       PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd,
                                       (off_t)0);
                syscall(SYS_close, fd);
        }
        /* A kernel that does not know the flag takes the address as a hint. */
        if (page != MAP_FAILED && ((uintptr_t)page != K42_ACCOUNT_ADDRESS ||
                                   syscall(SYS_madvise, page, (size_t)K42_ACCOUNT_LENGTH,
                                           MADV_DONTFORK) < 0)) {
                syscall(SYS_munmap, page, (size_t)K42_ACCOUNT_LENGTH);
                page = MAP_FAILED;
        }
        if (page != MAP_FAILED)
                atomic_store(&account_page, page);
        errno = saved;
}

/* What counts later in this thread counts in the slots. */
static void leave_lane(void *lane)
{
        lane_state = LANE_REFUSED;
        account_lane = ACCOUNT_NO_LANE;
        atomic_fetch_and_explicit(&lanes, ~K42_ACCOUNT_LANE((uintptr_t)lane), memory_order_release);
}

static unsigned take_lane(void)
{
        const uint64_t all = K42_ACCOUNT_LANE(K42_ACCOUNT_LANES + 1) - K42_ACCOUNT_LANE(1);
        uint64_t old = atomic_load_explicit(&lanes, memory_order_relaxed), lane;

        do {
                if ((old & all) == all)
                        return ACCOUNT_NO_LANE;
                lane = (uint64_t)__builtin_ctzll(all & ~old);
        } while (!atomic_compare_exchange_weak_explicit(&lanes, &old, old | K42_ACCOUNT_LANE(lane),
                                                        memory_order_acquire, memory_order_relaxed));
        if (pthread_setspecific(lane_key, (void *)(uintptr_t)lane) != 0) {
                leave_lane((void *)(uintptr_t)lane);
                return ACCOUNT_NO_LANE;
        }
        return (unsigned)lane;
}

/* What a thread that had the lane before counted for the handle stays. */
static void clear_lane(struct k42_account_slot *slot, uint64_t *counters, uint64_t bit)
{
        if (__atomic_load_n(&slot->flags, __ATOMIC_RELAXED) & bit)
                return;
        for (unsigned i = 0; i < K42_ACCOUNT_COUNTERS; i++)
                __atomic_store_n(&counters[i], 0, __ATOMIC_RELAXED);
        __atomic_fetch_or(&slot->flags, bit, __ATOMIC_RELEASE);
}

uint64_t *account_enter_lane(struct k42_account *page, unsigned number)
{
        uint64_t *counters = NULL;
        const int saved = errno;

        /* Busy: we are in a handler that came while the thread was here. */
        if (lane_state != LANE_WANTED || !atomic_load_explicit(&lanes_on, memory_order_relaxed) ||
            number >= K42_ACCOUNT_LANE_SLOTS)
                return NULL;
        lane_state = LANE_BUSY;
        atomic_signal_fence(memory_order_seq_cst);
        if (account_lane == ACCOUNT_NO_LANE)
                account_lane = take_lane();
        if (account_lane != ACCOUNT_NO_LANE) {
                counters = page->lane[account_lane - 1][number].counters;
                clear_lane(&page->slot[number], counters, K42_ACCOUNT_LANE(account_lane));
        }
        atomic_signal_fence(memory_order_seq_cst);
        if (lane_state == LANE_BUSY)
                lane_state = LANE_WANTED;
        errno = saved;
        return counters;
}

/* A program may have taken all keys that cost nothing, if its constructors came before. */
static void start_lanes(void)
{
        if (pthread_key_create(&lane_key, leave_lane) != 0)
                return;
        if (lane_key < KEYS_IN_THREAD)
                atomic_store(&lanes_on, 1);
        else
                (void)pthread_key_delete(lane_key);
}

void account_start(void)
{
        const int saved = errno;
        void *fds = mmap(NULL, FD_TABLE_MAX * sizeof(struct account_fd), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        if (fds != MAP_FAILED) {
                account_fds = fds;
                start_lanes();
        }
        errno = saved;
}

void account_child(void)
{
        const int pid = kernel_pid();
        uint64_t old = atomic_load(&lanes);

        if (atomic_load(&page_pid) != pid)
                atomic_store(&account_page, NULL);
        if (old >> 32 != (uint64_t)pid) /* once, if several threads are here */
                atomic_compare_exchange_strong(&lanes, &old, (uint64_t)pid << 32);
        account_lane = ACCOUNT_NO_LANE; /* it was the parent's thread's */
        lane_state = LANE_WANTED;
}

static struct k42_account_post *post_of(struct k42_account *page, uint32_t tid)
{
        return &page->post[tid % K42_ACCOUNT_POSTS];
}

static uint32_t kernel_tid(void)
{
        return (uint32_t)syscall(SYS_gettid);
}

void account_expect(void)
{
        struct k42_account *page;

        if (!account_fds || !fd_table_mine())
                return;
        if (!atomic_load(&account_page))
                make_page();
        page = atomic_load(&account_page);
        if (page)
                __atomic_store_n(&post_of(page, kernel_tid())->token, 0, __ATOMIC_RELAXED);
}

unsigned account_answer(uint64_t *ret_token)
{
        struct k42_account *page = atomic_load(&account_page);
        const struct k42_account_post *post;
        uint32_t tid;
        uint64_t token;

        *ret_token = 0;
        if (!account_fds || !page || !fd_table_mine())
                return 0;
        tid = kernel_tid();
        post = post_of(page, tid);
        token = __atomic_load_n(&post->token, __ATOMIC_ACQUIRE);
        if (token == 0 || post->tid != tid || post->slot == 0 || post->slot >= K42_ACCOUNT_SLOTS)
                return 0;
        *ret_token = token;
        return post->slot;
}

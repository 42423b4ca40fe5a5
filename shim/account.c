/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "shim/account.h"

#include "shim/touch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
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

static _Atomic int page_pid;   /* whose it is; the last that tried to make one */
static _Atomic int page_maker; /* the thread that is making it; 0: none */

/* The offer of the file: none yet, made, never to be made, or the thread that is making it. */
#define OFFER_POSSIBLE 0
#define OFFER_DONE     (-1)
#define OFFER_NEVER    (-2)
static _Atomic int offer_state;
static _Atomic int offered_fd; /* 0: none */
/* offer_state when this thread began its call. */
static __thread int offer_before __attribute__((tls_model("initial-exec")));
#define OFFER_FD_MIN 200 /* it takes no number that the program would get */
#define WAIT_S       1 /* for another thread */

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

static uint32_t kernel_tid(void)
{
        return (uint32_t)syscall(SYS_gettid);
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

/* Until thread `busy` has changed `word`, which has its number; but not if that is ourselves, in a handler that came
 * meanwhile. */
static void wait_for(_Atomic int *word, int busy)
{
        const struct timespec limit = {.tv_sec = WAIT_S};

        if (busy != (int)kernel_tid())
                syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, busy, &limit, NULL, 0);
}

static void set_and_wake(_Atomic int *word, int value)
{
        atomic_store(word, value);
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void map_page(int pid)
{
        void *page = MAP_FAILED;
        const int fd = make_file(pid);

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
}

/* Of threads that come here at once one makes it, and the others wait: the daemon could see it before they do. */
static void make_page(void)
{
        const int saved = errno, pid = kernel_pid();
        int maker = 0;

        if (atomic_load(&page_pid) == pid && atomic_load(&page_maker) == 0) /* it did not work, or it is there now */
                return;
        if (!atomic_compare_exchange_strong(&page_maker, &maker, (int)kernel_tid())) {
                wait_for(&page_maker, maker);
        } else {
                if (atomic_load(&page_pid) != pid)
                        map_page(pid);
                set_and_wake(&page_maker, 0);
        }
        errno = saved;
}

/* Puts a new file, that says which descriptor it has, in place of that of the page.  Returns the descriptor, or -1. */
static int replace_file(void)
{
        const int low = make_file(kernel_pid());
        int fd = -1;
        void *page = MAP_FAILED;

        if (low >= 0) {
                fd = (int)syscall(SYS_fcntl, low, F_DUPFD_CLOEXEC, OFFER_FD_MIN);
                syscall(SYS_close, low);
        }
        if (fd < 0)
                return -1;
        atomic_store(&offered_fd, fd);
        if (syscall(SYS_pwrite64, fd, &fd, sizeof fd, (off_t)offsetof(struct k42_account_head, fd)) == sizeof fd)
                page = (void *)syscall(SYS_mmap, K42_ACCOUNT_ADDRESS, (size_t)K42_ACCOUNT_LENGTH,
                                       PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)0);
        if (page != MAP_FAILED) {
                (void)syscall(SYS_madvise, page, (size_t)K42_ACCOUNT_LENGTH, MADV_DONTFORK); /* as it was for the old one */
                return fd;
        }
        atomic_store(&offered_fd, 0);
        syscall(SYS_close, fd);
        return -1;
}

/* The daemon asks for the file, when we have opened or touched `fd`. */
static void make_offer(int fd)
{
        struct k42_lazy_reopen message;
        const int file = replace_file();

        if (file >= 0) {
                (void)touch_lazy_reopen(fd, &message);
                __atomic_store_n(&atomic_load(&account_page)->head.fd, 0, __ATOMIC_RELAXED);
                atomic_store(&offered_fd, 0);
                syscall(SYS_close, file);
        }
        set_and_wake(&offer_state, OFFER_DONE);
}

/* The daemon has given no slot for `fd`.  If it asks for the file it gets it, once.  If another thread has offered it
 * since we began our call, or still does, the daemon may have asked for that, in a page that is not there any more: so
 * it has to look again.  False if there is nothing more to be had. */
static bool offer(int fd, bool asked)
{
        struct k42_lazy_reopen message;
        const int saved = errno;
        int state = OFFER_POSSIBLE;
        bool again = true;

        if (asked && atomic_compare_exchange_strong(&offer_state, &state, (int)kernel_tid())) {
                make_offer(fd);
        } else {
                state = atomic_load(&offer_state);
                if (state > 0)
                        wait_for(&offer_state, state);
                again = (state > 0 || state == OFFER_DONE) && offer_before >= 0 && touch_may_be_ours(fd) &&
                        touch_lazy_reopen(fd, &message) == 0;
        }
        errno = saved;
        return again;
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
        int fd;

        if (atomic_load(&page_pid) != pid) {
                atomic_store(&account_page, NULL);
                atomic_store(&page_maker, 0);
                fd = atomic_exchange(&offered_fd, 0);
                if (fd > 0) /* another thread of the parent was offering its own */
                        syscall(SYS_close, fd);
                atomic_store(&offer_state, OFFER_POSSIBLE);
        }
        if (old >> 32 != (uint64_t)pid) /* once, if several threads are here */
                atomic_compare_exchange_strong(&lanes, &old, (uint64_t)pid << 32);
        account_lane = ACCOUNT_NO_LANE; /* it was the parent's thread's */
        lane_state = LANE_WANTED;
}

static struct k42_account_post *post_of(struct k42_account *page, uint32_t tid)
{
        return &page->post[tid % K42_ACCOUNT_POSTS];
}

void account_expect(void)
{
        struct k42_account *page;

        if (!account_fds || !fd_table_mine())
                return;
        offer_before = atomic_load(&offer_state);
        if (!atomic_load(&account_page))
                make_page();
        page = atomic_load(&account_page);
        if (page)
                __atomic_store_n(&post_of(page, kernel_tid())->token, 0, __ATOMIC_RELAXED);
}

/* What the daemon has posted for this thread.  False if there is nothing. */
static bool read_post(struct k42_account *page, uint32_t *ret_slot, uint64_t *ret_token)
{
        const uint32_t tid = kernel_tid();
        const struct k42_account_post *post = post_of(page, tid);

        *ret_token = __atomic_load_n(&post->token, __ATOMIC_ACQUIRE);
        *ret_slot = post->slot;
        return *ret_token != 0 && post->tid == tid && *ret_slot < K42_ACCOUNT_SLOTS;
}

unsigned account_answer(int fd, uint64_t *ret_token)
{
        struct k42_account *page = atomic_load(&account_page);
        int possible = OFFER_POSSIBLE;
        uint32_t slot;
        bool posted;

        *ret_token = 0;
        if (!account_fds || !page || !fd_table_mine())
                return 0;
        posted = read_post(page, &slot, ret_token);
        if ((!posted || slot == 0) && fd >= 0 && offer(fd, posted))
                posted = read_post(page, &slot, ret_token);
        if (!posted || slot == 0) {
                *ret_token = 0;
                return 0;
        }
        atomic_compare_exchange_strong(&offer_state, &possible, OFFER_NEVER);
        return slot;
}

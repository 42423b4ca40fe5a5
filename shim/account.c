/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "shim/account.h"

#include <errno.h>
#include <fcntl.h>
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

void account_start(void)
{
        const int saved = errno;
        void *fds = mmap(NULL, FD_TABLE_MAX * sizeof(struct account_fd), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        if (fds != MAP_FAILED)
                account_fds = fds;
        errno = saved;
}

void account_child(void)
{
        if (atomic_load(&page_pid) != kernel_pid())
                atomic_store(&account_page, NULL);
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

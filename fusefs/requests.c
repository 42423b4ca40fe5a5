/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file: a page for the head, then the slots, each its struct request on pages of its own and
 * the buffer behind them.
 *
 * What is ordered here is only what the compiler may reorder: a thread that is killed has executed
 * all instructions up to one point and none after it, and the next daemon reads the same memory
 * after that.  So release stores (and fences for signals) are all that it takes.
 */
#include "fusefs/requests.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME       "requests"
#define MAGIC      UINT64_C(0x0a7371657232346b) /* "k42reqs\n" */
#define PAGE       4096
#define SPARE      4 /* slots beside the threads': who resumes needs one while orphans have theirs */
#define SLOTS_MAX  4096
#define INIT_MAX   256 /* bytes of the INIT request, and of its reply */
#define RESEND_BIT (UINT64_C(1) << 63)

struct head {
        uint64_t magic;
        uint32_t version;
        uint32_t n_slots;
        uint32_t slot_size;   /* bytes from one slot to the next */
        uint32_t buffer_size; /* bytes of them that are the buffer, at the end */
        _Atomic uint32_t init_size, init_reply_size;
        _Atomic uint32_t resends;
        uint32_t reserved;
        char init[INIT_MAX], init_reply[INIT_MAX];
        char failpoint[REQUESTS_FAILPOINT];
};
G_STATIC_ASSERT(sizeof(struct head) <= PAGE);

/* From one slot to the next. */
#define FACTS_SIZE ((sizeof(struct request) + PAGE - 1) / PAGE * PAGE)
#define SLOT_SIZE  (FACTS_SIZE + REQUEST_BUFFER)
G_STATIC_ASSERT(REQUEST_BUFFER % PAGE == 0);

struct requests {
        struct head *head; /* the mapping */
        size_t size;       /* of it */
        unsigned n_slots;
        dev_t dev; /* which file it is */
        ino_t ino;
        atomic_bool *taken; /* by a thread of this daemon */
};

static _Thread_local struct request *current;

struct request *request_current(void)
{
        return current;
}

void request_set_current(struct request *request)
{
        current = request;
}

void *request_buffer(struct request *request)
{
        return (char *)request + FACTS_SIZE;
}

static struct fuse_in_header *header_of(struct request *request)
{
        return request_buffer(request);
}

static struct request *slot(struct requests *requests, unsigned i)
{
        return (struct request *)((char *)requests->head + PAGE + (size_t)i * SLOT_SIZE);
}

static size_t file_size(unsigned n_slots)
{
        return PAGE + (size_t)n_slots * SLOT_SIZE;
}

/* ---- the file ---- */

/* Locking it is worth trying: an ordinary user may not lock much, and then it is only faulted in.
 */
static int map(int fd, unsigned n_slots, struct requests **ret_requests)
{
        struct requests *requests = calloc(1, sizeof *requests);
        struct stat st;
        void *mem;
        int r;

        if (!requests)
                return -ENOMEM;
        if (fstat(fd, &st) == 0) {
                requests->dev = st.st_dev;
                requests->ino = st.st_ino;
        }
        requests->n_slots = n_slots;
        requests->size = file_size(n_slots);
        requests->taken = calloc(n_slots, sizeof *requests->taken);
        if (!requests->taken) {
                free(requests);
                return -ENOMEM;
        }
        mem = mmap(NULL, requests->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
        if (mem == MAP_FAILED) {
                r = -errno;
                free(requests->taken);
                free(requests);
                return r;
        }
        (void)mlock(mem, requests->size);
        requests->head = mem;
        *ret_requests = requests;
        return 0;
}

static int create(int dirfd, unsigned threads, struct requests **ret_requests)
{
        const unsigned n_slots = MIN(threads + SPARE, SLOTS_MAX);
        struct requests *requests;
        int fd, r;

        if (unlinkat(dirfd, NAME, 0) < 0 && errno != ENOENT)
                return -errno;
        fd = openat(dirfd, NAME, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
                return -errno;
        r = -posix_fallocate(fd, 0, (off_t)file_size(n_slots)); /* a hole could be a SIGBUS */
        if (r == 0)
                r = map(fd, n_slots, &requests);
        close(fd);
        if (r < 0) {
                unlinkat(dirfd, NAME, 0);
                return r;
        }
        requests->head->version = REQUESTS_VERSION;
        requests->head->n_slots = n_slots;
        requests->head->slot_size = SLOT_SIZE;
        requests->head->buffer_size = REQUEST_BUFFER;
        atomic_signal_fence(memory_order_seq_cst);
        requests->head->magic = MAGIC;
        *ret_requests = requests;
        return 0;
}

/* What another daemon has left is believed as little as possible: counts are bounded, so that
 * nonsense cannot lead out of the mapping. */
static void check_slot(struct request *request)
{
        struct fuse_in_header *header = header_of(request);

        if (header->len < sizeof *header || header->len > REQUEST_BUFFER)
                header->len = 0;
        request->n_raised = MIN(request->n_raised, REQUEST_RAISED_MAX);
        if (request->reply_size > REQUEST_REPLY_MAX ||
            (request->reply_size > 0 && request->reply_size < sizeof(struct fuse_out_header)))
                request->reply_size = 0;
        if (request->phase > REQUEST_ANSWERED)
                request->phase = REQUEST_READ;
        request->flags &= ~(uint32_t)REQUEST_GONE;
}

static int check_head(int fd, unsigned *ret_n_slots)
{
        struct head head;
        struct stat st;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (pread(fd, &head, sizeof head, 0) != sizeof head || head.magic != MAGIC)
                return -EBADMSG;
        if (head.version > REQUESTS_VERSION)
                return -EPROTO;
        if (head.version != REQUESTS_VERSION || head.slot_size != SLOT_SIZE ||
            head.buffer_size != REQUEST_BUFFER || head.n_slots == 0 || head.n_slots > SLOTS_MAX ||
            (size_t)st.st_size < file_size(head.n_slots) || head.init_size > INIT_MAX ||
            head.init_reply_size > INIT_MAX)
                return -EBADMSG;
        *ret_n_slots = head.n_slots;
        return 0;
}

/* A file that can be taken over, and how many slots it has: a descriptor or -errno. */
static int open_file(int dirfd, unsigned *ret_n_slots)
{
        int fd = openat(dirfd, NAME, O_RDWR | O_NOFOLLOW | O_CLOEXEC), r;

        if (fd < 0)
                return -errno;
        r = check_head(fd, ret_n_slots);
        if (r < 0)
                close(fd);
        return r < 0 ? r : fd;
}

static bool is_mapping_of(const struct requests *requests, int fd, unsigned n_slots)
{
        struct stat st;

        return requests->n_slots == n_slots && fstat(fd, &st) == 0 && st.st_dev == requests->dev &&
               st.st_ino == requests->ino;
}

struct requests *requests_map_ahead(int dirfd)
{
        struct requests *requests = NULL;
        unsigned n_slots;
        int fd = open_file(dirfd, &n_slots);

        if (fd < 0)
                return NULL;
        map(fd, n_slots, &requests);
        close(fd);
        return requests;
}

static int adopt(int dirfd, struct requests *ahead, struct requests **ret_requests)
{
        unsigned n_slots;
        int fd = open_file(dirfd, &n_slots), r = 0;

        if (ahead && (fd < 0 || !is_mapping_of(ahead, fd, n_slots)))
                g_clear_pointer(&ahead, requests_close);
        if (fd < 0)
                return fd;
        if (ahead)
                *ret_requests = ahead;
        else
                r = map(fd, n_slots, ret_requests);
        close(fd);
        if (r < 0)
                return r;
        for (unsigned i = 0; i < n_slots; i++)
                check_slot(slot(*ret_requests, i));
        (*ret_requests)->head->failpoint[REQUESTS_FAILPOINT - 1] = '\0';
        return 0;
}

int requests_open(int dirfd, bool resume, unsigned threads, struct requests *ahead,
                  struct requests **ret_requests)
{
        int r;

        if (!resume)
                g_clear_pointer(&ahead, requests_close);
        r = resume ? adopt(dirfd, ahead, ret_requests) : create(dirfd, threads, ret_requests);
        if (r == -EPROTO)
                g_warning("%s: is of a newer version of k42fs", NAME);
        else if (r < 0)
                g_warning("%s: cannot be %s: %s", NAME, resume ? "taken over" : "made",
                          g_strerror(-r));
        return r;
}

void requests_close(struct requests *requests)
{
        if (!requests)
                return;
        munmap(requests->head, requests->size);
        free(requests->taken);
        free(requests);
}

/* ---- slots ---- */

static bool is_orphan(struct requests *requests, unsigned i)
{
        struct request *request = slot(requests, i);

        return !atomic_load(&requests->taken[i]) && header_of(request)->len > 0 &&
               request->phase != REQUEST_ANSWERED;
}

struct request *requests_take(struct requests *requests)
{
        for (unsigned i = 0; i < requests->n_slots; i++)
                if (!is_orphan(requests, i) && !atomic_exchange(&requests->taken[i], true))
                        return slot(requests, i);
        return NULL;
}

static unsigned index_of(struct requests *requests, struct request *request)
{
        return (unsigned)(((char *)request - (char *)requests->head - PAGE) / SLOT_SIZE);
}

void requests_give_back(struct requests *requests, struct request *request)
{
        if (!request)
                return;
        if (request->phase == REQUEST_ANSWERED)
                request_before_read(request);
        atomic_store(&requests->taken[index_of(requests, request)], false);
}

struct request *requests_next_orphan(struct requests *requests, unsigned *cursor)
{
        while (*cursor < requests->n_slots) {
                const unsigned i = (*cursor)++;

                if (is_orphan(requests, i))
                        return slot(requests, i);
        }
        return NULL;
}

struct request *requests_find_orphan(struct requests *requests, uint64_t unique)
{
        struct request *orphan;
        unsigned cursor = 0;

        while ((orphan = requests_next_orphan(requests, &cursor)))
                if ((header_of(orphan)->unique & ~RESEND_BIT) == (unique & ~RESEND_BIT))
                        return orphan;
        return NULL;
}

void requests_resolved(struct requests *requests, struct request *orphan)
{
        request_before_read(orphan);
}

bool requests_raising(struct requests *requests, uint64_t id)
{
        for (unsigned i = 0; requests && i < requests->n_slots; i++) {
                const struct request *request = slot(requests, i);
                uint32_t n;

                if (!atomic_load(&requests->taken[i]) ||
                    atomic_load(&request->phase) == REQUEST_ANSWERED)
                        continue;
                if (atomic_load(&request->raising) == id)
                        return true;
                n = MIN(atomic_load(&request->n_raised), REQUEST_RAISED_MAX);
                while (n > 0)
                        if (atomic_load_explicit(&request->raised[--n], memory_order_relaxed) == id)
                                return true;
        }
        return false;
}

/* ---- the life of a request ---- */

/* The length goes first: from then on nothing of the last request means anything. */
void request_before_read(struct request *request)
{
        if (!request)
                return;
        header_of(request)->len = 0;
        atomic_signal_fence(memory_order_seq_cst);
        atomic_store_explicit(&request->raising, 0, memory_order_relaxed);
        atomic_store_explicit(&request->n_raised, 0, memory_order_relaxed);
        request->unique = 0;
        request->opcode = 0;
        request->attempts = 0;
        request->forgets = 0;
        request->flags = 0;
        request->facts.kind = 0;
        request->description = 0;
        request->reply_size = 0;
        request->counts[0] = request->counts[1] = (struct request_count){.handle = 0};
        atomic_store(&request->phase, REQUEST_READ);
}

void request_was_read(struct request *request)
{
        const struct fuse_in_header *header;

        if (!request)
                return;
        header = header_of(request);
        request->unique = header->unique & ~RESEND_BIT;
        request->opcode = header->opcode;
        request->attempts = 1;
        atomic_signal_fence(memory_order_seq_cst);
}

void request_flag(struct request *request, uint32_t flag)
{
        if (!request)
                return;
        request->flags |= flag;
        atomic_signal_fence(memory_order_seq_cst);
}

bool request_can_raise(const struct request *request)
{
        return !request ||
               atomic_load_explicit(&request->n_raised, memory_order_relaxed) < REQUEST_RAISED_MAX;
}

/* Sequentially consistent with requests_raising(): who does not see it here sees the node's old
 * count, which then changes under him. */
void request_raise(struct request *request, uint64_t id)
{
        if (request)
                atomic_store(&request->raising, id);
}

/* The list gets it before `raising` loses it, so that a reader finds it in one of them; a daemon
 * that died in between has it in both, which resume.c knows. */
void request_raised(struct request *request)
{
        uint32_t n;

        if (!request)
                return;
        n = atomic_load_explicit(&request->n_raised, memory_order_relaxed);
        if (n < REQUEST_RAISED_MAX) {
                atomic_store_explicit(&request->raised[n],
                                      atomic_load_explicit(&request->raising, memory_order_relaxed),
                                      memory_order_relaxed);
                atomic_store_explicit(&request->n_raised, n + 1, memory_order_release);
        }
        atomic_store_explicit(&request->raising, 0, memory_order_release);
}

void request_unraise(struct request *request, uint64_t id)
{
        uint32_t n;

        if (!request)
                return;
        n = MIN(atomic_load(&request->n_raised), REQUEST_RAISED_MAX);
        while (n > 0 && atomic_load(&request->raised[n - 1]) != id)
                n--;
        if (n == 0)
                return;
        atomic_store(&request->raising, id);
        atomic_store(&request->raised[n - 1], 0);
}

void request_unraised(struct request *request)
{
        if (request)
                atomic_store(&request->raising, 0);
}

void request_forget(struct request *request, uint32_t forgets)
{
        if (!request)
                return;
        atomic_signal_fence(memory_order_seq_cst);
        request->forgets = forgets;
        atomic_signal_fence(memory_order_seq_cst);
}

void request_done(struct request *request, int64_t result)
{
        if (!request)
                return;
        request->result = result;
        atomic_store_explicit(&request->phase, REQUEST_DONE, memory_order_release);
}

static uint32_t copy_out(char *to, size_t room, const struct iovec *iov, int count)
{
        size_t size = 0;

        for (int i = 0; i < count; i++) {
                if (iov[i].iov_len > room - size)
                        return 0;
                memcpy(to + size, iov[i].iov_base, iov[i].iov_len);
                size += iov[i].iov_len;
        }
        return (uint32_t)size;
}

void request_reply(struct request *request, const struct iovec *iov, int count, bool again)
{
        if (!request)
                return;
        request->reply_size = again ? 0 : copy_out(request->reply, REQUEST_REPLY_MAX, iov, count);
        atomic_store_explicit(&request->phase, REQUEST_REPLY, memory_order_release);
}

void request_answered(struct request *request)
{
        if (request)
                atomic_store_explicit(&request->phase, REQUEST_ANSWERED, memory_order_release);
}

bool request_count(struct request *request, unsigned which, uint64_t handle, uint64_t ops,
                   uint64_t bytes)
{
        struct request_count *count = request ? &request->counts[which] : NULL;

        if (!count)
                return true;
        if (count->counted)
                return false;
        count->ops = ops;
        count->bytes = bytes;
        atomic_signal_fence(memory_order_seq_cst);
        count->handle = handle;
        atomic_signal_fence(memory_order_seq_cst);
        return true;
}

void request_counted(struct request *request, unsigned which)
{
        atomic_signal_fence(memory_order_seq_cst);
        if (request)
                request->counts[which].counted = true;
}

/* ---- INIT and the rest of the head ---- */

void requests_set_init(struct requests *requests, const void *in, size_t in_size,
                       const struct iovec *out, int count)
{
        struct head *head = requests->head;

        if (in_size > INIT_MAX)
                in_size = INIT_MAX; /* what is newer than all that libfuse knows */
        memcpy(head->init, in, in_size);
        head->init_size = (uint32_t)in_size;
        atomic_store(&head->init_reply_size, copy_out(head->init_reply, INIT_MAX, out, count));
}

bool requests_get_init(struct requests *requests, const void **ret_in, size_t *ret_in_size,
                       const void **ret_out, size_t *ret_out_size)
{
        const struct head *head = requests->head;

        if (head->init_reply_size == 0)
                return false;
        *ret_in = head->init;
        *ret_in_size = head->init_size;
        *ret_out = head->init_reply;
        *ret_out_size = head->init_reply_size;
        return true;
}

uint32_t requests_resends(struct requests *requests)
{
        return atomic_load(&requests->head->resends);
}

void requests_count_resend(struct requests *requests)
{
        atomic_fetch_add(&requests->head->resends, 1);
}

char *requests_failpoint(struct requests *requests)
{
        return requests->head->failpoint;
}

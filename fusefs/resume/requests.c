/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file: a page for the head, then the slots, each its struct request on pages of its own and
 * the buffer behind them.
 *
 * What is ordered here is only what the compiler may reorder: a thread that is killed has executed
 * all instructions up to one point and none after it, and the next daemon reads the same memory
 * after that.  So release stores (and fences for signals) are all that it takes.
 */
#include "fusefs/resume/requests.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cobj/mapped_file.h"

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

/* What schema(5) says of the layout.  With another one it needs another REQUESTS_VERSION, and so does that page. */
G_STATIC_ASSERT(REQUESTS_VERSION == 3 && offsetof(struct head, init) == 40 &&
                offsetof(struct head, failpoint) == 552 && offsetof(struct request, result) == 40 &&
                offsetof(struct request, counts) == 136 && offsetof(struct request, raised) == 224 &&
                offsetof(struct request, reply) == 4320 && offsetof(struct request, check_unique) == 6368);

/* Of a slot, before its buffer. */
#define FACTS_SIZE ((sizeof(struct request) + PAGE - 1) / PAGE * PAGE)
G_STATIC_ASSERT(REQUEST_HEADERS % PAGE == 0 && REQUEST_WRITE_MAX % PAGE == 0);

struct requests {
        struct head *head; /* the mapping */
        size_t size;       /* of it */
        int fd;
        unsigned n_slots;
        unsigned buffer_size; /* bytes, headers included */
        bool lost;            /* constant after the start */
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

/* Bytes from one slot to the next. */
static size_t slot_size(unsigned buffer_size)
{
        return FACTS_SIZE + buffer_size;
}

static struct request *slot(struct requests *requests, unsigned i)
{
        return (struct request *)((char *)requests->head + PAGE +
                                  (size_t)i * slot_size(requests->buffer_size));
}

static size_t file_size(unsigned n_slots, unsigned buffer_size)
{
        return PAGE + (size_t)n_slots * slot_size(buffer_size);
}

unsigned requests_buffer_size(const struct requests *requests)
{
        return requests ? requests->buffer_size : REQUEST_WRITE_MAX + REQUEST_HEADERS;
}

unsigned requests_max_write(const struct requests *requests)
{
        return requests_buffer_size(requests) - REQUEST_HEADERS;
}

/* ---- what is believed ---- */

static uint64_t hash(const void *data, size_t size)
{
        uint64_t h = UINT64_C(0x9e3779b97f4a7c15) ^ size;

        for (size_t at = 0; at < size; at += sizeof h) {
                uint64_t word = 0;

                memcpy(&word, (const char *)data + at, MIN(sizeof word, size - at));
                h = (h ^ word) * UINT64_C(0xff51afd7ed558ccd);
                h ^= h >> 32;
        }
        return h == 0 ? 1 : h;
}

/* What it is, and does not change when it comes again or is shown to libfuse as another one (TMPFILE). */
static uint64_t hash_unique(struct request *request)
{
        const struct fuse_in_header *header = header_of(request);
        const uint64_t what[] = {header->unique & ~RESEND_BIT, header->nodeid, request->unique,
                                 request->opcode};

        return hash(what, sizeof what);
}

/* Did the dead daemon write all of it?  Counts and ids that are nonsense do no harm: they are nobody's. */
static bool makes_sense(struct request *request)
{
        const uint32_t phase = atomic_load(&request->phase);

        if (!request_is_known(request)) /* so nothing was done */
                return phase == REQUEST_READ && request->n_raised == 0 && request->description == 0;
        if (request->check_unique != hash_unique(request))
                return false;
        if (phase == REQUEST_REPLY && request->reply_size > 0 &&
            request->check_reply != hash(request->reply, request->reply_size))
                return false;
        if (phase == REQUEST_DONE &&
            request->check_result != hash(&request->result, sizeof request->result))
                return false;
        if (request->check_facts == 0) /* it does without, or nobody waited any more */
                return phase != REQUEST_INTENT || request->facts.kind == 0;
        return (phase != REQUEST_INTENT && phase != REQUEST_DONE) ||
               request->check_facts == hash(&request->facts, sizeof request->facts);
}

/* ---- the file ---- */

/* Locking it is worth trying: an ordinary user may not lock much, and then it is only faulted in.  `fd` is
 * theirs on success. */
static int map(int fd, unsigned n_slots, unsigned buffer_size, struct requests **ret_requests)
{
        struct requests *requests = calloc(1, sizeof *requests);
        void *mem;
        int r;

        if (!requests)
                return -ENOMEM;
        requests->n_slots = n_slots;
        requests->buffer_size = buffer_size;
        requests->size = file_size(n_slots, buffer_size);
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
        requests->fd = fd;
        *ret_requests = requests;
        return 0;
}

int requests_create(int dirfd, unsigned threads, unsigned max_write, struct requests **ret_requests)
{
        const unsigned n_slots = MIN(threads + SPARE, SLOTS_MAX);
        const unsigned buffer_size = max_write + REQUEST_HEADERS;
        struct requests *requests;
        int fd, r;

        fd = mapped_file_new(dirfd, NAME);
        if (fd < 0)
                return fd;
        r = mapped_file_reserve(fd, 0, (off_t)file_size(n_slots, buffer_size));
        if (r == 0)
                r = map(fd, n_slots, buffer_size, &requests);
        if (r < 0) {
                close(fd);
                unlinkat(dirfd, NAME, 0);
                return r;
        }
        requests->head->version = REQUESTS_VERSION;
        requests->head->n_slots = n_slots;
        requests->head->slot_size = (uint32_t)slot_size(buffer_size);
        requests->head->buffer_size = buffer_size;
        atomic_signal_fence(memory_order_seq_cst);
        requests->head->magic = MAGIC;
        *ret_requests = requests;
        return 0;
}

/* What another daemon has left is believed as little as possible: counts are bounded, so that
 * nonsense cannot lead out of the mapping. */
static void check_slot(struct requests *requests, struct request *request)
{
        struct fuse_in_header *header = header_of(request);

        if (header->len < sizeof *header || header->len > requests->buffer_size)
                header->len = 0;
        request->n_raised = MIN(request->n_raised, REQUEST_RAISED_MAX);
        if (request->reply_size > REQUEST_REPLY_MAX ||
            (request->reply_size > 0 && request->reply_size < sizeof(struct fuse_out_header)))
                request->reply_size = 0;
        if (request->phase > REQUEST_ANSWERED)
                request->phase = REQUEST_READ;
        request->flags &= ~(uint32_t)REQUEST_GONE;
        if (header->len > 0 && atomic_load(&request->phase) != REQUEST_ANSWERED && !makes_sense(request)) {
                requests->lost = true;
                request_before_read(request);
        }
}

static int check_head(int fd, unsigned *ret_n_slots, unsigned *ret_buffer_size)
{
        struct head head;
        struct stat st;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (pread(fd, &head, sizeof head, 0) != sizeof head || head.magic != MAGIC)
                return -EBADMSG;
        if (head.version > REQUESTS_VERSION)
                return -EPROTO;
        if (head.version != REQUESTS_VERSION || head.buffer_size <= REQUEST_HEADERS ||
            head.buffer_size > REQUEST_WRITE_MAX + REQUEST_HEADERS || head.buffer_size % PAGE != 0 ||
            head.slot_size != slot_size(head.buffer_size) || head.n_slots == 0 ||
            head.n_slots > SLOTS_MAX ||
            (size_t)st.st_size < file_size(head.n_slots, head.buffer_size) || head.init_size > INIT_MAX ||
            head.init_reply_size > INIT_MAX)
                return -EBADMSG;
        *ret_n_slots = head.n_slots;
        *ret_buffer_size = head.buffer_size;
        return 0;
}

static bool is_mapping_of(const struct requests *requests, int fd)
{
        struct stat mine, st;

        return fstat(requests->fd, &mine) == 0 && fstat(fd, &st) == 0 && st.st_dev == mine.st_dev &&
               st.st_ino == mine.st_ino && (size_t)st.st_size >= requests->size;
}

/* `fd` is theirs on success, and `ahead` whatever comes of it. */
static int adopt_fd(int fd, struct requests *ahead, struct requests **ret_requests)
{
        unsigned n_slots, buffer_size;
        int r = check_head(fd, &n_slots, &buffer_size);

        if (ahead && (r < 0 || !is_mapping_of(ahead, fd) || ahead->n_slots != n_slots ||
                      ahead->buffer_size != buffer_size))
                g_clear_pointer(&ahead, requests_close);
        if (ahead) {
                close(fd);
                *ret_requests = ahead;
        } else if (r == 0) {
                r = map(fd, n_slots, buffer_size, ret_requests);
        }
        if (r < 0)
                return r;
        for (unsigned i = 0; i < n_slots; i++)
                check_slot(*ret_requests, slot(*ret_requests, i));
        (*ret_requests)->head->failpoint[REQUESTS_FAILPOINT - 1] = '\0';
        if ((*ret_requests)->lost)
                g_warning("%s: what it has of a request is damaged", NAME);
        return 0;
}

static int open_file(int dirfd)
{
        int fd = openat(dirfd, NAME, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

        return fd < 0 ? -errno : fd;
}

struct requests *requests_map_ahead(int dirfd)
{
        struct requests *requests = NULL;
        unsigned n_slots, buffer_size;
        int fd = open_file(dirfd);

        if (fd >= 0 && (check_head(fd, &n_slots, &buffer_size) < 0 ||
                        map(fd, n_slots, buffer_size, &requests) < 0))
                close(fd);
        return requests;
}

int requests_adopt(int dirfd, struct requests *ahead, struct requests **ret_requests)
{
        int fd = open_file(dirfd), r = fd;

        if (fd < 0) {
                requests_close(ahead);
                return fd;
        }
        r = adopt_fd(fd, ahead, ret_requests);
        if (r < 0)
                close(fd);
        return r;
}

int requests_adopt_fd(int fd, struct requests *ahead, struct requests **ret_requests)
{
        const int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        int r;

        if (own < 0) {
                r = -errno;
                requests_close(ahead);
                return r;
        }
        r = adopt_fd(own, ahead, ret_requests);
        if (r < 0)
                close(own);
        return r;
}

int requests_renew(int dirfd, unsigned threads, unsigned max_write, struct requests **ret_requests)
{
        int r = requests_create(dirfd, threads, max_write, ret_requests);

        if (r == 0)
                (*ret_requests)->lost = true;
        return r;
}

bool requests_lost(const struct requests *requests)
{
        return requests->lost;
}

int requests_fd(const struct requests *requests)
{
        return requests->fd;
}

void requests_close(struct requests *requests)
{
        if (!requests)
                return;
        munmap(requests->head, requests->size);
        close(requests->fd);
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
        return (unsigned)(((char *)request - (char *)requests->head - PAGE) /
                          slot_size(requests->buffer_size));
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
        request->crashes = request->kills = 0;
        request->forgets = 0;
        request->flags = 0;
        request->facts.kind = 0;
        request->check_unique = request->check_facts = 0;
        request->description = 0;
        request->reply_size = 0;
        request->counts[0] = request->counts[1] = (struct request_count){.handle = 0};
        atomic_store(&request->phase, REQUEST_READ);
}

void request_identify(struct request *request)
{
        const struct fuse_in_header *header = header_of(request);

        request->unique = header->unique & ~RESEND_BIT;
        request->opcode = header->opcode;
        atomic_signal_fence(memory_order_seq_cst);
        request->check_unique = hash_unique(request);
}

bool request_is_known(const struct request *request)
{
        return request->check_unique != 0;
}

void request_was_read(struct request *request)
{
        if (!request)
                return;
        request_identify(request);
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

void request_intended(struct request *request)
{
        request->check_facts = hash(&request->facts, sizeof request->facts);
        atomic_store_explicit(&request->phase, REQUEST_INTENT, memory_order_release);
}

void request_done(struct request *request, int64_t result)
{
        if (!request)
                return;
        request->result = result;
        request->check_result = hash(&request->result, sizeof request->result);
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
        request->check_reply = hash(request->reply, request->reply_size);
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

#define INIT_SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

struct saved_init {
        uint64_t magic;
        uint32_t version, init_size, init_reply_size, reserved;
        char init[INIT_MAX], init_reply[INIT_MAX];
};

int requests_save_init(const struct requests *requests)
{
        const struct head *head = requests->head;
        struct saved_init saved = {
                .magic = MAGIC,
                .version = REQUESTS_VERSION,
                .init_size = head->init_size,
                .init_reply_size = head->init_reply_size,
        };
        int fd, r;

        if (head->init_reply_size == 0)
                return -ENODATA;
        memcpy(saved.init, head->init, INIT_MAX);
        memcpy(saved.init_reply, head->init_reply, INIT_MAX);
        fd = memfd_create("k42fs-init", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return -errno;
        r = pwrite(fd, &saved, sizeof saved, 0) != sizeof saved || fcntl(fd, F_ADD_SEALS, INIT_SEALS) < 0
                    ? -EIO
                    : 0;
        if (r < 0)
                close(fd);
        return r < 0 ? r : fd;
}

int requests_restore_init(struct requests *requests, int fd)
{
        struct head *head = requests->head;
        struct saved_init saved;

        if (pread(fd, &saved, sizeof saved, 0) != sizeof saved || saved.magic != MAGIC ||
            saved.version != REQUESTS_VERSION || saved.init_size > INIT_MAX ||
            saved.init_reply_size > INIT_MAX || saved.init_reply_size == 0)
                return -EBADMSG;
        memcpy(head->init, saved.init, INIT_MAX);
        memcpy(head->init_reply, saved.init_reply, INIT_MAX);
        head->init_size = saved.init_size;
        atomic_store(&head->init_reply_size, saved.init_reply_size);
        return 0;
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

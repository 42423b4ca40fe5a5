/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lazy/account.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lazy/description.h"
#include "lazy/lazy_private.h"
#include "lazy/protocol.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW)
#define LOOKS_OF_A_USER 4
#define LOOK_WAIT_US    50000
#define WORDS ((K42_ACCOUNT_SLOTS + 63) / 64)

G_STATIC_ASSERT((int)TOLD == K42_ACCOUNT_COUNTERS && (int)TOLD_MAPPED_BYTES == (int)K42_MAPPED_BYTES);

struct account {
        struct account_holder holder; /* constant, like the next */
        uint64_t client;
        GMutex lock;                  /* protects what follows */
        int fd;
        _Atomic uint64_t nonce;
        uint64_t used[WORDS]; /* slots; never slot 0 */
};

#define HEAD_SIZE sizeof(struct k42_account_head)

static off_t slot_at(uint32_t slot)
{
        return (off_t)(offsetof(struct k42_account, slot) + slot * sizeof(struct k42_account_slot));
}

static off_t lane_at(unsigned lane, uint32_t slot)
{
        return (off_t)(offsetof(struct k42_account, lane) +
                       ((lane - 1) * (size_t)K42_ACCOUNT_LANE_SLOTS + slot) * sizeof(struct k42_account_lane));
}

static uint64_t memfd_dev(void)
{
        struct stat st;
        int fd = memfd_create("k42fs", MFD_CLOEXEC);
        uint64_t dev = 0;

        if (fd < 0)
                return 0;
        if (fstat(fd, &st) == 0)
                dev = st.st_dev;
        close(fd);
        return dev;
}

void account_set_holder(struct lazy *lazy, const struct account_holder *holder)
{
        lazy->account_holder = *holder;
        lazy->account_dev = memfd_dev();
}

static void account_destroy(void *data)
{
        struct account *account = data;

        account->holder.hold(account->client, -1, account->holder.data);
        if (account->fd >= 0)
                close(account->fd);
        g_mutex_clear(&account->lock);
        free(account);
}

/* ---- the file ---- */

static bool good_head(const struct k42_account_head *head)
{
        return head->version == K42_ACCOUNT_VERSION && head->length == K42_ACCOUNT_LENGTH &&
               head->nonce != 0;
}

static bool locked_may_look(const struct account_looks *looks, uid_t uid)
{
        unsigned of_user = 0;

        for (unsigned i = 0; i < looks->n; i++)
                of_user += looks->users[i] == uid;
        return looks->n < ACCOUNT_LOOKS && of_user < LOOKS_OF_A_USER;
}

/* Waits until it may, which is at once unless somebody means no good.  False if it may not. */
static bool look_begin(struct account_looks *looks, uid_t uid)
{
        int64_t until = 0;
        bool may;

        g_mutex_lock(&looks->lock);
        looks->waiting++;
        while (!(may = locked_may_look(looks, uid))) {
                until = until ? until : g_get_monotonic_time() + LOOK_WAIT_US;
                if (!g_cond_wait_until(&looks->ended, &looks->lock, until))
                        break;
        }
        looks->waiting--;
        if (may)
                looks->users[looks->n++] = uid;
        g_mutex_unlock(&looks->lock);
        return may;
}

static void look_end(struct account_looks *looks, uid_t uid)
{
        unsigned i = 0;

        g_mutex_lock(&looks->lock);
        while (looks->users[i] != uid)
                i++;
        looks->users[i] = looks->users[--looks->n];
        if (looks->waiting > 0) /* a GCond makes a system call for nobody, too */
                g_cond_broadcast(&looks->ended);
        g_mutex_unlock(&looks->lock);
}

/* The head of the account of the process of thread `tid`, of user `uid`, as it is mapped there now.  That waits for
 * what its address space waits for, which somebody who means no good can make long: so only some threads may
 * look at a time, and fewer into one user's processes, so that he takes nobody else's place.  The others wait a
 * moment, which is many times what a look takes; then the process has no account for them. */
static bool read_remote_head(struct lazy *lazy, pid_t tid, uid_t uid, struct k42_account_head *ret_head)
{
        struct iovec local = {ret_head, HEAD_SIZE};
        struct iovec remote = {(void *)(uintptr_t)K42_ACCOUNT_ADDRESS, HEAD_SIZE};
        ssize_t n;

        if (!look_begin(&lazy->account_looks, uid))
                return false;
        n = process_vm_readv(tid, &local, 1, &remote, 1, 0);
        look_end(&lazy->account_looks, uid);
        return n == (ssize_t)HEAD_SIZE && good_head(ret_head);
}

/* Is it what a shim makes?  Asked of an O_PATH descriptor, and without asking whoever serves the file. */
static bool good_file(const struct lazy *lazy, int path_fd)
{
        struct statx stx;

        return statx(path_fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_SIZE, &stx) == 0 &&
               makedev(stx.stx_dev_major, stx.stx_dev_minor) == lazy->account_dev &&
               S_ISREG(stx.stx_mode) && stx.stx_size == K42_ACCOUNT_LENGTH;
}

static bool good_descriptor(int fd, uint64_t nonce)
{
        struct k42_account_head head;
        const int seals = fcntl(fd, F_GET_SEALS);

        return seals >= 0 && (seals & SEALS) == SEALS &&
               pread(fd, &head, HEAD_SIZE, 0) == (ssize_t)HEAD_SIZE && good_head(&head) &&
               (nonce == 0 || head.nonce == nonce);
}

/* The memfd that thread `tid` has mapped, or -1, or, if we may not see it and it is not offered either, -EPERM. */
static int open_file(const struct lazy *lazy, pid_t tid, const struct k42_account_head *head)
{
        char path[96];
        int path_fd, fd = -1;

        g_snprintf(path, sizeof path, "/proc/%d/map_files/%llx-%llx", (int)tid,
                   (unsigned long long)K42_ACCOUNT_ADDRESS,
                   (unsigned long long)K42_ACCOUNT_ADDRESS + K42_ACCOUNT_LENGTH);
        path_fd = open(path, O_PATH | O_CLOEXEC);
        if (path_fd < 0 && errno == EPERM) {
                if (head->fd <= 0)
                        return -EPERM;
                g_snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)tid, head->fd);
                path_fd = open(path, O_PATH | O_CLOEXEC);
        }
        if (path_fd < 0)
                return -1;
        if (good_file(lazy, path_fd)) {
                g_snprintf(path, sizeof path, "/proc/self/fd/%d", path_fd);
                fd = open(path, O_RDWR | O_CLOEXEC);
        }
        close(path_fd);
        if (fd >= 0 && !good_descriptor(fd, head->nonce)) {
                close(fd);
                fd = -1;
        }
        return fd;
}

/* ---- slots ---- */

static bool locked_read_slot(const struct account *account, uint32_t slot,
                             struct k42_account_slot *ret_slot)
{
        return pread(account->fd, ret_slot, sizeof *ret_slot, slot_at(slot)) ==
               (ssize_t)sizeof *ret_slot;
}

/* Adds what the threads with a lane of their own counted for the slot.  Read after its flags: a bit that is
 * there was set after the lane's counters were cleared.  Numbers that are not possible stay so. */
static bool locked_add_lanes(const struct account *account, uint32_t number, struct k42_account_slot *slot)
{
        uint64_t lane[K42_ACCOUNT_COUNTERS];

        for (unsigned n = 1; n <= K42_ACCOUNT_LANES && number < K42_ACCOUNT_LANE_SLOTS; n++) {
                if (!(slot->flags & K42_ACCOUNT_LANE(n)))
                        continue;
                if (pread(account->fd, lane, sizeof lane, lane_at(n, number)) != (ssize_t)sizeof lane)
                        return false;
                for (unsigned i = 0; i < TOLD; i++)
                        slot->counters[i] = MAX(slot->counters[i], lane[i]) <= K42_ACCOUNT_MOST
                                                    ? slot->counters[i] + lane[i]
                                                    : UINT64_MAX;
        }
        return true;
}

/* Numbers only grow, and not beyond what anybody could do. */
static void take_counters(struct open_client_data *data, const struct k42_account_slot *slot)
{
        struct kept_handle *kept = data->base.kept;
        uint32_t undecided = SHARING_LAZY_INIT;
        bool more = false;

        for (unsigned i = 0; i < TOLD; i++) {
                const uint64_t value = slot->counters[i];

                if (value > atomic_load(&kept->told[i]) && value <= K42_ACCOUNT_MOST) {
                        atomic_store(&kept->told[i], value);
                        more = true;
                }
        }
        if (!more)
                return;
        atomic_compare_exchange_strong(&kept->sharing, &undecided, SHARING_NON_SHARED);
        atomic_store_explicit(&data->base.dirty, true, memory_order_release);
}

/* Whether the handle has a slot of the account as it is now. */
static bool locked_has_slot(const struct account *account, const struct open_client_data *data)
{
        return atomic_load(&data->slot) != 0 && data->slot_nonce == atomic_load(&account->nonce);
}

static void locked_absorb(const struct account *account, struct open_client_data *data, uint64_t token)
{
        struct k42_account_slot slot;

        if (locked_has_slot(account, data) && locked_read_slot(account, atomic_load(&data->slot), &slot) &&
            slot.token == token && locked_add_lanes(account, atomic_load(&data->slot), &slot))
                take_counters(data, &slot);
}

static uint32_t locked_free_slot(struct account *account)
{
        for (unsigned i = 0; i < WORDS; i++) {
                const uint64_t free_bits = ~account->used[i] & (i == 0 ? ~UINT64_C(1) : ~UINT64_C(0));
                const unsigned slot = free_bits ? 64 * i + (unsigned)__builtin_ctzll(free_bits) : 0;

                if (free_bits)
                        return slot < K42_ACCOUNT_SLOTS ? slot : 0;
        }
        return 0;
}

static void locked_mark(struct account *account, uint32_t slot, bool used)
{
        const uint64_t bit = UINT64_C(1) << (slot % 64);

        if (used)
                account->used[slot / 64] |= bit;
        else
                account->used[slot / 64] &= ~bit;
}

/* A slot of its own for the handle, with the numbers that it has.  False if there is none to be had. */
static bool locked_give_slot(struct account *account, struct client *client,
                             struct open_client_data *data, uint64_t token)
{
        _Atomic uint32_t *highest = &client_kept(client)->account;
        const uint32_t number = data->ending ? 0 : locked_free_slot(account);
        struct k42_account_slot slot = {
                .token = token,
                .flags = data->description->io_class == IO_CLASS_COUNTED ? K42_ACCOUNT_CALLS_SEEN : 0,
        };

        if (number == 0)
                return false;
        for (unsigned i = 0; i < TOLD; i++)
                slot.counters[i] = atomic_load(&data->base.kept->told[i]);
        if (atomic_load(highest) < number)
                atomic_store(highest, number);
        if (pwrite(account->fd, &slot, sizeof slot, slot_at(number)) != (ssize_t)sizeof slot)
                return false;
        atomic_store(&data->base.kept->says, 1);
        locked_mark(account, number, true);
        data->slot_nonce = atomic_load(&account->nonce);
        atomic_store(&data->slot, number);
        atomic_store_explicit(&data->base.dirty, true, memory_order_release);
        return true;
}

/* ---- accounts ---- */

static struct account *account_new(struct lazy *lazy, struct client *client)
{
        struct account *account = calloc(1, sizeof *account);

        if (!account)
                return NULL;
        g_mutex_init(&account->lock);
        account->fd = -1;
        account->client = client_info(client)->id;
        account->holder = lazy->account_holder;
        if (client_attach(client, account, account_destroy))
                return account;
        account->holder = (struct account_holder){NULL};
        g_mutex_clear(&account->lock);
        free(account);
        return client_attached(client);
}

/* For each handle of the client that has a slot: what the file of an earlier image says for the last time. */
static void locked_close_file(struct lazy *lazy, struct client *client, struct account *account)
{
        struct k42_account_slot slot;

        for (uint32_t i = 1; i < K42_ACCOUNT_SLOTS; i++) {
                g_autoptr(K42Xobj) xobj = NULL;

                if (account->used[i / 64] == 0) {
                        i |= 63;
                        continue;
                }
                if (!(account->used[i / 64] >> (i % 64) & 1) || !locked_read_slot(account, i, &slot))
                        continue;
                xobj = cobj_get_xobj(lazy->cobj, slot.token);
                if (xobj && xobj_client(xobj) == client) {
                        struct open_client_data *data = (void *)xobj_client_data(xobj);

                        if (atomic_load(&data->slot) == i)
                                locked_absorb(account, data, slot.token);
                }
        }
        memset(account->used, 0, sizeof account->used);
        close(account->fd);
        account->fd = -1;
}

static size_t post_at(pid_t tid)
{
        return offsetof(struct k42_account, post) +
               (unsigned)tid % K42_ACCOUNT_POSTS * sizeof(struct k42_account_post);
}

/* Asks for the file, by the mapping, which is all that an ordinary user's daemon can reach. */
static void ask_for_file(struct lazy *lazy, pid_t tid, uid_t uid, uint64_t token)
{
        struct k42_account_post post = {.tid = (uint32_t)tid, .token = token};
        struct iovec local = {&post, sizeof post};
        struct iovec remote = {(void *)(uintptr_t)(K42_ACCOUNT_ADDRESS + post_at(tid)), sizeof post};

        if (!look_begin(&lazy->account_looks, uid))
                return;
        (void)!process_vm_writev(tid, &local, 1, &remote, 1, 0);
        look_end(&lazy->account_looks, uid);
}

/* The account of the client's process as it is now, or NULL; *ret_ask: it would have to be offered. */
static struct account *find_account(struct lazy *lazy, struct client *client, pid_t tid, bool *ret_ask)
{
        struct account *account = client_attached(client);
        struct k42_account_head head;
        int fd;

        *ret_ask = false;
        if (lazy->account_dev == 0 || client_info(client)->pid <= 0 ||
            !read_remote_head(lazy, tid, client_info(client)->uid, &head) ||
            head.pid != client_info(client)->pid)
                return NULL;
        if (account && atomic_load(&account->nonce) == head.nonce)
                return account;
        g_mutex_lock(&lazy->account_lock);
        account = account ? account : account_new(lazy, client);
        if (account && atomic_load(&account->nonce) != head.nonce) {
                fd = open_file(lazy, tid, &head);
                *ret_ask = fd == -EPERM;
                g_mutex_lock(&account->lock);
                if (fd >= 0) {
                        if (account->fd >= 0)
                                locked_close_file(lazy, client, account);
                        account->fd = fd;
                        atomic_store(&account->nonce, head.nonce);
                        account->holder.hold(account->client, fd, account->holder.data);
                }
                g_mutex_unlock(&account->lock);
                if (fd < 0)
                        account = NULL;
        }
        g_mutex_unlock(&lazy->account_lock);
        return account;
}

void account_post(struct description *d, pid_t tid, uint64_t token)
{
        g_autoptr(K42Xobj) xobj = NULL;
        struct open_client_data *data;
        struct account *account;
        struct k42_account_post post = {.tid = (uint32_t)tid, .token = token};
        bool ask;

        if (d->type != XOBJ_FILE || tid <= 0 || d->lazy->account_dev == 0)
                return;
        xobj = cobj_get_xobj(d->lazy->cobj, token);
        if (!xobj)
                return;
        account = find_account(d->lazy, xobj_client(xobj), tid, &ask);
        if (ask && client_attached(xobj_client(xobj))) /* another thread may have offered it meanwhile */
                account = find_account(d->lazy, xobj_client(xobj), tid, &ask);
        if (ask)
                ask_for_file(d->lazy, tid, client_info(xobj_client(xobj))->uid, token);
        if (!account)
                return;
        data = (struct open_client_data *)xobj_client_data(xobj);
        g_mutex_lock(&account->lock);
        if (locked_has_slot(account, data) || locked_give_slot(account, xobj_client(xobj), data, token)) {
                post.slot = atomic_load(&data->slot);
                (void)!pwrite(account->fd, &post, sizeof post, (off_t)post_at(tid));
        }
        g_mutex_unlock(&account->lock);
}

static void collect_one(struct xobj *xobj, void *unused)
{
        struct open_client_data *data = (struct open_client_data *)xobj_client_data(xobj);
        struct account *account = client_attached(xobj_client(xobj));

        if (!account || atomic_load(&data->slot) == 0)
                return;
        g_mutex_lock(&account->lock);
        locked_absorb(account, data, xobj_token(xobj));
        g_mutex_unlock(&account->lock);
}

void account_collect(struct lazy *lazy)
{
        cobj_foreach_handle(lazy->cobj, collect_one, NULL);
}

void account_end(struct open_client_data *data)
{
        static const uint64_t none;
        struct account *account = client_attached(data->client);

        if (!account)
                return;
        g_mutex_lock(&account->lock);
        data->ending = true;
        if (locked_has_slot(account, data)) {
                const uint32_t slot = atomic_load(&data->slot);

                locked_absorb(account, data, data->base.kept->token);
                (void)!pwrite(account->fd, &none, sizeof none, slot_at(slot));
                locked_mark(account, slot, false);
        }
        g_mutex_unlock(&account->lock);
}

/* ---- an earlier daemon's ---- */

static void resume_file(struct lazy *lazy, struct client *client, struct account *account)
{
        const uint32_t highest = MIN(atomic_load(&client_kept(client)->account), K42_ACCOUNT_SLOTS - 1);
        struct k42_account_slot slot;

        for (uint32_t i = 1; i <= highest && locked_read_slot(account, i, &slot); i++) {
                g_autoptr(K42Xobj) xobj = slot.token ? cobj_get_xobj(lazy->cobj, slot.token) : NULL;

                if (xobj && xobj_client(xobj) == client) {
                        struct open_client_data *data = (void *)xobj_client_data(xobj);

                        data->slot_nonce = atomic_load(&account->nonce);
                        atomic_store(&data->slot, i);
                        locked_mark(account, i, true);
                }
        }
}

static void resume_one(struct xobj *xobj, void *data)
{
        struct lazy *lazy = data;
        struct client *client = xobj_client(xobj);
        struct k42_account_head head;
        struct account *account;
        int fd;

        if (atomic_load(&client_kept(client)->account) == 0 || client_attached(client))
                return;
        fd = lazy->account_holder.take(client_info(client)->id, lazy->account_holder.data);
        if (fd < 0)
                return;
        account = good_file(lazy, fd) && good_descriptor(fd, 0) &&
                                  pread(fd, &head, HEAD_SIZE, 0) == (ssize_t)HEAD_SIZE
                          ? account_new(lazy, client)
                          : NULL;
        if (!account) {
                close(fd);
                return;
        }
        account->fd = fd;
        atomic_store(&account->nonce, head.nonce);
        resume_file(lazy, client, account);
}

void account_resume(struct lazy *lazy)
{
        if (lazy->account_dev != 0)
                cobj_foreach_handle(lazy->cobj, resume_one, lazy);
}

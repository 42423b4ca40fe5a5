/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Messages are built on the caller's stack and sent by one sendmsg(), so senders need no lock.  The
 * worker sends blocking: the holder reads at once, and a descriptor that must outlive us is worth the
 * wait.
 */
#include "fusefs/holder/link.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct parked {
        uint64_t key;
        int fd; /* -1: taken */
};

struct link {
        struct link_start start;
        int start_fds[LINK_START_FDS];
        pthread_mutex_t lock;
        struct link_start news; /* under lock */
        struct parked *parked; /* sorted by key once START has come */
        size_t n_parked, room;
};

size_t link_length(const struct link_head *head)
{
        switch (head->type) {
        case LINK_PARKED:
                return head->key <= LINK_PARKED_MAX
                               ? sizeof *head + (size_t)head->key * sizeof(uint64_t)
                               : 0;
        case LINK_START:
        case LINK_NEWS:
                return sizeof *head + sizeof(struct link_start);
        case LINK_END:
        case LINK_STOP:
        case LINK_READY:
        case LINK_SERVED:
        case LINK_PARK:
        case LINK_UNPARK:
        case LINK_ASKED:
        case LINK_UPGRADE:
        case LINK_ENDING:
        case LINK_WAITING:
        case LINK_GOING:
                return sizeof *head;
        default:
                return 0;
        }
}

int link_send(int fd, const struct link_message *message, const int *fds, unsigned n_fds, int flags)
{
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(LINK_PARKED_MAX * sizeof(int))];
        } control;
        struct iovec iov = {(void *)message, link_length(&message->head)};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        ssize_t n;

        if (iov.iov_len == 0 || n_fds > LINK_PARKED_MAX)
                return -EINVAL;
        if (n_fds > 0) {
                struct cmsghdr *cmsg;

                memset(&control, 0, sizeof control);
                msg.msg_control = control.space;
                msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                cmsg = CMSG_FIRSTHDR(&msg);
                cmsg->cmsg_level = SOL_SOCKET;
                cmsg->cmsg_type = SCM_RIGHTS;
                cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
        }
        do
                n = sendmsg(fd, &msg, MSG_NOSIGNAL | flags);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : 0;
}

/* The descriptors that came with a message, up to LINK_PARKED_MAX (there was no room for more). */
static unsigned take_descriptors(struct msghdr *msg, int *ret_fds)
{
        unsigned n = 0;

        for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
                if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
                        continue;
                for (size_t at = CMSG_LEN(0); at + sizeof(int) <= cmsg->cmsg_len; at += sizeof(int))
                        memcpy(&ret_fds[n++], (char *)cmsg + at, sizeof(int));
        }
        return n;
}

int link_receive(int fd, struct link_message *ret_message, int *ret_fds, unsigned *ret_n_fds, int flags)
{
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(LINK_PARKED_MAX * sizeof(int))];
        } control;
        struct iovec iov = {ret_message, sizeof *ret_message};
        struct msghdr msg = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = control.space,
                .msg_controllen = sizeof control.space,
        };
        ssize_t n;

        *ret_n_fds = 0;
        do
                n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | flags);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return errno == ECONNRESET ? -EPIPE : -errno;
        if (n == 0)
                return -EPIPE;
        *ret_n_fds = take_descriptors(&msg, ret_fds);
        if (n < (ssize_t)sizeof ret_message->head || (msg.msg_flags & MSG_TRUNC) ||
            ret_message->head.version != LINK_VERSION ||
            (size_t)n != link_length(&ret_message->head)) {
                while (*ret_n_fds > 0)
                        close(ret_fds[--*ret_n_fds]);
                return -EPROTO;
        }
        return 0;
}

/* ---- the worker's side ---- */

static int add_parked(struct link *link, const struct link_message *message, const int *fds,
                      unsigned n_fds)
{
        /* fewer descriptors than keys: our own table of descriptors is full */
        const unsigned n = (unsigned)MIN(message->head.key, n_fds);

        if (link->n_parked + n > link->room) {
                const size_t room = MAX(link->room * 2, LINK_PARKED_MAX * 4);
                struct parked *grown = reallocarray(link->parked, room, sizeof *grown);

                if (!grown)
                        return -ENOMEM;
                link->parked = grown;
                link->room = room;
        }
        for (unsigned i = 0; i < n; i++)
                link->parked[link->n_parked++] = (struct parked){message->keys[i], fds[i]};
        return n < message->head.key ? -EMFILE : 0;
}

static int compare_keys(const void *a, const void *b)
{
        const struct parked *x = a, *y = b;

        return x->key < y->key ? -1 : x->key > y->key;
}

/* Everything up to START. */
static int receive_start(struct link *link)
{
        struct link_message message;
        int fds[LINK_PARKED_MAX], r;
        unsigned n_fds;

        for (;;) {
                r = link_receive(LINK_FD_LINK, &message, fds, &n_fds, 0);
                if (r < 0)
                        return r;
                if (message.head.type == LINK_START)
                        break;
                r = message.head.type == LINK_PARKED ? add_parked(link, &message, fds, n_fds)
                                                     : -EPROTO;
                if (r == -EMFILE)
                        g_warning("parked files cannot all be taken over: %s", g_strerror(EMFILE));
                else if (r < 0)
                        return r;
        }
        if (n_fds != LINK_START_FDS) { /* our own table of descriptors is full */
                while (n_fds > 0)
                        close(fds[--n_fds]);
                return -EMFILE;
        }
        memcpy(link->start_fds, fds, sizeof link->start_fds);
        link_set_news(link, &message.start);
        link->start = link->news;
        if (link->n_parked > 0)
                qsort(link->parked, link->n_parked, sizeof *link->parked, compare_keys);
        return 0;
}

int link_open(struct link **ret_link)
{
        struct link *link = calloc(1, sizeof *link);
        int r = link ? 0 : -ENOMEM;

        for (int fd = LINK_FD_LINK; r == 0 && fd < LINK_FD_END; fd++)
                if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
                        r = -errno;
        if (r < 0) {
                g_warning("--worker is not for users: %s", g_strerror(-r));
                free(link);
                return r;
        }
        pthread_mutex_init(&link->lock, NULL);
        *ret_link = link;
        return 0;
}

int link_wait(struct link *link)
{
        int r = link_tell(link, LINK_WAITING, -1);

        if (r == 0)
                r = receive_start(link);
        if (r < 0 && r != -EPIPE)
                g_warning("--worker is not for users: %s",
                          r == -EPROTO ? "the holder speaks another version" : g_strerror(-r));
        return r < 0 ? r : link_tell(link, LINK_GOING, -1);
}

void link_close(struct link *link)
{
        if (!link)
                return;
        for (size_t i = 0; i < link->n_parked; i++)
                if (link->parked[i].fd >= 0)
                        close(link->parked[i].fd);
        free(link->parked);
        pthread_mutex_destroy(&link->lock);
        free(link);
}

int link_fd(const struct link *link)
{
        return LINK_FD_LINK;
}

const struct link_start *link_start(const struct link *link)
{
        return &link->start;
}

int link_fuse_fd(const struct link *link)
{
        return link->start_fds[LINK_START_FUSE];
}

int link_control_fd(const struct link *link)
{
        return link->start_fds[LINK_START_CONTROL];
}

void link_set_news(struct link *link, const struct link_start *news)
{
        pthread_mutex_lock(&link->lock);
        link->news = *news;
        link->news.last_death[sizeof link->news.last_death - 1] = '\0';
        pthread_mutex_unlock(&link->lock);
}

void link_get_news(struct link *link, struct link_start *ret_news)
{
        pthread_mutex_lock(&link->lock);
        *ret_news = link->news;
        pthread_mutex_unlock(&link->lock);
}

int link_take_parked(struct link *link, uint64_t key)
{
        struct parked wanted = {.key = key}, *found = NULL;
        int fd;

        if (link && link->n_parked > 0)
                found = bsearch(&wanted, link->parked, link->n_parked, sizeof wanted, compare_keys);
        if (!found || found->fd < 0)
                return -ENOENT;
        fd = found->fd;
        found->fd = -1;
        return fd;
}

void link_drop_parked(struct link *link)
{
        if (!link)
                return;
        for (size_t i = 0; i < link->n_parked; i++) {
                if (link->parked[i].fd < 0)
                        continue;
                close(link->parked[i].fd);
                link_unpark(link, link->parked[i].key);
        }
        g_clear_pointer(&link->parked, free);
        link->n_parked = link->room = 0;
}

static int tell(enum link_type type, uint64_t key, int fd)
{
        const struct link_message message = {
                .head = {.version = LINK_VERSION, .type = type, .key = key},
        };

        return link_send(LINK_FD_LINK, &message, &fd, fd >= 0 ? 1 : 0, 0);
}

int link_send_park(struct link *link, uint64_t key, int fd)
{
        return link ? tell(LINK_PARK, key, fd) : 0;
}

void link_unpark(struct link *link, uint64_t key)
{
        if (link)
                tell(LINK_UNPARK, key, -1); /* a holder that is gone has closed it */
}

int link_tell(struct link *link, enum link_type type, int fd)
{
        return link ? tell(type, 0, fd) : 0;
}

int link_tell_asked(struct link *link, int sig)
{
        return link ? tell(LINK_ASKED, (uint64_t)sig, -1) : 0;
}

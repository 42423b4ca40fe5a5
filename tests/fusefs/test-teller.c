/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Messages of several threads at once: each is written once, whole, and its own result comes back.  The kernel is
 * a socket that keeps messages apart. */
#include <errno.h>
#include <glib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fusefs/worker/teller.h"

#define TELLERS  4
#define MESSAGES 5000

struct message {
        guint32 who, number;
        char text[TELLERS]; /* as many of them as `who`, so that each thread's have a length of their own */
};

static struct teller *teller;

static void *tell(void *data)
{
        struct message message = {.who = GPOINTER_TO_UINT(data)};
        const size_t head = offsetof(struct message, text);

        for (message.number = 0; message.number < MESSAGES; message.number++) {
                const struct iovec iov[] = {{&message, head}, {message.text, message.who}};
                ssize_t n = teller_write(teller, iov, G_N_ELEMENTS(iov));

                if (n != (ssize_t)(head + message.who))
                        return (void *)"another's result";
        }
        return NULL;
}

static void many_at_once(void)
{
        GThread *threads[TELLERS];
        guint32 next[TELLERS] = {0};
        struct message message;
        int fds[2];

        g_assert_no_errno(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds));
        g_assert_cmpint(teller_start(fds[1], &teller), ==, 0);
        for (guint i = 0; i < TELLERS; i++)
                threads[i] = g_thread_new("tells", tell, GUINT_TO_POINTER(i));
        for (guint i = 0; i < TELLERS * MESSAGES; i++) {
                struct timeval patience = {.tv_sec = 10};
                ssize_t n;

                setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
                n = recv(fds[0], &message, sizeof message, 0);
                g_assert_cmpint(n, >=, (gssize)offsetof(struct message, text));
                g_assert_cmpuint(message.who, <, TELLERS);
                g_assert_cmpuint(message.number, ==, next[message.who]);
                next[message.who]++;
        }
        for (guint i = 0; i < TELLERS; i++)
                g_assert_cmpstr(g_thread_join(threads[i]), ==, NULL);
        teller_stop(teller);
        close(fds[0]);
        close(fds[1]);
}

static void an_error(void)
{
        struct iovec iov = {(void *)"x", 1};
        int fds[2];

        g_assert_no_errno(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds));
        g_assert_cmpint(teller_start(fds[1], &teller), ==, 0);
        close(fds[0]);
        signal(SIGPIPE, SIG_IGN);
        g_assert_cmpint(teller_write(teller, &iov, 1), ==, -EPIPE);
        teller_stop(teller);
        close(fds[1]);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/teller/many-at-once", many_at_once);
        g_test_add_func("/teller/error", an_error);
        return g_test_run();
}

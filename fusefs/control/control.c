/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * control: connections, and nothing about what is said on them.
 *
 * The main thread owns the listener and every connection: it accepts, reads the request and writes
 * the answer, never waiting.  When a request is whole the connection is lent to a thread of the
 * pool, which makes the answer; control_pool_take_done() gives it back, and meanwhile the main
 * thread leaves it alone.  So nothing here has a lock.
 *
 * What one peer can do to others: it has READ_US to send its request, IDLE_US between two pieces of
 * the answer that it takes and TOTAL_US for all; there are CONNECTIONS_MAX at a time, of which
 * users other than root and the owner get half, and one of them an eighth.
 */
#include "fusefs/control/control.h"

#include <errno.h>
#include <glib-unix.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ctl/control_protocol.h"
#include "ctl/json_text.h"
#include "fusefs/control/control_listen.h"
#include "fusefs/control/control_pool.h"
#include "fusefs/control/control_verbs.h"
#include "fusefs/holder/link.h"

#define CONNECTIONS_MAX   CONTROL_BACKLOG
#define CONNECTIONS_OTHER (CONNECTIONS_MAX / 2)
#define CONNECTIONS_USER  (CONNECTIONS_MAX / 8)
#define POOL_THREADS      4
#define READ_US           (10 * G_TIME_SPAN_SECOND)
#define IDLE_US           (10 * G_TIME_SPAN_SECOND)
#define TOTAL_US          (120 * G_TIME_SPAN_SECOND)
#define ACCEPT_PAUSE_MS   200

struct control {
        struct k42_mount *mount;
        void (*quit)(void *data);
        void *data;
        GMainContext *context;
        struct control_pool *pool;
        GSource *served;
        int fd;
        GSource *listener; /* NULL while accepting pauses */
        GSource *pause;
        bool pause_told;
        GQueue connections;
};

struct connection {
        struct control *control;
        GList link;
        int fd;
        struct control_peer peer;
        char *request;
        size_t length, room;
        struct json_text answer;
        size_t sent;
        struct control_after after;
        int64_t last; /* monotonic µs; TOTAL_US after the request */
        GSource *io, *deadline;
        GList pool_link;
};

static void drop_source(GSource **source)
{
        if (!*source)
                return;
        g_source_destroy(*source);
        g_source_unref(*source);
        *source = NULL;
}

static void connection_free(struct connection *connection)
{
        struct control *control = connection->control;

        drop_source(&connection->io);
        drop_source(&connection->deadline);
        g_queue_unlink(&control->connections, &connection->link);
        close(connection->fd);
        if (connection->after.program_fd >= 0)
                close(connection->after.program_fd);
        free(connection->request);
        json_text_clear(&connection->answer);
        free(connection);
}

static GSource *watch(struct control *control, int fd, GIOCondition condition, GUnixFDSourceFunc fn,
                      void *data)
{
        GSource *source = g_unix_fd_source_new(fd, condition);

        g_source_set_callback(source, G_SOURCE_FUNC(fn), data, NULL);
        g_source_attach(source, control->context);
        return source;
}

static gboolean deadline_dispatch(GSource *source, GSourceFunc fn, void *data)
{
        /* not a timeout source: that would set its next time itself after the callback has */
        g_source_set_ready_time(source, -1);
        return fn(data);
}

static GSourceFuncs deadline_funcs = {.dispatch = deadline_dispatch};

static void set_deadline(struct connection *connection, int64_t from_now)
{
        int64_t at = g_get_monotonic_time() + from_now;

        if (connection->last > 0)
                at = MIN(at, connection->last);
        g_source_set_ready_time(connection->deadline, at);
}

/* ---- writing ---- */

static void connection_end(struct connection *connection)
{
        struct control *control = connection->control;
        const struct control_after after = connection->after;

        connection->after.program_fd = -1;
        connection_free(connection);
        if (after.quit)
                control->quit(control->data);
        if (after.upgrade)
                link_tell(control->mount->link, LINK_UPGRADE, after.program_fd);
        if (after.program_fd >= 0)
                close(after.program_fd);
}

static gboolean on_writable(int fd, GIOCondition condition, void *data)
{
        struct connection *connection = data;
        struct json_text *answer = &connection->answer;
        ssize_t n;

        n = send(fd, answer->data + connection->sent, answer->length - connection->sent,
                 MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return G_SOURCE_CONTINUE;
        if (n > 0) {
                connection->sent += (size_t)n;
                if (connection->sent < answer->length) {
                        set_deadline(connection, IDLE_US);
                        return G_SOURCE_CONTINUE;
                }
        }
        connection_end(connection); /* all sent, or the peer is gone */
        return G_SOURCE_CONTINUE;
}

static void start_writing(struct connection *connection)
{
        drop_source(&connection->io);
        if (connection->answer.length == 0) { /* not even an error line could be made */
                connection_end(connection);
                return;
        }
        connection->last = g_get_monotonic_time() + TOTAL_US;
        set_deadline(connection, IDLE_US);
        connection->io =
                watch(connection->control, connection->fd, G_IO_OUT, on_writable, connection);
}

/* ---- in the pool ---- */

static void serve(void *task, void *data)
{
        struct connection *connection = task;
        struct control *control = data;

        control_serve(control->mount, &connection->peer, connection->request, connection->length,
                      &connection->answer, &connection->after);
}

static gboolean on_served(int fd, GIOCondition condition, void *data)
{
        struct control *control = data;
        GList *link;

        while ((link = control_pool_take_done(control->pool)))
                start_writing(link->data);
        return G_SOURCE_CONTINUE;
}

/* ---- reading ---- */

static void refuse(struct connection *connection, const char *error)
{
        control_refuse(&connection->answer, error);
        start_writing(connection);
}

static void request_complete(struct connection *connection, size_t length)
{
        drop_source(&connection->io);
        g_source_set_ready_time(connection->deadline, -1);
        connection->length = length;
        control_pool_push(connection->control->pool, &connection->pool_link);
}

static bool make_room(struct connection *connection)
{
        size_t room = connection->room ? connection->room * 4 : 1024;
        char *grown;

        if (connection->length < connection->room)
                return true;
        room = MIN(room, (size_t)CONTROL_REQUEST_MAX + 1);
        grown = realloc(connection->request, room);
        if (!grown)
                return false;
        connection->request = grown;
        connection->room = room;
        return true;
}

static gboolean on_readable(int fd, GIOCondition condition, void *data)
{
        struct connection *connection = data;
        const char *end;
        ssize_t n;

        if (!make_room(connection)) {
                connection_free(connection);
                return G_SOURCE_CONTINUE;
        }
        n = recv(fd, connection->request + connection->length,
                 connection->room - connection->length, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return G_SOURCE_CONTINUE;
        if (n <= 0) { /* gone before its line was whole */
                connection_free(connection);
                return G_SOURCE_CONTINUE;
        }
        end = memchr(connection->request + connection->length, '\n', (size_t)n);
        connection->length += (size_t)n;
        if (end)
                request_complete(connection, (size_t)(end - connection->request));
        else if (connection->length > CONTROL_REQUEST_MAX)
                refuse(connection, "the request is too long");
        return G_SOURCE_CONTINUE;
}

static gboolean on_deadline(void *data)
{
        struct connection *connection = data;

        if (connection->answer.length == 0)
                refuse(connection, "no request came");
        else
                connection_end(connection);
        return G_SOURCE_CONTINUE;
}

/* ---- accepting ---- */

static const char *too_many(struct control *control, const struct control_peer *peer)
{
        unsigned others = 0, same = 0;

        if (control->connections.length >= CONNECTIONS_MAX)
                return "too many connections";
        if (peer->may_all)
                return NULL;
        for (GList *l = control->connections.head; l; l = l->next) {
                const struct connection *connection = l->data;

                others += !connection->peer.may_all;
                same += connection->peer.uid == peer->uid;
        }
        return others >= CONNECTIONS_OTHER || same >= CONNECTIONS_USER ? "too many connections"
                                                                       : NULL;
}

static void send_refusal(int fd, const char *error)
{
        g_auto(K42JsonText) text = JSON_TEXT_INIT;

        control_refuse(&text, error);
        if (text.length > 0 && send(fd, text.data, text.length, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
                g_debug("control: the peer was gone before it was refused");
        close(fd);
}

static void take_connection(struct control *control, int fd)
{
        struct connection *connection;
        struct control_peer peer;
        struct ucred cred;
        socklen_t size = sizeof(cred);
        const char *error;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0 || size != sizeof(cred)) {
                close(fd);
                return;
        }
        peer = (struct control_peer){
                .uid = cred.uid,
                .pid = cred.pid,
                .may_all = cred.uid == 0 || cred.uid == geteuid(),
        };
        error = too_many(control, &peer);
        if (error) {
                send_refusal(fd, error);
                return;
        }
        connection = calloc(1, sizeof(*connection));
        if (!connection) {
                close(fd);
                return;
        }
        connection->control = control;
        connection->fd = fd;
        connection->after.program_fd = -1;
        connection->peer = peer;
        connection->link.data = connection->pool_link.data = connection;
        g_queue_push_tail_link(&control->connections, &connection->link);
        connection->deadline = g_source_new(&deadline_funcs, sizeof(GSource));
        g_source_set_callback(connection->deadline, on_deadline, connection, NULL);
        g_source_attach(connection->deadline, control->context);
        set_deadline(connection, READ_US);
        connection->io = watch(control, fd, G_IO_IN, on_readable, connection);
}

static void listen_again(struct control *control);

static gboolean on_pause_over(void *data)
{
        struct control *control = data;

        drop_source(&control->pause);
        listen_again(control);
        return G_SOURCE_CONTINUE;
}

static gboolean on_connection(int listen_fd, GIOCondition condition, void *data)
{
        struct control *control = data;
        int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
                control->pause_told = false;
                take_connection(control, fd);
                return G_SOURCE_CONTINUE;
        }
        if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
                return G_SOURCE_CONTINUE;
        /* no descriptors or memory: the connection stays in the queue and would wake us at once */
        if (!control->pause_told)
                g_warning("control: cannot take a connection: %s", g_strerror(errno));
        control->pause_told = true;
        drop_source(&control->listener);
        control->pause = g_timeout_source_new(ACCEPT_PAUSE_MS);
        g_source_set_callback(control->pause, on_pause_over, control, NULL);
        g_source_attach(control->pause, control->context);
        return G_SOURCE_CONTINUE;
}

static void listen_again(struct control *control)
{
        control->listener = watch(control, control->fd, G_IO_IN, on_connection, control);
}

int control_start(struct k42_mount *mount, int fd, void (*quit)(void *data), void *data,
                  struct control **ret_control)
{
        struct control *control = g_new0(struct control, 1);
        int r;

        control->mount = mount;
        control->quit = quit;
        control->data = data;
        control->fd = fd;
        g_queue_init(&control->connections);
        control->context = g_main_context_ref_thread_default();
        r = control_pool_new(POOL_THREADS, serve, control, &control->pool);
        if (r < 0) {
                g_warning("control: cannot start a thread: %s", g_strerror(-r));
                control_stop(control);
                return r;
        }
        control->served =
                watch(control, control_pool_fd(control->pool), G_IO_IN, on_served, control);
        listen_again(control);
        *ret_control = control;
        return 0;
}

void control_shut(struct control *control)
{
        if (!control)
                return;
        drop_source(&control->listener);
        drop_source(&control->pause);
        if (control->fd >= 0)
                close(control->fd);
        control->fd = -1;
}

bool control_settle(struct control *control, int64_t timeout_us)
{
        return !control || control_pool_end(control->pool, timeout_us);
}

void control_stop(struct control *control)
{
        if (!control)
                return;
        control_shut(control);
        /* requests that no thread has begun are dropped, the others are waited for */
        drop_source(&control->served);
        control_pool_free(control->pool);
        while (control->connections.head)
                connection_free(control->connections.head->data);
        g_main_context_unref(control->context);
        g_free(control);
}

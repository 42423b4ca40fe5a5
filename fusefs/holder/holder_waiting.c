/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The worker in waiting as a table: in each state, what each event makes of it.
 *
 *              WANTED   TIMER        WARM   DIED   DISMISSED
 *   NONE       due      -            -      -      -
 *   DUE        -        start        -      -      none
 *   STARTING   -        kill         warm   lost   dismiss
 *   WARM       -        -            -      lost   dismiss
 *
 * Whatever becomes of it costs nobody anything: without it the next worker is started when it is needed.
 * One that dies is replaced after a pause, and after TRIES in a row not before another worker serves.  It
 * is started a little after the worker that serves is ready, so that it is not in the way of those who
 * wait for that one.
 */
#include "fusefs/holder/holder_private.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define AFTER_MS 20    /* doubles with each failure */
#define START_MS 30000 /* to say WAITING */
#define TRIES    5
#define END_MS   1000

enum event {
        EVENT_WANTED,
        EVENT_TIMER,
        EVENT_WARM,
        EVENT_DIED,
        EVENT_DISMISSED,
        EVENTS,
};

static void set_timer(struct holder *h, int64_t ms)
{
        h->waiting.deadline = ms < 0 ? -1 : holder_now_ms() + ms;
}

static enum waiting_state stay(struct holder *h)
{
        return h->waiting.state;
}

static enum waiting_state none(struct holder *h)
{
        set_timer(h, -1);
        return WAITING_NONE;
}

static enum waiting_state due(struct holder *h)
{
        set_timer(h, (int64_t)AFTER_MS << h->waiting.failures);
        return WAITING_DUE;
}

static enum waiting_state failed(struct holder *h)
{
        return ++h->waiting.failures < TRIES ? due(h) : none(h);
}

static enum waiting_state start(struct holder *h)
{
        const int program_fd = h->state == HOLDER_PREPARING ? h->next_program_fd : h->program_fd;

        if (holder_fork_worker(h, program_fd, &h->waiting.pid, &h->waiting.link_fd) < 0)
                return failed(h);
        set_timer(h, START_MS);
        return WAITING_STARTING;
}

static enum waiting_state kill_it(struct holder *h)
{
        kill(h->waiting.pid, SIGKILL);
        set_timer(h, -1);
        return h->waiting.state;
}

static enum waiting_state warm(struct holder *h)
{
        set_timer(h, -1);
        h->waiting.failures = 0;
        return WAITING_WARM;
}

static enum waiting_state lost(struct holder *h)
{
        h->waiting.pid = 0;
        holder_close_fd(&h->waiting.link_fd);
        return failed(h);
}

static enum waiting_state dismiss(struct holder *h)
{
        kill(h->waiting.pid, SIGKILL);
        h->waiting.dismissed = h->waiting.pid;
        h->waiting.pid = 0;
        holder_close_fd(&h->waiting.link_fd);
        return none(h);
}

typedef enum waiting_state (*action)(struct holder *h);

static const action actions[WAITING_STATES][EVENTS] = {
        [WAITING_NONE] = {due, stay, stay, stay, stay},
        [WAITING_DUE] = {stay, start, stay, stay, none},
        [WAITING_STARTING] = {stay, kill_it, warm, lost, dismiss},
        [WAITING_WARM] = {stay, stay, stay, lost, dismiss},
};

static void handle(struct holder *h, enum event event)
{
        h->waiting.state = actions[h->waiting.state][event](h);
}

void waiting_want(struct holder *h)
{
        h->waiting.failures = 0;
        handle(h, EVENT_WANTED);
}

int waiting_change(struct holder *h)
{
        waiting_dismiss(h);
        h->waiting.state = start(h);
        if (h->waiting.state == WAITING_STARTING)
                return 0;
        waiting_dismiss(h);
        return -EAGAIN;
}

bool waiting_take(struct holder *h)
{
        if (h->waiting.link_fd < 0) { /* none, or it dies; and one that is due would be in the way */
                waiting_dismiss(h);
                return false;
        }
        h->worker = h->waiting.pid;
        h->link_fd = h->waiting.link_fd;
        h->waiting.pid = 0;
        h->waiting.link_fd = -1;
        h->waiting.state = none(h);
        return true;
}

void waiting_dismiss(struct holder *h)
{
        handle(h, EVENT_DISMISSED);
}

void waiting_end(struct holder *h)
{
        waiting_dismiss(h);
        for (int ms = 0; h->waiting.dismissed > 0 && ms < END_MS; ms++) {
                if (waitpid(h->waiting.dismissed, NULL, WNOHANG) != 0)
                        return;
                poll(NULL, 0, 1);
        }
}

bool waiting_read(struct holder *h)
{
        struct link_message message;
        int fds[LINK_PARKED_MAX], r;
        unsigned n_fds;
        const enum waiting_state before = h->waiting.state;

        r = link_receive(h->waiting.link_fd, &message, fds, &n_fds, MSG_DONTWAIT);
        if (r == 0 && message.head.type == LINK_WAITING)
                handle(h, EVENT_WARM);
        else if (r == -EPIPE && h->waiting.state != WAITING_NONE) {
                /* it dies, and if it does not, it must; its death is the event */
                kill(h->waiting.pid, SIGKILL);
                holder_close_fd(&h->waiting.link_fd);
        }
        while (r == 0 && n_fds > 0)
                close(fds[--n_fds]);
        return before != WAITING_WARM && h->waiting.state == WAITING_WARM;
}

bool waiting_died(struct holder *h, pid_t pid)
{
        if (pid == h->waiting.dismissed)
                h->waiting.dismissed = 0;
        if (pid != h->waiting.pid)
                return false;
        handle(h, EVENT_DIED);
        return true;
}

void waiting_timer(struct holder *h)
{
        if (h->waiting.deadline < 0 || holder_now_ms() < h->waiting.deadline)
                return;
        h->waiting.deadline = -1;
        handle(h, EVENT_TIMER);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The holder as a table: in each state, what each event makes it do.  An action returns the next state.
 *
 *                READY      ENDING   DIED        TIMER        ASKED    LEAVE   UPGRADE    GONE    WARM   LOST
 *   STARTING     serve      closing  replace     kill_worker  end      leave   postpone   –       –      –
 *   SERVING      –          closing  replace     –            end      leave   prepare    –       news   news
 *   BACKING_OFF  –          –        –           start        finish   left    –          finish  –      –
 *   PREPARING    –          closing  next        not_taken    end      leave   –          –       stop   not_taken
 *   STOPPING     –          closing  next        kill_worker  end      leave   –          –       –      –
 *   UPGRADING    upgraded   closing  fall_back   kill_worker  end      leave   –          –       –      –
 *   ENDING       –          closing  finish      kill_worker  –        –       –          –       –      –
 *   LEAVING      –          closing  left        kill_worker  end      –       –          –       –      –
 *
 * The last two events are of the worker in waiting, which has a table of its own (holder_waiting.c).
 *
 * Everything here is called by holder_machine(), in the holder's only thread.  Nothing allocates, and
 * nothing waits but for poll().
 */
#include "fusefs/holder/holder_private.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ctl/control_protocol.h"
#include "fusefs/daemon.h"
#include "fusefs/holder/holder.h"
#include "fusefs/holder/dying.h"
#include "fusefs/holder/service.h"

#define EARLY_AT_ONCE   5     /* early deaths in a row that are replaced without a pause */
#define PAUSE_FIRST_MS  20    /* after one more; doubles with each */
#define PAUSE_LAST_MS   5000
#define START_MS        60000 /* for a worker to become ready, but for the first one, who has as long as
                               * SOURCE takes */
#define UPGRADE_MS      10000 /* for the worker to stop, and for the other program's to be ready */
#define END_MS          30000
#define TAKE_MS         2000  /* for one that waited to say that it goes on */
#define STEADY_MS       10000 /* who has lived so long was not the victim of what ended others before */
#define LOOK_AGAIN_MS   1 /* at a worker that dies */

enum event {
        EVENT_READY,
        EVENT_ENDING,
        EVENT_DIED,
        EVENT_TIMER,
        EVENT_ASKED, /* to end the mount */
        EVENT_LEAVE, /* to end, without the mount (-o fdstore) */
        EVENT_UPGRADE,
        EVENT_GONE, /* the connection has ended, and there is no worker who could notice */
        EVENT_WARM, /* the worker in waiting waits */
        EVENT_LOST, /* it died */
        EVENTS,
};

static void set_timer(struct holder *h, int64_t ms)
{
        h->deadline = ms < 0 ? -1 : holder_now_ms() + ms;
}

/* What the next holder would have to know, if there is one. */
static void save_record(struct holder *h)
{
        mount_record_write(h->record_fd, &h->record);
}

static enum holder_state back_off(struct holder *h)
{
        const unsigned row = h->early > h->crashes ? h->early : h->crashes;
        const unsigned doubled = row > EARLY_AT_ONCE ? row - EARLY_AT_ONCE - 1 : 0;
        const int64_t pause = doubled < 16 ? (int64_t)PAUSE_FIRST_MS << doubled : PAUSE_LAST_MS;

        set_timer(h, pause < PAUSE_LAST_MS ? pause : PAUSE_LAST_MS);
        return HOLDER_BACKING_OFF;
}

static void describe_mount(const struct holder *h, struct link_start *ret_start)
{
        *ret_start = (struct link_start){
                .resume = h->record.resume,
                .first = !h->record.resume && h->start != NULL,
                .restarts = h->record.restarts,
                .upgrades = h->record.upgrades + (h->state == HOLDER_UPGRADING), /* if it can tell */
                .downgrades = h->record.downgrades,
                .holder_pid = getpid(),
                .kept = h->fdstore,
                .killed = h->last_killed,
                .waiting_pid = h->waiting.state == WAITING_WARM ? h->waiting.pid : 0,
                .dev = h->record.dev,
                .started = h->record.started,
        };
        memcpy(ret_start->last_death, h->record.last_death, sizeof ret_start->last_death);
}

/* What the worker must be told at its start goes out as fast as it takes it: false until all has. */
static bool tell_worker(struct holder *h)
{
        struct link_message message;
        int fds[LINK_PARKED_MAX];

        while (h->told < h->parked.used) {
                unsigned n = 0;

                message.head = (struct link_head){.version = LINK_VERSION, .type = LINK_PARKED};
                while (n < LINK_PARKED_MAX && h->told + n < h->parked.used) {
                        message.keys[n] = h->parked.entries[h->told + n].key;
                        fds[n] = h->parked.entries[h->told + n].fd;
                        n++;
                }
                message.head.key = n;
                if (link_send(h->link_fd, &message, fds, n, MSG_DONTWAIT) < 0)
                        return false;
                h->told += n;
        }
        message.head = (struct link_head){.version = LINK_VERSION, .type = LINK_START};
        describe_mount(h, &message.start);
        fds[LINK_START_FUSE] = h->fuse_fd;
        fds[LINK_START_CONTROL] = h->control_fd;
        h->start_sent = link_send(h->link_fd, &message, fds, LINK_START_FDS, MSG_DONTWAIT) == 0;
        if (h->start_sent && h->order != 0) {
                message.head.type = h->order;
                link_send(h->link_fd, &message, NULL, 0, MSG_DONTWAIT);
        }
        return h->start_sent;
}

/* With the worker in waiting, or one of its own. */
static int take_or_fork(struct holder *h)
{
        h->told = 0;
        h->order = 0;
        h->dying = false;
        h->start_sent = h->going = h->ready = h->served = h->end_said = h->killed_by_us = false;
        h->taken = waiting_take(h);
        return h->taken ? 0 : holder_fork_worker(h, h->program_fd, &h->worker, &h->link_fd);
}

static int64_t time_to_start(const struct holder *h, enum holder_state state)
{
        return state == HOLDER_UPGRADING ? UPGRADE_MS : h->record.resume ? START_MS : -1;
}

static enum holder_state start_as(struct holder *h, enum holder_state state)
{
        int r = take_or_fork(h);

        if (r < 0) {
                daemon_say("%s: cannot start a worker: %s", h->record.mountpoint, strerror(-r));
                if (!h->record.resume)
                        return HOLDER_OVER;
                h->early++;
                return back_off(h);
        }
        set_timer(h, h->taken ? TAKE_MS : time_to_start(h, state));
        h->state = state; /* START says how it began */
        tell_worker(h);
        return state;
}

static enum holder_state start(struct holder *h)
{
        return start_as(h, HOLDER_STARTING);
}

/* ---- actions ---- */

static enum holder_state stay(struct holder *h)
{
        return h->state;
}

static enum holder_state order(struct holder *h, enum link_type type, enum holder_state state,
                               int64_t within_ms)
{
        const struct link_message message = {
                .head = {.version = LINK_VERSION, .type = type},
        };

        if (!h->start_sent)
                h->order = type; /* START is the first that it must hear */
        else /* what it does not hear, the timer ends */
                link_send(h->link_fd, &message, NULL, 0, MSG_DONTWAIT);
        set_timer(h, within_ms);
        return state;
}

/* The worker can say in `status` what has changed.  If it does not hear of it that is no harm. */
static enum holder_state news(struct holder *h)
{
        struct link_message message = {
                .head = {.version = LINK_VERSION, .type = LINK_NEWS},
        };

        describe_mount(h, &message.start);
        if (h->start_sent && h->link_fd >= 0)
                link_send(h->link_fd, &message, NULL, 0, MSG_DONTWAIT);
        return h->state;
}

static enum holder_state stop(struct holder *h)
{
        return order(h, LINK_STOP, HOLDER_STOPPING, UPGRADE_MS);
}

/* Ends the worker and us, and the mount stays with the service manager. */
static enum holder_state leave(struct holder *h)
{
        waiting_dismiss(h);
        return order(h, LINK_STOP, HOLDER_LEAVING, UPGRADE_MS);
}

static enum holder_state left(struct holder *h)
{
        h->leave = true;
        h->status = 0;
        return HOLDER_OVER;
}

static enum holder_state end(struct holder *h)
{
        waiting_dismiss(h);
        return order(h, LINK_END, HOLDER_ENDING, END_MS);
}

/* The other program did not get as far as to wait for its turn; nobody has noticed. */
static enum holder_state not_taken(struct holder *h)
{
        waiting_dismiss(h);
        holder_close_fd(&h->next_program_fd);
        set_timer(h, -1);
        h->record.downgrades++;
        save_record(h);
        daemon_say("%s: the other program cannot take over: it %s; the one before goes on",
                   h->record.mountpoint, h->not_taken);
        h->state = HOLDER_SERVING;
        waiting_want(h);
        return news(h);
}

/* The worker of the other program is started, and what takes time done, before this one is stopped. */
static enum holder_state prepare(struct holder *h)
{
        h->state = HOLDER_PREPARING;
        set_timer(h, UPGRADE_MS);
        snprintf(h->not_taken, sizeof h->not_taken, "was not ready in time");
        if (waiting_change(h) == 0)
                return HOLDER_PREPARING;
        snprintf(h->not_taken, sizeof h->not_taken, "could not be started");
        return not_taken(h);
}

/* The mount answers, for the first time or again. */
static enum holder_state serve(struct holder *h)
{
        h->record.resume = true;
        save_record(h);
        set_timer(h, -1);
        if (!h->announced)
                service_ready(getpid());
        h->announced = true;
        if (h->start) {
                daemon_started(h->start);
                h->start = NULL;
        }
        h->ready_at = holder_now_ms();
        if (h->upgrade_pending) {
                h->upgrade_pending = false;
                return prepare(h);
        }
        waiting_want(h);
        return HOLDER_SERVING;
}

/* The worker ends the mount.  /dev/fuse must be open nowhere when it has closed it, so that whoever waits
 * for an answer is told; and nobody shall ask us anything any more. */
static enum holder_state closing(struct holder *h)
{
        waiting_dismiss(h);
        holder_close_fd(&h->fuse_fd);
        holder_close_fd(&h->control_fd);
        unlinkat(h->state_fd, CONTROL_SOCKET_NAME, 0);
        set_timer(h, END_MS);
        return HOLDER_ENDING;
}

static enum holder_state kill_worker(struct holder *h)
{
        h->killed_by_us = true;
        kill(h->worker, SIGKILL);
        set_timer(h, -1);
        return h->state;
}

static enum holder_state postpone(struct holder *h)
{
        h->upgrade_pending = true;
        return h->state;
}

/* Exit status: the worker's own if it ended the mount; good if we were asked to end it, in whatever way. */
static enum holder_state finish(struct holder *h)
{
        h->status = 0;
        if (h->state == HOLDER_ENDING && h->end_said)
                h->status = WIFEXITED(h->wait_status) ? WEXITSTATUS(h->wait_status) : 1;
        return HOLDER_OVER;
}

/* See holder.h. */
static void count_death(struct holder *h)
{
        h->early = h->served ? 0 : h->early + 1;
        if (h->served)
                h->failures = 0;
        else if (!h->last_killed)
                h->failures++;
        if (h->ready && holder_now_ms() - h->ready_at >= STEADY_MS)
                h->crashes = 0;
        else if (h->ready && !h->last_killed)
                h->crashes++;
}

/* A worker died of something else than a clean end. */
static enum holder_state replace(struct holder *h)
{
        if (!h->record.resume) { /* it has never worked: a failure to start, and the worker has said why */
                if (WIFSIGNALED(h->wait_status))
                        daemon_say("the daemon was killed by signal %d while it started",
                                   WTERMSIG(h->wait_status));
                else if (WEXITSTATUS(h->wait_status) == HOLDER_EXEC_FAILED)
                        daemon_say("the daemon %s", h->record.last_death);
                return HOLDER_OVER;
        }
        if (h->taken && !h->going) { /* it has begun nothing */
                daemon_say("%s: the worker in waiting %s; another one is started", h->record.mountpoint,
                           h->record.last_death);
                return start(h);
        }
        h->record.restarts++;
        save_record(h);
        count_death(h);
        daemon_say("%s: the worker %s; the next one goes on (restart %u)", h->record.mountpoint,
                   h->record.last_death, h->record.restarts);
        if (h->failures >= HOLDER_FAILURES_MAX || h->crashes >= HOLDER_FAILURES_MAX ||
            h->early >= HOLDER_EARLY_MAX) {
                h->gave_up = true;
                return HOLDER_OVER;
        }
        return h->early > EARLY_AT_ONCE || h->crashes > EARLY_AT_ONCE ? back_off(h) : start(h);
}

/* The worker has stopped, or died on the way: the other program's turn. */
static enum holder_state next(struct holder *h)
{
        h->last_program_fd = h->program_fd;
        h->program_fd = h->next_program_fd;
        h->next_program_fd = -1;
        return start_as(h, HOLDER_UPGRADING);
}

static enum holder_state upgraded(struct holder *h)
{
        h->record.upgrades++;
        holder_close_fd(&h->last_program_fd);
        daemon_say("%s: another program has taken over", h->record.mountpoint);
        return serve(h);
}

static enum holder_state fall_back(struct holder *h)
{
        h->record.downgrades++;
        save_record(h);
        holder_close_fd(&h->program_fd);
        h->program_fd = h->last_program_fd;
        h->last_program_fd = -1;
        daemon_say("%s: the other program cannot take over: it %s; the one before goes on",
                   h->record.mountpoint, h->record.last_death);
        return start(h);
}

typedef enum holder_state (*action)(struct holder *h);

static const action actions[HOLDER_STATES][EVENTS] = {
        [HOLDER_STARTING] = {serve, closing, replace, kill_worker, end, leave, postpone, stay, stay, stay},
        [HOLDER_SERVING] = {stay, closing, replace, stay, end, leave, prepare, stay, news, news},
        [HOLDER_BACKING_OFF] = {stay, stay, stay, start, finish, left, stay, finish, stay, stay},
        [HOLDER_PREPARING] = {stay, closing, next, not_taken, end, leave, stay, stay, stop, not_taken},
        [HOLDER_STOPPING] = {stay, closing, next, kill_worker, end, leave, stay, stay, stay, stay},
        [HOLDER_UPGRADING] = {upgraded, closing, fall_back, kill_worker, end, leave, stay, stay, stay, stay},
        [HOLDER_ENDING] = {stay, closing, finish, kill_worker, stay, stay, stay, stay, stay, stay},
        [HOLDER_LEAVING] = {stay, closing, left, kill_worker, end, stay, stay, stay, stay, stay},
};

static void handle(struct holder *h, enum event event)
{
        if (h->state != HOLDER_OVER)
                h->state = actions[h->state][event](h);
}

/* ---- events ---- */

/* An upgrade to the program `fd` (-1: the file that our own executable was started from, as it is now). */
static void want_upgrade(struct holder *h, int fd)
{
        static const char gone[] = " (deleted)";

        if (fd < 0) {
                char path[PATH_MAX];
                size_t length;

                snprintf(path, sizeof path, "%s", h->program_path);
                length = strlen(path);
                if (length >= sizeof gone && strcmp(path + length - (sizeof gone - 1), gone) == 0)
                        path[length - (sizeof gone - 1)] = '\0';
                fd = open(path, O_PATH | O_CLOEXEC);
                if (fd < 0) {
                        daemon_say("%s: cannot be opened: %s", path, strerror(errno));
                        h->record.downgrades++;
                        news(h);
                        return;
                }
        }
        if (h->state != HOLDER_STARTING && h->state != HOLDER_SERVING) {
                close(fd);
                return;
        }
        holder_close_fd(&h->next_program_fd);
        h->next_program_fd = fcntl(fd, F_DUPFD_CLOEXEC, HOLDER_FD_MIN);
        close(fd);
        if (h->next_program_fd >= 0)
                handle(h, EVENT_UPGRADE);
}

/* By a signal, to us or to the worker, or (0) by k42ctl. */
static void asked(struct holder *h, int sig)
{
        handle(h, h->fdstore && sig == SIGTERM ? EVENT_LEAVE : EVENT_ASKED);
}

static void park(struct holder *h, uint64_t key, int fd)
{
        parked_put(&h->parked, key, fd);
        if (h->fdstore) {
                service_drop_parked(key);
                service_keep_parked(key, fd);
        }
}

static void unpark(struct holder *h, uint64_t key)
{
        parked_drop(&h->parked, key);
        if (h->fdstore)
                service_drop_parked(key);
}

/* A message is of no use for long: what it brings that we do not keep is closed. */
static void handle_message(struct holder *h, const struct link_message *message, int *fds,
                           unsigned n_fds)
{
        switch (message->head.type) {
        case LINK_READY:
                h->ready = true;
                handle(h, EVENT_READY);
                break;
        case LINK_GOING:
                h->going = true;
                if (h->taken && !h->ready && (h->state == HOLDER_STARTING || h->state == HOLDER_UPGRADING))
                        set_timer(h, time_to_start(h, h->state));
                break;
        case LINK_SERVED:
                h->served = true;
                h->early = h->failures = 0;
                break;
        case LINK_PARK:
                if (n_fds == 1 && h->start_sent) {
                        int fd = fcntl(fds[0], F_DUPFD_CLOEXEC, HOLDER_FD_MIN);

                        if (fd >= 0)
                                park(h, message->head.key, fd);
                }
                break;
        case LINK_UNPARK:
                if (h->start_sent)
                        unpark(h, message->head.key);
                break;
        case LINK_ASKED:
                asked(h, (int)message->head.key);
                break;
        case LINK_UPGRADE:
                want_upgrade(h, n_fds == 1 ? fcntl(fds[0], F_DUPFD_CLOEXEC, HOLDER_FD_MIN) : -1);
                break;
        case LINK_ENDING:
                h->end_said = true;
                handle(h, EVENT_ENDING);
                break;
        default:
                break;
        }
        for (unsigned i = 0; i < n_fds; i++)
                close(fds[i]);
}

/* Reads what the worker has said: some of it, or (`all`) everything that there is. */
static void read_link(struct holder *h, bool all)
{
        struct link_message message;
        int fds[LINK_PARKED_MAX], r;
        unsigned n_fds;

        for (int i = 0; h->link_fd >= 0 && (all || i < 16); i++) {
                r = link_receive(h->link_fd, &message, fds, &n_fds, MSG_DONTWAIT);
                if (r == 0)
                        handle_message(h, &message, fds, n_fds);
                else if (r == -EPROTO)
                        continue; /* nonsense, and off the socket */
                else if (r == -EAGAIN)
                        return;
                else { /* all that it had is closed: it dies, and if it does not, it must */
                        holder_close_fd(&h->link_fd);
                        if (h->worker > 0)
                                kill(h->worker, SIGKILL); /* it may be dead of it already */
                        h->dying = h->worker > 0;
                }
        }
}

static void bury(struct holder *h, int wait_status)
{
        h->worker = 0;
        h->dying = false;
        h->wait_status = wait_status;
        h->last_killed = WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL && !h->killed_by_us;
        read_link(h, true);
        holder_close_fd(&h->link_fd);
        if ((h->state != HOLDER_STOPPING && h->state != HOLDER_LEAVING) ||
            !WIFEXITED(wait_status) || WEXITSTATUS(wait_status) != LINK_EXIT_STOPPED)
                holder_describe_death(h->wait_status, h->record.last_death,
                                      sizeof h->record.last_death);
        handle(h, EVENT_DIED);
}

/* The worker's full death: none of its threads runs any more, and all its descriptors are closed. */
static void reap(struct holder *h)
{
        pid_t pid;
        int status;

        while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
                if (pid == h->worker)
                        bury(h, status);
                else if (waiting_died(h, pid)) { /* else one that was buried before it was dead */
                        if (h->state == HOLDER_PREPARING)
                                holder_describe_death(status, h->not_taken, sizeof h->not_taken);
                        handle(h, EVENT_LOST);
                }
}

/* What it must have been if 0 is all that can be seen of a worker's end (dying.h). */
static int guess_status(const struct holder *h, int status)
{
        if (status != 0 || h->end_said)
                return status;
        return h->state == HOLDER_STOPPING || h->state == HOLDER_LEAVING ? W_EXITCODE(LINK_EXIT_STOPPED, 0)
                                                                          : SIGKILL;
}

/* The worker dies, but its teller waits in the kernel for what only the next worker can do (teller.h). */
static void look_at_dying(struct holder *h)
{
        int status;

        reap(h);
        if (h->dying && h->worker > 0 && worker_is_as_good_as_dead(h->worker, &status))
                bury(h, guess_status(h, status));
}

static void read_signals(struct holder *h)
{
        struct signalfd_siginfo info;

        while (read(h->signal_fd, &info, sizeof info) == sizeof info) {
                if (info.ssi_signo == SIGCHLD)
                        continue;
                if (info.ssi_signo == SIGUSR2)
                        want_upgrade(h, -1);
                else
                        asked(h, (int)info.ssi_signo);
        }
        reap(h);
}

static int time_left(const struct holder *h)
{
        int64_t first = h->deadline, left;

        if (h->dying)
                return LOOK_AGAIN_MS;
        if (first < 0 || (h->waiting.deadline >= 0 && h->waiting.deadline < first))
                first = h->waiting.deadline;
        if (first < 0)
                return -1;
        left = first - holder_now_ms();
        return left < 0 ? 0 : (int)left;
}

void holder_machine(struct holder *h)
{
        h->state = start(h);
        while (h->state != HOLDER_OVER) {
                struct pollfd fds[] = {
                        {.fd = h->signal_fd, .events = POLLIN},
                        {.fd = h->link_fd, .events = POLLIN},
                        {.fd = h->state == HOLDER_BACKING_OFF ? h->fuse_fd : -1}, /* errors only */
                        {.fd = h->waiting.link_fd, .events = POLLIN},
                };

                if (h->link_fd >= 0 && !h->start_sent)
                        fds[1].events |= POLLOUT;
                if (poll(fds, 4, time_left(h)) < 0)
                        continue; /* a stop and continue, or no memory for a moment */
                if (fds[1].revents & POLLOUT)
                        tell_worker(h);
                if (fds[1].revents & (POLLIN | POLLHUP | POLLERR))
                        read_link(h, false);
                if (fds[3].revents && waiting_read(h))
                        handle(h, EVENT_WARM);
                if (fds[0].revents)
                        read_signals(h);
                if (h->dying)
                        look_at_dying(h);
                if (fds[2].revents)
                        handle(h, EVENT_GONE);
                if (h->deadline >= 0 && holder_now_ms() >= h->deadline) {
                        h->deadline = -1;
                        handle(h, EVENT_TIMER);
                }
                waiting_timer(h);
        }
        waiting_end(h);
}

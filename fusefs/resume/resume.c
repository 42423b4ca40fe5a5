/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * This daemon can be killed here as well, at any step, and the next one begins again with what is
 * left: so an orphan is resolved by one store, after everything about it is done, and everything
 * before that store can be done twice.
 *
 * A request that comes again is read into a slot of this thread's own, as nobody knows which it
 * will be.  If there is an orphan of it, its bytes are copied into the orphan's buffer, where they
 * are already: from then on the orphan's slot is the request's.
 */
#include "fusefs/resume/resume.h"

#include <errno.h>
#include <linux/fuse.h>
#include <string.h>

#include "fusefs/worker/channel.h"
#include "fusefs/resume/doubt.h"
#include "fusefs/failpoint.h"
#include "fusefs/holder/link.h"
#include "fusefs/resume/node_resume.h"
#include "fusefs/ops/ops.h"
#include "fusefs/resume/requests.h"

struct resume {
        struct k42_mount *mount;
        struct fuse_session *se;
        struct request *own; /* the slot to read into */
};

static struct fuse_in_header *header_of(struct request *request)
{
        return request_buffer(request);
}

/* ---- undo, doubt, forget ---- */

static void doubt_node(struct k42_mount *mount, uint64_t id)
{
        struct server_file *file = node_table_file(mount->nodes, id);

        if (file && id != FUSE_ROOT_ID)
                server_file_doubt(file, 1);
}

/* A node whose count was being changed at the moment of the kill: nobody can tell on which side of
 * it.  It was not given back, or not yet taken: too high by one at most. */
static void doubt_raising(struct k42_mount *mount, struct request *request)
{
        const uint64_t id = atomic_load(&request->raising);

        if (id != 0)
                doubt_node(mount, id);
        request_unraised(request);
}

void resume_undo(struct k42_mount *mount, struct request *request)
{
        struct description *description;

        doubt_raising(mount, request);
        for (uint32_t i = 0; i < request->n_raised; i++) {
                const uint64_t id = atomic_load(&request->raised[i]);
                struct server_file *file = id != 0 ? node_table_file(mount->nodes, id) : NULL;

                if (id != 0)
                        request_unraise(request, id);
                FAILPOINT("undo-raised");
                if (file)
                        server_file_forget(file, 1);
                request_unraised(request);
        }
        atomic_store(&request->n_raised, 0);
        description = request->description != 0
                              ? description_from_fh(mount->lazy, request->description)
                              : NULL;
        FAILPOINT("undo-description");
        if (description) {
                SERVER_FILE(file);

                file = server_file_ref(server_file_of(description->object));
                ops_not_taken(file, description);
        }
        request->description = 0;
}

void resume_doubt(struct k42_mount *mount, struct request *request)
{
        struct description *description =
                request->description != 0 ? description_from_fh(mount->lazy, request->description)
                                          : NULL;

        doubt_raising(mount, request);
        for (uint32_t i = 0; i < request->n_raised; i++)
                if (request->raised[i] != 0)
                        doubt_node(mount, request->raised[i]);
        FAILPOINT("doubted");
        if (description)
                description_set_doubtful(description);
}

static void forget_one(struct k42_mount *mount, uint64_t id, uint64_t n)
{
        struct server_file *file = node_table_file(mount->nodes, id);

        if (file && id != FUSE_ROOT_ID)
                server_file_forget(file, n);
}

void resume_forget(struct k42_mount *mount, struct request *request)
{
        const struct fuse_in_header *header = header_of(request);
        const void *body = header + 1;
        const struct fuse_batch_forget_in *batch = body;
        const struct fuse_forget_one *list = (const void *)(batch + 1);
        struct fuse_forget_one single = {.nodeid = header->nodeid};
        const size_t size = header->len - sizeof *header;
        uint32_t count = 1;

        if (header->opcode == FUSE_FORGET) {
                if (size < sizeof(struct fuse_forget_in))
                        return;
                single.nlookup = ((const struct fuse_forget_in *)body)->nlookup;
                list = &single;
        } else {
                if (size < sizeof *batch)
                        return;
                count = (uint32_t)MIN((size - sizeof *batch) / sizeof *list, batch->count);
        }
        /* The one that was begun: applied or not, the count is right or too high. */
        if (request->forgets % 2 == 1 && request->forgets / 2 < count) {
                const struct fuse_forget_one *one = &list[request->forgets / 2];
                struct server_file *file = node_table_file(mount->nodes, one->nodeid);

                if (file && one->nodeid != FUSE_ROOT_ID)
                        server_file_doubt(file, one->nlookup);
                request_forget(request, request->forgets + 1);
        }
        for (uint32_t i = request->forgets / 2; i < count; i++) {
                request_forget(request, 2 * i + 1);
                FAILPOINT("resume-forget");
                forget_one(mount, list[i].nodeid, list[i].nlookup);
                request_forget(request, 2 * i + 2);
        }
}

/* ---- serving ---- */

static void process(struct resume *resume, struct request *request, size_t size)
{
        struct fuse_buf buf = {.mem = request_buffer(request), .size = size};

        fuse_session_process_buf(resume->se, &buf);
        request_answered(request);
}

/* `request` is about to be served again: the death of the daemon that had it is counted.  True if there have
 * been too many. */
static bool is_poison(struct resume *resume, struct request *request)
{
        const struct link *link = resume->mount->link;

        if (link && link_start(link)->killed)
                request->kills++;
        else
                request->crashes++;
        return request->crashes >= REQUEST_CRASHES || request->kills >= REQUEST_KILLS;
}

/* The kernel waits for the answer to `request`, of which `size` bytes are in its buffer. */
static void serve(struct resume *resume, struct request *request, size_t size)
{
        struct k42_mount *mount = resume->mount;
        const uint64_t unique = header_of(request)->unique;

        request_set_current(request);
        if (atomic_load(&request->phase) == REQUEST_REPLY && request->reply_size > 0) {
                if (channel_answer(mount->channel, unique, request->reply, request->reply_size) < 0)
                        resume_undo(mount, request);
                request_answered(request);
                return;
        }
        resume_undo(mount, request);
        if (atomic_load(&request->phase) == REQUEST_REPLY) /* of a kind that runs again */
                atomic_store(&request->phase, REQUEST_READ);
        if (is_poison(resume, request)) {
                const char *name = channel_opcode_name(request->opcode);

                g_warning("a request (%s) was under way when the daemon died %u times: EIO",
                          name ? name : "unknown", request->crashes + request->kills);
                channel_answer_error(mount->channel, unique, -EIO);
                request_answered(request);
                return;
        }
        FAILPOINT("again");
        process(resume, request, size);
}

/* The same a second time if it was executed already. */
static bool may_repeat(uint32_t opcode)
{
        switch (opcode) {
        case FUSE_CREATE:
        case FUSE_MKDIR:
        case FUSE_MKNOD:
        case FUSE_SYMLINK:
        case FUSE_LINK:
        case FUSE_TMPFILE:
        case FUSE_UNLINK:
        case FUSE_RMDIR:
        case FUSE_RENAME:
        case FUSE_RENAME2:
        case FUSE_SETATTR:
        case FUSE_SETXATTR:
        case FUSE_REMOVEXATTR:
        case FUSE_WRITE:
        case FUSE_FALLOCATE:
        case FUSE_COPY_FILE_RANGE:
        case FUSE_IOCTL:
                return false;
        default:
                return true;
        }
}

/* A request that was sent again, which is in the own slot. */
static void serve_resent(struct resume *resume, size_t size)
{
        struct requests *requests = resume->mount->requests;
        struct request *own = resume->own, *orphan;
        const uint32_t flags = own->flags;

        orphan = requests_find_orphan(requests, header_of(own)->unique);
        if (!orphan && requests_lost(requests) && !may_repeat(own->opcode)) {
                channel_answer_error(resume->mount->channel, own->unique | CHANNEL_RESENT, -EIO);
                request_answered(own);
                return;
        }
        if (!orphan) {
                serve(resume, own, size);
                return;
        }
        request_answered(own); /* the orphan has all of it */
        FAILPOINT("found-orphan");
        memcpy(request_buffer(orphan), request_buffer(own), size);
        request_flag(orphan, flags);
        if (!request_is_known(orphan)) /* the kill came before read(2) returned */
                request_identify(orphan);
        orphan->resends = requests_resends(requests);
        serve(resume, orphan, size);
        requests_resolved(requests, orphan);
}

/* Of the kind that the kernel sends before all others, whenever it was told. */
static bool beside(const struct fuse_in_header *header)
{
        return header->opcode == FUSE_FORGET || header->opcode == FUSE_BATCH_FORGET ||
               header->opcode == FUSE_INTERRUPT;
}

/* Serves what is sent again.  Returns 0, or the size of a request of another kind, which is in the
 * own slot; or -ENODEV. */
static ssize_t serve_all_resent(struct resume *resume)
{
        for (;;) {
                struct fuse_buf buf = {.mem = request_buffer(resume->own)};
                const struct fuse_in_header *header = buf.mem;
                int n;

                request_set_current(resume->own);
                n = fuse_session_receive_buf(resume->se, &buf);
                if (fuse_session_exited(resume->se))
                        return -ENODEV;
                if (n == -EAGAIN)
                        return 0;
                if (n <= 0)
                        continue; /* a request that was taken back, or a signal */
                if (beside(header))
                        process(resume, resume->own, (size_t)n);
                else if (header->unique & CHANNEL_RESENT)
                        serve_resent(resume, (size_t)n);
                else
                        return n;
        }
}

/* ---- orphans ---- */

static _Thread_local unsigned counting; /* between the two calls */

static bool count_once(const struct kept_handle *handle, bool is_write, uint64_t ops,
                       uint64_t bytes, void *data)
{
        counting = is_write ? REQUEST_WRITES : REQUEST_READS;
        if (!request_count(request_current(), counting, handle->token, ops, bytes))
                return false;
        FAILPOINT("count");
        return true;
}

static void counted_once(void *data)
{
        FAILPOINT("counted");
        request_counted(request_current(), counting);
}

const struct count_observer resume_count_observer = {.count = count_once, .counted = counted_once};

/* An operation that was being accounted: the counters are what they were about to become. */
static void finish_counts(struct resume *resume)
{
        struct request *orphan;
        unsigned cursor = 0;

        while ((orphan = requests_next_orphan(resume->mount->requests, &cursor)))
                for (unsigned i = 0; i < G_N_ELEMENTS(orphan->counts); i++) {
                        struct request_count *count = &orphan->counts[i];

                        if (count->handle == 0 || count->counted)
                                continue;
                        lazy_set_count(resume->mount->lazy, count->handle, i == REQUEST_WRITES,
                                       count->ops, count->bytes);
                        count->counted = true;
                }
}

static void send_replies(struct resume *resume)
{
        struct requests *requests = resume->mount->requests;
        struct request *orphan;
        unsigned cursor = 0;

        while ((orphan = requests_next_orphan(requests, &cursor))) {
                int r;

                if (atomic_load(&orphan->phase) != REQUEST_REPLY || orphan->reply_size == 0)
                        continue;
                r = channel_answer(resume->mount->channel, header_of(orphan)->unique, orphan->reply,
                                   orphan->reply_size);
                FAILPOINT("reply-sent-again");
                if (r == 0 || (r == -ENOENT && orphan->resends == requests_resends(requests)))
                        requests_resolved(requests, orphan);
        }
}

/* What a reply that is not here any more has named is known to the kernel or not: an error instead
 * of it tells, for it is taken only if it was not.  False if there is nothing of the kind. */
static bool may_have_raised(struct resume *resume, struct request *orphan)
{
        struct channel *channel = resume->mount->channel;

        if (orphan->reply_size > 0)
                return true; /* send_replies() has asked */
        if (atomic_load(&orphan->n_raised) == 0)
                return false;
        if (channel_answer_error(channel, header_of(orphan)->unique, -EIO) == 0)
                resume_undo(resume->mount, orphan);
        request_answered(orphan);
        return true;
}

/* The kernel cannot send again, and waits. */
static void serve_orphans(struct resume *resume)
{
        struct k42_mount *mount = resume->mount;
        struct request *orphan;
        unsigned cursor = 0;

        while ((orphan = requests_next_orphan(mount->requests, &cursor))) {
                ssize_t size;

                if (beside(header_of(orphan)))
                        continue;
                if (atomic_load(&orphan->phase) == REQUEST_REPLY && may_have_raised(resume, orphan))
                        continue;
                request_set_current(orphan);
                if (!request_is_known(orphan))
                        request_was_read(orphan);
                size = channel_serve_again(mount->channel, orphan);
                if (size < 0)
                        channel_answer_error(mount->channel, header_of(orphan)->unique, (int)size);
                else
                        serve(resume, orphan, (size_t)size);
                requests_resolved(mount->requests, orphan);
        }
}

/* Nobody waits for `orphan`. */
static void resolve(struct resume *resume, struct request *orphan)
{
        struct k42_mount *mount = resume->mount;
        const uint32_t phase = atomic_load(&orphan->phase);
        ssize_t size;

        if (beside(header_of(orphan))) {
                if (header_of(orphan)->opcode != FUSE_INTERRUPT)
                        resume_forget(mount, orphan);
                return;
        }
        if (phase == REQUEST_REPLY) {
                resume_doubt(mount, orphan);
                return;
        }
        resume_undo(mount, orphan);
        if (phase == REQUEST_READ || is_poison(resume, orphan))
                return;
        request_set_current(orphan);
        request_flag(orphan, REQUEST_GONE);
        size = channel_serve_again(mount->channel, orphan);
        FAILPOINT("serve-gone");
        if (size > 0)
                process(resume, orphan, (size_t)size);
}

static void resolve_orphans(struct resume *resume)
{
        struct requests *requests = resume->mount->requests;
        struct request *orphan;
        unsigned cursor = 0;

        while ((orphan = requests_next_orphan(requests, &cursor))) {
                resolve(resume, orphan);
                FAILPOINT("resolve");
                requests_resolved(requests, orphan);
        }
}

static int bring_to_an_end(struct resume *resume)
{
        struct k42_mount *mount = resume->mount;
        ssize_t next = 0;
        int r = channel_replay_init(mount->channel);

        if (r < 0 && r != -ENODATA)
                return r;
        FAILPOINT("init-replayed");
        finish_counts(resume);
        send_replies(resume);
        FAILPOINT("resend");
        requests_count_resend(mount->requests);
        r = channel_resend(mount->channel);
        FAILPOINT("resent");
        if (r == 0)
                next = serve_all_resent(resume);
        else if (r == -ENOSYS)
                serve_orphans(resume);
        else
                next = r;
        if (next < 0)
                return (int)next;
        FAILPOINT("resolve-orphans");
        resolve_orphans(resume);
        FAILPOINT("orphans-resolved");
        node_table_resumed(mount->nodes);
        request_set_current(resume->own);
        if (next > 0)
                process(resume, resume->own, (size_t)next);
        return 0;
}

int resume_requests(struct k42_mount *mount, struct fuse_session *se)
{
        struct resume resume = {.mount = mount, .se = se, .own = requests_take(mount->requests)};
        int r;

        if (!resume.own) {
                g_warning("requests: no slot is left");
                return -ENOBUFS;
        }
        channel_do_not_wait(mount->channel, true);
        r = bring_to_an_end(&resume);
        channel_do_not_wait(mount->channel, false);
        request_set_current(NULL);
        requests_give_back(mount->requests, resume.own);
        if (r < 0 && r != -ENODEV && r != -EPROTO)
                g_warning("cannot go on with what was under way: %s", g_strerror(-r));
        return r;
}

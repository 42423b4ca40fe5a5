/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * `keep` and `requests` are mapped and used in place, so the directory is of no importance while a
 * worker lives: their descriptors are parked with the holder, and the next worker takes them from
 * there.  It looks for the names only if there is none.  So it does not matter whether somebody has
 * cleared up in the directory, or a user's runtime directory went with his session.
 *
 * `requests` has a name only in a directory in memory (tmpfs).  The pages of a mapped file on a disk are
 * made read-only whenever they are written back; if the kernel is about to copy a request into such a
 * page, and has to wait until it may, and we are killed, then that request ends with EIO.
 *
 * The INIT request and its answer are in `requests`, and nobody can serve without them: a sealed copy
 * is parked, too, and goes before what the file says.
 */
#include "fusefs/worker/worker_state.h"

#include <errno.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cobj/journal.h"
#include "cobj/keep.h"
#include "cobj/mapped_file.h"
#include "cobj/store.h"
#include "fusefs/failpoint.h"
#include "fusefs/holder/link.h"
#include "fusefs/mount.h"
#include "fusefs/node/node.h"
#include "fusefs/options.h"
#include "fusefs/resume/requests.h"
#include "fusefs/resume/resume.h"
#include "fusefs/state_dir.h"
#include "lazy/account.h"
#include "lazy/description.h"

#define JOURNAL_RECORDS 32768 /* 4 MiB */
/* Bytes.  In class fast the data goes past us, but for a few opens: not worth 14 resident buffers of 1 MiB. */
#define FAST_MAX_WRITE  (256 * 1024)

/* What is parked under PARK_STATE. */
enum {
        STATE_KEEP = 1,
        STATE_REQUESTS,
        STATE_INIT,
};

static void park(struct k42_mount *mount, uint64_t which, int fd)
{
        int r = link_send_park(mount->link, park_key(PARK_STATE, which), fd);

        if (r < 0)
                g_info("a file of the state directory cannot be left with the holder: %s", g_strerror(-r));
}

static int take(struct k42_mount *mount, uint64_t which)
{
        return link_take_parked(mount->link, park_key(PARK_STATE, which));
}

static int say(const struct k42_mount *mount, const char *name, const char *what, int r)
{
        g_warning("%s/%s: %s: %s", state_dir_path(mount->state_dir), name, what,
                  r == -EPROTO    ? "it is of a newer version of k42fs"
                  : r == -EBADMSG ? "it is damaged"
                                  : g_strerror(-r));
        return r;
}

/* ---- requests ---- */

static int adopt_requests(struct k42_mount *mount, struct requests *ahead)
{
        const int fd = take(mount, STATE_REQUESTS);
        int r;

        if (fd < 0) {
                r = requests_adopt(state_dir_fd(mount->state_dir), ahead, &mount->requests);
                if (r == 0)
                        park(mount, STATE_REQUESTS, requests_fd(mount->requests));
                return r;
        }
        r = requests_adopt_fd(fd, ahead, &mount->requests);
        close(fd);
        return r;
}

static unsigned max_write_of(const struct k42_mount *mount)
{
        return mount->io_class == IO_CLASS_FAST ? FAST_MAX_WRITE : REQUEST_WRITE_MAX;
}

/* The directory for `requests`, or -1. */
static int requests_dirfd(const struct k42_mount *mount)
{
        const int dirfd = state_dir_fd(mount->state_dir);
        struct statfs st;

        return fstatfs(dirfd, &st) == 0 && (st.f_type == TMPFS_MAGIC || st.f_type == RAMFS_MAGIC) ? dirfd : -1;
}

static int renew_requests(struct k42_mount *mount)
{
        const unsigned threads = mount->options.max_threads, max_write = max_write_of(mount);
        int r = requests_renew(requests_dirfd(mount), threads, max_write, &mount->requests);

        if (r < 0)
                r = requests_renew(-1, threads, max_write, &mount->requests);
        if (r < 0)
                return say(mount, "requests", "cannot be made", r);
        park(mount, STATE_REQUESTS, requests_fd(mount->requests));
        return 0;
}

static int resume_requests_file(struct k42_mount *mount, struct requests *ahead)
{
        const int init = take(mount, STATE_INIT);
        int r = adopt_requests(mount, ahead);

        if (r == -EPROTO || r == -ENOMEM || (r < 0 && init < 0)) {
                say(mount, "requests", "cannot be taken over", r);
        } else if (r < 0) {
                say(mount, "requests", "is made anew, and what was under way may fail", r);
                r = renew_requests(mount);
        }
        if (r == 0 && init >= 0) {
                r = requests_restore_init(mount->requests, init);
                if (r < 0)
                        say(mount, "requests", "what the kernel agreed to", r);
        }
        if (init >= 0)
                close(init);
        return r;
}

static int start_requests(struct k42_mount *mount, struct requests *ahead)
{
        int r;

        if (mount->resume)
                return resume_requests_file(mount, ahead);
        requests_close(ahead);
        r = requests_create(requests_dirfd(mount), mount->options.max_threads, max_write_of(mount),
                            &mount->requests);
        if (r < 0)
                return say(mount, "requests", "cannot be made", r);
        park(mount, STATE_REQUESTS, requests_fd(mount->requests));
        return 0;
}

void worker_state_begun(struct k42_mount *mount)
{
        int fd;

        if (mount->resume)
                return;
        fd = requests_save_init(mount->requests);
        if (fd < 0)
                return;
        park(mount, STATE_INIT, fd);
        close(fd);
}

/* ---- keep ---- */

/* What was left with the holder, or -1.  If nothing can be written to it any more, a copy in memory takes its
 * place, for this worker and those after it. */
static int take_keep(struct k42_mount *mount)
{
        const int fd = take(mount, STATE_KEEP);
        int copy;

        if (fd < 0 || !mapped_file_is_readonly(fd))
                return fd;
        copy = mapped_file_copy(fd, "keep");
        if (copy < 0) {
                say(mount, "keep", "cannot be written to, nor copied", copy);
                return fd;
        }
        g_warning("%s/keep: cannot be written to any more: it goes on in memory", state_dir_path(mount->state_dir));
        close(fd);
        park(mount, STATE_KEEP, copy);
        return copy;
}

/* Takes over what there is; `ret_damaged` as keep_adopt() says. */
static int adopt_keep(struct k42_mount *mount, uint32_t *ret_damaged)
{
        int fd = take_keep(mount), r;

        if (fd < 0) {
                r = keep_adopt(state_dir_fd(mount->state_dir), "keep", &mount->keep, ret_damaged);
                if (r == 0)
                        park(mount, STATE_KEEP, keep_fd(mount->keep));
                return r;
        }
        r = keep_adopt_fd(fd, &mount->keep, ret_damaged);
        if (r < 0)
                close(fd);
        return r;
}

static int resume_keep(struct k42_mount *mount)
{
        const int dirfd = state_dir_fd(mount->state_dir);
        uint32_t damaged = 0;
        int r = adopt_keep(mount, &damaged);

        if (r == 0 && damaged > 0)
                g_warning("%s/keep: %u damaged parts are not used",
                          state_dir_path(mount->state_dir), damaged);
        if (r == 0)
                return 0;
        if (r == -EPROTO || r == -ENOMEM)
                return say(mount, "keep", "cannot be taken over", r);
        say(mount, "keep", "is made anew, and what was open is stale", r);
        r = keep_create(dirfd, "keep", &mount->keep);
        if (r < 0)
                r = keep_create(-1, "keep", &mount->keep);
        if (r < 0)
                return say(mount, "keep", "cannot be made", r);
        keep_has_lost(mount->keep);
        park(mount, STATE_KEEP, keep_fd(mount->keep));
        return 0;
}

static int start_keep(struct k42_mount *mount)
{
        int r;

        if (mount->resume)
                return resume_keep(mount);
        r = keep_create(state_dir_fd(mount->state_dir), "keep", &mount->keep);
        if (r < 0)
                return say(mount, "keep", "cannot be made", r);
        park(mount, STATE_KEEP, keep_fd(mount->keep));
        return 0;
}

/* ---- journal and store ---- */

static int start_journal(struct k42_mount *mount)
{
        const char *dir = state_dir_path(mount->state_dir);
        const int dirfd = state_dir_fd(mount->state_dir);
        int r = mount->resume ? journal_resume(dirfd, dir, "journal", JOURNAL_RECORDS, &mount->journal)
                              : journal_create(dirfd, "journal", JOURNAL_RECORDS, &mount->journal);

        return r < 0 ? say(mount, "journal", "cannot be made", r) : 0;
}

/* The path of a node that the kernel, or somebody, knows still. */
static char *describe_node(uint64_t id, void *data)
{
        struct k42_mount *mount = data;

        return node_table_describe(mount->nodes, id);
}

static int start_store(struct k42_mount *mount)
{
        g_autofree char *path = state_dir_file(mount->state_dir, "state.db");
        g_autofree char *error = NULL;
        const struct store_config config = {
                .path = path,
                .mountpoint = mount->options.mountpoint,
                .source = mount->options.source,
                .journal = mount->journal,
                .cobj = mount->cobj,
                .history = mount->options.history,
                .describe = describe_node,
                .describe_data = mount,
                .resume = mount->resume,
        };
        int r = store_open(&config, &mount->store, &error);

        if (r < 0)
                g_warning("%s", error);
        return r;
}

/* ---- the accounts of clients, which outlive a worker with the holder ---- */

static void hold_account(uint64_t client, int fd, void *data)
{
        struct k42_mount *mount = data;

        if (fd < 0)
                link_unpark(mount->link, park_key(PARK_ACCOUNT, client));
        else
                (void)link_send_park(mount->link, park_key(PARK_ACCOUNT, client), fd);
}

static int take_account(uint64_t client, void *data)
{
        struct k42_mount *mount = data;

        return link_take_parked(mount->link, park_key(PARK_ACCOUNT, client));
}

static void start_accounts(struct k42_mount *mount)
{
        const struct account_holder holder = {hold_account, take_account, mount};

        lazy_set_count_observer(mount->lazy, &resume_count_observer);
        if (mount->link)
                account_set_holder(mount->lazy, &holder);
}

int worker_state_open(struct k42_mount *mount, struct requests *requests_ahead)
{
        struct cobj_observer observer;
        int r;

        r = state_dir_adopt(mount->options.state, mount->options.mountpoint, LINK_FD_STATE,
                            &mount->state_dir);
        if (r == 0)
                r = start_requests(mount, requests_ahead);
        else
                requests_close(requests_ahead);
        if (r < 0)
                return r;
        failpoint_init(mount->requests, mount->resume);
        r = start_keep(mount);
        if (r == 0)
                r = start_journal(mount);
        if (r < 0)
                return r;
#ifdef K42_WITHOUT_ACCOUNTING /* see meson.build */
        observer = (struct cobj_observer){.data = NULL};
#else
        store_observer_init(&observer, mount->journal);
#endif
        r = cobj_new(&observer, mount->keep, &mount->cobj);
        if (r == 0)
                r = lazy_new(mount->cobj, &mount->lazy);
        if (r == 0)
                start_accounts(mount);
        if (r < 0) {
                g_warning("%s: cannot start: %s", mount->options.mountpoint, g_strerror(-r));
                return r;
        }
        return start_store(mount);
}

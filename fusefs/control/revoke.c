/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A revocation collects what it touches in `struct work`: the files whose pages have to go, with a
 * reference each, and the processes that are meant.  It is freed at the end of the call.  No lock is
 * held here; two revocations at a time do no harm, because all that they do is take away.
 */
#include "fusefs/control/revoke.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cobj/proc_info.h"
#include "fusefs/control/blocked.h"
#include "fusefs/worker/channel.h"
#include "fusefs/node/dir_linux_fs.h"
#include "fusefs/node/fs_file.h"
#include "fusefs/node/node_table.h"
#include "fusefs/control/revoke_scan.h"
#include "lazy/fence.h"
#include "lazy/lazy_state.h"
#include "lazy/lineage.h"
#include "lazy/process_limits.h"
#include "lazy/rights.h"

/* A tree that forks faster than it can be looked through is given up after this many looks. */
#define ROUNDS_MAX  32
#define LINEAGE_MAX 1000

struct work {
        struct k42_mount *mount;
        struct revocation *what;
        GHashTable *files;     /* of struct server_file, a reference each */
        GHashTable *processes; /* of pid_t */
        xhandle root;          /* the handle that is meant */
        int64_t before;        /* descriptions opened later are not meant; INT64_MAX: all are */
        unsigned found;        /* handles that had more rights, in this round */
        int error;             /* the first one */
};

static void unref_file(void *file)
{
        server_file_unref(file);
}

static void work_begin(struct work *work, struct k42_mount *mount, struct revocation *what)
{
        *work = (struct work){.mount = mount, .what = what, .before = INT64_MAX};
        work->files = g_hash_table_new_full(NULL, NULL, unref_file, NULL);
        work->processes = g_hash_table_new(NULL, NULL);
        what->handles = what->descriptions = what->processes = 0;
        what->done = false;
        what->mapped = 0;
        what->error = NULL;
}

static void work_end(struct work *work)
{
        g_hash_table_unref(work->files);
        g_hash_table_unref(work->processes);
}
#define WORK(name) __attribute__((cleanup(work_end))) struct work name

static int refuse(struct revocation *what, int r, const char *error)
{
        what->error = error;
        return r;
}

/* ---- what is possible here ---- */

static int check_class(struct k42_mount *mount, struct revocation *what, bool whole_file)
{
        if (mount->io_class == IO_CLASS_FAST && atomic_load(&mount->passthrough))
                return refuse(what, -EOPNOTSUPP,
                              "the kernel reads and writes the files of this mount by itself, which "
                              "nobody can take back; mount with -o io=counted");
        if (mount->io_class != IO_CLASS_COUNTED && !whole_file && what->rights == RIGHTS_NONE)
                return refuse(what, -EOPNOTSUPP,
                              "here only a FILE can be revoked, because the page cache does not know "
                              "who reads; mount with -o io=counted");
        return 0;
}

/* ---- files ---- */

static void meet_file(struct work *work, struct server_file *file)
{
        if (!g_hash_table_contains(work->files, file)) /* else adding would drop a reference */
                g_hash_table_add(work->files, server_file_ref(file));
}

/* A page that is being faulted in just now can be missed by one pass: the second waits for it. */
static void drop_pages(struct work *work)
{
        GHashTableIter iter;
        void *file;

        for (int pass = 0; pass < 2; pass++) {
                g_hash_table_iter_init(&iter, work->files);
                while (g_hash_table_iter_next(&iter, &file, NULL))
                        channel_inval_inode(work->mount->channel,
                                            ((struct server_file *)file)->id, true);
        }
}

static bool wait_fence(struct work *work)
{
        return fence_wait_all(lazy_fence(work->mount->lazy), work->what->deadline);
}

/* ---- handles ---- */

static struct open_client_data *data_of(const struct xobj *xobj)
{
        return (struct open_client_data *)xobj_client_data(xobj);
}

static void take_from(struct work *work, struct xobj *xobj)
{
        meet_file(work, server_file_of(xobj_object(xobj)));
        g_hash_table_add(work->processes, GINT_TO_POINTER(client_info(xobj_client(xobj))->pid));
        if (handle_shrink(xobj, work->what->rights)) {
                work->found++;
                work->what->handles++;
        }
}

/* What has been left of handle `token` on any description of the object: a handle of private mode derives
 * from one on another description. */
static xhandle parent_of_holder(struct lazy *lazy, const struct server_object *object,
                                xhandle token)
{
        xhandle parent = XHANDLE_NONE;
        struct lazy_holder holder;
        struct description *d;
        uint32_t cursor = 0;

        while ((d = lazy_next_description(lazy, &cursor))) {
                if (d->object == object && lazy_state_find_token(d->left, token, &holder))
                        parent = holder.parent;
                description_unref(d);
        }
        return parent;
}

/* What `token` was derived from: as its handle says, or what is left of it. */
static xhandle parent_of(struct k42_mount *mount, struct description *d, xhandle token)
{
        g_autoptr(K42Xobj) xobj = cobj_get_xobj(mount->cobj, token);
        struct lazy_holder holder;

        if (xobj)
                return xobj_client_data(xobj)->kept->parent;
        if (lazy_state_find_token(d->left, token, &holder) ||
            lineage_parent(atomic_load(&d->lineage), token, &holder.parent))
                return holder.parent;
        return parent_of_holder(mount->lazy, d->object, token);
}

static void take_if_derived(struct xobj *xobj, void *data)
{
        struct work *work = data;
        struct description *d = data_of(xobj)->description;
        xhandle at = xobj_client_data(xobj)->kept->parent;

        for (int i = 0; at != XHANDLE_NONE && at != work->root && i < LINEAGE_MAX; i++)
                at = parent_of(work->mount, d, at);
        if (at == work->root)
                take_from(work, xobj);
}

/* /proc says whose a process is now: a setuid program is not its starter's. */
static bool peers_process(const struct revocation *what, pid_t pid)
{
        g_autofree char *path = g_strdup_printf("/proc/%d", (int)pid);
        struct stat st;

        return what->may_all || (stat(path, &st) == 0 && st.st_uid == what->uid);
}

static bool is_peers(const struct revocation *what, const struct xobj *xobj)
{
        access_rights match, nomatch;

        xobj_get_rights(xobj, &match, &nomatch);
        return what->may_all ||
               (client_info(xobj_client(xobj))->uid == what->uid && (match & RIGHT_CONTROL) &&
                peers_process(what, client_info(xobj_client(xobj))->pid));
}

static void check_peer(struct xobj *xobj, void *data)
{
        struct work *work = data;

        if (!is_peers(work->what, xobj))
                work->error = -EPERM;
}

/* Takes what `take` finds until it finds no more, and waits for what was under way.  False if that
 * takes too long. */
static bool take_all(struct work *work, void (*take)(struct work *work))
{
        bool over = true;

        for (int round = 0; round < ROUNDS_MAX; round++) {
                work->found = 0;
                take(work);
                over = wait_fence(work);
                if (!over || (round > 0 && work->found == 0))
                        return over;
        }
        return false;
}

static void take_handle(struct work *work)
{
        g_autoptr(K42Xobj) xobj = cobj_get_xobj(work->mount->cobj, work->root);

        if (xobj)
                take_from(work, xobj);
        if (work->what->tree)
                cobj_foreach_handle(work->mount->cobj, take_if_derived, work);
}

static void seal_files(struct work *work)
{
        GHashTableIter iter;
        void *file;

        g_hash_table_iter_init(&iter, work->files);
        while (g_hash_table_iter_next(&iter, &file, NULL))
                kept_node_set(((struct server_file *)file)->kept, NODE_SEALED);
}

static void end_descriptions(struct work *work)
{
        struct description *d;
        uint32_t cursor = 0;

        while ((d = lazy_next_description(work->mount->lazy, &cursor))) {
                if (g_hash_table_contains(work->files, server_file_of(d->object)) && atomic_load(&d->kept->revoked))
                        description_revoked(d);
                description_unref(d);
        }
}

static int finish(struct work *work, bool over, bool seal)
{
        if (over)
                drop_pages(work);
        if (over && seal) {
                end_descriptions(work);
                seal_files(work);
        }
        if (over && !seal && !access_rights_subset(RIGHT_READ | RIGHT_WRITE, work->what->rights))
                work->what->mapped =
                        revoke_scan_mapped(work->mount, work->processes, work->files);
        work->what->done = over;
        blocked_save(work->mount->blocked); /* that it would not survive us has been said */
        return 0;
}

int revoke_handle(struct k42_mount *mount, xhandle token, struct revocation *what)
{
        WORK(work);
        g_autoptr(K42Xobj) xobj = NULL;
        access_rights match, nomatch;
        int r;

        work_begin(&work, mount, what);
        r = check_class(mount, what, false);
        if (r < 0)
                return r;
        xobj = cobj_get_xobj(mount->cobj, token);
        if (!xobj)
                return refuse(what, -ENOENT, "no such handle is open");
        check_peer(xobj, &work);
        if (work.error < 0)
                return refuse(what, -EPERM, "this handle is not yours");
        xobj_get_rights(xobj, &match, &nomatch);
        if (what->strict && !access_rights_subset(what->rights, match))
                return refuse(what, -EPERM, "rights only shrink: it has not got all of these");
        work.root = token;
        return finish(&work, take_all(&work, take_handle), false);
}

/* ---- processes ---- */

static int limit_process(struct work *work, pid_t pid)
{
        const struct process_limit limit = {
                .pid = pid,
                .rights = work->what->rights,
                .before = work->before,
                .inherit = RIGHTS_ALL,
                .blocked_by = work->what->block ? (pid_t)(intptr_t)work->root : 0,
        };
        int r = process_limits_add(lazy_limits(work->mount->lazy), &limit);

        if (r == 0 && g_hash_table_add(work->processes, GINT_TO_POINTER(pid))) {
                work->what->processes++;
                work->found++; /* it may have forked meanwhile */
        }
        return r;
}

/* Adds the children of those that are known already.  True if there were any. */
static bool add_children(struct work *work)
{
        DIR *proc = opendir("/proc");
        struct dirent *entry;
        bool any = false;

        while (proc && (entry = readdir(proc))) {
                const pid_t pid = (pid_t)g_ascii_strtoll(entry->d_name, NULL, 10);
                uint64_t start_time;
                pid_t ppid;

                if (pid > 0 && !g_hash_table_contains(work->processes, GINT_TO_POINTER(pid)) &&
                    process_parent(pid, &ppid, &start_time) == 0 &&
                    g_hash_table_contains(work->processes, GINT_TO_POINTER(ppid)) &&
                    peers_process(work->what, pid) && limit_process(work, pid) == 0)
                        any = true;
        }
        if (proc)
                closedir(proc);
        return any;
}

static void take_if_of_process(struct xobj *xobj, void *data)
{
        struct work *work = data;
        const pid_t pid = client_info(xobj_client(xobj))->pid;

        if (client_alive(xobj_client(xobj)) &&
            g_hash_table_contains(work->processes, GINT_TO_POINTER(pid)) &&
            (work->what->block || data_of(xobj)->description->opened <= work->before))
                take_from(work, xobj);
}

static void take_processes(struct work *work)
{
        while (work->what->tree && add_children(work))
                ;
        lazy_guard_all(work->mount->lazy);
        revoke_scan_bind_strangers(work->mount, work->processes, work->before, work->what->rights);
        cobj_foreach_handle(work->mount->cobj, take_if_of_process, work);
}

/* Which files it has mapped by descriptors that it never touched nobody knows. */
static void meet_all_files(struct work *work)
{
        struct description *d;
        uint32_t cursor = 0;

        while ((d = lazy_next_description(work->mount->lazy, &cursor))) {
                meet_file(work, server_file_of(d->object));
                description_unref(d);
        }
}

int revoke_process(struct k42_mount *mount, pid_t pid, struct revocation *what)
{
        WORK(work);
        bool over;
        int r;

        work_begin(&work, mount, what);
        r = check_class(mount, what, false);
        if (r < 0)
                return r;
        if (!peers_process(what, pid))
                return refuse(what, -EPERM, "this process is not yours");
        work.before = g_get_real_time();
        work.root = (xhandle)pid;
        r = limit_process(&work, pid);
        if (r == -ESRCH)
                return refuse(what, r, "no such process");
        if (r < 0)
                return r;
        over = take_all(&work, take_processes);
        meet_all_files(&work);
        return finish(&work, over, false);
}

int revoke_allow_process(struct k42_mount *mount, pid_t pid, struct revocation *what)
{
        what->error = NULL;
        if (!peers_process(what, pid))
                return refuse(what, -EPERM, "this process is not yours");
        if (!process_limits_allow(lazy_limits(mount->lazy), pid))
                return refuse(what, -ENOENT, "this process is not blocked");
        blocked_save(mount->blocked);
        return 0;
}

/* ---- one file ---- */

/* The file that is meant: what it looks like. */
static int find_file(struct k42_mount *mount, const char *path, struct revocation *what,
                     struct fs_stat *ret_st)
{
        NODE_FD(root, mount->nodes->root);
        int fd, r;

        if (!what->may_all)
                return refuse(what, -EPERM, "this is for root and the owner of the mount");
        while (*path == '/')
                path++;
        fd = root.fd < 0 ? root.fd : fs_open_beneath(root.fd, *path ? path : ".");
        if (fd < 0)
                return fd;
        r = fs_stat(fd, ret_st);
        fs_close(fd);
        if (r == 0 && !S_ISREG(ret_st->st.st_mode))
                return refuse(what, -EINVAL, "only a regular file can be revoked or blocked");
        return r;
}

/* Nobody gets at the node any more who does not have it open: from here on the file's name leads to
 * another one. */
static void withdraw(struct work *work, struct server_file *file)
{
        kept_node_set(file->kept, NODE_WITHDRAWN);
        node_table_unhash(file);
        meet_file(work, file);
}

static void forget_names(struct k42_mount *mount, struct server_file *file)
{
        struct file_link *link;
        fuse_ino_t parent = 0;

        for (unsigned n = 0;; n++) {
                g_autofree char *name = NULL;
                unsigned left = n;

                g_mutex_lock(&file->links_lock);
                for (link = file->links; link && (left > 0 || !link->kept->listed); link = link->next)
                        left -= link->kept->listed;
                if (link) {
                        name = g_strdup(link->kept->name);
                        parent = link->parent->file.id;
                }
                g_mutex_unlock(&file->links_lock);
                if (!name)
                        return;
                channel_inval_entry(mount->channel, parent, name, false);
        }
}

static bool is_file(const struct server_file *file, const struct fs_stat *st)
{
        return file->kept->dev == st->st.st_dev && file->kept->ino == st->st.st_ino;
}

static void take_if_of_files(struct xobj *xobj, void *data)
{
        struct work *work = data;

        if (g_hash_table_contains(work->files, server_file_of(xobj_object(xobj))))
                take_from(work, xobj);
}

static void take_files(struct work *work)
{
        struct description *d;
        uint32_t cursor = 0;

        while ((d = lazy_next_description(work->mount->lazy, &cursor))) {
                if (g_hash_table_contains(work->files, server_file_of(d->object)) &&
                    !atomic_load(&d->kept->revoked)) {
                        description_revoke(d);
                        work->what->descriptions++;
                        work->found++;
                }
                description_unref(d);
        }
        cobj_foreach_handle(work->mount->cobj, take_if_of_files, work);
}

/* Also what was withdrawn before and is still open: a revocation that was given up goes on. */
static void meet_nodes_of(struct work *work, const struct fs_stat *st)
{
        struct server_file *file;
        struct description *d;
        uint32_t cursor = 0;

        file = node_table_find(work->mount->nodes, st->st.st_dev, st->st.st_ino);
        if (file) {
                if (server_file_is(file, st))
                        withdraw(work, file);
                server_file_unref(file);
        }
        while ((d = lazy_next_description(work->mount->lazy, &cursor))) {
                file = server_file_of(d->object);
                if (is_file(file, st) && server_file_has(file, NODE_WITHDRAWN))
                        meet_file(work, file);
                description_unref(d);
        }
}

int revoke_file(struct k42_mount *mount, const char *path, struct revocation *what)
{
        WORK(work);
        struct fs_stat st;
        GHashTableIter iter;
        void *file;
        bool over;
        int r;

        work_begin(&work, mount, what);
        r = check_class(mount, what, true);
        if (r == 0)
                r = find_file(mount, path, what, &st);
        if (r == 0 && what->block)
                r = blocked_add_file(mount->blocked, &st);
        if (r < 0)
                return r;
        meet_nodes_of(&work, &st);
        over = wait_fence(&work) && take_all(&work, take_files);
        r = finish(&work, over, true);
        g_hash_table_iter_init(&iter, work.files);
        while (g_hash_table_iter_next(&iter, &file, NULL))
                forget_names(mount, file);
        return r;
}

int revoke_allow_file(struct k42_mount *mount, const char *path, struct revocation *what)
{
        struct fs_stat st;
        int r;

        what->error = NULL;
        r = find_file(mount, path, what, &st);
        if (r < 0)
                return r;
        r = blocked_allow_file(mount->blocked, &st);
        if (r < 0)
                return refuse(what, r, "this file is not blocked");
        blocked_save(mount->blocked);
        return 0;
}

int revoke_withhold(struct k42_mount *mount, pid_t tid, struct k42_withhold *message)
{
        int r;

        if (mount->io_class == IO_CLASS_FAST && atomic_load(&mount->passthrough))
                return -EOPNOTSUPP;
        r = lazy_withhold(mount->lazy, tid, message);
        if (r == 0)
                blocked_save(mount->blocked); /* that it would not survive us has been said */
        return r;
}

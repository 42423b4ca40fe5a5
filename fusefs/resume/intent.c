/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Facts are written while the request is in its phase READ, and count from INTENT on.  A request
 * that runs again is in INTENT or DONE when it comes here; who finds that the call was not made
 * writes the facts anew, because what is there now is what it will change.
 */
#include "fusefs/resume/intent.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "fusefs/mount.h"
#include "fusefs/node/node_table.h"

#define UNKNOWN S_IFMT /* a type that no file has: the name could not be looked at */

#define COMPARE_CHUNK 65536

/* ---- the frame ---- */

enum step {
        STEP_FIRST,   /* nothing is known: record the facts */
        STEP_JUDGE,   /* there are facts of a dead daemon */
        STEP_RESULT,  /* the result is known */
        STEP_NOTHING, /* nothing is recorded */
};

static enum step begin(struct request *request, enum intent_kind kind)
{
        uint32_t phase;

        if (!request)
                return STEP_NOTHING;
        phase = atomic_load_explicit(&request->phase, memory_order_relaxed);
        if (phase == REQUEST_READ || request->facts.kind != (uint32_t)kind)
                return STEP_FIRST;
        return phase == REQUEST_DONE ? STEP_RESULT : STEP_JUDGE;
}

/* The facts that follow are not true yet. */
static void write_facts(struct request *request, enum intent_kind kind)
{
        atomic_store_explicit(&request->phase, REQUEST_READ, memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst);
        request->check_facts = 0;
        request->facts.kind = (uint32_t)kind;
}

/* They are. */
static int64_t run(struct request *request)
{
        if (request->flags & REQUEST_GONE)
                return -EINTR;
        FAILPOINT("intent");
        request_intended(request);
        return INTENT_RUN;
}

/* ---- names ---- */

static struct request_name look(struct dir_linux_fs *dir, int dirfd, const char *name)
{
        const struct node_table *table = dir->file.table;
        const bool local = table->mount->noflush;
        struct fs_stat st;
        bool mount_root;
        int r = fs_stat_name(dirfd, name, local, &st, &mount_root);

        if (r == -ENOENT)
                return (struct request_name){.type = 0};
        if (r < 0)
                return (struct request_name){.type = UNKNOWN};
        return (struct request_name){.dev = st.st.st_dev,
                                     .ino = st.st.st_ino,
                                     .btime = st.btime,
                                     .type = st.st.st_mode & S_IFMT};
}

static bool same(const struct request_name *a, const struct request_name *b)
{
        return a->type == b->type && a->dev == b->dev && a->ino == b->ino && a->btime == b->btime;
}

static bool is_file(const struct request_name *name)
{
        return name->type != 0 && name->type != UNKNOWN;
}

static bool is_fd(const struct request_name *name, int fd)
{
        struct fs_stat st;

        return fs_stat(fd, &st) == 0 && st.st.st_dev == name->dev && st.st.st_ino == name->ino;
}

int64_t intent_make(struct dir_linux_fs *dir, int dirfd, const char *name, mode_t type, int link_fd)
{
        struct request *request = request_current();
        const enum step step = begin(request, INTENT_MAKE);
        struct request_name now;

        if (step == STEP_NOTHING)
                return INTENT_RUN;
        if (step == STEP_RESULT)
                return request->result;
        now = look(dir, dirfd, name);
        if (step == STEP_JUDGE && request->facts.name[0].type == 0 && is_file(&now) &&
            (link_fd < 0 ? now.type == type : is_fd(&now, link_fd)))
                return 0;
        write_facts(request, INTENT_MAKE);
        request->facts.name[0] = now;
        return run(request);
}

int64_t intent_remove(struct dir_linux_fs *dir, int dirfd, const char *name)
{
        struct request *request = request_current();
        const enum step step = begin(request, INTENT_REMOVE);
        struct request_name now;

        if (step == STEP_NOTHING)
                return INTENT_RUN;
        if (step == STEP_RESULT)
                return request->result;
        now = look(dir, dirfd, name);
        if (step == STEP_JUDGE && is_file(&request->facts.name[0]) && now.type != UNKNOWN &&
            !same(&request->facts.name[0], &now))
                return 0;
        write_facts(request, INTENT_REMOVE);
        request->facts.name[0] = now;
        return run(request);
}

int64_t intent_rename(struct dir_linux_fs *dir, int dirfd, const char *name,
                      struct dir_linux_fs *new_dir, int new_dirfd, const char *new_name,
                      bool exchange)
{
        struct request *request = request_current();
        const enum intent_kind kind = exchange ? INTENT_EXCHANGE : INTENT_RENAME;
        const enum step step = begin(request, kind);
        const struct request_name *from, *to;
        struct request_name now, new_now;

        if (step == STEP_NOTHING)
                return INTENT_RUN;
        if (step == STEP_RESULT)
                return request->result;
        now = look(dir, dirfd, name);
        new_now = look(new_dir, new_dirfd, new_name);
        from = &request->facts.name[0];
        to = &request->facts.name[1];
        if (step == STEP_JUDGE && is_file(from) && !same(from, to) && same(&new_now, from) &&
            (exchange ? same(&now, to) : now.type != UNKNOWN && !same(&now, from)))
                return 0;
        write_facts(request, kind);
        request->facts.name[0] = now;
        request->facts.name[1] = new_now;
        return run(request);
}

void intent_take_back(void)
{
        struct request *request = request_current();

        if (request && atomic_load(&request->phase) == REQUEST_DONE)
                atomic_store(&request->phase, REQUEST_INTENT);
}

bool intent_name_was(unsigned which, dev_t *ret_dev, ino_t *ret_ino)
{
        const struct request *request = request_current();

        if (!request || request->facts.kind == INTENT_NONE || !is_file(&request->facts.name[which]))
                return false;
        *ret_dev = request->facts.name[which].dev;
        *ret_ino = request->facts.name[which].ino;
        return true;
}

/* ---- extended attributes ---- */

static int64_t change_xattr(int fd, const char *name, enum intent_kind kind)
{
        struct request *request = request_current();
        const enum step step = begin(request, kind);
        bool is_there;

        if (step == STEP_NOTHING)
                return INTENT_RUN;
        if (step == STEP_RESULT)
                return request->result;
        is_there = fs_getxattr(fd, name, NULL, 0) >= 0;
        if (step == STEP_JUDGE && is_there == (kind == INTENT_SETXATTR) &&
            (request->facts.size != 0) != is_there)
                return 0;
        write_facts(request, kind);
        request->facts.size = is_there;
        return run(request);
}

int64_t intent_setxattr(int fd, const char *name, int flags)
{
        return flags & XATTR_CREATE ? change_xattr(fd, name, INTENT_SETXATTR) : intent_once();
}

int64_t intent_removexattr(int fd, const char *name)
{
        return change_xattr(fd, name, INTENT_REMOVEXATTR);
}

/* ---- contents ---- */

/* How many of the bytes at `offset` of the file are those of `data`, from the first on; -errno if
 * that cannot be found out. */
static ssize_t compare(int fd, off_t offset, const char *data, size_t size)
{
        g_autofree char *chunk = g_try_malloc(COMPARE_CHUNK);
        size_t done = 0;

        if (!chunk)
                return -ENOMEM;
        while (done < size) {
                const ssize_t n =
                        fs_pread(fd, chunk, MIN(size - done, COMPARE_CHUNK), offset + (off_t)done);

                if (n < 0)
                        return n;
                for (ssize_t i = 0; i < n; i++)
                        if (chunk[i] != data[done + (size_t)i])
                                return (ssize_t)(done + (size_t)i);
                if (n == 0)
                        break;
                done += (size_t)n;
        }
        return (ssize_t)done;
}

/* How much of `data` was appended behind `end`, where the file ended before; it is `size_now` bytes
 * long now.  Without the right to read the file, its length must do. */
static size_t appended(int io_fd, off_t end, off_t size_now, const void *data, size_t size)
{
        const size_t room = (size_t)MAX(size_now - end, 0);
        const size_t most = MIN(room, size);
        const int fd = most > 0 ? fs_reopen(io_fd, O_RDONLY) : -EBADF;
        ssize_t n = fd >= 0 ? compare(fd, end, data, most) : (ssize_t)most;

        if (fd >= 0)
                fs_close(fd);
        if (n < 0)
                n = (ssize_t)most;
        /* A part of it and then something else is somebody else's. */
        return (size_t)n == most ? most : 0;
}

/* For what depends on how long the file is, which is *ret_size now.  False if *ret is what the call returns, else
 * whether there are facts of a dead daemon is in *ret_judge. */
static bool begin_by_size(int io_fd, enum intent_kind kind, uint64_t *ret_size, bool *ret_judge, int64_t *ret)
{
        struct request *request = request_current();
        const enum step step = begin(request, kind);
        const bool known = step == STEP_NOTHING || step == STEP_RESULT;
        struct fs_stat st;

        if (known)
                *ret = step == STEP_NOTHING ? INTENT_RUN : request->result;
        else
                *ret = fs_stat(io_fd, &st);
        if (known || *ret < 0)
                return false;
        *ret_size = (uint64_t)st.st.st_size;
        *ret_judge = step == STEP_JUDGE;
        return true;
}

static int64_t run_by_size(enum intent_kind kind, uint64_t size)
{
        struct request *request = request_current();

        write_facts(request, kind);
        request->facts.size = size;
        return run(request);
}

int64_t intent_append(int io_fd, const void *data, size_t size, size_t *ret_written)
{
        const struct request *request = request_current();
        uint64_t now;
        bool judge;
        int64_t r;

        *ret_written = 0;
        if (!begin_by_size(io_fd, INTENT_APPEND, &now, &judge, &r))
                return r;
        if (judge) {
                *ret_written = appended(io_fd, (off_t)request->facts.size, (off_t)now, data, size);
                if (*ret_written == size)
                        return (int64_t)size;
                if (*ret_written > 0) /* the facts stay: this is how far the first time came */
                        return request->flags & REQUEST_GONE ? -EINTR : INTENT_RUN;
        }
        return run_by_size(INTENT_APPEND, now);
}

int64_t intent_resize(int io_fd)
{
        uint64_t now;
        bool judge;
        int64_t r;

        if (!begin_by_size(io_fd, INTENT_RESIZE, &now, &judge, &r))
                return r;
        if (judge && request_current()->facts.size != now)
                return 0;
        return run_by_size(INTENT_RESIZE, now);
}

/* ---- attributes, and what can be done twice ---- */

int64_t intent_attr(struct stat *st)
{
        struct request *request = request_current();
        const enum step step = begin(request, INTENT_ATTR);

        if (step == STEP_NOTHING)
                return INTENT_RUN;
        if (step == STEP_RESULT)
                return request->result;
        if (step == STEP_JUDGE) {
                st->st_mode = request->facts.mode;
                st->st_uid = request->facts.uid;
                st->st_gid = request->facts.gid;
                return request->flags & REQUEST_GONE ? -EINTR : INTENT_RUN;
        }
        write_facts(request, INTENT_ATTR);
        request->facts.mode = st->st_mode;
        request->facts.uid = st->st_uid;
        request->facts.gid = st->st_gid;
        return run(request);
}

int64_t intent_once(void)
{
        struct request *request = request_current();
        const enum step step = begin(request, INTENT_ONCE);

        if (step == STEP_NOTHING)
                return INTENT_RUN;
        if (step == STEP_RESULT)
                return request->result;
        write_facts(request, INTENT_ONCE);
        return run(request);
}

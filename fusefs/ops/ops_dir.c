/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Listing a directory.  The offsets are the backing file system's own cookies (d_off), so that
 * seekdir() and telldir() mean what they mean there and nothing is kept here between two requests.
 *
 * The two steps, lseek (if it is not there already) and getdents64, move the offset of the one backing
 * descriptor, so they are made under description.dir_lock; nothing else is.  Everything that getdents64
 * gives is used: its buffer is chosen so small that it fits into the answer, whose entries are larger.
 * How much larger depends on the names, so there is often room for more then, which is asked for in the
 * same way.
 */
#include <dirent.h>
#include <errno.h>
#include <linux/fuse.h>
#include <string.h>

#include "fusefs/ops/ops.h"
#include "fusefs/ops/ops_guard.h"
#include "fusefs/resume/requests.h"

/* How much larger an entry can be in the answer than in struct fs_dirent: 32 bytes against 24, and
 * 160 against 24 with attributes, for the shortest names. */
#define GROWTH_PERCENT      134
#define GROWTH_PERCENT_PLUS 667
#define DENTS_MIN           1100 /* one entry with the longest name that FUSE has */
#define REFILL_MIN          2048 /* less is not worth another system call */

/* An answer that is being made. */
struct listing {
        fuse_req_t req;
        struct node_table *table;
        struct dir_linux_fs *dir;
        struct description *description;
        int dirfd; /* the description's */
        bool plus;
        unsigned plain; /* so many more files are listed without attributes, see plus_advice.h */
        unsigned given; /* … and so many were */
        char *out;      /* `size` bytes of which `used` are used */
        size_t size, used;
        off_t offset; /* behind the last entry that was used */
};

static bool is_dot(const char *name)
{
        return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Files only, whose type is known: what asks for a directory's name will look it up. */
static bool leave_out(struct listing *l, const struct fs_dirent *d)
{
        if (l->plain == 0 || d->type == DT_DIR || d->type == DT_UNKNOWN)
                return false;
        l->plain--;
        l->given++;
        return true;
}

/* One entry with its attributes.  What cannot be looked up is listed without them; "." and ".."
 * too, as the kernel does not count them.  Returns its size; 0 if it is gone. */
static size_t add_plus(struct listing *l, const struct fs_dirent *d)
{
        struct fuse_entry_param entry;
        const bool bare = is_dot(d->name) || leave_out(l, d) || !request_can_raise(request_current());
        int r = bare ? -EISDIR : ops_lookup(l->dir, l->dirfd, d->name, &entry);

        if (r == -ENOENT)
                return 0;
        if (r < 0)
                entry = (struct fuse_entry_param){
                        .ino = 0,
                        .attr.st_ino = d->ino,
                        .attr.st_mode = (mode_t)d->type << 12,
                };
        return fuse_add_direntry_plus(l->req, l->out + l->used, l->size - l->used, d->name, &entry,
                                      d->off);
}

static size_t add_plain(struct listing *l, const struct fs_dirent *d)
{
        const struct stat st = {.st_ino = d->ino, .st_mode = (mode_t)d->type << 12};

        return fuse_add_direntry(l->req, l->out + l->used, l->size - l->used, d->name, &st, d->off);
}

/* False if the answer has no room for it. */
static bool add(struct listing *l, const struct fs_dirent *d)
{
        const size_t need = l->plus ? fuse_add_direntry_plus(l->req, NULL, 0, d->name, NULL, 0)
                                    : fuse_add_direntry(l->req, NULL, 0, d->name, NULL, 0);

        if (need > l->size - l->used)
                return false;
        l->used += l->plus ? add_plus(l, d) : add_plain(l, d);
        l->offset = d->off;
        return true;
}

static ssize_t read_entries(struct listing *l, void *dents, size_t size)
{
        ssize_t n;

        g_mutex_lock(&l->description->dir_lock);
        n = fs_getdents(l->dirfd, &l->description->dir_at, l->offset, dents, size);
        g_mutex_unlock(&l->description->dir_lock);
        return n;
}

/* So many bytes of entries fit into the rest of the answer whatever their names. */
static size_t dents_that_fit(const struct listing *l)
{
        return (l->size - l->used) * 100 / (l->plus ? GROWTH_PERCENT_PLUS : GROWTH_PERCENT) &
               ~(size_t)7;
}

/* Fills the answer, by the `size` bytes of `dents`.  Nothing in it means the end, so it goes on until
 * there is something; and then as long as the backing directory seems to have more and there is room.
 * What goes wrong then goes wrong in the next request once more. */
static int fill(struct listing *l, char *dents, size_t size)
{
        bool more = true;

        while (more) {
                const ssize_t n = read_entries(l, dents, size);

                if (n <= 0)
                        return l->used > 0 ? 0 : (int)n;
                for (ssize_t at = 0; at < n;) {
                        const struct fs_dirent *d = (const struct fs_dirent *)(dents + at);

                        if (!add(l, d))
                                return l->used > 0 ? 0 : -EINVAL;
                        at += d->reclen;
                }
                more = l->used == 0 || (size_t)n + DENTS_MIN > size;
                if (l->used > 0) {
                        size = dents_that_fit(l);
                        more = more && size >= REFILL_MIN;
                }
        }
        return 0;
}

/* The kernel did not take the answer: nobody knows the nodes in it. */
static void undo(struct listing *l)
{
        for (size_t at = 0; l->plus && at < l->used;) {
                struct fuse_direntplus *d = (struct fuse_direntplus *)(l->out + at);
                const struct fuse_entry_param entry = {.ino = d->entry_out.nodeid};

                if (entry.ino != 0)
                        ops_entry_undo(l->table, &entry);
                at += FUSE_DIRENTPLUS_SIZE(d);
        }
}

/* `l` has everything but the buffers and offsets. */
static void list(struct listing *l, size_t size, off_t offset)
{
        size_t dents_size;
        char *buffer;
        int r;

        l->size = size & ~(size_t)7;
        dents_size = MAX(dents_that_fit(l), DENTS_MIN);
        buffer = ops_buffer(dents_size + l->size);
        if (!buffer) {
                ops_reply(l->req, -ENOMEM);
                return;
        }
        l->out = buffer + dents_size;
        l->offset = offset;
        r = fill(l, buffer, dents_size);
        if (r < 0) {
                undo(l);
                ops_reply(l->req, r);
        } else if (fuse_reply_buf(l->req, l->out, l->used) < 0) {
                undo(l);
        }
}

static void list_plus(struct listing *l, size_t size, off_t offset)
{
        struct server_file *file = server_file_of(l->description->object);
        struct plus_advice *advice = &file->table->plus_advice;
        const pid_t tid = fuse_req_ctx(l->req)->pid;

        l->table = file->table;
        l->dir = dir_linux_fs_of(file);
        l->plus = true;
        /* Later in a listing the kernel asks for attributes only if somebody wanted some. */
        if (offset == 0)
                l->plain = plus_advice_begin(advice, tid);
        list(l, size, offset);
        if (l->given > 0)
                plus_advice_gave(advice, tid, l->given);
}

static void read_directory(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *fi,
                           void (*list_as)(struct listing *l, size_t size, off_t offset))
{
        OPS_GUARD(guard);
        int fd;
        struct description *description = ops_description_fd(req, fi, &fd);

        if (description && ops_guard_enter(&guard, req, description, RIGHT_READ)) {
                struct listing l = {.req = req, .description = description, .dirfd = fd};

                list_as(&l, size, offset);
        }
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                struct fuse_file_info *fi)
{
        read_directory(req, size, offset, fi, list);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
        read_directory(req, size, offset, fi, list_plus);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Actions on names and what is known of a file beside its contents. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "actor.h"

struct place {
        struct model_node *dir, *node; /* node: what has the name, or NULL */
        unsigned name;
        char path[256];
};

static struct place any_place(struct actor *actor)
{
        struct place place = {.dir = model_any_dir(actor->root, actor_random(actor))};

        place.name = (unsigned)(actor_random(actor) % MODEL_NAMES);
        place.node = place.dir->names[place.name];
        model_path(place.dir, place.name, place.path, sizeof place.path);
        return place;
}

/* A place with something of this type, if it is found soon. */
static struct place any_node(struct actor *actor, enum model_type type)
{
        struct place place;

        for (int i = 0; i < 30; i++) {
                place = any_place(actor);
                if (place.node && place.node->type == type)
                        break;
        }
        return place;
}

#define DO(actor, ...) snprintf((actor)->what, sizeof (actor)->what, __VA_ARGS__)

static void note_ino(struct actor *actor, const struct place *place, struct model_node *node)
{
        struct stat st;

        if (actor_expect(actor, fstatat(actor->dir_fd, place->path, &st, AT_SYMLINK_NOFOLLOW), 0))
                node->ino = st.st_ino;
}

static void make(struct actor *actor, const struct place *place, struct model_node *node)
{
        model_set(place->dir, place->name, node);
        model_unref(node);
        note_ino(actor, place, node);
}

static void do_create(struct actor *actor)
{
        struct place place = any_place(actor);
        struct model_node *node;
        int fd;

        DO(actor, "open(%s, O_CREAT | O_EXCL)", place.path);
        fd = openat(actor->dir_fd, place.path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0644);
        if (!actor_expect(actor, fd, place.node ? EEXIST : 0) || fd < 0)
                return;
        node = model_new(MODEL_FILE);
        node->mode = 0644;
        node->size = (size_t)(actor_random(actor) % 5000);
        for (size_t i = 0; i < node->size; i++)
                node->data[i] = (char)actor_random(actor);
        DO(actor, "write(%s, %zu bytes)", place.path, node->size);
        if (node->size > 0)
                actor_expect_bytes(actor, write(fd, node->data, node->size), node->size);
        close(fd);
        make(actor, &place, node);
}

static void do_mkdir(struct actor *actor)
{
        struct place place = any_place(actor);
        struct model_node *node;

        if (!place.node && model_depth(place.dir) >= MODEL_DEPTH)
                return;
        DO(actor, "mkdir(%s)", place.path);
        if (!actor_expect(actor, mkdirat(actor->dir_fd, place.path, 0755),
                          place.node ? EEXIST : 0) ||
            place.node)
                return;
        node = model_new(MODEL_DIR);
        node->mode = 0755;
        make(actor, &place, node);
}

static void do_mknod(struct actor *actor)
{
        struct place place = any_place(actor);
        struct model_node *node;

        DO(actor, "mknod(%s)", place.path);
        if (!actor_expect(actor, mknodat(actor->dir_fd, place.path, S_IFREG | 0600, 0),
                          place.node ? EEXIST : 0) ||
            place.node)
                return;
        node = model_new(MODEL_FILE);
        node->mode = 0600;
        make(actor, &place, node);
}

static void do_symlink(struct actor *actor)
{
        struct place place = any_place(actor);
        struct model_node *node = model_new(MODEL_SYMLINK);
        char got[64];
        ssize_t n;

        snprintf(node->target, sizeof node->target, "to-%llx",
                 (unsigned long long)(actor_random(actor) & 0xffffff));
        DO(actor, "symlink(%s, %s)", node->target, place.path);
        if (actor_expect(actor, symlinkat(node->target, actor->dir_fd, place.path),
                         place.node ? EEXIST : 0) &&
            !place.node) {
                node->refs++;
                make(actor, &place, node);
                DO(actor, "readlink(%s)", place.path);
                n = readlinkat(actor->dir_fd, place.path, got, sizeof got);
                if (actor_expect(actor, n, 0) &&
                    ((size_t)n != strlen(node->target) || memcmp(got, node->target, (size_t)n)))
                        actor_wrong(actor, "another target");
        }
        model_unref(node);
}

static void do_unlink(struct actor *actor)
{
        struct place place = any_place(actor);
        const int expected = !place.node ? ENOENT : place.node->type == MODEL_DIR ? EISDIR : 0;

        DO(actor, "unlink(%s)", place.path);
        if (actor_expect(actor, unlinkat(actor->dir_fd, place.path, 0), expected) && expected == 0)
                model_clear(place.dir, place.name);
}

static void do_rmdir(struct actor *actor)
{
        struct place place = any_place(actor);
        const int expected = !place.node                     ? ENOENT
                             : place.node->type != MODEL_DIR ? ENOTDIR
                             : model_children(place.node)    ? ENOTEMPTY
                                                             : 0;

        DO(actor, "rmdir(%s)", place.path);
        if (actor_expect(actor, unlinkat(actor->dir_fd, place.path, AT_REMOVEDIR), expected) &&
            expected == 0)
                model_clear(place.dir, place.name);
}

static void do_link(struct actor *actor)
{
        struct place from = any_node(actor, MODEL_FILE), to = any_place(actor);

        if (!from.node || from.node->type != MODEL_FILE)
                return;
        DO(actor, "link(%s, %s)", from.path, to.path);
        if (actor_expect(actor, linkat(actor->dir_fd, from.path, actor->dir_fd, to.path, 0),
                         to.node ? EEXIST : 0) &&
            !to.node)
                model_set(to.dir, to.name, from.node);
}

static int rename_errno(const struct place *from, const struct place *to)
{
        if (!from->node)
                return ENOENT;
        if (from->node == to->node)
                return 0;
        if (from->node->type == MODEL_DIR) {
                if (model_is_below(to->dir, from->node))
                        return EINVAL;
                if (to->node && to->node->type != MODEL_DIR)
                        return ENOTDIR;
        }
        if (to->node && to->node->type == MODEL_DIR) {
                if (model_is_below(from->dir, to->node))
                        return ENOTEMPTY;
                if (from->node->type != MODEL_DIR)
                        return EISDIR;
                if (model_children(to->node))
                        return ENOTEMPTY;
        }
        return 0;
}

static unsigned height(const struct model_node *dir)
{
        unsigned most = 0;

        for (unsigned i = 0; i < MODEL_NAMES; i++)
                if (dir->names[i] && dir->names[i]->type == MODEL_DIR && height(dir->names[i]) + 1 > most)
                        most = height(dir->names[i]) + 1;
        return most;
}

static void do_rename(struct actor *actor)
{
        struct place from = any_place(actor), to = any_place(actor);
        const int expected = rename_errno(&from, &to);

        if (from.node && from.node->type == MODEL_DIR &&
            model_depth(to.dir) + height(from.node) >= MODEL_DEPTH)
                return;
        DO(actor, "rename(%s, %s)", from.path, to.path);
        if (!actor_expect(actor,
                          renameat2(actor->dir_fd, from.path, actor->dir_fd, to.path, 0),
                          expected) ||
            expected != 0 || from.node == to.node)
                return;
        from.node->refs++;
        if (to.node)
                model_clear(to.dir, to.name);
        model_clear(from.dir, from.name);
        model_set(to.dir, to.name, from.node);
        from.node->refs--;
}

static void do_exchange(struct actor *actor)
{
        struct place from = any_place(actor), to = any_place(actor);
        const bool both = from.node && to.node;

        if ((from.node && from.node->type == MODEL_DIR) || (to.node && to.node->type == MODEL_DIR))
                return; /* which errno a directory that would be below itself gives is another test's */
        DO(actor, "rename(%s, %s, EXCHANGE)", from.path, to.path);
        if (!actor_expect(actor,
                          renameat2(actor->dir_fd, from.path, actor->dir_fd, to.path,
                                    RENAME_EXCHANGE),
                          both ? 0 : ENOENT) ||
            !both)
                return;
        from.dir->names[from.name] = to.node;
        to.dir->names[to.name] = from.node;
}

static void do_chmod(struct actor *actor)
{
        struct place place = any_node(actor, MODEL_FILE);
        const mode_t mode = 0600 | (mode_t)(actor_random(actor) & 0077);

        if (!place.node || place.node->type != MODEL_FILE)
                return;
        DO(actor, "chmod(%s, %o)", place.path, (unsigned)mode);
        if (actor_expect(actor, fchmodat(actor->dir_fd, place.path, mode, 0), 0))
                place.node->mode = mode;
}

static void do_utimens(struct actor *actor)
{
        struct place place = any_node(actor, MODEL_FILE);
        const int64_t mtime = 1000000000 + (int64_t)(actor_random(actor) % 500000000);
        const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = mtime}};
        struct stat st;

        if (!place.node || place.node->type != MODEL_FILE)
                return;
        DO(actor, "utimensat(%s)", place.path);
        if (!actor_expect(actor, utimensat(actor->dir_fd, place.path, times, 0), 0))
                return;
        DO(actor, "stat(%s) after utimensat", place.path);
        if (actor_expect(actor, fstatat(actor->dir_fd, place.path, &st, 0), 0) &&
            st.st_mtim.tv_sec != mtime)
                actor_wrong(actor, "mtime %lld, expected %lld", (long long)st.st_mtim.tv_sec,
                            (long long)mtime);
}

static void do_stat(struct actor *actor)
{
        struct place place = any_place(actor);
        struct stat st;

        DO(actor, "stat(%s)", place.path);
        if (!actor_expect(actor, fstatat(actor->dir_fd, place.path, &st, AT_SYMLINK_NOFOLLOW),
                          place.node ? 0 : ENOENT) ||
            !place.node)
                return;
        if (st.st_ino != place.node->ino)
                actor_wrong(actor, "inode %llu, expected %llu", (unsigned long long)st.st_ino,
                            (unsigned long long)place.node->ino);
        if (place.node->type != MODEL_FILE)
                return;
        if ((st.st_mode & 07777) != place.node->mode)
                actor_wrong(actor, "mode %o, expected %o", (unsigned)st.st_mode & 07777,
                            (unsigned)place.node->mode);
        if (st.st_size != (off_t)place.node->size || st.st_nlink != place.node->links)
                actor_wrong(actor, "size %lld and %u links, expected %zu and %u",
                            (long long)st.st_size, (unsigned)st.st_nlink, place.node->size,
                            place.node->links);
}

static void do_list(struct actor *actor)
{
        struct model_node *dir = model_any_dir(actor->root, actor_random(actor));

        if (actor_random(actor) % 8 == 0)
                actor_check_tree(actor, dir);
}

static bool xattr_path(struct actor *actor, const struct place *place, char *path, size_t size)
{
        snprintf(path, size, "/proc/self/fd/%d/%s", actor->dir_fd, place->path);
        return place->node && place->node->type == MODEL_FILE;
}

static void do_setxattr(struct actor *actor)
{
        static const int all_flags[] = {0, XATTR_CREATE, XATTR_REPLACE};
        struct place place = any_node(actor, MODEL_FILE);
        const unsigned x = (unsigned)(actor_random(actor) % MODEL_XATTRS);
        const int flags = all_flags[actor_random(actor) % 3];
        char path[300], name[32], value[16];
        bool there;
        int expected;

        if (!xattr_path(actor, &place, path, sizeof path))
                return;
        there = *place.node->xattrs[x];
        expected = flags == XATTR_CREATE && there    ? EEXIST
                   : flags == XATTR_REPLACE && !there ? ENODATA
                                                      : 0;
        snprintf(name, sizeof name, "user.x%u", x);
        snprintf(value, sizeof value, "v%llu", (unsigned long long)(actor_random(actor) % 1000000));
        DO(actor, "setxattr(%s, %s, flags %d)", place.path, name, flags);
        if (actor_expect(actor, setxattr(path, name, value, strlen(value), flags), expected) &&
            expected == 0)
                memcpy(place.node->xattrs[x], value, sizeof value);
}

static void do_removexattr(struct actor *actor)
{
        struct place place = any_node(actor, MODEL_FILE);
        const unsigned x = (unsigned)(actor_random(actor) % MODEL_XATTRS);
        char path[300], name[32], value[16] = "";
        ssize_t n;

        if (!xattr_path(actor, &place, path, sizeof path))
                return;
        snprintf(name, sizeof name, "user.x%u", x);
        DO(actor, "getxattr(%s, %s)", place.path, name);
        n = getxattr(path, name, value, sizeof value - 1);
        if (!actor_expect(actor, n, *place.node->xattrs[x] ? 0 : ENODATA))
                return;
        if (n >= 0 && strcmp(value, place.node->xattrs[x]) != 0)
                actor_wrong(actor, "'%s', expected '%s'", value, place.node->xattrs[x]);
        DO(actor, "removexattr(%s, %s)", place.path, name);
        if (actor_expect(actor, removexattr(path, name), *place.node->xattrs[x] ? 0 : ENODATA))
                *place.node->xattrs[x] = '\0';
}

void actor_name_action(struct actor *actor)
{
        static void (*const actions[])(struct actor *) = {
                do_create, do_create, do_mkdir,  do_mknod,    do_symlink, do_unlink,   do_unlink,
                do_rmdir,  do_rmdir,  do_link,   do_rename,   do_rename,  do_exchange, do_chmod,
                do_utimens, do_stat,  do_stat,   do_list,     do_setxattr, do_removexattr,
        };

        actions[actor_random(actor) % (sizeof actions / sizeof *actions)](actor);
}

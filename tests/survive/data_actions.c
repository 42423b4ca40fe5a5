/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Actions on contents: by name, and by descriptors that are held for long, of unlinked files too. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actor.h"

#define CHUNK_MAX 9000
#define PAGE      4096

#define DO(actor, ...) snprintf((actor)->what, sizeof (actor)->what, __VA_ARGS__)

/* A file's path, or NULL when none is found soon. */
static struct model_node *any_file(struct actor *actor, char *path, size_t size)
{
        for (int i = 0; i < 30; i++) {
                struct model_node *dir = model_any_dir(actor->root, actor_random(actor));
                unsigned name = (unsigned)(actor_random(actor) % MODEL_NAMES);
                struct model_node *node = dir->names[name];

                if (!node || node->type != MODEL_FILE)
                        continue;
                model_path(dir, name, path, size);
                return node;
        }
        return NULL;
}

static size_t random_bytes(struct actor *actor, char *bytes, size_t most)
{
        const size_t n = 1 + (size_t)(actor_random(actor) % most);

        for (size_t i = 0; i < n; i++)
                bytes[i] = (char)actor_random(actor);
        return n;
}

static void model_write(struct model_node *node, const char *bytes, size_t n, size_t at)
{
        memcpy(node->data + at, bytes, n);
        if (at + n > node->size)
                node->size = at + n;
}

static void model_truncate(struct model_node *node, size_t size)
{
        if (size < node->size)
                memset(node->data + size, 0, node->size - size);
        node->size = size;
}

static void do_write(struct actor *actor)
{
        char path[256], bytes[CHUNK_MAX];
        struct model_node *node = any_file(actor, path, sizeof path);
        size_t n, at;
        int fd;

        if (!node)
                return;
        at = (size_t)(actor_random(actor) % (MODEL_FILE_MAX - CHUNK_MAX));
        n = random_bytes(actor, bytes, sizeof bytes);
        DO(actor, "open(%s, O_WRONLY)", path);
        fd = openat(actor->dir_fd, path, O_WRONLY | O_CLOEXEC);
        if (!actor_expect(actor, fd, 0))
                return;
        DO(actor, "pwrite(%s, %zu bytes at %zu)", path, n, at);
        actor_expect_bytes(actor, pwrite(fd, bytes, n, (off_t)at), n);
        model_write(node, bytes, n, at);
        close(fd);
}

static void do_append(struct actor *actor)
{
        char path[256], bytes[CHUNK_MAX];
        struct model_node *node = any_file(actor, path, sizeof path);
        struct stat st;
        size_t n;
        int fd;

        if (!node || node->size > MODEL_FILE_MAX - CHUNK_MAX)
                return;
        n = random_bytes(actor, bytes, sizeof bytes);
        DO(actor, "append(%s, %zu bytes to %zu)", path, n, node->size);
        fd = openat(actor->dir_fd, path, O_WRONLY | O_APPEND | O_CLOEXEC);
        if (!actor_expect(actor, fd, 0))
                return;
        actor_expect_bytes(actor, write(fd, bytes, n), n);
        model_write(node, bytes, n, node->size);
        if (actor_expect(actor, fstat(fd, &st), 0) && st.st_size != (off_t)node->size)
                actor_wrong(actor, "size %lld, expected %zu", (long long)st.st_size, node->size);
        close(fd);
}

static void do_read(struct actor *actor)
{
        char path[256];
        struct model_node *node = any_file(actor, path, sizeof path);
        int fd;

        if (!node)
                return;
        DO(actor, "read(%s)", path);
        fd = openat(actor->dir_fd, path, O_RDONLY | O_CLOEXEC);
        if (!actor_expect(actor, fd, 0))
                return;
        actor_check_content(actor, fd, node);
        close(fd);
}

static void do_open_truncate(struct actor *actor)
{
        char path[256], bytes[500];
        struct model_node *node = any_file(actor, path, sizeof path);
        const size_t n = random_bytes(actor, bytes, sizeof bytes);
        int fd;

        if (!node)
                return;
        DO(actor, "open(%s, O_TRUNC)", path);
        fd = openat(actor->dir_fd, path, O_WRONLY | O_TRUNC | O_CLOEXEC);
        if (!actor_expect(actor, fd, 0))
                return;
        model_truncate(node, 0);
        actor_expect_bytes(actor, write(fd, bytes, n), n);
        model_write(node, bytes, n, 0);
        close(fd);
}

static void do_truncate(struct actor *actor)
{
        char path[256];
        struct model_node *node = any_file(actor, path, sizeof path);
        const size_t size = (size_t)(actor_random(actor) % MODEL_FILE_MAX);
        int fd;

        if (!node)
                return;
        DO(actor, "ftruncate(%s, %zu)", path, size);
        fd = openat(actor->dir_fd, path, O_RDWR | O_CLOEXEC);
        if (!actor_expect(actor, fd, 0))
                return;
        if (actor_expect(actor, ftruncate(fd, (off_t)size), 0))
                model_truncate(node, size);
        close(fd);
}

static void do_fallocate(struct actor *actor)
{
        char path[256];
        struct model_node *node = any_file(actor, path, sizeof path);
        const bool punch = actor_random(actor) & 1;
        size_t at = (size_t)(actor_random(actor) % (MODEL_FILE_MAX / 2)), n = 5000;
        int fd;

        if (!node)
                return;
        DO(actor, "fallocate(%s, %s, %zu, %zu)", path, punch ? "PUNCH_HOLE" : "0", at, n);
        fd = openat(actor->dir_fd, path, O_RDWR | O_CLOEXEC);
        if (!actor_expect(actor, fd, 0))
                return;
        if (actor_expect(actor,
                         fallocate(fd, punch ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : 0,
                                   (off_t)at, (off_t)n),
                         0)) {
                if (!punch && at + n > node->size)
                        node->size = at + n;
                else if (punch && at < node->size)
                        memset(node->data + at, 0,
                               at + n < node->size ? n : node->size - at);
        }
        close(fd);
}

static void do_copy_range(struct actor *actor)
{
        char from[256], to[256];
        struct model_node *a = any_file(actor, from, sizeof from);
        struct model_node *b = any_file(actor, to, sizeof to);
        size_t n, at;
        off_t off_in, off_out;
        int in, out;
        ssize_t r;

        if (!a || !b || a == b || a->size == 0)
                return;
        at = (size_t)(actor_random(actor) % a->size);
        n = a->size - at < CHUNK_MAX ? a->size - at : CHUNK_MAX;
        off_in = (off_t)at;
        off_out = (off_t)(actor_random(actor) % (MODEL_FILE_MAX - CHUNK_MAX));
        DO(actor, "copy_file_range(%s at %zu, %s at %lld, %zu)", from, at, to, (long long)off_out,
           n);
        in = openat(actor->dir_fd, from, O_RDONLY | O_CLOEXEC);
        out = openat(actor->dir_fd, to, O_WRONLY | O_CLOEXEC);
        if (actor_expect(actor, in, 0) && actor_expect(actor, out, 0)) {
                const size_t out_at = (size_t)off_out;

                r = copy_file_range(in, &off_in, out, &off_out, n, 0);
                if (actor_expect(actor, r, 0)) {
                        if ((size_t)r > n)
                                actor_wrong(actor, "%zd bytes", r);
                        else
                                model_write(b, a->data + at, (size_t)r, out_at);
                }
        }
        if (in >= 0)
                close(in);
        if (out >= 0)
                close(out);
}

static void do_map(struct actor *actor)
{
        char path[256], bytes[500];
        struct model_node *node = any_file(actor, path, sizeof path);
        const size_t n = random_bytes(actor, bytes, sizeof bytes);
        size_t at;
        char *map;
        int fd;

        if (!node || node->size < n + 1)
                return;
        at = (size_t)(actor_random(actor) % (node->size - n));
        DO(actor, "mmap(%s), %zu bytes at %zu of %zu", path, n, at, node->size);
        fd = openat(actor->dir_fd, path, O_RDWR | O_CLOEXEC);
        if (!actor_expect(actor, fd, 0))
                return;
        map = mmap(NULL, node->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (actor_expect(actor, map == MAP_FAILED ? -1 : 0, 0)) {
                if (memcmp(map, node->data, node->size) != 0)
                        actor_wrong(actor, "the mapping has other bytes");
                memcpy(map + at, bytes, n);
                if (actor_expect(actor, msync(map, node->size, MS_SYNC), 0))
                        model_write(node, bytes, n, at);
                munmap(map, node->size);
        }
        close(fd);
}

/* ---- descriptors that are held ---- */

static void do_hold(struct actor *actor)
{
        struct held *held = &actor->held[actor_random(actor) % ACTOR_HELD];
        const bool append = actor_random(actor) % 3 == 0;
        struct model_node *node;
        char path[256];
        int fd;

        if (held->fd >= 0) {
                close(held->fd);
                model_unref(held->node);
                held->fd = -1;
                return;
        }
        node = any_file(actor, path, sizeof path);
        if (!node)
                return;
        DO(actor, "open(%s) to hold it", path);
        fd = openat(actor->dir_fd, path, O_RDWR | O_CLOEXEC | (append ? O_APPEND : 0));
        if (!actor_expect(actor, fd, 0))
                return;
        node->refs++;
        *held = (struct held){.fd = fd, .node = node, .append = append};
}

/* A file that never had a name. */
static void do_hold_nameless(struct actor *actor)
{
        struct held *held = &actor->held[actor_random(actor) % ACTOR_HELD];
        int fd;

        if (held->fd >= 0)
                return;
        DO(actor, "open(O_TMPFILE)");
        fd = openat(actor->dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (!actor_expect(actor, fd, 0))
                return;
        *held = (struct held){.fd = fd, .node = model_new(MODEL_FILE)};
        held->node->mode = 0600;
}

static struct held *any_held(struct actor *actor)
{
        for (int i = 0; i < 10; i++) {
                struct held *held = &actor->held[actor_random(actor) % ACTOR_HELD];

                if (held->fd >= 0)
                        return held;
        }
        return NULL;
}

static void do_held_write(struct actor *actor)
{
        struct held *held = any_held(actor);
        char bytes[CHUNK_MAX];
        size_t n, at;

        if (!held)
                return;
        at = held->append ? held->node->size : (size_t)held->offset;
        if (at > MODEL_FILE_MAX - CHUNK_MAX)
                return;
        n = random_bytes(actor, bytes, sizeof bytes);
        DO(actor, "write(held, %zu bytes at %zu)", n, at);
        actor_expect_bytes(actor, write(held->fd, bytes, n), n);
        model_write(held->node, bytes, n, at);
        held->offset = (off_t)(at + n);
}

static void do_held_read(struct actor *actor)
{
        struct held *held = any_held(actor);
        char bytes[CHUNK_MAX];
        size_t expected = 0;
        ssize_t n;

        if (!held)
                return;
        if (held->offset < (off_t)held->node->size)
                expected = held->node->size - (size_t)held->offset;
        if (expected > sizeof bytes)
                expected = sizeof bytes;
        DO(actor, "read(held, at %lld of %zu)", (long long)held->offset, held->node->size);
        n = read(held->fd, bytes, sizeof bytes);
        if (!actor_expect(actor, n, 0))
                return;
        if ((size_t)n != expected)
                actor_wrong(actor, "%zd bytes, expected %zu", n, expected);
        else if (memcmp(bytes, held->node->data + held->offset, expected) != 0)
                actor_wrong(actor, "other bytes");
        held->offset += n;
}

static void do_held_seek(struct actor *actor)
{
        struct held *held = any_held(actor);

        if (!held)
                return;
        held->offset = (off_t)(actor_random(actor) % (MODEL_FILE_MAX - CHUNK_MAX));
        DO(actor, "lseek(held, %lld)", (long long)held->offset);
        actor_expect(actor, lseek(held->fd, held->offset, SEEK_SET), 0);
}

static void do_held_stat(struct actor *actor)
{
        struct held *held = any_held(actor);
        struct stat st;

        if (!held)
                return;
        DO(actor, "fstat(held)");
        if (!actor_expect(actor, fstat(held->fd, &st), 0))
                return;
        if (st.st_size != (off_t)held->node->size || st.st_nlink != held->node->links)
                actor_wrong(actor, "size %lld and %u links, expected %zu and %u",
                            (long long)st.st_size, (unsigned)st.st_nlink, held->node->size,
                            held->node->links);
        if (held->node->ino && st.st_ino != held->node->ino)
                actor_wrong(actor, "another inode");
}

static void do_held_check(struct actor *actor)
{
        struct held *held = any_held(actor);

        if (!held)
                return;
        DO(actor, "pread(held, all)");
        actor_check_content(actor, held->fd, held->node);
}

static void do_held_truncate(struct actor *actor)
{
        struct held *held = any_held(actor);
        const size_t size = (size_t)(actor_random(actor) % MODEL_FILE_MAX);

        if (!held)
                return;
        DO(actor, "ftruncate(held, %zu)", size);
        if (actor_expect(actor, ftruncate(held->fd, (off_t)size), 0))
                model_truncate(held->node, size);
}

void actor_data_action(struct actor *actor)
{
        static void (*const actions[])(struct actor *) = {
                do_write,      do_append,      do_append,     do_read,       do_open_truncate,
                do_truncate,   do_fallocate,   do_copy_range, do_map,        do_hold,
                do_hold,       do_hold_nameless, do_held_write, do_held_write, do_held_read,
                do_held_read,  do_held_seek,   do_held_stat,  do_held_check, do_held_truncate,
        };

        actions[actor_random(actor) % (sizeof actions / sizeof *actions)](actor);
}

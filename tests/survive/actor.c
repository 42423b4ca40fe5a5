/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "actor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

atomic_bool actor_failed;

uint64_t actor_random(struct actor *actor)
{
        actor->random ^= actor->random << 13;
        actor->random ^= actor->random >> 7;
        actor->random ^= actor->random << 17;
        return actor->random;
}

void actor_wrong(struct actor *actor, const char *format, ...)
{
        char text[512];
        va_list args;

        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        fprintf(stderr, "WRONG: actor %u, call %llu: %s: %s\n", actor->number,
                (unsigned long long)actor->calls, actor->what, text);
        atomic_store(&actor_failed, true);
}

bool actor_expect(struct actor *actor, long r, int expected)
{
        const int got = r < 0 ? errno : 0;

        actor->calls++;
        if (got == expected)
                return true;
        actor_wrong(actor, "%s, expected %s", got ? strerror(got) : "it worked",
                    expected ? strerror(expected) : "that it works");
        return false;
}

void actor_expect_bytes(struct actor *actor, ssize_t written, size_t expected)
{
        if (actor_expect(actor, written, 0) && written != (ssize_t)expected)
                actor_wrong(actor, "%zd bytes were written, expected %zu", written, expected);
}

bool actor_check_content(struct actor *actor, int fd, const struct model_node *node)
{
        static _Thread_local char buffer[MODEL_FILE_MAX + 1];
        size_t at = 0;
        ssize_t n;

        do {
                n = pread(fd, buffer + at, sizeof buffer - at, (off_t)at);
                actor->calls++;
                if (n < 0) {
                        actor_wrong(actor, "pread at %zu: %s", at, strerror(errno));
                        return false;
                }
                at += (size_t)n;
        } while (n > 0 && at < sizeof buffer);
        if (at != node->size) {
                actor_wrong(actor, "%zu bytes, expected %zu", at, node->size);
                return false;
        }
        for (size_t i = 0; i < at; i++) {
                if (buffer[i] == node->data[i])
                        continue;
                actor_wrong(actor, "byte %zu of %zu is %02x, expected %02x", i, at,
                            (unsigned char)buffer[i], (unsigned char)node->data[i]);
                return false;
        }
        return true;
}

static void check_file(struct actor *actor, const char *path, struct model_node *node)
{
        int fd = openat(actor->dir_fd, path, O_RDONLY | O_CLOEXEC);

        if (!actor_expect(actor, fd, 0))
                return;
        actor_check_content(actor, fd, node);
        close(fd);
}

static void check_names(struct actor *actor, const struct model_node *dir, const char *path)
{
        bool seen[MODEL_NAMES] = {false};
        int fd = openat(actor->dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct dirent *entry;
        unsigned name;
        DIR *stream;
        char end;

        if (!actor_expect(actor, fd, 0))
                return;
        stream = fdopendir(fd);
        errno = 0;
        while ((entry = readdir(stream))) {
                if (entry->d_name[0] == '.')
                        continue;
                if (sscanf(entry->d_name, "n%u%c", &name, &end) != 1 || name >= MODEL_NAMES ||
                    !dir->names[name] || seen[name])
                        actor_wrong(actor, "'%s' is listed, or listed twice", entry->d_name);
                else
                        seen[name] = true;
                errno = 0;
        }
        if (errno != 0)
                actor_wrong(actor, "readdir: %s", strerror(errno));
        closedir(stream);
        for (name = 0; name < MODEL_NAMES; name++)
                if (dir->names[name] && !seen[name])
                        actor_wrong(actor, "n%u is not listed", name);
}

void actor_check_tree(struct actor *actor, struct model_node *dir)
{
        char path[256];

        snprintf(path, sizeof path, ".");
        if (dir->parent) {
                unsigned name = 0;

                while (dir->parent->names[name] != dir)
                        name++;
                model_path(dir->parent, name, path, sizeof path);
        }
        snprintf(actor->what, sizeof actor->what, "look at %s", path);
        check_names(actor, dir, path);
        for (unsigned name = 0; name < MODEL_NAMES && !atomic_load(&actor_failed); name++) {
                struct model_node *node = dir->names[name];
                struct stat st;

                if (!node)
                        continue;
                model_path(dir, name, path, sizeof path);
                snprintf(actor->what, sizeof actor->what, "look at %s", path);
                if (!actor_expect(actor, fstatat(actor->dir_fd, path, &st, AT_SYMLINK_NOFOLLOW), 0))
                        continue;
                if (node->ino && st.st_ino != node->ino)
                        actor_wrong(actor, "inode %llu, expected %llu",
                                    (unsigned long long)st.st_ino, (unsigned long long)node->ino);
                if (node->type == MODEL_FILE)
                        check_file(actor, path, node);
                else if (node->type == MODEL_DIR)
                        actor_check_tree(actor, node);
        }
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A link owns a reference on its directory.  It is freed by whoever takes it out of its child's
 * list, who then gives that reference back after all locks are dropped: it may be the last one.
 */
#include "fusefs/node/dir_linux_fs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fusefs/node/node_table.h"

static uint64_t name_hash(const char *name)
{
        uint64_t h = UINT64_C(0xcbf29ce484222325);

        for (; *name; name++)
                h = (h ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
        return hash_mix(h);
}

static struct file_link *link_of(struct hash_link *by_name)
{
        return (struct file_link *)by_name; /* the first member */
}

static struct keep *keep_of(const struct dir_linux_fs *dir)
{
        return dir->file.table->mount->keep;
}

struct file_link *file_link_new(const struct dir_linux_fs *dir, const char *name)
{
        const size_t size = strlen(name) + 1;
        struct file_link *link = calloc(1, sizeof *link);

        if (!link)
                return NULL;
        link->kept = keep_alloc(keep_of(dir), offsetof(struct kept_link, name) + size);
        if (!link->kept) {
                free(link);
                return NULL;
        }
        link->parent = (struct dir_linux_fs *)dir; /* no reference yet */
        link->kept->parent = dir->file.id;
        memcpy(link->kept->name, name, size);
        return link;
}

void file_link_free(struct file_link *link)
{
        if (!link)
                return;
        keep_free(keep_of(link->parent), link->kept);
        free(link);
}

void file_link_freep(struct file_link **link)
{
        file_link_free(*link);
}

static struct file_link *locked_find(struct dir_linux_fs *dir, const char *name)
{
        struct hash_link *at = hash_first(&dir->children, name_hash(name));

        while (at && strcmp(link_of(at)->kept->name, name) != 0)
                at = hash_next(at);
        return at ? link_of(at) : NULL;
}

/* Out of the child's list only; its links_lock is held. */
static void locked_leave_child(struct file_link *link)
{
        struct file_link **p = &link->child->links;

        while (*p && *p != link)
                p = &(*p)->next;
        if (*p) {
                *p = link->next;
                link->child->n_links--;
        }
}

/* Links that were taken out of their lists, to be freed without locks. */
struct gone_links {
        struct file_link *first;
};

static void gone_push(struct gone_links *gone, struct file_link *link)
{
        link->next = gone->first;
        gone->first = link;
}

static void gone_free(struct gone_links *gone)
{
        while (gone->first) {
                struct file_link *link = gone->first;
                struct server_file *dir = &link->parent->file;

                gone->first = link->next;
                file_link_free(link);
                server_file_unref(dir);
        }
}

/* Takes `link` out of both lists; children_lock of its directory is held, if it is listed there. */
static void locked_remove(struct dir_linux_fs *dir, struct file_link *link, struct gone_links *gone)
{
        struct server_file *child = link->child;

        hash_remove(&dir->children, &link->by_name);
        g_mutex_lock(&child->links_lock);
        link->kept->listed = false;
        locked_leave_child(link);
        g_mutex_unlock(&child->links_lock);
        gone_push(gone, link);
}

/* A name that was kept only for people is of no use any more when there is a real one. */
static void locked_drop_unlisted(struct server_file *child, struct gone_links *gone)
{
        struct file_link **p = &child->links;

        while (*p) {
                struct file_link *link = *p;

                if (link->kept->listed) {
                        p = &link->next;
                } else {
                        *p = link->next;
                        child->n_links--;
                        gone_push(gone, link);
                }
        }
}

/* The oldest link of a file that has too many; its directory is given with a reference. */
static struct file_link *locked_surplus(struct server_file *child)
{
        const unsigned max = server_file_is_dir(child) ? 1 : FILE_LINKS_MAX;
        struct file_link *link = child->links;

        if (child->n_links <= max)
                return NULL;
        while (link->next)
                link = link->next;
        server_file_ref(&link->parent->file);
        return link;
}

/* Removes `surplus`, if it is still there, which was found without its directory's lock. */
static void remove_surplus(struct server_file *child, struct dir_linux_fs *dir,
                           const struct file_link *surplus)
{
        struct gone_links gone = {NULL};
        struct file_link *link;

        g_mutex_lock(&dir->children_lock);
        g_mutex_lock(&child->links_lock);
        link = child->links;
        while (link && link != surplus)
                link = link->next;
        if (link && link->parent == dir) {
                if (link->kept->listed)
                        hash_remove(&dir->children, &link->by_name);
                link->kept->listed = false;
                locked_leave_child(link);
                gone_push(&gone, link);
        }
        g_mutex_unlock(&child->links_lock);
        g_mutex_unlock(&dir->children_lock);
        gone_free(&gone);
}

static void commit(struct file_link *link, struct server_file *child)
{
        link->child = child;
        link->kept->child = child->id;
        link->kept->listed = true;
        keep_commit(link->kept, KEEP_LINK);
}

/* Puts a link that is committed into both lists. */
static void enlist(struct file_link *link)
{
        struct dir_linux_fs *dir = link->parent;
        struct server_file *child = link->child;
        struct gone_links gone = {NULL};
        struct file_link *old, *surplus = NULL;
        struct dir_linux_fs *surplus_dir = NULL;

        server_file_ref(&dir->file);
        g_mutex_lock(&dir->children_lock);
        old = locked_find(dir, link->kept->name);
        if (old)
                locked_remove(dir, old, &gone);
        hash_insert(&dir->children, &link->by_name, name_hash(link->kept->name));
        g_mutex_lock(&child->links_lock);
        locked_drop_unlisted(child, &gone);
        link->next = child->links;
        child->links = link;
        child->n_links++;
        surplus = locked_surplus(child);
        if (surplus)
                surplus_dir = surplus->parent;
        g_mutex_unlock(&child->links_lock);
        g_mutex_unlock(&dir->children_lock);

        gone_free(&gone);
        if (surplus) {
                remove_surplus(child, surplus_dir, surplus);
                server_file_unref(&surplus_dir->file);
        }
}

void dir_link(struct file_link *link, struct server_file *child)
{
        commit(link, child);
        enlist(link);
}

void dir_link_two(struct file_link *link_a, struct server_file *child_a, struct file_link *link_b,
                  struct server_file *child_b)
{
        commit(link_a, child_a);
        commit(link_b, child_b);
        enlist(link_a);
        enlist(link_b);
}

int dir_saw(struct dir_linux_fs *dir, const char *name, struct server_file *child)
{
        struct file_link *link;
        bool known;

        g_mutex_lock(&dir->children_lock);
        link = locked_find(dir, name);
        known = link && link->child == child;
        g_mutex_unlock(&dir->children_lock);
        if (known)
                return 0;
        link = file_link_new(dir, name);
        if (!link)
                return -ENOMEM;
        dir_link(link, child);
        return 0;
}

struct server_file *dir_child(struct dir_linux_fs *dir, const char *name)
{
        struct server_file *child = NULL;
        struct file_link *link;

        g_mutex_lock(&dir->children_lock);
        link = locked_find(dir, name);
        if (link && server_file_try_ref(link->child))
                child = link->child;
        g_mutex_unlock(&dir->children_lock);
        return child;
}

void dir_unlink(struct dir_linux_fs *dir, const char *name, bool keep_name)
{
        struct gone_links gone = {NULL};
        struct file_link *link;

        g_mutex_lock(&dir->children_lock);
        link = locked_find(dir, name);
        if (link && keep_name) {
                hash_remove(&dir->children, &link->by_name);
                g_mutex_lock(&link->child->links_lock);
                link->kept->listed = false;
                g_mutex_unlock(&link->child->links_lock);
        } else if (link) {
                locked_remove(dir, link, &gone);
        }
        g_mutex_unlock(&dir->children_lock);
        gone_free(&gone);
}

int dir_restore_link(struct dir_linux_fs *dir, struct kept_link *kept, struct server_file *child)
{
        struct file_link *link;

        if (kept->listed && locked_find(dir, kept->name))
                return -EEXIST;
        link = calloc(1, sizeof *link);
        if (!link)
                return -ENOMEM;
        server_file_ref(&dir->file);
        link->parent = dir;
        link->child = child;
        link->kept = kept;
        if (kept->listed)
                hash_insert(&dir->children, &link->by_name, name_hash(kept->name));
        link->next = child->links;
        child->links = link;
        child->n_links++;
        return 0;
}

char *file_nth_name(struct server_file *child, unsigned n, struct server_file **ret_dir)
{
        struct file_link *link;
        char *name = NULL;

        g_mutex_lock(&child->links_lock);
        for (link = child->links; link && (n > 0 || !link->kept->listed); link = link->next)
                if (link->kept->listed)
                        n--;
        if (link)
                name = strdup(link->kept->name);
        if (name)
                *ret_dir = server_file_ref(&link->parent->file);
        g_mutex_unlock(&child->links_lock);
        return name;
}

void dir_not_child(struct dir_linux_fs *dir, const char *name, struct server_file *child)
{
        struct gone_links gone = {NULL};
        struct file_link *link;

        g_mutex_lock(&dir->children_lock);
        link = locked_find(dir, name);
        if (link && link->child == child)
                locked_remove(dir, link, &gone);
        g_mutex_unlock(&dir->children_lock);
        gone_free(&gone);
}

struct server_file *dir_take_link_of(struct server_file *child)
{
        struct dir_linux_fs *dir = NULL;
        struct file_link *link;
        bool taken = false;

        while (!taken) {
                g_mutex_lock(&child->links_lock);
                link = child->links;
                dir = link ? link->parent : NULL;
                if (dir)
                        server_file_ref(&dir->file); /* for the time without a lock */
                g_mutex_unlock(&child->links_lock);
                if (!dir)
                        return NULL;

                g_mutex_lock(&dir->children_lock);
                g_mutex_lock(&child->links_lock);
                taken = child->links == link; /* nobody adds one any more */
                if (taken) {
                        if (link->kept->listed)
                                hash_remove(&dir->children, &link->by_name);
                        locked_leave_child(link);
                }
                g_mutex_unlock(&child->links_lock);
                g_mutex_unlock(&dir->children_lock);
                if (!taken)
                        server_file_unref(&dir->file);
        }
        file_link_free(link);
        /* Ours for the time without a lock, and the link's: one of them is certainly not the last.
         */
        atomic_fetch_sub(&dir->file.refs, 1);
        return &dir->file;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct model_node *model_new(enum model_type type)
{
        struct model_node *node = calloc(1, sizeof *node);

        if (node && type == MODEL_FILE)
                node->data = calloc(1, MODEL_FILE_MAX);
        if (!node || (type == MODEL_FILE && !node->data))
                abort();
        node->type = type;
        node->refs = 1;
        return node;
}

void model_unref(struct model_node *node)
{
        if (--node->refs > 0)
                return;
        for (unsigned i = 0; i < MODEL_NAMES; i++)
                if (node->names[i])
                        model_unref(node->names[i]);
        free(node->data);
        free(node);
}

void model_set(struct model_node *dir, unsigned name, struct model_node *node)
{
        node->refs++;
        node->links++;
        dir->names[name] = node;
        if (node->type == MODEL_DIR)
                node->parent = dir;
}

void model_clear(struct model_node *dir, unsigned name)
{
        struct model_node *node = dir->names[name];

        dir->names[name] = NULL;
        node->links--;
        model_unref(node);
}

unsigned model_children(const struct model_node *dir)
{
        unsigned n = 0;

        for (unsigned i = 0; i < MODEL_NAMES; i++)
                n += dir->names[i] != NULL;
        return n;
}

unsigned model_depth(const struct model_node *dir)
{
        unsigned depth = 0;

        for (; dir->parent; dir = dir->parent)
                depth++;
        return depth;
}

bool model_is_below(const struct model_node *dir, const struct model_node *above)
{
        for (; dir; dir = dir->parent)
                if (dir == above)
                        return true;
        return false;
}

void model_path(const struct model_node *dir, unsigned name, char *ret_path, size_t size)
{
        char rest[256];
        unsigned at = 0;

        snprintf(ret_path, size, "n%u", name);
        for (; dir->parent; dir = dir->parent) {
                while (dir->parent->names[at] != dir)
                        at++;
                snprintf(rest, sizeof rest, "%s", ret_path);
                snprintf(ret_path, size, "n%u/%s", at, rest);
                at = 0;
        }
}

static unsigned count_dirs(const struct model_node *dir)
{
        unsigned n = 1;

        for (unsigned i = 0; i < MODEL_NAMES; i++)
                if (dir->names[i] && dir->names[i]->type == MODEL_DIR)
                        n += count_dirs(dir->names[i]);
        return n;
}

static struct model_node *nth_dir(struct model_node *dir, unsigned *n)
{
        struct model_node *found = NULL;

        if ((*n)-- == 0)
                return dir;
        for (unsigned i = 0; !found && i < MODEL_NAMES; i++)
                if (dir->names[i] && dir->names[i]->type == MODEL_DIR)
                        found = nth_dir(dir->names[i], n);
        return found;
}

struct model_node *model_any_dir(struct model_node *root, uint64_t random)
{
        unsigned n = (unsigned)(random % count_dirs(root));

        return nth_dir(root, &n);
}

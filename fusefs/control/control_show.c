/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The verb show.  Two passes over the rows, so that only the few that are wanted are ever kept.
 */
#include "fusefs/control/control_private.h"

#include <errno.h>
#include <stdlib.h>

#include "fusefs/control/reconcile.h"

/* Lineage is as long as a chain of forks; more than this of it nobody reads. */
#define ANCESTORS_MAX 1000

struct lineage {
        uint64_t handle, parent; /* 0: none */
};

struct showing {
        uint64_t wanted;
        struct lineage *all;
        size_t n, room;
        uint64_t ancestors[ANCESTORS_MAX]; /* nearest first */
        struct json_text ancestor_texts[ANCESTORS_MAX];
        size_t n_ancestors;
        struct json_text self, children;
        bool failed;
};
typedef struct showing K42Showing;

static void showing_free(struct showing *showing)
{
        for (size_t i = 0; i < showing->n_ancestors; i++)
                json_text_clear(&showing->ancestor_texts[i]);
        json_text_clear(&showing->self);
        json_text_clear(&showing->children);
        free(showing->all);
        free(showing);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Showing, showing_free)

static uint64_t parse_or_none(const char *handle)
{
        uint64_t id;

        return handle && id_parse(handle, &id) == 0 ? id : ID_NONE;
}

static void lineage_row(const struct store_handle_row *row, void *data)
{
        struct showing *showing = data;

        if (showing->n == showing->room) {
                size_t room = showing->room ? showing->room * 2 : 256;
                struct lineage *grown = reallocarray(showing->all, room, sizeof(*grown));

                if (!grown) {
                        showing->failed = true;
                        return;
                }
                showing->all = grown;
                showing->room = room;
        }
        showing->all[showing->n++] =
                (struct lineage){parse_or_none(row->handle), parse_or_none(row->parent)};
}

static int compare_lineage(const void *a, const void *b)
{
        const struct lineage *x = a, *y = b;

        return x->handle < y->handle ? -1 : x->handle > y->handle;
}

static const struct lineage *find_lineage(struct showing *showing, uint64_t handle)
{
        struct lineage key = {.handle = handle};

        return showing->n == 0
                       ? NULL
                       : bsearch(&key, showing->all, showing->n, sizeof(key), compare_lineage);
}

static void find_ancestors(struct showing *showing)
{
        const struct lineage *at = find_lineage(showing, showing->wanted);

        while (at && at->parent != ID_NONE && showing->n_ancestors < ANCESTORS_MAX) {
                showing->ancestors[showing->n_ancestors++] = at->parent;
                at = find_lineage(showing, at->parent);
        }
}

static void show_row(const struct store_handle_row *row, void *data)
{
        struct showing *showing = data;
        uint64_t handle = parse_or_none(row->handle);

        if (handle == showing->wanted) {
                control_put_columns(&showing->self, row);
                return;
        }
        if (parse_or_none(row->parent) == showing->wanted)
                control_put_row(&showing->children, row);
        for (size_t i = 0; i < showing->n_ancestors; i++)
                if (showing->ancestors[i] == handle && showing->ancestor_texts[i].length == 0)
                        control_put_row(&showing->ancestor_texts[i], row);
}

static void put_show(struct json_text *result, struct showing *showing)
{
        char id[ID_STRING_MAX];

        json_text_open(result, '{');
        json_text_value(result, &showing->self);
        json_text_key(result, "children");
        json_text_open(result, '[');
        if (showing->children.length > 0)
                json_text_value(result, &showing->children);
        json_text_close(result, ']');
        json_text_key(result, "ancestors");
        json_text_open(result, '[');
        for (size_t i = 0; i < showing->n_ancestors; i++) {
                if (showing->ancestor_texts[i].length > 0) {
                        json_text_value(result, &showing->ancestor_texts[i]);
                        continue;
                }
                /* closed, or somebody else's */
                json_text_open(result, '{');
                json_text_key(result, "handle");
                json_text_string(result, id_format(showing->ancestors[i], id));
                json_text_close(result, '}');
        }
        json_text_close(result, ']');
        json_text_close(result, '}');
        if (showing->children.failed)
                result->failed = true;
}

int verb_show(struct call *call)
{
        g_autoptr(K42Showing) showing = calloc(1, sizeof(*showing));
        JsonNode *node = call->args ? json_object_get_member(call->args, "handle") : NULL;
        const char *handle = NULL;
        int r;

        if (node && JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_STRING)
                handle = json_node_get_string(node);
        if (!showing)
                return -ENOMEM;
        if (!handle || id_parse(handle, &showing->wanted) < 0) {
                call->error = "a handle is written INDEX.GENERATION, as list shows it";
                return -EINVAL;
        }
        reconcile_handles(call->mount);
        r = store_foreach_open_handle(call->mount->store, control_uid_filter(call->peer),
                                      lineage_row, showing);
        if (r < 0)
                return r;
        if (showing->failed)
                return -ENOMEM;
        if (showing->n > 0)
                qsort(showing->all, showing->n, sizeof(*showing->all), compare_lineage);
        find_ancestors(showing);
        r = store_foreach_open_handle(call->mount->store, control_uid_filter(call->peer), show_row,
                                      showing);
        if (r < 0)
                return r;
        if (showing->self.length == 0) {
                call->error = "no such handle is open";
                return -ENOENT;
        }
        put_show(call->result, showing);
        return 0;
}

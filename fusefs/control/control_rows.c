/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A handle as JSON; the verbs list and history.
 */
#include "fusefs/control/control_private.h"

#include <errno.h>
#include <stdlib.h>

#include "fusefs/node/node.h"
#include "fusefs/control/reconcile.h"

uid_t control_uid_filter(const struct control_peer *peer)
{
        return peer->may_all ? (uid_t)-1 : peer->uid;
}

/* ---- one handle as JSON ---- */

void control_put_columns(struct json_text *text, const struct store_handle_row *row)
{
        json_text_key(text, "handle");
        json_text_string(text, row->handle);
        json_text_key(text, "parent");
        json_text_string(text, row->parent);
        json_text_key(text, "pid");
        json_text_int(text, row->pid);
        json_text_key(text, "ppid");
        json_text_int(text, row->ppid);
        json_text_key(text, "uid");
        json_text_int(text, row->uid);
        json_text_key(text, "comm");
        json_text_string(text, row->comm);
        json_text_key(text, "exe");
        json_text_string(text, row->exe);
        json_text_key(text, "path");
        json_text_string(text, row->path);
        json_text_key(text, "type");
        json_text_string(text, row->type);
        json_text_key(text, "flags");
        json_text_string(text, row->flags);
        json_text_key(text, "rights");
        json_text_string(text, row->rights);
        json_text_key(text, "class");
        json_text_string(text, row->io_class);
        json_text_key(text, "sharing");
        json_text_string(text, row->sharing);
        json_text_key(text, "opened");
        json_text_seconds(text, row->opened);
        json_text_key(text, "reads");
        json_text_uint(text, row->reads);
        json_text_key(text, "read_bytes");
        json_text_uint(text, row->read_bytes);
        json_text_key(text, "writes");
        json_text_uint(text, row->writes);
        json_text_key(text, "write_bytes");
        json_text_uint(text, row->write_bytes);
        json_text_key(text, "mappings");
        json_text_uint(text, row->mappings);
        json_text_key(text, "mapped_bytes");
        json_text_uint(text, row->mapped_bytes);
        json_text_key(text, "counted_by");
        json_text_string(text, row->counted_by);
}

void control_put_row(struct json_text *text, const struct store_handle_row *row)
{
        json_text_open(text, '{');
        control_put_columns(text, row);
        json_text_close(text, '}');
}

/* ---- list ---- */

struct identity {
        uint64_t handle, description, ino;
};

struct listing {
        struct json_text *text;
        bool identity;
        struct identity *identities; /* sorted by handle */
        size_t n, room;
        bool failed;
};

static int compare_identity(const void *a, const void *b)
{
        const struct identity *x = a, *y = b;

        return x->handle < y->handle ? -1 : x->handle > y->handle;
}

static void collect_identity(struct xobj *xobj, void *data)
{
        struct listing *listing = data;
        const struct open_client_data *open_data = (const void *)xobj_client_data(xobj);
        dev_t dev;
        ino_t ino;

        if (listing->n == listing->room) {
                size_t room = listing->room ? listing->room * 2 : 256;
                struct identity *grown = reallocarray(listing->identities, room, sizeof(*grown));

                if (!grown) {
                        listing->failed = true;
                        return;
                }
                listing->identities = grown;
                listing->room = room;
        }
        node_identity(xobj_object(xobj), &dev, &ino);
        listing->identities[listing->n++] = (struct identity){
                .handle = xobj_token(xobj),
                .description = open_data->description->id,
                .ino = ino,
        };
}

static void put_identity(struct listing *listing, const char *handle)
{
        struct identity key = {0}, *found = NULL;
        char id[ID_STRING_MAX];

        if (id_parse(handle, &key.handle) == 0 && listing->n > 0)
                found = bsearch(&key, listing->identities, listing->n, sizeof(key),
                                compare_identity);
        json_text_key(listing->text, "description");
        json_text_string(listing->text, found ? id_format(found->description, id) : NULL);
        json_text_key(listing->text, "inode");
        if (found)
                json_text_uint(listing->text, found->ino);
        else
                json_text_null(listing->text);
}

static void list_row(const struct store_handle_row *row, void *data)
{
        struct listing *listing = data;

        json_text_open(listing->text, '{');
        control_put_columns(listing->text, row);
        if (listing->identity)
                put_identity(listing, row->handle);
        json_text_close(listing->text, '}');
}

static bool wants_identity(JsonObject *args)
{
        JsonNode *node = args ? json_object_get_member(args, "identity") : NULL;

        return node && JSON_NODE_HOLDS_VALUE(node) &&
               json_node_get_value_type(node) == G_TYPE_BOOLEAN && json_node_get_boolean(node);
}

int verb_list(struct call *call)
{
        struct listing listing = {.text = call->result, .identity = wants_identity(call->args)};
        int r;

        reconcile_handles(call->mount);
        if (listing.identity) {
                cobj_foreach_handle(call->mount->cobj, collect_identity, &listing);
                if (listing.n > 0)
                        qsort(listing.identities, listing.n, sizeof(struct identity),
                              compare_identity);
        }
        json_text_open(call->result, '[');
        r = listing.failed
                    ? -ENOMEM
                    : store_foreach_open_handle(call->mount->store, control_uid_filter(call->peer),
                                                list_row, &listing);
        json_text_close(call->result, ']');
        free(listing.identities);
        return r;
}

/* ---- history ---- */

static void history_row(const struct store_handle_row *row, void *data)
{
        struct json_text *text = data;

        json_text_open(text, '{');
        control_put_columns(text, row);
        json_text_key(text, "closed");
        json_text_seconds(text, row->closed);
        json_text_close(text, '}');
}

int verb_history(struct call *call)
{
        int r;

        if (call->mount->options.history == 0) {
                call->error = "no history is kept: mount with -o history=N";
                return -ENODATA;
        }
        reconcile_handles(call->mount);
        json_text_open(call->result, '[');
        r = store_foreach_closed_handle(call->mount->store, control_uid_filter(call->peer),
                                        history_row, call->result);
        json_text_close(call->result, ']');
        return r;
}

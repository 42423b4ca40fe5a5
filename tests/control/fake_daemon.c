/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/control/fake_daemon.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fusefs/worker/channel.h"
#include "fusefs/coherent/coherent.h"
#include "fusefs/failpoint.h"
#include "fusefs/node/node.h"
#include "lazy/account.h"

struct client {
        struct client_info info;
};

struct xobj {
        struct open_client_data data;
        struct kept_handle kept;
        struct description description;
        struct server_object object;
        struct client client;
        uint64_t token, ino;
};

int fake_store_error;
unsigned fake_store_delay_us;
const char *fake_path = "/file";

static GMutex lock;
static GPtrArray *handles; /* under lock */
static uint64_t last_token;

uint64_t fake_give(pid_t pid, uid_t uid, uint64_t ino, int flags, uint64_t parent, int64_t age_us)
{
        struct xobj *xobj = g_new0(struct xobj, 1);

        g_mutex_lock(&lock);
        if (!handles)
                handles = g_ptr_array_new_with_free_func(g_free);
        xobj->token = ID_MAKE(1, ++last_token);
        xobj->ino = ino;
        xobj->client.info.pid = pid;
        xobj->client.info.uid = uid;
        xobj->data.base.kept = &xobj->kept;
        xobj->kept.parent = parent;
        xobj->kept.flags = flags;
        xobj->kept.opened = g_get_real_time() - age_us;
        xobj->data.description = &xobj->description;
        xobj->description.id = ID_MAKE(2, last_token);
        g_ptr_array_add(handles, xobj);
        g_mutex_unlock(&lock);
        return xobj->token;
}

static struct xobj *locked_find(uint64_t token)
{
        for (guint i = 0; handles && i < handles->len; i++) {
                struct xobj *xobj = handles->pdata[i];

                if (xobj->token == token)
                        return xobj;
        }
        return NULL;
}

bool fake_has(uint64_t token)
{
        bool has;

        g_mutex_lock(&lock);
        has = locked_find(token) != NULL;
        g_mutex_unlock(&lock);
        return has;
}

void fake_clear(void)
{
        g_mutex_lock(&lock);
        g_clear_pointer(&handles, g_ptr_array_unref);
        g_mutex_unlock(&lock);
        fake_store_error = 0;
        fake_store_delay_us = 0;
        fake_path = "/file";
}

/* ---- cobj ---- */

void cobj_foreach_handle(struct cobj *cobj, void (*fn)(struct xobj *xobj, void *data), void *data)
{
        g_mutex_lock(&lock);
        for (guint i = 0; handles && i < handles->len; i++)
                fn(handles->pdata[i], data);
        g_mutex_unlock(&lock);
}

bool xobj_free(struct cobj *cobj, xhandle token)
{
        struct xobj *xobj;

        g_mutex_lock(&lock);
        xobj = locked_find(token);
        if (xobj)
                g_ptr_array_remove(handles, xobj);
        g_mutex_unlock(&lock);
        return xobj != NULL;
}

xhandle xobj_token(const struct xobj *xobj)
{
        return xobj->token;
}

struct server_object *xobj_object(const struct xobj *xobj)
{
        return (struct server_object *)&xobj->object;
}

struct client *xobj_client(const struct xobj *xobj)
{
        return (struct client *)&xobj->client;
}

struct client_data *xobj_client_data(const struct xobj *xobj)
{
        return (struct client_data *)&xobj->data.base;
}

const struct client_info *client_info(const struct client *client)
{
        return &client->info;
}

bool client_alive(const struct client *client)
{
        return true;
}

struct client_table *cobj_clients(struct cobj *cobj)
{
        return NULL;
}

uint32_t cobj_handle_count(struct cobj *cobj)
{
        return handles ? handles->len : 0;
}

uint32_t client_table_count(struct client_table *table)
{
        return 0;
}

void client_table_sweep(struct client_table *table)
{
}

/* ---- nodes, lazy, journal, channel ---- */

void node_identity(struct server_object *object, dev_t *ret_dev, ino_t *ret_ino)
{
        const struct xobj *xobj =
                (const struct xobj *)((const char *)object - offsetof(struct xobj, object));

        *ret_dev = 0;
        *ret_ino = xobj->ino;
}

uint32_t node_table_count(struct node_table *table)
{
        return 3;
}

uint32_t node_table_parked(struct node_table *table)
{
        return 0;
}

uint32_t node_table_fds(struct node_table *table)
{
        return 2;
}

uint64_t lazy_reopens(struct lazy *lazy)
{
        return 11;
}

uint64_t lazy_gives(struct lazy *lazy)
{
        return 12;
}

void account_collect(struct lazy *lazy)
{
}

uint32_t lazy_description_count(struct lazy *lazy)
{
        return 13;
}

uint32_t journal_pending(struct journal *journal)
{
        return 0;
}

bool coherent_active(struct coherent *coherent)
{
        return false;
}

uint64_t coherent_foreign_events(struct coherent *coherent)
{
        return 21;
}

uint64_t coherent_resets(struct coherent *coherent)
{
        return 23;
}

uint64_t coherent_invalidations(struct coherent *coherent)
{
        return 22;
}

uint64_t channel_count(struct channel *channel, unsigned opcode)
{
        return opcode == 1 || opcode == 60 ? 5 : 0;
}

int failpoint_arm(const char *spec)
{
        return strcmp(spec, "known") == 0 ? 0 : -EINVAL;
}

const char *failpoint_armed(void)
{
        return "known";
}

const char *channel_opcode_name(unsigned opcode)
{
        return opcode == 1 ? "lookup" : opcode == 2 ? "forget" : NULL;
}

void channel_get_features(struct channel *channel, struct channel_features *ret_features)
{
        *ret_features =
                (struct channel_features){.proto_major = 7, .proto_minor = 45, .resend = true};
}

/* ---- store ---- */

int store_sync(struct store *store)
{
        return fake_store_error;
}

enum store_state store_state(struct store *store)
{
        return STORE_FILE;
}

uint64_t store_rows(struct store *store)
{
        return cobj_handle_count(NULL);
}

struct each {
        uid_t uid_filter;
        void (*fn)(const struct store_handle_row *row, void *data);
        void *data;
};

static void each_row(struct xobj *xobj, void *data)
{
        struct each *each = data;
        char handle[ID_STRING_MAX], parent[ID_STRING_MAX];
        struct store_handle_row row = {
                .handle = id_format(xobj->token, handle),
                .pid = xobj->client.info.pid,
                .uid = xobj->client.info.uid,
                .comm = "test",
                .exe = "/bin/test",
                .path = fake_path,
                .type = "FILE",
                .flags = "O_RDONLY",
                .rights = "rdc",
                .io_class = "cached",
                .sharing = "NON_SHARED",
                .opened = (double)xobj->kept.opened / 1e6,
                .reads = 1,
                .read_bytes = 2,
                .writes = 3,
                .write_bytes = 4,
        };

        if (xobj->kept.parent)
                row.parent = id_format(xobj->kept.parent, parent);
        if (each->uid_filter == (uid_t)-1 || each->uid_filter == xobj->client.info.uid)
                each->fn(&row, each->data);
}

int store_foreach_open_handle(struct store *store, uid_t uid_filter,
                              void (*fn)(const struct store_handle_row *row, void *data),
                              void *data)
{
        struct each each = {uid_filter, fn, data};

        if (fake_store_delay_us)
                g_usleep(fake_store_delay_us);
        if (fake_store_error == 0)
                cobj_foreach_handle(NULL, each_row, &each);
        return fake_store_error;
}

int store_foreach_closed_handle(struct store *store, uid_t uid_filter,
                                void (*fn)(const struct store_handle_row *row, void *data),
                                void *data)
{
        struct store_handle_row row = {.handle = "1.9",
                                       .uid = 4242,
                                       .path = fake_path,
                                       .opened = 100,
                                       .closed = 102.5,
                                       .read_bytes = 7};

        if (fake_store_error == 0 && (uid_filter == (uid_t)-1 || uid_filter == 4242))
                fn(&row, data);
        return fake_store_error;
}

/* ---- ids ---- */

const char *id_format(uint64_t id, char buf[static ID_STRING_MAX])
{
        snprintf(buf, ID_STRING_MAX, "%u.%u", ID_INDEX(id), ID_GENERATION(id));
        return buf;
}

int id_parse(const char *text, uint64_t *ret_id)
{
        unsigned idx, generation;
        char end;

        if (sscanf(text, "%u.%u%c", &idx, &generation, &end) != 2)
                return -EINVAL;
        *ret_id = ID_MAKE(generation, idx);
        return 0;
}

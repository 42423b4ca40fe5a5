/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a request to its answer, and the verbs that are not about handles.
 */
#include "fusefs/control/control_private.h"

#include <errno.h>
#include <fcntl.h>
#include <json-glib/json-glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "ctl/control_protocol.h"
#include "fusefs/worker/channel.h"
#include "fusefs/coherent/coherent.h"
#include "fusefs/failpoint.h"
#include "fusefs/holder/link.h"
#include "fusefs/node/node.h"
#include "fusefs/control/proc_files.h"
#include "fusefs/control/reconcile.h"
#include "fusefs/state_dir.h"

#define REQUEST_DEPTH_MAX 8

/* ---- stats and status ---- */

static void put_requests(struct json_text *text, struct channel *channel)
{
        uint64_t other = 0;

        json_text_open(text, '{');
        for (unsigned opcode = 0; opcode < CHANNEL_OPCODES; opcode++) {
                const char *name = channel_opcode_name(opcode);
                uint64_t count = channel_count(channel, opcode);

                if (!name) {
                        other += count;
                } else if (count > 0) {
                        json_text_key(text, name);
                        json_text_uint(text, count);
                }
        }
        json_text_key(text, "other");
        json_text_uint(text, other);
        json_text_close(text, '}');
}

static void put_count(struct json_text *text, const char *key, uint64_t count)
{
        json_text_key(text, key);
        json_text_uint(text, count);
}

static int verb_stats(struct call *call)
{
        struct k42_mount *mount = call->mount;
        struct json_text *text = call->result;
        int r, fds;

        reconcile_handles(mount);
        r = store_sync(mount->store);
        if (r < 0)
                return r;
        fds = proc_files_own();
        json_text_open(text, '{');
        json_text_key(text, "requests");
        put_requests(text, mount->channel);
        put_count(text, "lazy_reopens", lazy_reopens(mount->lazy));
        put_count(text, "lazy_gives", lazy_gives(mount->lazy));
        put_count(text, "objects", node_table_count(mount->nodes));
        put_count(text, "handles", cobj_handle_count(mount->cobj));
        put_count(text, "descriptions", lazy_description_count(mount->lazy));
        put_count(text, "clients", client_table_count(cobj_clients(mount->cobj)));
        json_text_key(text, "fds");
        if (fds >= 0)
                json_text_int(text, fds);
        else
                json_text_null(text);
        put_count(text, "node_fds", node_table_fds(mount->nodes));
        put_count(text, "parked", node_table_parked(mount->nodes));
        put_count(text, "foreign_events", coherent_foreign_events(mount->coherent));
        put_count(text, "invalidations", coherent_invalidations(mount->coherent));
        put_count(text, "invalidated_all", coherent_resets(mount->coherent));
        put_count(text, "journal_pending", journal_pending(mount->journal));
        put_count(text, "store_rows", store_rows(mount->store));
        json_text_key(text, "uptime");
        json_text_seconds(text, (double)(g_get_real_time() - mount->started) / G_TIME_SPAN_SECOND);
        json_text_close(text, '}');
        return 0;
}

/* What a new open gets, as far as the mount decides. */
static enum io_class new_class(struct k42_mount *mount)
{
        if (mount->io_class == IO_CLASS_FAST && !atomic_load(&mount->passthrough))
                return IO_CLASS_CACHED;
        return mount->io_class;
}

static const char *class_name(enum io_class io_class)
{
        switch (io_class) {
        case IO_CLASS_CACHED:
                return "cached";
        case IO_CLASS_COUNTED:
                return "counted";
        case IO_CLASS_FAST:
                return "fast";
        }
        return "unknown";
}

static void put_flag(struct json_text *text, const char *key, bool value)
{
        json_text_key(text, key);
        json_text_bool(text, value);
}

static void put_features(struct json_text *text, struct k42_mount *mount)
{
        struct channel_features features = {0};
        char protocol[32];

        channel_get_features(mount->channel, &features);
        g_snprintf(protocol, sizeof(protocol), "%u.%u", features.proto_major, features.proto_minor);
        json_text_open(text, '{');
        json_text_key(text, "protocol");
        json_text_string(text, protocol);
        put_flag(text, "passthrough", features.passthrough);
        put_flag(text, "resend", features.resend);
        put_flag(text, "parallel_dirops", features.parallel_dirops);
        put_flag(text, "killpriv_v2", features.killpriv_v2);
        put_flag(text, "posix_acl", features.posix_acl);
        put_flag(text, "readdirplus", features.readdirplus);
        put_flag(text, "coherent", coherent_active(mount->coherent));
        put_flag(text, "noflush", mount->noflush);
        put_flag(text, "privileged", mount->privileged);
        json_text_key(text, "store");
        json_text_string(text, store_state(mount->store) == STORE_FILE ? "file" : "memory");
        json_text_close(text, '}');
}

/* `start`: what the holder has said; NULL: there is none (tests). */
static void put_life(struct json_text *text, const struct link_start *start)
{
        json_text_key(text, "holder_pid");
        if (start)
                json_text_int(text, start->holder_pid);
        else
                json_text_null(text);
        json_text_key(text, "worker_pid");
        json_text_int(text, getpid());
        json_text_key(text, "restarts");
        json_text_uint(text, start ? start->restarts : 0);
        json_text_key(text, "last_death");
        json_text_string(text, start && *start->last_death ? start->last_death : NULL);
}

static int verb_status(struct call *call)
{
        struct k42_mount *mount = call->mount;
        struct link_start news;
        const struct link_start *start = mount->link ? &news : NULL;
        struct json_text *text = call->result;
        char device[32];

        if (mount->link)
                link_get_news(mount->link, &news);
        g_snprintf(device, sizeof(device), "%u:%u", major(mount->dev), minor(mount->dev));
        json_text_open(text, '{');
        json_text_key(text, "mountpoint");
        json_text_string(text, mount->options.mountpoint);
        json_text_key(text, "source");
        json_text_string(text, mount->options.source);
        json_text_key(text, "class");
        json_text_string(text, class_name(new_class(mount)));
        json_text_key(text, "state_dir");
        json_text_string(text, state_dir_path(mount->state_dir));
        put_life(text, start);
        json_text_key(text, "features");
        put_features(text, mount);
        json_text_key(text, "version");
        json_text_string(text, K42_VERSION);
        json_text_key(text, "started");
        json_text_seconds(text, (double)mount->started / G_TIME_SPAN_SECOND);
        json_text_key(text, "threads");
        json_text_uint(text, mount->options.max_threads);
        json_text_key(text, "device");
        json_text_string(text, device);
        json_text_key(text, "upgrades");
        json_text_uint(text, start ? start->upgrades : 0);
        json_text_key(text, "downgrades");
        json_text_uint(text, start ? start->downgrades : 0);
        json_text_key(text, "waiting_pid");
        if (start && start->waiting_pid != 0)
                json_text_int(text, start->waiting_pid);
        else
                json_text_null(text);
        json_text_close(text, '}');
        return 0;
}

/* ---- sync and umount ---- */

static int verb_sync(struct call *call)
{
        int r;

        reconcile_handles(call->mount);
        r = store_sync(call->mount->store);
        json_text_open(call->result, '{');
        json_text_close(call->result, '}');
        return r;
}

/* For tests: where this daemon, or the next one, is to be killed, see failpoint.h. */
static int verb_failpoint(struct call *call)
{
        const char *points = NULL;
        int r = 0;

        if (call->args && json_object_has_member(call->args, "points"))
                points = json_object_get_string_member(call->args, "points");
        if (points && !call->peer->may_all)
                r = -EPERM;
        else if (points)
                r = failpoint_arm(points);
        json_text_open(call->result, '{');
        json_text_key(call->result, "armed");
        json_text_string(call->result, failpoint_armed());
        json_text_close(call->result, '}');
        return r;
}

static int verb_umount(struct call *call)
{
        call->after->quit = true;
        json_text_open(call->result, '{');
        json_text_close(call->result, '}');
        return 0;
}

/* ---- upgrade ---- */

/* The holder will be told; whether the other program manages is seen in status afterwards. */
static int verb_upgrade(struct call *call)
{
        JsonNode *node = call->args ? json_object_get_member(call->args, "program") : NULL;
        int fd = -1, r;

        if (node && (!JSON_NODE_HOLDS_VALUE(node) ||
                     json_node_get_value_type(node) != G_TYPE_STRING ||
                     json_node_get_string(node)[0] != '/')) {
                call->error = "\"program\" is an absolute path";
                return -EINVAL;
        }
        if (!call->mount->link)
                return -EOPNOTSUPP;
        if (node) {
                fd = open(json_node_get_string(node), O_PATH | O_CLOEXEC);
                if (fd < 0)
                        return -errno;
                if (faccessat(fd, "", X_OK, AT_EMPTY_PATH | AT_EACCESS) < 0) {
                        r = -errno;
                        close(fd);
                        return r;
                }
        }
        call->after->upgrade = true;
        call->after->program_fd = fd;
        json_text_open(call->result, '{');
        json_text_close(call->result, '}');
        return 0;
}

/* ---- requests ---- */

static const struct verb {
        const char *name;
        int (*run)(struct call *call); /* 0 or -errno */
        bool for_all;                  /* anybody may ask; the verb looks who it is */
} verbs[] = {
        {"history", verb_history, true},   {"list", verb_list, true},     {"show", verb_show, true},
        {"stats", verb_stats, true},       {"status", verb_status, true}, {"sync", verb_sync, false},
        {"umount", verb_umount, false},    {"upgrade", verb_upgrade, false},
        {"restrict", verb_restrict, true}, {"revoke", verb_revoke, true}, {"allow", verb_allow, true},
        {"withhold", verb_withhold, true}, {"failpoint", verb_failpoint, false},
};

static const struct verb *find_verb(const char *name)
{
        for (size_t i = 0; i < G_N_ELEMENTS(verbs); i++)
                if (g_str_equal(verbs[i].name, name))
                        return &verbs[i];
        return NULL;
}

void control_refuse(struct json_text *answer, const char *error)
{
        json_text_clear(answer);
        json_text_open(answer, '{');
        json_text_key(answer, "ok");
        json_text_bool(answer, false);
        json_text_key(answer, "error");
        json_text_string(answer, error);
        json_text_close(answer, '}');
        json_text_raw(answer, "\n", 1);
}

/* The verb and the args of a request; NULL and what is wrong with it. */
static const struct verb *parse(JsonNode *root, JsonObject **ret_args, const char **ret_error)
{
        JsonObject *object;
        JsonNode *name, *args;
        const struct verb *verb;

        *ret_error = "a request is {\"verb\":NAME,\"args\":{...}}";
        if (!root || !JSON_NODE_HOLDS_OBJECT(root))
                return NULL;
        object = json_node_get_object(root);
        name = json_object_get_member(object, "verb");
        args = json_object_get_member(object, "args");
        if (!name || !JSON_NODE_HOLDS_VALUE(name) ||
            json_node_get_value_type(name) != G_TYPE_STRING ||
            (args && !JSON_NODE_HOLDS_OBJECT(args)))
                return NULL;
        verb = find_verb(json_node_get_string(name));
        if (!verb)
                *ret_error = "unknown verb";
        *ret_args = args ? json_node_get_object(args) : NULL;
        return verb;
}

void control_serve(struct k42_mount *mount, const struct control_peer *peer, const char *request,
                   size_t length, struct json_text *answer, struct control_after *ret_after)
{
        g_autoptr(JsonParser) parser = NULL;
        struct call call = {.mount = mount, .peer = peer, .result = answer, .after = ret_after};
        const struct verb *verb;
        const char *error;
        int r;

        *ret_after = (struct control_after){.program_fd = -1};
        error = json_text_check(request, length, REQUEST_DEPTH_MAX);
        if (error) {
                control_refuse(answer, error);
                return;
        }
        parser = json_parser_new();
        if (!json_parser_load_from_data(parser, request, (gssize)length, NULL)) {
                control_refuse(answer, "not JSON");
                return;
        }
        verb = parse(json_parser_get_root(parser), &call.args, &error);
        if (!verb) {
                control_refuse(answer, error);
                return;
        }
        if (!verb->for_all && !peer->may_all) {
                control_refuse(answer, g_strerror(EPERM));
                return;
        }
        json_text_open(answer, '{');
        json_text_key(answer, "ok");
        json_text_bool(answer, true);
        json_text_key(answer, "result");
        r = verb->run(&call);
        if (r < 0) { /* forgets what is in the answer so far */
                control_refuse(answer, call.error ? call.error : g_strerror(-r));
                return;
        }
        json_text_close(answer, '}');
        json_text_raw(answer, "\n", 1);
        if (answer->failed)
                control_refuse(answer, g_strerror(ENOMEM));
}

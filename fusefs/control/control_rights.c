/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * restrict, revoke, allow, withhold: the verbs that take something away.
 *
 * A request waits WAIT_US at most for operations that are under way, so that one that is stuck in the
 * backing file system cannot keep the few threads that serve these requests; the answer says whether
 * all was over, and k42ctl asks again if it was told to wait.
 */
#include <errno.h>
#include <sys/stat.h>

#include "fusefs/control/control_private.h"
#include "fusefs/control/revoke.h"
#include "lazy/protocol.h"

#define WAIT_US (4 * G_TIME_SPAN_SECOND)

static const char *string_arg(const struct call *call, const char *name)
{
        JsonNode *node = call->args ? json_object_get_member(call->args, name) : NULL;

        return node && JSON_NODE_HOLDS_VALUE(node) &&
                               json_node_get_value_type(node) == G_TYPE_STRING
                       ? json_node_get_string(node)
                       : NULL;
}

/* A path, as it is or as hex digits, because a name can have any bytes; free it.  NULL if there is none. */
static char *path_arg(const struct call *call)
{
        const char *hex = string_arg(call, "path_hex"), *path = string_arg(call, "path");
        g_autoptr(GString) text = NULL;

        if (!hex)
                return g_strdup(path);
        text = g_string_new(NULL);
        for (; g_ascii_isxdigit(hex[0]) && g_ascii_isxdigit(hex[1]); hex += 2)
                g_string_append_c(text, (char)(g_ascii_xdigit_value(hex[0]) << 4 |
                                               g_ascii_xdigit_value(hex[1])));
        return *hex ? NULL : g_string_free(g_steal_pointer(&text), FALSE);
}

static bool flag_arg(const struct call *call, const char *name)
{
        JsonNode *node = call->args ? json_object_get_member(call->args, name) : NULL;

        return node && JSON_NODE_HOLDS_VALUE(node) &&
               json_node_get_value_type(node) == G_TYPE_BOOLEAN && json_node_get_boolean(node);
}

/* 0 if there is none. */
static pid_t pid_arg(const struct call *call)
{
        JsonNode *node = call->args ? json_object_get_member(call->args, "pid") : NULL;
        gint64 pid = 0;

        if (node && JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_INT64)
                pid = json_node_get_int(node);
        return pid > 0 && pid <= G_MAXINT32 ? (pid_t)pid : 0;
}

static struct revocation asked(const struct call *call)
{
        return (struct revocation){
                .uid = call->peer->uid,
                .may_all = call->peer->may_all,
                .tree = flag_arg(call, "tree"),
                .block = flag_arg(call, "block"),
                .rights = RIGHTS_NONE,
                .deadline = g_get_monotonic_time() + WAIT_US,
        };
}

static int answer(struct call *call, const struct revocation *what, int r)
{
        struct json_text *text = call->result;

        if (r < 0) {
                call->error = what->error;
                return r;
        }
        json_text_open(text, '{');
        json_text_key(text, "handles");
        json_text_uint(text, what->handles);
        json_text_key(text, "processes");
        json_text_uint(text, what->processes);
        json_text_key(text, "descriptions");
        json_text_uint(text, what->descriptions);
        json_text_key(text, "done");
        json_text_bool(text, what->done);
        json_text_key(text, "mapped");
        json_text_uint(text, what->mapped);
        json_text_close(text, '}');
        return 0;
}

static int bad(struct call *call, const char *error)
{
        call->error = error;
        return -EINVAL;
}

/* A handle or a process: what `args` names of the two. */
static int take(struct call *call, struct revocation *what)
{
        const char *handle = string_arg(call, "handle");
        const pid_t pid = pid_arg(call);
        uint64_t token;

        if (handle && id_parse(handle, &token) < 0)
                return bad(call, "a handle is written INDEX.GENERATION, as list shows it");
        if (handle && what->block)
                return bad(call, "a handle opens nothing: block its process or its file");
        if (handle)
                return answer(call, what, revoke_handle(call->mount, token, what));
        if (pid > 0)
                return answer(call, what, revoke_process(call->mount, pid, what));
        return bad(call, "a handle, a process id or a path is needed");
}

int verb_restrict(struct call *call)
{
        struct revocation what = asked(call);
        const char *rights = string_arg(call, "rights");

        if (!rights || access_rights_parse(rights, &what.rights) < 0)
                return bad(call, "rights are written with the letters rwdc, or -");
        what.strict = true;
        what.block = what.tree = false;
        return take(call, &what);
}

int verb_revoke(struct call *call)
{
        struct revocation what = asked(call);
        g_autofree char *path = path_arg(call);

        if (!path)
                return take(call, &what);
        if (what.tree)
                return bad(call, "a file has no tree of processes");
        return answer(call, &what, revoke_file(call->mount, path, &what));
}

int verb_allow(struct call *call)
{
        struct revocation what = asked(call);
        g_autofree char *path = path_arg(call);
        const pid_t pid = pid_arg(call);

        what.done = true;
        if (path)
                return answer(call, &what, revoke_allow_file(call->mount, path, &what));
        if (pid > 0)
                return answer(call, &what, revoke_allow_process(call->mount, pid, &what));
        return bad(call, "a path or a process id is needed");
}

/* Another user's process can have the number of one that has gone. */
static bool own_process(const struct control_peer *peer)
{
        char path[32];
        struct stat st;

        g_snprintf(path, sizeof path, "/proc/%d", (int)peer->pid);
        return peer->pid > 0 && stat(path, &st) == 0 && st.st_uid == peer->uid;
}

/* WITHHOLD (lazy/protocol.h), for the process that asks. */
int verb_withhold(struct call *call)
{
        struct k42_withhold message = {.header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message}};
        const char *rights = string_arg(call, "rights");
        int r;

        if (!rights || access_rights_parse(rights, &message.rights) < 0)
                return bad(call, "rights are written with the letters rwdc, or -");
        r = own_process(call->peer) ? revoke_withhold(call->mount, call->peer->pid, &message) : -ESRCH;
        if (r < 0 && r != -EOPNOTSUPP)
                return r;
        json_text_open(call->result, '{');
        json_text_key(call->result, "withheld");
        json_text_bool(call->result, r == 0);
        json_text_close(call->result, '}');
        return 0;
}

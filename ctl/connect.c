/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * k42ctl has one thread.  A daemon can be another user's program: its answer is checked before it
 * is parsed, and what it says is escaped before a terminal sees it.
 */
#include "ctl/connect.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/control_protocol.h"
#include "ctl/json_text.h"
#include "lazy/protocol.h"

#define ANSWER_DEPTH_MAX 16

/* ---- what may hang is done by a child ---- */

struct probe {
        int error;    /* errno, 0: good */
        int mount_id; /* -1: unknown */
        char state_dir[K42_WHERE_PATH_MAX];
};

static int mount_id_of(int fd)
{
        char path[64], text[512];
        g_autofree char *content = NULL;
        const char *p;

        g_snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
        if (!g_file_get_contents(path, &content, NULL, NULL))
                return -1;
        g_strlcpy(text, content, sizeof(text));
        p = strstr(text, "mnt_id:");
        return p ? atoi(p + strlen("mnt_id:")) : -1;
}

/* Which mount is `path` on?  A mount point itself can be opened so without asking its file system.
 */
static void probe_mount_id(const char *path, struct probe *probe)
{
        int fd = open(path, O_PATH | O_CLOEXEC);

        if (fd < 0) {
                probe->error = errno;
                return;
        }
        probe->mount_id = mount_id_of(fd);
        close(fd);
}

static void probe_where(const char *path, struct probe *probe)
{
        struct k42_where where = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof(where)},
        };
        struct stat st;
        int fd;

        /* an ioctl on somebody's device could mean anything there */
        if (stat(path, &st) < 0) {
                probe->error = errno;
                return;
        }
        if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
                probe->error = ENOTTY;
                return;
        }
        fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (fd < 0) {
                probe->error = errno;
                return;
        }
        if (ioctl(fd, K42_IOC_WHERE, &where) < 0)
                probe->error = errno;
        else if (where.header.version != K42_PROTOCOL_VERSION ||
                 where.header.length != sizeof(where) || where.state_dir[0] != '/' ||
                 !memchr(where.state_dir, '\0', sizeof(where.state_dir)))
                probe->error = EPROTO;
        else
                memcpy(probe->state_dir, where.state_dir, sizeof(probe->state_dir));
        close(fd);
}

/* Runs fn(path) in a child for at most `timeout` seconds; ETIMEDOUT in *probe after that. */
static void probe_in_child(void (*fn)(const char *path, struct probe *probe), const char *path,
                           int timeout, struct probe *probe)
{
        struct pollfd wait;
        int pipe_fds[2];
        pid_t child;

        *probe = (struct probe){.error = EIO, .mount_id = -1};
        if (pipe2(pipe_fds, O_CLOEXEC) < 0) {
                probe->error = errno;
                return;
        }
        child = fork();
        if (child == 0) {
                struct probe mine = {.mount_id = -1};

                /* nobody who reads our output must wait for a child that is stuck */
                if (pipe_fds[1] > 0)
                        close_range(0, (unsigned)pipe_fds[1] - 1, 0);
                close_range((unsigned)pipe_fds[1] + 1, ~0U, 0);
                fn(path, &mine);
                _exit(write(pipe_fds[1], &mine, sizeof(mine)) == sizeof(mine) ? 0 : 1);
        }
        if (child < 0)
                probe->error = errno;
        close(pipe_fds[1]);
        wait = (struct pollfd){.fd = pipe_fds[0], .events = POLLIN};
        if (child > 0 && poll(&wait, 1, timeout * 1000) == 0) {
                probe->error = ETIMEDOUT;
                kill(child,
                     SIGKILL); /* not waited for: it may be stuck for as long as the mount is */
        } else if (child > 0) {
                if (read(pipe_fds[0], probe, sizeof(*probe)) != sizeof(*probe))
                        *probe = (struct probe){.error = EIO, .mount_id = -1};
                waitpid(child, NULL, 0);
        }
        close(pipe_fds[0]);
}

/* ---- from the command line to mounts ---- */

/* The state directory, by asking the mount.  Returns EXIT_GOOD or EXIT_FAILED after a line. */
static int ask_where(struct target *target, int timeout)
{
        struct probe probe;

        probe_in_child(probe_where, target->mountpoint, timeout, &probe);
        switch (probe.error) {
        case 0:
                g_free(target->state_dir);
                target->state_dir = g_strdup(probe.state_dir);
                return EXIT_GOOD;
        case ENOTCONN:
        case ECONNABORTED:
                ctl_complain(
                        "%s: the mount is dead: its daemon is gone; clear it with 'k42ctl umount "
                        "%s'",
                        target->mountpoint, target->mountpoint);
                return EXIT_FAILED;
        case ETIMEDOUT:
                ctl_complain("%s: the mount does not answer", target->mountpoint);
                return EXIT_FAILED;
        case ENOTTY:
        case ENOSYS:
        case EOPNOTSUPP:
                ctl_complain("%s: is not on a k42fs mount", target->mountpoint);
                return EXIT_FAILED;
        default:
                ctl_complain("%s: cannot ask the mount for its state directory: %s",
                             target->mountpoint, g_strerror(probe.error));
                return EXIT_FAILED;
        }
}

static int find_by_path(const char *path, const struct ctl_options *options, GPtrArray *targets)
{
        g_autoptr(GPtrArray) all = NULL;
        struct target *target;
        struct probe probe;

        probe_in_child(probe_mount_id, path, options->timeout, &probe);
        if (probe.error == ETIMEDOUT) {
                ctl_complain("%s: the mount does not answer", path);
                return EXIT_FAILED;
        }
        if (probe.error == ENOTCONN || probe.error == ECONNABORTED) {
                ctl_complain(
                        "%s: the mount is dead: its daemon is gone; clear it with 'k42ctl umount' "
                        "on the mount point",
                        path);
                return EXIT_FAILED;
        }
        if (probe.error) {
                ctl_complain("%s: %s", path, g_strerror(probe.error));
                return EXIT_FAILED;
        }
        all = targets_all_mounted();
        for (unsigned i = 0; i < all->len; i++) {
                target = all->pdata[i];
                if (target->mount_id == probe.mount_id) {
                        g_ptr_array_add(targets, g_steal_pointer(&all->pdata[i]));
                        return EXIT_GOOD;
                }
        }
        /* perhaps on a mount that this namespace does not list: only the mount itself knows */
        target = g_new0(struct target, 1);
        target->mountpoint = g_strdup(path);
        target->mount_id = -1;
        g_ptr_array_add(targets, target);
        return ask_where(target, options->timeout);
}

static int several(const struct verb *verb, GPtrArray *targets)
{
        g_autoptr(GString) names = g_string_new(NULL);

        for (unsigned i = 0; i < targets->len; i++) {
                struct target *target = targets->pdata[i];

                g_string_append_printf(names, "%s%s", i ? ", " : "", target->mountpoint);
        }
        return ctl_usage_error(verb->name, "which of the mounts %s?", names->str);
}

int targets_find(const struct verb *verb, const struct ctl_options *options, unsigned index,
                 GPtrArray **ret_targets)
{
        g_autoptr(GPtrArray) targets = g_ptr_array_new_with_free_func((GDestroyNotify)target_free);
        bool path = g_strv_length(options->rest) > index;
        int r;

        if (options->state_dir) {
                struct target *target = g_new0(struct target, 1);

                g_ptr_array_add(targets, target);
                target->state_dir = g_strdup(options->state_dir);
                target->mount_id = -1;
                if (path)
                        return ctl_usage_error(verb->name,
                                               "either --state or MOUNTPOINT, not both");
        } else if (path) {
                r = find_by_path(options->rest[index], options, targets);
                if (r != EXIT_GOOD)
                        return r;
        } else {
                g_clear_pointer(&targets, g_ptr_array_unref);
                targets = targets_mounted();
                if (targets->len == 0) {
                        ctl_complain("no k42fs is mounted here");
                        return EXIT_FAILED;
                }
                if (targets->len > 1 && !verb->many_mounts)
                        return several(verb, targets);
        }
        *ret_targets = g_steal_pointer(&targets);
        return EXIT_GOOD;
}

/* ---- the answer ---- */

int target_parse_answer(const struct target *target, const GByteArray *line, JsonNode **ret_result)
{
        const char *name = target_name(target);
        g_autoptr(JsonParser) parser = json_parser_new();
        JsonObject *answer;
        JsonNode *root, *ok, *result, *error;

        if (json_text_check((const char *)line->data, line->len, ANSWER_DEPTH_MAX) ||
            !json_parser_load_from_data(parser, (const char *)line->data, line->len, NULL))
                goto nonsense;
        root = json_parser_get_root(parser);
        if (!root || !JSON_NODE_HOLDS_OBJECT(root))
                goto nonsense;
        answer = json_node_get_object(root);
        ok = json_object_get_member(answer, "ok");
        result = json_object_get_member(answer, "result");
        error = json_object_get_member(answer, "error");
        if (!ok || !JSON_NODE_HOLDS_VALUE(ok) || json_node_get_value_type(ok) != G_TYPE_BOOLEAN)
                goto nonsense;
        if (json_node_get_boolean(ok) && result) {
                *ret_result = json_node_copy(result);
                return EXIT_GOOD;
        }
        if (!json_node_get_boolean(ok) && error && JSON_NODE_HOLDS_VALUE(error) &&
            json_node_get_value_type(error) == G_TYPE_STRING) {
                ctl_complain("%s: %s", name, json_node_get_string(error));
                return EXIT_FAILED;
        }
nonsense:
        ctl_complain("%s: the daemon's answer makes no sense", name);
        return EXIT_FAILED;
}

int target_ask_text(struct target *target, const struct ctl_options *options, const char *verb,
                    const char *args, GByteArray **ret_line, struct target_listener *ret_listener)
{
        const char *name = target_name(target);
        g_autoptr(GByteArray) line = g_byte_array_new();
        int r;

        r = ask_until_answered(target, options->timeout, verb, args, line, ret_listener);
        if (ask_nobody_there(r) && target->mountpoint) {
                if (ask_where(target, options->timeout) != EXIT_GOOD)
                        return EXIT_FAILED;
                r = ask_until_answered(target, options->timeout, verb, args, line, ret_listener);
        }
        if (r == 0) {
                *ret_line = g_steal_pointer(&line);
                return EXIT_GOOD;
        }
        if (ret_listener)
                ret_listener->unanswered = r == -ETIMEDOUT;
        if (r == -ETIMEDOUT)
                ctl_complain("%s: the daemon does not answer", name);
        else if (r == -ECONNRESET || r == -EPIPE)
                ctl_complain("%s: the daemon ended before it answered", name);
        else if (r == -ECONNREFUSED)
                ctl_complain("%s: the daemon is gone", name);
        else
                ctl_complain("%s: cannot reach the daemon: %s", name, g_strerror(-r));
        return EXIT_FAILED;
}

int target_ask(struct target *target, const struct ctl_options *options, const char *verb,
               const char *args, JsonNode **ret_result, struct target_listener *ret_listener)
{
        g_autoptr(GByteArray) line = NULL;
        int r = target_ask_text(target, options, verb, args, &line, ret_listener);

        return r == EXIT_GOOD ? target_parse_answer(target, line, ret_result) : r;
}

bool target_dead(struct target *target, const struct ctl_options *options)
{
        struct probe probe;
        int fd;

        if (!target->mountpoint)
                return false;
        fd = ask_connect(target, options->timeout);
        if (fd >= 0)
                close(fd);
        if (!ask_nobody_there(fd))
                return false;
        probe_in_child(probe_where, target->mountpoint, options->timeout, &probe);
        return probe.error == ENOTCONN || probe.error == ECONNABORTED;
}

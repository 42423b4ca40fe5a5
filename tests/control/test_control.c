/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The control socket against good and bad peers, with a made-up daemon behind it.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <json-glib/json-glib.h>
#include <poll.h>
#include <sys/stat.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/control_protocol.h"
#include "fusefs/control/control.h"
#include "fusefs/control/control_listen.h"
#include "fusefs/state_dir.h"
#include "tests/control/fake_daemon.h"

struct fixture {
        char *top, *path;
        struct k42_mount mount;
        GThread *thread;
        GMainContext *context;
        atomic_bool end, ready;
        atomic_int quits;
};

static void on_quit(void *data)
{
        struct fixture *f = data;

        atomic_fetch_add(&f->quits, 1);
}

/* The daemon's main thread. */
static void *serve(void *data)
{
        struct fixture *f = data;

        int fd;

        g_main_context_push_thread_default(f->context);
        g_assert_cmpint(control_listen(f->mount.state_dir, &fd), ==, 0);
        g_assert_cmpint(control_start(&f->mount, fd, on_quit, f, &f->mount.control), ==, 0);
        atomic_store(&f->ready, true);
        while (!atomic_load(&f->end))
                g_main_context_iteration(f->context, TRUE);
        control_stop(f->mount.control);
        g_main_context_pop_thread_default(f->context);
        return NULL;
}

static void set_up(struct fixture *f, const void *data)
{
        f->top = g_dir_make_tmp("k42control.XXXXXX", NULL);
        chmod(f->top, 0755);
        f->path = g_build_filename(f->top, "state", NULL);
        g_assert_cmpint(state_dir_open(f->path, "/nowhere", &f->mount.state_dir), ==, 0);
        f->mount.options.mountpoint = (char *)"/nowhere";
        f->mount.options.source = (char *)"/source";
        f->mount.options.max_threads = 4;
        f->context = g_main_context_new();
        f->thread = g_thread_new("daemon", serve, f);
        while (!atomic_load(&f->ready))
                g_usleep(1000);
}

static void tear_down(struct fixture *f, const void *data)
{
        atomic_store(&f->end, true);
        g_main_context_wakeup(f->context);
        g_thread_join(f->thread);
        state_dir_remove(f->mount.state_dir);
        g_main_context_unref(f->context);
        g_assert_cmpint(rmdir(f->top), ==, 0); /* nothing is left in it */
        g_free(f->path);
        g_free(f->top);
        fake_clear();
}

static int connect_to(struct fixture *f)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        g_snprintf(address.sun_path, sizeof(address.sun_path), "%s/control", f->path);
        g_assert_cmpint(connect(fd, (struct sockaddr *)&address, sizeof(address)), ==, 0);
        return fd;
}

/* What comes until the end of the connection; NULL if nothing comes for 20 s. */
static char *receive(int fd)
{
        g_autoptr(GString) text = g_string_new(NULL);
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        char buffer[4096];
        ssize_t n;

        while (poll(&wait, 1, 20000) == 1) {
                n = recv(fd, buffer, sizeof(buffer), 0);
                if (n <= 0)
                        return g_string_free(g_steal_pointer(&text), FALSE);
                g_string_append_len(text, buffer, n);
        }
        return NULL;
}

static char *ask_bytes(struct fixture *f, const char *request, size_t length)
{
        int fd = connect_to(f);
        char *answer;

        while (length > 0) {
                ssize_t n = send(fd, request, length, MSG_NOSIGNAL);

                if (n <= 0)
                        break;
                request += n;
                length -= (size_t)n;
        }
        answer = receive(fd);
        close(fd);
        g_assert_nonnull(answer);
        g_assert_true(g_str_has_suffix(answer, "\n"));
        return answer;
}

static JsonNode *parse(const char *text)
{
        g_autoptr(JsonParser) parser = json_parser_new();
        g_autoptr(GError) error = NULL;

        json_parser_load_from_data(parser, text, -1, &error);
        g_assert_no_error(error);
        return json_node_copy(json_parser_get_root(parser));
}

static JsonNode *ask(struct fixture *f, const char *request)
{
        g_autofree char *answer = ask_bytes(f, request, strlen(request));

        return parse(answer);
}

static void expect_error_bytes(struct fixture *f, const char *request, size_t length)
{
        g_autofree char *answer = ask_bytes(f, request, length);
        g_autoptr(JsonNode) node = parse(answer);

        g_assert_false(json_object_get_boolean_member(json_node_get_object(node), "ok"));
        g_assert_nonnull(json_object_get_string_member(json_node_get_object(node), "error"));
}

static void expect_error(struct fixture *f, const char *request)
{
        expect_error_bytes(f, request, strlen(request));
}

static void expect_keys(JsonObject *object, const char *keys)
{
        g_auto(GStrv) expected = g_strsplit(keys, " ", -1);

        for (char **key = expected; *key; key++)
                if (!json_object_has_member(object, *key))
                        g_error("the key %s is missing", *key);
        g_assert_cmpuint(json_object_get_size(object), ==, g_strv_length(expected));
}

#define LIST "{\"verb\":\"list\"}\n"
#define HANDLE_KEYS                                                                                \
        "handle parent pid ppid uid comm exe path type flags rights class sharing opened reads "   \
        "read_bytes writes write_bytes mappings mapped_bytes counted_by"

static void test_list(struct fixture *f, const void *data)
{
        g_autoptr(JsonNode) answer = NULL;
        JsonArray *rows;
        JsonObject *row;

        fake_give(1, 0, 5, 0, 0, 0);
        fake_path = "/a\"b\\\n\xff\xc3\xa4";
        answer = ask(f, "{\"verb\":\"list\"}\n");
        rows = json_object_get_array_member(json_node_get_object(answer), "result");
        g_assert_cmpuint(json_array_get_length(rows), ==, 1);
        row = json_array_get_object_element(rows, 0);
        expect_keys(row, HANDLE_KEYS);
        g_assert_cmpstr(json_object_get_string_member(row, "path"), ==,
                        "/a\"b\\\n\xef\xbf\xbd\xc3\xa4");
        g_assert_true(json_object_get_null_member(row, "parent"));
        g_assert_cmpint(json_object_get_int_member(row, "write_bytes"), ==, 4);
}

static void test_history(struct fixture *f, const void *data)
{
        g_autoptr(JsonNode) none = NULL, answer = NULL;
        JsonArray *rows;
        JsonObject *row;

        none = ask(f, "{\"verb\":\"history\"}\n");
        g_assert_cmpstr(json_object_get_string_member(json_node_get_object(none), "error"), ==,
                        "no history is kept: mount with -o history=N");
        f->mount.options.history = 10;
        answer = ask(f, "{\"verb\":\"history\"}\n");
        rows = json_object_get_array_member(json_node_get_object(answer), "result");
        g_assert_cmpuint(json_array_get_length(rows), ==, 1);
        row = json_array_get_object_element(rows, 0);
        expect_keys(row, HANDLE_KEYS " closed");
        g_assert_cmpfloat(json_object_get_double_member(row, "closed"), ==, 102.5);
}

static void test_list_identity(struct fixture *f, const void *data)
{
        g_autoptr(JsonNode) answer = NULL;
        JsonObject *row;

        fake_give(1, 0, 5, 0, 0, 0);
        answer = ask(f, "{\"verb\":\"list\",\"args\":{\"identity\":true}}\n");
        row = json_array_get_object_element(
                json_object_get_array_member(json_node_get_object(answer), "result"), 0);
        expect_keys(row, HANDLE_KEYS " description inode");
        g_assert_cmpint(json_object_get_int_member(row, "inode"), ==, 5);
        g_assert_nonnull(json_object_get_string_member(row, "description"));
}

static void test_show(struct fixture *f, const void *data)
{
        uint64_t top = fake_give(1, 0, 5, 0, ID_MAKE(9, 9), 0);
        uint64_t middle = fake_give(1, 0, 5, 0, top, 0);
        g_autofree char *request = NULL;
        g_autoptr(JsonNode) answer = NULL;
        JsonObject *result;
        JsonArray *ancestors;

        fake_give(1, 0, 5, 0, middle, 0);
        fake_give(1, 0, 5, 0, middle, 0);
        request = g_strdup_printf("{\"verb\":\"show\",\"args\":{\"handle\":\"%u.%u\"}}\n",
                                  ID_INDEX(middle), ID_GENERATION(middle));
        answer = ask(f, request);
        result = json_object_get_object_member(json_node_get_object(answer), "result");
        expect_keys(result, HANDLE_KEYS " children ancestors");
        g_assert_cmpuint(json_array_get_length(json_object_get_array_member(result, "children")),
                         ==, 2);
        ancestors = json_object_get_array_member(result, "ancestors");
        g_assert_cmpuint(json_array_get_length(ancestors), ==, 2);
        expect_keys(json_array_get_object_element(ancestors, 0), HANDLE_KEYS);
        expect_keys(json_array_get_object_element(ancestors, 1), "handle"); /* closed */
        expect_error(f, "{\"verb\":\"show\",\"args\":{\"handle\":\"77.7\"}}\n");
        expect_error(f, "{\"verb\":\"show\",\"args\":{\"handle\":\"x\"}}\n");
        expect_error(f, "{\"verb\":\"show\",\"args\":{\"handle\":[]}}\n");
        expect_error(f, "{\"verb\":\"show\"}\n");
}

static void test_stats_and_status(struct fixture *f, const void *data)
{
        g_autoptr(JsonNode) stats = ask(f, "{\"verb\":\"stats\",\"args\":{}}\n");
        g_autoptr(JsonNode) status = ask(f, "{\"verb\":\"status\",\"args\":{}}\n");
        JsonObject *object = json_object_get_object_member(json_node_get_object(stats), "result");
        JsonObject *requests = json_object_get_object_member(object, "requests");

        expect_keys(object,
                    "requests lazy_reopens lazy_gives objects handles descriptions clients fds "
                    "node_fds foreign_events invalidations invalidated_all journal_pending "
                    "store_rows uptime parked");
        expect_keys(requests, "lookup other");
        g_assert_cmpint(json_object_get_int_member(requests, "other"), ==, 5);
        g_assert_cmpint(json_object_get_int_member(object, "fds"), >, 3);
        object = json_object_get_object_member(json_node_get_object(status), "result");
        expect_keys(object,
                    "mountpoint source class state_dir holder_pid worker_pid restarts last_death "
                    "features version started threads device upgrades "
                    "downgrades waiting_pid");
        g_assert_cmpstr(json_object_get_string_member(object, "state_dir"), ==, f->path);
        g_assert_cmpint(json_object_get_int_member(object, "worker_pid"), ==, getpid());
        g_assert_true(json_object_get_null_member(object, "holder_pid"));
}

static void test_store_fails(struct fixture *f, const void *data)
{
        fake_store_error = -EIO;
        expect_error(f, "{\"verb\":\"list\"}\n");
        expect_error(f, "{\"verb\":\"stats\"}\n");
        expect_error(f, "{\"verb\":\"sync\"}\n");
}

static void test_umount(struct fixture *f, const void *data)
{
        g_autoptr(JsonNode) answer = NULL;

        g_assert_cmpint(atomic_load(&f->quits), ==, 0);
        answer = ask(f, "{\"verb\":\"umount\"}\n");
        g_assert_true(json_object_get_boolean_member(json_node_get_object(answer), "ok"));
        for (int i = 0; i < 1000 && atomic_load(&f->quits) == 0; i++)
                g_usleep(1000);
        g_assert_cmpint(atomic_load(&f->quits), ==, 1);
}

static void test_garbage(struct fixture *f, const void *data)
{
        static const char *const bad[] = {
                "\n",
                "x\n",
                "{}\n",
                "[]\n",
                "null\n",
                "\"list\"\n",
                "{\"verb\":1}\n",
                "{\"verb\":null}\n",
                "{\"verb\":[\"list\"]}\n",
                "{\"verb\":\"nothing\"}\n",
                "{\"verb\":\"list\",\"args\":3}\n",
                "{\"verb\":\"list\"\n",
                "{\"verb\":\"list\"}}\n",
                "{\"verb\":\"li\xffst\"}\n",
                "{'verb':'list'}\n",
                "/* {\"verb\":\"list\"} */\n",
        };
        g_autofree char *bomb = g_strnfill(60000, '[');
        uint8_t noise[512];

        for (size_t i = 0; i < G_N_ELEMENTS(bad); i++)
                expect_error(f, bad[i]);
        expect_error_bytes(f, "{\"verb\":\"li\0st\"}\n", 17);
        bomb[59999] = '\n';
        expect_error_bytes(f, bomb, 60000);
        for (int i = 0; i < 300; i++) {
                for (size_t j = 0; j < sizeof(noise); j++)
                        noise[j] = (uint8_t)g_random_int_range(0, 256);
                noise[sizeof(noise) - 1] = '\n';
                expect_error_bytes(f, (const char *)noise, sizeof(noise));
        }
}

static void test_too_long(struct fixture *f, const void *data)
{
        size_t length = 4 * CONTROL_REQUEST_MAX;
        g_autofree char *text = g_strnfill(length, ' ');
        g_autoptr(JsonNode) answer = NULL;

        expect_error_bytes(f, text, length);
        /* the longest that is allowed */
        memcpy(text, "{\"verb\":\"status\"}", 17);
        text[CONTROL_REQUEST_MAX - 1] = '\n';
        text[CONTROL_REQUEST_MAX] = '\0';
        answer = ask(f, text);
        g_assert_true(json_object_get_boolean_member(json_node_get_object(answer), "ok"));
}

/* A request in pieces, one byte at a time; and one with more behind it. */
static void test_pieces(struct fixture *f, const void *data)
{
        const char *request = "{\"verb\":\"status\"}\n";
        const char *two = "{\"verb\":\"status\"}\n{\"verb\":\"umount\"}\n";
        int fd = connect_to(f);
        g_autofree char *answer = NULL, *more = NULL;

        for (const char *p = request; *p; p++) {
                g_assert_cmpint(send(fd, p, 1, MSG_NOSIGNAL), ==, 1);
                g_usleep(500);
        }
        answer = receive(fd);
        g_assert_true(g_str_has_prefix(answer, "{\"ok\":true"));
        close(fd);
        more = ask_bytes(f, two, strlen(two));
        g_assert_true(g_str_has_prefix(more, "{\"ok\":true"));
        g_assert_cmpint(atomic_load(&f->quits), ==, 0);
}

/* Peers that go away at every point. */
static void test_gone(struct fixture *f, const void *data)
{
        g_autoptr(JsonNode) answer = NULL;

        for (int i = 0; i < 200; i++)
                fake_give(1, 0, 5, 0, 0, 0);
        for (int i = 0; i < 200; i++) {
                int fd = connect_to(f);

                if (i % 4 == 1)
                        send(fd, "{\"verb\":", 8, MSG_NOSIGNAL);
                if (i % 4 >= 2)
                        send(fd, LIST, strlen(LIST), MSG_NOSIGNAL);
                if (i % 4 == 3)
                        recv(fd, (char[1]){0}, 1, 0);
                close(fd);
        }
        answer = ask(f, "{\"verb\":\"status\"}\n");
        g_assert_true(json_object_get_boolean_member(json_node_get_object(answer), "ok"));
}

/* Silent peers, and peers that do not read a long answer, hold nobody up. */
static void test_slow(struct fixture *f, const void *data)
{
        int silent[20], deaf[20];
        g_autoptr(JsonNode) answer = NULL;
        int64_t before;

        for (int i = 0; i < 3000; i++)
                fake_give(1, 0, 5, 0, 0, 0);
        for (size_t i = 0; i < G_N_ELEMENTS(silent); i++) {
                silent[i] = connect_to(f);
                deaf[i] = connect_to(f);
                send(deaf[i], LIST, strlen(LIST), MSG_NOSIGNAL);
        }
        before = g_get_monotonic_time();
        answer = ask(f, "{\"verb\":\"status\"}\n");
        g_assert_true(json_object_get_boolean_member(json_node_get_object(answer), "ok"));
        g_assert_cmpint(g_get_monotonic_time() - before, <, 20 * G_TIME_SPAN_SECOND);
        for (size_t i = 0; i < G_N_ELEMENTS(silent); i++) {
                close(silent[i]);
                close(deaf[i]);
        }
}

static void test_silent_is_told(struct fixture *f, const void *data)
{
        int fd = connect_to(f);
        int64_t before = g_get_monotonic_time();
        g_autofree char *answer = NULL;

        send(fd, "{\"verb\"", 7, MSG_NOSIGNAL);
        answer = receive(fd);
        g_assert_nonnull(answer);
        g_assert_nonnull(strstr(answer, "no request came"));
        g_assert_cmpint(g_get_monotonic_time() - before, >=, 9 * G_TIME_SPAN_SECOND);
        close(fd);
}

static void test_too_many(struct fixture *f, const void *data)
{
        int fds[80];
        unsigned refused = 0;
        g_autoptr(JsonNode) answer = NULL;

        for (size_t i = 0; i < G_N_ELEMENTS(fds); i++)
                fds[i] = connect_to(f);
        for (size_t i = 0; i < G_N_ELEMENTS(fds); i++) {
                struct pollfd wait = {.fd = fds[i], .events = POLLIN};

                if (poll(&wait, 1, i == 79 ? 2000 : 20) == 1) {
                        g_autofree char *text = receive(fds[i]);

                        g_assert_nonnull(strstr(text, "too many connections"));
                        refused++;
                }
        }
        g_assert_cmpuint(refused, ==, 80 - 64);
        for (size_t i = 0; i < G_N_ELEMENTS(fds); i++)
                close(fds[i]);
        /* and when they are gone all is well; their end may be noticed after our connection */
        for (int i = 0; i < 100; i++) {
                g_clear_pointer(&answer, json_node_unref);
                answer = ask(f, "{\"verb\":\"status\"}\n");
                if (json_object_get_boolean_member(json_node_get_object(answer), "ok"))
                        return;
                g_usleep(10000);
        }
        g_assert_not_reached();
}

static void expect_taken(struct fixture *f, const char *request, const char *what)
{
        g_autoptr(JsonNode) answer = NULL;

        fake_revoked[0] = '\0';
        answer = ask(f, request);
        g_assert_true(json_object_get_boolean_member(json_node_get_object(answer), "ok"));
        g_assert_cmpstr(fake_revoked, ==, what);
}

/* What is asked of revoke.h, and what is refused before. */
static void test_take(struct fixture *f, const void *data)
{
        expect_taken(f, "{\"verb\":\"restrict\",\"args\":{\"handle\":\"3.1\",\"rights\":\"dr\"}}\n",
                     "handle 3.1 rd strict");
        expect_taken(f, "{\"verb\":\"restrict\",\"args\":{\"pid\":7,\"rights\":\"-\",\"tree\":true}}\n",
                     "process 7 - strict");
        expect_taken(f, "{\"verb\":\"revoke\",\"args\":{\"pid\":7,\"tree\":true,\"block\":true}}\n",
                     "process 7 - tree block");
        expect_taken(f, "{\"verb\":\"revoke\",\"args\":{\"path_hex\":\"2f61ff\"}}\n", "file /a\xff -");
        expect_taken(f, "{\"verb\":\"allow\",\"args\":{\"path\":\"/a\"}}\n", "allow-file /a -");
        expect_taken(f, "{\"verb\":\"allow\",\"args\":{\"pid\":7}}\n", "allow-process 7 -");
        fake_revoked[0] = '\0';
        expect_error(f, "{\"verb\":\"restrict\",\"args\":{\"handle\":\"3.1\",\"rights\":\"x\"}}\n");
        expect_error(f, "{\"verb\":\"restrict\",\"args\":{\"handle\":\"3.1\"}}\n");
        expect_error(f, "{\"verb\":\"restrict\",\"args\":{\"rights\":\"r\"}}\n");
        expect_error(f, "{\"verb\":\"revoke\"}\n");
        expect_error(f, "{\"verb\":\"revoke\",\"args\":{\"pid\":-1}}\n");
        expect_error(f, "{\"verb\":\"revoke\",\"args\":{\"pid\":\"1\"}}\n");
        expect_error(f, "{\"verb\":\"revoke\",\"args\":{\"pid\":99999999999}}\n");
        expect_error(f, "{\"verb\":\"revoke\",\"args\":{\"handle\":\"3.1\",\"block\":true}}\n");
        expect_error(f, "{\"verb\":\"revoke\",\"args\":{\"path\":\"/a\",\"tree\":true}}\n");
        expect_error(f, "{\"verb\":\"revoke\",\"args\":{\"path_hex\":\"2f6\"}}\n");
        expect_error(f, "{\"verb\":\"revoke\",\"args\":{\"handle\":\"404.1\"}}\n");
        expect_error(f, "{\"verb\":\"revoke\",\"args\":{\"pid\":404}}\n");
        expect_error(f, "{\"verb\":\"allow\"}\n");
        g_assert_cmpstr(fake_revoked, ==, "");
}

/* Ends while verbs are at work and peers are connected; tear_down() does the rest. */
static void test_end_at_work(struct fixture *f, const void *data)
{
        fake_store_delay_us = 300000;
        for (int i = 0; i < 20; i++) {
                int fd = connect_to(f);

                send(fd, LIST, strlen(LIST), MSG_NOSIGNAL);
                close(fd);
        }
        g_usleep(50000);
}

/* Somebody else: sees his own, may look, may not end. */
static void as_nobody(struct fixture *f)
{
        g_autoptr(JsonNode) list = NULL, stats = NULL;

        if (setresuid(65534, 65534, 65534) < 0)
                _exit(99);
        list = ask(f, "{\"verb\":\"list\"}\n");
        g_assert_cmpuint(json_array_get_length(json_object_get_array_member(
                                 json_node_get_object(list), "result")),
                         ==, 1);
        stats = ask(f, "{\"verb\":\"stats\"}\n");
        g_assert_true(json_object_get_boolean_member(json_node_get_object(stats), "ok"));
        expect_error(f, "{\"verb\":\"umount\"}\n");
        expect_error(f, "{\"verb\":\"sync\"}\n");
        expect_error(f, "{\"verb\":\"show\",\"args\":{\"handle\":\"1.1\"}}\n");
        _exit(0);
}

static void test_other_user(struct fixture *f, const void *data)
{
        pid_t child;
        int status;

        if (geteuid() != 0) {
                g_test_skip("only root can become somebody else");
                return;
        }
        fake_give(1, 0, 5, 0, 0, 0);
        fake_give(1, 65534, 5, 0, 0, 0);
        child = fork();
        if (child == 0)
                as_nobody(f);
        g_assert_cmpint(waitpid(child, &status, 0), ==, child);
        g_assert_cmpint(status, ==, 0);
        g_assert_cmpint(atomic_load(&f->quits), ==, 0);
}

#define ADD(name, fn) g_test_add("/control/" name, struct fixture, NULL, set_up, fn, tear_down)

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        ADD("list", test_list);
        ADD("history", test_history);
        ADD("list-identity", test_list_identity);
        ADD("show", test_show);
        ADD("take", test_take);
        ADD("stats-and-status", test_stats_and_status);
        ADD("store-fails", test_store_fails);
        ADD("umount", test_umount);
        ADD("garbage", test_garbage);
        ADD("too-long", test_too_long);
        ADD("pieces", test_pieces);
        ADD("gone", test_gone);
        ADD("slow", test_slow);
        ADD("silent-is-told", test_silent_is_told);
        ADD("too-many", test_too_many);
        ADD("end-at-work", test_end_at_work);
        ADD("other-user", test_other_user);
        return g_test_run();
}

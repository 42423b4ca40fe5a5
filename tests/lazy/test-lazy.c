/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lazy/ without FUSE: descriptions on a made-up server object, and real processes as clients.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "children.h"
#include "lazy/lazy_reopen.h"
#include "lazy/lazy_state.h"
#include "lazy/private_reopen.h"

/* A server object that only counts. */
struct thing {
        struct server_object object;
        atomic_int refs;
        atomic_int emptied;
};

static void thing_ref(struct server_object *object)
{
        atomic_fetch_add(&((struct thing *)object)->refs, 1);
}

static void thing_unref(struct server_object *object)
{
        atomic_fetch_sub(&((struct thing *)object)->refs, 1);
}

static void thing_emptied(struct server_object *object)
{
        atomic_fetch_add(&((struct thing *)object)->emptied, 1);
}

static char *thing_describe(struct server_object *object)
{
        return g_strdup("/thing");
}

static const struct server_object_ops thing_ops = {
        .give_access_set_client_data = description_give_access_set_client_data,
        .ending = description_ending,
        .leaves = description_leaves,
        .being_freed = description_being_freed,
        .exported_xobject_list_empty = thing_emptied,
        .ref = thing_ref,
        .unref = thing_unref,
        .describe = thing_describe,
};

struct fixture {
        struct cobj *cobj;
        struct lazy *lazy;
        struct thing thing;
        GArray *children; /* for child_start(); ended with the test */
};

static void fixture_set_up(struct fixture *f, gconstpointer data)
{
        const struct cobj_observer observer = {.data = NULL};

        memset(f, 0, sizeof *f);
        g_assert_cmpint(cobj_new(&observer, NULL, &f->cobj), ==, 0);
        g_assert_cmpint(lazy_new(f->cobj, &f->lazy), ==, 0);
        server_object_init(&f->thing.object, &thing_ops);
        f->children = children_new();
}

/* Everything has an owner and one reference count: at the end nothing may be left (q5). */
static void fixture_tear_down(struct fixture *f, gconstpointer data)
{
        children_end(f->children);
        g_assert_cmpuint(lazy_description_count(f->lazy), ==, 0);
        g_assert_cmpuint(cobj_handle_count(f->cobj), ==, 0);
        g_assert_cmpint(atomic_load(&f->thing.refs), ==, 0);
        lazy_free(f->lazy);
        cobj_free(f->cobj);
        server_object_clear(&f->thing.object);
}

static struct description *open_as(struct fixture *f, int flags, pid_t pid)
{
        const struct description_how how = {
                .fd = open("/dev/null", O_RDWR | O_CLOEXEC),
                .flags = flags,
                .type = XOBJ_FILE,
                .io_class = IO_CLASS_CACHED,
                .tid = pid,
        };
        struct description *d = NULL;

        g_assert_cmpint(how.fd, >=, 0);
        g_assert_cmpint(description_open(f->lazy, &f->thing.object, &how, &d), ==, 0);
        return d;
}

static struct description *open_thing(struct fixture *f, int flags)
{
        return open_as(f, flags, getpid());
}

static struct k42_lazy_reopen message_of(uint64_t parent)
{
        return (struct k42_lazy_reopen){
                .header = {.version = K42_PROTOCOL_VERSION,
                           .length = sizeof(struct k42_lazy_reopen)},
                .parent = parent,
        };
}

static struct k42_lazy_reopen reopen_as(struct description *d, pid_t pid, uint64_t hint)
{
        struct k42_lazy_reopen message = message_of(hint);

        g_assert_cmpint(lazy_reopen(d, pid, &message), ==, 0);
        g_assert_cmpuint(message.token, !=, 0);
        return message;
}

static enum sharing sharing_of(struct fixture *f, xhandle token)
{
        g_autoptr(K42Xobj) xobj = NULL;

        g_assert_cmpint(xhandle_trans(f->cobj, token, NULL, RIGHTS_NONE, &xobj), ==, 0);
        return (enum sharing)atomic_load(&xobj_client_data(xobj)->kept->sharing);
}

static bool stale(struct fixture *f, xhandle token)
{
        g_autoptr(K42Xobj) xobj = NULL;

        return xhandle_trans(f->cobj, token, NULL, RIGHTS_NONE, &xobj) == -ESTALE;
}

/* The exit of a process is noticed by another thread. */
static void wait_until_stale(struct fixture *f, xhandle token)
{
        for (int i = 0; i < 500 && !stale(f, token); i++)
                g_usleep(10000);
        g_assert_true(stale(f, token));
}

/* The record of a handle that is being freed; its start time is the token, too. */
static struct kept_handle *ended_handle(xhandle token, pid_t pid, access_rights match,
                                        access_rights nomatch)
{
        struct kept_handle *kept = keep_alloc(NULL, sizeof *kept);

        g_assert_nonnull(kept);
        kept->token = token;
        kept->pid = pid;
        kept->start_time = token;
        kept->rights = KEPT_RIGHTS(match, nomatch);
        return kept;
}

static void test_state_keeps_the_newest(void)
{
        g_autoptr(K42LazyState) state = lazy_state_new(NULL, RIGHTS_ALL, NULL);
        struct lazy_holder found;

        for (unsigned i = 1; i <= 10 * LAZY_HOLDERS_MAX; i++) {
                struct kept_handle *kept = ended_handle(i, (pid_t)i, RIGHTS_ALL, RIGHTS_ALL);

                g_assert_cmpint(lazy_give_access(state, kept), ==, 0);
        }
        g_assert_cmpuint(lazy_state_holders(state), ==, LAZY_HOLDERS_MAX);
        g_assert_true(lazy_state_find_token(state, 10 * LAZY_HOLDERS_MAX, &found));
        g_assert_true(lazy_state_find_token(state, 9 * LAZY_HOLDERS_MAX + 1, &found));
        g_assert_false(lazy_state_find_token(state, 9 * LAZY_HOLDERS_MAX, &found));
        g_assert_true(lazy_state_find_pid(state, 10 * LAZY_HOLDERS_MAX, 0, &found));
        g_assert_true(
                lazy_state_find_pid(state, 10 * LAZY_HOLDERS_MAX, 10 * LAZY_HOLDERS_MAX, &found));
        g_assert_false(lazy_state_find_pid(state, 10 * LAZY_HOLDERS_MAX, 5, &found));
        g_assert_cmpuint(lazy_state_bound(state), ==, RIGHTS_ALL);
}

static void test_state_never_drops_restricted(void)
{
        g_autoptr(K42LazyState) state = lazy_state_new(NULL, RIGHTS_ALL, NULL);
        struct lazy_holder found;

        g_assert_cmpint(
                lazy_give_access(state, ended_handle(1000000, 1, RIGHT_READ, RIGHTS_NONE)), ==, 0);
        for (unsigned i = 1; i <= 3 * LAZY_HOLDERS_MAX; i++)
                lazy_give_access(state, ended_handle(i, 2, RIGHTS_ALL, RIGHTS_ALL));
        g_assert_true(lazy_state_find_token(state, 1000000, &found));
        g_assert_cmpuint(found.match, ==, RIGHT_READ);
}

static void test_header(void)
{
        struct k42_header header = {.version = K42_PROTOCOL_VERSION, .length = 64};

        g_assert_cmpint(k42_header_check(&header, 64, 64), ==, 0);
        g_assert_cmpint(k42_header_check(&header, 63, 64), ==, -EMSGSIZE);
        g_assert_cmpint(k42_header_check(&header, 65, 64), ==, -EMSGSIZE);
        header.length = 63;
        g_assert_cmpint(k42_header_check(&header, 64, 64), ==, -EMSGSIZE);
        header.length = 64;
        header.version = K42_PROTOCOL_VERSION + 1;
        g_assert_cmpint(k42_header_check(&header, 64, 64), ==, -EPROTONOSUPPORT);
        header.version = K42_PROTOCOL_VERSION;
        for (unsigned bit = 0; bit < 32; bit++) {
                header.flags = 1u << bit;
                g_assert_cmpint(k42_header_check(&header, 64, 64), ==, -EINVAL);
        }
}

static void test_refused_messages(struct fixture *f, gconstpointer data)
{
        struct description *d = open_thing(f, O_RDONLY);
        struct k42_lazy_reopen message;

        for (size_t i = offsetof(struct k42_lazy_reopen, token); i < sizeof message; i++) {
                message = message_of(0);
                ((uint8_t *)&message)[i] = 1;
                g_assert_cmpint(lazy_reopen(d, getpid(), &message), ==, -EINVAL);
        }
        for (size_t i = offsetof(struct k42_identify, description); i < sizeof message; i++) {
                struct k42_identify identify = {
                        .header = {K42_PROTOCOL_VERSION, sizeof identify, 0}};

                ((uint8_t *)&identify)[i] = 1;
                g_assert_cmpint(lazy_identify(d, &identify), ==, -EINVAL);
        }
        g_assert_cmpuint(cobj_handle_count(f->cobj), ==, 1);
        description_release(d);
}

static void test_open_and_release(struct fixture *f, gconstpointer data)
{
        struct description *d = open_thing(f, O_RDWR);
        struct k42_identify identify = {.header = {K42_PROTOCOL_VERSION, sizeof identify, 0}};
        const uint64_t fh = d->id;
        const xhandle opener = d->opener;

        g_assert_true(description_from_fh(f->lazy, fh) == d);
        g_assert_cmpint(sharing_of(f, opener), ==, SHARING_NON_SHARED);
        g_assert_cmpint(lazy_identify(d, &identify), ==, 0);
        g_assert_cmpuint(identify.description, ==, fh);
        g_assert_cmpuint(identify.opener, ==, opener);
        g_assert_cmpint(identify.opener_pid, ==, getpid());
        g_assert_cmpuint(identify.handles, ==, 1);
        description_release(d);
        g_assert_null(description_from_fh(f->lazy, fh));
        g_assert_true(stale(f, opener));
        g_assert_cmpint(atomic_load(&f->thing.emptied), ==, 1);
        g_assert_cmpuint(lazy_gives(f->lazy), ==, 0); /* nobody can inherit it any more */
}

static void test_reopen(struct fixture *f, gconstpointer data)
{
        struct description *d = open_thing(f, O_RDWR);
        pid_t child = child_start(f->children), second = child_start(f->children);
        struct k42_lazy_reopen one, again, other, own;

        one = reopen_as(d, child, d->opener);
        g_assert_cmpuint(one.parent, ==, d->opener);
        g_assert_cmpuint(one.token, !=, d->opener);
        g_assert_cmpuint(one.rights, ==, RIGHTS_ALL);
        g_assert_cmpuint(one.sharing, ==, K42_SHARING_SHARED);
        g_assert_cmpint(sharing_of(f, d->opener), ==, SHARING_SHARED);
        again = reopen_as(d, child, 0);
        g_assert_cmpuint(again.token, ==, one.token);
        g_assert_cmpuint(again.parent, ==, one.parent);
        own = reopen_as(d, getpid(), 0);
        g_assert_cmpuint(own.token, ==, d->opener);
        g_assert_cmpuint(own.parent, ==, 0);
        other = reopen_as(d, second, one.token); /* says that the first child is its parent, which is a lie */
        g_assert_cmpuint(other.parent, ==, d->opener);
        g_assert_cmpuint(lazy_reopens(f->lazy), ==, 2);

        child_end(child);
        wait_until_stale(f, one.token);
        g_assert_cmpint(sharing_of(f, d->opener), ==, SHARING_SHARED);
        child_end(second);
        wait_until_stale(f, other.token);
        g_assert_cmpint(sharing_of(f, d->opener), ==, SHARING_NON_SHARED);
        g_assert_cmpuint(lazy_gives(f->lazy), ==, 2);
        f->children->len = 0;
        description_release(d);
}

/* The parent process is gone, and its handle with it: what it left behind still gives the lineage.
 */
static void test_left_behind(struct fixture *f, gconstpointer data)
{
        struct description *d = open_thing(f, O_RDWR);
        pid_t middle = child_start(f->children), grandchild = child_start(f->children);
        struct k42_lazy_reopen of_middle, of_grandchild;

        of_middle = reopen_as(d, middle, d->opener);
        child_end(middle);
        wait_until_stale(f, of_middle.token);
        of_grandchild = reopen_as(d, grandchild, of_middle.token);
        g_assert_cmpuint(of_grandchild.parent, ==, of_middle.token);
        child_end(grandchild);
        f->children->len = 0;
        description_release(d);
}

/* A token of another description, or nonsense, is no hint: the parent process is. */
static void test_foreign_hints(struct fixture *f, gconstpointer data)
{
        struct description *d = open_thing(f, O_RDWR), *e = open_thing(f, O_RDWR);
        const uint64_t hints[] = {e->opener, 1, UINT64_MAX, d->opener + (UINT64_C(1) << 32), 0};

        for (unsigned i = 0; i < G_N_ELEMENTS(hints); i++) {
                struct k42_lazy_reopen message = reopen_as(d, child_start(f->children), hints[i]);

                g_assert_cmpuint(message.parent, ==, d->opener);
        }
        description_release(e);
        description_release(d);
}

static void test_rights_only_shrink(struct fixture *f, gconstpointer data)
{
        struct description *d = open_thing(f, O_RDWR);
        pid_t below[2], child = child_start_family(f->children, below), grandchild = below[0], late = below[1];
        struct k42_lazy_reopen message;
        xhandle of_child;

        of_child = reopen_as(d, child, d->opener).token;
        {
                g_autoptr(K42Xobj) xobj = NULL;

                g_assert_cmpint(xhandle_trans(f->cobj, of_child, NULL, RIGHTS_NONE, &xobj), ==, 0);
                g_assert_cmpint(xobj_restrict(xobj, RIGHT_READ | RIGHT_DUPLICATE,
                                              RIGHT_READ | RIGHT_DUPLICATE),
                                ==, 0);
                g_assert_cmpint(xobj_restrict(xobj, RIGHTS_ALL, RIGHT_DUPLICATE), ==, -EPERM);
        }
        message = reopen_as(d, grandchild, of_child);
        g_assert_cmpuint(message.rights, ==, RIGHT_READ | RIGHT_DUPLICATE);
        {
                g_autoptr(K42Xobj) xobj = NULL;

                g_assert_cmpint(xhandle_trans(f->cobj, of_child, NULL, RIGHTS_NONE, &xobj), ==, 0);
                g_assert_cmpint(xobj_restrict(xobj, RIGHT_READ, RIGHTS_NONE), ==, 0);
        }
        message = message_of(of_child);
        g_assert_cmpint(lazy_reopen(d, late, &message), ==, -EACCES);
        /* … also when its owner has gone since. */
        child_end(child);
        wait_until_stale(f, of_child);
        message = message_of(of_child);
        g_assert_cmpint(lazy_reopen(d, late, &message), ==, -EACCES);
        g_array_remove_index(f->children, 0);
        description_release(d);
}

static void test_read_only_gives_no_write(struct fixture *f, gconstpointer data)
{
        struct description *d = open_thing(f, O_RDONLY);
        struct k42_lazy_reopen message = reopen_as(d, child_start(f->children), 0);

        g_assert_false(message.rights & RIGHT_WRITE);
        g_assert_true(message.rights & RIGHT_READ);
        description_release(d);
}

static void test_counting(struct fixture *f, gconstpointer data)
{
        struct description *d = open_thing(f, O_RDWR);
        pid_t child = child_start(f->children), stranger = child_start(f->children);
        xhandle token = reopen_as(d, child, 0).token;
        g_autoptr(K42Xobj) of_child = NULL, of_opener = NULL;

        description_count_read(d, child, 10);
        description_count_read(d, child, 5);
        description_count_write(d, getpid(), 7);
        description_count_read(d, stranger, 1000); /* has no handle: the first one's */
        g_assert_cmpint(xhandle_trans(f->cobj, token, NULL, 0, &of_child), ==, 0);
        g_assert_cmpint(xhandle_trans(f->cobj, d->opener, NULL, 0, &of_opener), ==, 0);
        g_assert_cmpuint(xobj_client_data(of_child)->kept->reads, ==, 2);
        g_assert_cmpuint(xobj_client_data(of_child)->kept->read_bytes, ==, 15);
        g_assert_cmpuint(xobj_client_data(of_opener)->kept->writes, ==, 1);
        g_assert_cmpuint(xobj_client_data(of_opener)->kept->write_bytes, ==, 7);
        g_assert_cmpuint(xobj_client_data(of_opener)->kept->read_bytes, ==, 1000);
        description_release(d);
}

static void test_release_all(struct fixture *f, gconstpointer data)
{
        for (int i = 0; i < 100; i++)
                (void)open_thing(f, O_RDONLY);
        g_assert_cmpuint(lazy_description_count(f->lazy), ==, 100);
        lazy_release_all(f->lazy);
}

struct storm {
        struct fixture *f;
        struct description *d;
        pid_t children[8];
};

static void *storm_thread(void *data)
{
        struct storm *storm = data;

        for (int i = 0; i < 400; i++) {
                pid_t pid = storm->children[i % G_N_ELEMENTS(storm->children)];
                struct k42_lazy_reopen message = message_of(storm->d->opener);

                int r = lazy_reopen(storm->d, pid, &message);

                /* The others end handles as fast as this one gets them: then the answer says so. */
                g_assert_true(r == 0 || r == -ESRCH);
                description_count_read(storm->d, pid, 1);
                if (i % 3 == 0)
                        xobj_free(storm->f->cobj, message.token);
        }
        return NULL;
}

/* Re-opens, ends and counts of the same few processes from all sides; then the end of everything.
 */
static void test_storm(struct fixture *f, gconstpointer data)
{
        struct storm storm = {.f = f, .d = open_thing(f, O_RDWR)};
        pthread_t threads[6];

        for (unsigned i = 0; i < G_N_ELEMENTS(storm.children); i++)
                storm.children[i] = child_start(f->children);
        for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
                g_assert_cmpint(pthread_create(&threads[i], NULL, storm_thread, &storm), ==, 0);
        for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
                pthread_join(threads[i], NULL);
        /* One handle a process at the most, however many threads asked. */
        g_assert_cmpuint(cobj_handle_count(f->cobj), <=, 1 + G_N_ELEMENTS(storm.children));
        description_release(storm.d);
}

static struct k42_private_reopen private_message(uint64_t from)
{
        return (struct k42_private_reopen){
                .header = {.version = K42_PROTOCOL_VERSION,
                           .length = sizeof(struct k42_private_reopen)},
                .from = from,
        };
}

static void test_private_reopen(struct fixture *f, gconstpointer data)
{
        struct description *d = open_thing(f, O_RDWR), *own;
        pid_t child = child_start(f->children);
        const struct k42_lazy_reopen inherited = reopen_as(d, child, d->opener);
        struct k42_private_reopen message;
        struct k42_lazy_reopen again;
        xhandle opener;

        own = open_as(f, O_RDWR, child);
        opener = own->opener;
        message = private_message(inherited.token);
        g_assert_cmpint(private_reopen(own, child, &message), ==, 0);
        g_assert_cmpuint(message.parent, ==, d->opener);
        g_assert_cmpuint(message.rights, ==, RIGHTS_ALL);
        g_assert_true(stale(f, inherited.token));
        g_assert_true(stale(f, opener));
        g_assert_cmpuint(own->opener, ==, message.token);
        g_assert_cmpint(own->opener_pid, ==, child);
        g_assert_cmpint(sharing_of(f, message.token), ==, SHARING_NON_SHARED);
        g_assert_cmpint(sharing_of(f, d->opener), ==, SHARING_NON_SHARED);
        again = reopen_as(own, child, 0); /* it is the process's handle on its description now */
        g_assert_cmpuint(again.token, ==, message.token);
        g_assert_cmpuint(again.parent, ==, d->opener);
        g_assert_cmpuint(cobj_handle_count(f->cobj), ==, 2);

        /* a message that comes again, because the daemon died before it answered, is answered as before */
        message = private_message(inherited.token);
        g_assert_cmpint(private_reopen(own, child, &message), ==, 0);
        g_assert_cmpuint(message.token, ==, again.token);
        g_assert_cmpuint(message.parent, ==, d->opener);
        g_assert_cmpuint(cobj_handle_count(f->cobj), ==, 2);
        description_release(own);
        description_release(d);
}

static void test_private_reopen_rights(struct fixture *f, gconstpointer data)
{
        struct description *d = open_thing(f, O_RDWR), *own;
        pid_t child = child_start(f->children), grandchild = child_start(f->children);
        const access_rights less = RIGHT_READ | RIGHT_DUPLICATE;
        struct k42_private_reopen message;
        struct k42_lazy_reopen inherited, next;

        {
                g_autoptr(K42Xobj) xobj = cobj_get_xobj(f->cobj, d->opener);

                g_assert_cmpint(xobj_restrict(xobj, less, less), ==, 0);
        }
        inherited = reopen_as(d, child, d->opener);
        g_assert_cmpuint(inherited.rights, ==, less);
        own = open_as(f, O_RDWR, child);
        message = private_message(inherited.token);
        g_assert_cmpint(private_reopen(own, child, &message), ==, 0);
        g_assert_cmpuint(message.rights, ==, less);
        /* neither what the open had given, nor what is left of that, leads to more */
        next = reopen_as(own, grandchild, 0);
        g_assert_cmpuint(next.rights & ~less, ==, 0);
        child_end(child);
        wait_until_stale(f, message.token);
        child_end(grandchild);
        wait_until_stale(f, next.token);
        f->children->len = 0;
        child = child_start(f->children);
        next = reopen_as(own, child, 0);
        g_assert_cmpuint(next.rights & ~less, ==, 0);
        description_release(own);
        description_release(d);
}

static void test_private_reopen_refused(struct fixture *f, gconstpointer data)
{
        struct description *d = open_thing(f, O_RDWR), *own;
        pid_t child = child_start(f->children), stranger = child_start(f->children);
        const struct k42_lazy_reopen inherited = reopen_as(d, child, d->opener);
        struct k42_private_reopen message = private_message(0);

        own = open_as(f, O_RDWR, child);
        for (size_t i = offsetof(struct k42_private_reopen, token); i < sizeof message; i++) {
                message = private_message(inherited.token);
                ((uint8_t *)&message)[i] = 1;
                g_assert_cmpint(private_reopen(own, child, &message), ==, -EINVAL);
        }
        message = private_message(0);
        g_assert_cmpint(private_reopen(own, child, &message), ==, -ESTALE);
        message = private_message(inherited.token + (UINT64_C(1) << 32));
        g_assert_cmpint(private_reopen(own, child, &message), ==, -ESTALE);
        message = private_message(inherited.token);
        g_assert_cmpint(private_reopen(own, stranger, &message), ==, -EACCES);
        message = private_message(inherited.token);
        g_assert_cmpint(private_reopen(d, child, &message), ==, -EINVAL); /* on the same one */
        g_assert_cmpuint(cobj_handle_count(f->cobj), ==, 3);
        g_assert_false(stale(f, inherited.token));
        description_release(own);
        description_release(d);
}

#define ADD(name, function)                                                                        \
        g_test_add("/lazy/" name, struct fixture, NULL, fixture_set_up, function, fixture_tear_down)

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/lazy/state/keeps-the-newest", test_state_keeps_the_newest);
        g_test_add_func("/lazy/state/never-drops-restricted", test_state_never_drops_restricted);
        g_test_add_func("/lazy/header", test_header);
        ADD("refused-messages", test_refused_messages);
        ADD("open-and-release", test_open_and_release);
        ADD("reopen", test_reopen);
        ADD("left-behind", test_left_behind);
        ADD("foreign-hints", test_foreign_hints);
        ADD("rights-only-shrink", test_rights_only_shrink);
        ADD("read-only-gives-no-write", test_read_only_gives_no_write);
        ADD("counting", test_counting);
        ADD("release-all", test_release_all);
        ADD("storm", test_storm);
        ADD("private-reopen", test_private_reopen);
        ADD("private-reopen/rights", test_private_reopen_rights);
        ADD("private-reopen/refused", test_private_reopen_refused);
        return g_test_run();
}

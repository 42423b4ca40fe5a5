/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fence, process_limits and rights without FUSE: a made-up server object, real processes as clients.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lazy/fence.h"
#include "lazy/lazy_reopen.h"
#include "lazy/lazy_state.h"
#include "lazy/private_reopen.h"
#include "lazy/process_limits.h"
#include "lazy/rights.h"

/* ---- fence ---- */

static int64_t in_us(int64_t us)
{
        return g_get_monotonic_time() + us;
}

static void test_fence_waits(void)
{
        g_autoptr(K42Fence) fence = fence_new();
        unsigned before = fence_enter(fence, 5), later;

        g_assert_false(fence_wait(fence, 5, in_us(20000)));
        g_assert_false(fence_wait_all(fence, in_us(20000)));
        g_assert_true(fence_wait(fence, 6, in_us(20000)));
        later = fence_enter(fence, 5);
        fence_leave(fence, before);
        fence_leave(fence, later);
        g_assert_true(fence_wait(fence, 5, in_us(0)));
        /* Given up and tried again: who was inside is waited for all the same. */
        for (int i = 0; i < 5; i++) {
                before = fence_enter(fence, 7);
                for (int j = 0; j <= i; j++)
                        g_assert_false(fence_wait(fence, 7, in_us(1000)));
                fence_leave(fence, before);
                g_assert_true(fence_wait(fence, 7, in_us(0)));
        }
}

struct race {
        struct fence *fence;
        atomic_bool closed, over, stop;
        atomic_uint done, wrong;
        int plain; /* written when closed, read inside: a race, unless the fence orders them */
};

static void *operate(void *data)
{
        struct race *race = data;

        while (!atomic_load(&race->stop)) {
                unsigned ticket = fence_enter(race->fence, 1);

                if (!atomic_load(&race->closed)) {
                        if (race->plain != 0 || atomic_load(&race->over))
                                atomic_fetch_add(&race->wrong, 1);
                        atomic_fetch_add(&race->done, 1);
                }
                fence_leave(race->fence, ticket);
        }
        return NULL;
}

/* Operations never stop coming: the wait ends all the same, and after it nobody is inside who has not
 * seen the change. */
static void test_fence_race(void)
{
        g_autoptr(K42Fence) fence = fence_new();
        struct race race = {.fence = fence};
        pthread_t threads[3];

        for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
                pthread_create(&threads[i], NULL, operate, &race);
        for (int round = 0; round < 200; round++) {
                unsigned before = atomic_load(&race.done);

                while (atomic_load(&race.done) == before)
                        g_usleep(10);
                atomic_store(&race.closed, true);
                g_assert_true(fence_wait(fence, 1, in_us(60 * G_USEC_PER_SEC)));
                atomic_store(&race.over, true);
                race.plain = 1;
                g_usleep(10);
                race.plain = 0;
                atomic_store(&race.over, false);
                atomic_store(&race.closed, false);
        }
        atomic_store(&race.stop, true);
        for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
                pthread_join(threads[i], NULL);
        g_assert_cmpuint(atomic_load(&race.wrong), ==, 0);
}

/* ---- processes ---- */

/* Until it is killed, or `parent` ends, which may have been before we asked to be told of it. */
static void sleep_below(pid_t parent)
{
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (parent == 0 || getppid() == parent)
                pause();
        _exit(0);
}

static pid_t start_child(void)
{
        const pid_t me = getpid();
        pid_t pid = fork();

        g_assert_cmpint(pid, >=, 0);
        if (pid == 0)
                sleep_below(me);
        return pid;
}

/* A child, and a child of that. */
static pid_t start_two(pid_t *ret_grandchild)
{
        const pid_t me = getpid();
        int pipe_fds[2];
        pid_t pid;

        g_assert_cmpint(pipe(pipe_fds), ==, 0);
        pid = fork();
        if (pid == 0) {
                const pid_t middle = getpid();
                pid_t below = fork();

                if (below > 0 && write(pipe_fds[1], &below, sizeof below) < 0)
                        _exit(1);
                sleep_below(below == 0 ? middle : me);
        }
        g_assert_cmpint(read(pipe_fds[0], ret_grandchild, sizeof(pid_t)), ==, sizeof(pid_t));
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        return pid;
}

static void end_child(pid_t pid)
{
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                ;
}

static void test_limits(void)
{
        g_autoptr(K42ProcessLimits) limits = process_limits_new();
        pid_t below, child = start_two(&below), other = start_child();
        struct process_limit limit = {.pid = child, .rights = RIGHTS_ALL, .inherit = RIGHTS_ALL};

        g_assert_true(process_limits_empty(limits));
        g_assert_cmpuint(process_limits_rights(limits, child, 5), ==, RIGHTS_ALL);
        limit.rights = RIGHT_READ;
        limit.before = 100;
        g_assert_cmpint(process_limits_add(limits, &limit), ==, 0);
        g_assert_cmpuint(process_limits_rights(limits, child, 100), ==, RIGHT_READ);
        g_assert_cmpuint(process_limits_rights(limits, child, 101), ==, RIGHTS_ALL);
        g_assert_cmpuint(process_limits_rights(limits, below, 5), ==, RIGHTS_ALL);
        /* never more again */
        limit.rights = RIGHTS_ALL;
        g_assert_cmpint(process_limits_add(limits, &limit), ==, 0);
        g_assert_cmpuint(process_limits_rights(limits, child, 100), ==, RIGHT_READ);

        limit = (struct process_limit){.pid = child, .rights = RIGHTS_ALL, .inherit = RIGHT_READ};
        g_assert_cmpint(process_limits_add(limits, &limit), ==, 0);
        g_assert_cmpuint(process_limits_inherit(limits, below), ==, RIGHT_READ);
        g_assert_cmpuint(process_limits_inherit(limits, other), ==, RIGHTS_ALL);

        limit = (struct process_limit){
                .pid = child, .rights = RIGHTS_ALL, .inherit = RIGHTS_ALL, .blocked_by = child};
        g_assert_cmpint(process_limits_add(limits, &limit), ==, 0);
        g_assert_true(process_limits_blocked(limits, below));
        g_assert_false(process_limits_blocked(limits, other));
        g_assert_false(process_limits_allow(limits, other));
        g_assert_true(process_limits_allow(limits, child));
        g_assert_false(process_limits_blocked(limits, child));
        g_assert_false(process_limits_blocked(limits, below));
        /* Allowed again; but what was withheld stays withheld. */
        g_assert_cmpuint(process_limits_inherit(limits, below), ==, RIGHT_READ);
        end_child(child);
        limit.pid = child;
        g_assert_cmpint(process_limits_add(limits, &limit), ==, -ESRCH);
        end_child(other);
}

/* ---- rights ---- */

struct thing {
        struct server_object object;
        atomic_int refs;
};

static void thing_ref(struct server_object *object)
{
        atomic_fetch_add(&((struct thing *)object)->refs, 1);
}

static void thing_unref(struct server_object *object)
{
        atomic_fetch_sub(&((struct thing *)object)->refs, 1);
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
        .ref = thing_ref,
        .unref = thing_unref,
        .describe = thing_describe,
};

struct fixture {
        struct cobj *cobj;
        struct lazy *lazy;
        struct thing thing;
        struct description *d; /* opened by us, for reading and writing */
};

static void set_up(struct fixture *f, gconstpointer data)
{
        const struct cobj_observer observer = {.data = NULL};
        const struct description_how how = {
                .fd = open("/dev/null", O_RDWR | O_CLOEXEC),
                .flags = O_RDWR,
                .type = XOBJ_FILE,
                .io_class = IO_CLASS_COUNTED,
                .tid = getpid(),
        };

        memset(f, 0, sizeof *f);
        g_assert_cmpint(cobj_new(&observer, NULL, &f->cobj), ==, 0);
        g_assert_cmpint(lazy_new(f->cobj, &f->lazy), ==, 0);
        server_object_init(&f->thing.object, &thing_ops);
        g_assert_cmpint(description_open(f->lazy, &f->thing.object, &how, &f->d), ==, 0);
}

static void tear_down(struct fixture *f, gconstpointer data)
{
        description_release(f->d);
        /* the watcher may be just ending the handle of a child that has exited */
        for (int i = 0; i < 500 && atomic_load(&f->thing.refs) != 0; i++)
                g_usleep(10000);
        g_assert_cmpuint(cobj_handle_count(f->cobj), ==, 0);
        g_assert_cmpint(atomic_load(&f->thing.refs), ==, 0);
        lazy_free(f->lazy);
        cobj_free(f->cobj);
        server_object_clear(&f->thing.object);
}

static int may(struct fixture *f, pid_t pid, access_rights needed)
{
        return description_may(f->d, pid, needed);
}

static struct xobj *handle_of(struct fixture *f, pid_t pid)
{
        struct k42_lazy_reopen message = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message}};
        struct xobj *xobj = NULL;

        g_assert_cmpint(lazy_reopen(f->d, pid, &message), ==, 0);
        g_assert_cmpint(xhandle_trans(f->cobj, message.token, NULL, RIGHTS_NONE, &xobj), ==, 0);
        return xobj;
}

static void restrict_to(struct fixture *f, pid_t pid, access_rights rights, int expected)
{
        g_autoptr(K42Xobj) xobj = handle_of(f, pid);

        g_assert_cmpint(handle_restrict(xobj, rights), ==, expected);
}

static void test_restrict(struct fixture *f, gconstpointer data)
{
        pid_t below, child = start_two(&below);
        const pid_t me = getpid();

        g_assert_cmpint(may(f, child, RIGHT_READ | RIGHT_WRITE), ==, 0);
        restrict_to(f, child, RIGHT_READ | RIGHT_DUPLICATE, 0);
        restrict_to(f, child, RIGHT_READ | RIGHT_WRITE, -EPERM);
        g_assert_cmpint(may(f, child, RIGHT_READ), ==, 0);
        g_assert_cmpint(may(f, child, RIGHT_WRITE), ==, -EBADF);
        g_assert_cmpint(may(f, me, RIGHT_READ | RIGHT_WRITE), ==, 0);
        /* It has sent nothing, and derives from its parent all the same. */
        g_assert_cmpint(may(f, below, RIGHT_WRITE), ==, -EBADF);
        g_assert_cmpint(may(f, below, RIGHT_READ), ==, 0);
        restrict_to(f, below, RIGHTS_NONE, 0);
        g_assert_cmpint(may(f, below, RIGHT_READ), ==, -EBADF);
        g_assert_cmpint(may(f, below, RIGHTS_NONE), ==, -EBADF);
        g_assert_cmpint(may(f, child, RIGHT_READ), ==, 0);
        end_child(child);
}

/* Nobody chooses whose rights he derives from: neither by the message, nor by becoming an orphan. */
static void test_no_choice(struct fixture *f, gconstpointer data)
{
        pid_t below, child = start_two(&below), stranger;
        struct k42_lazy_reopen message = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message},
                .parent = f->d->opener,
        };
        int pipe_fds[2];

        restrict_to(f, child, RIGHT_READ | RIGHT_DUPLICATE, 0);
        g_assert_cmpint(lazy_reopen(f->d, below, &message), ==, 0);
        g_assert_cmpuint(message.rights, ==, RIGHT_READ | RIGHT_DUPLICATE);

        g_assert_cmpint(pipe(pipe_fds), ==, 0);
        if (fork() == 0) {
                pid_t pid = fork();

                if (pid == 0)
                        sleep_below(0);
                _exit(write(pipe_fds[1], &pid, sizeof pid) < 0);
        }
        wait(NULL); /* its parent is gone before anybody saw it */
        g_assert_cmpint(read(pipe_fds[0], &stranger, sizeof stranger), ==, sizeof stranger);
        g_usleep(50000);
        g_assert_cmpint(may(f, stranger, RIGHT_WRITE), ==, -EBADF);
        kill(stranger, SIGKILL);
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        end_child(child);
}

static void test_no_duplicate(struct fixture *f, gconstpointer data)
{
        pid_t below, child = start_two(&below);

        restrict_to(f, child, RIGHT_READ | RIGHT_WRITE, 0);
        g_assert_cmpint(may(f, child, RIGHT_READ | RIGHT_WRITE), ==, 0);
        g_assert_cmpint(may(f, below, RIGHT_READ), ==, -EBADF);
        end_child(child);
}

static void test_withhold(struct fixture *f, gconstpointer data)
{
        pid_t below, child = start_two(&below);
        struct k42_withhold message = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message},
                .rights = RIGHT_READ | RIGHT_DUPLICATE,
        };

        g_assert_cmpint(lazy_withhold(f->lazy, child, &message), ==, 0);
        g_assert_cmpuint(message.rights, ==, RIGHT_READ | RIGHT_DUPLICATE);
        xobj_unref(handle_of(f, child)); /* later than that */
        g_assert_cmpint(may(f, child, RIGHT_READ | RIGHT_WRITE), ==, 0);
        g_assert_cmpint(may(f, below, RIGHT_WRITE), ==, -EBADF);
        g_assert_cmpint(may(f, below, RIGHT_READ), ==, 0);
        message.rights = RIGHTS_ALL;
        g_assert_cmpint(lazy_withhold(f->lazy, child, &message), ==, 0);
        g_assert_cmpuint(message.rights, ==, RIGHT_READ | RIGHT_DUPLICATE);

        message.rights = RIGHTS_ALL + 1;
        g_assert_cmpint(lazy_withhold(f->lazy, child, &message), ==, -EINVAL);
        message.rights = 0;
        message.reserved[5] = 1;
        g_assert_cmpint(lazy_withhold(f->lazy, child, &message), ==, -EINVAL);
        message.reserved[5] = 0;
        message.reserved32 = 1;
        g_assert_cmpint(lazy_withhold(f->lazy, child, &message), ==, -EINVAL);
        message.reserved32 = 0;
        message.header.length = 1;
        g_assert_cmpint(lazy_withhold(f->lazy, child, &message), ==, -EMSGSIZE);
        end_child(child);
}

static void test_revoked(struct fixture *f, gconstpointer data)
{
        pid_t child = start_child();
        struct k42_lazy_reopen message = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message}};

        description_revoke(f->d);
        g_assert_cmpint(may(f, getpid(), RIGHTS_NONE), ==, -EBADF);
        g_assert_cmpint(may(f, child, RIGHT_READ), ==, -EBADF);
        g_assert_cmpint(may(f, 0, RIGHT_READ), ==, -EBADF);
        /* What the kernel still has of the file, he can read: that is counted for him. */
        g_assert_cmpint(lazy_reopen(f->d, child, &message), ==, 0);
        g_assert_cmpuint(message.token, !=, 0);
        g_assert_cmpuint(message.rights, ==, RIGHTS_NONE);
        g_assert_cmpint(may(f, child, RIGHT_READ), ==, -EBADF);
        description_revoked(f->d);
        description_revoke(f->d); /* once more, as after a daemon's death */
        message = (struct k42_lazy_reopen){.header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message}};
        g_assert_cmpint(lazy_reopen(f->d, child, &message), ==, -EACCES);
        end_child(child);
}

/* A process that has never touched what it inherited: its limit holds for it, and for what derives from
 * whoever it got it from. */
static void test_untouched(struct fixture *f, gconstpointer data)
{
        pid_t below, child = start_two(&below);
        struct process_limit limit = {.pid = child,
                                      .rights = RIGHTS_NONE,
                                      .before = f->d->opened,
                                      .inherit = RIGHTS_ALL};

        g_assert_cmpint(process_limits_add(lazy_limits(f->lazy), &limit), ==, 0);
        lazy_guard_all(f->lazy);
        g_assert_cmpint(may(f, below, RIGHT_READ), ==, -EBADF);
        g_assert_cmpint(may(f, child, RIGHT_READ), ==, -EBADF);
        g_assert_cmpint(may(f, getpid(), RIGHT_READ | RIGHT_WRITE), ==, 0);
        end_child(child);
}

/* What an earlier daemon left: handles with less than the open gave. */
static void test_resumed(struct fixture *f, gconstpointer data)
{
        pid_t child = start_child();
        g_autoptr(K42Xobj) xobj = handle_of(f, child);

        lazy_guard_resumed(f->lazy);
        g_assert_false(atomic_load(&f->d->guarded));
        g_assert_cmpint(xobj_restrict(xobj, RIGHT_READ, RIGHT_READ), ==, 0);
        g_assert_cmpint(may(f, child, RIGHT_WRITE), ==, 0);
        lazy_guard_resumed(f->lazy);
        g_assert_cmpint(may(f, child, RIGHT_WRITE), ==, -EBADF);
        g_assert_cmpuint(lazy_state_bound(f->d->left), ==, RIGHT_READ);
        end_child(child);
}

/* ---- private mode ---- */

/* `child` opens the file itself, and takes that for what it inherited. */
static int reopen_privately(struct fixture *f, pid_t child, struct description **ret_own,
                            access_rights *ret_rights)
{
        g_autoptr(K42Xobj) inherited = handle_of(f, child);
        struct k42_private_reopen message = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message},
                .from = xobj_token(inherited),
        };
        const struct description_how how = {
                .fd = open("/dev/null", O_RDWR | O_CLOEXEC),
                .flags = O_RDWR,
                .type = XOBJ_FILE,
                .io_class = IO_CLASS_COUNTED,
                .tid = child,
        };
        int r;

        g_assert_cmpint(description_open(f->lazy, &f->thing.object, &how, ret_own), ==, 0);
        r = private_reopen(*ret_own, child, &message);
        *ret_rights = message.rights;
        return r;
}

static void test_private_is_held(struct fixture *f, gconstpointer data)
{
        const access_rights less = RIGHT_READ | RIGHT_DUPLICATE;
        pid_t below, child = start_two(&below), other = start_child();
        struct description *own, *free;
        access_rights rights;

        g_assert_cmpint(reopen_privately(f, other, &free, &rights), ==, 0);
        g_assert_cmpuint(rights, ==, RIGHTS_ALL);
        g_assert_false(atomic_load(&free->guarded));

        restrict_to(f, child, less, 0);
        g_assert_cmpint(reopen_privately(f, child, &own, &rights), ==, 0);
        g_assert_cmpuint(rights, ==, less);
        g_assert_true(atomic_load(&own->guarded));
        g_assert_cmpuint(lazy_state_bound(own->left), ==, less);
        g_assert_cmpint(description_may(own, child, RIGHT_READ), ==, 0);
        g_assert_cmpint(description_may(own, child, RIGHT_WRITE), ==, -EBADF);
        g_assert_cmpint(description_may(own, below, RIGHT_WRITE), ==, -EBADF);
        g_assert_cmpint(description_may(own, other, RIGHT_WRITE), ==, -EBADF);
        g_assert_cmpint(description_may(free, other, RIGHT_WRITE), ==, 0);
        description_release(own);
        description_release(free);
        end_child(child);
        end_child(other);
}

/* The child may write, and what inherits from it may not. */
static void test_private_withholds(struct fixture *f, gconstpointer data)
{
        pid_t below, child = start_two(&below);
        struct k42_withhold message = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message},
                .rights = RIGHT_READ | RIGHT_DUPLICATE,
        };
        struct description *own;
        access_rights rights;

        g_assert_cmpint(lazy_withhold(f->lazy, child, &message), ==, 0);
        g_assert_cmpint(reopen_privately(f, child, &own, &rights), ==, 0);
        g_assert_cmpuint(rights, ==, RIGHTS_ALL);
        g_assert_cmpint(description_may(own, child, RIGHT_WRITE), ==, 0);
        g_assert_cmpint(description_may(own, below, RIGHT_READ), ==, 0);
        g_assert_cmpint(description_may(own, below, RIGHT_WRITE), ==, -EBADF);
        description_release(own);
        end_child(child);
}

static void test_private_revoked(struct fixture *f, gconstpointer data)
{
        pid_t child = start_child();
        g_autoptr(K42Xobj) inherited = handle_of(f, child);
        struct k42_private_reopen message = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message},
                .from = xobj_token(inherited),
        };
        const struct description_how how = {
                .fd = open("/dev/null", O_RDWR | O_CLOEXEC),
                .flags = O_RDWR,
                .type = XOBJ_FILE,
                .io_class = IO_CLASS_COUNTED,
                .tid = child,
        };
        struct description *own;

        g_assert_cmpint(description_open(f->lazy, &f->thing.object, &how, &own), ==, 0);
        description_revoke(f->d);
        g_assert_cmpint(private_reopen(own, child, &message), ==, -EACCES);
        description_revoke(own);
        g_assert_cmpint(private_reopen(own, child, &message), ==, -EACCES);
        description_release(own);
        end_child(child);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/rights/fence-waits", test_fence_waits);
        g_test_add_func("/rights/fence-race", test_fence_race);
        g_test_add_func("/rights/limits", test_limits);
#define ADD(name, fn) g_test_add("/rights/" name, struct fixture, NULL, set_up, fn, tear_down)
        ADD("restrict", test_restrict);
        ADD("no-choice", test_no_choice);
        ADD("no-duplicate", test_no_duplicate);
        ADD("withhold", test_withhold);
        ADD("revoked", test_revoked);
        ADD("untouched", test_untouched);
        ADD("resumed", test_resumed);
        ADD("private-is-held", test_private_is_held);
        ADD("private-withholds", test_private_withholds);
        ADD("private-revoked", test_private_revoked);
        return g_test_run();
}

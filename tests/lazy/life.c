/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "life.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <unistd.h>

static void thing_ref(struct server_object *object)
{
        atomic_fetch_add(&((struct thing *)object)->refs, 1);
}

static void thing_unref(struct server_object *object)
{
        atomic_fetch_sub(&((struct thing *)object)->refs, 1);
}

static uint64_t thing_id(struct server_object *object)
{
        return ((struct thing *)object)->id;
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
        .id = thing_id,
        .describe = thing_describe,
};

static void on_given(const struct xobj *xobj, void *data)
{
        atomic_fetch_add(&((struct life *)data)->given, 1);
}

static void on_freed(const struct xobj *xobj, void *data)
{
        struct life *life = data;

        atomic_fetch_add(&life->freed, 1);
        if (life->freeing)
                g_steal_pointer (&life->freeing)(life);
}

static void on_appeared(const struct client *client, void *data)
{
        atomic_fetch_add(&((struct life *)data)->appeared, 1);
}

static void on_exited(const struct client *client, void *data)
{
        atomic_fetch_add(&((struct life *)data)->exited, 1);
}

struct server_object *object_of(uint64_t id, void *data)
{
        struct life *life = data;

        if (id < 1 || id > THINGS)
                return NULL;
        thing_ref(&life->things[id - 1].object);
        return &life->things[id - 1].object;
}

struct life *life_new(struct fixture *f, struct keep *keep)
{
        struct life *life = g_new0(struct life, 1);
        const struct cobj_observer observer = {
                .client_new = on_appeared,
                .client_exited = on_exited,
                .handle_given = on_given,
                .handle_freed = on_freed,
                .data = life,
        };

        life->keep = keep;
        for (unsigned i = 0; i < THINGS; i++) {
                server_object_init(&life->things[i].object, &thing_ops);
                life->things[i].id = i + 1;
        }
        g_assert_cmpint(cobj_new(&observer, keep, &life->cobj), ==, 0);
        g_assert_cmpint(lazy_new(life->cobj, &life->lazy), ==, 0);
        return life;
}

struct life *first_life(struct fixture *f)
{
        struct keep *keep;

        g_assert_cmpint(keep_create(f->dirfd, "keep-0", &keep), ==, 0);
        f->lives = 1;
        return life_new(f, keep);
}

/* What a kill at this moment would leave. */
struct keep *killed(struct fixture *f, uint32_t *ret_damaged)
{
        g_autofree char *from = g_strdup_printf("%s/keep-%u", f->dir, f->lives - 1);
        g_autofree char *to = g_strdup_printf("%s/keep-%u", f->dir, f->lives);
        g_autofree char *name = g_strdup_printf("keep-%u", f->lives);
        g_autofree char *contents = NULL;
        struct keep *keep;
        gsize size;

        g_assert_true(g_file_get_contents(from, &contents, &size, NULL));
        g_assert_true(g_file_set_contents_full(to, contents, (gssize)size, G_FILE_SET_CONTENTS_NONE,
                                               0600, NULL));
        f->lives++;
        g_assert_cmpint(keep_adopt(f->dirfd, name, &keep, ret_damaged), ==, 0);
        return keep;
}

struct life *next_life_unsettled(struct fixture *f)
{
        uint32_t damaged;
        struct life *life = life_new(f, killed(f, &damaged));

        g_assert_cmpuint(damaged, ==, 0);
        g_assert_cmpuint(client_table_resume(cobj_clients(life->cobj)), ==, 0);
        lazy_resume(life->lazy, object_of, life, &life->resumed);
        g_assert_cmpuint(life->resumed.dropped, ==, 0);
        return life;
}

struct life *next_life(struct fixture *f)
{
        struct life *life = next_life_unsettled(f);

        client_table_settle(cobj_clients(life->cobj));
        return life;
}

/* Everything is given back, memory and records: nothing may be left. */
void life_end(struct life *life)
{
        struct keep_stats stats;

        lazy_release_all(life->lazy);
        g_assert_cmpuint(cobj_handle_count(life->cobj), ==, 0);
        lazy_free(life->lazy);
        cobj_free(life->cobj);
        for (unsigned i = 0; i < THINGS; i++) {
                g_assert_cmpint(life->things[i].refs, ==, 0);
                server_object_clear(&life->things[i].object);
        }
        keep_get_stats(life->keep, &stats);
        g_assert_cmpuint(stats.records, ==, 0);
        g_assert_cmpuint(stats.unkept, ==, 0);
        keep_close(life->keep);
        g_free(life);
}

void set_up(struct fixture *f, gconstpointer data)
{
        f->dir = g_dir_make_tmp("k42-resume-XXXXXX", NULL);
        g_assert_nonnull(f->dir);
        f->dirfd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        f->children = children_new();
}

void tear_down(struct fixture *f, gconstpointer data)
{
        children_end(f->children);
        for (unsigned i = 0; i < f->lives; i++) {
                g_autofree char *name = g_strdup_printf("keep-%u", i);

                unlinkat(f->dirfd, name, 0);
        }
        close(f->dirfd);
        g_assert_cmpint(g_rmdir(f->dir), ==, 0);
        g_free(f->dir);
}

struct description *open_as(struct life *life, unsigned thing, pid_t tid, int flags)
{
        const struct description_how how = {
                .fd = open("/dev/null", O_RDWR | O_CLOEXEC),
                .flags = flags,
                .type = XOBJ_FILE,
                .io_class = IO_CLASS_COUNTED,
                .tid = tid,
        };
        struct description *d = NULL;

        g_assert_cmpint(description_open(life->lazy, &life->things[thing].object, &how, &d), ==, 0);
        return d;
}

struct k42_lazy_reopen reopen_as(struct description *d, pid_t pid, uint64_t hint)
{
        struct k42_lazy_reopen message = {
                .header = {.version = K42_PROTOCOL_VERSION, .length = sizeof message},
                .parent = hint,
        };

        g_assert_cmpint(lazy_reopen(d, pid, &message), ==, 0);
        return message;
}

struct kept_handle *record_of(struct life *life, xhandle token)
{
        g_autoptr(K42Xobj) xobj = cobj_get_xobj(life->cobj, token);

        return xobj ? xobj_client_data(xobj)->kept : NULL;
}

void wait_until_stale(struct life *life, xhandle token)
{
        for (int i = 0; i < 1000 && record_of(life, token); i++)
                g_usleep(5000);
        g_assert_null(record_of(life, token));
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fusefs/control/revoke_scan.h"

#include <errno.h>
#include <stdlib.h>

#include "fusefs/node/node.h"
#include "fusefs/control/proc_files.h"
#include "fusefs/node/server_file.h"
#include "lazy/rights.h"

/* Inodes to look for, sorted, each once; and what was found, of several processes together. */
struct wanted {
        struct proc_want *all;
        struct found {
                bool open, mapped; /* open: or mapped */
        } *found;
        size_t n;
        bool doubt; /* not everything could be seen */
};

static void wanted_clear(struct wanted *wanted)
{
        free(wanted->all);
        free(wanted->found);
}
#define WANTED(name) __attribute__((cleanup(wanted_clear))) struct wanted name = {NULL, NULL, 0, false}

static int compare_ino(const void *a, const void *b)
{
        const struct proc_want *x = a, *y = b;

        return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static bool is_open(const struct wanted *wanted, uint64_t ino)
{
        const struct proc_want key = {.ino = ino}, *at = NULL;

        if (wanted->n > 0)
                at = bsearch(&key, wanted->all, wanted->n, sizeof key, compare_ino);
        return wanted->doubt || (at && wanted->found[at - wanted->all].open);
}

static void make_wanted(GHashTable *files, struct wanted *ret_wanted)
{
        const size_t room = MAX(g_hash_table_size(files), 1);
        GHashTableIter iter;
        void *file;
        size_t n = 0;

        ret_wanted->all = calloc(room, sizeof *ret_wanted->all);
        ret_wanted->found = calloc(room, sizeof *ret_wanted->found);
        if (!ret_wanted->all || !ret_wanted->found) {
                ret_wanted->doubt = true;
                return;
        }
        g_hash_table_iter_init(&iter, files);
        while (g_hash_table_iter_next(&iter, &file, NULL))
                ret_wanted->all[n++] =
                        (struct proc_want){.ino = ((struct server_file *)file)->kept->ino, .modes = 0xf};
        qsort(ret_wanted->all, n, sizeof *ret_wanted->all, compare_ino);
        for (size_t i = 0; i < n; i++)
                if (ret_wanted->n == 0 ||
                    ret_wanted->all[ret_wanted->n - 1].ino != ret_wanted->all[i].ino)
                        ret_wanted->all[ret_wanted->n++] = ret_wanted->all[i];
}

/* Adds what the processes have.  One that has ended has nothing. */
static void look_at(struct k42_mount *mount, GHashTable *processes, struct wanted *wanted)
{
        g_auto(K42ProcMounts) mounts = {NULL};
        GHashTableIter iter;
        void *pid;

        g_hash_table_iter_init(&iter, processes);
        while (!wanted->doubt && g_hash_table_iter_next(&iter, &pid, NULL)) {
                const int r = proc_files_look(&mounts, GPOINTER_TO_INT(pid), mount->dev,
                                              wanted->all, wanted->n);

                wanted->doubt = r < 0 && r != -ESRCH;
                for (size_t i = 0; r == 0 && i < wanted->n; i++) {
                        const struct proc_want *want = &wanted->all[i];

                        wanted->found[i].mapped |= want->mapped;
                        wanted->found[i].open |= want->mapped || want->descriptors[0] > 0 ||
                                                 want->descriptors[1] > 0 ||
                                                 want->descriptors[2] > 0 ||
                                                 want->descriptors[3] > 0;
                }
        }
}

/* ---- strangers ---- */

static void unref_file(void *file)
{
        server_file_unref(file);
}

static GHashTable *all_files(struct k42_mount *mount)
{
        GHashTable *files = g_hash_table_new_full(NULL, NULL, unref_file, NULL);
        struct description *d;
        uint32_t cursor = 0;

        while ((d = lazy_next_description(mount->lazy, &cursor))) {
                struct server_file *file = server_file_of(d->object);

                if (!g_hash_table_contains(files, file))
                        g_hash_table_add(files, server_file_ref(file));
                description_unref(d);
        }
        return files;
}

void revoke_scan_bind_strangers(struct k42_mount *mount, GHashTable *processes, int64_t before,
                                access_rights rights)
{
        g_autoptr(GHashTable) files = all_files(mount);
        struct description *d;
        uint32_t cursor = 0;
        WANTED(wanted);

        make_wanted(files, &wanted);
        look_at(mount, processes, &wanted);
        while ((d = lazy_next_description(mount->lazy, &cursor))) {
                if (d->opened <= before && is_open(&wanted, server_file_of(d->object)->kept->ino))
                        description_limit(d, rights);
                description_unref(d);
        }
}

/* ---- mappings ---- */

struct mapping {
        GHashTable *processes, *files;
        GHashTable *others; /* pids of those who may still use one of the files */
};

static void collect_other(struct xobj *xobj, void *data)
{
        struct mapping *mapping = data;
        const pid_t pid = client_info(xobj_client(xobj))->pid;
        access_rights match, nomatch;

        xobj_get_rights(xobj, &match, &nomatch);
        if ((match & (RIGHT_READ | RIGHT_WRITE)) && client_alive(xobj_client(xobj)) &&
            g_hash_table_contains(mapping->files, server_file_of(xobj_object(xobj))) &&
            pid > 0 && !g_hash_table_contains(mapping->processes, GINT_TO_POINTER(pid)))
                g_hash_table_add(mapping->others, GINT_TO_POINTER(pid));
}

unsigned revoke_scan_mapped(struct k42_mount *mount, GHashTable *processes, GHashTable *files)
{
        g_autoptr(GHashTable) others = g_hash_table_new(NULL, NULL);
        struct mapping mapping = {processes, files, others};
        unsigned both = 0;
        WANTED(theirs);
        WANTED(ours);

        cobj_foreach_handle(mount->cobj, collect_other, &mapping);
        make_wanted(files, &theirs);
        make_wanted(files, &ours);
        look_at(mount, processes, &theirs);
        look_at(mount, others, &ours);
        if (theirs.doubt || ours.doubt)
                return 1; /* the less is promised */
        for (size_t i = 0; i < theirs.n; i++)
                both += theirs.found[i].mapped && ours.found[i].mapped;
        return both;
}

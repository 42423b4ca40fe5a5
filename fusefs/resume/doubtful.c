/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fusefs/resume/doubtful.h"

#include <fcntl.h>

#include "fusefs/ops/ops.h"
#include "fusefs/control/proc_files.h"

static bool has(const GArray *ids, uint64_t id)
{
        for (guint i = 0; i < ids->len; i++)
                if (g_array_index(ids, uint64_t, i) == id)
                        return true;
        return false;
}

static bool somebody_has(const struct k42_mount *mount, const struct description *description)
{
        const struct server_file *file = server_file_of(description->object);

        return proc_files_anybody(mount->dev, file->kept->ino,
                                  1u << (description->flags & O_ACCMODE)) != 0;
}

static bool end(struct description *description)
{
        SERVER_FILE(file);

        file = server_file_ref(server_file_of(description->object));
        return ops_release_doubtful(file, description);
}

unsigned doubtful_look(struct k42_mount *mount)
{
        struct doubtful *doubtful = &mount->doubtful;
        GArray *unfound = g_array_new(FALSE, FALSE, sizeof(uint64_t));
        struct description *description;
        uint32_t cursor = 0;
        unsigned n = 0;

        while ((description = lazy_next_doubtful(mount->lazy, &cursor))) {
                const uint64_t id = description->id;

                if (somebody_has(mount, description))
                        n++;
                else if (doubtful->unfound && has(doubtful->unfound, id))
                        end(description);
                else {
                        g_array_append_val(unfound, id);
                        n++;
                }
                description_unref(description);
        }
        if (doubtful->unfound)
                g_array_free(doubtful->unfound, TRUE);
        doubtful->unfound = unfound;
        return n;
}

static gboolean on_timer(void *data)
{
        struct k42_mount *mount = data;

        if (doubtful_look(mount) > 0)
                return G_SOURCE_CONTINUE;
        g_clear_pointer(&mount->doubtful.timer, g_source_unref);
        return G_SOURCE_REMOVE;
}

void doubtful_start(struct k42_mount *mount)
{
        struct doubtful *doubtful = &mount->doubtful;
        uint32_t cursor = 0;
        struct description *first = lazy_next_doubtful(mount->lazy, &cursor);

        if (!first)
                return;
        description_unref(first);
        doubtful->timer = g_timeout_source_new_seconds(DOUBTFUL_EVERY_S);
        g_source_set_callback(doubtful->timer, on_timer, mount, NULL);
        g_source_attach(doubtful->timer, NULL);
}

void doubtful_stop(struct k42_mount *mount)
{
        struct doubtful *doubtful = &mount->doubtful;

        if (doubtful->timer) {
                g_source_destroy(doubtful->timer);
                g_clear_pointer(&doubtful->timer, g_source_unref);
        }
        if (doubtful->unfound)
                g_array_free(doubtful->unfound, TRUE);
        doubtful->unfound = NULL;
}

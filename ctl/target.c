/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#define FS_TYPE "fuse.k42fs"

void target_free(struct target *target)
{
        if (!target)
                return;
        g_free(target->mountpoint);
        g_free(target->source);
        g_free(target->state_dir);
        g_free(target);
}

const char *target_name(const struct target *target)
{
        return target->mountpoint ? target->mountpoint : target->state_dir;
}

static unsigned parse_user_id(const char *super_options)
{
        const char *p = strstr(super_options, "user_id=");

        return p ? (unsigned)strtoul(p + strlen("user_id="), NULL, 10) : 0;
}

/* "36 35 0:45 / /mnt/a\040b rw,… shared:1 - fuse.k42fs /src rw,user_id=0,…" */
static struct target *parse_mount(const char *line)
{
        g_auto(GStrv) fields = g_strsplit(line, " ", -1);
        unsigned n = g_strv_length(fields), dash = 6, dev_major, dev_minor;
        struct target *target;

        while (dash < n && !g_str_equal(fields[dash], "-"))
                dash++;
        if (dash + 3 >= n || !g_str_equal(fields[dash + 1], FS_TYPE) ||
            sscanf(fields[2], "%u:%u", &dev_major, &dev_minor) != 2)
                return NULL;
        target = g_new0(struct target, 1);
        target->mount_id = atoi(fields[0]);
        target->dev = makedev(dev_major, dev_minor);
        target->mountpoint = g_strcompress(fields[4]);
        target->source = g_strcompress(fields[dash + 2]);
        target->uid = parse_user_id(fields[dash + 3]);
        return target;
}

static struct target *find_dev(GPtrArray *targets, dev_t dev)
{
        for (unsigned i = 0; i < targets->len; i++) {
                struct target *target = targets->pdata[i];

                if (target->dev == dev)
                        return target;
        }
        return NULL;
}

static GPtrArray *parse_all(const char *mountinfo)
{
        GPtrArray *targets = g_ptr_array_new_with_free_func((GDestroyNotify)target_free);
        g_auto(GStrv) lines = g_strsplit(mountinfo, "\n", -1);

        for (char **line = lines; *line; line++) {
                struct target *target = strstr(*line, " " FS_TYPE " ") ? parse_mount(*line) : NULL;

                if (target)
                        g_ptr_array_add(targets, target);
        }
        return targets;
}

GPtrArray *targets_parse(const char *mountinfo)
{
        g_autoptr(GPtrArray) all = parse_all(mountinfo);
        GPtrArray *targets = g_ptr_array_new_with_free_func((GDestroyNotify)target_free);

        for (unsigned i = 0; i < all->len; i++) {
                struct target *target = all->pdata[i];

                if (!find_dev(targets, target->dev))
                        g_ptr_array_add(targets, g_steal_pointer(&all->pdata[i]));
        }
        return targets;
}

static char *read_mountinfo(void)
{
        char *text = NULL;

        if (!g_file_get_contents("/proc/self/mountinfo", &text, NULL, NULL))
                text = g_strdup("");
        return text;
}

GPtrArray *targets_mounted(void)
{
        g_autofree char *mountinfo = read_mountinfo();

        return targets_parse(mountinfo);
}

GPtrArray *targets_all_mounted(void)
{
        g_autofree char *mountinfo = read_mountinfo();

        return parse_all(mountinfo);
}

bool target_mounted(const struct target *target)
{
        g_autoptr(GPtrArray) targets = targets_mounted();

        return find_dev(targets, target->dev) != NULL;
}

void target_complete(struct target *target, const char *mountpoint, const char *device)
{
        unsigned dev_major, dev_minor;

        if (!mountpoint || !device || sscanf(device, "%u:%u", &dev_major, &dev_minor) != 2)
                return;
        g_free(target->mountpoint);
        target->mountpoint = g_strdup(mountpoint);
        target->dev = makedev(dev_major, dev_minor);
}

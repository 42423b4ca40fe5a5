/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * target: the k42fs mounts that this process sees, from /proc/self/mountinfo: no mount is asked.
 */
#include <glib.h>
#include <stdbool.h>
#include <sys/types.h>

/* A k42fs mount, or a state directory (then everything else is NULL or 0). */
struct target {
        char *mountpoint, *source;
        char *state_dir; /* NULL: not asked for yet */
        dev_t dev;
        unsigned uid; /* who mounted it */
        int mount_id;
};
typedef struct target K42Target;

void target_free(struct target *target);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(K42Target, target_free)

/* What is mounted, one for each device. */
GPtrArray *targets_mounted(void);
/* The same with all bind mounts of each. */
GPtrArray *targets_all_mounted(void);
/* As targets_mounted(), from the text of a mountinfo file; for tests. */
GPtrArray *targets_parse(const char *mountinfo);

/* What messages call it; borrowed. */
const char *target_name(const struct target *target);

/* True while a mount with this mount's device is in /proc/self/mountinfo. */
bool target_mounted(const struct target *target);

/* Fills in what --state left out, as verb status gives it: `device` is "MAJOR:MINOR".  NULL or
 * nonsense is ignored. */
void target_complete(struct target *target, const char *mountpoint, const char *device);

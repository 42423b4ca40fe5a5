/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The names that the daemon and k42ctl must agree on.  Pure functions.
 */
#include "ctl/control_protocol.h"

#include <glib.h>
#include <string.h>
#include <unistd.h>

#define ID_MAX         200
#define ID_KEPT        150
#define ID_HASH_DIGITS 32

static void append_escaped(GString *id, unsigned char c)
{
        if (c == '/')
                g_string_append_c(id, '-');
        else if (g_ascii_isalnum(c) || c == ':' || c == '_' || (c == '.' && id->len > 0))
                g_string_append_c(id, (char)c);
        else
                g_string_append_printf(id, "\\x%02x", c);
}

char *control_state_id(const char *mountpoint)
{
        g_autoptr(GString) id = g_string_new(NULL);
        g_autofree char *sum = NULL;
        const char *p = mountpoint;

        while (*p == '/')
                p++;
        while (*p) {
                if (*p != '/') {
                        append_escaped(id, (unsigned char)*p++);
                        continue;
                }
                while (*p == '/')
                        p++;
                if (*p)
                        append_escaped(id, '/');
        }
        if (id->len == 0)
                return g_strdup("-");
        if (id->len > ID_MAX) {
                sum = g_compute_checksum_for_string(G_CHECKSUM_SHA256, mountpoint, -1);
                g_string_truncate(id, ID_KEPT);
                g_string_append_c(id, '~');
                g_string_append_len(id, sum, ID_HASH_DIGITS);
        }
        return g_string_free(g_steal_pointer(&id), FALSE);
}

char *control_state_parent(unsigned uid)
{
        if (uid == 0)
                return g_strdup("/run/k42fs");
        if (uid == geteuid())
                return g_build_filename(g_get_user_runtime_dir(), "k42fs", NULL);
        return g_strdup_printf("/run/user/%u/k42fs", uid);
}

char *control_default_state_dir(const char *mountpoint, unsigned uid)
{
        g_autofree char *parent = control_state_parent(uid);
        g_autofree char *id = control_state_id(mountpoint);

        return g_build_filename(parent, id, NULL);
}

char *control_device_link(unsigned uid, unsigned dev_major, unsigned dev_minor)
{
        g_autofree char *parent = control_state_parent(uid);

        return g_strdup_printf("%s/@%u:%u", parent, dev_major, dev_minor);
}

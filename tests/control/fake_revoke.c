/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What was asked for, in words, instead of doing it; "no" in a path, pid 404 and handle 404.1 are not
 * there. */
#include <errno.h>
#include <string.h>

#include "fusefs/control/revoke.h"
#include "tests/control/fake_daemon.h"

char fake_revoked[256];

static int note(const struct revocation *what, const char *verb, const char *target)
{
        char rights[ACCESS_RIGHTS_STRING_MAX];

        g_snprintf(fake_revoked, sizeof fake_revoked, "%s %s %s%s%s%s%s", verb, target,
                   access_rights_format(what->rights, rights), what->tree ? " tree" : "",
                   what->block ? " block" : "", what->strict ? " strict" : "",
                   what->may_all ? "" : " other");
        return 0;
}

int revoke_handle(struct k42_mount *mount, xhandle token, struct revocation *what)
{
        char id[ID_STRING_MAX];

        what->handles = 1;
        what->done = true;
        if (ID_INDEX(token) == 404) {
                what->error = "no such handle is open";
                return -ENOENT;
        }
        return note(what, "handle", id_format(token, id));
}

int revoke_process(struct k42_mount *mount, pid_t pid, struct revocation *what)
{
        g_autofree char *text = g_strdup_printf("%d", (int)pid);

        what->processes = 1;
        return pid == 404 ? -ESRCH : note(what, "process", text);
}

int revoke_file(struct k42_mount *mount, const char *path, struct revocation *what)
{
        return strstr(path, "no") ? -ENOENT : note(what, "file", path);
}

int revoke_allow_file(struct k42_mount *mount, const char *path, struct revocation *what)
{
        return note(what, "allow-file", path);
}

int revoke_allow_process(struct k42_mount *mount, pid_t pid, struct revocation *what)
{
        g_autofree char *text = g_strdup_printf("%d", (int)pid);

        return note(what, "allow-process", text);
}

int revoke_withhold(struct k42_mount *mount, pid_t tid, struct k42_withhold *message)
{
        return -EOPNOTSUPP;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lazy/rights.h"

#include <errno.h>
#include <fcntl.h>

#include "lazy/lazy_private.h"
#include "lazy/lazy_reopen.h"
#include "lazy/lazy_state.h"

int description_may(struct description *d, pid_t tid, access_rights needed)
{
        access_rights rights;

        if (!atomic_load(&d->guarded))
                return 0;
        if (atomic_load(&d->kept->revoked) || lazy_rights_of(d, tid, &rights) < 0)
                return -EBADF;
        /* What needs neither of the two, like SEEK_DATA, is not for somebody who has lost both. */
        if (!(rights & (RIGHT_READ | RIGHT_WRITE)) && (d->flags & O_ACCMODE) != O_ACCMODE)
                return -EBADF;
        return access_rights_subset(needed, rights) ? 0 : -EBADF;
}

static struct description *description_of(const struct xobj *xobj)
{
        return ((struct open_client_data *)xobj_client_data(xobj))->description;
}

void description_limit(struct description *d, access_rights rights)
{
        lazy_state_limit(d->left, rights);
        atomic_store(&d->guarded, true);
}

/* Both sets are cut; true if that changed something. */
static bool cut(struct xobj *xobj, access_rights match, access_rights nomatch)
{
        access_rights old_match, old_nomatch, new_match, new_nomatch;

        do {
                xobj_get_rights(xobj, &old_match, &old_nomatch);
                new_match = old_match & match;
                new_nomatch = old_nomatch & new_match & nomatch;
        } while (xobj_restrict(xobj, new_match, new_nomatch) < 0); /* somebody else was quicker */
        description_limit(description_of(xobj), new_nomatch);
        return new_match != old_match || new_nomatch != old_nomatch;
}

bool handle_shrink(struct xobj *xobj, access_rights rights)
{
        return cut(xobj, rights, rights);
}

int handle_restrict(struct xobj *xobj, access_rights rights)
{
        access_rights match, nomatch;

        xobj_get_rights(xobj, &match, &nomatch);
        if (!access_rights_subset(rights, match))
                return -EPERM;
        cut(xobj, rights, rights);
        return 0;
}

void handle_withhold(struct xobj *xobj, access_rights rights)
{
        cut(xobj, RIGHTS_ALL, rights);
}

void description_revoke(struct description *d)
{
        uint8_t not = REVOKED_NOT;

        description_limit(d, RIGHTS_NONE);
        atomic_compare_exchange_strong(&d->kept->revoked, &not, REVOKED_BEGUN);
}

void description_revoked(struct description *d)
{
        atomic_store(&d->kept->revoked, REVOKED_WHOLLY);
}

void lazy_guard_all(struct lazy *lazy)
{
        struct description *d;
        uint32_t cursor = 0;

        while ((d = lazy_next_description(lazy, &cursor))) {
                atomic_store(&d->guarded, true);
                description_unref(d);
        }
}

static void guard_by_handle(struct xobj *xobj, void *data)
{
        struct description *d = description_of(xobj);
        const access_rights full = access_rights_from_open_flags(d->flags);
        access_rights match, nomatch;

        xobj_get_rights(xobj, &match, &nomatch);
        if (match != full || nomatch != full)
                description_limit(d, nomatch);
}

void lazy_guard_resumed(struct lazy *lazy)
{
        struct description *d;
        uint32_t cursor = 0;

        cobj_foreach_handle(lazy->cobj, guard_by_handle, NULL);
        while ((d = lazy_next_description(lazy, &cursor))) {
                const access_rights bound =
                        lazy_state_holders_bound(d->left) & lazy_state_bound(d->left);

                if (atomic_load(&d->kept->revoked))
                        description_revoke(d);
                else if (bound != access_rights_from_open_flags(d->flags))
                        description_limit(d, bound);
                description_unref(d);
        }
}

struct withholding {
        const struct client *client;
        access_rights rights;
};

static void withhold_one(struct xobj *xobj, void *data)
{
        const struct withholding *withholding = data;

        if (xobj_client(xobj) == withholding->client)
                handle_withhold(xobj, withholding->rights);
}

int lazy_withhold(struct lazy *lazy, pid_t tid, struct k42_withhold *message)
{
        g_autoptr(K42Client) client = NULL;
        struct process_limit limit = {.rights = RIGHTS_ALL};
        struct withholding withholding;
        int r = k42_header_check(&message->header, sizeof *message, sizeof *message);

        if (r < 0)
                return r;
        if (!access_rights_subset(message->rights, RIGHTS_ALL) || message->reserved32 != 0)
                return -EINVAL;
        for (unsigned i = 0; i < G_N_ELEMENTS(message->reserved); i++)
                if (message->reserved[i] != 0)
                        return -EINVAL;
        r = client_table_get(cobj_clients(lazy->cobj), tid, &client);
        if (r < 0)
                return r;
        limit.pid = client_info(client)->pid;
        limit.inherit = message->rights;
        if (limit.pid <= 0)
                return -ESRCH;
        r = process_limits_add(lazy->limits, &limit);
        if (r < 0)
                return r;
        /* The sender is about to become the program and has no other thread: it gets no handle just now
         * that could be missed here. */
        withholding = (struct withholding){client, message->rights};
        cobj_foreach_handle(lazy->cobj, withhold_one, &withholding);
        message->rights = process_limits_inherit(lazy->limits, limit.pid);
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lazy/private_reopen.h"

#include <errno.h>
#include <unistd.h>

#include "lazy/account.h"
#include "lazy/lazy_private.h"
#include "lazy/lazy_reopen.h"
#include "lazy/lineage.h"
#include "lazy/rights.h"

/* What goes over from the handle that the caller leaves. */
struct heritage {
        xhandle parent;
        access_rights match, nomatch;
};

static int check_message(const struct k42_private_reopen *message)
{
        int r = k42_header_check(&message->header, sizeof *message, sizeof *message);

        if (r < 0)
                return r;
        if (message->token != 0 || message->parent != 0 || message->rights != 0 ||
            message->reserved32 != 0)
                return -EINVAL;
        for (size_t i = 0; i < G_N_ELEMENTS(message->reserved); i++)
                if (message->reserved[i] != 0)
                        return -EINVAL;
        return 0;
}

/* Looks at the caller's handle `from`. */
static int take_heritage(struct description *d, struct client *client, xhandle from,
                         struct heritage *ret)
{
        g_autoptr(K42Xobj) xobj = NULL;
        const struct open_client_data *data;
        int r = xhandle_trans(d->lazy->cobj, from, client, RIGHTS_NONE, &xobj);

        if (r < 0)
                return r;
        if (xobj_client(xobj) != client)
                return -EACCES;
        if (xobj_object(xobj) != d->object)
                return -EXDEV;
        data = (const struct open_client_data *)xobj_client_data(xobj);
        if (data->description == d)
                return -EINVAL;
        if (atomic_load(&data->description->kept->revoked))
                return -EACCES;
        ret->parent = data->base.kept->parent;
        xobj_get_rights(xobj, &ret->match, &ret->nomatch);
        ret->match &= access_rights_from_open_flags(d->flags);
        ret->nomatch &= ret->match;
        return 0;
}

/* What `from` derives from, before it ends: its description may be the last thing that knows. */
static void remember_lineage(struct description *d, xhandle from)
{
        g_autoptr(K42Xobj) xobj = cobj_get_xobj(d->lazy->cobj, from);
        const struct open_client_data *data;

        if (!xobj || atomic_load(&d->lineage))
                return;
        data = (const struct open_client_data *)xobj_client_data(xobj);
        if (data->base.kept->parent != XHANDLE_NONE) /* out of memory: a line of lineage is lost */
                atomic_store(&d->lineage, lineage_new(data->base.kept->parent,
                                                      atomic_load(&data->description->lineage)));
}

/* Ends the handle that the open gave.  First its rights shrink, so that what it leaves behind for
 * children is no way round the bounds of `heritage`. */
static void end_opener(struct description *d, const struct heritage *heritage)
{
        const xhandle token = d->opener;
        g_autoptr(K42Xobj) xobj = cobj_get_xobj(d->lazy->cobj, token);

        if (!xobj)
                return;
        if (xobj_restrict(xobj, heritage->match, heritage->nomatch) < 0)
                g_debug("a handle on %llu had been restricted already",
                        (unsigned long long)d->id);
        (void)xobj_free(d->lazy->cobj, token);
}

/* Is the opener's handle the caller's to end: its own, that of the daemon's child which has opened for it, or one
 * that has ended?  A descriptor that it inherited, and says to have opened, is its parent's. */
static bool opened_for(struct description *d, const struct client *client)
{
        g_autoptr(K42Xobj) xobj = cobj_get_xobj(d->lazy->cobj, d->opener);

        return !xobj || xobj_client(xobj) == client || client_info(xobj_client(xobj))->ppid == getpid();
}

/* What the client was given before, if this message has been here already: the daemon that served it died
 * before it answered.  It is told from the handle of the open by its parent. */
static bool find_given(struct description *d, struct client *client, struct heritage *ret,
                       xhandle *ret_token)
{
        xhandle token = XHANDLE_NONE;
        g_autoptr(K42Xobj) xobj = NULL;

        g_mutex_lock(&d->lock);
        for (GList *l = d->handles.tail; l && token == XHANDLE_NONE; l = l->prev) {
                const struct open_client_data *data = l->data;

                if (data->client == client && data->base.kept->parent != XHANDLE_NONE)
                        token = data->token;
        }
        g_mutex_unlock(&d->lock);
        xobj = token == XHANDLE_NONE ? NULL : cobj_get_xobj(d->lazy->cobj, token);
        if (!xobj)
                return false;
        ret->parent = xobj_client_data(xobj)->kept->parent;
        xobj_get_rights(xobj, &ret->match, &ret->nomatch);
        *ret_token = token;
        return true;
}

static int give(struct description *d, struct client *client, const struct heritage *heritage,
                xhandle *ret_token)
{
        const struct open_how how = {.description = d, .parent = heritage->parent};
        struct object_handle oh;
        int r = give_access_by_server(d->object, client, heritage->match, heritage->nomatch, &how, &oh);

        if (r == 0)
                *ret_token = oh.xh;
        return r;
}

/* Who leaves `from` keeps none of what was taken from it while this was under way, and from now on is held to
 * the rest: the open itself gave more. */
static void hold_to(struct description *d, struct client *client, xhandle from, xhandle token,
                    struct heritage *heritage)
{
        const access_rights full = access_rights_from_open_flags(d->flags);
        g_autoptr(K42Xobj) xobj = cobj_get_xobj(d->lazy->cobj, token);
        struct heritage now;

        if (take_heritage(d, client, from, &now) == 0) {
                heritage->match &= now.match;
                heritage->nomatch &= now.nomatch;
        }
        if (xobj && (heritage->match != full || heritage->nomatch != full)) {
                handle_shrink(xobj, heritage->match);
                handle_withhold(xobj, heritage->nomatch);
        }
}

static int locked_private_reopen(struct description *d, struct client *client, xhandle from,
                                 struct heritage *ret, xhandle *ret_token)
{
        access_rights may;
        int r = take_heritage(d, client, from, ret);

        if ((r == 0 || r == -ESTALE) && find_given(d, client, ret, ret_token))
                r = 0;
        else if (r == 0) {
                /* What was taken from the caller on this very description stays taken. */
                may = lazy_locked_rights(d, client);
                ret->match &= may;
                ret->nomatch &= may;
                r = give(d, client, ret, ret_token);
        }
        if (r < 0)
                return r;
        remember_lineage(d, from);
        hold_to(d, client, from, *ret_token, ret);
        if (d->opener == *ret_token || !opened_for(d, client))
                return 0;
        end_opener(d, ret);
        description_set_opener(d, *ret_token, client);
        return 0;
}

int private_reopen(struct description *d, pid_t tid, struct k42_private_reopen *message)
{
        g_autoptr(K42Client) client = NULL;
        struct heritage heritage;
        xhandle token = XHANDLE_NONE;
        int r = check_message(message);

        if (r < 0)
                return r;
        if (atomic_load(&d->kept->revoked))
                return -EACCES;
        r = client_table_get(cobj_clients(d->lazy->cobj), tid, &client);
        if (r < 0)
                return r;
        g_mutex_lock(&d->reopen_lock);
        r = locked_private_reopen(d, client, message->from, &heritage, &token);
        g_mutex_unlock(&d->reopen_lock);
        if (r < 0)
                return r;
        /* False when its process ends at this moment. */
        (void)xobj_free(d->lazy->cobj, message->from);
        account_post(d, tid, token);
        message->token = token;
        message->parent = heritage.parent;
        message->rights = heritage.match;
        return 0;
}

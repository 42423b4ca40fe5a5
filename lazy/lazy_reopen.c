/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * LAZY_REOPEN and IDENTIFY: what the daemon does with the shim's messages.  lazy/protocol.h is the
 * specification.
 *
 * One re-open at a time on a description (reopen_lock): otherwise two threads of one process that
 * touch a descriptor at the same moment would get a handle each.
 */
#include "lazy/lazy_reopen.h"

#include <errno.h>

#include "lazy/account.h"
#include "lazy/lazy_private.h"
#include "lazy/lazy_state.h"

/* How far up the process tree somebody who had the description is looked for. */
#define ANCESTORS_MAX 32

#define REOPEN_ATTEMPTS 3

/* What a new handle derives from. */
struct derivation {
        xhandle parent;
        access_rights match, nomatch; /* of the parent: what it has, and what it passes on */
        access_rights limit;          /* of the new handle, whatever the parent's are */
};

int k42_header_check(const struct k42_header *header, size_t size, size_t expected)
{
        if (size != expected)
                return -EMSGSIZE;
        if (header->version != K42_PROTOCOL_VERSION)
                return -EPROTONOSUPPORT;
        if (header->length != expected)
                return -EMSGSIZE;
        if (header->flags != 0)
                return -EINVAL;
        return 0;
}

static bool all_zero(const uint64_t *words, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (words[i] != 0)
                        return false;
        return true;
}

/* Takes the living handle `token` as parent, if it is one on this description. */
static bool derive_from_living(struct description *d, xhandle token, struct derivation *ret)
{
        g_autoptr(K42Xobj) xobj = NULL;
        const struct open_client_data *data;

        if (token == XHANDLE_NONE ||
            xhandle_trans(d->lazy->cobj, token, NULL, RIGHTS_NONE, &xobj) < 0)
                return false;
        data = (const struct open_client_data *)xobj_client_data(xobj);
        if (data->description != d)
                return false;
        ret->parent = token;
        xobj_get_rights(xobj, &ret->match, &ret->nomatch);
        return true;
}

static void derive_from_holder(const struct lazy_holder *holder, struct derivation *ret)
{
        *ret = (struct derivation){
                .parent = holder->token,
                .match = holder->match,
                .nomatch = holder->nomatch,
        };
}

static bool derive_from_token(struct description *d, xhandle token, struct derivation *ret)
{
        struct lazy_holder holder;

        if (derive_from_living(d, token, ret))
                return true;
        if (token == XHANDLE_NONE || !lazy_state_find_token(d->left, token, &holder))
                return false;
        derive_from_holder(&holder, ret);
        return true;
}

/* Takes what process `pid` has, or left, on this description as parent. */
static bool derive_from_process(struct description *d, pid_t pid, struct derivation *ret)
{
        xhandle token = XHANDLE_NONE;
        struct lazy_holder holder;

        g_mutex_lock(&d->lock);
        for (GList *l = d->handles.head; l; l = l->next) {
                const struct open_client_data *data = l->data;

                if (client_info(data->client)->pid == pid) {
                        token = data->token;
                        break;
                }
        }
        g_mutex_unlock(&d->lock);
        if (derive_from_living(d, token, ret))
                return true;
        if (!lazy_state_find_pid(d->left, pid, 0, &holder))
                return false;
        derive_from_holder(&holder, ret);
        return true;
}

/* The parent process of `pid`, or 0. */
static pid_t parent_of(pid_t pid)
{
        uint64_t start_time;
        pid_t ppid;

        return process_parent(pid, &ppid, &start_time) == 0 ? ppid : 0;
}

/* Whether the process may say itself that it derives from `hint`: the process tree does not tell of those
 * that have ended.  Of the living it does, and who could choose would be found in no tree. */
static bool is_left_behind(struct description *d, xhandle hint)
{
        g_autoptr(K42Xobj) xobj = cobj_get_xobj(d->lazy->cobj, hint);

        return !xobj;
}

/* Finds the parent handle for `client`: the one that it names, if that is left from a process which has ended,
 * else the nearest ancestor's, else the living one that it names, else the opener's.  Never fails: what is not
 * known is bounded by what must not be exceeded.  Where somebody has less than others (see rights.h) a process
 * must not choose its parent itself at all. */
static void find_derivation(struct description *d, struct client *client, xhandle hint,
                            struct derivation *ret)
{
        struct process_limits *limits = d->lazy->limits;
        access_rights between = RIGHTS_ALL; /* what those had who only passed it on */
        pid_t pid = client_info(client)->ppid;
        const bool free_choice = !atomic_load(&d->guarded);
        bool found = free_choice && is_left_behind(d, hint) && derive_from_token(d, hint, ret);

        for (int i = 0; !found && i < ANCESTORS_MAX && pid > 0; i++) {
                found = derive_from_process(d, pid, ret);
                if (!found) {
                        between &= process_limits_rights(limits, pid, d->opened);
                        pid = parent_of(pid);
                }
        }
        if (!found && free_choice)
                found = derive_from_token(d, hint, ret);
        if (!found) {
                if (!derive_from_token(d, d->opener, ret))
                        *ret = (struct derivation){d->opener, RIGHTS_ALL, RIGHTS_ALL, 0};
                between &= lazy_state_bound(d->left);
        }
        ret->match &= between;
        ret->nomatch &= between;
        ret->limit = process_limits_rights(limits, client_info(client)->pid, d->opened);
}

static bool find_own(struct description *d, struct client *client, struct derivation *ret,
                     enum sharing *ret_sharing, xhandle *ret_token)
{
        xhandle token = XHANDLE_NONE;
        g_autoptr(K42Xobj) xobj = NULL;

        g_mutex_lock(&d->lock);
        /* The newest: one that is being ended may still stand before it. */
        for (GList *l = d->handles.tail; l; l = l->prev) {
                const struct open_client_data *data = l->data;

                if (data->client == client) {
                        token = data->token;
                        break;
                }
        }
        g_mutex_unlock(&d->lock);
        if (token == XHANDLE_NONE ||
            xhandle_trans(d->lazy->cobj, token, client, RIGHTS_NONE, &xobj) < 0)
                return false;
        ret->parent = xobj_client_data(xobj)->kept->parent;
        xobj_get_rights(xobj, &ret->match, &ret->nomatch);
        *ret_sharing = (enum sharing)atomic_load(&xobj_client_data(xobj)->kept->sharing);
        *ret_token = token;
        return true;
}

access_rights lazy_locked_rights(struct description *d, struct client *client)
{
        struct derivation derivation;
        enum sharing sharing;
        xhandle token;

        if (find_own(d, client, &derivation, &sharing, &token))
                return derivation.match;
        find_derivation(d, client, XHANDLE_NONE, &derivation);
        if (!(derivation.match & RIGHT_DUPLICATE))
                return RIGHTS_NONE;
        return derivation.match & derivation.nomatch & derivation.limit;
}

/* Gives the client a handle that derives from its parent's. */
static int give_derived(struct description *d, struct client *client, xhandle hint)
{
        struct derivation from;
        struct object_handle oh;
        struct open_how how = {.description = d};
        int r;

        find_derivation(d, client, hint, &from);
        if (atomic_load(&d->kept->revoked))
                from.match = RIGHTS_NONE;
        else if (!(from.match & RIGHT_DUPLICATE))
                return -EACCES;
        from.match &= from.nomatch & from.limit;
        how.parent = from.parent;
        r = give_access_by_server(d->object, client, from.match,
                                  description_inherited(d, client, from.match), &how, &oh);
        if (r == 0)
                atomic_fetch_add_explicit(&d->lazy->reopens, 1, memory_order_relaxed);
        return r;
}

/* Under d->reopen_lock.  A new handle can be ended (the process exits, somebody takes it back) before
 * it is looked at; a process that is still there then gets another. */
static int locked_reopen(struct description *d, struct client *client, xhandle hint,
                         struct derivation *ret, enum sharing *ret_sharing, xhandle *ret_token)
{
        for (int attempt = 0; attempt < REOPEN_ATTEMPTS; attempt++) {
                int r;

                if (find_own(d, client, ret, ret_sharing, ret_token))
                        return 0;
                r = give_derived(d, client, hint);
                if (r < 0)
                        return r;
        }
        return find_own(d, client, ret, ret_sharing, ret_token) ? 0 : -ESRCH;
}

int lazy_rights_of(struct description *d, pid_t tid, access_rights *ret_rights)
{
        g_autoptr(K42Client) client = NULL;
        struct derivation derivation;
        enum sharing sharing;
        xhandle token;
        int r = client_table_get(cobj_clients(d->lazy->cobj), tid, &client);

        if (r < 0)
                return r;
        g_mutex_lock(&d->reopen_lock);
        r = locked_reopen(d, client, XHANDLE_NONE, &derivation, &sharing, &token);
        g_mutex_unlock(&d->reopen_lock);
        if (r == 0)
                *ret_rights = derivation.match;
        return r;
}

void lazy_reopen_unasked(struct description *d, struct client *client)
{
        struct derivation derivation;
        enum sharing sharing;
        xhandle token;

        g_mutex_lock(&d->reopen_lock);
        (void)locked_reopen(d, client, XHANDLE_NONE, &derivation, &sharing, &token);
        g_mutex_unlock(&d->reopen_lock);
}

int lazy_reopen(struct description *d, pid_t tid, struct k42_lazy_reopen *message)
{
        g_autoptr(K42Client) client = NULL;
        struct derivation derivation;
        enum sharing sharing;
        xhandle token;
        int r;

        r = k42_header_check(&message->header, sizeof *message, sizeof *message);
        if (r < 0)
                return r;
        if (message->token != 0 || message->sharing != 0 || message->rights != 0 ||
            message->fork != 0 || message->reserved32 != 0 ||
            !all_zero(message->reserved, G_N_ELEMENTS(message->reserved)))
                return -EINVAL;
        if (atomic_load(&d->kept->revoked) == REVOKED_WHOLLY)
                return -EACCES;

        r = client_table_get(cobj_clients(d->lazy->cobj), tid, &client);
        if (r < 0)
                return r;
        g_mutex_lock(&d->reopen_lock);
        r = locked_reopen(d, client, message->parent, &derivation, &sharing, &token);
        g_mutex_unlock(&d->reopen_lock);
        if (r < 0)
                return r;
        account_post(d, tid, token);
        message->parent = derivation.parent;
        message->token = token;
        message->sharing = (uint32_t)sharing;
        message->rights = derivation.match;
        return 0;
}

int lazy_identify(struct description *d, struct k42_identify *message)
{
        int r = k42_header_check(&message->header, sizeof *message, sizeof *message);

        if (r < 0)
                return r;
        if (message->description != 0 || message->opener != 0 || message->opener_pid != 0 ||
            message->handles != 0 || !all_zero(message->reserved, G_N_ELEMENTS(message->reserved)))
                return -EINVAL;
        message->description = d->id;
        message->opener = d->opener;
        message->opener_pid = d->opener_pid;
        g_mutex_lock(&d->lock);
        message->handles = g_queue_get_length(&d->handles);
        g_mutex_unlock(&d->lock);
        return 0;
}

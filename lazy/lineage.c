/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lazy/lineage.h"

#include <stdatomic.h>
#include <stdlib.h>

struct lineage {
        atomic_int refs;
        xhandle token;
        struct lineage *up; /* a reference */
};

struct lineage *lineage_new(xhandle token, struct lineage *up)
{
        struct lineage *line = malloc(sizeof *line);

        if (!line)
                return NULL;
        if (up)
                atomic_fetch_add_explicit(&up->refs, 1, memory_order_relaxed);
        atomic_init(&line->refs, 1);
        line->token = token;
        line->up = up;
        return line;
}

void lineage_unref(struct lineage *line)
{
        while (line && atomic_fetch_sub_explicit(&line->refs, 1, memory_order_acq_rel) == 1) {
                struct lineage *up = line->up;

                free(line);
                line = up;
        }
}

bool lineage_parent(const struct lineage *line, xhandle token, xhandle *ret_parent)
{
        while (line && line->token != token)
                line = line->up;
        if (!line || !line->up)
                return false;
        *ret_parent = line->up->token;
        return true;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What the files of lazy/ share among themselves and with nobody else. */
#include "lazy/description.h"

struct lazy {
        struct cobj *cobj;             /* borrowed; constant */
        struct id_table *descriptions; /* those that the kernel has */
        _Atomic uint64_t reopens, gives;
};

/* Sets a handle's sharing state, and tells the store if that is a change. */
void description_set_sharing(struct open_client_data *data, enum sharing sharing);

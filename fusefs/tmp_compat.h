#pragma once
#include "fusefs/ops.h"
void description_set_doubtful(struct description *d);
void lazy_set_count(struct lazy *lazy, xhandle token, bool w, uint64_t ops, uint64_t bytes);

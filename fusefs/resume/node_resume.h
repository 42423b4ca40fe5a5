/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * node_resume: the nodes of an earlier daemon come back, under the ids by which the kernel knows them.
 *
 * Their records are in the keep (kept_node.h).  Nothing is asked of the backing directory for that, so
 * that a large tree comes back in no time: a node opens its file when it is needed, by handle or by
 * names, and finds out then whether it is still the same (ESTALE if not).  Only what was parked with
 * the holder, and names that contradict each other, are looked at.
 *
 * All in the main thread before requests are served, in this order:
 *
 *   node_table_new()                   as always
 *   node_table_resume()                nodes and links
 *   … descriptions come back, and get their objects by node_table_object() …
 *   node_table_resume_descriptions()   what the nodes know of them
 *   … requests that were under way are resolved …
 *   node_table_resumed()               what is not needed goes
 *
 * Up to the last step every node that came back is held, so that one whose count was raised by a request that
 * is executed again, or undone, does not go meanwhile.
 */
#include <stdint.h>

#include "fusefs/node/node.h"

/* Returns 0 or -errno.  Records that make no sense are dropped, which is said once. */
int node_table_resume(struct node_table *table);

/* The object of node `id`, with a reference, or NULL.  `table`: the node table; void for lazy_resume(). */
struct server_object *node_table_object(uint64_t id, void *table);

void node_table_resume_descriptions(struct node_table *table);
void node_table_resumed(struct node_table *table);

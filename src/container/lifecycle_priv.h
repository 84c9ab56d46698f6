/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Steps of a container's life that several commands take. */
#ifndef TABIQUE_CONTAINER_LIFECYCLE_PRIV_H
#define TABIQUE_CONTAINER_LIFECYCLE_PRIV_H

#include "container/state_priv.h"

struct cgroup;

/* The hooks after the start; should one fail, the container is killed. */
int lifecycle_post_start(struct container *c, struct error **err);
/* The container's groups; *out is NULL where it has none. */
int lifecycle_open_group(const struct container *c, struct cgroup **out, struct error **err);
/* Kills what runs, runs the last hooks, removes all. */
int lifecycle_destroy(const struct container_runtime *runtime, struct container *c, struct error **err);

#endif

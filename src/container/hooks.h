/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Running hooks: programs that the configuration names, which get the container's state on standard input. */
#ifndef TABIQUE_CONTAINER_HOOKS_H
#define TABIQUE_CONTAINER_HOOKS_H

#include "container/config.h"

struct error;

/* All of one kind, in order. -errno with *err at the first that fails or takes longer than its timeout. */
int hooks_run(const struct container_hooks *hooks, enum container_hook_kind kind, const char *state_json,
              struct error **err);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who a container's process is when it executes its program, and what it may use. */
#ifndef TABIQUE_CONTAINER_IDENTITY_H
#define TABIQUE_CONTAINER_IDENTITY_H

#include "container/config.h"

#include <linux/filter.h>

struct error;

/* Limits (raised only), priority and processors of another process, set from outside, where the right to do
 * so is. */
int identity_limit(pid_t pid, const struct container_process *process, struct error **err);

/*
 * Working directory, groups, user, capabilities, no_new_privs: from here on the calling process is what the
 * configuration says. `filter`, if not NULL, is entered while the right to is still there, unless
 * no_new_privs makes that unnecessary: then it is left to the last moment. `flags` are those of seccomp(2);
 * *listener becomes what it returns, or -1.
 */
int identity_take(const struct container_process *process, const struct sock_fprog *filter,
                  unsigned long flags, int *listener, struct error **err);

/* Whether identity_take enters the filter. Then it sets the limits before, and else the last step does. */
bool identity_filters_early(const struct container_process *process, const struct sock_fprog *filter,
                            unsigned long flags);

/* The calling process's limits, exactly. -errno. */
int identity_set_limits(const struct container_process *process);

/* "0-3,7": sets the calling process's processors. -errno. */
int identity_affinity(pid_t pid, const char *list);

#endif

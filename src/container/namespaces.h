/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A process in the namespaces of a configuration: in those that exist, and in new ones. */
#ifndef TABIQUE_CONTAINER_NAMESPACES_H
#define TABIQUE_CONTAINER_NAMESPACES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct container_setup;
struct error;

/*
 * Forks a process that calls `main`. Its number, or -errno with *err. With *two_steps that number is of one
 * that joins a user namespace first, ends, and tells the number of the right one by a MESSAGE_PID. This
 * process is in the namespaces that it was in before.
 */
pid_t namespaces_fork(struct container_setup *setup, void (*main)(struct container_setup *), bool *two_steps,
                      struct error **err);

/* A fork by clone3(2) with these flags, into the group of cgroup v2 that `group` is a descriptor of, if it is
 * not negative. As fork(2). */
pid_t namespaces_clone(uint64_t flags, int group);

#endif

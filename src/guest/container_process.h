/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process that stands for a container as the VM process does for a machine: a fork of the supervisor,
 * with a console and a control channel between the two (machine/vm_message.h), so that the supervisor treats
 * both kinds alike. It makes the container (container/container.h), and ends it when it is told to or the
 * supervisor is gone. Called by the supervisor.
 */
#ifndef TABIQUE_GUEST_CONTAINER_PROCESS_H
#define TABIQUE_GUEST_CONTAINER_PROCESS_H

#include "container/container.h"
#include "machine/vm_process.h"

#include <jansson.h>

struct error;
struct guest;
struct home;

struct container_process {
    const struct guest *guest;
    const json_t *flags;          /* its configuration */
    const struct net_config *net; /* the user network's, or NULL */
    uint16_t columns, rows;       /* of the terminal behind the console; 0: none */
};

/* As vm_process_start. What the container could not be made for is told by VM_ENDED. */
int container_process_start(struct vm_process *process, const struct container_process *config,
                            struct error **err);

/* Where the runtime keeps the containers of guests: directories named as these. To be freed; NULL without
 * memory. */
char *container_process_root(const struct home *home);

/* A person's container is in a user namespace: this process becomes its root. Nothing for root. 0 or -errno
 * with *err. */
int container_process_join(const struct container_runtime *runtime, const char *name, struct error **err);

/* Takes away whatever is left of a container, by whomever it was left: processes, groups, state. No error if
 * there is nothing. 0 or -errno with *err. */
int container_process_clean(const struct home *home, const char *name, struct error **err);

/* Changes the limits of one that runs: flags of `run`. 0 or -errno with *err. */
int container_process_update(const struct home *home, const char *name, const json_t *limits,
                             struct error **err);

/* What the container uses, as `stats` tells it; to be released. NULL if it does not run. */
json_t *container_process_stats(const struct home *home, const char *name);

/* How the image's check finds it: an object with "status" and more; NULL where there is none. */
json_t *container_process_health(const struct home *home, const char *name);

#endif

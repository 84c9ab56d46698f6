/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A container while it is made; create.c, run.c and restore.c. */
#ifndef TABIQUE_CONTAINER_CREATE_PRIV_H
#define TABIQUE_CONTAINER_CREATE_PRIV_H

#include "container/container.h"
#include "container/setup_priv.h"

struct container;

struct creation {
    const struct container_runtime *runtime;
    const struct container_create *request;
    bool waits;      /* for container_start */
    int own_console; /* instead of the request's socket; -1: none */
    char *bundle, *root_path;
    struct container_config *config;
    struct container *container;
    struct cgroup *cgroup;
    struct container_setup setup;
    int sync; /* to the process */
};

/* All of it, or nothing stays. Free in both cases. */
int creation_make(struct creation *c, int *status, struct error **err);
void creation_free(struct creation *c);

/* Its first part: what is asked for is checked, the directory and the groups are made. The groups have no
 * limits yet. On failure what was made is there still (`container` is not NULL), and for creation_take_back.
 */
int creation_begin(struct creation *c, struct error **err);
void creation_take_back(struct creation *c);

/* A file with a number in it. NULL: none. */
int creation_write_pid(const char *path, pid_t pid, struct error **err);

/* idmap_mount.c: shows the tree with other owners: by its own maps, or by the container's. */
int creation_idmap(const struct container_mount *m, const struct container_id_maps *maps, int tree,
                   struct error **err);

#endif

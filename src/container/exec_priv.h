/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A process that is added to a container, while it is made; exec.c, exec_process.c. */
#ifndef TABIQUE_CONTAINER_EXEC_PRIV_H
#define TABIQUE_CONTAINER_EXEC_PRIV_H

#include "container/config.h"
#include "container/container.h"

#include <linux/filter.h>

struct container;

struct execution {
    const struct container_runtime *runtime;
    const struct container_exec *request;
    struct container *container;
    struct container_config *config;
    struct cgroup *cgroup;
    int target;  /* the container's first process */
    int console; /* where the terminal's master goes */
    int sync;    /* the process's end */
    bool joined; /* the process is born in the container's namespaces and groups */
    struct config_pool pool;
    json_t *document; /* of the process file */
    struct container_process process;
    bool has_filter;
    struct sock_fprog filter;
};

/* Fills `process`: by the file, or by the container's own with what the request says. */
int execution_describe(struct execution *e, struct error **err);
void execution_free(struct execution *e);

/* exec_group.c: the calling process goes into the group that the request names, if it names one. */
int execution_enter_group(const struct execution *e, struct error **err);

/* run.c: after MESSAGE_READY, until the program is executed. *status is set where that fails. */
int run_wait_for_exec(int sync, int *status, struct error **err);

#endif

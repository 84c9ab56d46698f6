/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is done to a container by its control groups: paused, resumed, given other limits, its processes
 * listed, its use counted. Called by the verbs. The container's lock orders those that change it.
 */
#include "container/container.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/cgroup.h"
#include "container/lifecycle_priv.h"
#include "container/resources.h"

#include <errno.h>

static inline void free_group(struct cgroup **group)
{
    cgroup_free(*group);
}
#define cleanup_group __attribute__((cleanup(free_group)))

static int no_group(const char *id, struct error **err)
{
    return error_set(err, ENOTSUP,
                     "container %s has no control groups: it was made without the right to them", id);
}

/* The container, locked, and its groups; -EINVAL where it does not live. */
static int open_living(const struct container_runtime *runtime, const char *id, struct container **container,
                       struct cgroup **group, enum container_status *status, struct error **err)
{
    int rc = state_open(runtime, id, true, container, err);

    if (rc)
        return rc;
    *status = state_status(*container);
    if (*status == CONTAINER_STOPPED || *status == CONTAINER_CREATING)
        return error_set(err, EINVAL, "container not running");
    rc = lifecycle_open_group(*container, group, err);
    return rc || *group ? rc : no_group(id, err);
}

int container_pause(const struct container_runtime *runtime, const char *id, struct error **err)
{
    cleanup_container struct container *container = NULL;
    cleanup_group struct cgroup *group = NULL;
    enum container_status status;
    int rc = open_living(runtime, id, &container, &group, &status, err);

    if (rc)
        return rc;
    if (status == CONTAINER_PAUSED)
        return error_set(err, EINVAL, "container is paused already");
    return cgroup_freeze(group, err);
}

int container_resume(const struct container_runtime *runtime, const char *id, struct error **err)
{
    cleanup_container struct container *container = NULL;
    cleanup_group struct cgroup *group = NULL;
    enum container_status status;
    int rc = open_living(runtime, id, &container, &group, &status, err);

    if (rc)
        return rc;
    /* One that was made and not started yet is told as created, frozen or not. */
    if (!cgroup_is_frozen(group))
        return error_set(err, EINVAL, "container not paused");
    return cgroup_thaw(group, err);
}

int container_update(const struct container_runtime *runtime, const char *id, json_t *resources,
                     struct error **err)
{
    cleanup_container struct container *container = NULL;
    cleanup_group struct cgroup *group = NULL;
    enum container_status status;
    struct container_resources limits;
    int rc = container_resources_parse(resources, &limits, err);

    if (rc)
        return rc;
    rc = open_living(runtime, id, &container, &group, &status, err);
    rc = rc ? rc : cgroup_apply(group, &limits, err);
    container_resources_free(&limits);
    return rc;
}

int container_processes(const struct container_runtime *runtime, const char *id, pid_t **pids, size_t *n,
                        struct error **err)
{
    cleanup_group struct cgroup *group = NULL;
    int rc = container_open_cgroup(runtime, id, &group, NULL, err);

    if (rc)
        return rc;
    return group ? cgroup_processes(group, pids, n, err) : no_group(id, err);
}

json_t *container_stats(const struct container_runtime *runtime, const char *id, struct error **err)
{
    cleanup_group struct cgroup *group = NULL;
    enum container_status status;

    if (container_open_cgroup(runtime, id, &group, &status, err))
        return NULL;
    if (status == CONTAINER_STOPPED || status == CONTAINER_CREATING) {
        error_set(err, EINVAL, "container with id %s is not running", id);
        return NULL;
    }
    if (!group) {
        no_group(id, err);
        return NULL;
    }
    return cgroup_stats(group, err);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Limits, whichever layout the host has: who sets which of them. No state, no locks. */
#include "container/cgroup_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *cgroup_limit_text(int64_t value, char text[static 24])
{
    if (value < 0)
        strcpy(text, "max");
    else
        snprintf(text, 24, "%" PRId64, value);
    return text;
}

bool cgroup_rdma_line(const struct container_rdma *rdma, char *text, size_t size)
{
    int n = snprintf(text, size, "%s", rdma->device);

    if (rdma->handles.set)
        n += snprintf(text + n, size - (size_t)n, " hca_handle=%" PRId64, rdma->handles.value);
    if (rdma->objects.set)
        snprintf(text + n, size - (size_t)n, " hca_object=%" PRId64, rdma->objects.value);
    return rdma->handles.set || rdma->objects.set;
}

static int apply_devices(struct cgroup *cgroup, const struct container_resources *resources,
                         struct error **err)
{
    const char *v1 = cgroup_v1(cgroup, "devices");
    const char *v2 = cgroup->layout == CGROUP_UNIFIED ? cgroup_v2(cgroup) : NULL;
    size_t n;

    /* A person's container can open no more of devices than that person, whatever its rules say. */
    if (cgroup->rootless || (!resources->devices_set && !cgroup->fresh))
        return 0;
    if (!v1 && !v2)
        return error_set(err, ENOTSUP,
                         CGROUP_FIELD
                         "devices: this host has no controller of devices: mount the v1 tree 'devices', or "
                         "cgroup v2");
    cleanup_free struct container_device_rule *rules = cgroup_device_rules(resources, &n);
    if (!rules)
        return error_set_errno(err, ENOMEM, "limiting a container");
    if (v2)
        return cgroup_v2_devices(v2, rules, n, err);
    if (cgroup->fresh)
        return cgroup_v1_devices(v1, rules, n, err);
    /* The list is empty for a moment: nobody is to see that. */
    bool was_frozen = cgroup_is_frozen(cgroup);
    int rc = was_frozen ? 0 : cgroup_freeze(cgroup, err);
    rc = rc ? rc : cgroup_v1_devices(v1, rules, n, err);
    if (!was_frozen) {
        int thawed = cgroup_thaw(cgroup, rc ? NULL : err);
        rc = rc ? rc : thawed;
    }
    return rc;
}

int cgroup_apply(struct cgroup *cgroup, const struct container_resources *resources, struct error **err)
{
    int rc = 0;

    if (resources->n_unified && cgroup->layout == CGROUP_LEGACY)
        return error_set(err, ENOTSUP, CGROUP_FIELD "unified: this host has cgroup v1 alone");
    if (cgroup->unit)
        rc = cgroup_systemd_apply(cgroup, resources, err);
    if (rc == 0 && cgroup->layout != CGROUP_UNIFIED)
        rc = cgroup_v1_apply(cgroup, resources, err);
    if (rc == 0 && cgroup_v2(cgroup))
        rc = cgroup_v2_apply(cgroup, resources, err);
    rc = rc ? rc : apply_devices(cgroup, resources, err);
    if (rc == 0)
        cgroup->fresh = false;
    return rc;
}

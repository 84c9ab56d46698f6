/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Limits in the trees of cgroup v1: one file a limit, in the tree that has the controller. (Linux,
 * Documentation/admin-guide/cgroup-v1.) No state, no locks.
 */
#include "container/cgroup_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- what all of them need ---- */

static int explain(const char *field, const char *text, const char *directory, const char *file, int rc,
                   struct error **err)
{
    if (rc == -ENOENT && cgroup_has_file(directory, "cgroup.procs"))
        return error_set(err, ENOTSUP, CGROUP_FIELD "%s: this host's kernel has no %s: leave it out", field,
                         file);
    return error_set_errno(err, -rc, CGROUP_FIELD "%s: writing %s into %s/%s", field, text, directory, file);
}

static int no_controller(const char *field, const char *controller, struct error **err)
{
    return error_set(err, ENOTSUP,
                     CGROUP_FIELD
                     "%s: the controller '%s' is not to be had here: leave it out, or run as root on a "
                     "host that has it mounted",
                     field, controller);
}

static int put_text(const struct cgroup *cgroup, const char *controller, const char *file, const char *field,
                    const char *text, struct error **err)
{
    const char *directory = cgroup_v1(cgroup, controller);

    if (!directory)
        return no_controller(field, controller, err);
    int rc = cgroup_write(directory, file, text);
    return rc ? explain(field, text, directory, file, rc, err) : 0;
}

static int put(const struct cgroup *cgroup, const char *controller, const char *file, const char *field,
               int64_t value, struct error **err)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRId64, value);
    return put_text(cgroup, controller, file, field, text, err);
}

/* ---- memory ---- */

static int put_limit(const struct cgroup *cgroup, int64_t value, struct error **err)
{
    const char *directory = cgroup_v1(cgroup, "memory");
    int64_t usage = 0;

    if (!directory)
        return no_controller("memory.limit", "memory", err);
    int rc = cgroup_write_number(directory, "memory.limit_in_bytes", value);
    if (rc == -EBUSY && cgroup_read_number(directory, "memory.usage_in_bytes", &usage) == 0)
        return error_set(err, EBUSY,
                         CGROUP_FIELD "memory.limit: %" PRId64 " is less than the %" PRId64
                                      " bytes in use, which can't be given back",
                         value, usage);
    char text[24];
    snprintf(text, sizeof(text), "%" PRId64, value);
    return rc ? explain("memory.limit", text, directory, "memory.limit_in_bytes", rc, err) : 0;
}

static int put_swap(const struct cgroup *cgroup, int64_t value, struct error **err)
{
    const char *directory = cgroup_v1(cgroup, "memory");

    /* A kernel that does not count swap does not limit it either. */
    if (value < 0 && directory && !cgroup_has_file(directory, "memory.memsw.limit_in_bytes"))
        return 0;
    return put(cgroup, "memory", "memory.memsw.limit_in_bytes", "memory.swap", value, err);
}

/* The limit may never be above that of memory and swap: which is written first goes by where the limit is
 * now. */
static int put_memory_and_swap(const struct cgroup *cgroup, const struct container_memory *memory,
                               struct error **err)
{
    bool limit = cgroup_is_given(&memory->limit), swap = cgroup_is_given(&memory->swap);
    int64_t swap_value = memory->swap.value, now = INT64_MAX;
    const char *directory = cgroup_v1(cgroup, "memory");
    int rc = 0;

    if (limit && memory->limit.value < 0 && !swap) {
        swap = true;
        swap_value = -1;
    }
    if (directory)
        cgroup_read_number(directory, "memory.limit_in_bytes", &now);
    bool swap_first = swap && (swap_value < 0 || swap_value > now);
    if (swap && swap_first)
        rc = put_swap(cgroup, swap_value, err);
    if (rc == 0 && limit)
        rc = put_limit(cgroup, memory->limit.value, err);
    if (rc == 0 && swap && !swap_first)
        rc = put_swap(cgroup, swap_value, err);
    return rc;
}

static int check_usage(const struct cgroup *cgroup, const struct container_memory *memory, struct error **err)
{
    const char *directory = cgroup_v1(cgroup, "memory");
    int64_t usage;

    if (!memory->check_before_update || !cgroup_is_given(&memory->limit) || memory->limit.value < 0 ||
        !directory || cgroup_read_number(directory, "memory.usage_in_bytes", &usage) < 0 ||
        usage <= memory->limit.value)
        return 0;
    return error_set(err, EBUSY,
                     CGROUP_FIELD "memory.limit: %" PRId64 " is less than the %" PRId64
                                  " bytes in use (checkBeforeUpdate)",
                     memory->limit.value, usage);
}

static int apply_memory(const struct cgroup *cgroup, const struct container_memory *memory,
                        struct error **err)
{
    int rc = check_usage(cgroup, memory, err);

    rc = rc ? rc : put_memory_and_swap(cgroup, memory, err);
    if (rc == 0 && cgroup_is_given(&memory->reservation))
        rc = put(cgroup, "memory", "memory.soft_limit_in_bytes", "memory.reservation",
                 memory->reservation.value, err);
    if (rc == 0 && cgroup_is_given(&memory->kernel_tcp))
        rc = put(cgroup, "memory", "memory.kmem.tcp.limit_in_bytes", "memory.kernelTCP",
                 memory->kernel_tcp.value, err);
    if (rc == 0 && memory->swappiness.set)
        rc = put(cgroup, "memory", "memory.swappiness", "memory.swappiness", memory->swappiness.value, err);
    if (rc == 0 && memory->disable_oom_killer.set)
        rc = put(cgroup, "memory", "memory.oom_control", "memory.disableOOMKiller",
                 memory->disable_oom_killer.value, err);
    return rc;
}

/* ---- processors ---- */

/* The kernel takes what is out of its range for the nearest in it; that is no limit that was asked for. */
static int put_shares(const struct cgroup *cgroup, int64_t shares, struct error **err)
{
    int rc = put(cgroup, "cpu", "cpu.shares", "cpu.shares", shares, err);
    int64_t now;

    if (rc || cgroup_read_number(cgroup_v1(cgroup, "cpu"), "cpu.shares", &now) < 0 || now == shares)
        return rc;
    return error_set(err, EINVAL, CGROUP_FIELD "cpu.shares: %" PRId64 " is %s, the %s is %" PRId64, shares,
                     now < shares ? "too much" : "too little", now < shares ? "most" : "least", now);
}

/* Quota and period are written one at a time, and each must fit to what the other is then. */
static int put_bandwidth(const struct cgroup *cgroup, const struct container_cpu *cpu, struct error **err)
{
    const char *directory = cgroup_v1(cgroup, "cpu");
    bool quota = cgroup_is_given(&cpu->quota), period = cgroup_is_given(&cpu->period), later = false;
    int rc = 0;

    if (period && directory) {
        rc = cgroup_write_number(directory, "cpu.cfs_period_us", cpu->period.value);
        later = rc == -EINVAL && quota;
        if (rc && !later)
            return put(cgroup, "cpu", "cpu.cfs_period_us", "cpu.period", cpu->period.value, err);
    } else if (period) {
        return no_controller("cpu.period", "cpu", err);
    }
    /* A burst above a quota that comes down would be in its way. */
    if (quota && cpu->burst.set && directory)
        cgroup_write_number(directory, "cpu.cfs_burst_us", 0);
    if (quota)
        rc = put(cgroup, "cpu", "cpu.cfs_quota_us", "cpu.quota", cpu->quota.value < 0 ? -1 : cpu->quota.value,
                 err);
    if (rc == 0 && later)
        rc = put(cgroup, "cpu", "cpu.cfs_period_us", "cpu.period", cpu->period.value, err);
    if (rc == 0 && cpu->burst.set)
        rc = put(cgroup, "cpu", "cpu.cfs_burst_us", "cpu.burst", cpu->burst.value, err);
    return rc;
}

static int apply_cpu(const struct cgroup *cgroup, const struct container_cpu *cpu, struct error **err)
{
    int rc = 0;

    if (cpu->idle.set)
        rc = put(cgroup, "cpu", "cpu.idle", "cpu.idle", cpu->idle.value, err);
    if (rc == 0 && cgroup_is_given(&cpu->shares))
        rc = put_shares(cgroup, cpu->shares.value, err);
    if (rc == 0 && cgroup_is_given(&cpu->realtime_period))
        rc = put(cgroup, "cpu", "cpu.rt_period_us", "cpu.realtimePeriod", cpu->realtime_period.value, err);
    if (rc == 0 && cgroup_is_given(&cpu->realtime_runtime))
        rc = put(cgroup, "cpu", "cpu.rt_runtime_us", "cpu.realtimeRuntime", cpu->realtime_runtime.value, err);
    rc = rc ? rc : put_bandwidth(cgroup, cpu, err);
    if (rc == 0 && cpu->cpus)
        rc = put_text(cgroup, "cpuset", "cpuset.cpus", "cpu.cpus", cpu->cpus, err);
    if (rc == 0 && cpu->mems)
        rc = put_text(cgroup, "cpuset", "cpuset.mems", "cpu.mems", cpu->mems, err);
    return rc;
}

int cgroup_v1_inherit_cpuset(const char *directory)
{
    static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};
    char parent[PATH_MAX], text[4096];

    snprintf(parent, sizeof(parent), "%s", directory);
    *strrchr(parent, '/') = '\0';
    for (size_t i = 0; i < 2; i++) {
        ssize_t n = cgroup_read(directory, files[i], text, sizeof(text));
        if (n == 0)
            n = cgroup_read(parent, files[i], text, sizeof(text));
        else if (n > 0)
            continue;
        if (n < 0)
            return (int)n;
        int rc = cgroup_write(directory, files[i], text);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- block devices ---- */

/* The scheduler BFQ has the weights on kernels of today, CFQ had them without its name. */
static const char *weight_file(const char *directory, bool device)
{
    if (cgroup_has_file(directory, device ? "blkio.bfq.weight_device" : "blkio.bfq.weight"))
        return device ? "blkio.bfq.weight_device" : "blkio.bfq.weight";
    return device ? "blkio.weight_device" : "blkio.weight";
}

static int put_device_weight(const struct cgroup *cgroup, const char *file, const char *field,
                             const struct container_block_weight *device, const struct container_value *value,
                             struct error **err)
{
    char text[64];

    if (!cgroup_is_given(value))
        return 0;
    snprintf(text, sizeof(text), "%" PRIu32 ":%" PRIu32 " %" PRId64, device->major, device->minor,
             value->value);
    return put_text(cgroup, "blkio", file, field, text, err);
}

static int apply_weights(const struct cgroup *cgroup, const struct container_block_io *block,
                         struct error **err)
{
    const char *directory = cgroup_v1(cgroup, "blkio");
    int rc = 0;

    if (cgroup_is_given(&block->weight))
        rc = put(cgroup, "blkio", directory ? weight_file(directory, false) : "", "blockIO.weight",
                 block->weight.value, err);
    if (rc == 0 && cgroup_is_given(&block->leaf_weight))
        rc = put(cgroup, "blkio", "blkio.leaf_weight", "blockIO.leafWeight", block->leaf_weight.value, err);
    for (size_t i = 0; rc == 0 && i < block->n_weights; i++) {
        const struct container_block_weight *device = &block->weights[i];

        rc = put_device_weight(cgroup, directory ? weight_file(directory, true) : "", "blockIO.weightDevice",
                               device, &device->weight, err);
        rc = rc ? rc
                : put_device_weight(cgroup, "blkio.leaf_weight_device", "blockIO.weightDevice", device,
                                    &device->leaf_weight, err);
    }
    return rc;
}

static int apply_block(const struct cgroup *cgroup, const struct container_block_io *block,
                       struct error **err)
{
    static const struct {
        const char *file, *field;
    } throttles[CONTAINER_THROTTLES] = {
        [CONTAINER_READ_BPS] = {"blkio.throttle.read_bps_device", "blockIO.throttleReadBpsDevice"},
        [CONTAINER_WRITE_BPS] = {"blkio.throttle.write_bps_device", "blockIO.throttleWriteBpsDevice"},
        [CONTAINER_READ_IOPS] = {"blkio.throttle.read_iops_device", "blockIO.throttleReadIOPSDevice"},
        [CONTAINER_WRITE_IOPS] = {"blkio.throttle.write_iops_device", "blockIO.throttleWriteIOPSDevice"},
    };
    int rc = apply_weights(cgroup, block, err);

    for (int t = 0; t < CONTAINER_THROTTLES; t++)
        for (size_t i = 0; rc == 0 && i < block->throttle[t].n; i++) {
            const struct container_block_limit *limit = &block->throttle[t].limits[i];
            char text[64];

            snprintf(text, sizeof(text), "%" PRIu32 ":%" PRIu32 " %" PRIu64, limit->major, limit->minor,
                     limit->rate);
            rc = put_text(cgroup, "blkio", throttles[t].file, throttles[t].field, text, err);
        }
    return rc;
}

/* ---- the rest ---- */

static int apply_hugepages(const struct cgroup *cgroup, const struct container_resources *r,
                           struct error **err)
{
    const char *directory = cgroup_v1(cgroup, "hugetlb");

    for (size_t i = 0; i < r->n_hugepages; i++) {
        char file[64];

        snprintf(file, sizeof(file), "hugetlb.%s.limit_in_bytes", r->hugepages[i].page_size);
        int rc = put(cgroup, "hugetlb", file, "hugepageLimits", (int64_t)r->hugepages[i].limit, err);
        if (rc)
            return rc;
        snprintf(file, sizeof(file), "hugetlb.%s.rsvd.limit_in_bytes", r->hugepages[i].page_size);
        if (cgroup_has_file(directory, file))
            rc = put(cgroup, "hugetlb", file, "hugepageLimits", (int64_t)r->hugepages[i].limit, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int apply_network(const struct cgroup *cgroup, const struct container_resources *r, struct error **err)
{
    int rc = 0;

    if (cgroup_is_given(&r->network_class))
        rc = put(cgroup, "net_cls", "net_cls.classid", "network.classID", r->network_class.value, err);
    for (size_t i = 0; rc == 0 && i < r->n_priorities; i++) {
        char text[300];

        snprintf(text, sizeof(text), "%s %" PRIu32, r->priorities[i].interface, r->priorities[i].priority);
        rc = put_text(cgroup, "net_prio", "net_prio.ifpriomap", "network.priorities", text, err);
    }
    return rc;
}

static int apply_rdma(const struct cgroup *cgroup, const struct container_resources *r, struct error **err)
{
    for (size_t i = 0; i < r->n_rdma; i++) {
        char text[400];

        if (!cgroup_rdma_line(&r->rdma[i], text, sizeof(text)))
            continue;
        int rc = put_text(cgroup, "rdma", "rdma.max", "rdma", text, err);
        if (rc)
            return rc;
    }
    return 0;
}

int cgroup_v1_apply(const struct cgroup *cgroup, const struct container_resources *r, struct error **err)
{
    int rc = apply_memory(cgroup, &r->memory, err);

    rc = rc ? rc : apply_cpu(cgroup, &r->cpu, err);
    rc = rc ? rc : apply_block(cgroup, &r->block, err);
    if (rc == 0 && cgroup_is_given(&r->pids))
        rc = put_text(cgroup, "pids", "pids.max", "pids.limit",
                      cgroup_limit_text(r->pids.value, (char[24]){0}), err);
    /* In the hybrid layout a controller may be in either tree. */
    if (rc == 0 && (cgroup_v1(cgroup, "hugetlb") || !cgroup_v2(cgroup)))
        rc = apply_hugepages(cgroup, r, err);
    if (rc == 0 && (cgroup_v1(cgroup, "rdma") || !cgroup_v2(cgroup)))
        rc = apply_rdma(cgroup, r, err);
    return rc ? rc : apply_network(cgroup, r, err);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Limits in the tree of cgroup v2. (Linux, Documentation/admin-guide/cgroup-v2.rst.) Configurations speak
 * v1's words; what has another scale here is converted as runc does it, so that the same configuration gives
 * the same shares whichever runtime starts it. No state, no locks.
 */
#include "container/cgroup_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PERIOD_DEFAULT 100000 /* microseconds */

/* ---- handing controllers down ---- */

static bool has_word(const char *list, const char *word, size_t length)
{
    while (*list) {
        size_t n = strcspn(list, " ");
        if (n == length && memcmp(list, word, n) == 0)
            return true;
        list += n + (list[n] == ' ');
    }
    return false;
}

/*
 * Such a group may hand down some controllers, those for threads, and then is one for threads, below which no
 * process can be put into a group of its own any more.
 */
static bool has_processes(const char *directory)
{
    cleanup_free char *processes = cgroup_read_all(directory, "cgroup.procs");

    return processes && *processes;
}

/* What group `directory` has and does not hand down yet, as "+cpu +memory"; all at once, or else one by one.
 */
static void enable_in(const char *directory, bool is_root, const char *only)
{
    char have[1024], down[1024], text[1024] = "";

    if (cgroup_read(directory, "cgroup.controllers", have, sizeof(have)) <= 0 ||
        cgroup_read(directory, "cgroup.subtree_control", down, sizeof(down)) < 0)
        return;
    for (const char *word = have; *word; word += strspn(word, " ")) {
        size_t n = strcspn(word, " ");
        if (!has_word(down, word, n) && (!only || has_word(only, word, n)))
            snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s+%.*s", *text ? " " : "", (int)n,
                     word);
        word += n;
    }
    if (!*text || (!is_root && has_processes(directory)))
        return;
    if (cgroup_write(directory, "cgroup.subtree_control", text) == 0)
        return;
    /* One of them may be busy elsewhere (real-time processes keep `cpu` away); the others are wanted still.
     */
    char *save;
    for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save))
        cgroup_write(directory, "cgroup.subtree_control", word);
}

void cgroup_v2_enable(const char *mount, const char *directory, const char *only)
{
    cleanup_free char *path = strdup(directory);
    size_t at = strlen(mount);

    while (path && path[at] == '/') {
        path[at] = '\0';
        enable_in(path, at == strlen(mount), only);
        path[at] = '/';
        at += 1 + strcspn(path + at + 1, "/");
    }
}

/* ---- what all limits need ---- */

static int put_text(const struct cgroup *cgroup, const char *file, const char *field, const char *text,
                    struct error **err)
{
    const char *directory = cgroup_v2(cgroup);
    int rc = cgroup_write(directory, file, text);

    if (rc == -ENOENT && cgroup_has_file(directory, "cgroup.procs"))
        return error_set(err, ENOTSUP,
                         CGROUP_FIELD
                         "%s: this container's group has no %s: the controller '%.*s' is not handed "
                         "down to it (see cgroup.controllers in the groups above), or the kernel lacks it",
                         field, file, (int)strcspn(file, "."), file);
    if (rc)
        return error_set_errno(err, -rc, CGROUP_FIELD "%s: writing %s into %s/%s", field, text, directory,
                               file);
    return 0;
}

/* Below 0 is "max". */
static int put(const struct cgroup *cgroup, const char *file, const char *field, int64_t value,
               struct error **err)
{
    char text[24];

    return put_text(cgroup, file, field, cgroup_limit_text(value, text), err);
}

/* ---- memory ---- */

static int put_swap(const struct cgroup *cgroup, const struct container_memory *memory, struct error **err)
{
    int64_t swap = memory->swap.value, limit = memory->limit.value;

    if (!cgroup_is_given(&memory->swap)) {
        if (cgroup_is_given(&memory->limit) && limit < 0 &&
            cgroup_has_file(cgroup_v2(cgroup), "memory.swap.max"))
            return put(cgroup, "memory.swap.max", "memory.swap", -1, err);
        return 0;
    }
    /* v1's number is memory and swap together, v2's is swap alone. */
    if (swap > 0 && (!cgroup_is_given(&memory->limit) || limit < 0))
        return error_set(err, EINVAL,
                         CGROUP_FIELD
                         "memory.swap: it is memory and swap together, so memory.limit must be given too");
    swap = swap < 0 ? -1 : swap - limit;
    /* A kernel that has no swap gives none. */
    if (swap <= 0 && !cgroup_has_file(cgroup_v2(cgroup), "memory.swap.max"))
        return 0;
    return put(cgroup, "memory.swap.max", "memory.swap", swap, err);
}

static int check_usage(const struct cgroup *cgroup, const struct container_memory *memory, struct error **err)
{
    int64_t usage;

    if (!memory->check_before_update || !cgroup_is_given(&memory->limit) || memory->limit.value < 0 ||
        cgroup_read_number(cgroup_v2(cgroup), "memory.current", &usage) < 0 || usage <= memory->limit.value)
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

    rc = rc ? rc : put_swap(cgroup, memory, err);
    if (rc == 0 && cgroup_is_given(&memory->limit))
        rc = put(cgroup, "memory.max", "memory.limit", memory->limit.value, err);
    if (rc == 0 && cgroup_is_given(&memory->reservation))
        rc = put(cgroup, "memory.low", "memory.reservation", memory->reservation.value, err);
    /* Swappiness, the TCP limit and a disabled OOM killer have no counterpart. */
    return rc;
}

/* ---- processors ---- */

int64_t cgroup_v2_weight(int64_t shares)
{
    /* 2..262144 to 1..10000, in a line. */
    if (shares <= 2)
        return 1;
    if (shares >= 262144)
        return 10000;
    return 1 + (shares - 2) * 9999 / 262142;
}

static int put_bandwidth(const struct cgroup *cgroup, const struct container_cpu *cpu, struct error **err)
{
    char now[64] = "", text[64], quota[24] = "max";
    int64_t period = PERIOD_DEFAULT;

    if (!cgroup_is_given(&cpu->quota) && !cgroup_is_given(&cpu->period))
        return 0;
    /* What is not given stays. */
    if (cgroup_read(cgroup_v2(cgroup), "cpu.max", now, sizeof(now)) > 0)
        sscanf(now, "%23s %" SCNd64, quota, &period);
    if (cgroup_is_given(&cpu->quota))
        cgroup_limit_text(cpu->quota.value, quota);
    if (cgroup_is_given(&cpu->period))
        period = cpu->period.value;
    snprintf(text, sizeof(text), "%s %" PRId64, quota, period);
    /* A burst above a quota that comes down would be in its way. */
    if (cpu->burst.set && cgroup_has_file(cgroup_v2(cgroup), "cpu.max.burst"))
        cgroup_write(cgroup_v2(cgroup), "cpu.max.burst", "0");
    return put_text(cgroup, "cpu.max", "cpu.quota", text, err);
}

static int apply_cpu(const struct cgroup *cgroup, const struct container_cpu *cpu, struct error **err)
{
    int rc = 0;

    if (cgroup_is_given(&cpu->realtime_runtime) || cgroup_is_given(&cpu->realtime_period))
        return error_set(err, ENOTSUP,
                         CGROUP_FIELD "cpu.realtimeRuntime: cgroup v2 has no such limit: leave it out");
    if (cpu->idle.set)
        rc = put(cgroup, "cpu.idle", "cpu.idle", cpu->idle.value, err);
    if (rc == 0 && cgroup_is_given(&cpu->shares))
        rc = put(cgroup, "cpu.weight", "cpu.shares", cgroup_v2_weight(cpu->shares.value), err);
    rc = rc ? rc : put_bandwidth(cgroup, cpu, err);
    if (rc == 0 && cpu->burst.set)
        rc = put(cgroup, "cpu.max.burst", "cpu.burst", cpu->burst.value, err);
    if (rc == 0 && cpu->cpus)
        rc = put_text(cgroup, "cpuset.cpus", "cpu.cpus", cpu->cpus, err);
    if (rc == 0 && cpu->mems)
        rc = put_text(cgroup, "cpuset.mems", "cpu.mems", cpu->mems, err);
    return rc;
}

/* ---- block devices ---- */

int64_t cgroup_v2_io_weight(int64_t weight)
{
    /* 10..1000 to 1..10000, in a line. */
    return 1 + (weight - 10) * 9999 / 990;
}

static int put_weight(const struct cgroup *cgroup, const char *prefix, const char *field, int64_t weight,
                      struct error **err)
{
    bool bfq = cgroup_has_file(cgroup_v2(cgroup), "io.bfq.weight");
    char text[64];

    /* BFQ has v1's scale. */
    snprintf(text, sizeof(text), "%s%" PRId64, prefix, bfq ? weight : cgroup_v2_io_weight(weight));
    return put_text(cgroup, bfq ? "io.bfq.weight" : "io.weight", field, text, err);
}

static int apply_weights(const struct cgroup *cgroup, const struct container_block_io *block,
                         struct error **err)
{
    int rc = cgroup_is_given(&block->weight)
                 ? put_weight(cgroup, "", "blockIO.weight", block->weight.value, err)
                 : 0;

    /* Leaf weights weighed a group's own processes against the groups below it; v2 has no such groups. */
    for (size_t i = 0; rc == 0 && i < block->n_weights; i++) {
        char prefix[32];

        snprintf(prefix, sizeof(prefix), "%" PRIu32 ":%" PRIu32 " ", block->weights[i].major,
                 block->weights[i].minor);
        if (cgroup_is_given(&block->weights[i].weight))
            rc = put_weight(cgroup, prefix, "blockIO.weightDevice", block->weights[i].weight.value, err);
    }
    return rc;
}

static int apply_block(const struct cgroup *cgroup, const struct container_block_io *block,
                       struct error **err)
{
    static const struct {
        const char *key, *field;
    } throttles[CONTAINER_THROTTLES] = {
        [CONTAINER_READ_BPS] = {"rbps", "blockIO.throttleReadBpsDevice"},
        [CONTAINER_WRITE_BPS] = {"wbps", "blockIO.throttleWriteBpsDevice"},
        [CONTAINER_READ_IOPS] = {"riops", "blockIO.throttleReadIOPSDevice"},
        [CONTAINER_WRITE_IOPS] = {"wiops", "blockIO.throttleWriteIOPSDevice"},
    };
    int rc = apply_weights(cgroup, block, err);

    for (int t = 0; t < CONTAINER_THROTTLES; t++)
        for (size_t i = 0; rc == 0 && i < block->throttle[t].n; i++) {
            const struct container_block_limit *limit = &block->throttle[t].limits[i];
            char text[64], rate[24];

            snprintf(text, sizeof(text), "%" PRIu32 ":%" PRIu32 " %s=%s", limit->major, limit->minor,
                     throttles[t].key, cgroup_limit_text(limit->rate ? (int64_t)limit->rate : -1, rate));
            rc = put_text(cgroup, "io.max", throttles[t].field, text, err);
        }
    return rc;
}

/* ---- huge pages, RDMA, and whatever else v2 has ---- */

static int apply_hugepages(const struct cgroup *cgroup, const struct container_resources *r,
                           struct error **err)
{
    for (size_t i = 0; i < r->n_hugepages; i++) {
        char file[64];

        snprintf(file, sizeof(file), "hugetlb.%s.max", r->hugepages[i].page_size);
        int rc = put(cgroup, file, "hugepageLimits", (int64_t)r->hugepages[i].limit, err);
        snprintf(file, sizeof(file), "hugetlb.%s.rsvd.max", r->hugepages[i].page_size);
        if (rc == 0 && cgroup_has_file(cgroup_v2(cgroup), file))
            rc = put(cgroup, file, "hugepageLimits", (int64_t)r->hugepages[i].limit, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int apply_rdma(const struct cgroup *cgroup, const struct container_resources *r, struct error **err)
{
    for (size_t i = 0; i < r->n_rdma; i++) {
        char text[400];

        int rc = cgroup_rdma_line(&r->rdma[i], text, sizeof(text))
                     ? put_text(cgroup, "rdma.max", "rdma", text, err)
                     : 0;
        if (rc)
            return rc;
    }
    return 0;
}

static int apply_unified(const struct cgroup *cgroup, const struct container_resources *r, struct error **err)
{
    for (size_t i = 0; i < r->n_unified; i++) {
        char field[300];

        snprintf(field, sizeof(field), "unified.%s", r->unified[i].file);
        /* Several lines are as many writes: the kernel reads one at a time. */
        cleanup_free char *lines = strdup(r->unified[i].value);
        if (!lines)
            return error_set_errno(err, ENOMEM, "limiting a container");
        char *save;
        for (char *line = strtok_r(lines, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
            int rc = put_text(cgroup, r->unified[i].file, field, line, err);
            if (rc)
                return rc;
        }
    }
    return 0;
}

/* Of the hybrid layout's v2 tree: what v1 has not. */
static int apply_beside_v1(const struct cgroup *cgroup, const struct container_resources *r,
                           struct error **err)
{
    const struct cgroup_hierarchy *tree = &cgroup->trees[cgroup->n_trees - 1];
    bool hugepages = r->n_hugepages && !cgroup_v1(cgroup, "hugetlb");
    bool rdma = r->n_rdma && !cgroup_v1(cgroup, "rdma");
    int rc = 0;

    if (hugepages || rdma || r->n_unified)
        cgroup_v2_enable(tree->mount, tree->directory, NULL);
    if (hugepages)
        rc = apply_hugepages(cgroup, r, err);
    if (rc == 0 && rdma)
        rc = apply_rdma(cgroup, r, err);
    return rc ? rc : apply_unified(cgroup, r, err);
}

int cgroup_v2_apply(const struct cgroup *cgroup, const struct container_resources *r, struct error **err)
{
    int rc;

    if (cgroup->layout == CGROUP_HYBRID)
        return apply_beside_v1(cgroup, r, err);
    if (cgroup_is_given(&r->network_class) || r->n_priorities)
        return error_set(err, ENOTSUP,
                         CGROUP_FIELD
                         "network: cgroup v2 has no classes and priorities: use the host's nftables");
    rc = apply_memory(cgroup, &r->memory, err);
    rc = rc ? rc : apply_cpu(cgroup, &r->cpu, err);
    rc = rc ? rc : apply_block(cgroup, &r->block, err);
    if (rc == 0 && cgroup_is_given(&r->pids))
        rc = put(cgroup, "pids.max", "pids.limit", r->pids.value, err);
    rc = rc ? rc : apply_hugepages(cgroup, r, err);
    rc = rc ? rc : apply_rdma(cgroup, r, err);
    return rc ? rc : apply_unified(cgroup, r, err);
}

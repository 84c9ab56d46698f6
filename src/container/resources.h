/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a container may use of its host: `linux.resources` of an OCI configuration (runtime-spec 1.2,
 * config-linux.md, "Control groups"), as config.json has it and as `update --resources` gets it. Only what is
 * set is changed by cgroup_apply(); as with other runtimes a limit of 0 is one that was left out, but where 0
 * has a meaning.
 */
#ifndef TABIQUE_CONTAINER_RESOURCES_H
#define TABIQUE_CONTAINER_RESOURCES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

/* A number that may have been left out. */
struct container_value {
    bool set;
    int64_t value;
};

#define CONTAINER_DEVICE_READ  1u
#define CONTAINER_DEVICE_WRITE 2u
#define CONTAINER_DEVICE_MKNOD 4u
#define CONTAINER_DEVICE_ALL   7u
#define CONTAINER_DEVICE_ANY   (-1) /* as a major or minor number */

/* Rules hold in their order: what comes later overrules what came before. */
struct container_device_rule {
    bool allow;
    char type;            /* 'a' (both kinds), 'b', 'c' */
    int64_t major, minor; /* or CONTAINER_DEVICE_ANY */
    unsigned access;      /* CONTAINER_DEVICE_* */
};

/* Bytes; -1 is no limit. */
struct container_memory {
    struct container_value limit, reservation;
    struct container_value swap;   /* memory and swap together */
    struct container_value kernel; /* read and ignored: kernels have given it up */
    struct container_value kernel_tcp;
    struct container_value swappiness; /* 0..100 */
    struct container_value disable_oom_killer;
    bool check_before_update; /* refuse a limit below what is in use */
};

/* Microseconds. */
struct container_cpu {
    struct container_value shares, quota, burst, period, realtime_runtime, realtime_period, idle;
    char *cpus, *mems; /* lists as "0-3,7", or NULL */
};

struct container_block_weight {
    uint32_t major, minor;
    struct container_value weight, leaf_weight;
};

struct container_block_limit {
    uint32_t major, minor;
    uint64_t rate; /* bytes or operations a second; 0 is no limit */
};

enum container_block_throttle {
    CONTAINER_READ_BPS,
    CONTAINER_WRITE_BPS,
    CONTAINER_READ_IOPS,
    CONTAINER_WRITE_IOPS,
    CONTAINER_THROTTLES
};

struct container_block_io {
    struct container_value weight, leaf_weight; /* 10..1000 */
    struct container_block_weight *weights;
    size_t n_weights;
    struct {
        struct container_block_limit *limits;
        size_t n;
    } throttle[CONTAINER_THROTTLES];
};

struct container_hugepages {
    char *page_size; /* "2MB": a file of the hugetlb controller has it in its name */
    uint64_t limit;
};

struct container_rdma {
    char *device;
    struct container_value handles, objects;
};

struct container_priority {
    char *interface;
    uint32_t priority;
};

/* A file of cgroup v2 and what is written to it. */
struct container_unified {
    char *file, *value;
};

struct container_resources {
    bool devices_set; /* the list was there, if only an empty one */
    struct container_device_rule *devices;
    size_t n_devices;
    struct container_memory memory;
    struct container_cpu cpu;
    struct container_block_io block;
    struct container_value pids; /* processes and threads; below 0 is no limit */
    struct container_hugepages *hugepages;
    size_t n_hugepages;
    struct container_rdma *rdma;
    size_t n_rdma;
    struct container_value network_class;
    struct container_priority *priorities;
    size_t n_priorities;
    struct container_unified *unified;
    size_t n_unified;
};

/*
 * Reads the object `json`; NULL and JSON's null are one without any limits. What the specification does not
 * know is passed over, as it demands. *out, untouched on failure, is to be freed with
 * container_resources_free. 0; -EINVAL with *err, which begins with the field's path
 * (`linux.resources.memory.limit: ...`); -ENOMEM.
 */
int container_resources_parse(json_t *json, struct container_resources *out, struct error **err);

/* Frees what it points to and leaves it without limits. */
void container_resources_free(struct container_resources *resources);

#endif

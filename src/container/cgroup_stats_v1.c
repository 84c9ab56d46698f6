/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Statistics from the trees of cgroup v1. No state, no locks. */
#include "container/cgroup_stats_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NS_A_TICK 10000000 /* cpuacct.stat counts in hundredths of a second (USER_HZ) */

static json_t *numbers_of(const char *directory, const char *file)
{
    cleanup_free char *text = directory ? cgroup_read_all(directory, file) : NULL;
    json_t *list = json_array();

    for (char *at = text, *end; at && *at; at = end) {
        long long value = strtoll(at, &end, 10);
        if (end == at)
            break;
        json_array_append_new(list, json_integer(value));
        end += strspn(end, " \n");
    }
    return list;
}

static json_t *cpu(const struct cgroup *cgroup)
{
    const char *account = cgroup_v1(cgroup, "cpuacct"), *scheduler = cgroup_v1(cgroup, "cpu");
    json_t *usage = json_object(), *throttling = json_object();
    int64_t user = 0, kernel = 0, value;

    stats_put_file(usage, "total", account, "cpuacct.usage");
    json_object_set_new(usage, "percpu", numbers_of(account, "cpuacct.usage_percpu"));
    json_object_set_new(usage, "percpu_kernel", numbers_of(account, "cpuacct.usage_percpu_sys"));
    json_object_set_new(usage, "percpu_user", numbers_of(account, "cpuacct.usage_percpu_user"));
    if (account) {
        cgroup_read_key(account, "cpuacct.stat", "user", &user);
        cgroup_read_key(account, "cpuacct.stat", "system", &kernel);
    }
    stats_put(usage, "kernel", kernel * NS_A_TICK);
    stats_put(usage, "user", user * NS_A_TICK);
    static const char *const names[][2] = {
        {"periods", "nr_periods"}, {"throttledPeriods", "nr_throttled"}, {"throttledTime", "throttled_time"}};
    for (size_t i = 0; scheduler && i < ARRAY_SIZE(names); i++)
        if (cgroup_read_key(scheduler, "cpu.stat", names[i][1], &value) == 0)
            stats_put(throttling, names[i][0], value);
    json_t *cpu = json_pack("{s:o, s:o}", "usage", usage, "throttling", throttling);
    stats_put_pressure(cpu, cgroup_v2(cgroup), "cpu.pressure");
    return cpu;
}

static json_t *cpuset(const struct cgroup *cgroup)
{
    static const char *const names[][2] = {
        {"cpu_exclusive", "cpuset.cpu_exclusive"},
        {"mem_hardwall", "cpuset.mem_hardwall"},
        {"mem_exclusive", "cpuset.mem_exclusive"},
        {"memory_migrate", "cpuset.memory_migrate"},
        {"memory_spread_page", "cpuset.memory_spread_page"},
        {"memory_spread_slab", "cpuset.memory_spread_slab"},
        {"memory_pressure", "cpuset.memory_pressure"},
        {"sched_load_balance", "cpuset.sched_load_balance"},
        {"sched_relax_domain_level", "cpuset.sched_relax_domain_level"},
    };
    const char *directory = cgroup_v1(cgroup, "cpuset");
    json_t *set = json_object();

    stats_put_set(set, "cpus", directory, "cpuset.cpus");
    stats_put_set(set, "mems", directory, "cpuset.mems");
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        stats_put_file(set, names[i][0], directory, names[i][1]);
    return set;
}

/* memory.usage_in_bytes and its like, of memory, of memory and swap ("memsw."), and of the kernel's. */
static json_t *memory_entry(const char *directory, const char *kind)
{
    static const char *const names[][2] = {{"limit", "limit_in_bytes"},
                                           {"usage", "usage_in_bytes"},
                                           {"max", "max_usage_in_bytes"},
                                           {"failcnt", "failcnt"}};
    json_t *entry = json_object();

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        char file[64];

        snprintf(file, sizeof(file), "memory.%s%s", kind, names[i][1]);
        if (!stats_put_file(entry, names[i][0], directory, file))
            stats_put(entry, names[i][0], 0);
    }
    return entry;
}

static json_t *memory(const struct cgroup *cgroup)
{
    const char *directory = cgroup_v1(cgroup, "memory");

    if (!directory)
        return json_object();
    json_t *raw = stats_flat(directory, "memory.stat");
    const json_t *cache = json_object_get(raw, "total_cache");
    json_t *memory = json_pack("{s:o, s:o, s:o, s:o, s:o}", "usage", memory_entry(directory, ""), "swap",
                               memory_entry(directory, "memsw."), "kernel", memory_entry(directory, "kmem."),
                               "kernelTCP", memory_entry(directory, "kmem.tcp."), "raw", raw);
    stats_put(memory, "cache", json_integer_value(cache));
    stats_put_pressure(memory, cgroup_v2(cgroup), "memory.pressure");
    return memory;
}

/* Lines "8:0 Read 4096"; the last one, "Total 4096", is of all devices. */
static json_t *block_list(const char *directory, const char *file)
{
    cleanup_free char *text = directory ? cgroup_read_all(directory, file) : NULL;
    json_t *list = json_array();
    char *save;

    for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
        uint32_t major, minor;
        int64_t value;
        char op[32];

        if (sscanf(line, "%" SCNu32 ":%" SCNu32 " %31s %" SCNd64, &major, &minor, op, &value) == 4)
            json_array_append_new(list, stats_block_entry(major, minor, op, value));
    }
    return list;
}

/* BFQ's counters if it has seen anything, else those of the throttling, which see all. */
static json_t *block_counters(const char *directory, const char *counter)
{
    char file[64];

    snprintf(file, sizeof(file), "blkio.bfq.%s_recursive", counter);
    json_t *list = block_list(directory, file);
    if (json_array_size(list))
        return list;
    json_decref(list);
    snprintf(file, sizeof(file), "blkio.throttle.%s_recursive", counter);
    return block_list(directory, file);
}

static json_t *block(const struct cgroup *cgroup)
{
    static const char *const older[][2] = {{"ioQueueRecursive", "blkio.bfq.io_queued_recursive"},
                                           {"ioServiceTimeRecursive", "blkio.bfq.io_service_time_recursive"},
                                           {"ioWaitTimeRecursive", "blkio.bfq.io_wait_time_recursive"},
                                           {"ioMergedRecursive", "blkio.bfq.io_merged_recursive"},
                                           {"ioTimeRecursive", "blkio.bfq.time_recursive"},
                                           {"sectorsRecursive", "blkio.bfq.sectors_recursive"}};
    const char *directory = cgroup_v1(cgroup, "blkio");
    json_t *block = json_object();

    json_object_set_new(block, "ioServiceBytesRecursive", block_counters(directory, "io_service_bytes"));
    json_object_set_new(block, "ioServicedRecursive", block_counters(directory, "io_serviced"));
    for (size_t i = 0; i < ARRAY_SIZE(older); i++) {
        json_t *list = block_list(directory, older[i][1]);

        if (json_array_size(list))
            json_object_set(block, older[i][0], list);
        json_decref(list);
    }
    stats_put_pressure(block, cgroup_v2(cgroup), "io.pressure");
    return block;
}

static json_t *pids(const struct cgroup *cgroup)
{
    const char *directory = cgroup_v1(cgroup, "pids");
    json_t *pids = json_object();
    int64_t limit;

    stats_put_file(pids, "current", directory, "pids.current");
    if (directory && cgroup_read_number(directory, "pids.max", &limit) == 0 && limit != INT64_MAX)
        stats_put(pids, "limit", limit);
    return pids;
}

void stats_fill_v1(json_t *stats, const struct cgroup *cgroup)
{
    const char *hugetlb = cgroup_v1(cgroup, "hugetlb");

    json_object_set_new(stats, "cpu", cpu(cgroup));
    json_object_set_new(stats, "cpuset", cpuset(cgroup));
    json_object_set_new(stats, "memory", memory(cgroup));
    json_object_set_new(stats, "pids", pids(cgroup));
    json_object_set_new(stats, "blkio", block(cgroup));
    json_object_set_new(stats, "hugetlb",
                        hugetlb ? stats_hugetlb(hugetlb, "usage_in_bytes", "max_usage_in_bytes", "failcnt")
                                : stats_hugetlb(cgroup_v2(cgroup), "current", "max", "events"));
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Statistics from the tree of cgroup v2. No state, no locks. */
#include "container/cgroup_stats_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int64_t number_of(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

/* v2 counts in microseconds. */
static json_t *cpu(const char *directory)
{
    json_t *flat = stats_flat(directory, "cpu.stat");
    json_t *cpu = json_pack("{s:{s:I, s:I, s:I}, s:{s:I, s:I, s:I}}", "usage", "total",
                            (json_int_t)number_of(flat, "usage_usec") * 1000, "kernel",
                            (json_int_t)number_of(flat, "system_usec") * 1000, "user",
                            (json_int_t)number_of(flat, "user_usec") * 1000, "throttling", "periods",
                            (json_int_t)number_of(flat, "nr_periods"), "throttledPeriods",
                            (json_int_t)number_of(flat, "nr_throttled"), "throttledTime",
                            (json_int_t)number_of(flat, "throttled_usec") * 1000);

    json_decref(flat);
    stats_put_pressure(cpu, directory, "cpu.pressure");
    return cpu;
}

static json_t *memory_entry(const char *directory, const char *kind, int64_t failed)
{
    static const char *const names[][2] = {{"limit", "max"}, {"usage", "current"}, {"max", "peak"}};
    json_t *entry = json_object();

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        char file[64];

        snprintf(file, sizeof(file), "memory.%s%s", kind, names[i][1]);
        stats_put_file(entry, names[i][0], directory, file);
    }
    stats_put(entry, "failcnt", failed);
    return entry;
}

/* As with v1, "swap" is memory and swap together. */
static json_t *memory(const char *directory)
{
    json_t *raw = stats_flat(directory, "memory.stat"), *events = stats_flat(directory, "memory.events");
    json_t *usage = memory_entry(directory, "", number_of(events, "max"));
    json_t *swap = memory_entry(directory, "swap.", 0);
    static const char *const summed[] = {"limit", "usage"};

    for (size_t i = 0; i < ARRAY_SIZE(summed); i++) {
        int64_t a = number_of(usage, summed[i]), b = number_of(swap, summed[i]);
        stats_put(swap, summed[i], a > INT64_MAX - b ? INT64_MAX : a + b);
    }
    json_object_del(swap, "max");
    json_t *memory =
        json_pack("{s:I, s:o, s:o, s:{s:I, s:I, s:I}, s:o}", "cache", (json_int_t)number_of(raw, "file"),
                  "usage", usage, "swap", swap, "kernel", "limit", (json_int_t)0, "usage",
                  (json_int_t)number_of(raw, "kernel"), "failcnt", (json_int_t)0, "raw", raw);
    json_decref(events);
    stats_put_pressure(memory, directory, "memory.pressure");
    return memory;
}

/* Lines "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0". */
static void block_line(char *line, json_t *bytes, json_t *operations)
{
    static const struct {
        const char *key, *op;
        bool is_bytes;
    } kinds[] = {{"rbytes", "Read", true}, {"wbytes", "Write", true}, {"dbytes", "Discard", true},
                 {"rios", "Read", false},  {"wios", "Write", false},  {"dios", "Discard", false}};
    uint32_t major, minor;
    char *save;

    if (sscanf(line, "%" SCNu32 ":%" SCNu32, &major, &minor) != 2)
        return;
    for (char *word = strtok_r(line, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        char *equals = strchr(word, '=');
        if (!equals)
            continue;
        *equals = '\0';
        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
            if (strcmp(word, kinds[i].key) == 0)
                json_array_append_new(
                    kinds[i].is_bytes ? bytes : operations,
                    stats_block_entry(major, minor, kinds[i].op, strtoll(equals + 1, NULL, 10)));
    }
}

static json_t *block(const char *directory)
{
    cleanup_free char *text = cgroup_read_all(directory, "io.stat");
    json_t *bytes = json_array(), *operations = json_array();
    char *save;

    for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save))
        block_line(line, bytes, operations);
    json_t *block =
        json_pack("{s:o, s:o}", "ioServiceBytesRecursive", bytes, "ioServicedRecursive", operations);
    stats_put_pressure(block, directory, "io.pressure");
    return block;
}

static json_t *pids(const char *directory)
{
    json_t *pids = json_object();
    int64_t limit;

    stats_put_file(pids, "current", directory, "pids.current");
    if (cgroup_read_number(directory, "pids.max", &limit) == 0 && limit != INT64_MAX)
        stats_put(pids, "limit", limit);
    return pids;
}

void stats_fill_v2(json_t *stats, const struct cgroup *cgroup)
{
    const char *directory = cgroup_v2(cgroup);
    json_t *set = json_object();

    if (!directory)
        return;
    json_object_set_new(stats, "cpu", cpu(directory));
    stats_put_set(set, "cpus", directory, "cpuset.cpus.effective");
    stats_put_set(set, "mems", directory, "cpuset.mems.effective");
    json_object_set_new(stats, "cpuset", set);
    json_object_set_new(stats, "memory", memory(directory));
    json_object_set_new(stats, "pids", pids(directory));
    json_object_set_new(stats, "blkio", block(directory));
    json_object_set_new(stats, "hugetlb", stats_hugetlb(directory, "current", "max", "events"));
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is told of a running guest's use of its host: of its processes or groups, and what its VM process has
 * counted. */
#include "base/bytes.h"
#include "guest/container_process.h"
#include "guest/engine_stats.h"
#include "guest/proc_stats.h"
#include "guest/supervisor_priv.h"

static json_t *stats_json(const struct supervisor *s, const struct proc_stats *stats,
                          const struct vm_message *m)
{
    static const struct {
        const char *key;
        enum vm_stat stat;
    } counted[] = {
        {"resets", VM_STAT_RESTARTS},
        {"net-received-bytes", VM_STAT_NET_RX_BYTES},
        {"net-received-packets", VM_STAT_NET_RX_PACKETS},
        {"net-received-dropped", VM_STAT_NET_RX_DROPS},
        {"net-sent-bytes", VM_STAT_NET_TX_BYTES},
        {"net-sent-packets", VM_STAT_NET_TX_PACKETS},
        {"net-sent-dropped", VM_STAT_NET_TX_DROPS},
        {"balloon-target-bytes", VM_STAT_BALLOON_TARGET},
        {"balloon-bytes", VM_STAT_BALLOON},
        {"reported-free-bytes", VM_STAT_MEMORY_REPORTED},
        {"guest-memory-total", VM_STAT_MEMORY_TOTAL},
        {"guest-memory-free", VM_STAT_MEMORY_FREE},
        {"guest-memory-available", VM_STAT_MEMORY_AVAILABLE},
        {"guest-memory-caches", VM_STAT_MEMORY_CACHES},
    };
    json_t *json =
        json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "ok", 1, "cpu-ns", (json_int_t)stats->cpu_ns,
                  "resident-bytes", (json_int_t)stats->resident, "guest-ram-bytes", (json_int_t)stats->shared,
                  "threads", (json_int_t)stats->threads, "uptime-ns",
                  (json_int_t)(loop_now() - s->started_at), "log-bytes-lost", (json_int_t)s->log.lost);

    for (size_t i = 0; i < ARRAY_SIZE(counted); i++)
        json_object_set_new(json, counted[i].key, json_integer((json_int_t)m->stats[counted[i].stat]));
    engine_stats_put(json, &m->engine);
    return json;
}

static int64_t number_at(const json_t *json, const char *a, const char *b, const char *c)
{
    const json_t *inner = json_object_get(json_object_get(json, a), b);

    return json_integer_value(c ? json_object_get(inner, c) : inner);
}

/* Of a container its groups count, and what they tell is told whole. */
static json_t *take_container_stats(const struct supervisor *s, struct proc_stats *stats)
{
    json_t *json = container_process_stats(s->guest->home, s->guest->row.name);

    stats->cpu_ns = (uint64_t)number_at(json, "cpu", "usage", "total");
    stats->resident = (uint64_t)number_at(json, "memory", "usage", "usage");
    stats->threads = (unsigned)number_at(json, "pids", "current", NULL);
    return json;
}

json_t *supervisor_stats(const struct supervisor *s, const struct vm_message *m)
{
    struct proc_stats stats = {0};

    json_t *container = s->config.container ? take_container_stats(s, &stats) : NULL;
    if (s->vm.pid && !container)
        proc_stats_read(s->vm.pid, &stats);
    json_t *json = stats_json(s, &stats, m);
    if (container)
        json_object_set_new(json, "container", container);
    return json;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an engine tells of its work as JSON. The names here are those of docs/control-protocol.md. */
#include "guest/engine_stats.h"

#include "engine/profile.h"
#include "engine/stats.h"

#include <inttypes.h>
#include <stdio.h>

static const char *const activity_names[ENGINE_ACTIVITIES] = {
    [ENGINE_IDLE] = "idle",       [ENGINE_TRANSLATED] = "translated",
    [ENGINE_DIRECT] = "direct",   [ENGINE_TRANSLATING] = "translating",
    [ENGINE_HELPING] = "helpers",
};

static const char *const exit_names[ENGINE_EXITS] = {
    [ENGINE_EXIT_LINK] = "link",       [ENGINE_EXIT_LOOKUP] = "lookup", [ENGINE_EXIT_MODE] = "mode",
    [ENGINE_EXIT_HANDLER] = "handler", [ENGINE_EXIT_FAULT] = "fault",
};

static const char *const stop_names[ENGINE_STOPS] = {
    [ENGINE_STOP_CALL] = "call",           [ENGINE_STOP_MAP] = "map",
    [ENGINE_STOP_FAULT] = "fault",         [ENGINE_STOP_PAGE] = "page",
    [ENGINE_STOP_INTERRUPT] = "interrupt",
};

static json_t *named(const char *const *names, const uint64_t *numbers, size_t n)
{
    json_t *json = json_object();

    for (size_t i = 0; i < n; i++)
        json_object_set_new(json, names[i], json_integer((json_int_t)numbers[i]));
    return json;
}

static json_t *cpu_json(const struct engine_cpu_stats *c)
{
    return json_pack("{s:o, s:o, s:o, s:I, s:I, s:I, s:I}", "samples",
                     named(activity_names, c->samples, ENGINE_ACTIVITIES), "exits",
                     named(exit_names, c->exits, ENGINE_EXITS), "stops",
                     named(stop_names, c->stops, ENGINE_STOPS), "handlers", (json_int_t)c->handlers,
                     "slow-accesses", (json_int_t)c->slow_accesses, "interrupts", (json_int_t)c->interrupts,
                     "blocks", (json_int_t)c->blocks);
}

void engine_stats_put(json_t *object, const struct engine_stats *stats)
{
    if (!stats->cpus)
        return;
    json_t *cpus = json_array();
    for (unsigned n = 0; n < stats->cpus; n++)
        json_array_append_new(cpus, cpu_json(&stats->cpu[n]));
    json_object_set_new(object, "vcpus", cpus);
    if (stats->no_direct[0])
        json_object_set_new(object, "no-direct-execution", json_string(stats->no_direct));
    json_object_set_new(object, "code-cache",
                        json_pack("{s:I, s:I, s:I, s:I}", "bytes", (json_int_t)stats->cache_bytes,
                                  "used-bytes", (json_int_t)stats->cache_used, "blocks",
                                  (json_int_t)stats->cache_blocks, "flushes",
                                  (json_int_t)stats->cache_flushes));
}

/* Addresses do not fit into JSON's integers, which are signed in most programs. */
static json_t *address_json(uint64_t address)
{
    char text[20];

    snprintf(text, sizeof(text), "%" PRIx64, address);
    return json_string(text);
}

static json_t *sample_json(const struct engine_sample *s)
{
    json_t *stack = json_array();

    for (unsigned i = 0; i < s->depth; i++)
        json_array_append_new(stack, address_json(s->stack[i]));
    return json_pack("{s:I, s:i, s:I, s:s, s:i, s:o, s:o}", "time-ns", (json_int_t)s->time, "vcpu",
                     (int)s->cpu, "weight", (json_int_t)s->weight, "at", activity_names[s->activity], "cpl",
                     (int)s->cpl, "cr3", address_json(s->cr3), "stack", stack);
}

json_t *engine_profile_json(const struct engine_profile *profile)
{
    json_t *samples = json_array();

    for (unsigned i = 0; i < profile->n; i++)
        json_array_append_new(samples, sample_json(&profile->samples[i]));
    return json_pack("{s:b, s:I, s:I, s:b, s:o, s:o}", "ok", 1, "frequency", (json_int_t)profile->hz, "lost",
                     (json_int_t)profile->lost, "more", (int)profile->more, "syscall-entry",
                     address_json(profile->syscall_entry), "samples", samples);
}

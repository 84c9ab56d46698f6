/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `stats`. */
#include "base/error.h"
#include "cli/guests.h"
#include "guest/control.h"
#include "guest/end.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define WATCH_US 1000000
/* Two looks so far apart give the percentage where nobody watches. */
#define LOOK_US 200000

struct sample {
    char *name;
    json_t *now;
    double percent;
    json_t *vcpus; /* of each processor: by what it was at, the percentage of the time between two answers */
};

static int64_t number(const json_t *json, const char *key)
{
    return json_integer_value(json_object_get(json, key));
}

/* Of one processor, between two answers. */
static double percent(const json_t *before, const json_t *now)
{
    int64_t passed = number(now, "uptime-ns") - number(before, "uptime-ns");
    int64_t used = number(now, "cpu-ns") - number(before, "cpu-ns");

    return before && passed > 0 && used >= 0 ? 100.0 * (double)used / (double)passed : 0;
}

/* How a vCPU's time was spent between two answers, in percent; an empty object where nobody has looked. */
static json_t *shares(const json_t *before, const json_t *now)
{
    json_t *out = json_object(), *samples = json_object_get(now, "samples"), *value;
    const json_t *old = json_object_get(before, "samples");
    const char *key;
    int64_t sum = 0;

    json_object_foreach(samples, key, value) sum += json_integer_value(value) - number(old, key);
    json_object_foreach(samples, key, value)
    {
        if (sum > 0)
            json_object_set_new(
                out, key,
                json_real(100.0 * (double)(json_integer_value(value) - number(old, key)) / (double)sum));
    }
    return out;
}

static json_t *all_shares(const json_t *before, const json_t *now)
{
    const json_t *vcpus = json_object_get(now, "vcpus"), *old = json_object_get(before, "vcpus"), *vcpu;
    json_t *out = json_array();
    size_t i;

    json_array_foreach(vcpus, i, vcpu) json_array_append_new(out, shares(json_array_get(old, i), vcpu));
    return out;
}

/* A line for each vCPU: its time since the last answer, and what it has done since the guest's start. */
static void print_vcpus(const struct sample *s)
{
    const json_t *vcpus = json_object_get(s->now, "vcpus"), *cache = json_object_get(s->now, "code-cache"),
                 *vcpu;
    const char *no_direct = json_string_value(json_object_get(s->now, "no-direct-execution"));
    char used[32], room[32];
    size_t i;

    json_array_foreach(vcpus, i, vcpu)
    {
        json_t *of_time = json_array_get(s->vcpus, i), *exits = json_object_get(vcpu, "exits"),
               *stops = json_object_get(vcpu, "stops"), *value;
        const char *key;

        printf("  vCPU %zu:", i);
        json_object_foreach(of_time, key, value) printf(" %s %.0f %%,", key, json_real_value(value));
        printf(" exits:");
        json_object_foreach(exits, key, value) printf(" %s %lld,", key, (long long)json_integer_value(value));
        printf(" stops:");
        json_object_foreach(stops, key, value) printf(" %s %lld,", key, (long long)json_integer_value(value));
        printf(" handlers %lld, slow accesses %lld, interrupts %lld, blocks %lld\n",
               (long long)number(vcpu, "handlers"), (long long)number(vcpu, "slow-accesses"),
               (long long)number(vcpu, "interrupts"), (long long)number(vcpu, "blocks"));
    }
    if (no_direct)
        printf("  all user code is translated: %s\n", no_direct);
    if (!cache)
        return;
    cli_format_bytes(used, sizeof(used), (uint64_t)number(cache, "used-bytes"), false);
    cli_format_bytes(room, sizeof(room), (uint64_t)number(cache, "bytes"), false);
    printf("  code cache: %s of %s, %lld blocks, flushed %lld times\n", used, room,
           (long long)number(cache, "blocks"), (long long)number(cache, "flushes"));
}

static void print_line(const struct sample *s)
{
    char resident[32], ram[32], given[32], target[32], balloon[80] = "-", up[40];

    cli_format_bytes(resident, sizeof(resident), (uint64_t)number(s->now, "resident-bytes"), false);
    cli_format_bytes(ram, sizeof(ram), (uint64_t)number(s->now, "guest-ram-bytes"), false);
    cli_format_bytes(given, sizeof(given), (uint64_t)number(s->now, "balloon-bytes"), false);
    cli_format_bytes(target, sizeof(target), (uint64_t)number(s->now, "balloon-target-bytes"), false);
    if (number(s->now, "balloon-bytes") || number(s->now, "balloon-target-bytes"))
        snprintf(balloon, sizeof(balloon), "%s of %s", given, target);
    cli_format_span(up, sizeof(up), number(s->now, "uptime-ns"));
    printf("%-24s  %6.1f  %8.1f  %8s  %9s  %14s  %7lld  %s\n", s->name, s->percent,
           (double)number(s->now, "cpu-ns") / 1e9, resident, ram, balloon,
           (long long)number(s->now, "threads"), up);
}

static int print_json(const struct sample *s, struct error **err)
{
    json_t *json = json_copy(s->now);

    json_object_del(json, "ok");
    json_object_set_new(json, "name", json_string(s->name));
    json_object_set_new(json, "cpu-percent", json_real((double)(int64_t)(s->percent * 10 + 0.5) / 10));
    if (json_array_size(s->vcpus))
        json_object_set(json, "vcpu-percent", s->vcpus);
    return cli_print_json(json, JSON_COMPACT | JSON_REAL_PRECISION(6), err);
}

static int print_all(const struct sample *samples, size_t n, bool json, bool vcpus, struct error **err)
{
    int rc = 0;

    if (!json)
        printf("%-24s  %6s  %8s  %8s  %9s  %14s  %7s  %s\n", "NAME", "CPU %", "CPU s", "MEMORY", "GUEST RAM",
               "BALLOON", "THREADS", "RUNNING");
    for (size_t i = 0; rc == 0 && i < n; i++) {
        if (!samples[i].now)
            continue;
        if (json)
            rc = print_json(&samples[i], err);
        else
            print_line(&samples[i]);
        if (!json && vcpus)
            print_vcpus(&samples[i]);
    }
    return rc == 0 && fflush(stdout) != 0 ? error_set_errno(err, errno, "standard output") : rc;
}

/* One that has ended meanwhile is left out. */
static int take(const struct home *home, struct sample *samples, size_t n, bool must_run, struct error **err)
{
    const struct control_request request = {.verb = CONTROL_STATS};

    for (size_t i = 0; i < n; i++) {
        json_t *answer = NULL;
        int rc = guest_ask(home, samples[i].name, &request, &answer, must_run ? err : NULL);

        if (rc && must_run)
            return rc;
        samples[i].percent = percent(samples[i].now, answer);
        json_decref(samples[i].vcpus);
        samples[i].vcpus = all_shares(samples[i].now, answer);
        json_decref(samples[i].now);
        samples[i].now = answer;
    }
    return 0;
}

/* Those that are named, or all that run. */
static int choose(const struct home *home, const struct cli_values *values, struct sample **out,
                  size_t *n_out, struct error **err)
{
    size_t n, n_rows = 0;
    const char **names = cli_list(values, "NAME", &n);
    struct guest_row *rows = NULL;
    int rc = n ? 0 : guest_list(home, &rows, &n_rows, err);

    if (rc)
        return rc;
    struct sample *samples = calloc(n + n_rows + 1, sizeof(*samples));
    size_t kept = 0;
    for (size_t i = 0; samples && i < n; i++)
        samples[kept++].name = strdup(names[i]);
    for (size_t i = 0; samples && i < n_rows; i++)
        if (rows[i].state == GUEST_RUNNING || rows[i].state == GUEST_PAUSED)
            samples[kept++].name = strdup(rows[i].name);
    guest_list_free(rows, n_rows);
    if (!samples)
        return error_set_errno(err, ENOMEM, "list of guests");
    *out = samples;
    *n_out = kept;
    return 0;
}

int cli_stats(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    bool json = cli_bool(values, "json"), watch = cli_bool(values, "watch"), first = true;
    struct sample *samples = NULL;
    size_t n = 0, named;
    int rc = home_find(&home, err);

    cli_list(values, "NAME", &named);
    if (rc == 0)
        rc = choose(&home, values, &samples, &n, err);
    if (rc == 0)
        rc = take(&home, samples, n, named > 0, err);
    while (rc == 0) {
        usleep(first ? LOOK_US : WATCH_US);
        rc = take(&home, samples, n, named > 0 && first, err);
        if (rc == 0 && watch && !json && isatty(STDOUT_FILENO))
            fputs("\033[H\033[2J", stdout);
        if (rc == 0)
            rc = print_all(samples, n, json, named > 0, err);
        first = false;
        if (!watch)
            break;
    }
    for (size_t i = 0; i < n; i++) {
        free(samples[i].name);
        json_decref(samples[i].now);
        json_decref(samples[i].vcpus);
    }
    free(samples);
    *status = rc ? CLI_STATUS_FAILED : 0;
    return rc;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tabique-oci events: what a container uses, each few seconds or once, and when its memory was used up; JSON
 * lines. */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/oci.h"
#include "container/cgroup.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define INTERVAL_MS 5000
#define CHECK_MS    500 /* whether the container has ended */

static const struct oci_flag flags[] = {
    {"interval", 0, OCI_STRING, "TIME", "between two statistics, as 5s, 500ms, 1m; 5s without"},
    {"stats", 0, OCI_BOOL, NULL, "statistics once, and no more"},
};

/* Durations as Go has them: a number and a unit, several times. */
static int parse_interval(const char *text, int64_t *ms, struct error **err)
{
    static const struct {
        const char *name;
        double ms;
    } units[] = {{"ns", 1e-6}, {"us", 1e-3}, {"ms", 1}, {"s", 1e3}, {"m", 60e3}, {"h", 3600e3}};
    double total = 0;
    const char *p = text;

    while (*p) {
        char *end;
        double value = strtod(p, &end);
        size_t n = strspn(end, "nmush"), i = 0;

        while (i < ARRAY_SIZE(units) && (strlen(units[i].name) != n || strncmp(units[i].name, end, n) != 0))
            i++;
        if (end == p || i == ARRAY_SIZE(units))
            break;
        total += value * units[i].ms;
        p = end + n;
    }
    if (*p || total < 1 || total > 1e12)
        return error_set(err, EINVAL, "--interval %s: a time above 0 is expected, as 5s or 500ms", text);
    *ms = (int64_t)total;
    return 0;
}

static int print(const char *type, const char *id, json_t *data, struct error **err)
{
    json_t *json = json_pack("{s:s, s:s, s:o*}", "type", type, "id", id, "data", data);
    cleanup_free char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

    json_decref(json);
    if (!text)
        return error_set_errno(err, ENOMEM, "events");
    return puts(text) < 0 || fflush(stdout) ? error_set_errno(err, errno, "standard output") : 0;
}

static int print_stats(const struct container_runtime *runtime, const char *id, struct error **err)
{
    json_t *data = container_stats(runtime, id, err);

    return data ? print("stats", id, data, err) : -(error_errno(err ? *err : NULL) ?: EIO);
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool has_ended(const struct container_runtime *runtime, const char *id)
{
    enum container_status status;

    return container_open_cgroup(runtime, id, NULL, &status, NULL) || status == CONTAINER_STOPPED;
}

static int follow(const struct container_runtime *runtime, const char *id, int64_t interval,
                  struct cgroup_oom *oom, int fd, struct error **err)
{
    int64_t next = now_ms() + interval;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int rc = 0;

    while (rc == 0) {
        int64_t left = next - now_ms();

        if (poll(&p, 1, (int)(left < 0 ? 0 : left < CHECK_MS ? left : CHECK_MS)) > 0) {
            int kills = cgroup_oom_read(oom);

            if (kills < 0)
                return 0;
            for (int i = 0; rc == 0 && i < kills; i++)
                rc = print("oom", id, NULL, err);
        }
        if (has_ended(runtime, id))
            return rc;
        if (rc == 0 && now_ms() >= next) {
            struct error *why = NULL;

            /* It may have ended between the two looks. */
            rc = print_stats(runtime, id, &why);
            rc = rc && has_ended(runtime, id) ? -ESRCH : rc;
            if (rc == -ESRCH) {
                error_free(why);
                return 0;
            }
            if (rc)
                *err = why;
            next += interval;
        }
    }
    return rc;
}

static int run(const struct container_runtime *runtime, const struct oci_values *values, int *status,
               struct error **err)
{
    const char *id = oci_words(values, NULL)[0], *text = oci_string(values, "interval");
    struct cgroup *group = NULL;
    struct cgroup_oom *oom;
    int64_t interval = INTERVAL_MS;
    int fd, rc = text ? parse_interval(text, &interval, err) : 0;

    if (rc)
        return rc;
    if (oci_bool(values, "stats"))
        return print_stats(runtime, id, err);
    if (has_ended(runtime, id)) {
        rc = container_open_cgroup(runtime, id, NULL, NULL, err);
        return rc ? rc : error_set(err, EINVAL, "container with id %s is not running", id);
    }
    rc = container_open_cgroup(runtime, id, &group, NULL, err);
    if (rc == 0 && !group)
        rc = error_set(err, ENOTSUP, "container %s has no control groups to tell of", id);
    rc = rc ? rc : cgroup_oom_open(group, &oom, &fd, err);
    cgroup_free(group);
    if (rc)
        return rc;
    rc = follow(runtime, id, interval, oom, fd, err);
    cgroup_oom_close(oom);
    return rc;
}

const struct oci_verb oci_events_verb = {
    "events", "ID", "what a container uses, and when its memory was used up", flags, ARRAY_SIZE(flags), 1,
    1,        run};

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Groups that systemd makes: a transient scope, asked for over D-Bus. It is handed over to us (Delegate), so
 * that its files are ours to write; what systemd would write there itself, when it reads its configuration
 * again, it is told as properties too. A scope begins with a process in it and ends with its last one: until
 * the container's own has come in, a child of ours, the keeper, holds it open. No locks.
 */
#include "container/cgroup_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "container/bus.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define START_MS 10000

static const struct bus_peer manager = {"org.freedesktop.systemd1", "/org/freedesktop/systemd1",
                                        "org.freedesktop.systemd1.Manager"};

/* ---- the connection ---- */

/* A descriptor, or -errno with *err. */
static int open_bus(bool rootless, struct error **err)
{
    int bus = bus_open(rootless);

    if (bus < 0)
        return error_set_errno(err, -bus,
                               "systemd can't be reached over D-Bus (is it running%s? without it, leave "
                               "--systemd-cgroup out)",
                               rootless ? ", with a session of yours" : "");
    return bus;
}

/* `what` is what systemd is asked to do. The body is freed. */
static int call(int bus, const char *method, const char *signature, struct buffer *body, const char *what,
                const char *unit, struct error **err)
{
    char why[256];
    int rc = bus_call(bus, &manager, method, signature, body, why, sizeof(why));

    free(body->data);
    return rc ? error_set(err, -rc, "systemd does not %s %s: %s", what, unit, why) : 0;
}

/* ---- names ---- */

/* "slice:prefix:name" -> the slice and the scope's name. */
static int parse_path(const struct cgroup_request *request, char *slice, char *unit, size_t size,
                      struct error **err)
{
    const char *path = request->path && *request->path ? request->path : NULL;
    const char *first = path ? strchr(path, ':') : NULL, *second = first ? strchr(first + 1, ':') : NULL;
    int n;

    snprintf(slice, size, "%s", request->rootless ? "user.slice" : "system.slice");
    if (!path) {
        n = snprintf(unit, size, "tabique-%s.scope", request->id);
    } else if (!second || strchr(second + 1, ':') || !second[1]) {
        return error_set(err, EINVAL,
                         "linux.cgroupsPath: '%s' is not slice:prefix:name, as the systemd driver wants it",
                         path);
    } else {
        if (first > path)
            snprintf(slice, size, "%.*s", (int)(first - path), path);
        int prefix = (int)(second - first - 1);
        n = snprintf(unit, size, "%.*s%s%s.scope", prefix, first + 1, prefix ? "-" : "", second + 1);
    }
    if (n >= (int)size || strlen(slice) + 1 >= size)
        return error_set(err, ENAMETOOLONG, "linux.cgroupsPath: more than %zu bytes for a unit's name", size);
    if (strchr(unit, '/') || strchr(slice, '/'))
        return error_set(err, EINVAL, "linux.cgroupsPath: no '/' may be in the names of units");
    return 0;
}

/* ---- the keeper ---- */

static pid_t start_keeper(void)
{
    pid_t parent = getpid(), pid = fork();

    if (pid != 0)
        return pid;
    /* Whatever ends us ends it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "scope-keeper");
    while (getppid() == parent)
        pause();
    _exit(0);
}

void cgroup_systemd_end_keeper(pid_t keeper)
{
    if (keeper <= 0)
        return;
    kill(keeper, SIGKILL);
    while (waitpid(keeper, NULL, 0) < 0 && errno == EINTR)
        ;
}

void cgroup_systemd_release(struct cgroup *cgroup)
{
    cgroup_systemd_end_keeper(cgroup->keeper);
    cgroup->keeper = 0;
}

/* Where the keeper is now, in the tree that is systemd's own; "" where it is told of none. */
static int place_of(pid_t keeper, char *path, size_t size)
{
    char directory[32];
    struct cgroup_tree *trees;
    size_t n;

    snprintf(directory, sizeof(directory), "/proc/%d", keeper);
    cleanup_free char *own = cgroup_read_all(directory, "cgroup");
    cleanup_free char *mountinfo = own ? cgroup_read_all("/proc/self", "mountinfo") : NULL;
    if (!mountinfo)
        return -errno;
    int rc = cgroup_parse_trees(mountinfo, own, &trees, &n);
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++)
        if (!*trees[i].controllers || strcmp(trees[i].controllers, "name=systemd") == 0)
            snprintf(path, size, "%s", trees[i].own);
    cgroup_trees_free(trees, n);
    return 0;
}

/*
 * The job that starts the scope is done when its process is where it belongs: systemd makes the group and
 * hands the controllers down before it moves anybody.
 */
static int wait_for_scope(pid_t keeper, const char *unit, char *path, size_t size)
{
    for (int waited = 0; waited < START_MS; waited++) {
        path[0] = '\0';
        int rc = place_of(keeper, path, size);
        const char *last = strrchr(path, '/');

        if (rc)
            return rc;
        if (last && strcmp(last + 1, unit) == 0)
            return 0;
        usleep(1000);
    }
    return -ETIMEDOUT;
}

/* ---- the scope ---- */

static int start_scope(int bus, const char *unit, const char *slice, pid_t keeper, struct error **err)
{
    struct buffer body = {0};
    char description[300];

    snprintf(description, sizeof(description), "Container %s", unit);
    bus_put_string(&body, unit);
    bus_put_string(&body, "fail");
    size_t properties = bus_begin_array(&body, 8);
    bus_put_property_string(&body, "Description", description);
    bus_put_property_string(&body, "Slice", slice);
    bus_put_property_list(&body, "PIDs", (uint32_t)keeper);
    bus_put_property_bool(&body, "Delegate", true);
    bus_put_property_bool(&body, "DefaultDependencies", false);
    bus_put_property_string(&body, "CollectMode", "inactive-or-failed");
    bus_put_property_bool(&body, "CPUAccounting", true);
    bus_put_property_bool(&body, "MemoryAccounting", true);
    bus_put_property_bool(&body, "TasksAccounting", true);
    bus_end_array(&body, properties, 8);
    /* Units that are to be started with it: none. */
    bus_end_array(&body, bus_begin_array(&body, 8), 8);
    return call(bus, "StartTransientUnit", "ssa(sv)a(sa(sv))", &body, "start", unit, err);
}

int cgroup_systemd_start(const struct cgroup_request *request, struct cgroup_scope *scope, struct error **err)
{
    char slice[NAME_MAX], unit[NAME_MAX];
    int rc = parse_path(request, slice, unit, sizeof(unit), err);
    cleanup_close int bus = rc ? -1 : open_bus(request->rootless, err);

    if (rc || bus < 0)
        return rc ? rc : bus;
    pid_t keeper = start_keeper();
    rc = keeper < 0 ? error_set_errno(err, errno, "starting a process for the scope %s", unit)
                    : start_scope(bus, unit, slice, keeper, err);
    if (rc == 0) {
        rc = wait_for_scope(keeper, unit, scope->path, sizeof(scope->path));
        if (rc)
            error_set_errno(err, -rc, "waiting for systemd to start %s", unit);
    }
    scope->unit = rc ? NULL : strdup(unit);
    if (rc == 0 && !scope->unit)
        rc = error_set_errno(err, ENOMEM, "starting the scope %s", unit);
    if (rc) {
        cgroup_systemd_end_keeper(keeper);
        return rc;
    }
    scope->keeper = keeper;
    return 0;
}

int cgroup_systemd_enter(struct cgroup *cgroup, pid_t pid, struct error **err)
{
    cleanup_close int bus = open_bus(cgroup->rootless, err);
    struct buffer body = {0};

    if (bus < 0)
        return bus;
    bus_put_string(&body, cgroup->unit);
    bus_put_string(&body, "");
    /* 0 is whoever asks, whose own number may be one of another PID namespace. */
    size_t pids = bus_begin_array(&body, 4);
    bus_put_u32(&body, (uint32_t)pid);
    bus_end_array(&body, pids, 4);
    return call(bus, "AttachProcessesToUnit", "ssau", &body, "take a process into", cgroup->unit, err);
}

/* ---- limits, as properties of the unit ---- */

struct property {
    const char *name;
    uint64_t value;
};

static uint64_t limit_of(int64_t value)
{
    return value < 0 ? UINT64_MAX : (uint64_t)value; /* systemd's infinity */
}

/* At most 6. */
static size_t properties_of(const struct cgroup *cgroup, const struct container_resources *r,
                            struct property *out)
{
    bool v2 = cgroup->layout == CGROUP_UNIFIED;
    const struct container_memory *m = &r->memory;
    const struct container_cpu *c = &r->cpu;
    size_t n = 0;

    if (cgroup_is_given(&m->limit))
        out[n++] = (struct property){v2 ? "MemoryMax" : "MemoryLimit", limit_of(m->limit.value)};
    if (v2 && cgroup_is_given(&m->reservation))
        out[n++] = (struct property){"MemoryLow", limit_of(m->reservation.value)};
    if (v2 && cgroup_is_given(&m->swap) && (m->swap.value < 0 || cgroup_is_given(&m->limit)))
        out[n++] = (struct property){"MemorySwapMax",
                                     limit_of(m->swap.value < 0 ? -1 : m->swap.value - m->limit.value)};
    if (cgroup_is_given(&c->shares))
        out[n++] = v2 ? (struct property){"CPUWeight", (uint64_t)cgroup_v2_weight(c->shares.value)}
                      : (struct property){"CPUShares", (uint64_t)c->shares.value};
    if (cgroup_is_given(&c->quota)) {
        int64_t period = cgroup_is_given(&c->period) ? c->period.value : 100000;
        double each_second = (double)c->quota.value * 1000000 / (double)period;

        /* Microseconds a second, in whole hundredths of one: what systemd would make of it with a warning. */
        out[n++] = (struct property){"CPUQuotaPerSecUSec",
                                     c->quota.value < 0 ? UINT64_MAX
                                                        : ((uint64_t)each_second + 9999) / 10000 * 10000};
    }
    if (cgroup_is_given(&r->pids))
        out[n++] = (struct property){"TasksMax", limit_of(r->pids.value)};
    return n;
}

int cgroup_systemd_apply(struct cgroup *cgroup, const struct container_resources *resources,
                         struct error **err)
{
    struct property properties[6];
    size_t n = properties_of(cgroup, resources, properties);
    cleanup_close int bus = n ? open_bus(cgroup->rootless, err) : -1;
    int rc = n && bus < 0 ? bus : 0;

    for (size_t i = 0; rc == 0 && i < n; i++) {
        struct buffer body = {0};

        bus_put_string(&body, cgroup->unit);
        bus_put_u32(&body, true); /* until the next start, which a scope has none of */
        size_t list = bus_begin_array(&body, 8);
        bus_put_property_u64(&body, properties[i].name, properties[i].value);
        bus_end_array(&body, list, 8);
        rc = call(bus, "SetUnitProperties", "sba(sv)", &body, "limit", cgroup->unit, err);
    }
    return rc;
}

void cgroup_systemd_stop(struct cgroup *cgroup)
{
    cleanup_close int bus = open_bus(cgroup->rootless, NULL);
    struct buffer body = {0};

    /* A scope that has ended by itself is not there any more, and that is what is wanted. */
    if (bus < 0)
        return;
    bus_put_string(&body, cgroup->unit);
    bus_put_string(&body, "replace");
    call(bus, "StopUnit", "ss", &body, "stop", cgroup->unit, NULL);
}

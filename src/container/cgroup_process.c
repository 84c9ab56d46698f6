/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The processes of a container's groups: moved in, frozen, signalled, listed. No state, no locks. */
#include "container/cgroup_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define FREEZE_SECONDS 10
#define KILL_ROUNDS    100

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- in ---- */

/*
 * v1 has a file for threads: a process that writes 0 there moves its only thread, and the kernel then need
 * not stop the forks and exits of everybody else. v2 has no such way (but CLONE_INTO_CGROUP).
 */
static int enter_tree(const struct cgroup_hierarchy *tree, pid_t pid)
{
    return cgroup_write_number(tree->directory, pid == 0 && *tree->controllers ? "tasks" : "cgroup.procs",
                               pid);
}

int cgroup_enter(struct cgroup *cgroup, pid_t pid, struct error **err)
{
    for (size_t i = 0; i < cgroup->n_trees; i++) {
        /* Who was born in v2's group is there (cgroup_directory). */
        if (pid == 0 && cgroup->fd >= 0 && !*cgroup->trees[i].controllers)
            continue;
        int rc = enter_tree(&cgroup->trees[i], pid);

        if ((rc == -EACCES || rc == -EPERM) && cgroup->unit)
            rc = cgroup_systemd_enter(cgroup, pid, err);
        else if (rc)
            error_set_errno(err, -rc, "moving process %d into the control group %s", pid ? pid : getpid(),
                            cgroup->trees[i].directory);
        if (rc)
            return rc;
    }
    cgroup_systemd_release(cgroup);
    return 0;
}

/* ---- frozen and thawed ---- */

static bool v2_has_frozen(const char *directory)
{
    int64_t frozen = 0;

    return cgroup_read_key(directory, "cgroup.events", "frozen", &frozen) == 0 && frozen;
}

static bool v1_state_is(const char *directory, const char *wanted)
{
    char state[32];

    return cgroup_read(directory, "freezer.state", state, sizeof(state)) > 0 && strcmp(state, wanted) == 0;
}

static int freeze_v2(const char *directory)
{
    int64_t until = now_ms() + FREEZE_SECONDS * 1000;
    int rc = cgroup_write(directory, "cgroup.freeze", "1");

    while (rc == 0 && !v2_has_frozen(directory)) {
        if (now_ms() > until)
            return -ETIMEDOUT;
        cgroup_wait_for_event(directory, "cgroup.events", 100);
    }
    return rc;
}

/*
 * Processes that fork or stop while the kernel goes through them may be missed, and it stays at FREEZING: it
 * is asked again, and now and then let go for a moment so that what blocks the others can go on.
 */
static int freeze_v1(const char *directory)
{
    int64_t until = now_ms() + FREEZE_SECONDS * 1000;

    for (unsigned round = 0;; round++) {
        int rc = cgroup_write(directory, "freezer.state", "FROZEN");
        if (rc)
            return rc;
        if (v1_state_is(directory, "FROZEN"))
            return 0;
        if (now_ms() > until)
            return -ETIMEDOUT;
        if (round % 50 == 24)
            cgroup_write(directory, "freezer.state", "THAWED");
        sleep_ms(round < 20 ? 1 : 10);
    }
}

/* Where the container is frozen: v1's controller if there is one, else v2's tree. */
static const char *freezer(const struct cgroup *cgroup, bool *is_v1)
{
    const char *directory = cgroup_v1(cgroup, "freezer");

    *is_v1 = directory;
    return directory ? directory : cgroup_v2(cgroup);
}

static int no_freezer(struct error **err)
{
    return error_set(
        err, ENOTSUP,
        "this container can't be frozen: its host has neither cgroup v2 nor v1's freezer for it");
}

int cgroup_thaw(struct cgroup *cgroup, struct error **err)
{
    bool is_v1;
    const char *directory = freezer(cgroup, &is_v1);

    if (!directory)
        return no_freezer(err);
    int rc = is_v1 ? cgroup_write(directory, "freezer.state", "THAWED")
                   : cgroup_write(directory, "cgroup.freeze", "0");
    return rc ? error_set_errno(err, -rc, "thawing the control group %s", directory) : 0;
}

int cgroup_freeze(struct cgroup *cgroup, struct error **err)
{
    bool is_v1;
    const char *directory = freezer(cgroup, &is_v1);

    if (!directory)
        return no_freezer(err);
    int rc = is_v1 ? freeze_v1(directory) : freeze_v2(directory);
    if (rc == -ETIMEDOUT) {
        cgroup_thaw(cgroup, NULL);
        return error_set(err, ETIMEDOUT,
                         "its processes did not come to rest within %d s: one of them waits in the kernel",
                         FREEZE_SECONDS);
    }
    return rc ? error_set_errno(err, -rc, "freezing the control group %s", directory) : 0;
}

bool cgroup_is_frozen(const struct cgroup *cgroup)
{
    bool is_v1;
    const char *directory = freezer(cgroup, &is_v1);
    int64_t asked = 0;

    if (!directory)
        return false;
    if (is_v1)
        return v1_state_is(directory, "FROZEN") || v1_state_is(directory, "FREEZING");
    return cgroup_read_number(directory, "cgroup.freeze", &asked) == 0 && asked;
}

/* ---- listed ---- */

struct pid_list {
    pid_t *pids;
    size_t n, room;
};

static int add_pid(struct pid_list *list, pid_t pid)
{
    if (list->n == list->room) {
        size_t room = list->room ? 2 * list->room : 64;
        pid_t *pids = realloc(list->pids, room * sizeof(*pids));

        if (!pids)
            return -ENOMEM;
        list->pids = pids;
        list->room = room;
    }
    list->pids[list->n++] = pid;
    return 0;
}

static int add_processes(const char *directory, struct pid_list *list)
{
    cleanup_free char *text = cgroup_read_all(directory, "cgroup.procs");

    /* A group of threads alone has no processes of its own; a group that has gone has none either. */
    if (!text)
        return errno == EOPNOTSUPP || errno == ENOENT || errno == ENODEV ? 0 : -errno;
    for (char *line = text, *end; *line; line = end + (*end == '\n')) {
        long pid = strtol(line, &end, 10);
        if (end == line)
            break;
        /* 0: of a PID namespace that this process does not see. */
        int rc = pid > 0 ? add_pid(list, (pid_t)pid) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

/* The group and those below it. */
static int add_tree(const char *directory, struct pid_list *list, unsigned depth)
{
    int rc = add_processes(directory, list);
    DIR *entries = rc || depth > 64 ? NULL : opendir(directory);

    if (!entries)
        return rc;
    for (struct dirent *e; rc == 0 && (e = readdir(entries));) {
        char path[PATH_MAX];

        if (e->d_type != DT_DIR || e->d_name[0] == '.')
            continue;
        if (snprintf(path, sizeof(path), "%s/%s", directory, e->d_name) < (int)sizeof(path))
            rc = add_tree(path, list, depth + 1);
    }
    closedir(entries);
    return rc;
}

static int by_number(const void *a, const void *b)
{
    const pid_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

int cgroup_processes(const struct cgroup *cgroup, pid_t **out, size_t *n, struct error **err)
{
    const char *directory = cgroup_reference(cgroup);
    struct pid_list list = {0};

    if (!directory)
        return error_set(
            err, ENOTSUP,
            "this container has no control group that would tell its processes: it was started without "
            "rights to make one");
    int rc = add_tree(directory, &list, 0);
    if (rc) {
        free(list.pids);
        return error_set_errno(err, -rc, "reading the processes of %s", directory);
    }
    if (list.n)
        qsort(list.pids, list.n, sizeof(*list.pids), by_number);
    *out = list.pids;
    *n = list.n;
    return 0;
}

/* ---- signalled ---- */

/* To each that is there; how many there were, or -errno. */
static int signal_each(struct cgroup *cgroup, int signal, struct error **err)
{
    cleanup_free pid_t *pids = NULL;
    size_t n = 0;
    int rc = cgroup_processes(cgroup, &pids, &n, err);

    for (size_t i = 0; rc == 0 && i < n; i++)
        if (kill(pids[i], signal) < 0 && errno != ESRCH)
            rc = error_set_errno(err, errno, "sending signal %d to process %d", signal, pids[i]);
    return rc ? rc : (int)n;
}

/* With all of them at rest no new ones come between the list and the signals. */
static int signal_at_rest(struct cgroup *cgroup, int signal, struct error **err)
{
    bool was_frozen = cgroup_is_frozen(cgroup);
    bool frozen = was_frozen || cgroup_freeze(cgroup, NULL) == 0;
    int rc = signal_each(cgroup, signal, err);

    /* v1's freezer lets a frozen process die only when it is thawed. */
    if (frozen && (!was_frozen || signal == SIGKILL))
        cgroup_thaw(cgroup, NULL);
    return rc;
}

int cgroup_signal_all(struct cgroup *cgroup, int signal, struct error **err)
{
    const char *v2 = cgroup_v2(cgroup);

    if (signal != SIGKILL) {
        int rc = signal_at_rest(cgroup, signal, err);
        return rc < 0 ? rc : 0;
    }
    if (v2 && cgroup_write(v2, "cgroup.kill", "1") == 0 && cgroup->layout == CGROUP_UNIFIED)
        return 0;
    /* Dead ones are listed until they have left; whoever is made by one that still ran is caught by a later
     * round. */
    for (int round = 0; round < KILL_ROUNDS; round++) {
        int n = round ? signal_at_rest(cgroup, SIGKILL, err) : signal_each(cgroup, SIGKILL, err);
        if (n <= 0 && !cgroup_is_frozen(cgroup))
            return n;
        if (n < 0)
            return n;
        if (cgroup_is_frozen(cgroup))
            cgroup_thaw(cgroup, NULL);
        sleep_ms(round < 10 ? 1 : 10);
    }
    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From root of the runtime to the user of the configuration, in the order that leaves each step the right it
 * needs: bounding set, groups, user, filter, the other sets. Called by the container's process and by those
 * of exec.
 */
#include "container/identity.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* sched_setattr(2): the kernel's header and the library's can't be included together. */
struct scheduler_attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

static rlim_t larger(rlim_t a, rlim_t b)
{
    return a > b ? a : b; /* none is the largest */
}

/* Only up: what is less than now would bind the process while it is still set up, and it may lower that
 * itself. */
static int raise_limits(pid_t pid, const struct container_process *process, struct error **err)
{
    for (size_t i = 0; i < process->n_rlimits; i++) {
        const struct container_rlimit *l = &process->rlimits[i];
        struct rlimit now;

        if (prlimit(pid, (__rlimit_resource_t)l->resource, NULL, &now) < 0)
            return error_set_errno(err, errno, "error setting rlimit type %d", l->resource);
        const struct rlimit limit = {larger(now.rlim_cur, l->soft), larger(now.rlim_max, l->hard)};
        if ((limit.rlim_cur != now.rlim_cur || limit.rlim_max != now.rlim_max) &&
            prlimit(pid, (__rlimit_resource_t)l->resource, &limit, NULL) < 0)
            return error_set_errno(err, errno, "error setting rlimit type %d", l->resource);
    }
    return 0;
}

int identity_set_limits(const struct container_process *process)
{
    for (size_t i = 0; i < process->n_rlimits; i++) {
        const struct container_rlimit *l = &process->rlimits[i];
        const struct rlimit limit = {.rlim_cur = l->soft, .rlim_max = l->hard};

        if (setrlimit((__rlimit_resource_t)l->resource, &limit) < 0)
            return -errno;
    }
    return 0;
}

int identity_affinity(pid_t pid, const char *list)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    for (const char *p = list; *p;) {
        char *end;
        unsigned long first = strtoul(p, &end, 10), last = first;

        if (end == p)
            return -EINVAL;
        if (*end == '-')
            last = strtoul(end + 1, &end, 10);
        if (first > last || last >= CPU_SETSIZE)
            return -EINVAL;
        for (; first <= last; first++)
            CPU_SET(first, &set);
        p = end + strspn(end, ", ");
    }
    return sched_setaffinity(pid, sizeof(set), &set) < 0 ? -errno : 0;
}

int identity_limit(pid_t pid, const struct container_process *process, struct error **err)
{
    const struct container_scheduler *s = &process->scheduler;
    int rc = raise_limits(pid, process, err);

    if (rc)
        return rc;
    if (s->given) {
        struct scheduler_attributes attr = {
            .size = sizeof(attr),
            .policy = s->policy,
            .flags = s->flags,
            .nice = s->nice,
            .priority = s->priority,
            .runtime = s->runtime,
            .deadline = s->deadline,
            .period = s->period,
        };

        if (syscall(SYS_sched_setattr, pid, &attr, 0) < 0)
            return error_set_errno(err, errno, "scheduler");
    }
    if (process->io_priority >= 0 && syscall(SYS_ioprio_set, 1, pid, process->io_priority) < 0)
        return error_set_errno(err, errno, "ioPriority");
    if (process->has_oom_score_adj) {
        char path[64], text[16];

        snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", (int)pid);
        int n = snprintf(text, sizeof(text), "%d", process->oom_score_adj);
        cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, text, (size_t)n) < 0)
            return error_set_errno(err, errno, "oomScoreAdj");
    }
    return 0;
}

/* ---- the process itself ---- */

static int drop_bounding(uint64_t keep)
{
    for (int number = 0; number < 64; number++) {
        int is = prctl(PR_CAPBSET_READ, number, 0, 0, 0);

        if (is < 0)
            break; /* the kernel knows no more */
        if (is && !(keep >> number & 1) && prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0)
            return -errno;
    }
    return 0;
}

static int set_capabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    for (unsigned i = 0; i < 2; i++) {
        data[i].effective = (uint32_t)(effective >> 32 * i);
        data[i].permitted = (uint32_t)(permitted >> 32 * i);
        data[i].inheritable = (uint32_t)(inheritable >> 32 * i);
    }
    return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

static uint64_t permitted_now(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    if (syscall(SYS_capget, &header, data) < 0)
        return 0;
    return (uint64_t)data[1].permitted << 32 | data[0].permitted;
}

static int take_user(const struct container_process *process, struct error **err)
{
    bool may_set_groups = true;
    char text[8] = "";
    cleanup_close int fd = open("/proc/self/setgroups", O_RDONLY | O_CLOEXEC);

    if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0)
        may_set_groups = strncmp(text, "deny", 4) != 0;
    if (process->n_gids && !may_set_groups)
        return error_set(err, EPERM, "cannot set any additional groups in a rootless container");
    if (may_set_groups && setgroups(process->n_gids, process->gids) < 0 &&
        (errno != EPERM || process->n_gids))
        return error_set_errno(err, errno, "additional groups");
    /* The program keeps what it needs of root's capabilities: they are set below. */
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        return error_set_errno(err, errno, "keeping capabilities");
    if (setresgid(process->gid, process->gid, process->gid) < 0)
        return error_set_errno(err, errno, "group %u", process->gid);
    if (setresuid(process->uid, process->uid, process->uid) < 0)
        return error_set_errno(err, errno, "user %u", process->uid);
    return 0;
}

/*
 * A descriptor that was left open could be named as the working directory (/proc/self/fd/7), and lead to the
 * host's files. What lies outside of the root has no path.
 */
static int enter_directory(const char *cwd, struct error **err)
{
    char path[PATH_MAX];

    if (chdir(cwd) < 0)
        return error_set_errno(err, errno, "chdir to cwd (\"%s\") set in config.json failed", cwd);
    long n = syscall(SYS_getcwd, path, sizeof(path));
    if (n < 0 || path[0] != '/')
        return error_set(err, EXDEV, "cwd \"%s\" is outside of the container's root", cwd);
    return 0;
}

/* Where it is missing it is made, as root, as images expect. */
static void make_directory(const char *cwd, const struct container_process *process)
{
    struct stat st;

    if (stat(cwd, &st) == 0 || errno != ENOENT)
        return;
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof(path), "%s", cwd) >= sizeof(path))
        return;
    for (char *p = path + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        mkdir(path, 0755);
        *p = '/';
    }
    if (mkdir(path, 0755) == 0 && chown(path, process->uid, process->gid) < 0)
        rmdir(path);
}

static int enter_filter(const struct sock_fprog *filter, unsigned long flags, int *listener)
{
    long rc = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, filter);

    if (rc < 0)
        return -errno;
    if (flags & SECCOMP_FILTER_FLAG_NEW_LISTENER)
        *listener = (int)rc;
    return 0;
}

static int raise_ambient(uint64_t set, struct error **err)
{
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (int number = 0; number < 64; number++)
        if (set >> number & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0) < 0)
            return error_set_errno(err, errno, "ambient capability %s", container_capability_name(number));
    return 0;
}

bool identity_filters_early(const struct container_process *process, const struct sock_fprog *filter,
                            unsigned long flags)
{
    return filter && (!process->no_new_privileges || flags & SECCOMP_FILTER_FLAG_NEW_LISTENER);
}

int identity_take(const struct container_process *process, const struct sock_fprog *filter,
                  unsigned long flags, int *listener, struct error **err)
{
    const struct container_capabilities *c = &process->capabilities;
    uint64_t had = permitted_now();
    bool entered = false;
    int rc = 0;

    *listener = -1;
    make_directory(process->cwd, process);
    /* As root where that goes: the user may have no right to the way there, but to the directory itself. */
    entered = enter_directory(process->cwd, NULL) == 0;
    umask(process->has_umask ? process->umask : 0022);
    if (process->has_capabilities && (rc = drop_bounding(c->bounding)) < 0)
        return error_set_errno(err, -rc, "bounding set");
    rc = take_user(process, err);
    if (rc)
        return rc;
    /* Changing the user has cleared what was effective. */
    rc = set_capabilities(had, had, process->has_capabilities ? c->inheritable & had : 0);
    if (rc < 0)
        return error_set_errno(err, -rc, "capabilities");
    if (!entered && (rc = enter_directory(process->cwd, err)))
        return rc;
    if (process->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_set_errno(err, errno, "no_new_privs");
    if (identity_filters_early(process, filter, flags)) {
        rc = identity_set_limits(process);
        if (rc < 0)
            return error_set_errno(err, -rc, "rlimits");
        rc = enter_filter(filter, flags, listener);
        if (rc < 0)
            return error_set_errno(err, -rc, "seccomp filter");
    }
    if (!process->has_capabilities)
        return 0;
    rc = set_capabilities(c->effective & had, c->permitted & had, c->inheritable & had);
    if (rc < 0)
        return error_set_errno(err, -rc, "capabilities");
    return raise_ambient(c->ambient & had & c->permitted & c->inheritable, err);
}

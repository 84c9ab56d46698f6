/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One fork makes the process and its new namespaces at once. Namespaces that exist are joined by this process
 * before it forks, and left again; only an existing user namespace must be entered before the others are
 * made, and takes one process more. Called by the command that makes a container.
 */
#include "container/namespaces.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/cgroup.h"
#include "container/message_priv.h"
#include "container/setup_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* Before the fork; the mount namespace, and groups, are for the process itself to enter when it has done its
 * work outside. */
static const enum container_namespace early[] = {CONTAINER_NS_IPC, CONTAINER_NS_UTS, CONTAINER_NS_NETWORK,
                                                 CONTAINER_NS_PID, CONTAINER_NS_TIME};
#define EARLY (sizeof(early) / sizeof(early[0]))

pid_t namespaces_clone(uint64_t flags, int group)
{
    /* A sibling has the signal of the one that forks it. */
    struct clone_args args = {.flags = flags, .exit_signal = flags & CLONE_PARENT ? 0 : SIGCHLD};

    if (group >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)(unsigned)group;
    }
    return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

static int open_checked(const struct container_config *config, enum container_namespace which,
                        struct error **err)
{
    const char *path = config->namespace_path[which];
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return error_set_errno(err, errno, "lstat %s: namespace path", path);
    if (ioctl(fd, NS_GET_NSTYPE) != container_namespace_flags[which])
        return error_set(err, EINVAL, "%s is not a namespace of type %s", path,
                         container_namespace_names[which]);
    return steal_fd(fd);
}

/* Where this process was, to come back to. */
struct before {
    int fds[EARLY];
};

static void go_back(struct before *before)
{
    for (size_t i = 0; i < EARLY; i++)
        if (before->fds[i] >= 0) {
            /* A number's namespace is only where children go. */
            setns(before->fds[i], container_namespace_flags[early[i]]);
            close(before->fds[i]);
        }
}

static int remember(struct before *before, size_t i)
{
    char path[32];

    snprintf(path, sizeof(path), "/proc/self/ns/%s", container_namespace_files[early[i]]);
    before->fds[i] = open(path, O_RDONLY | O_CLOEXEC);
    return before->fds[i] < 0 ? -errno : 0;
}

static int join_early(const struct container_config *config, struct before *before, struct error **err)
{
    for (size_t i = 0; i < EARLY; i++)
        before->fds[i] = -1;
    for (size_t i = 0; i < EARLY; i++) {
        if (!config->namespace_path[early[i]])
            continue;
        cleanup_close int fd = open_checked(config, early[i], err);
        if (fd < 0)
            return fd;
        int rc = remember(before, i);
        if (rc == 0 && setns(fd, container_namespace_flags[early[i]]) < 0)
            rc = -errno;
        if (rc < 0)
            return error_set_errno(err, -rc, "joining the namespace %s", config->namespace_path[early[i]]);
    }
    return 0;
}

/* A new time namespace is for children, and its clocks are set before the first of them is born
 * (time_namespaces(7)). */
static int make_time(const struct container_config *config, struct before *before, struct error **err)
{
    char text[128];

    if (!config->has_namespace[CONTAINER_NS_TIME] || config->namespace_path[CONTAINER_NS_TIME])
        return 0;
    int rc = remember(before, EARLY - 1);
    if (rc < 0 || unshare(CLONE_NEWTIME) < 0)
        return error_set_errno(err, rc < 0 ? -rc : errno, "time namespace");
    if (!config->has_time_offsets)
        return 0;
    int n = snprintf(text, sizeof(text), "monotonic %lld %u\nboottime %lld %u\n",
                     (long long)config->monotonic_seconds, config->monotonic_nanoseconds,
                     (long long)config->boottime_seconds, config->boottime_nanoseconds);
    cleanup_close int fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, (size_t)n) < 0)
        return error_set_errno(err, errno, "linux.timeOffsets");
    return 0;
}

static uint64_t new_flags(const struct container_config *config)
{
    uint64_t flags = 0;

    for (size_t i = 0; i < CONTAINER_NAMESPACES; i++)
        if (config->has_namespace[i] && !config->namespace_path[i] && i != CONTAINER_NS_CGROUP &&
            i != CONTAINER_NS_TIME)
            flags |= (uint64_t)(unsigned)container_namespace_flags[i];
    return flags;
}

/* The one on the way: enters the user namespace, so that those it makes belong to that one, and forks its
 * sibling. */
static __attribute__((noreturn)) void pass_through(struct container_setup *setup, int user, uint64_t flags,
                                                   void (*main)(struct container_setup *))
{
    struct error *err = NULL;

    /* While it has the right to; its sibling is born there. */
    if (setup->cgroup && cgroup_enter(setup->cgroup, 0, &err)) {
        message_send(setup->sync, MESSAGE_FAILED, error_errno(err), error_message(err), -1);
        _exit(1);
    }
    setup->cgroup = NULL;
    if (setns(user, CLONE_NEWUSER) < 0) {
        message_send(setup->sync, MESSAGE_FAILED, errno, "joining the user namespace", -1);
        _exit(1);
    }
    /* Its root has the rights there; others have none. */
    if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0) {
        message_send(setup->sync, MESSAGE_FAILED, errno, "becoming root in the user namespace", -1);
        _exit(1);
    }
    pid_t pid = namespaces_clone(flags | CLONE_PARENT, -1);
    if (pid == 0)
        main(setup);
    if (pid < 0)
        message_send(setup->sync, MESSAGE_FAILED, errno, "making namespaces in the user namespace", -1);
    else
        message_send(setup->sync, MESSAGE_PID, pid, NULL, -1);
    _exit(pid < 0);
}

pid_t namespaces_fork(struct container_setup *setup, void (*main)(struct container_setup *), bool *two_steps,
                      struct error **err)
{
    const struct container_config *config = setup->config;
    cleanup_close int user = -1;
    struct before before;

    if (config->namespace_path[CONTAINER_NS_USER]) {
        user = open_checked(config, CONTAINER_NS_USER, err);
        if (user < 0)
            return user;
    }
    pid_t pid = -1;
    int rc = join_early(config, &before, err);
    if (rc == 0)
        rc = make_time(config, &before, err);
    if (rc == 0) {
        uint64_t flags = new_flags(config);

        *two_steps = user >= 0;
        pid = namespaces_clone(user >= 0 ? 0 : flags, setup->cgroup ? cgroup_directory(setup->cgroup) : -1);
        if (pid == 0 && user >= 0)
            pass_through(setup, user, flags, main);
        if (pid == 0)
            main(setup);
        if (pid < 0)
            rc = error_set_errno(err, errno, "making the container's namespaces");
    }
    go_back(&before);
    return rc ? rc : pid;
}

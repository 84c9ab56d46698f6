/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Notice of processes that the kernel kills because a container's memory is used up: an event descriptor that
 * v1's memory controller counts up, or v2's file memory.events, watched by inotify. Either only says that
 * something happened; how much is counted where the kernel counts it. No locks.
 */
#include "container/cgroup_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>

struct cgroup_oom {
    int fd;      /* an eventfd, or inotify's */
    int control; /* v1's memory.oom_control, which is open as long as it tells */
    char *directory;
    bool is_v1;
    int64_t seen;
};

static int64_t count_kills(const char *directory, bool is_v1)
{
    int64_t kills;
    int rc = cgroup_read_key(directory, is_v1 ? "memory.oom_control" : "memory.events", "oom_kill", &kills);

    return rc ? rc : kills;
}

static const char *memory_directory(const struct cgroup *cgroup, bool *is_v1)
{
    const char *directory = cgroup_v1(cgroup, "memory");

    *is_v1 = directory;
    return directory ? directory : cgroup_v2(cgroup);
}

int64_t cgroup_oom_kills(const struct cgroup *cgroup)
{
    bool is_v1;
    const char *directory = memory_directory(cgroup, &is_v1);

    return directory ? count_kills(directory, is_v1) : -ENOTSUP;
}

static int watch_v1(struct cgroup_oom *oom)
{
    char path[PATH_MAX], text[32];

    snprintf(path, sizeof(path), "%s/memory.oom_control", oom->directory);
    oom->control = open(path, O_RDONLY | O_CLOEXEC);
    oom->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (oom->control < 0 || oom->fd < 0)
        return -errno;
    snprintf(text, sizeof(text), "%d %d", oom->fd, oom->control);
    return cgroup_write(oom->directory, "cgroup.event_control", text);
}

static int watch_v2(struct cgroup_oom *oom)
{
    char path[PATH_MAX];

    oom->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (oom->fd < 0)
        return -errno;
    snprintf(path, sizeof(path), "%s/memory.events", oom->directory);
    if (inotify_add_watch(oom->fd, path, IN_MODIFY) < 0)
        return -errno;
    /* Its last process tells of itself here; then the group may go. */
    snprintf(path, sizeof(path), "%s/cgroup.events", oom->directory);
    return inotify_add_watch(oom->fd, path, IN_MODIFY) < 0 ? -errno : 0;
}

int cgroup_oom_open(const struct cgroup *cgroup, struct cgroup_oom **out, int *fd, struct error **err)
{
    bool is_v1;
    const char *directory = memory_directory(cgroup, &is_v1);
    struct cgroup_oom *oom = directory ? malloc(sizeof(*oom)) : NULL;

    if (!directory)
        return error_set(err, ENOTSUP,
                         "this container's memory is not counted: no memory controller is to be had");
    if (!oom)
        return error_set_errno(err, ENOMEM, "watching a container's memory");
    *oom = (struct cgroup_oom){.fd = -1, .control = -1, .directory = strdup(directory), .is_v1 = is_v1};
    int rc = !oom->directory ? -ENOMEM : is_v1 ? watch_v1(oom) : watch_v2(oom);
    if (rc) {
        cgroup_oom_close(oom);
        return error_set_errno(err, -rc, "watching the memory of %s", directory);
    }
    oom->seen = count_kills(directory, is_v1);
    *out = oom;
    *fd = oom->fd;
    return 0;
}

int cgroup_oom_read(struct cgroup_oom *oom)
{
    char drained[4096];

    while (read(oom->fd, drained, sizeof(drained)) > 0)
        if (oom->is_v1)
            break;
    int64_t kills = count_kills(oom->directory, oom->is_v1);
    /* v1 tells before it kills, and once only. */
    for (int tries = 0; oom->is_v1 && kills == oom->seen && tries < 20; tries++) {
        usleep(5000);
        kills = count_kills(oom->directory, true);
    }
    if (kills < 0)
        return -ENODEV;
    int new = (int)(kills - oom->seen);
    oom->seen = kills;
    return new;
}

void cgroup_oom_close(struct cgroup_oom *oom)
{
    if (!oom)
        return;
    if (oom->fd >= 0)
        close(oom->fd);
    if (oom->control >= 0)
        close(oom->control);
    free(oom->directory);
    free(oom);
}

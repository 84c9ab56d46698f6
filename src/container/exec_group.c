/* SPDX-License-Identifier: GPL-2.0-or-later */
/* exec --cgroup: a process goes into a group below the container's, in all trees or in those of some
 * controllers. Called by the process itself, while the host's control groups are in sight. */
#include "container/exec_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/cgroup.h"
#include "container/path.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* Both lists of words between commas: have they one in common? */
static bool shares_word(const char *first, size_t length, const char *second)
{
    for (size_t i = 0; i < length;) {
        size_t n = strcspn(first + i, ",:");

        for (const char *p = second; *p;) {
            size_t k = strcspn(p, ",");

            if (k == n && memcmp(p, first + i, n) == 0)
                return true;
            p += k + (p[k] == ',');
        }
        i += n + 1;
    }
    return false;
}

static int enter(const struct cgroup_hierarchy *tree, const char *path)
{
    cleanup_close int group = open(tree->directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    cleanup_close int below = group < 0 ? -1 : path_open(group, path, O_PATH | O_DIRECTORY);

    if (group < 0 || below < 0)
        return group < 0 ? -errno : below;
    cleanup_close int fd = openat(below, *tree->controllers ? "tasks" : "cgroup.procs", O_WRONLY | O_CLOEXEC);
    return fd < 0 || write(fd, "0", 1) < 0 ? -errno : 0;
}

int execution_enter_group(const struct execution *e, struct error **err)
{
    const char *text = e->request->cgroup, *colon = text ? strchr(text, ':') : NULL;
    const char *path = colon ? colon + 1 : text;
    bool entered = false;
    size_t n;

    if (!text || !*text || !e->cgroup)
        return 0;
    const struct cgroup_hierarchy *trees = cgroup_hierarchies(e->cgroup, &n);
    for (size_t i = 0; i < n; i++) {
        if (colon && !shares_word(text, (size_t)(colon - text), trees[i].controllers))
            continue;
        int rc = enter(&trees[i], path);
        if (rc < 0)
            return error_set_errno(err, -rc, "--cgroup %s: the group %s of %s", text, path,
                                   trees[i].directory);
        entered = true;
    }
    return entered ? 0 : error_set(err, EINVAL, "--cgroup %s: the container is in no such tree", text);
}

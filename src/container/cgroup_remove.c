/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The end of a container's groups. A group can't be removed while a process is in it, and the kernel takes a
 * moment to let go of one that has ended: so it is tried again for some seconds. No state, no locks.
 */
#include "container/cgroup_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define WAIT_MS    5000
#define DEPTH_MAX_ 64

/* Removes what is below, then the group itself. 0, also when it was gone; -errno. */
static int remove_tree(const char *directory, unsigned depth)
{
    if (rmdir(directory) == 0 || errno == ENOENT)
        return 0;
    if (errno != EBUSY && errno != ENOTEMPTY)
        return -errno;
    if (depth > DEPTH_MAX_)
        return -EBUSY;
    DIR *entries = opendir(directory);
    if (!entries)
        return errno == ENOENT ? 0 : -errno;
    bool has_groups = false;
    for (struct dirent *e; (e = readdir(entries));) {
        char path[PATH_MAX];

        if (e->d_type != DT_DIR || e->d_name[0] == '.')
            continue;
        has_groups = true;
        if (snprintf(path, sizeof(path), "%s/%s", directory, e->d_name) < (int)sizeof(path))
            remove_tree(path, depth + 1);
    }
    closedir(entries);
    if (!has_groups)
        return -EBUSY;
    return rmdir(directory) == 0 || errno == ENOENT ? 0 : -errno;
}

int cgroup_remove(struct cgroup *cgroup, struct error **err)
{
    int64_t waited = 0;
    long wait = 1;

    cgroup_systemd_release(cgroup);
    if (cgroup->unit)
        cgroup_systemd_stop(cgroup);
    for (size_t i = 0; i < cgroup->n_trees; i++) {
        const char *directory = cgroup->trees[i].directory;
        int rc;

        while ((rc = remove_tree(directory, 0)) == -EBUSY && waited < WAIT_MS) {
            nanosleep(&(struct timespec){.tv_nsec = wait * 1000000}, NULL);
            waited += wait;
            wait = wait < 64 ? 2 * wait : 100;
        }
        if (rc == -EBUSY)
            return error_set(err, EBUSY,
                             "control group %s can't be removed: processes are in it (see %s/cgroup.procs)",
                             directory, directory);
        if (rc)
            return error_set_errno(err, -rc, "removing the control group %s", directory);
    }
    return 0;
}

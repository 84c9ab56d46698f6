/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A container guest for those outside of its process (container_process.c): joined, limited, counted, and
 * taken away when nobody is left who would. Called by the supervisor and by commands. No state. */
#include "base/cleanup.h"
#include "base/error.h"
#include "container/cgroup.h"
#include "guest/bundle.h"
#include "guest/container_priv.h"
#include "guest/container_process.h"
#include "guest/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

/* Two state directories may have guests of the same name. */
void container_cgroup_path(const struct home *home, const char *name, char *out, size_t size)
{
    uint32_t hash = 2166136261u;

    for (const char *c = home->state; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 16777619u;
    snprintf(out, size, "/tabique-%s-%08x", name, hash);
}

int container_process_join(const struct container_runtime *runtime, const char *name, struct error **err)
{
    char path[64];

    if (geteuid() == 0)
        return 0;
    json_t *state = container_state(runtime, name, err);
    if (!state)
        return -ESRCH;
    snprintf(path, sizeof(path), "/proc/%lld/ns/user",
             (long long)json_integer_value(json_object_get(state, "pid")));
    json_decref(state);
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWUSER) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
        return error_set_errno(err, errno, "guest '%s': its user namespace", name);
    return 0;
}

char *container_process_root(const struct home *home)
{
    char *root;

    return asprintf(&root, "%s/.containers", home->run) < 0 ? NULL : root;
}

/* Groups that the container's state does not tell of: who made them was killed before it could write it down.
 */
static int remove_groups(const struct home *home, const char *name, struct error **err)
{
    char path[128], pattern[192];
    const struct cgroup_request request = {.path = path, .id = name};
    struct cgroup *cgroup = NULL;
    bool found = false;

    container_cgroup_path(home, name, path, sizeof(path));
    for (int i = 0; i < 2; i++) {
        glob_t matches = {0};

        snprintf(pattern, sizeof(pattern), i ? "/sys/fs/cgroup/*%s" : "/sys/fs/cgroup%s", path);
        found |= glob(pattern, GLOB_NOSORT, NULL, &matches) == 0;
        globfree(&matches);
    }
    if (!found)
        return 0;
    int rc = cgroup_create(&request, &cgroup, err);
    if (rc == 0)
        rc = cgroup_signal_all(cgroup, SIGKILL, err);
    if (rc == 0)
        rc = cgroup_remove(cgroup, err);
    cgroup_free(cgroup);
    return rc;
}

/* A person may not end what runs as another id of theirs, but the root of their user namespace may. */
static void delete_inside(const struct container_runtime *runtime, const char *name)
{
    int status;
    pid_t pid = fork();

    if (pid == 0)
        _exit(container_process_join(runtime, name, NULL) || container_delete(runtime, name, true, NULL) ? 1
                                                                                                         : 0);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
}

int container_process_clean(const struct home *home, const char *name, struct error **err)
{
    cleanup_free char *root = container_process_root(home), *directory = NULL;
    const struct container_runtime runtime = {.root = root};

    if (!root || asprintf(&directory, "%s/%s", root, name) < 0)
        return error_set_errno(err, ENOMEM, "container");
    if (access(directory, F_OK) == 0 && geteuid() != 0)
        delete_inside(&runtime, name);
    int rc = access(directory, F_OK) < 0 ? 0 : container_delete(&runtime, name, true, err);
    rmdir(root); /* with the last one */
    return rc ? rc : remove_groups(home, name, err);
}

int container_process_update(const struct home *home, const char *name, const json_t *limits,
                             struct error **err)
{
    cleanup_free char *root = container_process_root(home);
    const struct container_runtime runtime = {.root = root};
    json_t *resources = bundle_limits(limits);
    int rc = root && resources ? container_update(&runtime, name, resources, err)
                               : error_set_errno(err, ENOMEM, "container");

    json_decref(resources);
    return rc;
}

json_t *container_process_stats(const struct home *home, const char *name)
{
    cleanup_free char *root = container_process_root(home);
    const struct container_runtime runtime = {.root = root};

    return root ? container_stats(&runtime, name, NULL) : NULL;
}

json_t *container_process_health(const struct home *home, const char *name)
{
    cleanup_free char *path = guest_run_path(home, name, CONTAINER_HEALTH_FILE);

    return path ? json_load_file(path, 0, NULL) : NULL;
}

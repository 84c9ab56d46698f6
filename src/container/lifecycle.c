/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is done with a container that exists: start, kill, delete, state, list. Each reads the container's
 * directory and asks the kernel; those that change something hold the directory's lock. */
#include "base/cleanup.h"
#include "base/error.h"
#include "container/cgroup.h"
#include "container/hooks.h"
#include "container/intel_rdt.h"
#include "container/lifecycle_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>

/* ---- start ---- */

/* What the container's process has left in the fifo: a text, or 8 bytes of the trampoline with an errno. */
static int read_failure(const struct container *c, struct error **err)
{
    cleanup_close int fd = openat(c->dir, STATE_FIFO, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    char text[1024];
    uint64_t errnum;
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (n <= 0)
        return 0;
    memcpy(&errnum, text, sizeof(errnum));
    if (n == sizeof(errnum) && errnum < 4096)
        return error_set_errno(err, (int)errnum, "unable to start container process: exec");
    text[n] = '\0';
    return error_set(err, EIO, "unable to start container process: %s", text);
}

static int let_go(const struct container *c, struct error **err)
{
    cleanup_close int fd = state_open_fifo(c);

    if (fd < 0)
        return error_set(err, EINVAL, "cannot start a container that has stopped");
    if (write(fd, "", 1) != 1)
        return error_set_errno(err, errno, "%s", STATE_FIFO);
    /* Its end of the fifo is closed by executing the program, or by dying. */
    struct pollfd p = {.fd = fd};
    while (poll(&p, 1, -1) < 0)
        if (errno != EINTR)
            return error_set_errno(err, errno, "%s", STATE_FIFO);
    int rc = read_failure(c, err);
    /* It has nothing more to do than to end, and is told as stopped from here on. */
    cleanup_close int process = rc ? pidfd_open(c->pid, 0) : -1;
    struct pollfd ended = {.fd = process, .events = POLLIN};
    if (process >= 0 && state_is_alive(c))
        poll(&ended, 1, 10000);
    return rc;
}

int lifecycle_post_start(struct container *c, struct error **err)
{
    struct container_config *config __attribute__((cleanup(container_config_cleanup))) = NULL;

    if (!json_is_true(json_object_get(c->json, "has_poststart")))
        return 0;
    int rc = state_load_config(c, &config, err);
    cleanup_free char *state = rc ? NULL : state_describe_text(c, CONTAINER_RUNNING);
    if (rc == 0)
        rc = state ? hooks_run(&config->hooks, CONTAINER_HOOK_POSTSTART, state, err)
                   : error_set_errno(err, ENOMEM, "state");
    /* The container can't be trusted to be complete then. */
    if (rc)
        kill(c->pid, SIGKILL);
    return rc;
}

int container_start(const struct container_runtime *runtime, const char *id, struct error **err)
{
    cleanup_container struct container *c = NULL;
    int rc = state_open(runtime, id, true, &c, err);

    if (rc)
        return rc;
    switch (state_status(c)) {
    case CONTAINER_CREATED:
        break;
    case CONTAINER_STOPPED:
        return error_set(err, EINVAL, "cannot start a container that has stopped");
    case CONTAINER_CREATING:
        return error_set(err, EINVAL,
                         "cannot start a container that is not created: delete it and create it again");
    default:
        return error_set(err, EINVAL, "cannot start an already running container");
    }
    rc = let_go(c, err);
    unlinkat(c->dir, STATE_FIFO, 0);
    return rc ? rc : lifecycle_post_start(c, err);
}

/* ---- kill ---- */

int lifecycle_open_group(const struct container *c, struct cgroup **out, struct error **err)
{
    json_t *saved = json_object_get(c->json, "cgroup");

    *out = NULL;
    return json_is_object(saved) ? cgroup_open_saved(saved, out, err) : 0;
}

/* By a descriptor that was held against the start time: the number can't become another process's meanwhile.
 */
static int signal_process(const struct container *c, int number)
{
    cleanup_close int fd = pidfd_open(c->pid, 0);

    if (fd < 0 || !state_is_alive(c))
        return -ESRCH;
    return pidfd_send_signal(fd, number, NULL, 0) < 0 ? -errno : 0;
}

int container_kill(const struct container_runtime *runtime, const char *id, int signal, bool all,
                   struct error **err)
{
    cleanup_container struct container *c = NULL;
    struct cgroup *group = NULL;
    int rc = state_open(runtime, id, false, &c, err);

    if (rc)
        return rc;
    if (all) {
        rc = lifecycle_open_group(c, &group, err);
        if (rc == 0 && group)
            rc = cgroup_signal_all(group, signal, err);
        cgroup_free(group);
        return rc;
    }
    if (state_status(c) == CONTAINER_STOPPED || !c->pid)
        return error_set(err, ESRCH, "container not running");
    rc = signal_process(c, signal);
    if (rc == -ESRCH)
        return error_set(err, ESRCH, "container not running");
    if (rc < 0)
        return error_set_errno(err, -rc, "unable to signal init");
    /* A frozen process does not die of it, and one that shares its host's numbers leaves its children. */
    if (signal == SIGKILL && json_is_object(json_object_get(c->json, "cgroup")) &&
        (json_is_true(json_object_get(c->json, "shares_pids")) || state_status(c) == CONTAINER_PAUSED)) {
        rc = lifecycle_open_group(c, &group, err);
        if (rc == 0 && group)
            rc = cgroup_signal_all(group, signal, err);
        cgroup_free(group);
    }
    return rc;
}

/* ---- delete ---- */

static bool is_empty(const struct cgroup *group)
{
    pid_t *pids = NULL;
    size_t n = 0;
    int rc = cgroup_processes(group, &pids, &n, NULL);

    free(pids);
    return rc == 0 && n == 0;
}

static void kill_and_wait(struct container *c, struct cgroup *group)
{
    cleanup_close int fd = c->pid > 0 ? pidfd_open(c->pid, 0) : -1;

    if (fd >= 0 && state_is_alive(c)) {
        struct pollfd p = {.fd = fd, .events = POLLIN};

        pidfd_send_signal(fd, SIGKILL, NULL, 0);
        /* What is frozen would not hear it. */
        if (group && (cgroup_is_frozen(group) || json_is_true(json_object_get(c->json, "shares_pids"))))
            cgroup_signal_all(group, SIGKILL, NULL);
        /* Its end is told also when nobody has waited for it. */
        poll(&p, 1, 10000);
    }
    if (group && !is_empty(group))
        cgroup_signal_all(group, SIGKILL, NULL);
}

static int post_stop(struct container *c, struct error **err)
{
    struct container_config *config __attribute__((cleanup(container_config_cleanup))) = NULL;

    if (!json_is_true(json_object_get(c->json, "has_poststop")))
        return 0;
    int rc = state_load_config(c, &config, err);
    cleanup_free char *state = rc ? NULL : state_describe_text(c, CONTAINER_STOPPED);
    if (rc == 0)
        rc = state ? hooks_run(&config->hooks, CONTAINER_HOOK_POSTSTOP, state, err)
                   : error_set_errno(err, ENOMEM, "state");
    return rc;
}

int lifecycle_destroy(const struct container_runtime *runtime, struct container *c, struct error **err)
{
    struct cgroup *group = NULL;
    int rc = lifecycle_open_group(c, &group, err);

    if (rc)
        return rc;
    /* Without a process of its own it has nobody in its groups; they may not even have been made by it. */
    if (c->pid > 0)
        kill_and_wait(c, group);
    if (group)
        rc = cgroup_remove(group, c->pid > 0 ? err : NULL);
    cgroup_free(group);
    if (rc == -EBUSY && c->pid <= 0)
        rc = 0;
    if (rc)
        return rc;
    intel_rdt_remove(json_object_get(c->json, "intel_rdt"));
    /* What a hook says at the end keeps nothing from being deleted; its complaint is told. */
    int hook_rc = post_stop(c, err);
    rc = state_remove(runtime, c, hook_rc ? NULL : err);
    return hook_rc ? hook_rc : rc;
}

int container_delete(const struct container_runtime *runtime, const char *id, bool force, struct error **err)
{
    cleanup_container struct container *c = NULL;
    struct error *why = NULL;
    int rc = state_open(runtime, id, true, &c, &why);

    if (rc == -ENOENT && force) {
        error_free(why);
        return 0;
    }
    if (rc) {
        if (err)
            *err = why;
        else
            error_free(why);
        return rc;
    }
    enum container_status status = state_status(c);
    /* One that was never started has nothing to lose. */
    if (!force && (status == CONTAINER_RUNNING || status == CONTAINER_PAUSED))
        return error_set(err, EBUSY, "cannot delete container %s that is not stopped: %s", id,
                         container_status_names[status]);
    return lifecycle_destroy(runtime, c, err);
}

/* ---- state, list ---- */

json_t *container_state(const struct container_runtime *runtime, const char *id, struct error **err)
{
    cleanup_container struct container *c = NULL;

    if (state_open(runtime, id, false, &c, err))
        return NULL;
    json_t *json = state_describe(c, state_status(c), true);
    if (!json)
        error_set_errno(err, ENOMEM, "state");
    return json;
}

json_t *container_list(const struct container_runtime *runtime, struct error **err)
{
    DIR *dir = opendir(runtime->root);
    json_t *list = json_array();
    struct dirent *entry;

    if (!dir && errno != ENOENT) {
        error_set_errno(err, errno, "%s", runtime->root);
        json_decref(list);
        return NULL;
    }
    while (dir && (entry = readdir(dir))) {
        cleanup_container struct container *c = NULL;

        /* What goes away meanwhile, or is no container, is left out. */
        if (entry->d_name[0] == '.' || state_open(runtime, entry->d_name, false, &c, NULL))
            continue;
        json_array_append_new(list, state_describe(c, state_status(c), true));
    }
    if (dir)
        closedir(dir);
    return list;
}

int container_open_cgroup(const struct container_runtime *runtime, const char *id, struct cgroup **cgroup,
                          enum container_status *status, struct error **err)
{
    cleanup_container struct container *c = NULL;
    int rc = state_open(runtime, id, false, &c, err);

    if (rc)
        return rc;
    if (status)
        *status = state_status(c);
    return cgroup ? lifecycle_open_group(c, cgroup, err) : 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes a container of what a checkpoint has. Its directory and groups are made as for any container
 * (create.c); then criu, in these groups and in a mount namespace of its own that goes with it, makes the
 * namespaces and the processes. The first of them becomes this process's child. Until all is there, the
 * container's state names criu, so that `delete --force` cleans up after a kill at any moment.
 */
#include "container/container.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/cgroup.h"
#include "container/checkpoint_priv.h"
#include "container/console.h"
#include "container/create_priv.h"
#include "container/criu_priv.h"
#include "container/foreground.h"
#include "container/hooks.h"
#include "container/lifecycle_priv.h"
#include "container/state_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define LOG "restore.log"

struct restoration {
    struct creation creation;
    const struct container_restore *request;
    int network, pids;   /* namespaces that are joined; -1: new ones */
    int console;         /* who gets the terminal; -1: nobody */
    int host, directory; /* the mount namespace and the directory to come back to; -1: here */
    bool restored;
};

/* ---- criu's mount namespace ---- */

static int show_root(const struct creation *c, struct error **err)
{
    cleanup_close int place = open(c->root_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    cleanup_close int tree =
        place < 0 ? -1
                  : open_tree(place, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    int rc = tree < 0 ? -errno : mount_set(tree, 0, 0, MS_PRIVATE, true);

    if (rc == 0)
        rc = mount_attach(tree, place);
    if (rc < 0)
        return error_set_errno(err, -rc, "root file system %s", c->root_path);
    return checkpoint_make_mount_points(c->config, c->bundle, tree, err);
}

/* criu wants the root file system to be a mount. This one is seen by nobody else, and goes with criu. This
 * process is there too until criu begins, for the directories that it opens for criu must be of that
 * namespace. */
static int go_in(struct restoration *r, struct error **err)
{
    r->host = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    r->directory = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (r->host < 0 || r->directory < 0 || unshare(CLONE_NEWNS) < 0)
        return error_set_errno(err, errno, "mount namespace");
    if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0)
        return error_set_errno(err, errno, "propagation of the mounts");
    return show_root(&r->creation, err);
}

static int go_back(struct restoration *r, struct error **err)
{
    cleanup_close int host = steal_fd(r->host), directory = steal_fd(r->directory);

    if (host < 0 || directory < 0)
        return 0;
    if (setns(host, CLONE_NEWNS) < 0 || fchdir(directory) < 0)
        return error_set_errno(err, errno, "leaving criu's mount namespace");
    return 0;
}

/* ---- in the process that becomes criu ---- */

static int prepare(void *opaque, struct error **err)
{
    struct restoration *r = opaque;
    struct creation *c = &r->creation;

    /* The container's lock is the command's alone. */
    close(c->container->dir);
    if (!c->runtime->systemd_cgroup && c->cgroup) {
        int rc = cgroup_enter(c->cgroup, 0, err);
        if (rc)
            return rc;
    }
    for (int *fd = (int[]){r->network, r->pids, -2}; *fd != -2; fd++)
        if (*fd >= 0 && fcntl(*fd, F_SETFD, 0) < 0)
            return error_set_errno(err, errno, "namespace");
    return 0;
}

/* ---- here ---- */

static int begun(void *opaque, pid_t pid, struct error **err)
{
    struct restoration *r = opaque;
    struct creation *c = &r->creation;
    char letter;

    c->container->pid = pid;
    c->container->start_time = state_start_time(pid, &letter);
    json_object_set_new(c->container->json, "restoring", json_true());
    int rc = state_save(c->container, err);
    if (rc == 0 && c->runtime->systemd_cgroup && c->cgroup)
        rc = cgroup_enter(c->cgroup, pid, err);
    return rc ? rc : go_back(r, err);
}

/* As for a new container, when its namespaces are there and no program runs in them. */
static int run_hooks(struct creation *c, pid_t pid, struct error **err)
{
    pid_t criu = c->container->pid;

    if (!c->config->hooks.n[CONTAINER_HOOK_PRESTART] && !c->config->hooks.n[CONTAINER_HOOK_CREATE_RUNTIME])
        return 0;
    c->container->pid = pid;
    cleanup_free char *state = state_describe_text(c->container, CONTAINER_CREATING);
    c->container->pid = criu;
    if (!state)
        return error_set_errno(err, ENOMEM, "state");
    int rc = hooks_run(&c->config->hooks, CONTAINER_HOOK_PRESTART, state, err);
    return rc ? rc : hooks_run(&c->config->hooks, CONTAINER_HOOK_CREATE_RUNTIME, state, err);
}

/* The processes are there, and stand still. Limits bind them from here on, and not what made them. */
static int take_over(struct restoration *r, pid_t pid, struct error **err)
{
    struct creation *c = &r->creation;
    char letter;
    int rc = c->cgroup ? cgroup_apply(c->cgroup, &c->config->resources, err) : 0;

    if (rc)
        return rc;
    c->container->pid = pid;
    c->container->start_time = state_start_time(pid, &letter);
    json_object_del(c->container->json, "restoring");
    r->restored = true;
    rc = state_save(c->container, err);
    return rc ? rc : creation_write_pid(c->request->pid_file, pid, err);
}

static int told(void *opaque, const struct criu_answer *answer, int fd, struct error **err)
{
    struct restoration *r = opaque;

    if (strcmp(answer->script, "setup-namespaces") == 0)
        return run_hooks(&r->creation, answer->pid, err);
    if (strcmp(answer->script, "post-restore") == 0)
        return take_over(r, answer->pid, err);
    if (strcmp(answer->script, "orphan-pts-master") == 0 && fd >= 0 && r->console >= 0)
        return console_send(r->console, fd, err);
    return 0;
}

/* ---- what criu is told ---- */

/* Where the groups of this container are, which need not be where those of the dumped one were. */
static void put_groups(struct buffer *m, const struct cgroup *group)
{
    size_t n;
    const struct cgroup_hierarchy *trees = cgroup_hierarchies(group, &n);

    for (size_t i = 0; i < n; i++) {
        const char *path = trees[i].directory + strlen(trees[i].mount);
        char words[256], *rest = words, *word;

        snprintf(words, sizeof(words), "%s", trees[i].controllers);
        if (!*words) {
            struct buffer all = {0};

            criu_put_text(&all, 2, path);
            criu_put_message(m, CRIU_CGROUP_ROOT, &all);
            free(all.data);
        }
        while ((word = strsep(&rest, ",")))
            if (*word)
                criu_put_pair(m, CRIU_CGROUP_ROOT, word, path);
    }
}

static int open_namespace(const char *path, int *out, struct error **err)
{
    *out = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    return path && *out < 0 ? error_set_errno(err, errno, "namespace %s", path) : 0;
}

static int put_namespaces(struct restoration *r, struct buffer *m, struct error **err)
{
    const struct container_config *config = r->creation.config;
    int rc = open_namespace(config->namespace_path[CONTAINER_NS_NETWORK], &r->network, err);

    if (rc == 0)
        rc = open_namespace(config->namespace_path[CONTAINER_NS_PID], &r->pids, err);
    if (rc)
        return rc;
    if (r->network >= 0)
        criu_put_inherited(m, CHECKPOINT_NETWORK, r->network);
    if (r->pids >= 0)
        criu_put_inherited(m, CHECKPOINT_PIDS, r->pids);
    for (const enum container_namespace *n =
             (const enum container_namespace[]){CONTAINER_NS_IPC, CONTAINER_NS_UTS, CONTAINER_NAMESPACES};
         *n != CONTAINER_NAMESPACES; n++)
        if (config->namespace_path[*n])
            criu_put_pair(m, CRIU_JOIN_NAMESPACE, container_namespace_files[*n], config->namespace_path[*n]);
    return 0;
}

static int make_options(struct restoration *r, const struct checkpoint_places *places, struct buffer *m,
                        struct error **err)
{
    const struct creation *c = &r->creation;
    int rc = put_namespaces(r, m, err);

    if (rc == 0)
        rc = checkpoint_put_inherited(m, places->images, err);
    if (rc)
        return rc;
    checkpoint_put_common(m, &r->request->options, places, LOG);
    criu_put_text(m, CRIU_ROOT, c->root_path);
    criu_put_number(m, CRIU_EVASIVE_DEVICES, 1);
    criu_put_number(m, CRIU_RESTORE_SIBLING, 1);
    checkpoint_put_mount_sources(m, c->config, c->bundle, c->cgroup);
    if (c->cgroup)
        put_groups(m, c->cgroup);
    if (r->request->lsm_profile)
        criu_put_text(m, CRIU_LSM_PROFILE, r->request->lsm_profile);
    if (r->request->lsm_mount_context)
        criu_put_text(m, CRIU_LSM_MOUNT_CONTEXT, r->request->lsm_mount_context);
    return m->failed ? error_set_errno(err, ENOMEM, "restore") : 0;
}

/* ---- the whole ---- */

static int open_console(struct restoration *r, struct error **err)
{
    const struct creation *c = &r->creation;

    if (!c->config->process.terminal)
        return 0;
    r->console = c->own_console >= 0 ? fcntl(c->own_console, F_DUPFD_CLOEXEC, 0)
                                     : console_connect(c->request->console_socket, err);
    return r->console < 0 ? r->console : 0;
}

static int run_criu(struct restoration *r, const struct checkpoint_places *places, struct error **err)
{
    struct buffer options = {0};
    pid_t pid = 0;
    int rc = make_options(r, places, &options, err);
    const struct criu_run run = {
        .runtime = r->creation.runtime,
        .kind = CRIU_RESTORE,
        .options = &options,
        .work_path = places->work_path,
        .work_dir = places->work,
        .log = LOG,
        .prepare = prepare,
        .begun = begun,
        .told = told,
        .opaque = r,
        .dies_with_caller = true,
    };

    if (rc == 0)
        rc = criu_run(&run, &pid, err);
    if (rc == 0 && !r->restored)
        rc = error_set(err, EPROTO, "criu has not told the number of the container's process");
    free(options.data);
    return rc;
}

static int run_in_its_mounts(struct restoration *r, struct error **err)
{
    struct checkpoint_places places;
    int rc = go_in(r, err);

    if (rc == 0)
        rc = checkpoint_open_places(&r->request->options, false, &places, err);
    if (rc == 0) {
        rc = checkpoint_check_sizes(places.images, err);
        rc = rc ? rc : run_criu(r, &places, err);
        checkpoint_close_places(&places);
    }
    int back = go_back(r, rc ? NULL : err);
    return rc ? rc : back;
}

static int make(struct restoration *r, struct error **err)
{
    struct creation *c = &r->creation;
    int rc = creation_begin(c, err);

    if (rc == 0)
        rc = open_console(r, err);
    if (rc == 0)
        rc = run_in_its_mounts(r, err);
    if (rc) {
        /* criu has been waited for: its number may be another's. */
        if (c->container && !r->restored)
            c->container->pid = 0;
        creation_take_back(c);
        return error_wrap(err, "restoring container %s", c->request->id);
    }
    flock(c->container->dir, LOCK_UN);
    return 0;
}

static int follow(struct restoration *r, int signals, int console, bool keep, int *status, struct error **err)
{
    struct creation *c = &r->creation;
    cleanup_close int master = console >= 0 && c->config->process.terminal ? console_receive(console) : -1;
    int end = foreground_follow(signals, c->container->pid, master);
    int rc = keep ? 0 : lifecycle_destroy(c->runtime, c->container, err);

    *status = end < 0 ? 1 : end;
    return rc;
}

int container_restore(const struct container_runtime *runtime, const struct container_restore *request,
                      int *status, struct error **err)
{
    struct restoration r = {
        .creation = {.runtime = runtime, .request = &request->create, .own_console = -1, .sync = -1},
        .request = request,
        .network = -1,
        .pids = -1,
        .console = -1,
        .host = -1,
        .directory = -1,
    };
    int pair[2] = {-1, -1};
    cleanup_close int signals = request->detach ? -1 : foreground_begin();

    *status = 1;
    if (!request->detach && !request->create.console_socket) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
            return error_set_errno(err, errno, "socketpair");
        r.creation.own_console = pair[1];
    }
    int rc = make(&r, err);
    if (rc == 0) {
        *status = 0;
        if (!request->detach)
            rc = follow(&r, signals, pair[0], request->keep, status, err);
    }
    for (int *fd = (int[]){pair[0], pair[1], r.network, r.pids, r.console, -2}; *fd != -2; fd++)
        if (*fd >= 0)
            close(*fd);
    creation_free(&r.creation);
    return rc;
}

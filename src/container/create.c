/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making a container: all is read and checked, the directory and the groups are made, the process is forked
 * into its namespaces and gets what only this side may give it, and its answers are followed until it waits
 * at the fifo. What was made is taken back if any of this fails.
 */
#include "container/container.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/cgroup.h"
#include "container/console.h"
#include "container/create_priv.h"
#include "container/hooks.h"
#include "container/identity.h"
#include "container/init.h"
#include "container/intel_rdt.h"
#include "container/message_priv.h"
#include "container/namespaces.h"
#include "container/notify.h"
#include "container/program.h"
#include "container/sealed.h"
#include "container/state_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

/* ---- what is known beforehand ---- */

static int resolve(struct creation *c, struct error **err)
{
    c->bundle = realpath(c->request->bundle, NULL);
    if (!c->bundle)
        return error_set_errno(err, errno, "bundle %s", c->request->bundle);
    int rc = container_config_load(c->bundle, "config.json", &c->config, err);
    if (rc)
        return rc;
    if (!c->config->has_process)
        return error_set(err, EINVAL, "config.json: process: is required and missing");
    const char *path = c->config->root_path;
    if (asprintf(&c->root_path, "%s%s%s", path[0] == '/' ? "" : c->bundle, path[0] == '/' ? "" : "/", path) <
        0)
        return error_set_errno(err, ENOMEM, "root");
    struct stat st;
    if (stat(c->root_path, &st) < 0)
        return error_set_errno(err, errno, "config.json: root.path: rootfs (%s)", c->root_path);
    if (!S_ISDIR(st.st_mode))
        return error_set(err, ENOTDIR, "config.json: root.path: rootfs (%s) is no directory", c->root_path);
    return 0;
}

/* In a process namespace that others are in, the container's process is among them from its first moment. */
static int protect_program(const struct creation *c, struct error **err)
{
    bool alone = c->config->has_namespace[CONTAINER_NS_PID] && !c->config->namespace_path[CONTAINER_NS_PID];

    return alone || !program_is_in_danger(c->config) ? 0 : sealed_ensure(err);
}

static int check_request(const struct creation *c, struct error **err)
{
    const struct container_process *p = &c->config->process;

    if (p->terminal && c->own_console < 0 && !c->request->console_socket)
        return error_set(err, EINVAL,
                         "cannot allocate tty if runc will detach without setting console socket: give "
                         "--console-socket");
    if (!p->terminal && c->request->console_socket)
        return error_set(err, EINVAL,
                         "cannot use console socket if runc will not detach or allocate tty: "
                         "process.terminal is false");
    for (unsigned i = 0; i < c->request->preserve_fds; i++)
        if (fcntl(3 + (int)i, F_GETFD) < 0)
            return error_set(err, EBADF,
                             "please check that --preserve-fds option is correct: there is no descriptor %u",
                             3 + i);
    return 0;
}

static void take_time(char *out, size_t size)
{
    struct timespec now;
    struct tm tm;
    char text[32];

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out, size, "%s.%09ldZ", text, now.tv_nsec);
}

static int describe(struct creation *c, struct error **err)
{
    json_t *json = c->container->json;
    char created[64];

    take_time(created, sizeof(created));
    json_object_set_new(json, "id", json_string(c->request->id));
    json_object_set_new(json, "bundle", json_string(c->bundle));
    json_object_set_new(json, "rootfs", json_string(c->root_path));
    json_object_set_new(json, "created", json_string(created));
    json_object_set_new(json, "owner",
                        json_string(geteuid() == 0   ? ""
                                    : getenv("USER") ? getenv("USER")
                                                     : ""));
    json_object_set_new(json, "uid", json_integer(geteuid()));
    if (c->config->annotations)
        json_object_set(json, "annotations", c->config->annotations);
    if (c->cgroup)
        json_object_set_new(json, "cgroup", cgroup_save(c->cgroup));
    const struct container_config *config = c->config;
    json_object_set_new(
        json, "shares_pids",
        json_boolean(!config->has_namespace[CONTAINER_NS_PID] || config->namespace_path[CONTAINER_NS_PID]));
    json_object_set_new(json, "has_poststart", json_boolean(config->hooks.n[CONTAINER_HOOK_POSTSTART]));
    json_object_set_new(json, "has_poststop", json_boolean(config->hooks.n[CONTAINER_HOOK_POSTSTOP]));
    if (c->config->intel_rdt.given)
        json_object_set_new(json, "intel_rdt", intel_rdt_save(&c->config->intel_rdt, c->request->id));
    return state_save(c->container, err);
}

static int plan_group(struct creation *c, struct error **err)
{
    const struct cgroup_request request = {
        .path = c->config->cgroups_path,
        .id = c->request->id,
        .systemd = c->runtime->systemd_cgroup,
        .rootless = c->runtime->rootless,
    };

    return cgroup_plan(&request, &c->cgroup, err);
}

static int make_group(struct creation *c, struct error **err)
{
    int rc = cgroup_make(c->cgroup, err);

    if (rc) {
        /* Whoever is in there is another's. */
        cgroup_free(c->cgroup);
        c->cgroup = NULL;
        return rc;
    }
    /* A person without rights has fewer than were planned. It is saved with the process's number. */
    json_object_set_new(c->container->json, "cgroup", cgroup_save(c->cgroup));
    return 0;
}

/* ---- what the process finds open ---- */

static int open_trees(struct creation *c, struct error **err)
{
    struct container_setup *s = &c->setup;
    const struct container_config *config = c->config;

    s->mount_trees = calloc(config->n_mounts + 1, sizeof(int));
    if (!s->mount_trees)
        return error_set_errno(err, ENOMEM, "mounts");
    for (size_t i = 0; i < config->n_mounts; i++)
        s->mount_trees[i] = -1;
    for (size_t i = 0; i < config->n_mounts; i++) {
        const struct container_mount *m = &config->mounts[i];
        int rc;

        /* Outside more can be opened; for a person inside is where mounting is permitted at all. */
        if (!m->bind || m->remount || (geteuid() != 0 && m->idmap == CONTAINER_IDMAP_NONE) ||
            (!s->mapped && m->idmap == CONTAINER_IDMAP_NONE))
            continue;
        s->mount_trees[i] = mount_open_source(m, c->bundle, err);
        if (s->mount_trees[i] < 0)
            return s->mount_trees[i];
        if (m->idmap == CONTAINER_IDMAP_NONE)
            continue;
        rc = creation_idmap(m, &config->maps, s->mount_trees[i], err);
        if (rc)
            return error_wrap(err, "mount %s", m->destination);
    }
    if (s->mapped && geteuid() == 0) {
        s->root_tree = open_tree(AT_FDCWD, c->root_path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
        if (s->root_tree < 0)
            return error_set_errno(err, errno, "root file system %s", c->root_path);
    }
    return 0;
}

/* Both ends open at once, so that waiting is reading and nobody has to wait for the other to open it. */
static int make_fifo(struct creation *c, struct error **err)
{
    if (!c->waits)
        return 0;
    if (mkfifoat(c->container->dir, STATE_FIFO, 0600) < 0)
        return error_set_errno(err, errno, "%s", STATE_FIFO);
    c->setup.fifo = openat(c->container->dir, STATE_FIFO, O_RDWR | O_CLOEXEC);
    return c->setup.fifo < 0 ? error_set_errno(err, errno, "%s", STATE_FIFO) : 0;
}

static int prepare(struct creation *c, int sockets[2], struct error **err)
{
    struct container_setup *s = &c->setup;

    *s = (struct container_setup){
        .config = c->config,
        .id = c->request->id,
        .bundle = c->bundle,
        .root_path = c->root_path,
        .cgroup = c->runtime->systemd_cgroup ? NULL : c->cgroup,
        .mapped = c->config->has_namespace[CONTAINER_NS_USER],
        .root_tree = -1,
        .null_fd = -1,
        .fifo = -1,
        .console_socket = -1,
        .root = -1,
        .container = c->container,
        .preserve_fds = c->request->preserve_fds,
        .no_pivot = c->request->no_pivot,
        .no_new_keyring = c->request->no_new_keyring,
    };
    int rc = open_trees(c, err);
    if (rc == 0)
        rc = make_fifo(c, err);
    if (rc == 0 && c->config->seccomp.given) {
        rc = seccomp_program(c->runtime, c->config, &s->filter, err);
        s->has_filter = rc == 0;
    }
    if (rc == 0 && c->config->process.terminal) {
        s->console_socket =
            c->own_console >= 0 ? c->own_console : console_connect(c->request->console_socket, err);
        rc = s->console_socket < 0 ? s->console_socket : 0;
    }
    if (rc == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
        rc = error_set_errno(err, errno, "socketpair");
    return rc;
}

/* ---- with the process ---- */

/* The first of two ids that a process joining an existing user namespace tells. */
static int learn_pid(struct creation *c, struct error **err)
{
    struct message m;

    if (message_receive(c->sync, &m, NULL) < 0 || (m.kind != MESSAGE_PID && m.kind != MESSAGE_FAILED))
        return error_set(err, ECHILD, "the container's process ended while it joined namespaces");
    if (m.kind == MESSAGE_FAILED)
        return error_set_errno(err, m.number & 0xffff, "%s", m.text);
    waitpid(c->container->pid, NULL, 0);
    c->container->pid = m.number;
    return 0;
}

static int give(struct creation *c, struct error **err)
{
    char letter;
    pid_t pid = c->container->pid;
    bool new_user = c->setup.mapped && !c->config->namespace_path[CONTAINER_NS_USER];

    c->container->start_time = state_start_time(pid, &letter);
    int rc = state_save(c->container, err);
    if (rc == 0 && new_user)
        rc = idmap_write(pid, &c->config->maps, err);
    if (rc == 0)
        rc = identity_limit(pid, &c->config->process, err);
    /* systemd puts processes into its scopes; into other groups they go by themselves, which is cheaper. */
    if (rc == 0 && c->runtime->systemd_cgroup)
        rc = cgroup_enter(c->cgroup, pid, err);
    if (rc == 0 && c->config->intel_rdt.given)
        rc = intel_rdt_enter(&c->config->intel_rdt, c->request->id, pid, err);
    if (rc == 0 && message_send(c->sync, MESSAGE_GO, c->container->pid, NULL, -1) < 0)
        rc = error_set(err, ECHILD, "the container's process ended unexpectedly");
    return rc;
}

static int run_hooks(struct creation *c, struct error **err)
{
    cleanup_free char *state = state_describe_text(c->container, CONTAINER_CREATING);

    if (!state)
        return error_set_errno(err, ENOMEM, "state");
    int rc = hooks_run(&c->config->hooks, CONTAINER_HOOK_PRESTART, state, err);
    if (rc == 0)
        rc = hooks_run(&c->config->hooks, CONTAINER_HOOK_CREATE_RUNTIME, state, err);
    if (rc == 0 && message_send(c->sync, MESSAGE_GO, c->container->pid, NULL, -1) < 0)
        rc = error_set(err, ECHILD, "the container's process ended unexpectedly");
    return rc;
}

static int tell_listener(struct creation *c, int fd, struct error **err)
{
    int rc =
        fd < 0 ? error_set(err, EPROTO, "seccomp listener") : notify_send(c->config, c->container, fd, err);

    if (rc == 0 && message_send(c->sync, MESSAGE_GO, c->container->pid, NULL, -1) < 0)
        rc = error_set(err, ECHILD, "the container's process ended unexpectedly");
    return rc;
}

/* Why a process is gone that did not say so. */
static int fail_gone(const struct creation *c, struct error **err)
{
    int status = 0;
    pid_t pid = c->container->pid;

    if (waitpid(pid, &status, WNOHANG) == 0) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    c->container->pid = 0;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return error_set(err, ENOMEM,
                         "the container's process was killed while it was set up: is its memory limit too "
                         "low?");
    return error_set(err, ECHILD, "the container's process ended while it was set up (%s %d)",
                     WIFSIGNALED(status) ? "signal" : "status",
                     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static int follow(struct creation *c, int *status, struct error **err)
{
    for (;;) {
        struct message m;
        int fd, rc = message_receive(c->sync, &m, &fd);

        if (rc < 0)
            return fail_gone(c, err);
        switch (m.kind) {
        case MESSAGE_HOOKS:
            rc = run_hooks(c, err);
            break;
        case MESSAGE_LISTENER:
            rc = tell_listener(c, fd, err);
            break;
        case MESSAGE_READY:
            return 0;
        case MESSAGE_FAILED:
            *status = m.number >> 16;
            return error_set(err, m.number & 0xffff, "%s", m.text);
        default:
            rc = error_set(err, EPROTO, "unexpected message from the container's process");
        }
        if (fd >= 0)
            close(fd);
        if (rc)
            return rc;
    }
}

/* ---- the whole ---- */

/* In the same place, so that who waits for the file finds it complete. */
int creation_write_pid(const char *path, pid_t pid, struct error **err)
{
    char temporary[PATH_MAX];

    if (!path)
        return 0;
    if ((size_t)snprintf(temporary, sizeof(temporary), "%s.%d.new", path, (int)getpid()) >= sizeof(temporary))
        return error_set_errno(err, ENAMETOOLONG, "%s", path);
    cleanup_close int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || dprintf(fd, "%d", (int)pid) < 0 || rename(temporary, path) < 0)
        return error_set_errno(err, errno, "pid file %s", path);
    return 0;
}

void creation_take_back(struct creation *c)
{
    pid_t pid = c->container ? c->container->pid : 0;

    if (pid > 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    if (c->cgroup) {
        cgroup_signal_all(c->cgroup, SIGKILL, NULL);
        cgroup_remove(c->cgroup, NULL);
    }
    if (c->config && c->config->intel_rdt.given)
        intel_rdt_remove(json_object_get(c->container ? c->container->json : NULL, "intel_rdt"));
    if (c->container)
        state_remove(c->runtime, c->container, NULL);
}

static int fork_and_follow(struct creation *c, int *status, struct error **err)
{
    int sockets[2] = {-1, -1};
    int rc = prepare(c, sockets, err);

    if (rc)
        return rc;
    c->sync = sockets[0];
    c->setup.sync = sockets[1];
    c->setup.peer = sockets[0];
    bool two_steps = false;
    pid_t pid = namespaces_fork(&c->setup, init_main, &two_steps, err);
    close(sockets[1]);
    if (pid < 0)
        return (int)pid;
    c->container->pid = pid;
    rc = two_steps ? learn_pid(c, err) : 0;
    if (rc == 0)
        rc = give(c, err);
    return rc ? rc : follow(c, status, err);
}

int creation_begin(struct creation *c, struct error **err)
{
    int rc = resolve(c, err);

    if (rc == 0)
        rc = check_request(c, err);
    if (rc == 0)
        rc = protect_program(c, err);
    if (rc == 0)
        rc = state_make(c->runtime, c->request->id, &c->container, err);
    /* What is going to be is written down first, so that `delete` finds it whenever this process is killed.
     */
    if (rc == 0)
        rc = plan_group(c, err);
    if (rc == 0)
        rc = state_save_config(c->container, c->config, err);
    if (rc == 0)
        rc = describe(c, err);
    return rc ? rc : make_group(c, err);
}

int creation_make(struct creation *c, int *status, struct error **err)
{
    *status = 1;
    int rc = creation_begin(c, err);
    if (rc && !c->container)
        return rc;
    if (rc == 0)
        rc = cgroup_apply(c->cgroup, &c->config->resources, err);
    if (rc == 0)
        rc = fork_and_follow(c, status, err);
    if (rc == 0)
        rc = creation_write_pid(c->request->pid_file, c->container->pid, err);
    if (rc) {
        creation_take_back(c);
        return error_wrap(err, "unable to start container process");
    }
    /* The process has a copy of the descriptor that the lock hangs on. */
    flock(c->container->dir, LOCK_UN);
    *status = 0;
    return 0;
}

void creation_free(struct creation *c)
{
    struct container_setup *s = &c->setup;

    for (size_t i = 0; s->mount_trees && c->config && i < c->config->n_mounts; i++)
        if (s->mount_trees[i] >= 0)
            close(s->mount_trees[i]);
    free(s->mount_trees);
    free(s->filter.filter);
    for (int *fd = (int[]){s->root_tree, s->fifo, s->console_socket, c->sync, -2}; *fd != -2; fd++)
        if (*fd > 2)
            close(*fd);
    cgroup_free(c->cgroup);
    state_close(c->container);
    container_config_free(c->config);
    free(c->bundle);
    free(c->root_path);
}

int container_create(const struct container_runtime *runtime, const struct container_create *request,
                     int *status, struct error **err)
{
    struct creation c = {
        .runtime = runtime, .request = request, .waits = true, .own_console = -1, .sync = -1};
    int rc = creation_make(&c, status, err);

    creation_free(&c);
    return rc;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Programs and limits of a container that is there, and its root file system. One thread; no locks but the
 * guest's. */
#include "guest/inside.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "guest/bundle.h"
#include "guest/container_priv.h"
#include "guest/container_process.h"
#include "guest/control.h"
#include "guest/end.h"
#include "guest/inside_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static bool is_container(const struct guest_row *row)
{
    json_t *config = json_loads(row->config, 0, NULL);
    const char *kind = json_string_value(json_object_get(config, "kind"));
    bool container = kind && strcmp(kind, "container") == 0;

    json_decref(config);
    return container;
}

/* The row of a container. -EINVAL for another kind. */
static int find_container(const struct home *home, const char *name, struct guest_row *row,
                          struct error **err)
{
    int rc = guest_find(home, name, row, err);

    if (rc == 0 && !is_container(row)) {
        guest_row_clear(row);
        rc = error_set(err, EINVAL, "guest '%s' is a virtual machine: this is for containers", name);
    }
    return rc;
}

/* ---- its root ---- */

static int open_running(const char *runtime_root, const char *name, struct error **err)
{
    const struct container_runtime runtime = {.root = runtime_root};
    json_t *state = container_state(&runtime, name, err);
    char path[64];

    if (!state)
        return -ESRCH;
    snprintf(path, sizeof(path), "/proc/%lld/root",
             (long long)json_integer_value(json_object_get(state, "pid")));
    json_decref(state);
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? error_set_errno(err, errno, "guest '%s': its root", name) : fd;
}

static int open_stopped(struct inside *inside, const struct home *home, const char *name, struct error **err)
{
    cleanup_free char *path = NULL;
    int rc = guest_take(&inside->guest, home, name, err);
    json_t *flags = rc ? NULL : json_loads(inside->guest.row.config, 0, NULL);

    if (rc == 0 && asprintf(&path, "%s/root", inside->guest.directory) < 0)
        rc = error_set_errno(err, ENOMEM, "root");
    if (rc == 0)
        rc = container_rootfs_mount(inside->guest.directory, flags, err);
    json_decref(flags);
    if (rc)
        return rc;
    inside->root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return inside->root < 0 ? error_set_errno(err, errno, "%s", path) : 0;
}

int inside_open(struct inside *out, const struct home *home, const char *name, struct error **err)
{
    struct inside inside = INSIDE_NONE;
    struct guest_row row;
    cleanup_free char *root = container_process_root(home);
    int rc = root ? find_container(home, name, &row, err) : error_set_errno(err, ENOMEM, "container");

    if (rc)
        return rc;
    const struct container_runtime runtime = {.root = root};
    bool runs = row.state == GUEST_RUNNING || row.state == GUEST_PAUSED;
    guest_row_clear(&row);
    if (runs) {
        rc = container_process_join(&runtime, name, err);
        inside.root = rc ? -1 : open_running(root, name, err);
        rc = inside.root < 0 ? (rc ? rc : inside.root) : 0;
    } else if (geteuid() != 0) {
        rc = error_set(err, ESRCH, "guest '%s' does not run: a person's container is reached while it does",
                       name);
    } else {
        rc = open_stopped(&inside, home, name, err);
    }
    if (rc)
        inside_close(&inside);
    else
        *out = inside;
    return rc;
}

void inside_close(struct inside *inside)
{
    cleanup_close_fn(&inside->root);
    guest_release(&inside->guest);
    *inside = INSIDE_NONE;
}

/* ---- a program ---- */

static int check_runs(const struct home *home, const char *name, struct error **err)
{
    struct guest_row row;
    int rc = find_container(home, name, &row, err);

    if (rc)
        return rc;
    enum guest_state state = row.state;
    guest_row_clear(&row);
    return state == GUEST_RUNNING
               ? 0
               : error_set(err, ESRCH, "guest '%s' is %s: a program can only be run in one that runs", name,
                           guest_state_name(state));
}

static json_t *words_of(const char *const *words)
{
    json_t *list = json_array();

    for (size_t i = 0; words && words[i]; i++)
        json_array_append_new(list, json_string(words[i]));
    return list;
}

/* What the container's own program is, but for what is asked for. Another user has none of its groups, and
 * root's capabilities only where it is root. */
static json_t *make_process(const json_t *own, const struct guest_exec *request,
                            const struct bundle_user *user)
{
    json_t *process = json_deep_copy(own), *env = words_of(request->env), *gids = json_array();
    json_t *capabilities = json_object_get(process, "capabilities"),
           *all = json_object_get(capabilities, "bounding");

    for (size_t i = 0; i < user->n_gids; i++)
        json_array_append_new(gids, json_integer(user->gids[i]));
    json_object_set_new(process, "user",
                        json_pack("{s:I, s:I, s:o}", "uid", (json_int_t)user->uid, "gid",
                                  (json_int_t)user->gid, "additionalGids", gids));
    json_object_set_new(process, "args", words_of(request->args));
    json_object_set_new(process, "terminal", json_boolean(request->terminal));
    json_array_extend(json_object_get(process, "env"), env);
    json_decref(env);
    if (request->workdir)
        json_object_set_new(process, "cwd", json_string(request->workdir));
    json_object_set_new(capabilities, "effective", user->uid ? json_array() : json_incref(all));
    json_object_set_new(capabilities, "permitted", user->uid ? json_array() : json_incref(all));
    return process;
}

/* A file of the program as another user, which lives as long as the descriptor. */
static int write_process(const struct home *home, const char *root, const struct guest_exec *request,
                         struct error **err)
{
    struct bundle_user user;
    cleanup_free char *path = guest_path(home, request->name, "config.json");
    cleanup_close int inside = open_running(root, request->name, err);
    int rc = inside < 0 ? inside : bundle_find_user(inside, request->user, &user, err);

    if (rc)
        return rc;
    json_t *config = path ? json_load_file(path, 0, NULL) : NULL;
    json_t *process = config ? make_process(json_object_get(config, "process"), request, &user) : NULL;
    json_decref(config);
    cleanup_close int fd = memfd_create("process", MFD_CLOEXEC);
    rc = process && fd >= 0 && json_dumpfd(process, fd, JSON_COMPACT) == 0 && lseek(fd, 0, SEEK_SET) == 0
             ? 0
             : error_set(err, EIO, "guest '%s': its config.json can't be read", request->name);
    json_decref(process);
    return rc ? rc : steal_fd(fd);
}

int guest_exec(const struct home *home, const struct guest_exec *request, int *status, struct error **err)
{
    cleanup_free char *root = container_process_root(home);
    const struct container_runtime runtime = {.root = root};
    cleanup_close int process = -1;
    char path[32];
    struct container_exec exec = {.id = request->name,
                                  .args = request->args,
                                  .cwd = request->workdir,
                                  .env = request->env,
                                  .terminal = request->terminal};
    int rc = root ? check_runs(home, request->name, err) : error_set_errno(err, ENOMEM, "container");

    if (rc == 0)
        rc = container_process_join(&runtime, request->name, err);
    if (rc == 0 && request->user) {
        process = write_process(home, root, request, err);
        rc = process < 0 ? process : 0;
        snprintf(path, sizeof(path), "/proc/self/fd/%d", process);
        exec = (struct container_exec){.id = request->name, .process_file = path};
    }
    return rc ? rc : container_exec(&runtime, &exec, status, err);
}

/* ---- limits ---- */

/* One that does not run only has its configuration. */
static int update_stopped(const struct home *home, const char *name, const json_t *limits, struct error **err)
{
    struct guest guest = GUEST_NONE;
    int rc = guest_take(&guest, home, name, err);
    json_t *config = rc ? NULL : json_loads(guest.row.config, 0, NULL);
    char *text = NULL;

    if (rc == 0 && (!config || json_object_update(config, (json_t *)(uintptr_t)limits) < 0 ||
                    !(text = json_dumps(config, JSON_COMPACT))))
        rc = error_set_errno(err, ENOMEM, "guest '%s'", name);
    if (rc == 0) {
        free(guest.row.config);
        guest.row.config = text;
        rc = guest_record(&guest, "updated", NULL, err);
    }
    json_decref(config);
    guest_release(&guest);
    return rc;
}

static uint64_t number(const json_t *limits, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(limits, key));
}

int guest_update(const struct home *home, const char *name, const json_t *limits, struct error **err)
{
    const struct control_request request = {.verb = CONTROL_UPDATE,
                                            .memory_bytes = number(limits, "memory"),
                                            .cpus = json_number_value(json_object_get(limits, "cpus")),
                                            .pids = number(limits, "pids"),
                                            .io_weight = number(limits, "io-weight")};
    struct guest_row row;
    json_t *answer = NULL;
    int rc = find_container(home, name, &row, err);

    if (rc)
        return rc;
    bool live = guest_state_is_live(row.state);
    guest_row_clear(&row);
    if (!live)
        return update_stopped(home, name, limits, err);
    rc = guest_ask(home, name, &request, &answer, err);
    json_decref(answer);
    return rc;
}

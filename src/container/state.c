/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Containers' directories, and what they and the kernel say of a container. A lock on the directory orders
 * those who change it. */
#include "container/state_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/cgroup.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

const char *const container_status_names[] = {
    [CONTAINER_CREATING] = "creating", [CONTAINER_CREATED] = "created", [CONTAINER_RUNNING] = "running",
    [CONTAINER_PAUSED] = "paused",     [CONTAINER_STOPPED] = "stopped",
};

/* ---- directories ---- */

/* As runc's: it becomes the name of a directory and of groups. */
static int check_id(const char *id, struct error **err)
{
    bool good = *id && strlen(id) <= 1024 && strcmp(id, ".") != 0 && strcmp(id, "..") != 0 &&
                strcmp(id, ".seccomp") != 0;

    for (const char *p = id; *p; p++)
        good &= isalnum((unsigned char)*p) || strchr("_+-.", *p);
    return good ? 0 : error_set(err, EINVAL, "invalid container ID format: '%.100s'", id);
}

static int make_parents(const char *path)
{
    char text[PATH_MAX];

    if ((size_t)snprintf(text, sizeof(text), "%s", path) >= sizeof(text))
        return -ENAMETOOLONG;
    for (char *p = text + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        if (mkdir(text, 0711) < 0 && errno != EEXIST)
            return -errno;
        *p = '/';
    }
    return mkdir(text, 0711) < 0 && errno != EEXIST ? -errno : 0;
}

static int open_root(const struct container_runtime *runtime, bool make, struct error **err)
{
    int fd = open(runtime->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT && make) {
        int rc = make_parents(runtime->root);
        if (rc < 0)
            return error_set_errno(err, -rc, "%s", runtime->root);
        fd = open(runtime->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    return fd < 0 ? error_set_errno(err, errno, "%s", runtime->root) : fd;
}

static struct container *new_container(const char *id, int dir)
{
    struct container *c = calloc(1, sizeof(*c));

    if (c) {
        c->id = strdup(id);
        c->dir = dir;
        c->json = json_object();
    }
    if (c && c->id && c->json)
        return c;
    state_close(c);
    return NULL;
}

int state_make(const struct container_runtime *runtime, const char *id, struct container **out,
               struct error **err)
{
    int rc = check_id(id, err);
    cleanup_close int root = rc ? -1 : open_root(runtime, true, err);

    if (rc || root < 0)
        return rc ? rc : root;
    if (mkdirat(root, id, 0711) < 0)
        return errno == EEXIST ? error_set(err, EEXIST, "container with id exists: %s", id)
                               : error_set_errno(err, errno, "%s/%s", runtime->root, id);
    int dir = openat(root, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || flock(dir, LOCK_EX) < 0) {
        rc = error_set_errno(err, errno, "%s/%s", runtime->root, id);
        if (dir >= 0)
            close(dir);
        unlinkat(root, id, AT_REMOVEDIR);
        return rc;
    }
    *out = new_container(id, dir);
    return *out ? 0 : error_set_errno(err, ENOMEM, "container %s", id);
}

static int read_state(struct container *c, struct error **err)
{
    json_t *json = NULL;
    int rc = container_json_read_in(c->dir, "state.json", &json, err);

    if (rc)
        return error_wrap(err, "container %s", c->id);
    if (!json)
        return 0; /* its maker was killed */
    json_decref(c->json);
    c->json = json;
    c->pid = (pid_t)json_integer_value(json_object_get(json, "pid"));
    c->start_time = (uint64_t)json_integer_value(json_object_get(json, "start_time"));
    return 0;
}

int state_open(const struct container_runtime *runtime, const char *id, bool lock, struct container **out,
               struct error **err)
{
    int rc = check_id(id, err);
    char path[PATH_MAX];

    if (rc)
        return rc;
    if ((size_t)snprintf(path, sizeof(path), "%s/%s", runtime->root, id) >= sizeof(path))
        return error_set_errno(err, ENAMETOOLONG, "%s", id);
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return errno == ENOENT ? error_set(err, ENOENT, "container does not exist: %s", id)
                               : error_set_errno(err, errno, "%s", path);
    if (lock && flock(dir, LOCK_EX) < 0) {
        rc = error_set_errno(err, errno, "%s", path);
        close(dir);
        return rc;
    }
    cleanup_container struct container *c = new_container(id, dir);
    if (!c)
        return error_set_errno(err, ENOMEM, "container %s", id);
    rc = read_state(c, err);
    if (rc == 0)
        *out = steal_ptr(c);
    return rc;
}

void state_close(struct container *container)
{
    if (!container)
        return;
    if (container->dir >= 0)
        close(container->dir);
    json_decref(container->json);
    free(container->id);
    free(container);
}

int state_remove(const struct container_runtime *runtime, struct container *container, struct error **err)
{
    cleanup_close int root = open_root(runtime, false, err);
    int copy = dup(container->dir);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(container->dir, entry->d_name, 0);
    if (dir)
        closedir(dir);
    if (root < 0)
        return root;
    if (unlinkat(root, container->id, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return error_set_errno(err, errno, "%s/%s", runtime->root, container->id);
    return 0;
}

/* ---- files ---- */

static int write_json(int dir, const char *name, json_t *json, struct error **err)
{
    cleanup_free char *text = json_dumps(json, JSON_COMPACT);
    char temporary[64];

    snprintf(temporary, sizeof(temporary), ".%s.new", name);
    cleanup_close int fd = text ? openat(dir, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    if (fd < 0)
        return error_set_errno(err, text ? errno : ENOMEM, "%s", name);
    size_t size = strlen(text);
    if (write(fd, text, size) != (ssize_t)size || renameat(dir, temporary, dir, name) < 0)
        return error_set_errno(err, errno ? errno : EIO, "%s", name);
    return 0;
}

int state_save(struct container *container, struct error **err)
{
    json_object_set_new(container->json, "pid", json_integer(container->pid));
    json_object_set_new(container->json, "start_time", json_integer((json_int_t)container->start_time));
    return write_json(container->dir, "state.json", container->json, err);
}

int state_save_config(struct container *container, const struct container_config *config, struct error **err)
{
    return write_json(container->dir, "config.json", config->json, err);
}

int state_load_config(struct container *container, struct container_config **out, struct error **err)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", container->dir);
    int rc = container_config_load(path, "config.json", out, err);
    return rc ? error_wrap(err, "container %s", container->id) : 0;
}

const char *state_text(const struct container *container, const char *key)
{
    return json_string_value(json_object_get(container->json, key));
}

/* ---- what is so now ---- */

/* proc_pid_stat(5): the name, in parentheses, may hold anything; behind its last ")" come the state (field 3)
 * and, as field 22, the start. */
uint64_t state_start_time(pid_t pid, char *letter)
{
    char path[40], text[1024];

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    char *p = strrchr(text, ')');
    if (!p || !p[1])
        return 0;
    p += 2;
    *letter = *p;
    for (int field = 3; field < 22 && p; field++) {
        p = strchr(p, ' ');
        p = p ? p + 1 : NULL;
    }
    return p ? strtoull(p, NULL, 10) : 0;
}

bool state_is_alive(const struct container *container)
{
    char letter = 'X';

    return container->pid > 0 && state_start_time(container->pid, &letter) == container->start_time &&
           letter != 'Z' && letter != 'X';
}

int state_open_fifo(const struct container *container)
{
    int fd = openat(container->dir, STATE_FIFO, O_WRONLY | O_NONBLOCK | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

static bool is_frozen(const struct container *container)
{
    struct cgroup *group = NULL;
    json_t *saved = json_object_get(container->json, "cgroup");
    bool frozen = false;

    if (!json_is_object(saved) || cgroup_open_saved(saved, &group, NULL))
        return false;
    frozen = cgroup_is_frozen(group);
    cgroup_free(group);
    return frozen;
}

enum container_status state_status(const struct container *container)
{
    /* What has that number while a container is restored is criu. */
    if (!container->pid || json_is_true(json_object_get(container->json, "restoring")))
        return CONTAINER_CREATING;
    if (!state_is_alive(container))
        return CONTAINER_STOPPED;
    cleanup_close int fifo = state_open_fifo(container);
    if (fifo >= 0)
        return CONTAINER_CREATED;
    return is_frozen(container) ? CONTAINER_PAUSED : CONTAINER_RUNNING;
}

json_t *state_describe(const struct container *container, enum container_status status, bool whole)
{
    json_t *annotations = json_object_get(container->json, "annotations");
    bool gone = status == CONTAINER_STOPPED || status == CONTAINER_CREATING;
    pid_t pid = gone && whole ? 0 : container->pid;
    json_t *json = json_pack("{s:s, s:s, s:s, s:s?, s:O*}", "ociVersion", CONTAINER_OCI_VERSION, "id",
                             container->id, "status", container_status_names[status], "bundle",
                             state_text(container, "bundle"), "annotations", annotations);

    if (!json)
        return NULL;
    json_object_set_new(json, "pid", json_integer(pid));
    if (whole) {
        json_object_set(json, "rootfs", json_object_get(container->json, "rootfs"));
        json_object_set(json, "created", json_object_get(container->json, "created"));
        json_object_set(json, "owner", json_object_get(container->json, "owner"));
    }
    return json;
}

char *state_describe_text(const struct container *container, enum container_status status)
{
    json_t *json = state_describe(container, status, false);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

    json_decref(json);
    return text;
}

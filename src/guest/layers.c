/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The files of layers (layers.h): new ones made, leftovers deleted, merged ones replaced. A new file is made
 * before the transaction that uses it, and one that is not used any more is deleted after: a kill between
 * leaves a file without a row, which layers_settle finds. Called by snapshot.c, clone.c and the supervisor.
 * Locks: the caller's.
 */
#include "guest/layers.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "disk/job.h"
#include "disk/maintain.h"
#include "guest/disk_update.h"
#include "guest/guest_priv.h"
#include "host/loop.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#define PREFIX    "layer-"
#define SUFFIX    ".qcow2"
#define ROOT_DISK "disk.qcow2"
#define LOCK      "layers.lock"

#define FRESH_SECONDS 60

/* ---- new layers ---- */

static char *new_path(const struct home *home, const char *guest)
{
    uint8_t bytes[8];
    char name[sizeof(PREFIX) + 2 * sizeof(bytes) + sizeof(SUFFIX)] = PREFIX, *at = name + strlen(PREFIX);

    if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
        return NULL;
    for (size_t i = 0; i < sizeof(bytes); i++)
        at += sprintf(at, "%02x", bytes[i]);
    strcpy(at, SUFFIX);
    return guest_path(home, guest, name);
}

/* Takes base and format. 0 or -errno with *err; then what was made is gone. */
static int make(const struct guest *guest, struct layer_changes *changes, unsigned disk, int64_t base_id,
                const char *base, const char *format, struct error **err)
{
    struct layer_change *c = &changes->list[changes->n];
    struct disk_info info;
    int rc = disk_look(base, format, &info, err);

    if (rc)
        return rc;
    *c = (struct layer_change){.disk = disk,
                               .base_id = base_id,
                               .base = strdup(base),
                               .base_format = strdup(info.format),
                               .path = new_path(guest->home, guest->row.name)};
    changes->n++;
    uint64_t size = info.size;
    disk_info_free(&info);
    if (!c->base || !c->base_format || !c->path)
        return error_set_errno(err, ENOMEM, "layer");
    const struct disk_create create = {
        .format = "qcow2", .size = size, .backing = c->base, .backing_format = c->base_format};
    rc = disk_create(c->path, &create, err);
    if (rc)
        free(steal_ptr(c->path));
    return rc;
}

int layers_prepare(const struct guest *guest, const json_t *config, struct layer_changes *out,
                   struct error **err)
{
    const json_t *disks = json_object_get(config, "disk");
    size_t n = json_array_size(disks);
    struct layer_changes changes = {.list = calloc(n + 1, sizeof(*changes.list))};
    int rc = changes.list ? 0 : error_set_errno(err, ENOMEM, "layers");

    for (size_t i = 0; i < n && rc == 0; i++) {
        const json_t *disk = json_array_get(disks, i);
        const char *path = json_string_value(json_object_get(disk, "path"));
        cleanup_free char *whole = path ? guest_disk_path(config, path) : NULL;

        if (json_is_true(json_object_get(disk, "read-only")))
            continue;
        if (json_object_get(disk, "secret-file")) {
            rc = error_set(
                err, ENOTSUP,
                "disk '%s' is encrypted, and what is written after a snapshot would not be: copy it with "
                "'tabique disk convert' instead",
                path);
            break;
        }
        rc = whole ? make(guest, &changes, (unsigned)i, 0, whole,
                          json_string_value(json_object_get(disk, "format")), err)
                   : error_set_errno(err, ENOMEM, "layers");
    }
    if (rc == 0 && !changes.n)
        rc = error_set(err, EINVAL, "guest '%s' has no disk that it writes: there is nothing to keep",
                       guest->row.name);
    if (rc) {
        layers_done(&changes, false);
        return rc;
    }
    *out = changes;
    return 0;
}

int layers_prepare_on(const struct guest *guest, const struct layer *layers, size_t n,
                      struct layer_changes *out, struct error **err)
{
    struct layer_changes changes = {.list = calloc(n + 1, sizeof(*changes.list))};
    int rc = changes.list ? 0 : error_set_errno(err, ENOMEM, "layers");

    for (size_t i = 0; i < n && rc == 0; i++)
        rc = make(guest, &changes, layers[i].disk, layers[i].id, layers[i].path, layers[i].format, err);
    if (rc) {
        layers_done(&changes, false);
        return rc;
    }
    *out = changes;
    return 0;
}

static struct disk *open_alone(struct disk_files **files, struct loop *loop, const char *path,
                               const char *format, bool read_only)
{
    struct disk *disk = NULL;

    if (disk_files_open_alone(files, path, format, read_only, NULL) == 0)
        disk_open(&disk, *files, loop, NULL);
    return disk;
}

void layers_keep_bitmaps(const struct layer_changes *changes)
{
    struct loop *loop = NULL;

    if (loop_create(&loop, NULL))
        return;
    for (size_t i = 0; i < changes->n; i++) {
        const struct layer_change *c = &changes->list[i];
        struct disk_files *from = NULL, *to = NULL;
        struct disk *below = open_alone(&from, loop, c->base, c->base_format, true);
        struct disk_kept_bitmaps *kept = below ? disk_bitmaps_keep(below) : NULL;
        struct disk *above = kept ? open_alone(&to, loop, c->path, "qcow2", false) : NULL;

        if (above)
            disk_bitmaps_put(above, kept);
        disk_kept_bitmaps_free(kept);
        disk_close(above);
        disk_close(below);
        disk_files_close(from);
        disk_files_close(to);
    }
    loop_free(loop);
}

void layers_done(struct layer_changes *changes, bool used)
{
    for (size_t i = 0; i < changes->n; i++) {
        struct layer_change *c = &changes->list[i];

        if (!used && c->path && !c->format)
            unlink(c->path);
        free(c->base);
        free(c->base_format);
        free(c->path);
        free(c->format);
    }
    free(changes->list);
    *changes = (struct layer_changes){0};
}

/* Of the new layer. */
static const char *format_of(const struct layer_change *c)
{
    return c->format ? c->format : "qcow2";
}

int layers_configure(json_t *config, const struct layer_changes *changes)
{
    /* Whoever has the old list's strings keeps them: it is replaced as a whole. */
    json_t *disks = json_deep_copy(json_object_get(config, "disk"));
    int rc = disks ? 0 : -ENOMEM;

    for (size_t i = 0; i < changes->n && rc == 0; i++) {
        json_t *disk = json_array_get(disks, changes->list[i].disk);

        if (json_object_set_new(disk, "path", json_string(changes->list[i].path)) < 0 ||
            json_object_set_new(disk, "format", json_string(format_of(&changes->list[i]))) < 0)
            rc = -ENOMEM;
    }
    if (rc == 0 && json_object_set(config, "disk", disks) < 0)
        rc = -ENOMEM;
    json_decref(disks);
    return rc;
}

/* ---- rows ---- */

static const struct layer *active_of(const struct layer *layers, size_t n, unsigned disk)
{
    for (size_t i = 0; i < n; i++)
        if (layers[i].active && layers[i].disk == disk)
            return &layers[i];
    return NULL;
}

int layers_adopt_locked(struct registry *registry, const char *guest, const struct layer_changes *changes,
                        struct error **err)
{
    struct layer *layers;
    size_t n;
    int rc = layers_list(registry, guest, &layers, &n, err);

    if (rc)
        return rc;
    for (size_t i = 0; i < changes->n && rc == 0; i++) {
        struct layer layer = {.guest = (char *)(uintptr_t)guest,
                              .disk = changes->list[i].disk,
                              .path = changes->list[i].base,
                              .format = changes->list[i].base_format,
                              .active = true};

        if (!active_of(layers, n, layer.disk))
            rc = layers_insert_locked(registry, &layer, err);
    }
    layers_free(layers, n);
    return rc;
}

int layers_push_locked(struct registry *registry, const char *guest, const struct layer_changes *changes,
                       struct error **err)
{
    struct layer *layers;
    size_t n;
    int rc = layers_list(registry, guest, &layers, &n, err);

    if (rc)
        return rc;
    for (size_t i = 0; i < changes->n && rc == 0; i++) {
        const struct layer_change *c = &changes->list[i];
        const struct layer *before = active_of(layers, n, c->disk);
        int64_t base = c->base_id ? c->base_id : before ? before->id : 0;
        struct layer layer = {.parent = c->format ? 0 : base,
                              .guest = (char *)(uintptr_t)guest,
                              .disk = c->disk,
                              .path = c->path,
                              .format = (char *)(uintptr_t)format_of(c),
                              .active = true};

        if (before)
            rc = layers_freeze_locked(registry, before->id, err);
        if (rc == 0)
            rc = layers_insert_locked(registry, &layer, err);
    }
    layers_free(layers, n);
    return rc;
}

int layers_replace_locked(struct registry *registry, const char *guest, const struct layer_changes *changes,
                          struct error **err)
{
    int rc = layers_push_locked(registry, guest, changes, err);

    return rc ? rc : layers_drop_unneeded_locked(registry, guest, err);
}

/* ---- what is left over ---- */

static bool is_own(const struct home *home, const struct layer *layer)
{
    cleanup_free char *prefix = guest_path(home, layer->guest, "");

    return prefix && strncmp(layer->path, prefix, strlen(prefix)) == 0;
}

static bool is_needed(const struct layer *layers, size_t n, const char *path)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(layers[i].path, path) == 0)
            return true;
    return false;
}

/* A supervisor whose command was killed may be about to use a file that it has just made. */
static bool is_fresh(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && st.st_ctime > time(NULL) - FRESH_SECONDS;
}

static void delete_leftovers(const struct home *home, const char *guest, bool running,
                             const struct layer *layers, size_t n)
{
    cleanup_free char *path = guest_path(home, guest, NULL);
    DIR *directory = path ? opendir(path) : NULL;

    for (struct dirent *e; directory && (e = readdir(directory));) {
        cleanup_free char *file = NULL;

        if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) && (!n || strcmp(e->d_name, ROOT_DISK)))
            continue;
        if ((file = guest_path(home, guest, e->d_name)) && !is_needed(layers, n, file) &&
            !(running && is_fresh(file)))
            unlink(file);
    }
    if (directory)
        closedir(directory);
}

static const struct layer *only_child(const struct layer *layers, size_t n, const struct layer *layer)
{
    if (layer->n_children != 1)
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (layers[i].parent == layer->id)
            return &layers[i];
    return NULL;
}

/* Whether nobody needs what it shows but the one layer that is based on it: that one; or NULL. */
static const struct layer *needed_by(const struct layer *layers, size_t n, const struct layer *layer)
{
    return layer->active || layer->n_snapshots ? NULL : only_child(layers, n, layer);
}

static int take_out(const struct home *home, const struct layer *layer, struct error **err)
{
    struct registry *registry = NULL;
    int rc = guest_begin_write(home, &registry, err);

    if (rc == 0)
        rc = layers_take_out_locked(registry, layer, err);
    if (rc == 0)
        rc = registry_commit(registry, err);
    registry_close(registry);
    return rc;
}

static int list(const struct home *home, const char *guest, struct layer **layers, size_t *n,
                struct error **err)
{
    struct registry *registry = NULL;
    int rc = registry_open(&registry, home->state, REGISTRY_READ, err);

    *layers = NULL;
    *n = 0;
    if (rc == 0)
        rc = layers_list(registry, guest, layers, n, err);
    registry_close(registry);
    return rc;
}

int layers_settle(const struct home *home, const char *guest, bool running, struct error **err)
{
    struct layer *layers;
    size_t n;
    int rc = list(home, guest, &layers, &n, err);

    /* A merge ends with a rename, and then the row goes. */
    for (size_t i = 0; i < n && rc == 0; i++)
        if (needed_by(layers, n, &layers[i]) && access(layers[i].path, F_OK) < 0 && errno == ENOENT)
            rc = take_out(home, &layers[i], err);
    if (rc == 0)
        delete_leftovers(home, guest, running, layers, n);
    layers_free(layers, n);
    return rc;
}

/* ---- merging ---- */

/*
 * What the upper layer has goes into the lower one's file, which then takes the upper one's name: whoever is
 * based on the upper one finds it there, based on what the lower one was based on.
 */
static int merge(const struct home *home, const struct layer *lower, const struct layer *upper,
                 const struct disk_job *job, struct error **err)
{
    int rc = disk_merge(upper->path, lower->path, lower->format, job, err);

    if (rc)
        return rc;
    if (rename(lower->path, upper->path) < 0)
        return error_set_errno(err, errno, "'%s'", lower->path);
    return take_out(home, lower, err);
}

int layers_merge(const struct home *home, const char *guest, bool running, const struct disk_job *job,
                 struct error **err)
{
    bool merged = true;
    int rc = layers_settle(home, guest, running, err);

    while (rc == 0 && merged) {
        struct layer *layers;
        size_t n;

        merged = false;
        rc = list(home, guest, &layers, &n, err);
        for (size_t i = 0; i < n && rc == 0 && !merged; i++) {
            const struct layer *lower = &layers[i], *upper = needed_by(layers, n, lower);

            /* A person's own file keeps its name; what a guest writes at this moment can't be moved. */
            if (!upper || !is_own(home, lower) || !is_own(home, upper) || (running && upper->active) ||
                strcmp(lower->format, "qcow2"))
                continue;
            rc = merge(home, lower, upper, job, err);
            merged = rc == 0;
        }
        layers_free(layers, n);
    }
    return rc;
}

int layers_lock(const struct home *home, const char *guest, struct error **err)
{
    cleanup_free char *path = guest_path(home, guest, LOCK);
    cleanup_close int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;

    if (fd < 0)
        return error_set_errno(err, path ? errno : ENOMEM, "guest '%s': its layers' lock", guest);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK
                   ? error_set(
                         err, EBUSY,
                         "another command is at the snapshots or clones of guest '%s': try again when it is "
                         "done",
                         guest)
                   : error_set_errno(err, errno, "guest '%s': its layers' lock", guest);
    return steal_fd(fd);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clones. A linked one is a new guest whose disks' active layers are based on layers of another's: nothing is
 * copied, and the registry's rows say what holds what. Its row, its layers and those of the source become
 * what they are in one transaction; before that it is a guest that has never run, which goes if this is
 * killed. Called by the command line. Locks: the source as snapshot.c has it, and the clone's.
 */
#include "guest/snapshot.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "disk/job.h"
#include "guest/guest_priv.h"
#include "guest/seed.h"
#include "guest/snapshot_priv.h"
#include "image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#define SEED "seed.iso"
/* No layer of a disk that was written is smaller. */
#define EMPTY_MAX (4u << 20)

/* ---- who it is ---- */

/* What can't be had twice at a time, or would make the two one to others. Cards get addresses by the guest's
 * name. */
static void drop_what_is_one_guests(json_t *config)
{
    static const char *const keys[] = {"mac", "publish", "vsock", "vsock-cid", "firmware-log"};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        json_object_del(config, keys[i]);
}

/* Of a kernel's command line the word that begins with `key`: where it is, or NULL. */
static const char *find_word(const char *line, const char *key, size_t *len)
{
    for (const char *at = line; (at = strstr(at, key)); at++)
        if (at == line || at[-1] == ' ') {
            *len = strcspn(at, " ");
            return at;
        }
    return NULL;
}

/* Of a built image's guest systemd takes the host's name and its machine's id from the kernel's command line.
 */
static int rename_host(json_t *config, const char *name)
{
    const char *line = json_string_value(json_object_get(config, "append"));
    size_t len;
    const char *word = line ? find_word(line, "systemd.hostname=", &len) : NULL;
    uint8_t id[16];
    char digits[33], *whole;

    if (!word)
        return 0;
    if (getrandom(id, sizeof(id), 0) != sizeof(id))
        return -errno;
    id[6] = (uint8_t)((id[6] & 0x0f) | 0x40); /* a random UUID, as systemd makes them */
    id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
    for (size_t i = 0; i < sizeof(id); i++)
        sprintf(digits + 2 * i, "%02x", id[i]);
    size_t old_len;
    const char *rest = word + len, *old = find_word(rest, "systemd.machine_id=", &old_len);
    if (asprintf(&whole, "%.*ssystemd.hostname=%s systemd.machine_id=%s%.*s%s", (int)(word - line), line,
                 name, digits, old ? (int)(old - rest - 1) : (int)strlen(rest), rest,
                 old ? old + old_len : "") < 0)
        return -ENOMEM;
    for (char *p = whole + (word - line) + strlen("systemd.hostname="); *p && *p != ' '; p++)
        if (*p == '_')
            *p = '-';
    int rc = json_object_set_new(config, "append", json_string(whole)) < 0 ? -ENOMEM : 0;
    free(whole);
    return rc;
}

static int copy_file(const char *from, const char *to, struct error **err)
{
    cleanup_close int in = open(from, O_RDONLY | O_CLOEXEC);
    cleanup_close int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ssize_t n;

    if (in < 0 || out < 0)
        return error_set_errno(err, errno, "'%s'", in < 0 ? from : to);
    while ((n = sendfile(out, in, NULL, 1 << 20)) != 0)
        if (n < 0 && errno != EINTR)
            return error_set_errno(err, errno, "'%s'", to);
    return 0;
}

/* The volume for cloud-init is the source's, with another instance's id. */
static int renew_seed(const struct guest *guest, json_t *config, const char *source, struct error **err)
{
    cleanup_free char *theirs = guest_path(guest->home, source, SEED);
    cleanup_free char *ours = guest_path(guest->home, guest->row.name, SEED);
    json_t *disk;
    size_t i;

    if (!theirs || !ours)
        return error_set_errno(err, ENOMEM, "volume for cloud-init");
    json_array_foreach(json_object_get(config, "disk"), i, disk)
    {
        const char *path = json_string_value(json_object_get(disk, "path"));

        if (!path || strcmp(path, theirs))
            continue;
        int rc = copy_file(theirs, ours, err);
        if (rc == 0)
            rc = seed_renew(ours, source, guest->row.name, err);
        if (rc)
            return rc;
        if (json_object_set_new(disk, "path", json_string(ours)) < 0)
            return error_set_errno(err, ENOMEM, "volume for cloud-init");
    }
    return 0;
}

static int hold_image(const struct guest *guest, const json_t *config, struct error **err)
{
    cleanup_image struct image *image = NULL;
    const char *id = json_string_value(json_object_get(config, "image-id"));

    return id ? image_hold(guest->home->state, id, guest->row.name, guest->directory, &image, err) : 0;
}

/* ---- what its disks are based on ---- */

struct chain {
    struct layer *active, *behind; /* each disk's layer, and what it is based on */
    size_t n, n_behind;
};

static void chain_free(struct chain *c)
{
    layers_free(c->active, c->n);
    layers_free(c->behind, c->n_behind);
}
#define cleanup_chain __attribute__((cleanup(chain_free)))

/* *out is to be freed in any case. */
static int find_chain(const struct home *home, const char *name, struct chain *out, struct error **err)
{
    struct registry *registry = NULL;
    int rc = registry_open(&registry, home->state, REGISTRY_READ, err);

    if (rc == 0)
        rc = layers_list_active(registry, name, &out->active, &out->n, err);
    if (rc == 0)
        rc = layers_list_behind(registry, name, &out->behind, &out->n_behind, err);
    registry_close(registry);
    return rc;
}

/* Whether each of its disks is based on a layer that has a row. */
static bool all_have_something_behind(const struct chain *c)
{
    return c->n && c->n_behind == c->n;
}

/* Whether nothing was written since the layers were made: new ones of the same size are as large. */
static bool are_empty(const struct layer *layers, size_t n, const struct layer_changes *fresh)
{
    struct stat a, b;

    for (size_t i = 0; i < n; i++)
        if (stat(layers[i].path, &a) < 0 || (fresh && stat(fresh->list[i].path, &b) < 0) ||
            a.st_size > (fresh ? b.st_size : EMPTY_MAX))
            return false;
    return n > 0;
}

/* A source that was written to since is cloned often while it stands still: it is frozen only once. */
static int try_what_is_behind(struct hand *hand, const struct guest *clone, struct layer_changes *out,
                              bool *done, struct error **err)
{
    cleanup_chain struct chain c = {0};
    int rc = find_chain(clone->home, hand->guest.row.name, &c, err);

    *done = false;
    if (rc || !are_empty(c.active, c.n, NULL) || !all_have_something_behind(&c))
        return rc;
    rc = layers_prepare_on(clone, c.behind, c.n, out, err);
    if (rc)
        return rc;
    *done = are_empty(c.active, c.n, out);
    if (!*done)
        layers_done(out, false);
    return 0;
}

/* Of a source that stands still: its new layers in *own, unless there are none to be made. */
static int prepare_stopped(struct hand *hand, const struct guest *clone, struct layer_changes *own,
                           struct layer_changes *out, struct error **err)
{
    bool done;
    int rc = try_what_is_behind(hand, clone, out, &done, err);

    if (rc || done)
        return rc;
    rc = layers_prepare(&hand->guest, hand->config, own, err);
    if (rc)
        return rc;
    layers_keep_bitmaps(own);
    /* The same files as the source's new ones; they have rows, and so ids, only in the transaction. */
    return layers_prepare(clone, hand->config, out, err);
}

static int prepare_running(const struct home *home, const struct guest_clone *what, const struct guest *clone,
                           struct layer_changes *out, struct guest_pause *pause, struct error **err)
{
    const char *source = what->source;
    cleanup_chain struct chain c = {0};
    int rc = snapshot_ask(home, source, NULL, "", what->freeze, pause, err);

    if (rc == 0)
        rc = find_chain(home, source, &c, err);
    if (rc == 0 && !all_have_something_behind(&c))
        rc = error_set(err, EAGAIN, "guest '%s' has ended meanwhile: try again", source);
    return rc ? rc : layers_prepare_on(clone, c.behind, c.n, out, err);
}

static int prepare_snapshot(const struct home *home, const struct guest_clone *what,
                            const struct guest *clone, struct layer_changes *out, struct error **err)
{
    struct found_snapshot snapshot = {0};
    int rc = snapshot_find(home, what->source, what->snapshot, &snapshot, err);

    if (rc == 0)
        rc = layers_prepare_on(clone, snapshot.layers, snapshot.n, out, err);
    layers_free(snapshot.layers, snapshot.n);
    return rc;
}

/* ---- the whole ---- */

/* Of a full clone: each disk is copied from what it would be based on, and based on nothing then. */
static int copy_disks(struct layer_changes *changes, const struct disk_job *job, struct error **err)
{
    int rc = 0;

    for (size_t i = 0; i < changes->n && rc == 0; i++) {
        struct layer_change *c = &changes->list[i];
        const struct disk_convert convert = {.target = {.format = "qcow2"}};
        struct disk_files *files;

        rc = disk_files_open_unlocked(&files, c->base, c->base_format, true, err);
        if (rc == 0) {
            rc = disk_convert(files, c->path, &convert, job, err);
            disk_files_close(files);
        }
        c->base_id = 0;
    }
    return rc;
}

/* What the source's layers that are frozen with this are called in the registry. */
static int find_ids(struct registry *registry, const char *source, struct layer_changes *changes,
                    struct error **err)
{
    struct layer *layers;
    size_t n;
    int rc = layers_list(registry, source, &layers, &n, err);

    for (size_t i = 0; i < changes->n && rc == 0; i++)
        for (size_t k = 0; k < n; k++)
            if (!changes->list[i].base_id && strcmp(layers[k].path, changes->list[i].base) == 0)
                changes->list[i].base_id = layers[k].id;
    if (rc == 0)
        layers_free(layers, n);
    return rc;
}

static int freeze_source(struct registry *registry, struct hand *hand, const struct layer_changes *own,
                         struct error **err)
{
    const char *source = hand->guest.row.name;
    int rc = layers_adopt_locked(registry, source, own, err);

    if (rc == 0)
        rc = layers_push_locked(registry, source, own, err);
    if (rc == 0 && layers_configure(hand->config, own))
        rc = error_set_errno(err, ENOMEM, "configuration");
    return rc ? rc : snapshot_record_locked(registry, &hand->guest, hand->config, NULL, NULL, err);
}

static int commit(struct hand *hand, const struct layer_changes *own, struct guest *clone, json_t *config,
                  struct layer_changes *changes, bool full, struct error **err)
{
    struct registry *registry = NULL;
    int rc = guest_begin_write(clone->home, &registry, err);

    if (rc == 0 && own->n)
        rc = freeze_source(registry, hand, own, err);
    if (rc == 0 && !full)
        rc = find_ids(registry, hand->row.name, changes, err);
    if (rc == 0)
        rc = layers_push_locked(registry, clone->row.name, changes, err);
    if (rc == 0 && layers_configure(config, changes))
        rc = error_set_errno(err, ENOMEM, "configuration");
    clone->row.state = GUEST_STOPPED;
    clone->row.supervisor = 0;
    if (rc == 0)
        rc = snapshot_record_locked(registry, clone, config, NULL, NULL, err);
    if (rc == 0) {
        json_t *details = json_pack("{s:s}", "source", hand->row.name);
        cleanup_free char *text = details ? json_dumps(details, JSON_COMPACT) : NULL;

        json_decref(details);
        rc = registry_add_event(registry, clone->row.name, "cloned", text ? text : "{}", err);
    }
    if (rc == 0)
        rc = registry_commit(registry, err);
    registry_close(registry);
    return rc;
}

static int make(struct hand *hand, const struct guest_clone *what, struct guest *clone,
                struct guest_pause *pause, struct error **err)
{
    json_t *config = json_deep_copy(hand->config);
    struct layer_changes own = {0}, changes = {0};
    int rc = config ? 0 : error_set_errno(err, ENOMEM, "configuration");

    if (rc == 0) {
        drop_what_is_one_guests(config);
        rc = rename_host(config, clone->row.name) ? error_set_errno(err, ENOMEM, "configuration") : 0;
    }
    if (rc == 0)
        rc = what->snapshot  ? prepare_snapshot(clone->home, what, clone, &changes, err)
             : hand->running ? prepare_running(clone->home, what, clone, &changes, pause, err)
                             : prepare_stopped(hand, clone, &own, &changes, err);
    if (rc == 0 && what->full) {
        layers_done(&own, false); /* the source need not know */
        rc = copy_disks(&changes, what->job, err);
    }
    if (rc == 0)
        rc = renew_seed(clone, config, what->source, err);
    if (rc == 0)
        rc = hold_image(clone, config, err);
    if (rc == 0)
        rc = commit(hand, &own, clone, config, &changes, what->full, err);
    layers_done(&own, rc == 0);
    layers_done(&changes, rc == 0);
    json_decref(config);
    return rc;
}

int guest_clone(const struct home *home, const struct guest_clone *what, char **name,
                struct guest_pause *pause, struct error **err)
{
    cleanup_hand struct hand hand = HAND_NONE;
    struct guest clone = GUEST_NONE;
    int rc = hand_take(&hand, home, what->source, err);

    *pause = (struct guest_pause){.running = hand.running && !what->snapshot};
    if (rc)
        return rc;
    const struct guest_spec spec = {.name = what->name, .config = "{}"};
    rc = guest_create(&clone, home, &spec, err);
    if (rc)
        return rc;
    rc = make(&hand, what, &clone, pause, err);
    if (rc == 0) {
        *name = strdup(clone.row.name);
    } else {
        /* It has no layers yet, and was never seen to stay. */
        struct error *why = NULL;
        if (guest_remove(&clone, &why))
            error_free(why);
    }
    guest_release(&clone);
    return rc;
}

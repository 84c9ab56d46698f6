/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Snapshots: made, listed, gone back to, removed. All that changes in the registry by one of these changes in
 * one transaction; files are made before it and deleted after it, so a kill at any moment leaves the old
 * state or the new one, and files without a row at most. Called by the command line. Locks: a guest that does
 * not run is held, and of any guest the layers' lock.
 */
#include "guest/snapshot.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "guest/end.h"
#include "guest/guest_priv.h"
#include "guest/names.h"
#include "guest/snapshot_priv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* ---- a guest in hand ---- */

void hand_release(struct hand *hand)
{
    json_decref(hand->config);
    guest_release(&hand->guest);
    cleanup_close_fn(&hand->lock_fd);
    guest_row_clear(&hand->row);
    if (hand->keeps)
        registry_let_go();
    *hand = HAND_NONE;
}

static int load_config(struct hand *hand, struct error **err)
{
    const char *text = hand->running ? hand->row.config : hand->guest.row.config;
    hand->config = json_loads(text, 0, NULL);
    const char *kind = json_string_value(json_object_get(hand->config, "kind"));

    if (!hand->config)
        return error_set(err, EINVAL, "guest '%s': its configuration can't be read", hand->row.name);
    if (kind && strcmp(kind, "container") == 0)
        return error_set(err, ENOTSUP,
                         "guest '%s' is a container: snapshots and clones are of virtual machines' disks",
                         hand->row.name);
    return 0;
}

int hand_take(struct hand *out, const struct home *home, const char *name, struct error **err)
{
    struct hand hand = HAND_NONE;

    registry_keep();
    hand.keeps = true;
    int rc = guest_find(home, name, &hand.row, err);
    if (rc) {
        hand_release(&hand);
        return rc;
    }
    hand.running = guest_state_is_live(hand.row.state);
    rc = hand.running ? 0 : guest_take(&hand.guest, home, name, err);
    if (rc == 0) {
        hand.lock_fd = layers_lock(home, name, err);
        rc = hand.lock_fd < 0 ? hand.lock_fd : 0;
    }
    if (rc == 0)
        rc = load_config(&hand, err);
    if (rc == 0)
        rc = layers_settle(home, name, hand.running, err);
    if (rc) {
        hand_release(&hand);
        return rc;
    }
    *out = hand;
    return 0;
}

/* ---- making ---- */

int snapshot_record_locked(struct registry *registry, struct guest *guest, const json_t *config,
                           const char *event, const char *snapshot, struct error **err)
{
    char *text = json_dumps(config, JSON_COMPACT);
    json_t *details = json_pack("{s:s*}", "snapshot", snapshot);
    cleanup_free char *told = details ? json_dumps(details, JSON_COMPACT) : NULL;

    json_decref(details);
    if (!text || !told) {
        free(text);
        return error_set_errno(err, ENOMEM, "configuration");
    }
    free(guest->row.config);
    guest->row.config = text;
    int rc = registry_update(registry, &guest->row, err);
    return rc || !event ? rc : registry_add_event(registry, guest->row.name, event, told, err);
}

int snapshot_commit(struct guest *guest, json_t *config, const struct layer_changes *changes,
                    const char *name, const char *description, struct error **err)
{
    struct registry *registry = NULL;
    const char *of = guest->row.name;
    int rc = guest_begin_write(guest->home, &registry, err);

    if (rc == 0)
        rc = layers_adopt_locked(registry, of, changes, err);
    if (rc == 0 && name)
        rc = snapshots_insert_locked(registry, of, name, description, err);
    if (rc == 0)
        rc = layers_push_locked(registry, of, changes, err);
    if (rc == 0 && layers_configure(config, changes))
        rc = error_set_errno(err, ENOMEM, "configuration");
    if (rc == 0)
        rc = snapshot_record_locked(registry, guest, config, name ? "snapshot" : NULL, name, err);
    if (rc == 0)
        rc = registry_commit(registry, err);
    registry_close(registry);
    return rc;
}

int pivot_commit(struct guest *guest, json_t *config, const struct layer_changes *changes, struct error **err)
{
    struct registry *registry = NULL;
    int rc = guest_begin_write(guest->home, &registry, err);

    if (rc == 0)
        rc = layers_replace_locked(registry, guest->row.name, changes, err);
    if (rc == 0 && layers_configure(config, changes))
        rc = error_set_errno(err, ENOMEM, "configuration");
    if (rc == 0)
        rc = snapshot_record_locked(registry, guest, config, "pivoted", NULL, err);
    if (rc == 0)
        rc = registry_commit(registry, err);
    registry_close(registry);
    return rc;
}

static int snapshot_stopped(struct hand *hand, const char *name, const char *description, struct error **err)
{
    struct layer_changes changes;
    int rc = layers_prepare(&hand->guest, hand->config, &changes, err);

    if (rc)
        return rc;
    layers_keep_bitmaps(&changes);
    rc = snapshot_commit(&hand->guest, hand->config, &changes, name, description, err);
    layers_done(&changes, rc == 0);
    return rc;
}

int snapshot_ask(const struct home *home, const char *guest, const char *name, const char *description,
                 enum control_freeze freeze, struct guest_pause *pause, struct error **err)
{
    struct control_request request = {.verb = CONTROL_SNAPSHOT, .freeze = freeze};
    json_t *answer = NULL;

    if (strlen(description) > CONTROL_DESCRIPTION_MAX)
        return error_set(err, EINVAL, "a description of %zu bytes: choose one of up to %d",
                         strlen(description), CONTROL_DESCRIPTION_MAX);
    strcpy(request.snapshot, name ? name : "");
    strcpy(request.description, description);
    int rc = guest_ask(home, guest, &request, &answer, err);
    if (rc)
        return rc;
    const char *note = json_string_value(json_object_get(answer, "note"));
    pause->ns = (uint64_t)json_integer_value(json_object_get(answer, "pause-ns"));
    snprintf(pause->note, sizeof(pause->note), "%s", note ? note : "");
    json_decref(answer);
    return 0;
}

int guest_snapshot(const struct home *home, const char *guest, const char *name, const char *description,
                   enum control_freeze freeze, struct guest_pause *pause, struct error **err)
{
    cleanup_hand struct hand hand = HAND_NONE;
    int rc = name_check(name, err);

    *pause = (struct guest_pause){0};
    if (rc)
        return error_wrap(err, "snapshot");
    rc = hand_take(&hand, home, guest, err);
    if (rc)
        return rc;
    pause->running = hand.running;
    return hand.running ? snapshot_ask(home, guest, name, description, freeze, pause, err)
                        : snapshot_stopped(&hand, name, description, err);
}

/* ---- looking ---- */

static int read_all(const struct home *home, const char *guest, struct snapshot **list, size_t *n,
                    struct layer **layers, size_t *n_layers, struct error **err)
{
    struct registry *registry = NULL;
    int rc = registry_open(&registry, home->state, REGISTRY_READ, err);

    *list = NULL;
    *layers = NULL;
    *n = *n_layers = 0;
    if (rc == 0)
        rc = snapshots_list(registry, guest, list, n, err);
    if (rc == 0)
        rc = layers_list(registry, guest, layers, n_layers, err);
    registry_close(registry);
    return rc;
}

static const struct layer *find_layer(const struct layer *layers, size_t n, int64_t id)
{
    for (size_t i = 0; i < n; i++)
        if (layers[i].id == id)
            return &layers[i];
    return NULL;
}

/* The snapshot that has the layer, or n. */
static size_t snapshot_of(const struct snapshot_tree *tree, int64_t layer)
{
    for (size_t i = 0; i < tree->n; i++)
        for (size_t k = 0; k < tree->list[i].n_layers; k++)
            if (tree->list[i].layers[k] == layer)
                return i;
    return tree->n;
}

/* From a layer back to the next snapshot's, adding up what those on the way have. */
static size_t walk(const struct snapshot_tree *tree, const struct layer *layers, size_t n, int64_t id,
                   bool itself, uint64_t *bytes)
{
    for (const struct layer *l = find_layer(layers, n, id); l; l = find_layer(layers, n, l->parent)) {
        size_t found = snapshot_of(tree, l->id);
        struct stat st;

        if (!itself && found < tree->n)
            return found;
        itself = false;
        if (stat(l->path, &st) == 0)
            *bytes += (uint64_t)st.st_blocks * 512;
    }
    return tree->n;
}

static int build_tree(struct snapshot_tree *tree, const struct layer *layers, size_t n, struct error **err)
{
    tree->parents = calloc(tree->n + 1, sizeof(*tree->parents));
    tree->bytes = calloc(tree->n + 1, sizeof(*tree->bytes));
    if (!tree->parents || !tree->bytes)
        return error_set_errno(err, ENOMEM, "snapshots");
    tree->current = tree->n;
    for (size_t i = 0; i < tree->n; i++) {
        tree->parents[i] = tree->n;
        for (size_t k = 0; k < tree->list[i].n_layers; k++) {
            size_t parent = walk(tree, layers, n, tree->list[i].layers[k], true, &tree->bytes[i]);
            if (k == 0)
                tree->parents[i] = parent;
        }
    }
    for (size_t i = n; i-- > 0;)
        if (layers[i].active)
            tree->current = walk(tree, layers, n, layers[i].id, true, &tree->current_bytes);
    return 0;
}

int guest_snapshots(const struct home *home, const char *guest, struct snapshot_tree *out, struct error **err)
{
    struct snapshot_tree tree = {0};
    struct guest_row row;
    struct layer *layers;
    size_t n;
    int rc = guest_find(home, guest, &row, err);

    if (rc)
        return rc;
    guest_row_clear(&row);
    rc = read_all(home, guest, &tree.list, &tree.n, &layers, &n, err);
    if (rc == 0)
        rc = build_tree(&tree, layers, n, err);
    layers_free(layers, n);
    if (rc) {
        snapshot_tree_free(&tree);
        return rc;
    }
    *out = tree;
    return 0;
}

void snapshot_tree_free(struct snapshot_tree *tree)
{
    snapshots_free(tree->list, tree->n);
    free(tree->parents);
    free(tree->bytes);
    *tree = (struct snapshot_tree){0};
}

int snapshot_find(const struct home *home, const char *guest, const char *name, struct found_snapshot *out,
                  struct error **err)
{
    struct found_snapshot found = {0};
    struct snapshot *list;
    size_t n, n_layers;
    struct layer *layers;
    int rc = read_all(home, guest, &list, &n, &layers, &n_layers, err);

    for (size_t i = 0; i < n && rc == 0 && !found.id; i++) {
        if (strcmp(list[i].name, name))
            continue;
        found.id = list[i].id;
        found.layers = calloc(list[i].n_layers + 1, sizeof(*found.layers));
        for (size_t k = 0; found.layers && k < list[i].n_layers; k++) {
            const struct layer *l = find_layer(layers, n_layers, list[i].layers[k]);
            struct layer *to = &found.layers[found.n];

            if (!l)
                continue;
            *to = *l;
            to->guest = strdup(l->guest);
            to->path = strdup(l->path);
            to->format = strdup(l->format);
            found.n++;
            if (!to->guest || !to->path || !to->format)
                rc = error_set_errno(err, ENOMEM, "snapshots");
        }
    }
    snapshots_free(list, n);
    layers_free(layers, n_layers);
    if (rc == 0 && !found.id)
        return error_set(err, ENOENT, "guest '%s' has no snapshot '%s': 'tabique snapshots %s' lists them",
                         guest, name, guest);
    if (rc == 0 && !found.layers)
        return error_set_errno(err, ENOMEM, "snapshots");
    if (rc) {
        layers_free(found.layers, found.n);
        return rc;
    }
    *out = found;
    return 0;
}

/* ---- going back ---- */

static int restore(struct hand *hand, const struct layer_changes *changes, const char *name,
                   struct error **err)
{
    struct registry *registry = NULL;
    struct guest *guest = &hand->guest;
    int rc = guest_begin_write(guest->home, &registry, err);

    if (rc == 0)
        rc = layers_drop_active_locked(registry, guest->row.name, err);
    if (rc == 0)
        rc = layers_push_locked(registry, guest->row.name, changes, err);
    if (rc == 0 && layers_configure(hand->config, changes))
        rc = error_set_errno(err, ENOMEM, "configuration");
    if (rc == 0)
        rc = snapshot_record_locked(registry, guest, hand->config, "restored", name, err);
    if (rc == 0)
        rc = registry_commit(registry, err);
    registry_close(registry);
    return rc;
}

int guest_restore(const struct home *home, const char *guest, const char *name, struct error **err)
{
    cleanup_hand struct hand hand = HAND_NONE;
    struct found_snapshot snapshot = {0};
    struct layer_changes changes = {0};
    int rc = hand_take(&hand, home, guest, err);

    if (rc == 0 && hand.running)
        rc = error_set(err, EBUSY, "guest '%s' is %s", guest, guest_state_name(hand.row.state));
    if (rc == 0)
        rc = snapshot_find(home, guest, name, &snapshot, err);
    if (rc == 0)
        rc = layers_prepare_on(&hand.guest, snapshot.layers, snapshot.n, &changes, err);
    if (rc == 0)
        rc = restore(&hand, &changes, name, err);
    layers_done(&changes, rc == 0);
    layers_free(snapshot.layers, snapshot.n);
    return rc ? rc : layers_settle(home, guest, false, err);
}

/* ---- removing ---- */

static int check_clones(struct registry *registry, const char *guest, const char *name,
                        const struct found_snapshot *snapshot, struct error **err)
{
    int rc = 0;

    for (size_t i = 0; i < snapshot->n && rc == 0; i++) {
        cleanup_free char *clones = NULL;

        rc = layers_clones(registry, guest, snapshot->layers[i].id, &clones, err);
        if (rc == 0 && clones)
            rc = error_set(
                err, EBUSY,
                "snapshot '%s' of guest '%s' can't be removed: the disks of clones are based on it: "
                "remove those first (%s)",
                name, guest, clones);
    }
    return rc;
}

static int forget(const struct home *home, const char *guest, const char *name,
                  const struct found_snapshot *snapshot, struct error **err)
{
    struct registry *registry = NULL;
    int rc = guest_begin_write(home, &registry, err);

    if (rc == 0)
        rc = check_clones(registry, guest, name, snapshot, err);
    if (rc == 0)
        rc = snapshots_delete_locked(registry, snapshot->id, err);
    if (rc == 0)
        rc = layers_drop_unneeded_locked(registry, guest, err);
    if (rc == 0) {
        json_t *details = json_pack("{s:s}", "snapshot", name);
        cleanup_free char *text = details ? json_dumps(details, JSON_COMPACT) : NULL;

        json_decref(details);
        rc = text ? registry_add_event(registry, guest, "snapshot-removed", text, err)
                  : error_set_errno(err, ENOMEM, "event");
    }
    if (rc == 0)
        rc = registry_commit(registry, err);
    registry_close(registry);
    return rc;
}

int guest_snapshot_remove(const struct home *home, const char *guest, const char *name,
                          const struct disk_job *job, struct error **err)
{
    cleanup_hand struct hand hand = HAND_NONE;
    struct found_snapshot snapshot = {0};
    struct guest_pause pause;
    int rc = hand_take(&hand, home, guest, err);

    if (rc == 0)
        rc = snapshot_find(home, guest, name, &snapshot, err);
    if (rc == 0)
        rc = forget(home, guest, name, &snapshot, err);
    layers_free(snapshot.layers, snapshot.n);
    if (rc)
        return rc;
    /* What a guest writes at this moment can't be merged: it writes into a new layer from now on. */
    if (hand.running)
        rc = snapshot_ask(home, guest, NULL, "", CONTROL_FREEZE_NEVER, &pause, err);
    if (rc == 0)
        rc = layers_merge(home, guest, hand.running, job, err);
    return rc ? error_wrap(err, "the snapshot is gone, but its space is not all given back") : 0;
}

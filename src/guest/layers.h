/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the disks of virtual machines consist of. A disk is a file, the active layer, which alone is written;
 * it may be based on another layer, that on a third. Layers that are not active never change in what they
 * show: snapshots are names for some of them, and clones are other guests' layers that are based on them. The
 * registry has a row for each layer, with the one that it is based on, so it knows what holds what; the files
 * name each other too, for who opens them. What a guest has made itself lies in its directory as
 * layer-HEX.qcow2, so that files without a row are known for leftovers.
 *
 * A guest has no rows as long as nothing was snapshot or cloned; then its disks are adopted.
 *
 * `_locked`: in a write transaction of the registry.
 */
#ifndef TABIQUE_GUEST_LAYERS_H
#define TABIQUE_GUEST_LAYERS_H

#include "guest/guest.h"

#include <jansson.h>

struct disk_job;

/* ---- layers_rows.c ---- */

struct layer {
    int64_t id;     /* grows */
    int64_t parent; /* 0: on nothing that has a row */
    char *guest;
    unsigned disk; /* which of its configuration's disks */
    char *path, *format;
    bool active;
    unsigned n_children, n_snapshots; /* that need it; active layers have neither */
};

/* Of a guest, by id. 0 or -errno with *err. */
int layers_list(struct registry *registry, const char *guest, struct layer **out, size_t *n,
                struct error **err);
/* The active ones alone; and what those are based on, as far as that has a row, with the numbers of the
 * active ones' disks. */
int layers_list_active(struct registry *registry, const char *guest, struct layer **out, size_t *n,
                       struct error **err);
int layers_list_behind(struct registry *registry, const char *guest, struct layer **out, size_t *n,
                       struct error **err);
void layers_free(struct layer *layers, size_t n);
/* Sets its id. 0 or -errno with *err. */
int layers_insert_locked(struct registry *registry, struct layer *layer, struct error **err);
int layers_freeze_locked(struct registry *registry, int64_t id, struct error **err);
/* Takes one away: what was based on it is based on what it was based on. */
int layers_take_out_locked(struct registry *registry, const struct layer *layer, struct error **err);
/* Takes the active ones away, and with them all that nothing needs any more. */
int layers_drop_active_locked(struct registry *registry, const char *guest, struct error **err);
/* The active layer of a disk is based on nothing any more. */
int layers_cut_off_locked(struct registry *registry, const char *guest, unsigned disk, struct error **err);
int layers_drop_unneeded_locked(struct registry *registry, const char *guest, struct error **err);
/* All of a guest, snapshots too. */
int layers_forget_locked(struct registry *registry, const char *guest, struct error **err);
/* The names of other guests whose disks are based on this one's (layer 0: on any of its layers), ", "
 * between; NULL if there are none. To be freed. 0 or -errno with *err. */
int layers_clones(struct registry *registry, const char *guest, int64_t layer, char **names,
                  struct error **err);

struct snapshot {
    int64_t id;
    char *name, *description;
    int64_t created; /* ns since 1970 */
    int64_t *layers; /* of each disk that it has */
    size_t n_layers;
};

/* The oldest first. 0 or -errno with *err. */
int snapshots_list(struct registry *registry, const char *guest, struct snapshot **out, size_t *n,
                   struct error **err);
void snapshots_free(struct snapshot *snapshots, size_t n);
/* Of the layers that are active now. 0 or -errno with *err (-EEXIST: the name is taken). */
int snapshots_insert_locked(struct registry *registry, const char *guest, const char *name,
                            const char *description, struct error **err);
int snapshots_delete_locked(struct registry *registry, int64_t id, struct error **err);

/* ---- layers.c ---- */

/* What is to become of one disk. */
struct layer_change {
    unsigned disk;
    char *base, *base_format; /* what the new layer is based on */
    int64_t base_id;          /* 0: has no row yet */
    char *path;               /* of the new layer; NULL: none was made */
    char *format;             /* it is no new one on top, but one that stands for all; NULL: it is qcow2 */
};

/* New active layers for the guest's disks that can be written, made but not yet used. */
struct layer_changes {
    struct layer_change *list;
    size_t n;
};

/* On what is active now, as `config` has it. 0; or -errno with *err, and nothing is left of it. */
int layers_prepare(const struct guest *guest, const json_t *config, struct layer_changes *out,
                   struct error **err);
/* On the layers given (ids, as many as there are of them), which may be another guest's. */
int layers_prepare_on(const struct guest *guest, const struct layer *layers, size_t n,
                      struct layer_changes *out, struct error **err);
/* Bitmaps that record what changes go on in the new layers of a guest that does not run, as far as they can
 * be had: who looks for one that could not finds that it is not there. Before the new layers are used. */
void layers_keep_bitmaps(const struct layer_changes *changes);
/* Writes into the configuration which files are active now. */
int layers_configure(json_t *config, const struct layer_changes *changes);
/* Has rows for what layers_prepare found active, where there are none. */
int layers_adopt_locked(struct registry *registry, const char *guest, const struct layer_changes *changes,
                        struct error **err);
/* The active layers become what the new ones are based on, but for those that stand for all. */
int layers_push_locked(struct registry *registry, const char *guest, const struct layer_changes *changes,
                       struct error **err);
/* The active layers go, for those that stand for all of them; and with them what nothing needs any more. */
int layers_replace_locked(struct registry *registry, const char *guest, const struct layer_changes *changes,
                          struct error **err);
/* Frees; what was made and not used (`used` false) is deleted. */
void layers_done(struct layer_changes *changes, bool used);
/* Deletes files of layers in its directory that no row has, and finishes what a merge that was killed has
 * left. With the guest's lock, or its layers' lock, held. 0 or -errno with *err. */
int layers_settle(const struct home *home, const char *guest, bool running, struct error **err);
/* Merges layers that only one other needs into that, as far as that is possible: space is given back.
 * `running`: its active layers are in use and stay. The guest or its layers are locked. 0 or -errno with
 * *err. */
int layers_merge(const struct home *home, const char *guest, bool running, const struct disk_job *job,
                 struct error **err);

/* The lock of a guest's layers, for who changes them while the guest may run: a descriptor, or -errno with
 * *err. */
int layers_lock(const struct home *home, const char *guest, struct error **err);

#endif

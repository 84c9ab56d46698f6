/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What snapshot.c, clone.c and the supervisor share. */
#ifndef TABIQUE_GUEST_SNAPSHOT_PRIV_H
#define TABIQUE_GUEST_SNAPSHOT_PRIV_H

#include "guest/snapshot.h"

/* A guest whose layers nobody else changes meanwhile. */
struct hand {
    struct guest_row row; /* as it was seen at first */
    bool running;
    struct guest guest; /* held, if it does not run */
    int lock_fd;
    json_t *config;
    bool keeps; /* the connection to the registry */
};

#define HAND_NONE ((struct hand){.guest = GUEST_NONE, .lock_fd = -1})

/* Refuses what is no virtual machine. 0 or -errno with *err. */
int hand_take(struct hand *out, const struct home *home, const char *name, struct error **err);
void hand_release(struct hand *hand);
#define cleanup_hand __attribute__((cleanup(hand_release)))

/* With copies of its layers. */
struct found_snapshot {
    int64_t id;
    struct layer *layers;
    size_t n;
};

int snapshot_find(const struct home *home, const char *guest, const char *name, struct found_snapshot *out,
                  struct error **err);

/* Has a guest that runs go on with new layers; with a name it becomes a snapshot. 0 or -errno with *err. */
int snapshot_ask(const struct home *home, const char *guest, const char *name, const char *description,
                 enum control_freeze freeze, struct guest_pause *pause, struct error **err);

/* Puts the new layers to use, in one transaction with the snapshot (`name` NULL: without one). `config` and
 * the guest's row are changed. 0 or -errno with *err. */
int snapshot_commit(struct guest *guest, json_t *config, const struct layer_changes *changes,
                    const char *name, const char *description, struct error **err);
/* Puts what stands for all layers of a disk to use, likewise. */
int pivot_commit(struct guest *guest, json_t *config, const struct layer_changes *changes,
                 struct error **err);
/* Writes the configuration into the guest's row, and the event, if it is not NULL. */
int snapshot_record_locked(struct registry *registry, struct guest *guest, const json_t *config,
                           const char *event, const char *snapshot, struct error **err);

#endif

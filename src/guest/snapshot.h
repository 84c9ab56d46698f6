/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Snapshots and clones of virtual machines, running or not (layers.h tells how they are kept). Called by the
 * command line, each function for one verb.
 */
#ifndef TABIQUE_GUEST_SNAPSHOT_H
#define TABIQUE_GUEST_SNAPSHOT_H

#include "guest/control.h"
#include "guest/layers.h"

/* How the disks of a guest that runs were kept. */
struct guest_pause {
    bool running;
    uint64_t ns;    /* how long its processors stood still */
    char note[160]; /* whether the guest has frozen its file systems, and if not why; "" where it does not run
                     */
};

/* Keeps what the guest's disks have now under a name. `description` "" for none; `freeze`: of a guest that
 * runs. 0 or -errno with *err. */
int guest_snapshot(const struct home *home, const char *guest, const char *name, const char *description,
                   enum control_freeze freeze, struct guest_pause *pause, struct error **err);
/* Takes the guest's disks back to it; the guest must not run. What they had since is lost, unless another
 * snapshot has it. 0 or -errno with *err. */
int guest_restore(const struct home *home, const char *guest, const char *name, struct error **err);
/* Forgets a snapshot, and gives back the space that only it needs. 0 or -errno with *err. */
int guest_snapshot_remove(const struct home *home, const char *guest, const char *name,
                          const struct disk_job *job, struct error **err);

/* A guest's snapshots with where they are in its tree. */
struct snapshot_tree {
    struct snapshot *list;
    size_t n;
    size_t *parents; /* of each the index of the one that it follows; n: none */
    size_t current;  /* the one that the disks now follow; n: none */
    uint64_t *bytes; /* that each has on the host, beyond the one that it follows */
    uint64_t current_bytes;
};

int guest_snapshots(const struct home *home, const char *guest, struct snapshot_tree *out,
                    struct error **err);
void snapshot_tree_free(struct snapshot_tree *tree);

struct guest_clone {
    const char *source, *name;  /* name NULL: one is made up */
    const char *snapshot;       /* of the source; NULL: as it is now */
    enum control_freeze freeze; /* of a source that runs */
    bool full;                  /* disks of its own, for which everything is copied */
    const struct disk_job *job;
};

/* Makes a guest like another, with a name, network addresses and (where it has them) first-boot data of its
 * own; it does not run. *name: its name, to be freed. 0 or -errno with *err. */
int guest_clone(const struct home *home, const struct guest_clone *clone, char **name,
                struct guest_pause *pause, struct error **err);

#endif

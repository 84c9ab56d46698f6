/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeping images in order: whether one is consistent, other sizes, snapshots inside of one, what it is based
 * on. Each is an optional operation of a format (disk_priv.h). What is done to an open disk is done at once,
 * in its thread, while no request is pending.
 */
#ifndef TABIQUE_DISK_MAINTAIN_H
#define TABIQUE_DISK_MAINTAIN_H

#include "disk/job.h"

/* ---- check.c ---- */

enum disk_repair {
    DISK_REPAIR_NONE,  /* look only */
    DISK_REPAIR_LEAKS, /* give back space that nothing uses */
    DISK_REPAIR_ALL,
};

/* What is still wrong, and what was and is not any more. */
struct disk_check_result {
    uint64_t corruptions, leaks;
    uint64_t corruptions_fixed, leaks_fixed;
    uint64_t end; /* of what the file uses, in bytes */
    /* Of the disk, in the units in which the format keeps it: of `units`, so many are in the file, of these
     * so many compressed, and so many not where the one before goes on. */
    uint64_t unit, units, allocated, packed, fragmented;
};

struct disk_checking {
    enum disk_repair repair;
    /* Called with each thing that is wrong, as far as there are not too many of them. May be NULL. */
    void (*say)(void *opaque, const char *line);
    void *opaque;
    const struct disk_job *job;
};

/*
 * Looks whether the image at `path` is consistent, and with `repair` makes it so as far as may be. It must
 * not be in use by one who writes it. The result tells what was found; 0 also if that is bad. -ENOTSUP with
 * *err: there is nothing to be checked in this format; else -errno with *err.
 */
int disk_check(const char *path, const char *format, const struct disk_checking *how,
               struct disk_check_result *out, struct error **err);

#endif

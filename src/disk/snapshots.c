/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Snapshots inside of images, whatever their format. The disk's thread; no locks. */
#include "disk/maintain.h"

#include "base/error.h"
#include "disk/disk_priv.h"

#include <errno.h>
#include <stdlib.h>

static int refused(const struct disk *disk, bool write, struct error **err)
{
    if (!disk->format->snapshots)
        return error_set(err, ENOTSUP, "the format %s keeps no snapshots inside of images",
                         disk->format->name);
    return write && disk->read_only ? error_set(err, EROFS, "is only read") : 0;
}

int disk_snapshot_list(struct disk *disk, struct disk_snapshots *out, struct error **err)
{
    int rc = refused(disk, false, err);

    return disk_named(disk, rc ? rc : disk->format->snapshots->list(disk, out, err), err);
}

void disk_snapshots_free(struct disk_snapshots *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->list[i].id);
        free(s->list[i].name);
    }
    free(s->list);
    *s = (struct disk_snapshots){0};
}

int disk_snapshot_create(struct disk *disk, const char *name, struct error **err)
{
    int rc = refused(disk, true, err);

    return disk_named(disk, rc ? rc : disk->format->snapshots->create(disk, name, err), err);
}

int disk_snapshot_apply(struct disk *disk, const char *which, struct error **err)
{
    int rc = refused(disk, true, err);

    return disk_named(disk, rc ? rc : disk->format->snapshots->apply(disk, which, err), err);
}

int disk_snapshot_delete(struct disk *disk, const char *which, struct error **err)
{
    int rc = refused(disk, true, err);

    return disk_named(disk, rc ? rc : disk->format->snapshots->remove(disk, which, err), err);
}

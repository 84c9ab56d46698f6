/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bitmaps inside of images, whatever their format. The disk's thread; no locks. */
#include "disk/maintain.h"

#include "base/error.h"
#include "disk/disk_priv.h"

#include <errno.h>
#include <stdlib.h>

static int refused(const struct disk *disk, bool write, struct error **err)
{
    if (!disk->format->bitmaps)
        return error_set(err, ENOTSUP, "the format %s keeps no bitmaps inside of images", disk->format->name);
    return write && disk->read_only ? error_set(err, EROFS, "is only read") : 0;
}

int disk_bitmap_list(struct disk *disk, struct disk_bitmaps *out, struct error **err)
{
    int rc = refused(disk, false, err);

    return disk_named(disk, rc ? rc : disk->format->bitmaps->list(disk, out, err), err);
}

void disk_bitmaps_free(struct disk_bitmaps *b)
{
    for (size_t i = 0; i < b->n; i++)
        free(b->list[i].name);
    free(b->list);
    *b = (struct disk_bitmaps){0};
}

int disk_bitmap_get(struct disk *disk, const char *name, struct disk_dirty *out, struct error **err)
{
    int rc = refused(disk, false, err);

    return disk_named(disk, rc ? rc : disk->format->bitmaps->get(disk, name, out, err), err);
}

static bool bit(const struct disk_dirty *d, uint64_t i)
{
    return d->bits[i / 8] >> i % 8 & 1;
}

bool disk_dirty_at(const struct disk_dirty *d, uint64_t at, uint64_t *length)
{
    uint64_t first = at / d->granularity, n = d->size / d->granularity + (d->size % d->granularity != 0);
    uint64_t next = first + 1;

    while (next < n && bit(d, next) == bit(d, first)) {
        /* Eight at once, where they are alike. */
        if (next % 8 == 0 && n - next >= 8 && d->bits[next / 8] == (bit(d, first) ? 0xff : 0))
            next += 8;
        else
            next++;
    }
    *length = next < n ? next * d->granularity - at : d->size - at;
    return bit(d, first);
}

void disk_dirty_free(struct disk_dirty *d)
{
    free(d->bits);
    *d = (struct disk_dirty){0};
}

int disk_bitmap_add(struct disk *disk, const char *name, uint64_t granularity, struct error **err)
{
    int rc = refused(disk, true, err);

    return disk_named(disk, rc ? rc : disk->format->bitmaps->add(disk, name, granularity, err), err);
}

int disk_bitmap_remove(struct disk *disk, const char *name, struct error **err)
{
    int rc = refused(disk, true, err);

    return disk_named(disk, rc ? rc : disk->format->bitmaps->remove(disk, name, err), err);
}

int disk_bitmap_clear(struct disk *disk, const char *name, struct error **err)
{
    int rc = refused(disk, true, err);

    return disk_named(disk, rc ? rc : disk->format->bitmaps->clear(disk, name, err), err);
}

int disk_bitmap_enable(struct disk *disk, const char *name, bool enabled, struct error **err)
{
    int rc = refused(disk, true, err);

    return disk_named(disk, rc ? rc : disk->format->bitmaps->enable(disk, name, enabled, err), err);
}

int disk_bitmap_merge(struct disk *disk, const char *name, const char *source, struct error **err)
{
    int rc = refused(disk, true, err);

    return disk_named(disk, rc ? rc : disk->format->bitmaps->merge(disk, name, source, err), err);
}

/* ---- for another image ---- */

struct disk_kept_bitmaps {
    struct disk_bitmaps names;
    struct disk_dirty *dirty; /* of each; without bits: it is left out */
};

struct disk_kept_bitmaps *disk_bitmaps_keep(struct disk *disk)
{
    struct disk_kept_bitmaps *kept = calloc(1, sizeof(*kept));

    if (!kept || disk_bitmap_list(disk, &kept->names, NULL))
        return kept;
    kept->dirty = calloc(kept->names.n + 1, sizeof(*kept->dirty));
    for (size_t i = 0; kept->dirty && i < kept->names.n; i++) {
        const struct disk_bitmap *b = &kept->names.list[i];
        if (b->enabled && !b->inconsistent)
            disk_bitmap_get(disk, b->name, &kept->dirty[i], NULL);
    }
    return kept;
}

static void put_one(struct disk *disk, const char *name, const struct disk_dirty *d)
{
    uint64_t size = d->size < disk->size ? d->size : disk->size, length;
    int rc = disk_bitmap_add(disk, name, d->granularity, NULL);

    if (rc)
        return;
    for (uint64_t at = 0; rc == 0 && at < size; at += length)
        if (disk_dirty_at(d, at, &length))
            rc = disk->format->bitmaps->mark(disk, name, at, length, NULL);
    if (rc)
        disk_bitmap_remove(disk, name, NULL);
}

void disk_bitmaps_put(struct disk *disk, const struct disk_kept_bitmaps *kept)
{
    for (size_t i = 0; kept && kept->dirty && i < kept->names.n; i++)
        if (kept->dirty[i].bits)
            put_one(disk, kept->names.list[i].name, &kept->dirty[i]);
}

void disk_kept_bitmaps_free(struct disk_kept_bitmaps *kept)
{
    if (!kept)
        return;
    for (size_t i = 0; kept->dirty && i < kept->names.n; i++)
        disk_dirty_free(&kept->dirty[i]);
    free(kept->dirty);
    disk_bitmaps_free(&kept->names);
    free(kept);
}

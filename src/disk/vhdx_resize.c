/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Another size for a VHDX image: an item of its metadata, which changes through the log. The table has its
 * room from when the image was made: a region of whole mebibytes. One thread; no locks.
 */
#include "disk/vhdx_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* What was written with the entry before must be in its place before the log gets another. */
static int write_and_sync(struct vhdx *v, const struct vhdx_update *updates, unsigned n)
{
    int rc = vhdx_write_updates(v, updates, n);

    return rc ? rc : disk_sync_now(v->blocks.disk.io, v->blocks.disk.file);
}

/* Has the entries of blocks from `from` up to `to` say that they are nowhere; the file may have others left
 * of a larger disk. */
static int clear_entries(struct vhdx *v, uint32_t from, uint32_t to)
{
    const struct vhdx_header *h = &v->header;
    cleanup_free struct vhdx_update *u = malloc(sizeof(*u));
    int rc = u ? 0 : -ENOMEM;

    for (uint32_t i = from; i < to && rc == 0;) {
        uint64_t sector = vhdx_entry_of(h, i) / VHDX_ENTRIES;
        bool changed = false;
        u->offset = h->table.offset + sector * VHDX_SECTOR;
        rc = disk_read_at(v->blocks.disk.fd, u->bytes, VHDX_SECTOR, u->offset);
        for (; i < to && vhdx_entry_of(h, i) / VHDX_ENTRIES == sector && rc == 0; i++) {
            uint8_t *entry = u->bytes + 8 * (vhdx_entry_of(h, i) % VHDX_ENTRIES);
            changed = changed || get_le64(entry);
            put_le64(entry, 0);
        }
        if (rc == 0 && changed)
            rc = write_and_sync(v, u, 1);
    }
    return rc;
}

/* The item may reach into a second sector. */
static int write_size(struct vhdx *v, uint64_t size)
{
    const struct vhdx_header *h = &v->header;
    unsigned skip = (unsigned)(h->size_at % VHDX_SECTOR), n = skip > VHDX_SECTOR - 8 ? 2 : 1;
    cleanup_free struct vhdx_update *u = calloc(2, sizeof(*u));
    uint8_t value[8];
    int rc = u ? 0 : -ENOMEM;

    for (unsigned i = 0; i < n && rc == 0; i++) {
        u[i].offset = h->size_at - skip + (uint64_t)i * VHDX_SECTOR;
        rc = disk_read_at(v->blocks.disk.fd, u[i].bytes, VHDX_SECTOR, u[i].offset);
    }
    put_le64(value, size);
    for (unsigned i = 0; i < 8 && rc == 0; i++)
        u[(skip + i) / VHDX_SECTOR].bytes[(skip + i) % VHDX_SECTOR] = value[i];
    return rc ? rc : write_and_sync(v, u, n);
}

int vhdx_resize(struct blocks *b, uint64_t size, uint32_t n, struct error **err)
{
    struct vhdx *v = container_of(b, struct vhdx, blocks);
    struct vhdx_header *h = &v->header;
    uint64_t entries = h->table.length / 8, room = entries - entries / (h->ratio + 1ull);

    if (size > VHDX_SIZE_MAX)
        return error_set(err, EFBIG, "a size of %" PRIu64 " bytes is too large: %" PRIu64 " at most", size,
                         (uint64_t)VHDX_SIZE_MAX);
    if (n > room)
        return error_set(err, ENOSPC,
                         "can't be larger than %" PRIu64
                         " bytes, for which its table has room: 'tabique disk "
                         "convert -O vhdx' makes one with more",
                         room * b->block_size);
    int rc = b->ops->touch(b, 0);
    if (rc == 0)
        rc = disk_sync_now(b->disk.io, b->disk.file);
    if (rc == 0 && n > b->n)
        rc = clear_entries(v, b->n, n);
    if (rc == 0)
        rc = write_size(v, size);
    if (rc)
        return error_set_errno(err, -rc, "changing its size");
    h->size = size;
    h->n = n;
    /* Should that fail, it is done when the disk becomes larger again. */
    if (n < b->n)
        clear_entries(v, n, b->n);
    return 0;
}

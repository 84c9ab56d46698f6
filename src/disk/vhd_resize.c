/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Another size for a VHD image. Of a dynamic one the table gets entries; where there is no room for them a
 * whole new one goes to the end of the file, and the header, of which all that changes is in one sector, says
 * so. Then come the two footers. Of a fixed one the footer goes to the new end. One thread; no locks.
 */
#include "disk/vhd_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void set_size(uint8_t *f, uint64_t size)
{
    /* Who has made it may have meant that the size is what the cylinders say: not any more. */
    memcpy(f + VHD_AT_CREATOR, VHD_CREATOR, 4);
    put_be64(f + VHD_AT_SIZE, size);
    vhd_put_geometry(f + VHD_AT_GEOMETRY, size / DISK_SECTOR);
    put_be32(f + VHD_AT_CHECKSUM, vhd_checksum(f, VHD_FOOTER, VHD_AT_CHECKSUM));
}

static uint64_t header_of(const struct vhd *v)
{
    return get_be64(v->footer + VHD_AT_HEADER);
}

/* How many entries fit before what follows the table. */
static uint64_t room_of(const struct vhd *v)
{
    const struct blocks *b = &v->blocks;
    uint64_t next = header_of(v) >= v->table && header_of(v) < b->end ? header_of(v) : b->end;

    for (uint32_t i = 0; i < b->n; i++) {
        uint64_t at = b->ops->where(b, i);
        if (at && at - v->bitmap >= v->table && at - v->bitmap < next)
            next = at - v->bitmap;
    }
    return (next - v->table) / 4;
}

/* The table that has entry `first` on as they are to be; `n` of them in all. */
static int write_entries(const struct vhd *v, uint64_t table, uint32_t first, uint32_t n)
{
    uint32_t count = n > first ? n - first : 0;
    cleanup_free uint8_t *bytes = malloc(4 * (size_t)count + 1);

    if (!bytes)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++)
        put_be32(bytes + 4 * (size_t)i, v->blocks.map[first + i]);
    return disk_write_at(v->blocks.disk.fd, bytes, 4 * (size_t)count, table + 4ull * first);
}

/* Room for the table at the end of the file, of which the footer is what is last. */
static int move_table(const struct vhd *v, uint32_t n, uint64_t *end)
{
    const struct blocks *b = &v->blocks;
    uint64_t table = b->end;

    *end = ALIGN_UP(table + 4ull * n, (uint64_t)DISK_SECTOR);
    int rc = ftruncate(b->disk.fd, (off_t)table) < 0 ? -errno : 0;
    if (rc == 0)
        rc = disk_write_at(b->disk.fd, v->footer, VHD_FOOTER, *end);
    return rc ? rc : write_entries(v, table, 0, n);
}

static int write_header(const struct vhd *v, uint64_t table, uint32_t n)
{
    const struct disk *d = &v->blocks.disk;
    uint8_t h[VHD_HEADER];
    int rc = disk_read_at(d->fd, h, sizeof(h), header_of(v));

    put_be64(h + VHD_AT_TABLE, table);
    put_be32(h + VHD_AT_BLOCKS, n);
    put_be32(h + VHD_AT_HEADER_CHECKSUM, vhd_checksum(h, sizeof(h), VHD_AT_HEADER_CHECKSUM));
    if (rc == 0)
        rc = disk_sync_now(d->io, d->file);
    if (rc == 0)
        rc = disk_write_at(d->fd, h, DISK_SECTOR, header_of(v));
    return rc ? rc : disk_sync_now(d->io, d->file);
}

/* At no moment the copy, which stands in for a lost footer, says less than that. */
static int write_footers(const struct vhd *v, uint64_t end, bool grows)
{
    const struct disk *d = &v->blocks.disk;
    int rc = disk_write_at(d->fd, v->footer, VHD_FOOTER, grows ? 0 : end);

    if (rc == 0)
        rc = disk_sync_now(d->io, d->file);
    if (rc == 0)
        rc = disk_write_at(d->fd, v->footer, VHD_FOOTER, grows ? end : 0);
    return rc ? rc : disk_sync_now(d->io, d->file);
}

/* A header may have more blocks than the size needs, not less. */
static int change(struct vhd *v, uint64_t size, uint32_t n)
{
    struct blocks *b = &v->blocks;
    bool grows = size > b->disk.size, move = n > b->n && n > room_of(v);
    uint64_t table = move ? b->end : v->table, end = b->end;
    uint8_t before[VHD_FOOTER];
    int rc = move ? move_table(v, n, &end) : n > b->n ? write_entries(v, table, b->n, n) : 0;

    memcpy(before, v->footer, VHD_FOOTER);
    set_size(v->footer, size);
    if (rc == 0 && !grows)
        rc = write_footers(v, end, false);
    if (rc == 0 && n != b->n)
        rc = write_header(v, table, n);
    if (rc == 0 && grows)
        rc = write_footers(v, end, true);
    if (rc) {
        memcpy(v->footer, before, VHD_FOOTER);
        return rc;
    }
    v->table = table;
    b->end = end;
    return 0;
}

int vhd_resize_dynamic(struct blocks *b, uint64_t size, uint32_t n, struct error **err)
{
    struct vhd *v = container_of(b, struct vhd, blocks);
    uint8_t *touched = realloc(v->touched, (n > b->n ? n : b->n) / 8 + 1);
    int rc = touched ? 0 : -ENOMEM;

    if (touched)
        v->touched = touched;
    for (uint32_t i = b->n; i < n && rc == 0; i++)
        touched[i / 8] &= (uint8_t) ~(1 << i % 8);
    if (rc == 0)
        rc = change(v, size, n);
    return rc ? error_set_errno(err, -rc, "changing its size") : 0;
}

static int resize_fixed(struct vhd *v, uint64_t size)
{
    struct disk *d = &v->blocks.disk;
    static const uint8_t none[VHD_FOOTER];
    uint8_t footer[VHD_FOOTER];

    memcpy(footer, v->footer, VHD_FOOTER);
    set_size(footer, size);
    int rc = disk_write_at(d->fd, footer, VHD_FOOTER, size);
    if (rc == 0)
        rc = disk_sync_now(d->io, d->file);
    /* What was the footer is content now, or nothing. */
    if (rc == 0 && size > d->size)
        rc = disk_write_at(d->fd, none, VHD_FOOTER, d->size);
    if (rc == 0 && ftruncate(d->fd, (off_t)(size + VHD_FOOTER)) < 0)
        rc = -errno;
    if (rc == 0)
        rc = disk_sync_now(d->io, d->file);
    if (rc)
        return rc;
    memcpy(v->footer, footer, VHD_FOOTER);
    d->size = size;
    return 0;
}

int vhd_resize(struct disk *disk, uint64_t size, struct error **err)
{
    struct vhd *v = container_of(disk, struct vhd, blocks.disk);

    if (size > VHD_SIZE_MAX)
        return error_set(err, EFBIG, "a size of %" PRIu64 " bytes is too large: %llu at most", size,
                         VHD_SIZE_MAX);
    if (!v->blocks.fixed)
        return blocks_resize(disk, size, err);
    int rc = resize_fixed(v, size);
    return rc ? error_set_errno(err, -rc, "changing its size") : 0;
}

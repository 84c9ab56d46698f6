/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Another size for a monolithicSparse VMDK. A larger one needs more tables of grains: these, and whole new
 * directories, go to the end of the file; where they are is in the header's one sector, as is the size. The
 * descriptor's text says the size too, which is for people and for programs that look: it comes last. One
 * thread; no locks.
 */
#include "disk/vmdk_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXTENT "RW "

/* What of the image is another with the new size. */
struct change {
    uint32_t n_tables;
    uint32_t *tables, *spares;
    uint8_t *dirty;
    uint64_t directory, spare; /* sectors */
    uint64_t end;              /* of the file */
};

/* A directory that has the old tables and new ones, with those behind it; sectors that are zeros in the file
 * say that no grain is anywhere. */
static int add_tables(const struct vmdk *v, struct change *c, const uint32_t *before, uint32_t **out,
                      uint64_t *directory)
{
    uint32_t table = (v->entries * 4 + DISK_SECTOR - 1) / DISK_SECTOR;
    size_t room = ALIGN_UP(4 * (size_t)c->n_tables, (size_t)DISK_SECTOR);
    uint64_t at = (c->end + room) / DISK_SECTOR;
    uint32_t *list = calloc(1, room);
    cleanup_free uint8_t *bytes = calloc(1, room);

    *out = list;
    if (!list || !bytes)
        return -ENOMEM;
    *directory = c->end / DISK_SECTOR;
    for (uint32_t t = 0; t < c->n_tables; t++) {
        list[t] = t < v->n_tables ? before[t] : (uint32_t)at;
        put_le32(bytes + 4 * (size_t)t, list[t]);
        if (t >= v->n_tables)
            at += table;
    }
    if (at > UINT32_MAX)
        return -EFBIG;
    c->end = at * DISK_SECTOR;
    if (ftruncate(v->blocks.disk.fd, (off_t)c->end) < 0)
        return -errno;
    return disk_write_at(v->blocks.disk.fd, bytes, room, *directory * DISK_SECTOR);
}

/* What the last table has behind the old end is of a larger disk that once was. */
static int clear_rest(const struct vmdk *v, uint32_t n)
{
    const struct blocks *b = &v->blocks;
    uint32_t t = b->n / v->entries, first = b->n % v->entries;
    uint32_t count = n / v->entries == t ? n % v->entries - first : v->entries - first;
    uint8_t zeros[VMDK_TABLE_MAX * 4] = {0};

    if (!first)
        return 0;
    int rc = disk_write_at(b->disk.fd, zeros, 4 * (size_t)count,
                           (uint64_t)v->tables[t] * DISK_SECTOR + 4 * (size_t)first);
    if (rc == 0 && v->spares)
        rc = disk_write_at(b->disk.fd, zeros, 4 * (size_t)count,
                           (uint64_t)v->spares[t] * DISK_SECTOR + 4 * (size_t)first);
    return rc;
}

static int prepare(const struct vmdk *v, uint32_t n, struct change *c)
{
    const struct blocks *b = &v->blocks;
    int rc = n > b->n ? clear_rest(v, n) : 0;

    if (rc || c->n_tables <= v->n_tables)
        return rc;
    c->end = ALIGN_UP(b->end, (uint64_t)DISK_SECTOR);
    c->dirty = calloc(1, c->n_tables / 8 + 1);
    if (!c->dirty)
        return -ENOMEM;
    /* What was left behind the end is not zeros. */
    if (ftruncate(b->disk.fd, (off_t)c->end) < 0)
        return -errno;
    rc = add_tables(v, c, v->tables, &c->tables, &c->directory);
    if (rc == 0 && v->spares)
        rc = add_tables(v, c, v->spares, &c->spares, &c->spare);
    return rc;
}

static int write_header(const struct vmdk *v, uint64_t size, const struct change *c)
{
    const struct disk *d = &v->blocks.disk;
    uint8_t h[VMDK_HEAD];
    int rc = disk_read_at(d->fd, h, sizeof(h), 0);

    put_le64(h + VMDK_AT_CAPACITY, size / DISK_SECTOR);
    if (c->tables)
        put_le64(h + VMDK_AT_DIRECTORY, c->directory);
    if (c->spares)
        put_le64(h + VMDK_AT_SPARE_DIRECTORY, c->spare);
    if (rc == 0)
        rc = disk_sync_now(d->io, d->file);
    if (rc == 0)
        rc = disk_write_at(d->fd, h, sizeof(h), 0);
    return rc ? rc : disk_sync_now(d->io, d->file);
}

/* The number in the line of the image's one extent. Where there is no such line, or no room, the text stays
 * as it is: it has no say in how large the disk is. */
static int write_text(const struct vmdk *v, uint64_t size)
{
    const struct disk *d = &v->blocks.disk;
    size_t room = v->text_size * DISK_SECTOR;
    cleanup_free char *text = calloc(1, room + 1), *out = calloc(1, room + 32);
    int rc = text && out ? disk_read_at(d->fd, text, room, v->text * DISK_SECTOR) : -ENOMEM;
    char *line = rc ? NULL : strstr(text, "\n" EXTENT);

    if (!line)
        return rc;
    char *number = line + 1 + strlen(EXTENT), *rest = number + strspn(number, "0123456789");
    size_t len = (size_t)snprintf(out, room + 32, "%.*s%" PRIu64 "%s", (int)(number - text), text,
                                  size / DISK_SECTOR, rest);
    return len > room ? 0 : disk_write_at(d->fd, out, room, v->text * DISK_SECTOR);
}

static void take_over(struct vmdk *v, struct change *c)
{
    v->n_tables = c->n_tables;
    if (!c->tables)
        return;
    free(v->tables);
    free(v->dirty);
    v->tables = c->tables;
    v->dirty = c->dirty;
    v->blocks.end = c->end;
    v->directory = c->directory;
    if (!c->spares)
        return;
    free(v->spares);
    v->spares = c->spares;
    v->spare = c->spare;
}

int vmdk_resize(struct blocks *b, uint64_t size, uint32_t n, struct error **err)
{
    struct vmdk *v = container_of(b, struct vmdk, blocks);
    struct change c = {.n_tables = n / v->entries + (n % v->entries != 0)};
    int rc = b->ops->touch(b, 0);

    if (rc == 0)
        rc = prepare(v, n, &c);
    if (rc == 0)
        rc = write_header(v, size, &c);
    if (rc) {
        free(c.tables);
        free(c.spares);
        free(c.dirty);
        return error_set_errno(err, -rc, "changing its size");
    }
    take_over(v, &c);
    /* The disk has its new size, whatever the text says. */
    if (v->text)
        write_text(v, size);
    return 0;
}

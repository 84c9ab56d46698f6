/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making VHDX images, dynamic or fixed:
 *
 *     0 identifier, headers, regions | 1 MiB log | 2 MiB metadata | 3 MiB table of blocks | blocks
 *
 * See vhdx.c. One thread; no locks.
 */
#include "disk/vhdx_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/crc32c.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOG             VHDX_MIB
#define METADATA        (2 * VHDX_MIB)
#define TABLE           (3 * VHDX_MIB)
#define UNIT            VHDX_MIB
#define BLOCK           (8u << 20)
#define BLOCK_LARGE     (32u << 20) /* of disks from a tebibyte on */
#define LARGE           (1ull << 40)
#define SECTOR_PHYSICAL 4096u
#define CREATOR         "tabique"

struct builder {
    bool fixed;
    struct vhdx_header h;
    uint32_t *map; /* mebibytes */
    uint8_t locator[VHDX_LOCATOR_ROOM];
    uint32_t locator_length; /* 0: it is based on nothing */
};

static int choose_block(const struct disk_create *what, uint32_t *out, struct error **err)
{
    uint32_t size = what->cluster_size ? what->cluster_size : what->size < LARGE ? BLOCK : BLOCK_LARGE;

    if (size < VHDX_MIB || size > VHDX_BLOCK_MAX || size & (size - 1))
        return error_set(err, EINVAL, "block_size=%u: choose a power of two from 1M to 256M", size);
    if ((what->size + size - 1) / size > BLOCKS_MAX)
        return error_set(err, EFBIG, "a size of %" PRIu64 " bytes needs larger blocks: block_size=%lluM",
                         what->size,
                         (unsigned long long)((what->size + BLOCKS_MAX - 1) / BLOCKS_MAX >> 20) + 1);
    *out = size;
    return 0;
}

static int begin(struct disk_build *build, struct error **err)
{
    const struct disk_create *what = build->what;
    bool fixed = what->subformat && strcmp(what->subformat, "fixed") == 0;
    uint32_t block = 0;

    if (what->backing && fixed)
        return error_set(err, EINVAL, "subformat=fixed can't be based on another image");
    if (what->backing && (!what->backing_format || strcmp(what->backing_format, "vhdx") != 0))
        return error_set(err, EINVAL, "a VHDX can only be based on another VHDX ('-F vhdx')");
    if (what->compression || what->compress)
        return error_set(err, EINVAL, "the format vhdx has no compression");
    if (what->subformat && !fixed && strcmp(what->subformat, "dynamic") != 0)
        return error_set(err, EINVAL, "subformat=%s: choose dynamic or fixed", what->subformat);
    if (what->size > VHDX_SIZE_MAX)
        return error_set(err, EFBIG, "a size of %" PRIu64 " bytes is too large: %llu at most", what->size,
                         VHDX_SIZE_MAX);
    int rc = choose_block(what, &block, err);
    if (rc)
        return rc;
    struct builder *v = calloc(1, sizeof(*v));
    if (!v)
        return error_set_errno(err, ENOMEM, "tables");
    build->own = v;
    v->fixed = fixed;
    v->h.block_size = block;
    v->h.n = (uint32_t)((what->size + block - 1) / block);
    v->h.ratio = (uint32_t)(((uint64_t)DISK_SECTOR << 23) / block);
    v->map = calloc(v->h.n, 4);
    if (!v->map)
        return error_set_errno(err, ENOMEM, "tables");
    /* With one for the bits of the last blocks' sectors, wherever these end. */
    uint64_t entries = ((uint64_t)v->h.n + v->h.ratio - 1) / v->h.ratio * (v->h.ratio + 1ull) + 1;
    v->h.table.length = ALIGN_UP(entries * 8, (uint64_t)VHDX_MIB);
    build->end = TABLE + v->h.table.length;
    for (uint32_t i = 0; i < v->h.n && fixed; i++) {
        v->map[i] = (uint32_t)(build->end / VHDX_MIB);
        build->end += block;
    }
    build->unit = UNIT;
    return what->backing ? vhdx_make_locator(build, v->locator, &v->locator_length, err) : 0;
}

static int place(struct disk_build *build, uint64_t index, uint32_t length, bool packed, uint64_t *offset)
{
    struct builder *v = build->own;
    uint32_t units = v->h.block_size / UNIT;
    uint32_t *block = &v->map[index / units];

    if (!*block) {
        *block = (uint32_t)(build->end / VHDX_MIB);
        build->end += v->h.block_size;
    }
    *offset = (uint64_t)*block * VHDX_MIB + index % units * UNIT;
    return 0;
}

/* ---- the end ---- */

static void put_region(uint8_t *entry, const uint8_t *id, uint64_t offset, uint64_t length)
{
    memcpy(entry, id, VHDX_GUID);
    put_le64(entry + 16, offset);
    put_le32(entry + 24, (uint32_t)length);
    put_le32(entry + 28, 1);
}

static int write_head(const struct disk_build *build)
{
    const struct builder *v = build->own;
    cleanup_free uint8_t *head = calloc(1, VHDX_MIB);

    if (!head)
        return -ENOMEM;
    memcpy(head, VHDX_SIGNATURE, 8);
    for (unsigned i = 0; CREATOR[i]; i++)
        put_le16(head + 8 + 2 * i, (uint16_t)CREATOR[i]);
    uint8_t *h = head + VHDX_HEADER_1;
    memcpy(h, VHDX_HEADER_SIGNATURE, 4);
    put_le64(h + VHDX_AT_SEQUENCE, 1);
    put_le16(h + VHDX_AT_VERSION, 1);
    put_le32(h + VHDX_AT_LOG_LENGTH, METADATA - LOG);
    put_le64(h + VHDX_AT_LOG_OFFSET, LOG);
    int rc = vhdx_new_id(h + VHDX_AT_FILE_WRITE_ID);
    if (rc == 0)
        rc = vhdx_new_id(h + VHDX_AT_DATA_WRITE_ID);
    memcpy(head + VHDX_HEADER_2, h, VHDX_HEADER);
    put_le64(head + VHDX_HEADER_2 + VHDX_AT_SEQUENCE, 2);
    for (unsigned i = 0; i < 2; i++, h += VHDX_HEADER_2 - VHDX_HEADER_1)
        put_le32(h + VHDX_AT_CHECKSUM, crc32c(0, h, VHDX_HEADER));
    uint8_t *r = head + VHDX_REGIONS_1;
    memcpy(r, VHDX_REGIONS_SIGNATURE, 4);
    put_le32(r + VHDX_AT_REGION_COUNT, 2);
    put_region(r + VHDX_AT_REGION, vhdx_id_table, TABLE, v->h.table.length);
    put_region(r + VHDX_AT_REGION + VHDX_REGION, vhdx_id_metadata, METADATA, TABLE - METADATA);
    put_le32(r + VHDX_AT_CHECKSUM, crc32c(0, r, VHDX_REGIONS));
    memcpy(head + VHDX_REGIONS_2, r, VHDX_REGIONS);
    return rc ? rc : disk_write_at(build->fd, head, VHDX_MIB, 0);
}

struct items {
    uint8_t *table, *next; /* entry */
    uint32_t at;           /* in the region */
};

/* Where its value goes. */
static uint8_t *add_item(struct items *items, const uint8_t *id, uint32_t length, uint32_t flags)
{
    uint8_t *value = items->table + items->at;

    memcpy(items->next, id, VHDX_GUID);
    put_le32(items->next + 16, items->at);
    put_le32(items->next + 20, length);
    put_le32(items->next + 24, flags | VHDX_ITEM_REQUIRED);
    items->next += VHDX_ITEM;
    items->at += length;
    put_le16(items->table + VHDX_AT_ITEM_COUNT, (uint16_t)(get_le16(items->table + VHDX_AT_ITEM_COUNT) + 1));
    return value;
}

static int write_metadata(const struct disk_build *build)
{
    const struct builder *v = build->own;
    cleanup_free uint8_t *table = calloc(1, TABLE - METADATA);

    if (!table)
        return -ENOMEM;
    struct items items = {table, table + VHDX_AT_ITEM, VHDX_METADATA};
    memcpy(table, VHDX_METADATA_SIGNATURE, 8);
    uint8_t *parameters = add_item(&items, vhdx_id_parameters, 8, 0);
    put_le32(parameters, v->h.block_size);
    put_le32(parameters + 4, v->fixed ? VHDX_FIXED : v->locator_length ? VHDX_HAS_PARENT : 0);
    put_le64(add_item(&items, vhdx_id_size, 8, VHDX_ITEM_OF_DISK), build->what->size);
    int rc = vhdx_new_id(add_item(&items, vhdx_id_disk, VHDX_GUID, VHDX_ITEM_OF_DISK));
    put_le32(add_item(&items, vhdx_id_sector, 4, VHDX_ITEM_OF_DISK), DISK_SECTOR);
    put_le32(add_item(&items, vhdx_id_physical, 4, VHDX_ITEM_OF_DISK), SECTOR_PHYSICAL);
    if (v->locator_length)
        memcpy(add_item(&items, vhdx_id_parent, v->locator_length, 0), v->locator, v->locator_length);
    return rc ? rc : disk_write_at(build->fd, table, TABLE - METADATA, METADATA);
}

static int write_table(const struct disk_build *build)
{
    const struct builder *v = build->own;
    cleanup_free uint8_t *table = calloc(1, v->h.table.length);

    if (!table)
        return -ENOMEM;
    for (uint32_t i = 0; i < v->h.n; i++)
        if (v->map[i])
            put_le64(table + 8 * vhdx_entry_of(&v->h, i),
                     (uint64_t)v->map[i] << VHDX_PLACE_SHIFT | VHDX_PRESENT);
    return disk_write_at(build->fd, table, v->h.table.length, TABLE);
}

static int end(struct disk_build *build)
{
    int rc = write_table(build);

    if (rc == 0)
        rc = write_metadata(build);
    /* Blocks may end in zeros that were not written. */
    if (rc == 0 && ftruncate(build->fd, (off_t)build->end) < 0)
        rc = -errno;
    return rc ? rc : write_head(build);
}

static void free_builder(struct disk_build *build)
{
    struct builder *v = build->own;

    if (v)
        free(v->map);
    free(v);
}

const struct disk_build_ops vhdx_build = {.begin = begin, .place = place, .end = end, .free = free_builder};

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Making VHD images: dynamic, with blocks of 2 MiB, or fixed. See vhd.c. One thread; no locks. */
#include "disk/vhd_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define BLOCK        (2u << 20)
#define BITMAP       512u
#define TABLE        (VHD_FOOTER + VHD_HEADER)
#define FIXED_UNIT   4096u
#define FEATURES     2u /* a bit that is always set */
#define VERSION      0x00010000u
#define NO_OFFSET    UINT64_MAX
#define CREATOR_HOST "Wi2k"

struct builder {
    bool fixed;
    uint32_t n;
    uint32_t *map;
    uint8_t header[VHD_HEADER]; /* with the parent; and where that is written down */
    uint8_t locator[VHD_LOCATOR_ROOM];
    uint64_t locator_at;
};

static int begin(struct disk_build *build, struct error **err)
{
    const struct disk_create *what = build->what;
    bool fixed = what->subformat && strcmp(what->subformat, "fixed") == 0;

    if (what->backing && fixed)
        return error_set(err, EINVAL, "subformat=fixed can't be based on another image");
    if (what->backing && (!what->backing_format || strcmp(what->backing_format, "vhd") != 0))
        return error_set(err, EINVAL, "a VHD can only be based on another VHD ('-F vhd')");
    if (what->cluster_size || what->compression || what->compress)
        return error_set(err, EINVAL, "the format vhd has no compression and no option but subformat");
    if (what->subformat && !fixed && strcmp(what->subformat, "dynamic") != 0)
        return error_set(err, EINVAL, "subformat=%s: choose dynamic or fixed", what->subformat);
    if (what->size > VHD_SIZE_MAX)
        return error_set(err, EFBIG, "a size of %" PRIu64 " bytes is too large: %llu at most", what->size,
                         VHD_SIZE_MAX);
    struct builder *v = calloc(1, sizeof(*v));
    if (!v)
        return error_set_errno(err, ENOMEM, "tables");
    build->own = v;
    v->fixed = fixed;
    build->unit = fixed ? FIXED_UNIT : BLOCK;
    build->whole = !fixed;
    if (fixed)
        return 0;
    v->n = (uint32_t)(what->size / BLOCK + (what->size % BLOCK != 0));
    v->map = malloc(4 * (size_t)v->n);
    if (!v->map)
        return error_set_errno(err, ENOMEM, "tables");
    memset(v->map, 0xff, 4 * (size_t)v->n);
    build->end = ALIGN_UP(TABLE + 4ull * v->n, (uint64_t)DISK_SECTOR);
    if (!what->backing)
        return 0;
    v->locator_at = build->end;
    build->end += VHD_LOCATOR_ROOM;
    return vhd_put_parent(build, v->header, v->locator_at, v->locator, err);
}

static int place(struct disk_build *build, uint64_t index, uint32_t length, bool packed, uint64_t *offset)
{
    struct builder *v = build->own;
    uint8_t ones[BITMAP];

    if (v->fixed) {
        *offset = index * FIXED_UNIT;
        return 0;
    }
    memset(ones, 0xff, sizeof(ones));
    int rc = disk_write_at(build->fd, ones, sizeof(ones), build->end);
    if (rc)
        return rc;
    v->map[index] = (uint32_t)(build->end / DISK_SECTOR);
    *offset = build->end + BITMAP;
    build->end += BITMAP + BLOCK;
    return 0;
}

void vhd_put_geometry(uint8_t *to, uint64_t sectors)
{
    uint64_t tracks;
    unsigned per_track, heads;

    if (sectors > VHD_CHS_MAX)
        sectors = VHD_CHS_MAX;
    if (sectors >= 65535ull * 16 * 63) {
        per_track = 255;
        heads = 16;
        tracks = sectors / per_track;
    } else {
        per_track = 17;
        tracks = sectors / per_track;
        heads = (unsigned)((tracks + 1023) / 1024);
        if (heads < 4)
            heads = 4;
        if (tracks >= heads * 1024ull || heads > 16) {
            per_track = 31;
            heads = 16;
            tracks = sectors / per_track;
        }
        if (tracks >= heads * 1024ull) {
            per_track = 63;
            heads = 16;
            tracks = sectors / per_track;
        }
    }
    put_be16(to, (uint16_t)(tracks / heads));
    to[2] = (uint8_t)heads;
    to[3] = (uint8_t)per_track;
}

static int fill_footer(const struct disk_build *build, uint8_t *f)
{
    const struct builder *v = build->own;
    uint64_t size = build->what->size;

    memset(f, 0, VHD_FOOTER);
    memcpy(f, VHD_COOKIE, 8);
    put_be32(f + VHD_AT_FEATURES, FEATURES);
    put_be32(f + VHD_AT_VERSION, VERSION);
    put_be64(f + VHD_AT_HEADER, v->fixed ? NO_OFFSET : VHD_FOOTER);
    put_be32(f + VHD_AT_TIME, (uint32_t)(time(NULL) - VHD_YEAR_2000));
    memcpy(f + VHD_AT_CREATOR, VHD_CREATOR, 4);
    put_be32(f + VHD_AT_CREATOR_VERSION, VERSION);
    memcpy(f + VHD_AT_CREATOR_HOST, CREATOR_HOST, 4);
    put_be64(f + VHD_AT_ORIGINAL_SIZE, size);
    put_be64(f + VHD_AT_SIZE, size);
    vhd_put_geometry(f + VHD_AT_GEOMETRY, size / DISK_SECTOR);
    put_be32(f + VHD_AT_TYPE, v->fixed ? VHD_FIXED : build->what->backing ? VHD_DIFFERENCING : VHD_DYNAMIC);
    if (getrandom(f + VHD_AT_ID, 16, 0) != 16)
        return -EIO;
    put_be32(f + VHD_AT_CHECKSUM, vhd_checksum(f, VHD_FOOTER, VHD_AT_CHECKSUM));
    return 0;
}

/* The footer's copy, the header and the table. */
static int write_head(struct disk_build *build, const uint8_t *footer)
{
    const struct builder *v = build->own;
    uint64_t len = ALIGN_UP(TABLE + 4ull * v->n, (uint64_t)DISK_SECTOR);
    cleanup_free uint8_t *head = calloc(1, len);

    if (!head)
        return -ENOMEM;
    uint8_t *d = head + VHD_FOOTER;
    memcpy(head, footer, VHD_FOOTER);
    memcpy(d, v->header, VHD_HEADER);
    memcpy(d, VHD_HEADER_COOKIE, 8);
    put_be64(d + VHD_AT_NEXT, NO_OFFSET);
    put_be64(d + VHD_AT_TABLE, TABLE);
    put_be32(d + VHD_AT_HEADER_VERSION, VERSION);
    put_be32(d + VHD_AT_BLOCKS, v->n);
    put_be32(d + VHD_AT_BLOCK_SIZE, BLOCK);
    put_be32(d + VHD_AT_HEADER_CHECKSUM, vhd_checksum(d, VHD_HEADER, VHD_AT_HEADER_CHECKSUM));
    memset(head + TABLE, 0xff, len - TABLE);
    for (uint32_t i = 0; i < v->n; i++)
        put_be32(head + TABLE + 4 * (size_t)i, v->map[i]);
    int rc = v->locator_at ? disk_write_at(build->fd, v->locator, VHD_LOCATOR_ROOM, v->locator_at) : 0;
    return rc ? rc : disk_write_at(build->fd, head, len, 0);
}

static int end(struct disk_build *build)
{
    const struct builder *v = build->own;
    uint8_t footer[VHD_FOOTER];
    int rc = fill_footer(build, footer);

    if (rc == 0)
        rc = disk_write_at(build->fd, footer, sizeof(footer), v->fixed ? build->what->size : build->end);
    return rc || v->fixed ? rc : write_head(build, footer);
}

static void free_builder(struct disk_build *build)
{
    struct builder *v = build->own;

    if (v)
        free(v->map);
    free(v);
}

const struct disk_build_ops vhd_build = {.begin = begin, .place = place, .end = end, .free = free_builder};

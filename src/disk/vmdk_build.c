/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making VMDK images of one file:
 *
 *     monolithicSparse   header | descriptor | directory, tables | the same once more | grains
 *     streamOptimized    header | descriptor | grains, compressed, in the disk's order | tables | directory
 *                        | header once more | end; a marker before each, so that it can be read as it comes
 *
 * See vmdk.c. All calls but `pack` one at a time; no locks.
 */
#include "disk/vmdk_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/pack.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define GRAIN              (64u << 10)
#define DESCRIPTOR         1u /* sectors */
#define DESCRIPTOR_SECTORS 20u
#define TABLE_SECTORS      (VMDK_TABLE * 4 / DISK_SECTOR)
/* More than deflate makes of a grain that it can't compress. */
#define PACK_MAX       (VMDK_MARKER + GRAIN + 1024u)
#define NAME_MAX_BYTES 255u

struct builder {
    bool stream;
    uint32_t n, n_tables;      /* grains, tables */
    uint32_t *map;             /* of each grain its sector in the file */
    uint64_t spare, directory; /* sectors */
    uint32_t directory_sectors;
};

static int begin(struct disk_build *build, struct error **err)
{
    const struct disk_create *what = build->what;
    bool stream = what->subformat && strcmp(what->subformat, "streamOptimized") == 0;
    uint64_t n = what->size / GRAIN + (what->size % GRAIN != 0);

    if (what->backing)
        return error_set(err, EINVAL, "a VMDK image that is based on another can't be made");
    if (what->cluster_size || what->compression)
        return error_set(err, EINVAL, "the format vmdk has no option but subformat");
    if (what->subformat && !stream && strcmp(what->subformat, "monolithicSparse") != 0)
        return error_set(err, EINVAL, "subformat=%s: choose monolithicSparse or streamOptimized",
                         what->subformat);
    if (what->compress && !stream)
        return error_set(err, EINVAL, "of VMDK only subformat=streamOptimized is compressed, and always");
    if (n > VMDK_GRAINS_MAX)
        return error_set(err, EFBIG, "a size of %" PRIu64 " bytes is too large: %" PRIu64 " at most",
                         what->size, (uint64_t)VMDK_GRAINS_MAX * GRAIN);
    struct builder *v = calloc(1, sizeof(*v));
    if (!v)
        return error_set_errno(err, ENOMEM, "tables");
    build->own = v;
    v->stream = stream;
    v->n = (uint32_t)n;
    v->n_tables = (v->n + VMDK_TABLE - 1) / VMDK_TABLE;
    v->map = calloc((size_t)v->n_tables * VMDK_TABLE, sizeof(*v->map));
    if (!v->map)
        return error_set_errno(err, ENOMEM, "tables");
    v->directory_sectors = (v->n_tables * 4 + DISK_SECTOR - 1) / DISK_SECTOR;
    uint64_t tables = v->directory_sectors + (uint64_t)v->n_tables * TABLE_SECTORS;
    v->spare = DESCRIPTOR + DESCRIPTOR_SECTORS;
    v->directory = v->spare + tables;
    build->end = stream ? GRAIN : ALIGN_UP((v->directory + tables) * DISK_SECTOR, (uint64_t)GRAIN);
    build->unit = GRAIN;
    build->whole = true;
    build->ordered = stream;
    build->pack_max = stream ? PACK_MAX : 0;
    return 0;
}

static int place(struct disk_build *build, uint64_t index, uint32_t length, bool packed, uint64_t *offset)
{
    struct builder *v = build->own;
    uint64_t room = ALIGN_UP((uint64_t)length, (uint64_t)DISK_SECTOR);

    /* Nothing but what is compressed can be in a stream. */
    if (v->stream && !packed)
        return -EIO;
    if ((build->end + room) / DISK_SECTOR > UINT32_MAX)
        return -EFBIG;
    v->map[index] = (uint32_t)(build->end / DISK_SECTOR);
    *offset = build->end;
    build->end += room;
    return 0;
}

static size_t pack(const struct disk_build *build, struct disk_packer *packer, uint64_t index,
                   const uint8_t *unit, uint8_t *out)
{
    size_t n = disk_pack_zlib(packer, unit, GRAIN, out + VMDK_MARKER, PACK_MAX - VMDK_MARKER);

    put_le64(out, index * (GRAIN / DISK_SECTOR));
    put_le32(out + 8, (uint32_t)n);
    return n ? n + VMDK_MARKER : 0;
}

/* ---- the end ---- */

static int write_tables(struct disk_build *build, uint64_t directory)
{
    const struct builder *v = build->own;
    uint64_t first = directory + v->directory_sectors;
    cleanup_free uint8_t *bytes = calloc(v->directory_sectors, DISK_SECTOR);
    uint8_t table[VMDK_TABLE * 4];

    if (!bytes)
        return -ENOMEM;
    for (uint32_t t = 0; t < v->n_tables; t++) {
        const uint32_t *map = v->map + (size_t)t * VMDK_TABLE;
        uint64_t at = first + (uint64_t)t * TABLE_SECTORS;
        put_le32(bytes + 4 * (size_t)t, (uint32_t)at);
        for (uint32_t i = 0; i < VMDK_TABLE; i++)
            put_le32(table + 4 * (size_t)i, map[i]);
        int rc = disk_is_zero(table, sizeof(table))
                     ? 0
                     : disk_write_at(build->fd, table, sizeof(table), at * DISK_SECTOR);
        if (rc)
            return rc;
    }
    return disk_write_at(build->fd, bytes, (size_t)v->directory_sectors * DISK_SECTOR,
                         directory * DISK_SECTOR);
}

static int write_marker(struct disk_build *build, uint32_t type, uint64_t sectors)
{
    uint8_t marker[DISK_SECTOR] = {0};

    put_le64(marker, sectors);
    put_le32(marker + VMDK_MARKER, type);
    int rc = disk_write_at(build->fd, marker, sizeof(marker), build->end);
    build->end += sizeof(marker);
    return rc;
}

/* The tables that have something, then the directory. */
static int write_stream_tables(struct disk_build *build)
{
    struct builder *v = build->own;
    cleanup_free uint8_t *bytes = calloc(v->directory_sectors, DISK_SECTOR);
    uint8_t table[VMDK_TABLE * 4];
    int rc = bytes ? 0 : -ENOMEM;

    for (uint32_t t = 0; t < v->n_tables && rc == 0; t++) {
        for (uint32_t i = 0; i < VMDK_TABLE; i++)
            put_le32(table + 4 * (size_t)i, v->map[(size_t)t * VMDK_TABLE + i]);
        if (disk_is_zero(table, sizeof(table)))
            continue;
        rc = write_marker(build, VMDK_GRAIN_TABLE, TABLE_SECTORS);
        put_le32(bytes + 4 * (size_t)t, (uint32_t)(build->end / DISK_SECTOR));
        if (rc == 0)
            rc = disk_write_at(build->fd, table, sizeof(table), build->end);
        build->end += sizeof(table);
    }
    if (rc == 0)
        rc = write_marker(build, VMDK_GRAIN_DIRECTORY, v->directory_sectors);
    v->directory = build->end / DISK_SECTOR;
    if (rc == 0)
        rc = disk_write_at(build->fd, bytes, (size_t)v->directory_sectors * DISK_SECTOR, build->end);
    build->end += (uint64_t)v->directory_sectors * DISK_SECTOR;
    return rc;
}

static void fill_header(const struct disk_build *build, uint8_t *h, uint64_t directory)
{
    const struct builder *v = build->own;

    memset(h, 0, VMDK_HEAD);
    put_le32(h, VMDK_MAGIC);
    put_le32(h + VMDK_AT_VERSION, v->stream ? 3 : 1);
    put_le32(h + VMDK_AT_FLAGS,
             VMDK_LINE_ENDS_VALID | (v->stream ? VMDK_COMPRESSED | VMDK_MARKERS : VMDK_SPARE));
    put_le64(h + VMDK_AT_CAPACITY, build->what->size / DISK_SECTOR);
    put_le64(h + VMDK_AT_GRAIN, GRAIN / DISK_SECTOR);
    put_le64(h + VMDK_AT_DESCRIPTOR, DESCRIPTOR);
    put_le64(h + VMDK_AT_DESCRIPTOR_SIZE, DESCRIPTOR_SECTORS);
    put_le32(h + VMDK_AT_TABLE_ENTRIES, VMDK_TABLE);
    put_le64(h + VMDK_AT_SPARE_DIRECTORY, v->stream ? 0 : v->spare);
    put_le64(h + VMDK_AT_DIRECTORY, directory);
    put_le64(h + VMDK_AT_OVERHEAD,
             v->stream
                 ? GRAIN / DISK_SECTOR
                 : ALIGN_UP((2 * v->directory - v->spare) * DISK_SECTOR, (uint64_t)GRAIN) / DISK_SECTOR);
    memcpy(h + VMDK_AT_LINE_ENDS, VMDK_LINE_ENDS, 4);
    put_le16(h + VMDK_AT_COMPRESSION, v->stream ? VMDK_DEFLATE : 0);
}

/* The file's own name is in the text, in quotes: what can't be there is replaced. */
static void quote_name(const struct disk_build *build, char out[NAME_MAX_BYTES + 1])
{
    snprintf(out, NAME_MAX_BYTES + 1, "%s", build->name);
    for (char *p = out; *p; p++)
        if (*p == '"' || (unsigned char)*p < ' ')
            *p = '_';
}

static int write_head(struct disk_build *build)
{
    char name[NAME_MAX_BYTES + 1];
    const struct builder *v = build->own;
    uint8_t head[(DESCRIPTOR + DESCRIPTOR_SECTORS) * DISK_SECTOR] = {0};
    uint64_t sectors = build->what->size / DISK_SECTOR, cylinders = sectors / (16 * 63);
    uint32_t id;

    if (getrandom(&id, sizeof(id), 0) != sizeof(id))
        return -EIO;
    /* All ones mean that there is no parent. */
    id &= 0x7fffffff;
    quote_name(build, name);
    fill_header(build, head, v->stream ? VMDK_GD_AT_END : v->directory);
    snprintf((char *)head + DESCRIPTOR * DISK_SECTOR, DESCRIPTOR_SECTORS * DISK_SECTOR,
             "# Disk DescriptorFile\nversion=1\nCID=%08" PRIx32 "\nparentCID=ffffffff\ncreateType=\"%s\"\n\n"
             "# Extent description\nRW %" PRIu64 " SPARSE \"%s\"\n\n# The Disk Data Base\n#DDB\n\n"
             "ddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"%" PRIu64
             "\"\nddb.geometry.heads = \"16\"\n"
             "ddb.geometry.sectors = \"63\"\nddb.adapterType = \"ide\"\n",
             id, v->stream ? "streamOptimized" : "monolithicSparse", sectors, name,
             cylinders > 16383 ? 16383 : cylinders);
    return disk_write_at(build->fd, head, sizeof(head), 0);
}

static int end_stream(struct disk_build *build)
{
    const struct builder *v = build->own;
    uint8_t footer[VMDK_HEAD];
    int rc = write_stream_tables(build);

    if (rc == 0)
        rc = write_marker(build, VMDK_FOOTER, 1);
    fill_header(build, footer, v->directory);
    if (rc == 0)
        rc = disk_write_at(build->fd, footer, sizeof(footer), build->end);
    build->end += sizeof(footer);
    if (rc == 0)
        rc = write_marker(build, VMDK_END, 0);
    return rc ? rc : write_head(build);
}

static int end(struct disk_build *build)
{
    const struct builder *v = build->own;

    if (v->stream)
        return end_stream(build);
    int rc = write_tables(build, v->spare);
    if (rc == 0)
        rc = write_tables(build, v->directory);
    /* The last grain may end in zeros that were not written. */
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

const struct disk_build_ops vmdk_build = {
    .begin = begin, .place = place, .pack = pack, .end = end, .free = free_builder};

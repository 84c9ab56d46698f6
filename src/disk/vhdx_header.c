/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The structures of a VHDX file before its table of blocks, read and checked:
 *
 *     identifier | two headers, the one with the higher number counts | two copies of the table of regions
 *     | log | region of metadata: a table, and what it names | region of the table of blocks | blocks
 *
 * No state.
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
#include <sys/random.h>
#include <sys/stat.h>

/* Identifiers as they lie in the file: of their five parts the first three little-endian. */
const uint8_t vhdx_id_table[] = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
                                 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};
const uint8_t vhdx_id_metadata[] = {0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
                                    0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e};
const uint8_t vhdx_id_parameters[] = {0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d,
                                      0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b};
const uint8_t vhdx_id_size[] = {0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48,
                                0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8};
const uint8_t vhdx_id_disk[] = {0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45,
                                0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46};
const uint8_t vhdx_id_sector[] = {0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47,
                                  0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f};
const uint8_t vhdx_id_physical[] = {0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44,
                                    0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56};
const uint8_t vhdx_id_parent[] = {0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45,
                                  0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c};

int vhdx_new_id(uint8_t id[VHDX_GUID])
{
    if (getrandom(id, VHDX_GUID, 0) != VHDX_GUID)
        return -EIO;
    id[7] = (uint8_t)(0x40 | (id[7] & 0x0f)); /* says that it is random */
    id[8] = (uint8_t)(0x80 | (id[8] & 0x3f));
    return 0;
}

/* Of `len` bytes, with the checksum in them taken for zero. */
static bool checksum_is_right(const uint8_t *p, size_t len)
{
    static const uint8_t none[4];
    uint32_t crc = crc32c(0, p, VHDX_AT_CHECKSUM);

    crc = crc32c(crc, none, 4);
    return crc32c(crc, p + VHDX_AT_CHECKSUM + 4, len - VHDX_AT_CHECKSUM - 4) ==
           get_le32(p + VHDX_AT_CHECKSUM);
}

static bool is_one_of(const uint8_t *p, const char *signature, size_t len)
{
    return memcmp(p, signature, strlen(signature)) == 0 && checksum_is_right(p, len);
}

/* ---- the two headers ---- */

static int find_header(struct vhdx_header *h, int fd, struct error **err)
{
    uint8_t head[8], first[VHDX_HEADER], second[VHDX_HEADER];
    int rc = disk_read_at(fd, head, sizeof(head), 0);

    if (rc == 0)
        rc = disk_read_at(fd, first, sizeof(first), VHDX_HEADER_1);
    if (rc == 0)
        rc = disk_read_at(fd, second, sizeof(second), VHDX_HEADER_2);
    if (rc)
        return error_set_errno(err, -rc, "reading its headers");
    if (memcmp(head, VHDX_SIGNATURE, sizeof(head)) != 0)
        return error_set(err, EINVAL, "is not a VHDX image");
    bool one = is_one_of(first, VHDX_HEADER_SIGNATURE, sizeof(first));
    bool two = is_one_of(second, VHDX_HEADER_SIGNATURE, sizeof(second));
    uint64_t a = get_le64(first + VHDX_AT_SEQUENCE), b = get_le64(second + VHDX_AT_SEQUENCE);
    if (!one && !two)
        return error_set(err, EINVAL, "is damaged: it has no valid header");
    if (one && two && a == b && memcmp(first, second, sizeof(first)) != 0)
        return error_set(err, EINVAL, "is damaged: its two headers have one number, and differ");
    bool use_first = one && (!two || a >= b);
    h->at = use_first ? VHDX_HEADER_1 : VHDX_HEADER_2;
    memcpy(h->bytes, use_first ? first : second, VHDX_HEADER);
    if (get_le16(h->bytes + VHDX_AT_VERSION) != 1)
        return error_set(err, ENOTSUP, "is VHDX of version %u: 1 is known here",
                         get_le16(h->bytes + VHDX_AT_VERSION));
    h->log = (struct vhdx_region){get_le64(h->bytes + VHDX_AT_LOG_OFFSET),
                                  get_le32(h->bytes + VHDX_AT_LOG_LENGTH)};
    return 0;
}

int vhdx_header_write(struct vhdx_header *h, int fd)
{
    uint64_t at = h->at == VHDX_HEADER_1 ? VHDX_HEADER_2 : VHDX_HEADER_1;

    put_le64(h->bytes + VHDX_AT_SEQUENCE, get_le64(h->bytes + VHDX_AT_SEQUENCE) + 1);
    put_le32(h->bytes + VHDX_AT_CHECKSUM, 0);
    put_le32(h->bytes + VHDX_AT_CHECKSUM, crc32c(0, h->bytes, VHDX_HEADER));
    int rc = disk_write_at(fd, h->bytes, VHDX_HEADER, at);
    if (rc == 0)
        h->at = at;
    return rc;
}

/* ---- regions ---- */

static bool meet(const struct vhdx_region *a, const struct vhdx_region *b)
{
    return a->offset < b->offset + b->length && b->offset < a->offset + a->length;
}

static int check_region(const struct vhdx_region *r, struct error **err)
{
    if (r->offset < VHDX_MIB || r->offset % VHDX_MIB || !r->length || r->length % VHDX_MIB ||
        r->offset > 4 * VHDX_SIZE_MAX)
        return error_set(err, EINVAL,
                         "is damaged: a region of %" PRIu64 " bytes is said to lie at byte %" PRIu64,
                         r->length, r->offset);
    return 0;
}

static int take_region(struct vhdx_header *h, const uint8_t *entry, struct error **err)
{
    struct vhdx_region r = {get_le64(entry + 16), get_le32(entry + 24)};
    struct vhdx_region *known = memcmp(entry, vhdx_id_table, VHDX_GUID) == 0      ? &h->table
                                : memcmp(entry, vhdx_id_metadata, VHDX_GUID) == 0 ? &h->metadata
                                                                                  : NULL;
    int rc = check_region(&r, err);

    if (rc)
        return rc;
    if (!known && get_le32(entry + 28) & 1)
        return error_set(err, ENOTSUP, "needs a region that is not known here");
    if ((known && known->length) || meet(&r, &h->log) || (h->table.length && meet(&r, &h->table)) ||
        (h->metadata.length && meet(&r, &h->metadata)))
        return error_set(err, EINVAL, "is damaged: two of its regions lie in one place");
    if (known)
        *known = r;
    if (r.offset + r.length > h->end)
        h->end = r.offset + r.length;
    return 0;
}

static int read_regions(struct vhdx_header *h, const struct vhdx_log *log, int fd, uint64_t file_end,
                        struct error **err)
{
    cleanup_free uint8_t *table = malloc(VHDX_REGIONS);
    int rc = table ? vhdx_log_read(log, fd, table, VHDX_REGIONS, VHDX_REGIONS_1) : -ENOMEM;

    if (rc == 0 && !is_one_of(table, VHDX_REGIONS_SIGNATURE, VHDX_REGIONS))
        rc = vhdx_log_read(log, fd, table, VHDX_REGIONS, VHDX_REGIONS_2);
    if (rc)
        return error_set_errno(err, -rc, "reading its regions");
    uint32_t n = get_le32(table + VHDX_AT_REGION_COUNT);
    if (!is_one_of(table, VHDX_REGIONS_SIGNATURE, VHDX_REGIONS) || n > VHDX_REGIONS_MAX)
        return error_set(err, EINVAL, "is damaged: it has no valid table of regions");
    h->end = h->log.offset + h->log.length;
    for (uint32_t i = 0; i < n && rc == 0; i++)
        rc = take_region(h, table + VHDX_AT_REGION + (size_t)i * VHDX_REGION, err);
    if (rc)
        return rc;
    if (!h->table.length || !h->metadata.length)
        return error_set(err, EINVAL, "is damaged: it has no table of blocks, or no metadata");
    if (h->end > file_end && h->end > log->file_end)
        return error_set(err, EINVAL, "is cut off: it ends within its regions");
    return 0;
}

/* ---- metadata ---- */

struct item {
    const uint8_t *id;
    uint32_t length;
    uint64_t at; /* in the file; 0: not found */
};

static int find_items(const struct vhdx_header *h, const uint8_t *table, struct item *items, unsigned n,
                      struct error **err)
{
    uint32_t count = get_le16(table + VHDX_AT_ITEM_COUNT);

    if (memcmp(table, VHDX_METADATA_SIGNATURE, 8) != 0 || count > VHDX_ITEMS_MAX)
        return error_set(err, EINVAL, "is damaged: it has no valid metadata");
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *entry = table + VHDX_AT_ITEM + (size_t)i * VHDX_ITEM;
        uint32_t offset = get_le32(entry + 16), length = get_le32(entry + 20), flags = get_le32(entry + 24);
        struct item *item = NULL;
        for (unsigned k = 0; k < n && !(flags & 1); k++)
            if (memcmp(entry, items[k].id, VHDX_GUID) == 0)
                item = &items[k];
        if (!item && flags & VHDX_ITEM_REQUIRED)
            return error_set(err, ENOTSUP, "needs metadata that are not known here");
        if (!item)
            continue;
        if (item->at || offset < VHDX_METADATA || length > h->metadata.length ||
            offset > h->metadata.length - length || !length || length > VHDX_MIB ||
            (item->length && length != item->length))
            return error_set(err, EINVAL, "is damaged: its metadata are not where they are said to be");
        item->at = h->metadata.offset + offset;
        item->length = length;
    }
    return 0;
}

static int check_values(struct vhdx_header *h, struct error **err)
{
    uint64_t n;

    if (h->sector_size != 512 && h->sector_size != 4096)
        return error_set(err, EINVAL, "is damaged: sectors of %u bytes", h->sector_size);
    if (h->block_size < VHDX_MIB || h->block_size > VHDX_BLOCK_MAX || h->block_size & (h->block_size - 1))
        return error_set(err, EINVAL, "is damaged: blocks of %u bytes", h->block_size);
    if (!h->size || h->size > VHDX_SIZE_MAX || h->size % h->sector_size)
        return error_set(err, EINVAL, "is damaged: a size of %" PRIu64 " bytes", h->size);
    n = (h->size + h->block_size - 1) / h->block_size;
    if (n > BLOCKS_MAX)
        return error_set(err, EFBIG, "has %" PRIu64 " blocks: %u are read here at most", n, BLOCKS_MAX);
    h->n = (uint32_t)n;
    h->ratio = (uint32_t)(((uint64_t)h->sector_size << 23) / h->block_size);
    uint64_t entries = vhdx_entry_of(h, h->n - 1) + 1;
    if (h->flags & VHDX_HAS_PARENT)
        entries = (n + h->ratio - 1) / h->ratio * (h->ratio + 1ull);
    if (entries * 8 > h->table.length)
        return error_set(err, EINVAL, "is damaged: its table is too short for its size");
    return 0;
}

static int read_metadata(struct vhdx_header *h, const struct vhdx_log *log, int fd, struct error **err)
{
    enum { PARAMETERS, SIZE, DISK, SECTOR, PHYSICAL, PARENT, ITEMS };
    struct item items[ITEMS] = {[PARAMETERS] = {vhdx_id_parameters, 8, 0},
                                [SIZE] = {vhdx_id_size, 8, 0},
                                [DISK] = {vhdx_id_disk, 16, 0},
                                [SECTOR] = {vhdx_id_sector, 4, 0},
                                [PHYSICAL] = {vhdx_id_physical, 4, 0},
                                [PARENT] = {vhdx_id_parent, 0, 0}};
    uint8_t values[PARENT][16];
    cleanup_free uint8_t *table = malloc(VHDX_METADATA);
    int rc = table ? vhdx_log_read(log, fd, table, VHDX_METADATA, h->metadata.offset) : -ENOMEM;

    if (rc)
        return error_set_errno(err, -rc, "reading its metadata");
    rc = find_items(h, table, items, ITEMS, err);
    if (rc)
        return rc;
    for (unsigned i = 0; i < PARENT && rc == 0; i++) {
        if (!items[i].at)
            return error_set(err, EINVAL, "is damaged: some of its metadata are missing");
        rc = vhdx_log_read(log, fd, values[i], items[i].length, items[i].at);
    }
    if (rc)
        return error_set_errno(err, -rc, "reading its metadata");
    h->block_size = get_le32(values[PARAMETERS]);
    h->flags = get_le32(values[PARAMETERS] + 4);
    h->size = get_le64(values[SIZE]);
    h->size_at = items[SIZE].at;
    h->sector_size = get_le32(values[SECTOR]);
    h->physical_size = get_le32(values[PHYSICAL]);
    memcpy(h->disk_id, values[DISK], VHDX_GUID);
    if (h->flags & VHDX_HAS_PARENT) {
        if (!items[PARENT].at)
            return error_set(err, EINVAL, "is damaged: it does not say what it is based on");
        h->parent = items[PARENT].at;
        h->parent_length = items[PARENT].length;
    }
    return check_values(h, err);
}

uint64_t vhdx_entry_of(const struct vhdx_header *h, uint32_t i)
{
    return (uint64_t)i + i / h->ratio;
}

int vhdx_header_read(struct vhdx_header *h, struct vhdx_log *log, int fd, uint64_t *file_end,
                     struct error **err)
{
    struct stat st;

    *h = (struct vhdx_header){0};
    *log = (struct vhdx_log){0};
    if (fstat(fd, &st) < 0)
        return error_set_errno(err, errno, "reading its headers");
    *file_end = (uint64_t)st.st_size;
    int rc = find_header(h, fd, err);
    if (rc == 0)
        rc = check_region(&h->log, err);
    if (rc == 0)
        rc = vhdx_log_load(log, fd, h->bytes, *file_end, err);
    if (rc == 0)
        rc = read_regions(h, log, fd, *file_end, err);
    if (rc == 0)
        rc = read_metadata(h, log, fd, err);
    if (rc == 0 && *file_end < log->file_end)
        *file_end = log->file_end;
    return rc;
}

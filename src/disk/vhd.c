/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The format `vhd` of Virtual PC, Hyper-V and Azure (Microsoft's "Virtual Hard Disk Image Format
 * Specification" 1.0): fixed, the disk and then a footer; and dynamic, all big-endian:
 *
 *     copy of the footer | header | table: 32 bits for each block, its first sector or FFFFFFFF
 *     | blocks: a bit for each sector that was ever written, then the content | footer
 *
 * The bits matter to differencing images only: what has none is the parent's (vhd_parent.c). Elsewhere others
 * read the content without looking at them, and so do we. All the bits of a block that we write to become
 * set; what was the parent's is copied before that. A new block overwrites the footer, of which there is the
 * copy, and a new footer follows it. See blocks.h for the rest; vhd_build.c makes images.
 */
#include "disk/vhd_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_MAX (256u << 20)
/* A fixed image has no blocks; it is served in such. */
#define FIXED_BLOCK (16u << 20)

struct header {
    uint32_t type, blocks, block_size;
    uint64_t size, table;
    uint8_t bytes[VHD_HEADER]; /* of all but fixed ones */
};

uint32_t vhd_checksum(const uint8_t *bytes, size_t len, size_t at)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < len; i++)
        if (i < at || i >= at + 4)
            sum += bytes[i];
    return ~sum;
}

static bool probe(const uint8_t *head, size_t len)
{
    return len >= VHD_FOOTER && memcmp(head, VHD_COOKIE, 8) == 0;
}

static bool is_footer(const uint8_t *f)
{
    return memcmp(f, VHD_COOKIE, 8) == 0 &&
           get_be32(f + VHD_AT_CHECKSUM) == vhd_checksum(f, VHD_FOOTER, VHD_AT_CHECKSUM);
}

/*
 * Virtual PC and early QEMU have the disk end where its cylinders do; all others, which this list knows as
 * QEMU's does, where the size says.
 */
static uint64_t size_of(const uint8_t *f)
{
    static const char sized[][5] = {"win ", "qem2", "d2v ", "tap\0", "CTXS"};
    uint64_t chs = (uint64_t)get_be16(f + VHD_AT_GEOMETRY) * f[VHD_AT_GEOMETRY + 2] * f[VHD_AT_GEOMETRY + 3];

    for (size_t i = 0; i < ARRAY_SIZE(sized); i++)
        if (memcmp(f + VHD_AT_CREATOR, sized[i], 4) == 0)
            return ALIGN_DOWN(get_be64(f + VHD_AT_SIZE), (uint64_t)DISK_SECTOR);
    return chs >= VHD_CHS_MAX ? ALIGN_DOWN(get_be64(f + VHD_AT_SIZE), (uint64_t)DISK_SECTOR)
                              : chs * DISK_SECTOR;
}

int vhd_find_footer(int fd, uint8_t *footer, uint64_t *file_end, struct error **err)
{
    struct stat st;
    int rc = fstat(fd, &st) < 0 ? -errno : 0;

    if (rc == 0 && st.st_size >= (off_t)VHD_FOOTER) {
        *file_end = (uint64_t)st.st_size;
        rc = disk_read_at(fd, footer, VHD_FOOTER, *file_end - VHD_FOOTER);
        if (rc == 0 && is_footer(footer))
            return 0;
        if (rc == 0)
            rc = disk_read_at(fd, footer, VHD_FOOTER, 0);
        if (rc == 0 && is_footer(footer) && get_be32(footer + VHD_AT_TYPE) != VHD_FIXED)
            return 0;
    }
    return rc ? error_set_errno(err, -rc, "reading its footer")
              : error_set(err, EINVAL, "is not a VHD image, or damaged: it has no valid footer");
}

static int read_dynamic(int fd, const uint8_t *footer, uint64_t file_end, struct header *h,
                        struct error **err)
{
    uint8_t *d = h->bytes;
    uint64_t at = get_be64(footer + VHD_AT_HEADER);
    int rc = at < file_end ? disk_read_at(fd, d, VHD_HEADER, at) : 0;

    if (rc)
        return error_set_errno(err, -rc, "reading its header");
    if (at >= file_end || memcmp(d, VHD_HEADER_COOKIE, 8) != 0 ||
        get_be32(d + VHD_AT_HEADER_CHECKSUM) != vhd_checksum(d, VHD_HEADER, VHD_AT_HEADER_CHECKSUM))
        return error_set(err, EINVAL, "is damaged: it has no valid header");
    h->table = get_be64(d + VHD_AT_TABLE);
    h->blocks = get_be32(d + VHD_AT_BLOCKS);
    h->block_size = get_be32(d + VHD_AT_BLOCK_SIZE);
    if (h->block_size < 4096 || h->block_size > BLOCK_MAX || h->block_size & (h->block_size - 1))
        return error_set(err, ENOTSUP, "has blocks of %u bytes: powers of two from 4096 are known here",
                         h->block_size);
    if (h->blocks > BLOCKS_MAX || h->size > (uint64_t)h->blocks * h->block_size)
        return error_set(err, EINVAL,
                         "is damaged or too large: %" PRIu64 " bytes in %u blocks (%u blocks at most)",
                         h->size, h->blocks, BLOCKS_MAX);
    if (h->table > file_end || 4ull * h->blocks > file_end - h->table)
        return error_set(err, EINVAL, "is cut off: it ends within its table");
    return 0;
}

static int read_header(int fd, uint8_t *footer, struct header *out, uint64_t *file_end, struct error **err)
{
    struct header h = {0};
    int rc = vhd_find_footer(fd, footer, file_end, err);

    if (rc)
        return rc;
    h.type = get_be32(footer + VHD_AT_TYPE);
    h.size = size_of(footer);
    if (get_be32(footer + VHD_AT_VERSION) >> 16 != 1)
        return error_set(err, ENOTSUP, "is VHD of version %u: 1 is known here",
                         get_be32(footer + VHD_AT_VERSION) >> 16);
    if (h.type != VHD_FIXED && h.type != VHD_DYNAMIC && h.type != VHD_DIFFERENCING)
        return error_set(err, ENOTSUP,
                         "is VHD of type %u: 2 (fixed), 3 (dynamic) and 4 (differencing) are known here",
                         h.type);
    if (!h.size || h.size > VHD_SIZE_MAX)
        return error_set(err, EINVAL, "is damaged: a size of %" PRIu64 " bytes", h.size);
    if (h.type == VHD_FIXED && h.size > *file_end - VHD_FOOTER)
        return error_set(err, EINVAL, "is cut off: it has %" PRIu64 " bytes of %" PRIu64,
                         *file_end - VHD_FOOTER, h.size);
    if (h.type != VHD_FIXED)
        rc = read_dynamic(fd, footer, *file_end, &h, err);
    if (rc == 0)
        *out = h;
    return rc;
}

static int describe(int fd, struct disk_info *info, struct error **err)
{
    uint8_t footer[VHD_FOOTER];
    struct header h;
    uint64_t file_end = 0;
    int rc = read_header(fd, footer, &h, &file_end, err);

    if (rc)
        return rc;
    info->size = h.size;
    disk_info_add(info, "type",
                  h.type == VHD_FIXED     ? "fixed"
                  : h.type == VHD_DYNAMIC ? "dynamic"
                                          : "differencing");
    if (h.type != VHD_FIXED) {
        disk_info_add(info, "cluster-size", "%u", h.block_size);
        disk_info_add(info, "blocks", "%u", h.blocks);
    }
    disk_info_add(info, "creator", "%.4s", footer + VHD_AT_CREATOR);
    return 0;
}

/* The parent is a VHD too. */
static int backing(int fd, char **name, char **format, struct error **err)
{
    uint8_t footer[VHD_FOOTER];
    struct header h;
    uint64_t file_end = 0;
    cleanup_free char *found = NULL;
    int rc = read_header(fd, footer, &h, &file_end, err);

    if (rc)
        return rc;
    *name = *format = NULL;
    if (h.type != VHD_DIFFERENCING)
        return 0;
    rc = vhd_parent_name(fd, h.bytes, &found, err);
    if (rc)
        return rc;
    *format = strdup("vhd");
    if (!*format)
        return error_set_errno(err, ENOMEM, "reading its header");
    *name = steal_ptr(found);
    return 0;
}

/* ---- blocks ---- */

static uint64_t where(const struct blocks *b, uint32_t i)
{
    const struct vhd *v = container_of(b, struct vhd, blocks);

    return b->map[i] == VHD_NOWHERE ? 0 : (uint64_t)b->map[i] * DISK_SECTOR + v->bitmap;
}

static int write_bitmap(struct vhd *v, uint64_t at)
{
    cleanup_free uint8_t *ones = malloc(v->bitmap);

    if (!ones)
        return -ENOMEM;
    memset(ones, 0xff, v->bitmap);
    return disk_write_at(v->blocks.disk.fd, ones, v->bitmap, at);
}

static int take(struct blocks *b, uint32_t i)
{
    struct vhd *v = container_of(b, struct vhd, blocks);
    uint64_t at = b->end, end = at + v->bitmap + b->block_size;

    if (at / DISK_SECTOR >= VHD_NOWHERE)
        return -EFBIG;
    int rc = ftruncate(b->disk.fd, (off_t)at) < 0 ? -errno : 0; /* the footer goes */
    if (rc == 0)
        rc = disk_write_at(b->disk.fd, v->footer, VHD_FOOTER, end);
    if (rc == 0)
        rc = write_bitmap(v, at);
    if (rc)
        return rc;
    b->map[i] = (uint32_t)(at / DISK_SECTOR);
    b->end = end;
    v->touched[i / 8] |= (uint8_t)(1 << i % 8);
    return 0;
}

static void untaken(struct blocks *b)
{
    struct vhd *v = container_of(b, struct vhd, blocks);

    /* Should that fail, there is the copy. */
    if (ftruncate(b->disk.fd, (off_t)b->end) == 0)
        disk_write_at(b->disk.fd, v->footer, VHD_FOOTER, b->end);
}

static int set_bits(struct blocks *b, uint32_t i)
{
    struct vhd *v = container_of(b, struct vhd, blocks);
    int rc = 0;

    if (v->touched[i / 8] & 1 << i % 8)
        return 0;
    rc = write_bitmap(v, (uint64_t)b->map[i] * DISK_SECTOR);
    if (rc == 0)
        v->touched[i / 8] |= (uint8_t)(1 << i % 8);
    return rc;
}

/* In a differencing image they are set when the sectors are there. */
static int touch(struct blocks *b, uint32_t i)
{
    return b->differs ? 0 : set_bits(b, i);
}

static int write_map(struct blocks *b, uint32_t from, uint32_t to)
{
    struct vhd *v = container_of(b, struct vhd, blocks);
    cleanup_free uint8_t *bytes = malloc(4 * (size_t)(to - from));

    if (!bytes)
        return -ENOMEM;
    for (uint32_t i = from; i < to; i++)
        put_be32(bytes + 4 * (size_t)(i - from), b->map[i]);
    return disk_write_at(b->disk.fd, bytes, 4 * (size_t)(to - from), v->table + 4ull * from);
}

/* ---- sectors of differencing images ---- */

static bool is_set(const uint8_t *bits, uint64_t i)
{
    return bits[i / 8] & 0x80 >> i % 8;
}

static int has(struct blocks *b, uint64_t at, uint64_t *length)
{
    struct vhd *v = container_of(b, struct vhd, blocks);
    uint32_t i = (uint32_t)(at / b->block_size);
    uint64_t first = (at & (b->block_size - 1)) / DISK_SECTOR, n = *length / DISK_SECTOR, k = first;

    if (v->touched[i / 8] & 1 << i % 8)
        return 1;
    if (v->bits_of != i + 1) {
        int rc = disk_read_at(b->disk.fd, v->bits, v->bitmap, (uint64_t)b->map[i] * DISK_SECTOR);
        v->bits_of = rc ? 0 : i + 1;
        if (rc)
            return rc;
    }
    while (k < first + n && is_set(v->bits, k) == is_set(v->bits, first))
        k++;
    *length = (k - first) * DISK_SECTOR;
    return is_set(v->bits, first);
}

static int filled(struct blocks *b, uint32_t i)
{
    return set_bits(b, i);
}

static void free_vhd(struct blocks *b)
{
    struct vhd *v = container_of(b, struct vhd, blocks);

    free(v->touched);
    free(v->bits);
}

static const char *wrong(const struct blocks *b)
{
    return container_of(b, struct vhd, blocks)->lost ? "its footer is lost: there is the copy only" : NULL;
}

/* The footer goes to where the end is. */
static int cut(struct blocks *b, int fd)
{
    const struct vhd *v = container_of(b, struct vhd, blocks);
    int rc = disk_write_at(fd, v->footer, VHD_FOOTER, b->end);

    if (rc == 0)
        return ftruncate(fd, (off_t)(b->end + VHD_FOOTER));
    errno = -rc;
    return -1;
}

/* Of the table, the header and what it says of its parent, whichever is last. */
static uint64_t own_end(const struct blocks *b)
{
    const struct vhd *v = container_of(b, struct vhd, blocks);
    uint64_t end = ALIGN_UP(v->table + 4ull * b->n, (uint64_t)DISK_SECTOR);
    uint64_t header_end = get_be64(v->footer + VHD_AT_HEADER) + VHD_HEADER;

    if (end < header_end)
        end = header_end;
    return end < v->locators ? v->locators : end;
}

static const struct blocks_ops dynamic_blocks = {.wrong = wrong,
                                                 .cut = cut,
                                                 .where = where,
                                                 .has = has,
                                                 .filled = filled,
                                                 .take = take,
                                                 .untaken = untaken,
                                                 .touch = touch,
                                                 .write_map = write_map,
                                                 .nowhere = VHD_NOWHERE,
                                                 .max = BLOCKS_MAX,
                                                 .own_end = own_end,
                                                 .resize = vhd_resize_dynamic,
                                                 .free = free_vhd};
static const struct blocks_ops fixed_blocks = {.free = free_vhd};

/* ---- opening ---- */

static int read_map(struct vhd *v, uint64_t file_end, struct error **err)
{
    struct blocks *b = &v->blocks;
    int rc = disk_read_at(b->disk.fd, b->map, 4 * (size_t)b->n, v->table);

    if (rc)
        return error_set_errno(err, -rc, "reading its table");
    b->end = own_end(b);
    for (uint32_t i = 0; i < b->n; i++) {
        b->map[i] = be32toh(b->map[i]);
        uint64_t place = where(b, i);
        if (place >= file_end)
            return error_set(err, EINVAL, "is damaged or cut off: block %u is said to lie behind its end", i);
        if (place && place + b->block_size > b->end)
            b->end = place + b->block_size;
    }
    return 0;
}

/* Blocks must not lie on each other, nor on what is before them. */
static int prepare_writing(const struct vhd *v, const struct header *h, struct error **err)
{
    const struct blocks *b = &v->blocks;
    uint64_t table_end = v->table + 4ull * b->n, header = get_be64(v->footer + VHD_AT_HEADER);
    bool hit = v->table < VHD_FOOTER || header < VHD_FOOTER || header % DISK_SECTOR ||
               (v->table < header + VHD_HEADER && header < table_end);
    int rc = blocks_check_overlap(b, v->bitmap);

    for (uint32_t i = 0; i < b->n && !hit; i++) {
        uint64_t start = (uint64_t)b->map[i] * DISK_SECTOR, end = start + v->bitmap + b->block_size;
        hit = b->map[i] != VHD_NOWHERE && (start < VHD_FOOTER || (start < table_end && v->table < end) ||
                                           (start < header + VHD_HEADER && header < end) ||
                                           (b->differs && vhd_hits_locator(h->bytes, start, end)));
    }
    if (rc == 0 && !hit && v->lost)
        rc = disk_write_at(b->disk.fd, v->footer, VHD_FOOTER, b->end);
    if (rc == -EUCLEAN || hit)
        return error_set(err, EROFS,
                         "is damaged: two of its parts lie in one place, so it can't be written; use it "
                         "readonly");
    return rc ? error_set_errno(err, -rc, "reading its table") : 0;
}

static int open_dynamic(struct vhd *v, const struct header *h, uint64_t file_end, struct error **err)
{
    struct blocks *b = &v->blocks;

    b->ops = &dynamic_blocks;
    b->block_size = h->block_size;
    b->n = h->blocks;
    v->table = h->table;
    v->bitmap = ALIGN_UP(h->block_size / DISK_SECTOR / 8, DISK_SECTOR);
    b->map = malloc(4 * (size_t)b->n + 1);
    v->touched = calloc(1, b->n / 8 + 1);
    v->bits = malloc(v->bitmap);
    if (!b->map || !v->touched || !v->bits)
        return error_set_errno(err, ENOMEM, "opening it");
    b->differs = h->type == VHD_DIFFERENCING;
    v->locators = b->differs ? vhd_locators_end(h->bytes) : 0;
    if (v->locators > file_end)
        return error_set(err, EINVAL,
                         "is damaged or cut off: what it says of its parent lies behind its end");
    b->before = v->bitmap;
    b->behind = VHD_FOOTER;
    int rc = read_map(v, file_end, err);
    uint8_t last[VHD_FOOTER];
    if (rc == 0 &&
        (disk_read_at(b->disk.fd, last, VHD_FOOTER, file_end - VHD_FOOTER) < 0 || !is_footer(last)))
        v->lost = true;
    if (rc == 0 && b->differs)
        rc = vhd_check_parent(h->bytes, b->disk.backing, err);
    return rc || b->disk.read_only ? rc : prepare_writing(v, h, err);
}

static int open_vhd(struct disk **out, const struct disk *common, struct error **err)
{
    struct header h;
    uint64_t file_end = 0;
    struct vhd *v = calloc(1, sizeof(*v));

    if (!v)
        return error_set_errno(err, ENOMEM, "opening it");
    int rc = read_header(common->fd, v->footer, &h, &file_end, err);
    if (rc == 0) {
        v->blocks.disk = *common;
        v->blocks.disk.size = h.size;
        rc = disk_check_behind(common, h.type == VHD_DIFFERENCING, err);
    }
    if (rc == 0 && h.type == VHD_FIXED) {
        v->blocks.ops = &fixed_blocks;
        v->blocks.fixed = true;
        v->blocks.block_size = FIXED_BLOCK;
        v->blocks.disk.granularity = 4096;
    } else if (rc == 0) {
        rc = open_dynamic(v, &h, file_end, err);
        v->blocks.disk.granularity = h.block_size;
    }
    if (rc) {
        free_vhd(&v->blocks);
        free(v->blocks.map);
        free(v);
        return rc;
    }
    *out = &v->blocks.disk;
    return 0;
}

static int check(struct disk_check *c, struct error **err)
{
    return blocks_check(&disk_format_vhd, c, err);
}

const struct disk_format disk_format_vhd = {
    .name = "vhd",
    .probe = probe,
    .backing = backing,
    .open = open_vhd,
    .submit = blocks_submit,
    .read = blocks_read,
    .close = blocks_close,
    .extent = blocks_extent,
    .describe = describe,
    .build = &vhd_build,
    .check = check,
    .resize = vhd_resize,
};

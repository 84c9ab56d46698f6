/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The format `vdi` of VirtualBox, version 1.1: a header, a table with 32 bits for each block, the blocks. All
 * little-endian. An entry is the number of the block's place among those in the file, or says that it has
 * none:
 *
 *     FFFFFFFF  never written     FFFFFFFE  zeros      both read as zeros here: images on top of others are
 * refused
 *
 * Written here: dynamic images with blocks of 1 MiB, which all programs know. See blocks.h for the rest.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/blocks.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIGNATURE    0xbeda107fu
#define VERSION      0x00010001u
#define HEADER_SIZE  400u /* from AT_HEADER_SIZE on */
#define HEAD         512u
#define TYPE_DYNAMIC 1u
#define TYPE_STATIC  2u
#define TEXT         "<<< Oracle VM VirtualBox Disk Image >>>\n"
#define BLOCK        (1u << 20) /* of what is made here */
#define BLOCK_MAX    (256u << 20)

#define NOWHERE   0xffffffffu
#define IS_ZEROS  0xfffffffeu
#define PLACE_MAX 0xfffffffdu

enum {
    AT_SIGNATURE = 0x40,
    AT_VERSION = 0x44,
    AT_HEADER_SIZE = 0x48,
    AT_TYPE = 0x4c,
    AT_TABLE = 0x154,
    AT_DATA = 0x158,
    AT_SECTOR_SIZE = 0x168,
    AT_DISK_SIZE = 0x170,
    AT_BLOCK_SIZE = 0x178,
    AT_BLOCK_EXTRA = 0x17c,
    AT_BLOCKS = 0x180,
    AT_BLOCKS_TAKEN = 0x184,
    AT_ID = 0x188,
    AT_ID_SNAPSHOT = 0x198,
    AT_ID_LINK = 0x1a8,
    AT_ID_PARENT = 0x1b8,
};

struct header {
    uint32_t type, table, data, block_size, blocks, taken;
    uint64_t size;
};

struct vdi {
    struct blocks blocks;
    uint32_t table, data, taken;
};

static bool probe(const uint8_t *head, size_t len)
{
    return len > AT_VERSION && get_le32(head + AT_SIGNATURE) == SIGNATURE;
}

static int parse(const uint8_t *h, struct header *out, struct error **err)
{
    static const uint8_t none[16];
    struct header r = {.type = get_le32(h + AT_TYPE),
                       .table = get_le32(h + AT_TABLE),
                       .data = get_le32(h + AT_DATA),
                       .block_size = get_le32(h + AT_BLOCK_SIZE),
                       .blocks = get_le32(h + AT_BLOCKS),
                       .taken = get_le32(h + AT_BLOCKS_TAKEN),
                       .size = get_le64(h + AT_DISK_SIZE)};

    if (!probe(h, HEAD))
        return error_set(err, EINVAL, "is not a VDI image");
    if (get_le32(h + AT_VERSION) != VERSION)
        return error_set(err, ENOTSUP, "is VDI of version %u.%u: 1.1 is known here",
                         get_le32(h + AT_VERSION) >> 16, get_le32(h + AT_VERSION) & 0xffff);
    if ((r.type != TYPE_DYNAMIC && r.type != TYPE_STATIC) || memcmp(h + AT_ID_LINK, none, 16) != 0 ||
        memcmp(h + AT_ID_PARENT, none, 16) != 0)
        return error_set(err, ENOTSUP,
                         "has only what differs from another image, which is not supported: clone it with "
                         "'VBoxManage clonemedium' first");
    if (get_le32(h + AT_SECTOR_SIZE) != DISK_SECTOR)
        return error_set(err, ENOTSUP, "has sectors of %u bytes: 512 are known here",
                         get_le32(h + AT_SECTOR_SIZE));
    if (r.block_size < 4096 || r.block_size > BLOCK_MAX || r.block_size & (r.block_size - 1) ||
        get_le32(h + AT_BLOCK_EXTRA))
        return error_set(err, ENOTSUP,
                         "has blocks of %u bytes (and %u more): powers of two from 4096 are known here",
                         r.block_size, get_le32(h + AT_BLOCK_EXTRA));
    if (!r.size || r.blocks > BLOCKS_MAX || r.size > (uint64_t)r.blocks * r.block_size)
        return error_set(err, EINVAL,
                         "is damaged or too large: %" PRIu64 " bytes in %u blocks (%u blocks at most)",
                         r.size, r.blocks, BLOCKS_MAX);
    if (r.table < HEAD || r.table % DISK_SECTOR || r.data % DISK_SECTOR ||
        (uint64_t)r.table + 4ull * r.blocks > r.data)
        return error_set(err, EINVAL, "is damaged: its table lies where something else is");
    *out = r;
    return 0;
}

static int read_header(int fd, struct header *out, struct error **err)
{
    uint8_t h[HEAD];
    int rc = disk_read_at(fd, h, sizeof(h), 0);

    return rc ? error_set_errno(err, -rc, "reading its header") : parse(h, out, err);
}

static int describe(int fd, struct disk_info *info, struct error **err)
{
    struct header h;
    int rc = read_header(fd, &h, err);

    if (rc)
        return rc;
    info->size = ALIGN_UP(h.size, (uint64_t)DISK_SECTOR);
    disk_info_add(info, "type", h.type == TYPE_STATIC ? "static" : "dynamic");
    disk_info_add(info, "cluster-size", "%u", h.block_size);
    disk_info_add(info, "blocks", "%u", h.blocks);
    disk_info_add(info, "blocks-in-file", "%u", h.taken);
    return 0;
}

/* ---- blocks ---- */

static uint64_t where(const struct blocks *b, uint32_t i)
{
    const struct vdi *v = container_of(b, struct vdi, blocks);

    return b->map[i] > PLACE_MAX ? 0 : v->data + (uint64_t)b->map[i] * b->block_size;
}

/* How many places there are in the file: the next one's number. */
static uint64_t n_places(const struct blocks *b)
{
    return (b->end - container_of(b, struct vdi, blocks)->data) / b->block_size;
}

/* Other programs take it for the next place that is free: so it must never be lower than what entries say,
 * and is in the file before these. */
static int write_n_places(const struct blocks *b)
{
    uint8_t bytes[4];

    put_le32(bytes, (uint32_t)n_places(b));
    return disk_write_at(b->disk.fd, bytes, sizeof(bytes), AT_BLOCKS_TAKEN);
}

static int take(struct blocks *b, uint32_t i)
{
    uint64_t place = n_places(b);

    if (place > PLACE_MAX)
        return -EFBIG;
    /* The file has all of the block, though not the space for it. */
    if (ftruncate(b->disk.fd, (off_t)(b->end + b->block_size)) < 0)
        return -errno;
    b->map[i] = (uint32_t)place;
    b->end += b->block_size;
    return write_n_places(b);
}

static void untaken(struct blocks *b)
{
    /* Should that fail, one place is left out. */
    write_n_places(b);
}

static int write_map(struct blocks *b, uint32_t from, uint32_t to)
{
    const struct vdi *v = container_of(b, struct vdi, blocks);
    cleanup_free uint8_t *bytes = malloc(4 * (size_t)(to - from));

    if (!bytes)
        return -ENOMEM;
    for (uint32_t i = from; i < to; i++)
        put_le32(bytes + 4 * (size_t)(i - from), b->map[i]);
    return disk_write_at(b->disk.fd, bytes, 4 * (size_t)(to - from), v->table + 4ull * from);
}

static const char *wrong(const struct blocks *b)
{
    return container_of(b, struct vdi, blocks)->taken == n_places(b)
               ? NULL
               : "its header has another number of blocks than its table";
}

static uint64_t own_end(const struct blocks *b)
{
    return container_of(b, struct vdi, blocks)->data;
}

/* Where the first block may begin: an image that has none can move that. 0 or -errno with *err. */
static int make_room(const struct blocks *b, uint32_t n, uint64_t *data, struct error **err)
{
    const struct vdi *v = container_of(b, struct vdi, blocks);
    uint64_t table_end = v->table + 4ull * n;

    *data = v->data;
    if (table_end <= *data)
        return 0;
    if (n_places(b) || table_end > UINT32_MAX - BLOCK)
        return error_set(err, ENOSPC,
                         "can't be larger than %" PRIu64
                         " bytes, for which its table has room: 'tabique disk "
                         "convert -O vdi' makes one with more",
                         (uint64_t)(v->data - v->table) / 4 * b->block_size);
    *data = ALIGN_UP(table_end, (uint64_t)BLOCK);
    return 0;
}

/* One that has all of its blocks may have not, once it is larger: then it is dynamic. All that changes in
 * the header is in one sector. */
static int resize(struct blocks *b, uint64_t size, uint32_t n, struct error **err)
{
    struct vdi *v = container_of(b, struct vdi, blocks);
    uint32_t more = n > b->n ? n - b->n : 0;
    cleanup_free uint8_t *entries = malloc(4 * (size_t)more + 1);
    uint8_t h[HEAD];
    uint64_t data;
    int rc = make_room(b, n, &data, err);

    if (rc)
        return rc;
    rc = entries ? disk_read_at(b->disk.fd, h, sizeof(h), 0) : -ENOMEM;
    if (rc == 0 && more) {
        memset(entries, 0xff, 4 * (size_t)more);
        rc = disk_write_at(b->disk.fd, entries, 4 * (size_t)more, v->table + 4ull * b->n);
        put_le32(h + AT_TYPE, TYPE_DYNAMIC);
    }
    put_le64(h + AT_DISK_SIZE, size);
    put_le32(h + AT_BLOCKS, n);
    put_le32(h + AT_DATA, (uint32_t)data);
    if (rc == 0)
        rc = disk_sync_now(b->disk.io, b->disk.file);
    if (rc == 0)
        rc = disk_write_at(b->disk.fd, h, sizeof(h), 0);
    if (rc == 0)
        rc = disk_sync_now(b->disk.io, b->disk.file);
    if (rc)
        return error_set_errno(err, -rc, "changing its size");
    if (data != v->data)
        b->end = data;
    v->data = (uint32_t)data;
    return 0;
}

static const struct blocks_ops vdi_blocks = {.wrong = wrong,
                                             .where = where,
                                             .take = take,
                                             .untaken = untaken,
                                             .write_map = write_map,
                                             .nowhere = NOWHERE,
                                             .max = BLOCKS_MAX,
                                             .own_end = own_end,
                                             .resize = resize};

/* ---- opening ---- */

static int read_map(struct vdi *v, uint64_t file_end, struct error **err)
{
    struct blocks *b = &v->blocks;
    uint64_t places = 0;
    int rc = disk_read_at(b->disk.fd, b->map, 4 * (size_t)b->n, v->table);

    if (rc)
        return error_set_errno(err, -rc, "reading its table");
    for (uint32_t i = 0; i < b->n; i++) {
        b->map[i] = le32toh(b->map[i]);
        if (b->map[i] > PLACE_MAX)
            continue;
        if (where(b, i) >= file_end)
            return error_set(err, EINVAL, "is damaged or cut off: block %u is said to lie behind its end", i);
        if (b->map[i] >= places)
            places = b->map[i] + 1ull;
    }
    b->end = v->data + places * b->block_size;
    return 0;
}

static int prepare_writing(const struct blocks *b, uint32_t taken, struct error **err)
{
    int rc = blocks_check_overlap(b, 0);

    if (rc == -EUCLEAN)
        return error_set(
            err, EROFS,
            "is damaged: two of its blocks lie in one place, so it can't be written; use it readonly");
    /* Who wrote it last may have been cut off. */
    if (rc == 0 && taken != n_places(b))
        rc = write_n_places(b);
    return rc ? error_set_errno(err, -rc, "reading its table") : 0;
}

static int open_vdi(struct disk **out, const struct disk *common, struct error **err)
{
    struct header h;
    struct stat st;
    int rc = read_header(common->fd, &h, err);

    if (rc)
        return rc;
    if (fstat(common->fd, &st) < 0)
        return error_set_errno(err, errno, "reading its header");
    if ((uint64_t)st.st_size < h.table + 4ull * h.blocks)
        return error_set(err, EINVAL, "is cut off: it ends within its table");
    struct vdi *v = calloc(1, sizeof(*v));
    if (!v)
        return error_set_errno(err, ENOMEM, "opening it");
    v->blocks = (struct blocks){.disk = *common,
                                .ops = &vdi_blocks,
                                .block_size = h.block_size,
                                .n = h.blocks,
                                .map = malloc(4 * (size_t)h.blocks)};
    v->blocks.disk.size = ALIGN_UP(h.size, (uint64_t)DISK_SECTOR);
    v->blocks.disk.granularity = h.block_size;
    v->table = h.table;
    v->data = h.data;
    v->taken = h.taken;
    rc = v->blocks.map ? read_map(v, (uint64_t)st.st_size, err) : error_set_errno(err, ENOMEM, "opening it");
    if (rc == 0 && !common->read_only)
        rc = prepare_writing(&v->blocks, h.taken, err);
    if (rc) {
        free(v->blocks.map);
        free(v);
        return rc;
    }
    *out = &v->blocks.disk;
    return 0;
}

/* ---- making one ---- */

struct builder {
    uint32_t n, taken;
    uint32_t *map;
    uint64_t data;
};

static int begin(struct disk_build *build, struct error **err)
{
    const struct disk_create *what = build->what;
    uint64_t n = what->size / BLOCK + (what->size % BLOCK != 0);

    if (what->backing)
        return error_set(err, EINVAL, "a VDI image that is based on another can't be made");
    if (what->cluster_size || what->compression || what->subformat || what->compress)
        return error_set(err, EINVAL, "the format vdi has no options and no compression");
    if (n > BLOCKS_MAX)
        return error_set(err, EFBIG, "a size of %" PRIu64 " bytes is too large: %" PRIu64 " at most",
                         what->size, (uint64_t)BLOCKS_MAX * BLOCK);
    struct builder *v = calloc(1, sizeof(*v));
    if (!v)
        return error_set_errno(err, ENOMEM, "tables");
    build->own = v;
    v->n = (uint32_t)n;
    v->map = malloc(4 * n);
    if (!v->map)
        return error_set_errno(err, ENOMEM, "tables");
    memset(v->map, 0xff, 4 * n);
    v->data = ALIGN_UP(HEAD + 4 * n, (uint64_t)BLOCK);
    build->end = v->data;
    build->unit = BLOCK;
    build->whole = true;
    return 0;
}

static int place(struct disk_build *build, uint64_t index, uint32_t length, bool packed, uint64_t *offset)
{
    struct builder *v = build->own;

    v->map[index] = v->taken++;
    *offset = build->end;
    build->end += BLOCK;
    return 0;
}

static int end(struct disk_build *build)
{
    const struct builder *v = build->own;
    cleanup_free uint8_t *head = calloc(1, v->data);

    if (!head)
        return -ENOMEM;
    memcpy(head, TEXT, strlen(TEXT));
    put_le32(head + AT_SIGNATURE, SIGNATURE);
    put_le32(head + AT_VERSION, VERSION);
    put_le32(head + AT_HEADER_SIZE, HEADER_SIZE);
    put_le32(head + AT_TYPE, TYPE_DYNAMIC);
    put_le32(head + AT_TABLE, HEAD);
    put_le32(head + AT_DATA, (uint32_t)v->data);
    put_le32(head + AT_SECTOR_SIZE, DISK_SECTOR);
    put_le64(head + AT_DISK_SIZE, build->what->size);
    put_le32(head + AT_BLOCK_SIZE, BLOCK);
    put_le32(head + AT_BLOCKS, v->n);
    put_le32(head + AT_BLOCKS_TAKEN, v->taken);
    /* VirtualBox tells images apart by it. */
    if (getrandom(head + AT_ID, 32, 0) != 32)
        return -EIO;
    for (uint32_t i = 0; i < v->n; i++)
        put_le32(head + HEAD + 4 * (size_t)i, v->map[i]);
    int rc = disk_write_at(build->fd, head, v->data, 0);
    /* The last block may end in zeros that were not written. */
    if (rc == 0 && ftruncate(build->fd, (off_t)build->end) < 0)
        rc = -errno;
    return rc;
}

static void free_builder(struct disk_build *build)
{
    struct builder *v = build->own;

    if (v)
        free(v->map);
    free(v);
}

static const struct disk_build_ops vdi_build = {
    .begin = begin, .place = place, .end = end, .free = free_builder};

static int check(struct disk_check *c, struct error **err)
{
    return blocks_check(&disk_format_vdi, c, err);
}

const struct disk_format disk_format_vdi = {
    .name = "vdi",
    .probe = probe,
    .open = open_vdi,
    .submit = blocks_submit,
    .read = blocks_read,
    .close = blocks_close,
    .extent = blocks_extent,
    .describe = describe,
    .build = &vdi_build,
    .check = check,
    .resize = blocks_resize,
};

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making a qcow2 file whole:
 *
 *     header | that of LUKS | clusters, compressed ones close together | L2 tables | L1 table | refcount
 * blocks | their table
 *
 * Nothing before the end of the clusters is free, so the counts are known at the end and not before. Where
 * the clusters are in a further file, they lie there as on the disk. All calls but `pack` one at a time; no
 * locks.
 */
#include "disk/qcow2_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/luks.h"
#include "disk/new_file.h"
#include "disk/pack.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLUSTER_BITS   16u /* if nothing is said */
#define REFCOUNT_ORDER 4u  /* the same */

/* What is preallocated is in memory till the end, with 10 bytes a cluster: 1.3 GiB, which are 8 TiB of disk
 * in clusters of 64 KiB. */
#define PREALLOCATED_MAX (1ull << 27)

#define DATA_SIZE_BITS  48u /* what disk_build_in_part has room for */
#define CRYPT_EXTENSION 16u /* bytes */

struct builder {
    unsigned version, bits, entry_bits, table_bits, refcount_order;
    uint16_t count_max; /* of references to one cluster */
    uint32_t n_l1;
    uint64_t **l2; /* by L1 index; NULL where nothing is */
    uint16_t *counts;
    uint64_t n_counts, room;
    struct luks luks;
    uint8_t *crypt; /* its header, which lies behind the image's; NULL: nothing is encrypted */
    uint64_t packed_at, packed_end; /* where the next compressed cluster goes, and the space that is there */
};

static uint64_t clusters_of(const struct builder *q, uint64_t bytes)
{
    return (bytes >> q->bits) + !!(bytes & ((1ull << q->bits) - 1));
}

/* ---- before and during ---- */

static uint64_t extension_bytes(size_t len)
{
    return 8 + ALIGN_UP((uint64_t)len, 8);
}

/* What the header says with all its extensions, the last of which ends their list. */
static uint64_t header_bytes(const struct disk_create *what)
{
    uint64_t n = QCOW2_HEADER_LARGEST + extension_bytes(0);

    if (what->data_file)
        n += extension_bytes(strlen(what->data_file));
    if (what->key_file)
        n += extension_bytes(CRYPT_EXTENSION);
    if (what->backing)
        n += extension_bytes(strlen(what->backing_format)) + strlen(what->backing);
    return n;
}

static int check_names(const struct disk_create *what, uint32_t cluster, struct error **err)
{
    if (what->backing && (!*what->backing || strlen(what->backing) > QCOW2_BACKING_MAX))
        return error_set(err, ENAMETOOLONG, "the name of what it is based on has more than %u bytes",
                         QCOW2_BACKING_MAX);
    if (header_bytes(what) > cluster)
        return error_set(err, ENAMETOOLONG,
                         "the names that its header has to say take more than a cluster of %" PRIu32 " bytes",
                         cluster);
    return 0;
}

/* What would be there without being encrypted can't be. */
static int check_crypt(const struct disk_create *what, struct error **err)
{
    if (!what->key_file)
        return 0;
    if (what->version == 2 || what->compress)
        return error_set(err, EINVAL, "encryption: choose compat=1.1, and no compression");
    if (what->preallocation || what->data_file_raw)
        return error_set(
            err, EINVAL,
            "encryption: neither preallocation nor data_file_raw, whose zeros would read as noise");
    return 0;
}

static int check_data_file(const struct disk_create *what, struct error **err)
{
    if (!what->data_file)
        return what->data_file_raw ? error_set(err, EINVAL, "data_file_raw=on: say which by data_file=NAME")
                                   : 0;
    if (!*what->data_file || strchr(what->data_file, '/') || strcmp(what->data_file, ".") == 0 ||
        strcmp(what->data_file, "..") == 0)
        return error_set(err, EINVAL, "data_file=%s: give a name alone, of a file beside the image",
                         what->data_file);
    if (what->version == 2 || what->compress)
        return error_set(err, EINVAL, "data_file: choose compat=1.1, and no compression");
    if (what->data_file_raw && what->backing)
        return error_set(err, EINVAL, "data_file_raw=on: such an image can't be based on another");
    if (what->size >> DATA_SIZE_BITS)
        return error_set(err, EFBIG, "data_file: a disk has less than 256 TiB there");
    return 0;
}

static int check_options(const struct disk_create *what, unsigned *bits, struct error **err)
{
    uint32_t cluster = what->cluster_size ? what->cluster_size : 1u << CLUSTER_BITS;

    if (what->subformat)
        return error_set(err, EINVAL, "the format qcow2 has no subformats");
    if (cluster & (cluster - 1) || cluster < 1u << QCOW2_CLUSTER_MIN || cluster > 1u << QCOW2_CLUSTER_MAX)
        return error_set(err, EINVAL, "cluster_size=%" PRIu32 ": choose a power of two from 512 to 2M",
                         cluster);
    if (what->version == 2 && (what->lazy_refcounts || what->compression == DISK_COMPRESS_ZSTD ||
                               (what->refcount_bits && what->refcount_bits != 16)))
        return error_set(err, EINVAL,
                         "compat=0.10 has neither lazy_refcounts nor zstd, and refcount_bits=16 alone");
    *bits = (unsigned)__builtin_ctz(cluster);
    if (what->extended_l2 && (what->version == 2 || *bits < QCOW2_WIDE_CLUSTER_MIN))
        return error_set(err, EINVAL, "extended_l2=on: choose compat=1.1 and a cluster_size of 16K or more");
    uint64_t reach = (uint64_t)cluster * cluster / (what->extended_l2 ? 16 : 8);
    if (what->size > QCOW2_L1_MAX / 8 * reach)
        return error_set(err, EFBIG, "a size of %" PRIu64 " bytes is too large: %" PRIu64 " at most",
                         what->size, QCOW2_L1_MAX / 8 * reach);
    if ((what->preallocation || what->data_file_raw) && what->size >> *bits > PREALLOCATED_MAX)
        return error_set(err, EFBIG,
                         "preallocation of more than %llu clusters, as with data_file_raw: choose a larger "
                         "cluster_size, or preallocation=off",
                         PREALLOCATED_MAX);
    if (what->backing && (!what->backing_format || !disk_format_find(what->backing_format)))
        return error_set(err, EINVAL, "the format of what it is based on is not given, or unknown");
    return check_names(what, cluster, err);
}

static int note_clusters(struct builder *q, uint64_t n)
{
    if (n > q->room) {
        uint64_t room = q->room ? 2 * q->room : 1024;
        uint16_t *more = realloc(q->counts, room * sizeof(*more));
        if (!more)
            return -ENOMEM;
        memset(more + q->room, 0, (room - q->room) * sizeof(*more));
        q->counts = more;
        q->room = room;
    }
    q->n_counts = n;
    return 0;
}

/* A cluster more at the end of the file. */
static int extend(struct disk_build *build)
{
    struct builder *q = build->own;

    if (build->end >= QCOW2_OFFSET - build->unit)
        return -EFBIG;
    build->end += build->unit;
    return note_clusters(q, build->end >> q->bits);
}

/* The header of LUKS comes first of all, with clusters of its own. */
static int begin_crypt(struct disk_build *build, struct error **err)
{
    struct builder *q = build->own;
    int rc = 0;

    q->crypt = malloc(LUKS_HEADER);
    rc = q->crypt ? luks_format(&q->luks, q->crypt, build->what, err)
                  : error_set_errno(err, ENOMEM, "its header");
    while (rc == 0 && build->end < build->unit + LUKS_HEADER) {
        rc = extend(build) ? error_set_errno(err, ENOMEM, "tables") : 0;
        if (rc == 0)
            q->counts[q->n_counts - 1] = 1;
    }
    build->seals = true;
    return rc;
}

static int begin(struct disk_build *build, struct error **err)
{
    unsigned bits = 0;
    int rc = check_options(build->what, &bits, err);

    if (rc == 0)
        rc = check_crypt(build->what, err);
    if (rc == 0)
        rc = check_data_file(build->what, err);
    if (rc)
        return rc;
    struct builder *q = calloc(1, sizeof(*q));
    if (!q)
        return error_set_errno(err, ENOMEM, "tables");
    build->own = q;
    q->version = build->what->version ? build->what->version : 3;
    q->refcount_order =
        build->what->refcount_bits ? (unsigned)__builtin_ctz(build->what->refcount_bits) : REFCOUNT_ORDER;
    q->count_max = q->refcount_order < 4 ? (uint16_t)((1u << (1u << q->refcount_order)) - 1) : UINT16_MAX;
    q->bits = bits;
    q->entry_bits = build->what->extended_l2 ? 4 : 3;
    q->table_bits = bits - q->entry_bits;
    uint64_t reach = 1ull << (bits + q->table_bits);
    q->n_l1 = (uint32_t)(build->what->size / reach + (build->what->size % reach != 0));
    q->l2 = calloc(q->n_l1, sizeof(uint64_t *));
    if (!q->l2)
        return error_set_errno(err, ENOMEM, "tables");
    build->unit = 1u << bits;
    build->whole = true;
    build->pack_max = build->what->compress ? build->unit : 0;
    build->end = build->unit; /* the header's */
    if (build->what->data_file)
        rc = disk_build_add_part(build, build->what->data_file, err);
    return rc == 0 && build->what->key_file ? begin_crypt(build, err) : rc;
}

static int seal(const struct disk_build *build, uint8_t *bytes, size_t len, uint64_t offset)
{
    const struct builder *q = build->own;

    return luks_cipher_run(&q->luks.cipher, true, (offset & ((1ull << DATA_SIZE_BITS) - 1)) / LUKS_SECTOR,
                           bytes, len);
}

static int place_packed(struct disk_build *build, uint32_t length, uint64_t *offset)
{
    struct builder *q = build->own;

    /* What does not fit may go on in the next cluster if that lies behind. */
    if (q->packed_end != build->end && q->packed_at + length > q->packed_end)
        q->packed_at = q->packed_end = build->end;
    if (q->packed_end > q->packed_at && q->counts[q->packed_at >> q->bits] == q->count_max)
        q->packed_at = q->packed_end = build->end;
    while (q->packed_at + length > q->packed_end) {
        int rc = extend(build);
        if (rc)
            return rc;
        q->packed_end = build->end;
    }
    *offset = q->packed_at;
    q->packed_at += length;
    for (uint64_t c = *offset >> q->bits; c <= (q->packed_at - 1) >> q->bits; c++)
        q->counts[c]++;
    return 0;
}

static int place(struct disk_build *build, uint64_t index, uint32_t length, bool packed, uint64_t *offset)
{
    struct builder *q = build->own;
    uint64_t **table = &q->l2[index >> q->table_bits], at = build->end, entry;
    int rc = 0;

    if (!*table)
        *table = calloc(1ull << q->table_bits, sizeof(**table));
    if (!*table)
        return -ENOMEM;
    if (packed) {
        unsigned x = 62 - (q->bits - 8);
        rc = place_packed(build, length, &at);
        entry = QCOW2_COMPRESSED | at | ((at + length - 1) / DISK_SECTOR - at / DISK_SECTOR) << x;
    } else if (build->what->data_file) {
        entry = QCOW2_COPIED | index << q->bits;
        at = disk_build_in_part(0, index << q->bits);
    } else {
        rc = extend(build);
        if (rc == 0)
            q->counts[at >> q->bits] = 1;
        entry = QCOW2_COPIED | at;
    }
    if (rc)
        return rc;
    (*table)[index & ((1ull << q->table_bits) - 1)] = entry;
    *offset = at;
    return 0;
}

static size_t pack(const struct disk_build *build, struct disk_packer *packer, uint64_t index,
                   const uint8_t *unit, uint8_t *out)
{
    /* What does not become smaller stays as it is. */
    if (build->what->compression == DISK_COMPRESS_ZSTD)
        return disk_pack_zstd(packer, unit, build->unit, out, build->unit - 1);
    return disk_pack_deflate_4k(packer, unit, build->unit, out, build->unit - 1);
}

/* ---- the end ---- */

/* A place for all that has none. */
static int place_rest(struct disk_build *build)
{
    struct builder *q = build->own;
    uint64_t n = clusters_of(q, build->what->size), mask = (1ull << q->table_bits) - 1, offset;
    int rc = 0;

    for (uint64_t i = 0; rc == 0 && i < n; i++) {
        const uint64_t *table = q->l2[i >> q->table_bits];
        if (!table || !table[i & mask])
            rc = place(build, i, build->unit, false, &offset);
    }
    return rc;
}

/* Where the tables are to be. */
struct layout {
    uint64_t l1, blocks, n_blocks, reftable, n_reftable; /* offsets in bytes, numbers in clusters */
};

static int write_table(struct disk_build *build, const uint64_t *entries, uint64_t n, uint64_t offset)
{
    cleanup_free uint64_t *bytes = malloc(n * 8);

    if (!bytes)
        return -ENOMEM;
    for (uint64_t i = 0; i < n; i++)
        bytes[i] = htobe64(entries[i]);
    return disk_build_write(build, bytes, n * 8, ALIGN_UP(n * 8, (uint64_t)build->unit), offset);
}

/* Of all that has a place, all subclusters are data. */
static int write_l2(struct disk_build *build, const uint64_t *entries, uint64_t offset)
{
    const struct builder *q = build->own;
    uint64_t n = 1ull << q->table_bits;

    if (q->entry_bits == 3)
        return write_table(build, entries, n, offset);
    cleanup_free uint64_t *wide = calloc(2 * n, sizeof(*wide));
    if (!wide)
        return -ENOMEM;
    for (uint64_t i = 0; i < n; i++) {
        wide[2 * i] = entries[i];
        wide[2 * i + 1] = entries[i] && !(entries[i] & QCOW2_COMPRESSED) ? UINT32_MAX : 0;
    }
    return write_table(build, wide, 2 * n, offset);
}

/* The L2 tables, and the L1 table behind them. */
static int write_map(struct disk_build *build, struct layout *layout)
{
    struct builder *q = build->own;
    cleanup_free uint64_t *l1 = calloc(q->n_l1, sizeof(*l1));
    int rc = l1 ? 0 : -ENOMEM;

    for (uint32_t i = 0; rc == 0 && i < q->n_l1; i++) {
        if (!q->l2[i])
            continue;
        l1[i] = build->end | QCOW2_COPIED;
        rc = write_l2(build, q->l2[i], build->end);
        build->end += build->unit;
    }
    layout->l1 = build->end;
    build->end += clusters_of(q, 8ull * q->n_l1) << q->bits;
    return rc ? rc : write_table(build, l1, q->n_l1, layout->l1);
}

/* Blocks and their table count themselves too. */
static void lay_out_refcounts(const struct builder *q, uint64_t end, struct layout *layout)
{
    uint64_t used = end >> q->bits, block_bits = q->bits + 3 - q->refcount_order, before;

    layout->n_blocks = layout->n_reftable = 0;
    do {
        before = layout->n_blocks + layout->n_reftable;
        uint64_t all = used + before;
        layout->n_blocks = (all >> block_bits) + !!(all & ((1ull << block_bits) - 1));
        layout->n_reftable = clusters_of(q, 8 * layout->n_blocks);
    } while (layout->n_blocks + layout->n_reftable != before);
    layout->blocks = end;
    layout->reftable = end + (layout->n_blocks << q->bits);
}

static int write_refcounts(struct disk_build *build, struct layout *layout)
{
    struct builder *q = build->own;

    lay_out_refcounts(q, build->end, layout);
    if (layout->n_reftable << q->bits > QCOW2_REFTABLE_MAX)
        return -EFBIG;
    uint64_t all = (layout->reftable >> q->bits) + layout->n_reftable,
             per_block = 8ull * build->unit >> q->refcount_order;
    uint64_t bytes = ((all < per_block ? all : per_block) << q->refcount_order) / 8 + 1;
    bytes = bytes < build->unit ? bytes : build->unit;
    cleanup_free uint8_t *block = malloc(bytes);
    cleanup_free uint64_t *table = calloc(layout->n_blocks, sizeof(*table));
    if (!block || !table)
        return -ENOMEM;
    for (uint64_t b = 0; b < layout->n_blocks; b++) {
        memset(block, 0, bytes);
        for (uint64_t i = 0, c = b * per_block; i < per_block && c < all; i++, c++)
            qcow2_set_count(q->refcount_order, block, i, c && c < q->n_counts ? q->counts[c] : 1);
        table[b] = layout->blocks + (b << q->bits);
        int rc = disk_build_write(build, block, bytes, build->unit, table[b]);
        if (rc)
            return rc;
    }
    build->end = all << q->bits;
    return write_table(build, table, layout->n_blocks, layout->reftable);
}

static uint32_t put_extension(uint8_t *p, uint32_t type, const void *bytes, size_t len)
{
    put_be32(p, type);
    put_be32(p + 4, (uint32_t)len);
    memcpy(p + 8, bytes, len);
    return (uint32_t)extension_bytes(len);
}

static int write_header(struct disk_build *build, const struct layout *layout)
{
    const struct disk_create *what = build->what;
    const struct builder *q = build->own;
    bool zstd = what->compression == DISK_COMPRESS_ZSTD;
    bool old = q->version == 2;
    uint32_t at = old ? QCOW2_HEADER_V2 : zstd ? QCOW2_HEADER_LARGEST : QCOW2_HEADER_V3;
    cleanup_free uint8_t *h = calloc(1, build->unit);

    if (!h)
        return -ENOMEM;
    put_be32(h, QCOW2_MAGIC);
    put_be32(h + QCOW2_AT_VERSION, q->version);
    put_be32(h + QCOW2_AT_CLUSTER_BITS, q->bits);
    put_be64(h + QCOW2_AT_SIZE, what->size);
    put_be32(h + QCOW2_AT_L1_SIZE, q->n_l1);
    put_be64(h + QCOW2_AT_L1_OFFSET, layout->l1);
    put_be64(h + QCOW2_AT_REFTABLE_OFFSET, layout->reftable);
    put_be32(h + QCOW2_AT_REFTABLE_CLUSTERS, (uint32_t)layout->n_reftable);
    if (!old) {
        put_be64(h + QCOW2_AT_INCOMPATIBLE, (zstd ? QCOW2_COMPRESSION : 0) |
                                                (what->extended_l2 ? QCOW2_EXTENDED_L2 : 0) |
                                                (what->data_file ? QCOW2_DATA_FILE : 0));
        put_be64(h + QCOW2_AT_AUTOCLEAR, what->data_file_raw ? QCOW2_DATA_FILE_RAW : 0);
        put_be64(h + QCOW2_AT_COMPATIBLE, what->lazy_refcounts ? QCOW2_LAZY_REFCOUNTS : 0);
        put_be32(h + QCOW2_AT_REFCOUNT_ORDER, q->refcount_order);
        put_be32(h + QCOW2_AT_HEADER_LENGTH, at);
    }
    if (zstd)
        h[QCOW2_AT_COMPRESSION] = QCOW2_ZSTD;
    if (what->data_file)
        at += put_extension(h + at, QCOW2_EXTENSION_DATA_FILE, what->data_file, strlen(what->data_file));
    if (q->crypt) {
        uint8_t where[CRYPT_EXTENSION];
        put_be32(h + QCOW2_AT_CRYPT, QCOW2_CRYPT_LUKS);
        put_be64(where, build->unit);
        put_be64(where + 8, LUKS_HEADER);
        at += put_extension(h + at, QCOW2_EXTENSION_CRYPT, where, sizeof(where));
    }
    if (what->backing) {
        size_t name = strlen(what->backing);
        at += put_extension(h + at, QCOW2_EXTENSION_BACKING_FORMAT, what->backing_format,
                            strlen(what->backing_format));
        at += 8; /* the extension that ends the list: zeros */
        put_be64(h + QCOW2_AT_BACKING_OFFSET, at);
        put_be32(h + QCOW2_AT_BACKING_SIZE, (uint32_t)name);
        memcpy(h + at, what->backing, name);
        at += (uint32_t)name;
    }
    return disk_build_write(build, h, at, build->unit, 0);
}

static int end(struct disk_build *build)
{
    const struct disk_create *what = build->what;
    const struct builder *q = build->own;
    struct layout layout;
    /* Who writes to a raw file past the image must find it there. */
    int rc = what->preallocation || what->data_file_raw ? place_rest(build) : 0;

    if (rc == 0 && what->data_file && ftruncate(build->parts[0].fd, (off_t)what->size) < 0)
        rc = -errno;
    if (rc == 0 && q->crypt)
        rc = disk_write_at(build->fd, q->crypt, LUKS_HEADER, build->unit);
    if (rc == 0)
        rc = write_map(build, &layout);
    if (rc == 0)
        rc = write_refcounts(build, &layout);
    /* The header last: until then it is no image. */
    return rc ? rc : write_header(build, &layout);
}

static void free_builder(struct disk_build *build)
{
    struct builder *q = build->own;

    for (uint32_t i = 0; q && q->l2 && i < q->n_l1; i++)
        free(q->l2[i]);
    if (q) {
        free(q->l2);
        free(q->counts);
        free(q->crypt);
        luks_close(&q->luks);
    }
    free(q);
}

const struct disk_build_ops qcow2_build = {.encrypts = true,
                                           .begin = begin,
                                           .place = place,
                                           .pack = pack,
                                           .seal = seal,
                                           .end = end,
                                           .free = free_builder};

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The persistent bitmaps of a qcow2 file as they are in it, of which anyone may have made the bytes. An
 * extension of the header tells where their directory is; an entry of that, padded to 8 bytes:
 *
 *     0 table's offset   8 its entries  12 flags  16 type  17 granularity, a power of 2   18 bytes of name
 *     20 bytes of what follows  24 what is not known here, name
 *
 * A table has an entry for each cluster of bits: where that is; or 0, all zeros; or 1, all ones. The disk's
 * thread; no locks.
 */
#include "disk/qcow2_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIXED           24u
#define EXTRA_MAX       1024u
#define GRANULARITY_MIN 9u
#define GRANULARITY_MAX 31u
#define ALL_ONES        1ull

void qcow2_free_bitmap(struct qcow2_bitmap *b)
{
    free(b->name);
    free(b->extra);
    free(b->table);
    free(b->bits);
    *b = (struct qcow2_bitmap){0};
}

void qcow2_free_bitmaps(struct qcow2_bitmaps *b)
{
    for (uint32_t i = 0; i < b->n; i++)
        qcow2_free_bitmap(&b->list[i]);
    free(b->list);
    *b = (struct qcow2_bitmaps){0};
}

bool qcow2_bitmap_is_known(const struct qcow2_bitmap *b)
{
    return !b->n_extra || b->flags & QCOW2_BITMAP_COMPATIBLE;
}

uint64_t qcow2_bitmap_bits(const struct qcow2 *q, const struct qcow2_bitmap *b)
{
    return (q->disk.size >> b->granularity_bits) + !!(q->disk.size & ((1ull << b->granularity_bits) - 1));
}

uint64_t qcow2_bitmap_entries(const struct qcow2 *q, const struct qcow2_bitmap *b)
{
    return (qcow2_bitmap_bits(q, b) + 8ull * q->cluster_size - 1) / (8ull * q->cluster_size);
}

/* ---- the directory ---- */

/* The entry at `p`, of which `left` bytes are there: how many it has; 0: it can't be. */
static uint64_t read_one(const struct qcow2 *q, const uint8_t *p, uint64_t left, struct qcow2_bitmap *out,
                         const char **fault)
{
    *fault = "it ends early";
    if (left < FIXED)
        return 0;
    struct qcow2_bitmap b = {.table_offset = get_be64(p),
                             .table_size = get_be32(p + 8),
                             .flags = get_be32(p + 12),
                             .type = p[16],
                             .granularity_bits = p[17],
                             .n_extra = get_be32(p + 20)};
    uint32_t name = get_be16(p + 18);
    uint64_t bytes = ALIGN_UP((uint64_t)FIXED + b.n_extra + name, 8);
    if (bytes > left)
        return 0;
    *fault = "an entry has more data than is known of";
    if (b.n_extra > EXTRA_MAX)
        return 0;
    *fault = "a name has no byte, or more than 1023, or one that is 0";
    if (!name || name > QCOW2_BITMAP_NAME_MAX || memchr(p + FIXED + b.n_extra, 0, name))
        return 0;
    *fault = "an entry has a type or flags that mean nothing";
    if (b.type != QCOW2_BITMAP_DIRTY ||
        b.flags & ~(QCOW2_BITMAP_IN_USE | QCOW2_BITMAP_AUTO | QCOW2_BITMAP_COMPATIBLE))
        return 0;
    *fault = "a granularity is not between 512 bytes and 2 GiB";
    if (b.granularity_bits < GRANULARITY_MIN || b.granularity_bits > GRANULARITY_MAX)
        return 0;
    *fault = "a bitmap's table is not in the file, or not as long as the disk needs it";
    if (qcow2_in_cluster(q, b.table_offset) || b.table_offset < q->cluster_size ||
        b.table_offset > q->file_end || 8ull * b.table_size > q->file_end - b.table_offset ||
        (!(b.flags & QCOW2_BITMAP_IN_USE) && b.table_size != qcow2_bitmap_entries(q, &b)))
        return 0;
    *fault = "there is no memory for it";
    b.name = strndup((const char *)p + FIXED + b.n_extra, name);
    b.extra = b.n_extra ? malloc(b.n_extra) : NULL;
    if (!b.name || (b.n_extra && !b.extra)) {
        qcow2_free_bitmap(&b);
        return 0;
    }
    if (b.n_extra)
        memcpy(b.extra, p + FIXED, b.n_extra);
    *out = b;
    return bytes;
}

static int read_directory(struct qcow2 *q, uint64_t n, struct qcow2_bitmaps *b, const char **fault)
{
    cleanup_free uint8_t *bytes = malloc(b->bytes);
    uint64_t at = 0;
    int rc = bytes ? disk_read_at(q->disk.fd, bytes, b->bytes, b->offset) : -ENOMEM;

    b->list = rc == 0 ? calloc(n, sizeof(*b->list)) : NULL;
    if (rc == 0 && !b->list)
        rc = -ENOMEM;
    while (rc == 0 && b->n < n) {
        uint64_t used = read_one(q, bytes + at, b->bytes - at, &b->list[b->n], fault);
        if (!used)
            return -EINVAL;
        b->list[b->n++].at = b->offset + at;
        at += used;
    }
    return rc;
}

/* What the extension says. */
static int read_all(struct qcow2 *q, struct qcow2_bitmaps *b, const char **fault)
{
    struct qcow2_header header;
    uint8_t e[24];
    uint64_t at;
    uint32_t len;
    int rc = qcow2_read_fields(q->disk.fd, &header, NULL);

    if (rc == 0)
        rc = qcow2_find_extension(q->disk.fd, &header, QCOW2_EXTENSION_BITMAPS, &at, &len);
    if (rc <= 0)
        return rc;
    *fault = "the extension of the header that tells of them";
    if (len != sizeof(e))
        return -EINVAL;
    rc = disk_read_at(q->disk.fd, e, sizeof(e), at);
    if (rc)
        return rc;
    uint64_t n = get_be32(e);
    b->bytes = get_be64(e + 8);
    b->offset = get_be64(e + 16);
    *fault = "there are none, more than 65535, or more than 4 MiB of them";
    if (!n || n > QCOW2_BITMAPS_MAX || !b->bytes || b->bytes > QCOW2_BITMAPS_BYTES || n > b->bytes / FIXED)
        return -EINVAL;
    *fault = "their directory is not in the file";
    if (qcow2_in_cluster(q, b->offset) || b->offset < q->cluster_size || b->offset > q->file_end ||
        b->bytes > q->file_end - b->offset)
        return -EINVAL;
    return read_directory(q, n, b, fault);
}

int qcow2_read_bitmaps(struct qcow2 *q, struct qcow2_bitmaps *out, struct error **err)
{
    struct qcow2_bitmaps b = {.read = true};
    const char *fault = "its header's extensions";
    int rc = q->autoclear & QCOW2_BITMAPS_VALID ? read_all(q, &b, &fault) : 0;

    if (rc < 0) {
        qcow2_free_bitmaps(&b);
        return rc == -EINVAL ? error_set(err, EINVAL, "is damaged: its bitmaps: %s", fault)
                             : error_set_errno(err, -rc, "reading its bitmaps");
    }
    *out = b;
    return 0;
}

uint8_t *qcow2_pack_bitmaps(const struct qcow2_bitmaps *b, uint64_t *bytes)
{
    uint64_t room = 0, at = 0;

    for (uint32_t i = 0; i < b->n; i++)
        room += ALIGN_UP(FIXED + b->list[i].n_extra + strlen(b->list[i].name), 8);
    uint8_t *all = calloc(1, room + 1);
    for (uint32_t i = 0; all && i < b->n; i++) {
        const struct qcow2_bitmap *one = &b->list[i];
        size_t name = strlen(one->name);
        uint8_t *p = all + at;
        put_be64(p, one->table_offset);
        put_be32(p + 8, one->table_size);
        put_be32(p + 12, one->flags);
        p[16] = one->type;
        p[17] = one->granularity_bits;
        put_be16(p + 18, (uint16_t)name);
        put_be32(p + 20, one->n_extra);
        if (one->n_extra)
            memcpy(p + FIXED, one->extra, one->n_extra);
        memcpy(p + FIXED + one->n_extra, one->name, name);
        at += ALIGN_UP(FIXED + one->n_extra + name, 8);
    }
    *bytes = room;
    return all;
}

/* ---- bits ---- */

int qcow2_load_bitmap_table(struct qcow2 *q, struct qcow2_bitmap *b)
{
    cleanup_free uint64_t *table = NULL;
    uint64_t bytes = 8ull * b->table_size;

    if (b->table)
        return 0;
    if (bytes > QCOW2_BITMAPS_MEMORY)
        return -EFBIG;
    table = malloc(bytes + 1);
    int rc = table ? disk_read_at(q->disk.fd, table, bytes, b->table_offset) : -ENOMEM;
    for (uint32_t i = 0; rc == 0 && i < b->table_size; i++) {
        uint64_t offset = table[i] = be64toh(table[i]);
        if (offset > ALL_ONES && (offset & ~QCOW2_OFFSET || qcow2_in_cluster(q, offset) ||
                                  offset < q->cluster_size || offset >= q->file_end))
            rc = -EINVAL;
    }
    if (rc == 0)
        b->table = steal_ptr(table);
    return rc;
}

int qcow2_load_bitmap(struct qcow2 *q, struct qcow2_bitmap *b)
{
    cleanup_free uint8_t *bits = NULL;
    uint64_t room = (uint64_t)b->table_size << q->cluster_bits, n = qcow2_bitmap_bits(q, b);

    if (b->bits)
        return 0;
    if (room > QCOW2_BITMAPS_MEMORY - q->bitmaps.memory)
        return -EFBIG;
    int rc = qcow2_load_bitmap_table(q, b);
    bits = rc == 0 ? malloc(room + 1) : NULL;
    if (rc == 0 && !bits)
        rc = -ENOMEM;
    for (uint32_t i = 0; rc == 0 && i < b->table_size; i++) {
        uint8_t *to = bits + ((size_t)i << q->cluster_bits);
        if (b->table[i] > ALL_ONES)
            rc = disk_read_at(q->disk.fd, to, q->cluster_size, b->table[i]);
        else
            memset(to, b->table[i] ? 0xff : 0, q->cluster_size);
    }
    if (rc)
        return rc;
    /* There is nothing behind the disk's end. */
    for (uint64_t i = n; i < 8 * room && i % 8; i++)
        bits[i / 8] &= (uint8_t) ~(1u << i % 8);
    memset(bits + (n + 7) / 8, 0, room - (n + 7) / 8);
    b->bits = steal_ptr(bits);
    b->n_bits = n;
    b->room = room;
    q->bitmaps.memory += room;
    return 0;
}

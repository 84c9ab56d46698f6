/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Another size for a qcow2 disk: a larger one may need a larger L1 table, which the header is told of
 * together with the size; of a smaller one, what is beyond the end is given back once the header says so. All
 * at once, in the disk's thread.
 */
#include "disk/qcow2_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static uint64_t reach_of(const struct qcow2 *q)
{
    return 1ull << (q->cluster_bits + q->table_bits);
}

/* ---- L1 tables ---- */

int qcow2_write_new_l1(struct qcow2 *q, const uint64_t *l1, uint32_t n, uint32_t room, uint64_t *offset)
{
    uint64_t clusters = ((8ull * room) + q->cluster_size - 1) >> q->cluster_bits;
    cleanup_free uint64_t *bytes = calloc(clusters + 1, q->cluster_size);
    uint64_t at = 0;

    if (!bytes)
        return -ENOMEM;
    /* An L1 table has a place even if it has no entry. */
    if (!clusters)
        clusters = 1;
    int rc = qcow2_take_run(q, clusters, &at);
    if (rc)
        return rc;
    for (uint32_t i = 0; i < n; i++)
        bytes[i] = htobe64(l1[i]);
    rc = disk_write_at(q->disk.fd, bytes, clusters << q->cluster_bits, at);
    if (rc)
        qcow2_untake_clusters(q, at, clusters);
    else
        *offset = at;
    return rc;
}

/* Both are in one sector, so they change together: size, encryption, entries, offset. */
int qcow2_switch_l1(struct qcow2 *q, uint64_t size, uint64_t l1_offset, uint32_t l1_size)
{
    uint8_t bytes[QCOW2_AT_REFTABLE_OFFSET - QCOW2_AT_SIZE];
    int rc = disk_read_at(q->disk.fd, bytes, sizeof(bytes), QCOW2_AT_SIZE);

    put_be64(bytes, size);
    put_be32(bytes + (QCOW2_AT_L1_SIZE - QCOW2_AT_SIZE), l1_size);
    put_be64(bytes + (QCOW2_AT_L1_OFFSET - QCOW2_AT_SIZE), l1_offset);
    if (rc == 0)
        rc = disk_write_at(q->disk.fd, bytes, sizeof(bytes), QCOW2_AT_SIZE);
    if (rc == 0)
        rc = qcow2_sync(q);
    if (rc)
        return rc;
    q->disk.size = size;
    q->l1_offset = l1_offset;
    q->l1_entries = l1_size;
    q->l1_dirty_from = q->l1_dirty_to = 0;
    return 0;
}

/* Makes the L1 table reach so far; the size stays what it is. */
static int grow_l1(struct qcow2 *q, uint64_t size)
{
    uint64_t needed = size / reach_of(q) + (size % reach_of(q) != 0), offset, old = q->l1_offset;
    uint64_t old_bytes = 8ull * q->l1_entries;

    if (needed <= q->l1_entries)
        return 0;
    uint64_t *l1 = realloc(q->l1, needed * sizeof(*l1));
    if (!l1)
        return -ENOMEM;
    memset(l1 + q->l1_entries, 0, (needed - q->l1_entries) * sizeof(*l1));
    q->l1 = l1;
    int rc = qcow2_write_new_l1(q, l1, (uint32_t)needed, (uint32_t)needed, &offset);
    if (rc == 0)
        rc = qcow2_write_tables(q);
    if (rc == 0)
        rc = qcow2_sync(q);
    if (rc == 0)
        rc = qcow2_switch_l1(q, q->disk.size, offset, (uint32_t)needed);
    if (rc == 0 && old_bytes)
        qcow2_release(q, old, old_bytes);
    return rc;
}

/* ---- what is beyond the end ---- */

static int make_room(struct qcow2 *q, unsigned n)
{
    return qcow2_can_release(q, n) ? 0 : qcow2_flush_to_close(q);
}

/* Takes entries out of a table, from the one at `first` on. */
static int drop_entries(struct qcow2 *q, uint64_t at, uint32_t first)
{
    for (uint32_t i = first; i < 1u << q->table_bits; i++) {
        struct qcow2_table *table;
        uint32_t index;
        /* A flush may move tables through the cache. */
        int rc = make_room(q, 4);
        if (rc == 0)
            rc = qcow2_writable_table(q, at, &table, &index);
        if (rc)
            return rc;
        uint8_t *entry = qcow2_entry(q, table, i);
        uint64_t old = get_be64(entry);
        if (!old && q->entry_bits == 3)
            continue;
        memset(entry, 0, 1u << q->entry_bits);
        qcow2_cache_mark(&q->l2, table);
        qcow2_release_entry(q, old);
    }
    return 0;
}

/* A whole table: it is not written again, so what it refers to is given back when nothing leads to it. */
static int drop_table(struct qcow2 *q, uint32_t l1)
{
    uint64_t offset = q->l1[l1] & QCOW2_OFFSET;
    cleanup_free uint8_t *entries = malloc(q->cluster_size);
    struct qcow2_table *table;
    int rc = entries ? 0 : -ENOMEM;

    if (rc == 0 && (qcow2_in_cluster(q, offset) || offset >= q->file_end))
        rc = qcow2_damaged(q);
    if (rc == 0)
        rc = qcow2_cache_get(q, &q->l2, offset, &table);
    if (rc)
        return rc;
    memcpy(entries, table->bytes, q->cluster_size);
    qcow2_cache_drop(&q->l2, offset);
    q->l1[l1] = 0;
    qcow2_l1_changed(q, l1);
    for (uint32_t i = 0; rc == 0 && i < 1u << q->table_bits; i++) {
        uint64_t entry = get_be64(entries + ((size_t)i << q->entry_bits)), at;
        enum qcow2_kind kind;
        if (!qcow2_read_entry(q, entry, &kind, &at))
            return qcow2_damaged(q);
        rc = make_room(q, 4);
        if (rc == 0)
            qcow2_release_entry(q, entry);
    }
    if (rc == 0)
        rc = make_room(q, 1);
    if (rc == 0)
        qcow2_release(q, offset, q->cluster_size);
    return rc;
}

int qcow2_drop_from(struct qcow2 *q, uint64_t from)
{
    uint64_t first = from / reach_of(q);
    uint32_t inside = (uint32_t)(from >> q->cluster_bits) & ((1u << q->table_bits) - 1);
    int rc = 0;

    if (first < q->l1_entries && inside && q->l1[first])
        rc = drop_entries(q, from, inside);
    for (uint64_t i = first + (inside != 0); rc == 0 && i < q->l1_entries; i++)
        if (q->l1[i])
            rc = drop_table(q, (uint32_t)i);
    q->unpacked_entry = 0;
    return rc;
}

/* ---- both ways ---- */

/* What the last cluster has beyond the disk's end must be zeros when that moves. */
static int zero_tail(struct qcow2 *q, uint64_t from, uint64_t to)
{
    uint64_t end = ALIGN_UP(from, (uint64_t)q->cluster_size);

    return end == from ? 0 : qcow2_zero_now(q, from, (end < to ? end : to) - from);
}

/* Where more of what the disk is based on would come to light, zeros are said to be there. */
static int hide_behind(struct qcow2 *q, uint64_t from, uint64_t to)
{
    uint64_t behind = q->disk.backing ? q->disk.backing->size : 0;
    int rc = 0;

    if (to > behind)
        to = behind;
    for (uint64_t at = from; rc == 0 && at < to; at = ALIGN_UP(at + 1, (uint64_t)q->cluster_size)) {
        rc = make_room(q, 4);
        uint64_t rest = q->cluster_size - qcow2_in_cluster(q, at);
        if (rc == 0)
            rc = qcow2_zero_now(q, at, rest < to - at ? rest : to - at);
    }
    return rc;
}

static int grow(struct qcow2 *q, uint64_t size)
{
    uint64_t before = q->disk.size;
    int rc = qcow2_drop_from(q, ALIGN_UP(before, (uint64_t)q->cluster_size));

    if (rc == 0)
        rc = qcow2_flush_to_close(q);
    if (rc == 0)
        rc = grow_l1(q, size);
    if (rc == 0)
        rc = qcow2_resize_data(q, size);
    /* What is new is zeros in the file before it can be seen there. */
    q->disk.size = size;
    if (rc == 0)
        rc = zero_tail(q, before, size);
    if (rc == 0)
        rc = hide_behind(q, before, size);
    if (rc == 0)
        rc = qcow2_flush_to_close(q);
    if (rc == 0)
        rc = qcow2_switch_l1(q, size, q->l1_offset, q->l1_entries);
    if (rc)
        q->disk.size = before;
    return rc;
}

static int shrink(struct qcow2 *q, uint64_t size)
{
    int rc = zero_tail(q, size, q->disk.size);

    if (rc == 0)
        rc = qcow2_flush_to_close(q);
    if (rc == 0)
        rc = qcow2_switch_l1(q, size, q->l1_offset, q->l1_entries);
    if (rc == 0)
        rc = qcow2_drop_from(q, ALIGN_UP(size, (uint64_t)q->cluster_size));
    if (rc == 0)
        rc = qcow2_flush_to_close(q);
    return rc ? rc : qcow2_resize_data(q, size);
}

int qcow2_resize(struct disk *disk, uint64_t size, struct error **err)
{
    struct qcow2 *q = container_of(disk, struct qcow2, disk);
    uint64_t most = QCOW2_L1_MAX / 8 * reach_of(q), before = disk->size;
    struct qcow2_header header;
    int rc = qcow2_read_fields(disk->fd, &header, err);

    if (rc)
        return rc;
    if (size > most)
        return error_set(err, EFBIG,
                         "a size of %" PRIu64 " bytes is too large for clusters of %u: %" PRIu64 " at most",
                         size, q->cluster_size, most);
    if (q->version < 3 && header.snapshots)
        return error_set(err, EINVAL,
                         "is of version 2, where snapshots have no size of their own: delete them first");
    rc = q->damaged ? -EIO : qcow2_begin_change(q);
    if (rc == 0)
        rc = qcow2_flush_to_close(q);
    if (rc == 0)
        rc = qcow2_begin_recording(q, true);
    if (rc == 0)
        rc = size < disk->size ? shrink(q, size) : grow(q, size);
    qcow2_resize_bitmaps(q);
    /* Where there was content before the disk was smaller, it has changed. */
    if (rc == 0 && size > before)
        qcow2_record(q, before, size - before);
    return rc ? error_set_errno(err, -rc, "changing its size") : 0;
}

int qcow2_empty(struct disk *disk)
{
    struct qcow2 *q = container_of(disk, struct qcow2, disk);
    int rc = q->damaged ? -EIO : qcow2_begin_change(q);

    if (rc == 0)
        rc = qcow2_flush_to_close(q);
    /* A further file that shows the same must never have what the image has not. */
    if (rc == 0 && q->data_raw)
        rc = qcow2_empty_data(q);
    if (rc == 0)
        rc = qcow2_drop_from(q, 0);
    if (rc == 0)
        rc = qcow2_flush_to_close(q);
    /* Any other keeps its content until nothing refers to that. */
    return rc || q->data_raw ? rc : qcow2_empty_data(q);
}

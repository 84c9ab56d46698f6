/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From a byte of the disk to where it is in the file, through L1 and L2 tables. The disk's thread; no locks.
 */
#include "disk/qcow2_priv.h"

#include "base/bytes.h"

#include <errno.h>
#include <string.h>

static uint32_t l1_index(const struct qcow2 *q, uint64_t at)
{
    return (uint32_t)(at >> (q->cluster_bits + q->table_bits));
}

static uint32_t l2_index(const struct qcow2 *q, uint64_t at)
{
    return (uint32_t)(at >> q->cluster_bits) & ((1u << q->table_bits) - 1);
}

/* How much of [at, at + length) lies behind one L1 entry. */
static uint64_t within_table(const struct qcow2 *q, uint64_t at, uint64_t length)
{
    uint64_t reach = 1ull << (q->cluster_bits + q->table_bits), left = reach - (at & (reach - 1));

    return length < left ? length : left;
}

/* Clusters lie whole within what was ever written, but for the last one, which may end early. */
static bool is_in_file(const struct qcow2 *q, uint64_t offset)
{
    return qcow2_in_cluster(q, offset) == 0 && offset && offset < q->file_end;
}

/* Whether an entry that is not compressed has a cluster. */
static bool has_place(const struct qcow2 *q, uint64_t entry)
{
    return entry & QCOW2_OFFSET || (qcow2_is_apart(q) && entry & QCOW2_COPIED);
}

bool qcow2_read_entry(const struct qcow2 *q, uint64_t entry, enum qcow2_kind *kind, uint64_t *offset)
{
    bool zero = entry & QCOW2_ZERO;

    *offset = entry & QCOW2_OFFSET;
    if (entry & QCOW2_COMPRESSED) {
        uint32_t length;
        *kind = QCOW2_KIND_PACKED;
        qcow2_packed_place(q, entry, offset, &length);
        return !(entry & QCOW2_COPIED) && !qcow2_is_apart(q) && *offset >= q->cluster_size &&
               *offset < q->file_end;
    }
    if (zero && qcow2_is_wide(q))
        return false;
    *kind = zero ? QCOW2_KIND_ZEROS : has_place(q, entry) ? QCOW2_KIND_DATA : QCOW2_KIND_NONE;
    return !(entry & QCOW2_RESERVED) && !(zero && q->version < 3) &&
           (!*offset || (qcow2_is_apart(q) ? !qcow2_in_cluster(q, *offset) : is_in_file(q, *offset)));
}

/* The L2 table for byte `at`, NULL if there is none. */
static int find_table(struct qcow2 *q, uint64_t at, struct qcow2_table **out)
{
    uint64_t entry = q->l1[l1_index(q, at)], offset = entry & QCOW2_OFFSET;

    *out = NULL;
    if (!offset)
        return 0;
    if (!is_in_file(q, offset))
        return qcow2_damaged(q);
    return qcow2_cache_get(q, &q->l2, offset, out);
}

/* How far what begins with an extent goes on. */
static void extend(const struct qcow2 *q, const uint8_t *entries, uint32_t i, uint64_t most,
                   struct qcow2_extent *e)
{
    uint64_t next = (e->entry & QCOW2_OFFSET) + q->cluster_size;

    while (e->length < most && e->kind != QCOW2_KIND_PACKED && ++i < 1u << q->table_bits) {
        uint64_t entry = get_be64(entries + ((size_t)i << q->entry_bits)), offset;
        enum qcow2_kind kind;
        if (!qcow2_read_entry(q, entry, &kind, &offset) || kind != e->kind)
            return;
        if (kind == QCOW2_KIND_DATA && (offset != next || (entry ^ e->entry) & QCOW2_COPIED))
            return;
        next += q->cluster_size;
        e->length += q->cluster_size;
    }
}

/* ---- subclusters ---- */

/* What one subcluster is, by its extended entry; *offset is the cluster's. False if it can't be. */
static bool read_subcluster(const struct qcow2 *q, const uint8_t *bytes, unsigned sub, enum qcow2_kind *kind,
                            uint64_t *offset)
{
    uint64_t status = get_be64(bytes + 8);

    if (!qcow2_read_entry(q, get_be64(bytes), kind, offset))
        return false;
    if (*kind == QCOW2_KIND_PACKED)
        return !status;
    if ((status & status >> QCOW2_SUBCLUSTERS & UINT32_MAX) ||
        (!has_place(q, get_be64(bytes)) && (uint32_t)status))
        return false;
    *kind = status >> sub & 1                         ? QCOW2_KIND_DATA
            : status >> (QCOW2_SUBCLUSTERS + sub) & 1 ? QCOW2_KIND_ZEROS
                                                      : QCOW2_KIND_NONE;
    return true;
}

void qcow2_set_subclusters(const struct qcow2 *q, uint8_t *entry, uint64_t from, uint64_t to, bool as_zeros)
{
    uint64_t size = qcow2_subcluster_size(q), status = get_be64(entry + 8);

    for (uint64_t sub = from / size; sub < to / size; sub++) {
        uint64_t data = 1ull << sub, none = data << QCOW2_SUBCLUSTERS;
        status = as_zeros ? (status & ~data) | none : (status & ~none) | data;
    }
    put_be64(entry + 8, status);
}

/* Whether the cluster behind one that ends as `e` goes on with that. Without data both must have no place:
 * what is written there later is then written alike. */
static bool goes_on(const struct qcow2_extent *e, uint64_t entry, uint64_t next)
{
    if (e->kind == QCOW2_KIND_DATA)
        return (entry & QCOW2_OFFSET) == next && !((entry ^ e->entry) & QCOW2_COPIED);
    return !(entry & QCOW2_OFFSET) && !(e->entry & QCOW2_OFFSET);
}

/* What begins at byte `at`, and how far it goes on, by the entries of a table from the i-th on. False if one
 * can't be. */
static bool map_wide(const struct qcow2 *q, const uint8_t *entries, uint32_t i, uint64_t at, uint64_t most,
                     struct qcow2_extent *e)
{
    unsigned sub_bits = q->cluster_bits - QCOW2_SUBCLUSTER_BITS;
    unsigned sub = (unsigned)(qcow2_in_cluster(q, at) >> sub_bits);
    uint64_t size = 1ull << sub_bits;

    e->entry = get_be64(entries + ((size_t)i << 4));
    if (!read_subcluster(q, entries + ((size_t)i << 4), sub, &e->kind, &e->offset))
        return false;
    if (e->kind == QCOW2_KIND_PACKED)
        return true;
    uint64_t next = e->offset;
    e->length = size - (at & (size - 1));
    while (e->length < most) {
        enum qcow2_kind kind;
        uint64_t offset;
        if (++sub == QCOW2_SUBCLUSTERS) {
            sub = 0;
            next += q->cluster_size;
            if (++i == 1u << q->table_bits || !goes_on(e, get_be64(entries + ((size_t)i << 4)), next))
                break;
        }
        if (!read_subcluster(q, entries + ((size_t)i << 4), sub, &kind, &offset) || kind != e->kind)
            break;
        e->length += size;
    }
    return true;
}

int qcow2_map(struct qcow2 *q, uint64_t at, uint64_t length, struct qcow2_extent *out)
{
    struct qcow2_table *table;
    struct qcow2_extent e = {.length = q->cluster_size - qcow2_in_cluster(q, at)};
    uint64_t most = within_table(q, at, length);
    int rc = find_table(q, at, &table);

    if (rc)
        return rc;
    if (table) {
        uint32_t i = l2_index(q, at);
        e.entry = get_be64(qcow2_entry(q, table, i));
        bool ok = qcow2_is_wide(q) ? map_wide(q, table->bytes, i, at, most, &e)
                                   : qcow2_read_entry(q, e.entry, &e.kind, &e.offset);
        if (!ok)
            return qcow2_damaged(q);
        if (!qcow2_is_wide(q))
            extend(q, table->bytes, i, most, &e);
        if (e.kind == QCOW2_KIND_DATA)
            e.offset += qcow2_in_cluster(q, at);
        if (e.kind == QCOW2_KIND_DATA && qcow2_is_apart(q) && e.offset != at)
            return qcow2_damaged(q);
        e.own_table = q->l1[l1_index(q, at)] & QCOW2_COPIED;
        e.in_place = e.kind == QCOW2_KIND_DATA && e.own_table && e.entry & QCOW2_COPIED;
    } else {
        e.length = most;
    }
    if (e.length > most)
        e.length = most;
    *out = e;
    return 0;
}

void qcow2_l1_changed(struct qcow2 *q, uint32_t i)
{
    if (q->l1_dirty_from == q->l1_dirty_to)
        q->l1_dirty_from = q->l1_dirty_to = i;
    if (i < q->l1_dirty_from)
        q->l1_dirty_from = i;
    if (i >= q->l1_dirty_to)
        q->l1_dirty_to = i + 1;
}

/* A table of its own in place of none, or of one that a snapshot uses too. */
static int own_table(struct qcow2 *q, uint32_t l1, struct qcow2_table **out)
{
    uint64_t old = q->l1[l1] & QCOW2_OFFSET, offset, got;
    struct qcow2_table *table, *source;
    bool fresh;
    int rc = qcow2_take_clusters(q, 1, &offset, &got, &fresh);

    if (rc)
        return rc;
    rc = qcow2_cache_new(q, &q->l2, offset, &table);
    /* Takes the space now, so that a full file system refuses a write rather than a flush. */
    if (rc == 0)
        rc = disk_write_at(q->disk.fd, table->bytes, q->cluster_size, offset);
    if (rc == 0 && old) {
        /* Both at once are in the cache: it holds more than two. */
        rc = qcow2_cache_get(q, &q->l2, old, &source);
        if (rc == 0)
            memcpy(table->bytes, source->bytes, q->cluster_size);
    }
    if (rc) {
        qcow2_cache_drop(&q->l2, offset);
        qcow2_untake_clusters(q, offset, 1);
        return rc;
    }
    qcow2_cache_mark(&q->l2, table);
    q->l1[l1] = offset | QCOW2_COPIED;
    qcow2_l1_changed(q, l1);
    if (old)
        qcow2_release(q, old, q->cluster_size);
    *out = table;
    return 0;
}

int qcow2_writable_table(struct qcow2 *q, uint64_t at, struct qcow2_table **out, uint32_t *index)
{
    uint32_t l1 = l1_index(q, at);
    int rc = find_table(q, at, out);

    if (rc == 0 && (!*out || !(q->l1[l1] & QCOW2_COPIED)))
        rc = own_table(q, l1, out);
    *index = l2_index(q, at);
    return rc;
}

bool qcow2_entry_place(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *len)
{
    uint32_t length = q->cluster_size;

    *offset = entry & QCOW2_OFFSET;
    if (entry & QCOW2_COMPRESSED)
        qcow2_packed_place(q, entry, offset, &length);
    *len = length;
    return *offset && !qcow2_is_apart(q);
}

void qcow2_release_entry(struct qcow2 *q, uint64_t entry)
{
    uint64_t offset, len;

    if (qcow2_entry_place(q, entry, &offset, &len))
        qcow2_release(q, offset, len);
}

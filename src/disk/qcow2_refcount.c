/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which clusters of the file are used, and taking and giving back some of them. The disk's thread; no locks.
 *
 * A count that has gone up is in the file before anything points to the cluster, one that has gone down only
 * after nothing does (qcow2_priv.h). New refcount blocks and a larger refcount table are rare, a block for
 * gigabytes of a file, so they are written and synced at once.
 */
#include "disk/qcow2_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "host/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

uint64_t qcow2_get_count(unsigned order, const uint8_t *block, uint64_t i)
{
    switch (order) {
    case 3:
        return block[i];
    case 4:
        return get_be16(block + 2 * i);
    case 5:
        return get_be32(block + 4 * i);
    case 6:
        return get_be64(block + 8 * i);
    default: { /* less than a byte, from its lowest bit on */
        unsigned bits = 1u << order, per_byte = 8 / bits;
        return block[i / per_byte] >> i % per_byte * bits & ((1u << bits) - 1);
    }
    }
}

void qcow2_set_count(unsigned order, uint8_t *block, uint64_t i, uint64_t count)
{
    switch (order) {
    case 3:
        block[i] = (uint8_t)count;
        break;
    case 4:
        put_be16(block + 2 * i, (uint16_t)count);
        break;
    case 5:
        put_be32(block + 4 * i, (uint32_t)count);
        break;
    case 6:
        put_be64(block + 8 * i, count);
        break;
    default: {
        unsigned bits = 1u << order, per_byte = 8 / bits;
        unsigned shift = (unsigned)(i % per_byte) * bits, mask = ((1u << bits) - 1) << shift;
        block[i / per_byte] = (uint8_t)((block[i / per_byte] & ~mask) | (unsigned)count << shift);
    }
    }
}

static uint64_t get_count(const struct qcow2 *q, const uint8_t *block, uint64_t i)
{
    return qcow2_get_count(q->refcount_order, block, i);
}

static void set_count(const struct qcow2 *q, uint8_t *block, uint64_t i, uint64_t count)
{
    qcow2_set_count(q->refcount_order, block, i, count);
}

static uint64_t block_index(const struct qcow2 *q, uint64_t cluster)
{
    return cluster >> q->block_bits;
}

static uint64_t in_block(const struct qcow2 *q, uint64_t cluster)
{
    return cluster & ((1ull << q->block_bits) - 1);
}

/* The refcount block for a cluster; NULL if there is none, so that the count is 0. */
static int get_block(struct qcow2 *q, uint64_t cluster, struct qcow2_table **out)
{
    uint64_t index = block_index(q, cluster);
    uint64_t offset = index < q->reftable_entries ? q->reftable[index] : 0;

    *out = NULL;
    if (!offset)
        return 0;
    if (qcow2_in_cluster(q, offset) || offset >= q->file_end || offset > QCOW2_OFFSET)
        return qcow2_damaged(q);
    return qcow2_cache_get(q, &q->blocks, offset, out);
}

int qcow2_refcount(struct qcow2 *q, uint64_t cluster, uint64_t *count)
{
    struct qcow2_table *block;
    int rc = get_block(q, cluster, &block);

    if (rc == 0)
        *count = block ? get_count(q, block->bytes, in_block(q, cluster)) : 0;
    return rc;
}

static void note_written(struct qcow2 *q, uint64_t end)
{
    if (q->file_end < end)
        q->file_end = end;
}

/* ---- new blocks and tables ---- */

/* A block for a range of clusters of which none is used yet: it takes the first of them, and counts itself.
 */
static int new_block(struct qcow2 *q, uint64_t index)
{
    uint64_t offset = index << q->block_bits << q->cluster_bits;
    cleanup_free uint8_t *bytes = calloc(1, q->cluster_size);
    uint8_t entry[8];

    if (!bytes)
        return -ENOMEM;
    if (!index)
        return qcow2_damaged(q);
    set_count(q, bytes, 0, 1);
    put_be64(entry, offset);
    int rc = disk_write_at(q->disk.fd, bytes, q->cluster_size, offset);
    if (rc == 0)
        rc = qcow2_sync(q);
    if (rc == 0)
        rc = disk_write_at(q->disk.fd, entry, sizeof(entry), q->reftable_offset + 8 * index);
    if (rc)
        return rc;
    note_written(q, offset + q->cluster_size);
    q->reftable[index] = offset;
    return 0;
}

/* How many blocks are needed to count themselves and a table of `table` clusters. */
static uint64_t blocks_for(const struct qcow2 *q, uint64_t table)
{
    uint64_t blocks = 1;

    while (blocks << q->block_bits < blocks + table)
        blocks++;
    return blocks;
}

/* Writes blocks and table of the larger one behind all that the old one counts, blocks first. */
static int write_larger(struct qcow2 *q, uint64_t *entries, uint64_t n_entries, uint64_t first,
                        uint64_t blocks, uint64_t table)
{
    cleanup_free uint8_t *bytes = malloc(q->cluster_size);
    uint64_t at = first << q->cluster_bits;

    if (!bytes)
        return -ENOMEM;
    for (uint64_t b = 0; b < blocks; b++, at += q->cluster_size) {
        memset(bytes, 0, q->cluster_size);
        for (uint64_t i = 0; i < 1ull << q->block_bits && (b << q->block_bits) + i < blocks + table; i++)
            set_count(q, bytes, i, 1);
        entries[block_index(q, first) + b] = at;
        int rc = disk_write_at(q->disk.fd, bytes, q->cluster_size, at);
        if (rc)
            return rc;
    }
    for (uint64_t done = 0; done < n_entries; done += q->cluster_size / 8, at += q->cluster_size) {
        for (uint32_t i = 0; i < q->cluster_size / 8; i++)
            put_be64(bytes + 8 * i, entries[done + i]);
        int rc = disk_write_at(q->disk.fd, bytes, q->cluster_size, at);
        if (rc)
            return rc;
    }
    note_written(q, at);
    return qcow2_sync(q);
}

/* Twice as many entries, all before being full. */
static int grow_table(struct qcow2 *q)
{
    uint64_t old = (uint64_t)q->reftable_entries * 8 >> q->cluster_bits, table = 2 * old;
    uint64_t first = (uint64_t)q->reftable_entries << q->block_bits, blocks = blocks_for(q, table);
    uint64_t n_entries = table << q->cluster_bits >> 3;
    uint8_t where[12];

    if (table << q->cluster_bits > QCOW2_REFTABLE_MAX ||
        first + blocks + table > QCOW2_OFFSET >> q->cluster_bits)
        return -EFBIG;
    cleanup_free uint64_t *entries = calloc(n_entries, sizeof(*entries));
    if (!entries)
        return -ENOMEM;
    memcpy(entries, q->reftable, q->reftable_entries * sizeof(*entries));
    int rc = write_larger(q, entries, n_entries, first, blocks, table);
    if (rc)
        return rc;
    uint64_t offset = (first + blocks) << q->cluster_bits, old_offset = q->reftable_offset;
    put_be64(where, offset);
    put_be32(where + 8, (uint32_t)table);
    rc = disk_write_at(q->disk.fd, where, sizeof(where), QCOW2_AT_REFTABLE_OFFSET);
    if (rc)
        return rc;
    /* From here on the file has the larger one. Should the sync fail, the old one is not given back. */
    free(q->reftable);
    q->reftable = steal_ptr(entries);
    q->reftable_entries = (uint32_t)n_entries;
    q->reftable_offset = offset;
    rc = qcow2_sync(q);
    if (rc == 0 && qcow2_can_release(q, (unsigned)old))
        qcow2_release(q, old_offset, old << q->cluster_bits);
    return rc;
}

/* ---- taking ---- */

static bool overlaps(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
    return a < b + b_len && b < a + a_len;
}

/* What counts as free but is in use would be overwritten. Of what is known without reading: all tables, up to
 * a number that can be looked through each time. */
#define TABLES_LOOKED_AT 65536u
static bool hits_tables(const struct qcow2 *q, uint64_t offset, uint64_t len)
{
    if (offset < q->cluster_size || overlaps(offset, len, q->l1_offset, 8ull * q->l1_entries) ||
        overlaps(offset, len, q->reftable_offset, 8ull * q->reftable_entries))
        return true;
    for (uint32_t i = 0; i < q->l1_entries && q->l1_entries <= TABLES_LOOKED_AT; i++)
        if (q->l1[i] && overlaps(offset, len, q->l1[i] & QCOW2_OFFSET, q->cluster_size))
            return true;
    for (uint32_t i = 0; i < q->reftable_entries && q->reftable_entries <= TABLES_LOOKED_AT; i++)
        if (q->reftable[i] && overlaps(offset, len, q->reftable[i], q->cluster_size))
            return true;
    return false;
}

/* The first free cluster from the hint on, with its block. */
static int find_free(struct qcow2 *q, uint64_t *out, struct qcow2_table **block)
{
    uint64_t cluster = q->free_hint;

    for (;; cluster = (block_index(q, cluster) + 1) << q->block_bits) {
        uint64_t index = block_index(q, cluster);
        if (cluster >= QCOW2_OFFSET >> q->cluster_bits)
            return -EFBIG;
        int rc = index >= q->reftable_entries ? grow_table(q) : 0;
        if (rc == 0 && !q->reftable[index])
            rc = new_block(q, index);
        if (rc == 0)
            rc = get_block(q, cluster, block);
        if (rc)
            return rc;
        for (uint64_t i = in_block(q, cluster); i < 1ull << q->block_bits; i++) {
            if (get_count(q, (*block)->bytes, i) == 0) {
                *out = (index << q->block_bits) + i;
                return 0;
            }
        }
    }
}

int qcow2_take_clusters(struct qcow2 *q, uint64_t n, uint64_t *offset, uint64_t *got, bool *fresh)
{
    struct qcow2_table *block;
    uint64_t first, taken = 0;
    int rc = find_free(q, &first, &block);

    if (rc)
        return rc;
    uint64_t i = in_block(q, first), end = 1ull << q->block_bits;
    while (taken < n && i + taken < end && get_count(q, block->bytes, i + taken) == 0)
        taken++;
    if (hits_tables(q, first << q->cluster_bits, taken << q->cluster_bits))
        return qcow2_damaged(q);
    for (uint64_t k = 0; k < taken; k++)
        set_count(q, block->bytes, i + k, 1);
    qcow2_cache_mark(&q->blocks, block);
    q->free_hint = first + taken;
    *offset = first << q->cluster_bits;
    *got = taken;
    *fresh = *offset >= q->file_end;
    note_written(q, *offset + (taken << q->cluster_bits));
    return 0;
}

static void lower(struct qcow2 *q, uint64_t cluster)
{
    struct qcow2_table *block;

    /* Where the block can't be read, the cluster leaks. */
    if (get_block(q, cluster, &block) || !block)
        return;
    uint64_t count = get_count(q, block->bytes, in_block(q, cluster));
    if (!count)
        return;
    set_count(q, block->bytes, in_block(q, cluster), count - 1);
    qcow2_cache_mark(&q->blocks, block);
    if (count == 1 && cluster < q->free_hint)
        q->free_hint = cluster;
}

/* What lies before a bound that a run can't cross stays taken until the run is found. */
int qcow2_take_run(struct qcow2 *q, uint64_t n, uint64_t *offset)
{
    struct qcow2_freed passed[64];
    unsigned n_passed = 0;
    uint64_t start = 0, have = 0;
    int rc = 0;

    while (rc == 0 && have < n) {
        uint64_t at, got;
        bool fresh;
        rc = qcow2_take_clusters(q, n - have, &at, &got, &fresh);
        if (rc)
            break;
        if (have && at != start + (have << q->cluster_bits)) {
            if (n_passed == ARRAY_SIZE(passed)) {
                qcow2_untake_clusters(q, at, got);
                rc = -ENOSPC;
                break;
            }
            passed[n_passed++] = (struct qcow2_freed){.cluster = start, .n = have};
            have = 0;
        }
        if (!have)
            start = at;
        have += got;
    }
    if (rc && have)
        qcow2_untake_clusters(q, start, have);
    for (unsigned i = 0; i < n_passed; i++)
        qcow2_untake_clusters(q, passed[i].cluster, passed[i].n);
    if (rc == 0)
        *offset = start;
    return rc;
}

/* The count that clusters of these bytes have: with `raise` one more each. */
static int add_one(struct qcow2 *q, uint64_t offset, uint64_t len, bool raise)
{
    uint64_t most = q->refcount_order == 6 ? UINT64_MAX : (1ull << (1u << q->refcount_order)) - 1;

    for (uint64_t c = offset >> q->cluster_bits; c <= (offset + len - 1) >> q->cluster_bits; c++) {
        struct qcow2_table *block;
        int rc = get_block(q, c, &block);
        uint64_t count = rc == 0 && block ? get_count(q, block->bytes, in_block(q, c)) : 0;
        if (rc)
            return rc;
        /* What is used can't have been counted as free. */
        if (!count)
            return qcow2_damaged(q);
        if (count >= most)
            return -ERANGE;
        if (!raise)
            continue;
        set_count(q, block->bytes, in_block(q, c), count + 1);
        qcow2_cache_mark(&q->blocks, block);
    }
    return 0;
}

int qcow2_raise(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    return add_one(q, offset, len, true);
}

int qcow2_can_raise(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    return add_one(q, offset, len, false);
}

void qcow2_untake_clusters(struct qcow2 *q, uint64_t offset, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        lower(q, (offset >> q->cluster_bits) + i);
}

/* ---- giving back ---- */

/* Long enough for a series of discards. */
#define RELEASE_DELAY_NS 500000000ull

bool qcow2_can_release(const struct qcow2 *q, unsigned n)
{
    return n <= QCOW2_FREED_MAX - q->n_freed;
}

void qcow2_release(struct qcow2 *q, uint64_t offset, uint64_t n)
{
    uint64_t first = offset >> q->cluster_bits, last = (offset + n - 1) >> q->cluster_bits;
    struct qcow2_freed *before = q->n_freed ? &q->freed[q->n_freed - 1] : NULL;

    if (before && before->cluster + before->n == first)
        before->n += last - first + 1;
    else
        q->freed[q->n_freed++] = (struct qcow2_freed){.cluster = first, .n = last - first + 1};
    if (q->n_freed == 1 && q->freed_timer)
        loop_timer_arm(q->freed_timer, loop_now() + RELEASE_DELAY_NS);
}

/* Those that are free now become holes of the file, in as few pieces as may be. */
static void punch(struct qcow2 *q, uint64_t first, uint64_t n)
{
    if (n)
        disk_punch_at(q->disk.fd, first << q->cluster_bits, n << q->cluster_bits);
}

int qcow2_lower(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    uint64_t first = offset >> q->cluster_bits, last = (offset + len - 1) >> q->cluster_bits, run = 0;

    for (uint64_t c = first; c <= last; c++) {
        uint64_t count = 1;
        lower(q, c);
        if (qcow2_refcount(q, c, &count) == 0 && count == 0) {
            run++;
            continue;
        }
        punch(q, c - run, run);
        run = 0;
    }
    punch(q, last + 1 - run, run);
    return 0;
}

void qcow2_apply_releases(struct qcow2 *q)
{
    unsigned n = q->n_freed;

    q->n_freed = 0;
    for (unsigned i = 0; i < n; i++)
        qcow2_lower(q, q->freed[i].cluster << q->cluster_bits, q->freed[i].n << q->cluster_bits);
}

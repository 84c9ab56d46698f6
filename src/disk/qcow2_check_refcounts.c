/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checking a qcow2 file: what it says of how often clusters are used, against what was counted. A repair sets
 * single counts where they are. Where blocks or their table are damaged, or where one is missing, all are
 * written anew behind all that is used, and the header tells of them last; so an end at any moment leaves
 * what there was. See qcow2_check_priv.h.
 */
#include "disk/qcow2_check_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static unsigned block_bits(const struct qcow2_check *k)
{
    return k->h.cluster_bits + 3 - k->h.refcount_order;
}

static uint64_t count_max(const struct qcow2_check *k)
{
    return k->h.refcount_order == 6 ? UINT64_MAX : (1ull << (1u << k->h.refcount_order)) - 1;
}

static void broken(struct qcow2_check *k, uint64_t i, const char *fault)
{
    bool fix = qcow2_check_repairs(k);

    k->rebuild |= fix;
    disk_check_corrupt(k->c, fix, "refcount block %" PRIu64 " %s", i, fault);
}

/* ---- what is there ---- */

static int load_table(struct qcow2_check *k)
{
    uint64_t bytes = (uint64_t)k->h.reftable_clusters * k->cluster_size;
    bool shared = false, fix = qcow2_check_repairs(k);
    const char *fault = NULL;
    int rc = 0;

    if (!bytes || bytes > QCOW2_REFTABLE_MAX || !qcow2_check_fits(k, k->h.reftable_offset, bytes))
        fault = "is not in the file";
    else
        rc = qcow2_check_mark(k, k->h.reftable_offset, bytes, COUNT_TABLE, &shared);
    if (shared) {
        fault = "shares bytes with something else";
        qcow2_check_unmark(k, k->h.reftable_offset, bytes);
    }
    if (fault) {
        k->rebuild |= fix;
        disk_check_corrupt(k->c, fix, "the refcount table %s", fault);
    }
    k->n_reftable = fault ? 0 : bytes / 8;
    k->reftable = calloc(k->n_reftable + 1, 8);
    if (rc || !k->reftable)
        return rc ? rc : -ENOMEM;
    rc = disk_read_at(k->fd, k->reftable, 8 * k->n_reftable, k->h.reftable_offset);
    for (uint64_t i = 0; rc == 0 && i < k->n_reftable; i++)
        k->reftable[i] = be64toh(k->reftable[i]);
    return rc;
}

/* Leaves in k->reftable the blocks that can be used. */
int qcow2_check_blocks(struct qcow2_check *k)
{
    int rc = load_table(k);

    for (uint64_t i = 0; rc == 0 && i < k->n_reftable; i++) {
        bool shared = false;
        if (!k->reftable[i])
            continue;
        if (!qcow2_check_fits(k, k->reftable[i], k->cluster_size)) {
            broken(k, i, "is not in the file");
            k->reftable[i] = 0;
            continue;
        }
        rc = qcow2_check_mark(k, k->reftable[i], k->cluster_size, COUNT_TABLE, &shared);
        if (shared) {
            qcow2_check_unmark(k, k->reftable[i], k->cluster_size);
            broken(k, i, "shares bytes with something else");
            k->reftable[i] = 0;
        }
    }
    return rc;
}

/* ---- comparing ---- */

/* Neighbours with the same fault are told of once. */
struct run {
    uint64_t first, n;
    enum { RUN_NONE, RUN_TOO_LOW, RUN_TOO_HIGH, RUN_TOO_MANY } kind;
    bool fixed;
};

static void tell(struct qcow2_check *k, struct run *r)
{
    const char *many = r->n > 1 ? " and those behind it" : "";

    if (r->kind == RUN_TOO_HIGH)
        disk_check_leak(k->c, r->n, r->fixed, "%" PRIu64 " clusters from cluster %" PRIu64 " on", r->n,
                        r->first);
    else if (r->kind == RUN_TOO_LOW)
        disk_check_corrupt(k->c, r->fixed, "cluster %" PRIu64 "%s: more refers to it than is counted",
                           r->first, many);
    else if (r->kind == RUN_TOO_MANY)
        disk_check_corrupt(k->c, false, "cluster %" PRIu64 "%s: more refers to it than its count can say",
                           r->first, many);
    if (r->kind == RUN_TOO_LOW || r->kind == RUN_TOO_MANY)
        *(r->fixed ? &k->c->result->corruptions_fixed : &k->c->result->corruptions) += r->n - 1;
    *r = (struct run){0};
}

static void note(struct qcow2_check *k, struct run *r, uint64_t cluster, int kind, bool fixed)
{
    if (r->kind != RUN_NONE && ((int)r->kind != kind || r->fixed != fixed || r->first + r->n != cluster))
        tell(k, r);
    if (r->kind == RUN_NONE)
        *r = (struct run){.first = cluster, .kind = kind, .fixed = fixed};
    r->n++;
}

/* One cluster: whether its count in `block` was changed. Without block it is 0. */
static bool compare_one(struct qcow2_check *k, uint64_t cluster, uint8_t *block, uint64_t i, struct run *r)
{
    uint64_t said = block ? qcow2_get_count(k->h.refcount_order, block, i) : 0;
    uint32_t found = counts_get(&k->counts, cluster);
    uint64_t real = found & COUNT_MASK;
    bool fix = false;

    if (real != said && !(real == COUNT_MASK && said > real)) {
        bool low = said < real;
        k->too_low |= low;
        if (k->dry)
            return false;
        if (low)
            fix = qcow2_check_repairs(k) && real <= count_max(k);
        else
            fix = k->c->repair == DISK_REPAIR_ALL ||
                  (k->c->repair == DISK_REPAIR_LEAKS && !k->too_low && !k->c->result->corruptions);
        note(k, r, cluster, !low ? RUN_TOO_HIGH : real > count_max(k) ? RUN_TOO_MANY : RUN_TOO_LOW, fix);
        if (fix && block)
            qcow2_set_count(k->h.refcount_order, block, i, real);
        else if (fix)
            k->rebuild = true;
        if (fix)
            said = real;
    }
    if (real)
        *counts_at(&k->counts, cluster) = found | (said == 1 ? COUNT_IS_1 : said ? COUNT_IS_MORE : 0);
    if (said && k->highest < cluster)
        k->highest = cluster;
    return fix && block;
}

static int compare_block(struct qcow2_check *k, uint64_t index, struct run *r)
{
    unsigned bits = block_bits(k);
    uint64_t first = index << bits, end = first + (1ull << bits);
    bool changed = false;
    int rc = disk_read_at(k->fd, k->block, k->cluster_size, k->reftable[index]);

    if (rc)
        return rc;
    if (disk_is_zero(k->block, k->cluster_size) && counts_next(&k->counts, first) >= end)
        return 0;
    for (uint64_t c = first; c < end; c++)
        changed |= compare_one(k, c, k->block, c - first, r);
    if (!changed)
        return 0;
    k->changed = true;
    return disk_write_at(k->fd, k->block, k->cluster_size, k->reftable[index]);
}

/* Clusters up to `end` that have no block. */
static int compare_none(struct qcow2_check *k, uint64_t first, uint64_t end, struct run *r)
{
    for (uint64_t c = counts_next(&k->counts, first); c < end; c = counts_next(&k->counts, c + 1))
        if (counts_get(&k->counts, c))
            compare_one(k, c, NULL, 0, r);
    return 0;
}

static int compare(struct qcow2_check *k)
{
    unsigned bits = block_bits(k);
    struct run r = {0};
    int rc = 0;

    for (uint64_t i = 0; rc == 0 && i < k->n_reftable; i++) {
        if (k->reftable[i] && !qcow2_check_is_hole(k, k->reftable[i], k->cluster_size))
            rc = compare_block(k, i, &r);
        else
            rc = compare_none(k, i << bits, (i + 1) << bits, &r);
        if (i % 64 == 0 && disk_check_progress(k->c, 0.6 + 0.2 * (double)i / (double)k->n_reftable))
            rc = rc ? rc : -EINTR;
    }
    if (rc == 0)
        rc = compare_none(k, k->n_reftable << bits, UINT64_MAX, &r);
    tell(k, &r);
    return rc;
}

/* ---- writing them anew ---- */

/* The blocks and the table do not count any more: others are made. */
static void uncount_old(struct qcow2_check *k)
{
    for (uint64_t i = 0; i < k->n_reftable; i++)
        if (k->reftable[i])
            qcow2_check_unmark(k, k->reftable[i], k->cluster_size);
    qcow2_check_unmark(k, k->h.reftable_offset, k->n_reftable * 8);
}

/* The first block from `i` on that has anything to count; UINT64_MAX if there is none. */
static uint64_t next_block(struct qcow2_check *k, uint64_t i)
{
    unsigned bits = block_bits(k);

    for (uint64_t c = counts_next(&k->counts, i << bits); c != UINT64_MAX; c = counts_next(&k->counts, c + 1))
        if (counts_get(&k->counts, c) & COUNT_MASK)
            return c >> bits;
    return UINT64_MAX;
}

static uint64_t n_blocks(struct qcow2_check *k)
{
    uint64_t n = 0;

    for (uint64_t i = next_block(k, 0); i != UINT64_MAX; i = next_block(k, i + 1))
        n++;
    return n;
}

/* Takes room behind all that is used, until it holds the blocks for itself too. */
static int make_room(struct qcow2_check *k, uint64_t first, uint64_t *blocks, uint64_t *table)
{
    uint64_t taken = 0, needed = 1;
    bool shared;

    while (taken < needed) {
        int rc = qcow2_check_mark(k, (first + taken) * k->cluster_size, (needed - taken) * k->cluster_size,
                                  COUNT_TABLE, &shared);
        if (rc)
            return rc;
        taken = needed;
        *blocks = n_blocks(k);
        *table = (8 * (((first + taken - 1) >> block_bits(k)) + 1) + k->cluster_size - 1) / k->cluster_size;
        needed = *blocks + *table;
    }
    /* One more than needed can't be: what was needed never becomes less. */
    return 0;
}

static int write_blocks(struct qcow2_check *k, uint64_t at, uint64_t *entries)
{
    unsigned bits = block_bits(k);

    for (uint64_t i = next_block(k, 0); i != UINT64_MAX; i = next_block(k, i + 1)) {
        memset(k->block, 0, k->cluster_size);
        for (uint64_t c = 0; c < 1ull << bits; c++) {
            uint64_t count = counts_get(&k->counts, (i << bits) + c) & COUNT_MASK;
            qcow2_set_count(k->h.refcount_order, k->block, c, count > count_max(k) ? count_max(k) : count);
        }
        int rc = disk_write_at(k->fd, k->block, k->cluster_size, at);
        if (rc)
            return rc;
        entries[i] = htobe64(at);
        at += k->cluster_size;
    }
    return 0;
}

static int rebuild(struct qcow2_check *k, struct error **err)
{
    uint64_t blocks, table, first = k->highest + 1;
    uint8_t where[12];

    uncount_old(k);
    int rc = make_room(k, first, &blocks, &table);
    if (rc)
        return error_set_errno(err, -rc, "writing its refcounts anew");
    if (table * k->cluster_size > QCOW2_REFTABLE_MAX)
        return error_set(err, EFBIG,
                         "its refcounts can't be written anew: cluster %" PRIu64
                         " is in use, which is too far behind",
                         first - 1);
    cleanup_free uint64_t *entries = calloc(table, k->cluster_size);
    rc = entries ? write_blocks(k, first * k->cluster_size, entries) : -ENOMEM;
    uint64_t offset = (first + blocks) * k->cluster_size;
    if (rc == 0)
        rc = disk_write_at(k->fd, entries, table * k->cluster_size, offset);
    if (rc == 0 && fdatasync(k->fd) < 0)
        rc = -errno;
    put_be64(where, offset);
    put_be32(where + 8, (uint32_t)table);
    if (rc == 0)
        rc = disk_write_at(k->fd, where, sizeof(where), QCOW2_AT_REFTABLE_OFFSET);
    k->changed = true;
    return rc ? error_set_errno(err, -rc, "writing its refcounts anew") : 0;
}

int qcow2_check_counts(struct qcow2_check *k, struct error **err)
{
    int rc = 0;

    /* What counts as leaked may be what a damaged entry meant: so it is given back where none is. */
    if (k->c->repair == DISK_REPAIR_LEAKS) {
        k->dry = true;
        rc = compare(k);
        k->dry = false;
    }
    if (rc == 0)
        rc = compare(k);
    if (rc == -EINTR)
        return error_set(err, EINTR, "interrupted: what was repaired so far stays");
    if (rc)
        return error_set_errno(err, -rc, "reading its refcounts");
    if (k->rebuild)
        rc = rebuild(k, err);
    /* COPIED flags may be set where the counts say so, no sooner. */
    if (rc == 0 && k->changed && fdatasync(k->fd) < 0)
        rc = error_set_errno(err, errno, "writing its refcounts");
    return rc;
}

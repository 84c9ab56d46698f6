/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checking a qcow2 file: L1 and L2 tables. An entry that can't be is dropped by a repair: what it stood for
 * can't be told any more. No L2 table is written that does not look like one. See qcow2_check_priv.h.
 */
#include "disk/qcow2_check_priv.h"

#include "base/bytes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define L1_RESERVED 0x7f000000000001ffull

/* ---- L2 entries ---- */

struct entry {
    uint64_t word, subclusters;
    enum { ENTRY_NONE, ENTRY_DATA, ENTRY_PACKED } kind;
    uint64_t offset;
    uint64_t len; /* bytes of the file that it refers to */
};

static void packed_place(const struct qcow2_check *k, uint64_t word, uint64_t *offset, uint64_t *len)
{
    unsigned x = 62 - (k->h.cluster_bits - 8);

    *offset = word & ((1ull << x) - 1);
    *len = (((word & (QCOW2_COMPRESSED - 1)) >> x) + 1) * DISK_SECTOR - *offset % DISK_SECTOR;
}

/* NULL, or why it can't be. */
static const char *read_entry(const struct qcow2_check *k, const uint8_t *at, struct entry *out)
{
    bool wide = k->entry_size == 16;
    struct entry e = {.word = get_be64(at), .subclusters = wide ? get_be64(at + 8) : 0};
    uint64_t end = ALIGN_UP(k->file_end, (uint64_t)k->cluster_size);

    *out = e;
    if (e.word & QCOW2_COMPRESSED) {
        e.kind = ENTRY_PACKED;
        packed_place(k, e.word, &e.offset, &e.len);
        *out = e;
        if (e.word & QCOW2_COPIED)
            return "is compressed and may be written where it is";
        if (!k->own_data)
            return "is compressed, while the data are in another file";
        if (e.subclusters)
            return "is compressed and has subclusters";
        if (e.offset < k->cluster_size || e.offset >= k->file_end ||
            e.len >= end - e.offset + k->cluster_size)
            return "points behind the end of the file";
        return NULL;
    }
    e.offset = e.word & QCOW2_OFFSET;
    e.kind = e.offset || (!k->own_data && e.word & QCOW2_COPIED) ? ENTRY_DATA : ENTRY_NONE;
    e.len = e.kind == ENTRY_DATA ? k->cluster_size : 0;
    *out = e;
    if (e.word & QCOW2_RESERVED || (e.word & QCOW2_ZERO && (k->h.version < 3 || wide)))
        return "has bits that mean nothing";
    if (e.subclusters & e.subclusters >> 32 & 0xffffffff)
        return "has subclusters that are both data and zeros";
    if (e.kind == ENTRY_NONE && (e.word & QCOW2_COPIED || (uint32_t)e.subclusters))
        return "has data nowhere";
    if (e.offset % k->cluster_size)
        return "points to where no cluster begins";
    if (e.kind == ENTRY_DATA && k->own_data && e.offset >= k->file_end)
        return "points behind the end of the file";
    return NULL;
}

/* Takes an entry out of the table. What is behind the image should not come to light in its place. */
static void drop_entry(const struct qcow2_check *k, uint8_t *at)
{
    bool behind = k->h.backing_offset && k->h.version >= 3;

    if (k->entry_size == 16) {
        put_be64(at, 0);
        put_be64(at + 8, behind ? 0xffffffff00000000ull : 0);
    } else {
        put_be64(at, behind ? QCOW2_ZERO : 0);
    }
}

/* Reads a table; *empty if it is all zeros. 0 or -errno. */
static int read_table(struct qcow2_check *k, uint64_t offset, bool *empty)
{
    *empty = qcow2_check_is_hole(k, offset, k->cluster_size);
    return *empty ? 0 : disk_read_at(k->fd, k->table, k->cluster_size, offset);
}

/* A table of which most entries can't be is none. */
static bool looks_like_table(const struct qcow2_check *k)
{
    uint32_t used = 0, bad = 0;
    struct entry e;

    for (uint32_t i = 0; i < k->n_entries; i++) {
        const uint8_t *at = k->table + i * k->entry_size;
        if (!get_be64(at))
            continue;
        used++;
        bad += read_entry(k, at, &e) != NULL;
    }
    return bad <= used / 2;
}

/* ---- L1 ---- */

static int judge_l1_entry(struct qcow2_check *k, uint64_t entry, const char **fault)
{
    uint64_t offset = entry & QCOW2_OFFSET;
    uint32_t count = counts_get(&k->counts, offset / k->cluster_size);
    bool empty;
    int rc = 0;

    *fault = NULL;
    if (entry & L1_RESERVED)
        *fault = "has bits that mean nothing";
    else if (!qcow2_check_fits(k, offset, k->cluster_size))
        *fault = "does not point to a cluster of the file";
    else if (count & COUNT_TABLE && !(count & COUNT_L2))
        *fault = "points to another table";
    if (*fault || count & COUNT_L2)
        return 0;
    rc = read_table(k, offset, &empty);
    if (rc == 0 && !empty && !looks_like_table(k))
        *fault = "points to what is no L2 table";
    return rc;
}

static int note_l2(struct qcow2_check *k, uint64_t offset)
{
    uint32_t *count = counts_at(&k->counts, offset / k->cluster_size);

    if (!count)
        return -ENOMEM;
    if (!(*count & COUNT_L2))
        k->l2_all++;
    if ((*count & COUNT_MASK) < COUNT_MASK)
        ++*count;
    *count |= COUNT_L2 | COUNT_TABLE;
    if (k->highest < offset / k->cluster_size)
        k->highest = offset / k->cluster_size;
    return 0;
}

int qcow2_check_l1(struct qcow2_check *k, uint64_t *l1, uint64_t offset, uint32_t n, int64_t index)
{
    bool fix = qcow2_check_repairs(k);
    char whose[40] = "the disk's";
    const uint8_t none[8] = {0};

    if (index >= 0)
        snprintf(whose, sizeof(whose), "snapshot %" PRId64 "'s", index + 1);
    for (uint32_t i = 0; i < n; i++) {
        const char *fault;
        if (!l1[i])
            continue;
        if (i % 4096 == 0 && disk_check_progress(k->c, 0))
            return -EINTR;
        int rc = judge_l1_entry(k, l1[i], &fault);
        if (rc == 0 && !fault && (rc = note_l2(k, l1[i] & QCOW2_OFFSET)) == 0)
            continue;
        if (rc)
            return rc;
        if (fix) {
            rc = disk_write_at(k->fd, none, sizeof(none), offset + 8ull * i);
            if (rc)
                return rc;
            k->changed = true;
        }
        disk_check_corrupt(k->c, fix, "entry %" PRIu32 " of %s L1 table %s", i, whose, fault);
        l1[i] = 0;
    }
    return 0;
}

/* ---- L2 ---- */

/* Counts what an entry refers to, `times`. */
static int count_entry(struct qcow2_check *k, const struct entry *e, uint32_t times)
{
    uint64_t first = e->offset / k->cluster_size, last = (e->offset + e->len - 1) / k->cluster_size;

    for (uint64_t i = first; i <= last; i++) {
        uint32_t *count = counts_at(&k->counts, i);
        if (!count)
            return -ENOMEM;
        uint32_t sum = (*count & COUNT_MASK) + times;
        *count = (*count & ~COUNT_MASK) | (sum > COUNT_MASK ? COUNT_MASK : sum);
        if (k->highest < i)
            k->highest = i;
    }
    return 0;
}

static int check_l2(struct qcow2_check *k, uint64_t offset, uint32_t times)
{
    bool empty, fix = qcow2_check_repairs(k), dirty = false;
    int rc = read_table(k, offset, &empty);

    for (uint32_t i = 0; rc == 0 && !empty && i < k->n_entries; i++) {
        uint8_t *at = k->table + i * k->entry_size;
        struct entry e;
        const char *fault = read_entry(k, at, &e);
        if (!fault && e.kind == ENTRY_NONE)
            continue;
        if (!fault && k->own_data && qcow2_check_hits_table(k, e.offset, e.len))
            fault = "points to a table";
        if (!fault) {
            rc = k->own_data ? count_entry(k, &e, times) : 0;
            continue;
        }
        if (fix)
            drop_entry(k, at);
        dirty |= fix;
        disk_check_corrupt(k->c, fix,
                           "entry %" PRIu32 " of the L2 table at byte %" PRIu64 " %s (%#" PRIx64 ")", i,
                           offset, fault, e.word);
    }
    if (rc == 0 && dirty) {
        rc = disk_write_at(k->fd, k->table, k->cluster_size, offset);
        k->changed = true;
    }
    return rc;
}

int qcow2_check_l2s(struct qcow2_check *k)
{
    uint64_t cluster = 0;
    int rc = 0;

    for (; rc == 0 && (cluster = counts_next(&k->counts, cluster)) != UINT64_MAX; cluster++) {
        uint32_t count = counts_get(&k->counts, cluster);
        if (!(count & COUNT_L2))
            continue;
        rc = check_l2(k, cluster * k->cluster_size, count & COUNT_MASK);
        if (++k->l2_seen % 64 == 0 && disk_check_progress(k->c, 0.6 * (double)k->l2_seen / (double)k->l2_all))
            return -EINTR;
    }
    return rc;
}

/* ---- COPIED ---- */

/* Whether the flag must be set; where the refcount is 0, nothing says. */
static bool is_single(struct qcow2_check *k, uint64_t offset)
{
    return counts_get(&k->counts, offset / k->cluster_size) & COUNT_IS_1;
}

/* Whether flags are to be mended. */
static bool may_mend(const struct qcow2_check *k)
{
    return qcow2_check_repairs(k) || (k->c->repair == DISK_REPAIR_LEAKS && !k->c->result->corruptions);
}

static void tell_about(struct qcow2_check *k, const struct entry *e, uint64_t *next)
{
    struct disk_check_result *r = k->c->result;

    r->allocated++;
    r->packed += e->kind == ENTRY_PACKED;
    r->fragmented += e->kind == ENTRY_PACKED || (*next && e->offset != *next);
    *next = e->kind == ENTRY_DATA ? e->offset + k->cluster_size : *next;
}

/* `disk_at`: the byte of the disk that the table begins with. */
static int check_flags_of(struct qcow2_check *k, uint64_t offset, uint64_t disk_at)
{
    bool empty, dirty = false;
    uint64_t next = 0;
    int rc = read_table(k, offset, &empty);

    for (uint32_t i = 0; rc == 0 && !empty && i < k->n_entries; i++) {
        uint8_t *at = k->table + i * k->entry_size;
        struct entry e;
        if (read_entry(k, at, &e) || e.kind == ENTRY_NONE)
            continue;
        tell_about(k, &e, &next);
        if (!k->own_data && e.offset != disk_at + (uint64_t)i * k->cluster_size)
            disk_check_corrupt(k->c, false,
                               "entry %" PRIu32 " of the L2 table at byte %" PRIu64
                               " has another place in the data's file than on the disk (%#" PRIx64 ")",
                               i, offset, e.word);
        bool copied = e.word & QCOW2_COPIED;
        if (e.kind == ENTRY_PACKED || !k->own_data || copied == is_single(k, e.offset))
            continue;
        bool fix = may_mend(k);
        if (fix)
            put_be64(at, e.word ^ QCOW2_COPIED);
        dirty |= fix;
        disk_check_corrupt(k->c, fix,
                           "entry %" PRIu32 " of the L2 table at byte %" PRIu64
                           " says that its cluster is used %s",
                           i, offset, copied ? "once, which it is not" : "more than once, which it is not");
    }
    if (rc == 0 && dirty) {
        rc = disk_write_at(k->fd, k->table, k->cluster_size, offset);
        k->changed = true;
    }
    return rc;
}

int qcow2_check_flags(struct qcow2_check *k)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < k->h.l1_size; i++) {
        uint64_t offset = k->l1[i] & QCOW2_OFFSET;
        if (!offset)
            continue;
        bool copied = k->l1[i] & QCOW2_COPIED;
        if (copied != is_single(k, offset)) {
            bool fix = may_mend(k);
            uint8_t entry[8];
            put_be64(entry, k->l1[i] ^ QCOW2_COPIED);
            if (fix)
                rc = disk_write_at(k->fd, entry, sizeof(entry), k->h.l1_offset + 8ull * i);
            k->changed |= fix;
            disk_check_corrupt(k->c, fix, "entry %" PRIu32 " of the L1 table says that its table is used %s",
                               i, copied ? "once, which it is not" : "more than once, which it is not");
        }
        if (rc == 0)
            rc = check_flags_of(k, offset, (uint64_t)i * k->n_entries * k->cluster_size);
        if (i % 64 == 0 && disk_check_progress(k->c, 0.8 + 0.2 * i / k->h.l1_size))
            return -EINTR;
    }
    return rc;
}

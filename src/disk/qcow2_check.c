/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checking a qcow2 file: the order of it (qcow2_check_priv.h), and what the header refers to. */
#include "disk/qcow2_check_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of snapshots' L1 tables together: each is looked through. */
#define L1_BYTES_MAX (64ull << 30)

bool qcow2_check_fits(const struct qcow2_check *k, uint64_t offset, uint64_t len)
{
    /* The last cluster may end early. */
    return offset && offset % k->cluster_size == 0 && offset < k->file_end &&
           len <= ALIGN_UP(k->file_end, (uint64_t)k->cluster_size) - offset;
}

bool qcow2_check_is_hole(const struct qcow2_check *k, uint64_t offset, uint64_t len)
{
    off_t data = lseek(k->fd, (off_t)offset, SEEK_DATA);

    return data < 0 ? errno == ENXIO : (uint64_t)data >= offset + len;
}

int qcow2_check_mark(struct qcow2_check *k, uint64_t offset, uint64_t len, uint32_t flags, bool *shared)
{
    uint64_t first = offset / k->cluster_size, last = (offset + len - 1) / k->cluster_size;

    *shared = false;
    for (uint64_t i = first; len && i <= last; i++) {
        uint32_t *count = counts_at(&k->counts, i);
        if (!count)
            return -ENOMEM;
        *shared |= *count & COUNT_TABLE || (flags && *count & COUNT_MASK);
        if ((*count & COUNT_MASK) < COUNT_MASK)
            ++*count;
        *count |= flags;
        if (k->highest < i)
            k->highest = i;
    }
    return 0;
}

void qcow2_check_unmark(struct qcow2_check *k, uint64_t offset, uint64_t len)
{
    for (uint64_t i = offset / k->cluster_size; len && i <= (offset + len - 1) / k->cluster_size; i++) {
        uint32_t *count = counts_at(&k->counts, i);
        if (count && *count & COUNT_MASK)
            --*count;
    }
}

bool qcow2_check_hits_table(struct qcow2_check *k, uint64_t offset, uint64_t len)
{
    for (uint64_t i = offset / k->cluster_size; i <= (offset + len - 1) / k->cluster_size; i++)
        if (counts_get(&k->counts, i) & COUNT_TABLE)
            return true;
    return false;
}

static int load(struct qcow2_check *k, uint64_t offset, uint64_t n, uint64_t **out)
{
    cleanup_free uint64_t *table = calloc(n + 1, sizeof(*table));
    int rc = table ? 0 : -ENOMEM;

    if (rc == 0 && !qcow2_check_is_hole(k, offset, 8 * n))
        rc = disk_read_at(k->fd, table, n * sizeof(*table), offset);
    for (uint64_t i = 0; rc == 0 && i < n; i++)
        table[i] = be64toh(table[i]);
    if (rc == 0)
        *out = steal_ptr(table);
    return rc;
}

static int check_header(struct qcow2_check *k, struct error **err)
{
    int rc = qcow2_read_fields(k->fd, &k->h, err);

    if (rc)
        return rc;
    if (k->h.incompatible & ~QCOW2_INCOMPATIBLE_KNOWN)
        return error_set(err, EINVAL,
                         "needs features that are not known here (incompatible bits 0x%" PRIx64 ")",
                         (uint64_t)(k->h.incompatible & ~QCOW2_INCOMPATIBLE_KNOWN));
    if (k->h.refcount_order > 6)
        return error_set(err, EINVAL, "is damaged: refcounts of 2^%u bits", k->h.refcount_order);
    k->cluster_size = 1u << k->h.cluster_bits;
    k->entry_size = k->h.incompatible & QCOW2_EXTENDED_L2 ? 16 : 8;
    k->n_entries = k->cluster_size / k->entry_size;
    k->own_data = !(k->h.incompatible & QCOW2_DATA_FILE);
    k->n_clusters = ALIGN_UP(k->file_end, (uint64_t)k->cluster_size) / k->cluster_size;
    if (k->h.l1_size > QCOW2_L1_MAX / 8 ||
        (k->h.l1_size && !qcow2_check_fits(k, k->h.l1_offset, 8ull * k->h.l1_size)))
        return error_set(err, EINVAL, "is damaged beyond repair: its L1 table is not in the file");
    uint64_t reach = (uint64_t)k->cluster_size * k->n_entries;
    if (k->h.l1_size < k->h.size / reach + (k->h.size % reach != 0))
        return error_set(err, EINVAL, "is damaged beyond repair: its L1 table is too small");
    return 0;
}

/* A table that the header or an extension tells of. */
static int mark_table(struct qcow2_check *k, uint64_t offset, uint64_t len, const char *what)
{
    bool shared;

    if (!qcow2_check_fits(k, offset, len)) {
        disk_check_corrupt(k->c, false, "%s is not in the file", what);
        return 0;
    }
    int rc = qcow2_check_mark(k, offset, len, COUNT_TABLE, &shared);
    if (rc == 0 && shared)
        disk_check_corrupt(k->c, false, "%s shares bytes with another table", what);
    return rc;
}

/* Bitmaps: a directory, of each a table, of that clusters. They count while the autoclear bit says so. */
static int mark_bitmaps(struct qcow2_check *k)
{
    uint64_t at;
    uint32_t len;
    uint8_t e[24];

    if (!(k->h.autoclear & QCOW2_BITMAPS_VALID) ||
        qcow2_find_extension(k->fd, &k->h, QCOW2_EXTENSION_BITMAPS, &at, &len) != 1 || len < sizeof(e) ||
        disk_read_at(k->fd, e, sizeof(e), at))
        return 0;
    uint64_t n = get_be32(e), bytes = get_be64(e + 8), next = get_be64(e + 16), end = next + bytes;
    if (n > 65535 || bytes > QCOW2_SNAPSHOTS_BYTES) {
        disk_check_corrupt(k->c, false, "the directory of bitmaps is too large");
        return 0;
    }
    int rc = mark_table(k, next, bytes, "the directory of bitmaps");
    for (uint64_t i = 0; rc == 0 && i < n && qcow2_check_fits(k, end - bytes, bytes); i++) {
        cleanup_free uint64_t *table = NULL;
        if (end - next < sizeof(e) || disk_read_at(k->fd, e, sizeof(e), next)) {
            disk_check_corrupt(k->c, false, "the directory of bitmaps ends early");
            break;
        }
        uint64_t where = get_be64(e), size = get_be32(e + 8);
        next += ALIGN_UP(24ull + get_be16(e + 18) + get_be32(e + 20), 8);
        if (8 * size > QCOW2_L1_MAX) {
            disk_check_corrupt(k->c, false, "a bitmap's table is too large");
            continue;
        }
        rc = mark_table(k, where, 8 * size, "a bitmap's table");
        if (rc == 0 && qcow2_check_fits(k, where, 8 * size))
            rc = load(k, where, size, &table);
        for (uint64_t b = 0; rc == 0 && table && b < size; b++)
            if (table[b] & QCOW2_OFFSET)
                rc = mark_table(k, table[b] & QCOW2_OFFSET, k->cluster_size, "a bitmap's cluster");
    }
    return rc;
}

static int mark_crypt(struct qcow2_check *k)
{
    uint64_t at;
    uint32_t len;
    uint8_t e[16];

    if (qcow2_find_extension(k->fd, &k->h, QCOW2_EXTENSION_CRYPT, &at, &len) != 1 || len < sizeof(e) ||
        disk_read_at(k->fd, e, sizeof(e), at))
        return 0;
    return mark_table(k, get_be64(e), get_be64(e + 8), "the header of the encryption");
}

static int mark_snapshots(struct qcow2_check *k)
{
    uint64_t all = 0;
    char what[48];
    int rc = qcow2_read_snapshots(k->fd, &k->h, k->file_end, &k->snapshots);

    if (rc)
        return rc;
    k->kept = calloc(k->snapshots.n + 1, sizeof(*k->kept));
    if (!k->kept)
        return -ENOMEM;
    if (k->snapshots.fault)
        disk_check_corrupt(k->c, false, "the table of snapshots: %s", k->snapshots.fault);
    if (k->snapshots.bytes)
        rc = mark_table(k, k->h.snapshots_offset, k->snapshots.bytes, "the table of snapshots");
    for (uint32_t i = 0; rc == 0 && i < k->snapshots.n; i++) {
        const struct qcow2_snapshot *s = &k->snapshots.list[i];
        uint64_t bytes = 8ull * s->l1_size;
        all += bytes;
        snprintf(what, sizeof(what), "the L1 table of snapshot %" PRIu32, i + 1);
        k->kept[i] = bytes <= QCOW2_L1_MAX && all <= L1_BYTES_MAX &&
                     (!bytes || (qcow2_check_fits(k, s->l1_offset, bytes) &&
                                 !qcow2_check_hits_table(k, s->l1_offset, bytes)));
        if (!k->kept[i])
            disk_check_corrupt(k->c, false, "%s is not in the file, or lies on another table", what);
        else if (bytes)
            rc = mark_table(k, s->l1_offset, bytes, what);
    }
    return rc;
}

/* What the header itself refers to, but for the refcounts. */
static int mark_header(struct qcow2_check *k)
{
    bool shared;
    int rc = qcow2_check_mark(k, 0, k->cluster_size, COUNT_TABLE, &shared);

    if (rc == 0 && k->h.l1_size)
        rc = mark_table(k, k->h.l1_offset, 8ull * k->h.l1_size, "the L1 table");
    if (rc == 0)
        rc = mark_crypt(k);
    if (rc == 0)
        rc = mark_bitmaps(k);
    return rc ? rc : mark_snapshots(k);
}

static int walk_l1s(struct qcow2_check *k)
{
    int rc = load(k, k->h.l1_offset, k->h.l1_size, &k->l1);

    if (rc == 0)
        rc = qcow2_check_l1(k, k->l1, k->h.l1_offset, k->h.l1_size, -1);
    for (uint32_t i = 0; rc == 0 && i < k->snapshots.n; i++) {
        const struct qcow2_snapshot *s = &k->snapshots.list[i];
        cleanup_free uint64_t *l1 = NULL;
        if (!k->kept[i] || qcow2_check_is_hole(k, s->l1_offset, 8ull * s->l1_size))
            continue;
        rc = load(k, s->l1_offset, s->l1_size, &l1);
        if (rc == 0)
            rc = qcow2_check_l1(k, l1, s->l1_offset, s->l1_size, i);
    }
    return rc;
}

/* The bits that an unclean end and a damage have left. They go when there is nothing wrong any more. */
static int check_marks(struct qcow2_check *k)
{
    uint64_t marks = k->h.incompatible & (QCOW2_DIRTY | QCOW2_CORRUPT);
    bool right = k->c->repair != DISK_REPAIR_NONE && !k->c->result->corruptions;
    uint8_t bits[8];

    if (!marks)
        return 0;
    if (right) {
        put_be64(bits, k->h.incompatible & ~marks);
        int rc = fdatasync(k->fd) < 0 ? -errno : disk_write_at(k->fd, bits, 8, QCOW2_AT_INCOMPATIBLE);
        if (rc)
            return rc;
        k->changed = true;
    }
    if (marks & QCOW2_DIRTY)
        disk_check_corrupt(k->c, right, "it is marked as not closed by its last user");
    if (marks & QCOW2_CORRUPT)
        disk_check_corrupt(k->c, right, "it is marked as corrupt");
    return 0;
}

static int check(struct qcow2_check *k, struct error **err)
{
    int rc = counts_init(&k->counts, k->n_clusters);

    k->table = malloc(k->cluster_size);
    k->block = malloc(k->cluster_size);
    if (rc == 0 && (!k->table || !k->block))
        rc = -ENOMEM;
    if (rc == 0)
        rc = mark_header(k);
    if (rc == 0)
        rc = walk_l1s(k);
    if (rc == 0)
        rc = qcow2_check_l2s(k);
    if (rc == 0)
        rc = qcow2_check_blocks(k);
    if (rc == 0) {
        rc = qcow2_check_counts(k, err);
        if (rc)
            return rc;
        rc = qcow2_check_flags(k);
    }
    if (rc == 0)
        rc = check_marks(k);
    if (rc == 0 && k->changed && fdatasync(k->fd) < 0)
        rc = -errno;
    if (rc == -ENOMEM)
        return error_set(err, ENOMEM, "checking it takes more memory than %llu MiB", CHECK_MEMORY >> 20);
    if (rc == -EINTR)
        return error_set(err, EINTR, "interrupted: what was repaired so far stays");
    return rc ? error_set_errno(err, -rc, "checking its tables") : 0;
}

int qcow2_check(struct disk_check *c, struct error **err)
{
    struct qcow2_check k = {.c = c, .fd = c->fd};
    off_t end = lseek(c->fd, 0, SEEK_END);
    int rc = end < 0 ? error_set_errno(err, errno, "finding out its length") : 0;

    if (rc)
        return rc;
    k.file_end = (uint64_t)end;
    rc = check_header(&k, err);
    /* With lazy refcounts, counts may be too low after an unclean end. */
    if (rc == 0 && k.h.incompatible & QCOW2_DIRTY && c->repair == DISK_REPAIR_LEAKS)
        c->repair = DISK_REPAIR_ALL;
    if (rc == 0)
        rc = check(&k, err);
    c->result->unit = k.cluster_size;
    c->result->units = k.cluster_size ? k.h.size / k.cluster_size + (k.h.size % k.cluster_size != 0) : 0;
    c->result->end = (k.highest + 1) * k.cluster_size;
    counts_free(&k.counts);
    qcow2_free_snapshots(&k.snapshots);
    free(k.kept);
    free(k.l1);
    free(k.reftable);
    free(k.table);
    free(k.block);
    return rc;
}

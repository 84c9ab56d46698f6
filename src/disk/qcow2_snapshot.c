/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Internal snapshots of a qcow2 file: an L1 table each, whose L2 tables and clusters are the disk's too until
 * that changes them. A count tells how many of the L1 tables lead to a cluster. The order of what is written:
 *
 *   create   counts go up, the disk's COPIED flags go; then the header tells of the new table of snapshots
 *   apply    counts go up, the new L1 table is written; then the header tells of it; then counts go down
 *   delete   the header tells of a table without it; then counts go down, and COPIED flags come back
 *
 * with a sync at each semicolon; so an end at any moment leaves the state before or after, where at most
 * clusters count as used that are not, and flags lack. All at once, in the disk's thread.
 */
#include "disk/qcow2_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NAME_MAX_BYTES 1023u

static struct qcow2 *qcow2_of(struct disk *disk)
{
    return container_of(disk, struct qcow2, disk);
}

/* ---- what L1 tables lead to ---- */

/* Done with each piece of the file that a table leads to: 0 or -errno. */
typedef int visit_fn(struct qcow2 *q, uint64_t offset, uint64_t len);

static bool is_table_in_file(const struct qcow2 *q, uint64_t offset)
{
    return !qcow2_in_cluster(q, offset) && offset < q->file_end;
}

/* With `share`, no entry says any more that its cluster is used here only. */
static int visit_table(struct qcow2 *q, uint64_t offset, visit_fn *visit, bool share)
{
    struct qcow2_table *table;
    bool changed = false;
    int rc = is_table_in_file(q, offset) ? qcow2_cache_get(q, &q->l2, offset, &table) : qcow2_damaged(q);

    for (uint32_t i = 0; rc == 0 && i < 1u << q->table_bits; i++) {
        uint64_t entry = get_be64(qcow2_entry(q, table, i)), at, len;
        enum qcow2_kind kind;
        if (!qcow2_read_entry(q, entry, &kind, &at))
            return qcow2_damaged(q);
        if (qcow2_entry_place(q, entry, &at, &len))
            rc = visit(q, at, len);
    }
    for (uint32_t i = 0; rc == 0 && share && i < 1u << q->table_bits; i++) {
        uint8_t *entry = qcow2_entry(q, table, i);
        if (get_be64(entry) & QCOW2_COMPRESSED || !(get_be64(entry) & QCOW2_COPIED))
            continue;
        put_be64(entry, get_be64(entry) & ~QCOW2_COPIED);
        changed = true;
    }
    if (changed)
        qcow2_cache_mark(&q->l2, table);
    return rc;
}

static int visit_all(struct qcow2 *q, const uint64_t *l1, uint32_t n, visit_fn *visit, bool share)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        uint64_t offset = l1[i] & QCOW2_OFFSET;
        if (!offset)
            continue;
        rc = visit_table(q, offset, visit, share);
        if (rc == 0)
            rc = visit(q, offset, q->cluster_size);
    }
    return rc;
}

/* One L1 table more leads to all that this one leads to. -ERANGE: not so many can be counted. */
static int share_all(struct qcow2 *q, const uint64_t *l1, uint32_t n)
{
    int rc = visit_all(q, l1, n, qcow2_can_raise, false);

    return rc ? rc : visit_all(q, l1, n, qcow2_raise, true);
}

/* One L1 table less; then COPIED flags of the disk's own where they are true again. */
static int unshare_all(struct qcow2 *q, const uint64_t *l1, uint32_t n)
{
    int rc = visit_all(q, l1, n, qcow2_lower, false);

    /* Some of the tables are gone. */
    qcow2_cache_empty(&q->l2);
    return rc;
}

static int mark_singles(struct qcow2 *q)
{
    uint64_t count;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < q->l1_entries; i++) {
        uint64_t offset = q->l1[i] & QCOW2_OFFSET;
        struct qcow2_table *table;
        bool changed = false;
        if (!offset)
            continue;
        rc = qcow2_refcount(q, offset >> q->cluster_bits, &count);
        if (rc == 0 && count == 1 && !(q->l1[i] & QCOW2_COPIED)) {
            q->l1[i] |= QCOW2_COPIED;
            qcow2_l1_changed(q, i);
        }
        if (rc == 0)
            rc = is_table_in_file(q, offset) ? qcow2_cache_get(q, &q->l2, offset, &table) : qcow2_damaged(q);
        for (uint32_t k = 0; rc == 0 && k < 1u << q->table_bits; k++) {
            uint8_t *entry = qcow2_entry(q, table, k);
            uint64_t word = get_be64(entry);
            if (word & (QCOW2_COMPRESSED | QCOW2_COPIED) || !(word & QCOW2_OFFSET))
                continue;
            rc = qcow2_refcount(q, (word & QCOW2_OFFSET) >> q->cluster_bits, &count);
            if (rc || count != 1)
                continue;
            put_be64(entry, word | QCOW2_COPIED);
            changed = true;
        }
        if (rc == 0 && changed)
            qcow2_cache_mark(&q->l2, table);
    }
    return rc;
}

/* With the file system full, say, all is as it was: what was shared is not, and the new L1 table goes. */
static void take_back(struct qcow2 *q, const uint64_t *l1, uint32_t n, uint64_t new_l1, uint32_t room)
{
    if (new_l1)
        qcow2_untake_clusters(q, new_l1, (8ull * room + q->cluster_size - 1) >> q->cluster_bits);
    if (!q->damaged && qcow2_write_tables(q) == 0 && unshare_all(q, l1, n) == 0)
        mark_singles(q);
}

/* ---- the table of snapshots ---- */

static int read_table(struct qcow2 *q, struct qcow2_header *header, struct qcow2_snapshots *out,
                      struct error **err)
{
    int rc = qcow2_read_fields(q->disk.fd, header, err);

    if (rc)
        return rc;
    rc = qcow2_read_snapshots(q->disk.fd, header, q->file_end, out);
    if (rc)
        return error_set_errno(err, -rc, "reading its snapshots");
    if (!out->fault)
        return 0;
    error_set(err, EINVAL, "is damaged: the table of its snapshots: %s", out->fault);
    qcow2_free_snapshots(out);
    return -EINVAL;
}

/* Writes another table, and has the header tell of it; the old one is given back. *switched: the header may
 * tell of the new one, also if this fails. */
static int write_table(struct qcow2 *q, const struct qcow2_header *header, uint64_t old_bytes,
                       const struct qcow2_snapshots *s, bool *switched)
{
    uint64_t bytes, offset = 0;
    uint8_t where[12];
    cleanup_free uint8_t *packed = qcow2_pack_snapshots(s, &bytes);
    int rc = packed ? 0 : -ENOMEM;

    if (rc == 0 && bytes > QCOW2_SNAPSHOTS_BYTES)
        rc = -EFBIG;
    if (rc == 0 && bytes)
        rc = qcow2_take_run(q, (bytes + q->cluster_size - 1) >> q->cluster_bits, &offset);
    if (rc == 0 && bytes)
        rc = disk_write_at(q->disk.fd, packed, bytes, offset);
    if (rc == 0)
        rc = qcow2_write_tables(q);
    if (rc == 0)
        rc = qcow2_sync(q);
    put_be32(where, s->n);
    put_be64(where + 4, offset);
    *switched = rc == 0;
    if (rc && offset)
        qcow2_untake_clusters(q, offset, (bytes + q->cluster_size - 1) >> q->cluster_bits);
    if (rc == 0)
        rc = disk_write_at(q->disk.fd, where, sizeof(where), QCOW2_AT_SNAPSHOTS);
    if (rc == 0)
        rc = qcow2_sync(q);
    if (rc == 0 && old_bytes)
        rc = qcow2_lower(q, header->snapshots_offset, old_bytes);
    return rc;
}

static int find(const struct qcow2_snapshots *s, const char *which, uint32_t *out, struct error **err)
{
    for (unsigned by_name = 0; by_name < 2; by_name++) {
        for (uint32_t i = 0; i < s->n; i++) {
            if (strcmp(by_name ? s->list[i].name : s->list[i].id, which) == 0) {
                *out = i;
                return 0;
            }
        }
    }
    return error_set(err, ENOENT, "has no snapshot '%s'", which);
}

/* The L1 table of a snapshot, as numbers. */
static int load_l1(struct qcow2 *q, const struct qcow2_snapshot *s, uint32_t room, uint64_t **out)
{
    cleanup_free uint64_t *l1 = NULL;

    if (s->l1_size > QCOW2_L1_MAX / 8 ||
        (s->l1_size && (!is_table_in_file(q, s->l1_offset) || !s->l1_offset ||
                        8ull * s->l1_size > q->file_end - s->l1_offset)))
        return qcow2_damaged(q);
    if (room < s->l1_size)
        room = s->l1_size;
    l1 = calloc(room + 1u, sizeof(*l1));
    int rc = l1 ? disk_read_at(q->disk.fd, l1, 8ull * s->l1_size, s->l1_offset) : -ENOMEM;
    for (uint32_t i = 0; rc == 0 && i < s->l1_size; i++)
        l1[i] = be64toh(l1[i]) & ~QCOW2_COPIED;
    if (rc == 0)
        *out = steal_ptr(l1);
    return rc;
}

/* ---- the operations ---- */

static int list(struct disk *disk, struct disk_snapshots *out, struct error **err)
{
    struct qcow2_header header;
    struct qcow2_snapshots s;
    int rc = read_table(qcow2_of(disk), &header, &s, err);

    if (rc)
        return rc;
    out->list = calloc(s.n + 1u, sizeof(*out->list));
    out->n = 0;
    for (; out->list && out->n < s.n; out->n++) {
        struct qcow2_snapshot *from = &s.list[out->n];
        out->list[out->n] = (struct disk_snapshot){.id = steal_ptr(from->id),
                                                   .name = steal_ptr(from->name),
                                                   .vm_state = from->vm_state,
                                                   .seconds = from->seconds,
                                                   .nanoseconds = from->nanoseconds,
                                                   .vm_clock = from->vm_clock,
                                                   .disk_size = from->disk_size};
    }
    qcow2_free_snapshots(&s);
    return out->list ? 0 : error_set_errno(err, ENOMEM, "reading its snapshots");
}

/* Ids are numbers, each one more than any before. */
static int add_row(const struct qcow2 *q, struct qcow2_snapshots *s, const char *name, uint64_t l1_offset)
{
    struct qcow2_snapshot *list = realloc(s->list, (s->n + 1u) * sizeof(*list));
    unsigned long long highest = 0;
    struct timespec now;

    if (!list)
        return -ENOMEM;
    s->list = list;
    for (uint32_t i = 0; i < s->n; i++) {
        unsigned long long id = strtoull(list[i].id, NULL, 10);
        if (highest < id && id < UINT64_MAX)
            highest = id;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    struct qcow2_snapshot *row = &list[s->n++];
    *row = (struct qcow2_snapshot){.l1_offset = l1_offset,
                                   .l1_size = q->l1_entries,
                                   .seconds = (uint32_t)now.tv_sec,
                                   .nanoseconds = (uint32_t)now.tv_nsec,
                                   .disk_size = q->disk.size,
                                   .icount = UINT64_MAX,
                                   .has_icount = true,
                                   .name = strdup(name)};
    if (asprintf(&row->id, "%llu", highest + 1) < 0)
        row->id = NULL;
    return row->id && row->name ? 0 : -ENOMEM;
}

static int do_create(struct qcow2 *q, const struct qcow2_header *header, struct qcow2_snapshots *s,
                     const char *name)
{
    uint64_t before = s->bytes, l1_offset = 0;
    bool switched = false;
    int rc = share_all(q, q->l1, q->l1_entries);

    if (rc)
        return rc;
    for (uint32_t i = 0; rc == 0 && i < q->l1_entries; i++) {
        if (!(q->l1[i] & QCOW2_COPIED))
            continue;
        q->l1[i] &= ~QCOW2_COPIED;
        qcow2_l1_changed(q, i);
    }
    if (rc == 0)
        rc = qcow2_write_new_l1(q, q->l1, q->l1_entries, q->l1_entries, &l1_offset);
    if (rc == 0)
        rc = add_row(q, s, name, l1_offset);
    if (rc == 0)
        rc = write_table(q, header, before, s, &switched);
    if (rc && !switched)
        take_back(q, q->l1, q->l1_entries, l1_offset, q->l1_entries);
    return rc;
}

/* What is to be done before and after each change. */
static int begin(struct qcow2 *q, struct qcow2_header *header, struct qcow2_snapshots *s, struct error **err)
{
    int rc = q->damaged ? -EIO : qcow2_flush_to_close(q);

    if (rc)
        return error_set_errno(err, -rc, "writing it");
    if (q->incompatible & QCOW2_DATA_FILE)
        return error_set(err, EINVAL, "has its data in another file, which has no snapshots");
    return read_table(q, header, s, err);
}

static int end(struct qcow2 *q, int rc, struct error **err)
{
    if (rc == 0)
        rc = qcow2_flush_to_close(q);
    if (rc == -ERANGE)
        return error_set(err, ERANGE,
                         "can't count so many snapshots of a cluster: its refcounts have %u bits",
                         1u << q->refcount_order);
    return rc ? error_set_errno(err, -rc, "writing it") : 0;
}

static int create(struct disk *disk, const char *name, struct error **err)
{
    struct qcow2 *q = qcow2_of(disk);
    struct qcow2_header header;
    struct qcow2_snapshots s;
    int rc = begin(q, &header, &s, err);

    if (rc)
        return rc;
    if (!*name || strlen(name) > NAME_MAX_BYTES)
        rc = error_set(err, EINVAL, "a snapshot's name has 1 to %u bytes", NAME_MAX_BYTES);
    else if (s.n >= QCOW2_SNAPSHOTS_MAX)
        rc = error_set(err, EINVAL, "has %u snapshots, and room for no more", s.n);
    for (uint32_t i = 0; rc == 0 && i < s.n; i++)
        if (strcmp(s.list[i].name, name) == 0)
            rc = error_set(err, EEXIST, "has a snapshot '%s' already", name);
    if (rc == 0)
        rc = end(q, do_create(q, &header, &s, name), err);
    qcow2_free_snapshots(&s);
    return rc;
}

static int do_apply(struct qcow2 *q, const struct qcow2_snapshot *s)
{
    cleanup_free uint64_t *old = NULL, *l1 = NULL;
    uint64_t reach = 1ull << (q->cluster_bits + q->table_bits), offset = 0;
    uint32_t needed = (uint32_t)(s->disk_size / reach + (s->disk_size % reach != 0)), n_old = q->l1_entries;
    uint64_t old_offset = q->l1_offset;
    int rc = load_l1(q, s, needed, &l1);

    if (needed < s->l1_size)
        needed = s->l1_size;
    if (rc == 0)
        rc = share_all(q, l1, s->l1_size);
    if (rc)
        return rc;
    rc = qcow2_write_new_l1(q, l1, needed, needed, &offset);
    if (rc == 0)
        rc = qcow2_write_tables(q);
    if (rc == 0)
        rc = qcow2_sync(q);
    if (rc)
        take_back(q, l1, s->l1_size, offset, needed);
    if (rc == 0)
        rc = qcow2_switch_l1(q, s->disk_size, offset, needed);
    if (rc)
        return rc;
    old = q->l1;
    q->l1 = steal_ptr(l1);
    rc = unshare_all(q, old, n_old);
    if (rc == 0 && n_old)
        rc = qcow2_lower(q, old_offset, 8ull * n_old);
    return rc;
}

static int apply(struct disk *disk, const char *which, struct error **err)
{
    struct qcow2 *q = qcow2_of(disk);
    struct qcow2_header header;
    struct qcow2_snapshots s;
    uint32_t i = 0;
    int rc = begin(q, &header, &s, err);

    if (rc)
        return rc;
    rc = find(&s, which, &i, err);
    if (rc == 0 && (!s.list[i].disk_size || s.list[i].disk_size % DISK_SECTOR ||
                    s.list[i].disk_size / q->cluster_size >> q->table_bits > QCOW2_L1_MAX / 8))
        rc = error_set(err, EINVAL, "is damaged: snapshot '%s' has a size of %" PRIu64 " bytes", which,
                       s.list[i].disk_size);
    if (rc == 0) {
        rc = qcow2_begin_change(q);
        if (rc == 0)
            rc = qcow2_begin_recording(q, true);
        if (rc == 0)
            rc = do_apply(q, &s.list[i]);
        qcow2_resize_bitmaps(q);
        qcow2_record(q, 0, q->disk.size);
        rc = end(q, rc, err);
    }
    qcow2_free_snapshots(&s);
    return rc;
}

static int do_remove(struct qcow2 *q, const struct qcow2_header *header, struct qcow2_snapshots *s,
                     uint32_t i)
{
    struct qcow2_snapshot gone = s->list[i];
    cleanup_free uint64_t *l1 = NULL;
    bool switched;
    int rc = load_l1(q, &gone, 0, &l1);

    if (rc)
        return rc;
    memmove(&s->list[i], &s->list[i + 1], (s->n - i - 1) * sizeof(*s->list));
    s->n--;
    rc = write_table(q, header, s->bytes, s, &switched);
    s->list[s->n++] = gone; /* to be freed with the others */
    if (rc == 0)
        rc = unshare_all(q, l1, gone.l1_size);
    if (rc == 0 && gone.l1_size)
        rc = qcow2_lower(q, gone.l1_offset, 8ull * gone.l1_size);
    if (rc == 0)
        rc = qcow2_write_tables(q);
    if (rc == 0)
        rc = qcow2_sync(q);
    return rc ? rc : mark_singles(q);
}

static int remove_snapshot(struct disk *disk, const char *which, struct error **err)
{
    struct qcow2 *q = qcow2_of(disk);
    struct qcow2_header header;
    struct qcow2_snapshots s;
    uint32_t i = 0;
    int rc = begin(q, &header, &s, err);

    if (rc)
        return rc;
    rc = find(&s, which, &i, err);
    if (rc == 0)
        rc = end(q, do_remove(q, &header, &s, i), err);
    qcow2_free_snapshots(&s);
    return rc;
}

const struct disk_snapshot_ops qcow2_snapshot_ops = {
    .list = list, .create = create, .apply = apply, .remove = remove_snapshot};

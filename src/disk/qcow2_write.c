/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writing, zeroing and discarding, a step at a time: a step is what one run of L2 entries has in common. What
 * is written where it is goes to io_uring; what needs clusters first is written at once, so that the L2 table
 * in memory never points to what is not in the file. The disk's thread; no locks.
 */
#include "disk/qcow2_priv.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What a step may give back at most, but for more than one cluster: an L2 table, the refcount table, a
 * cluster. */
#define STEP_RELEASES 3u

#define ZEROS (64u << 10)
static const uint8_t zeros[ZEROS];

/* Room for the pieces of what one step writes: a buffer's, what is around it, or zeros for a whole cluster.
 */
#define PIECES_MAX 1024u

struct pieces {
    struct iovec iov[PIECES_MAX];
    unsigned n;
};

static void add_piece(struct pieces *p, const void *bytes, size_t len)
{
    if (len)
        p->iov[p->n++] = (struct iovec){.iov_base = (void *)(uintptr_t)bytes, .iov_len = len};
}

/* At most one cluster. */
static void add_zeros(struct pieces *p, uint64_t len)
{
    for (; len; len -= len < ZEROS ? len : ZEROS)
        add_piece(p, zeros, len < ZEROS ? len : ZEROS);
}

/* The request's own bytes from byte `at` of the disk on; zeros where it has none. */
static void add_data(struct pieces *p, const struct disk_request *r, uint64_t at, uint64_t len)
{
    if (r->kind == DISK_WRITE)
        p->n += disk_iov_slice(r->iov, r->n_iov, at - r->offset, len, p->iov + p->n);
    else
        add_zeros(p, len);
}

static uint64_t left(const struct disk_request *r)
{
    return r->offset + r->length - r->at;
}

/* Changes of tables wait while a flush is between its stages, and when there is no room to remember what they
 * give back. 1: it must; 0; or -errno. */
static int must_wait(struct qcow2 *q)
{
    int rc = q->flush_error;

    if (q->stage != QCOW2_IDLE)
        return 1;
    if (qcow2_can_release(q, STEP_RELEASES))
        return 0;
    /* The flush that was to help has failed. The next one to come tries again. */
    q->flush_error = 0;
    if (rc)
        return rc;
    qcow2_flush_soon(q);
    return 1;
}

/* What the clusters, or subclusters, of `unit` bytes around [at, at + len) have to keep: before it in the
 * first half of q->copy, after it in the second. */
static int read_around(struct qcow2 *q, uint64_t at, uint64_t len, uint32_t unit, uint32_t *head,
                       uint32_t *tail)
{
    uint64_t end = at + len, disk_end = q->disk.size;
    uint64_t in_end = ALIGN_UP(end, (uint64_t)unit);
    int rc = 0;

    /* What is a raw image of the disk ends where that does. */
    if (q->data_raw && in_end > disk_end)
        in_end = disk_end;
    *head = (uint32_t)(at & (unit - 1));
    *tail = (uint32_t)(in_end - end);
    if (*head)
        rc = qcow2_read(&q->disk, at - *head, q->copy, *head);
    if (rc || !*tail)
        return rc;
    uint8_t *after = q->copy + q->cluster_size;
    uint64_t there = end >= disk_end ? 0 : in_end < disk_end ? *tail : disk_end - end;
    memset(after + there, 0, *tail - there);
    return there ? qcow2_read(&q->disk, end, after, there) : 0;
}

static bool all_zero(const uint8_t *p, size_t n)
{
    return !n || (!p[0] && memcmp(p, p + 1, n - 1) == 0);
}

/* Writes [at, at + len) of the request to the clusters at `host`, with what is around it in its units. */
static int fill_clusters(struct qcow2 *q, const struct disk_request *r, uint64_t len, uint32_t unit,
                         uint64_t host, bool fresh)
{
    struct pieces p;
    uint32_t head, tail;
    int rc = read_around(q, r->at, len, unit, &head, &tail);

    if (rc)
        return rc;
    p.n = 0;
    /* What was never written reads as zeros already, and need not take space. */
    fresh = fresh && !q->encrypted;
    bool skip_head = fresh && all_zero(q->copy, head);
    bool skip_tail = fresh && all_zero(q->copy + q->cluster_size, tail);
    if (!skip_head)
        add_piece(&p, q->copy, head);
    add_data(&p, r, r->at, len);
    if (!skip_tail)
        add_piece(&p, q->copy + q->cluster_size, tail);
    return qcow2_write_data(q, p.iov, p.n, host + qcow2_in_cluster(q, r->at) - (skip_head ? 0 : head));
}

/* Makes `n` entries from `index` on point to the clusters at `host`, of which the units around [at, at + len)
 * are data. */
static void set_entries(struct qcow2 *q, struct qcow2_table *table, uint32_t index, uint64_t n, uint64_t host,
                        uint64_t at, uint64_t len, uint32_t unit)
{
    uint64_t from = at & ~(uint64_t)(unit - 1), to = ALIGN_UP(at + len, (uint64_t)unit);
    uint64_t cluster = at - qcow2_in_cluster(q, at);

    for (uint64_t i = 0; i < n; i++, host += q->cluster_size, cluster += q->cluster_size) {
        uint8_t *entry = qcow2_entry(q, table, index + (uint32_t)i);
        uint64_t old = get_be64(entry);
        /* Zeros may have kept their cluster, which is the one then. */
        if ((old & QCOW2_COMPRESSED) || (old & QCOW2_OFFSET) != host)
            qcow2_release_entry(q, old);
        put_be64(entry, host | QCOW2_COPIED);
        if (qcow2_is_wide(q)) {
            uint64_t end = cluster + q->cluster_size;
            qcow2_set_subclusters(q, entry, from > cluster ? from - cluster : 0,
                                  (to < end ? to : end) - cluster, false);
        }
    }
    qcow2_cache_mark(&q->l2, table);
}

/* How many clusters from the one at r->at on are to be taken at once: all alike in that none can be written
 * where it is, and as many as the freed ones can be remembered of. */
static uint64_t clusters_wanted(const struct qcow2 *q, const struct disk_request *r,
                                const struct qcow2_extent *e)
{
    uint64_t end = r->at + (e->length < left(r) ? e->length : left(r));
    uint64_t n = ((end - 1) >> q->cluster_bits) - (r->at >> q->cluster_bits) + 1;
    uint64_t room = QCOW2_FREED_MAX - q->n_freed - (STEP_RELEASES - 1);

    /* Zeros are put together from pieces of a small buffer. */
    if (r->kind != DISK_WRITE)
        n = 1;
    return n < room ? n : room;
}

/* Whether there is a cluster that may be written where it is, though it has no data here: zeros, or a
 * subcluster, that have kept it. */
static bool has_kept(const struct qcow2_extent *e)
{
    return e->own_table && e->entry & QCOW2_COPIED && e->entry & QCOW2_OFFSET &&
           !(e->entry & QCOW2_COMPRESSED);
}

static int write_to_new(struct qcow2 *q, struct disk_request *r, const struct qcow2_extent *e)
{
    struct qcow2_table *table;
    uint32_t index;
    uint64_t host, n = clusters_wanted(q, r, e);
    bool fresh = false, kept = qcow2_is_apart(q) || has_kept(e);
    /* What is shared, or packed, is copied whole. */
    bool alone = qcow2_is_wide(q) && (kept || !(e->entry & (QCOW2_OFFSET | QCOW2_COMPRESSED)));
    uint32_t unit = alone ? qcow2_subcluster_size(q) : q->cluster_size;
    int rc = qcow2_writable_table(q, r->at, &table, &index);

    if (rc)
        return rc;
    if (qcow2_is_apart(q)) {
        host = ALIGN_DOWN(r->at, (uint64_t)q->cluster_size);
    } else if (kept) {
        host = e->entry & QCOW2_OFFSET;
        n = 1;
    } else {
        rc = qcow2_take_clusters(q, n, &host, &n, &fresh);
    }
    if (rc)
        return rc;
    uint64_t len = (n << q->cluster_bits) - qcow2_in_cluster(q, r->at);
    if (len > left(r))
        len = left(r);
    /* Behind what is alike there may be data, or more zeros that need none. */
    if ((kept || r->kind != DISK_WRITE) && len > e->length)
        len = e->length;
    rc = fill_clusters(q, r, len, unit, host, fresh);
    /* Reading what is around may have moved other tables through the cache. */
    if (rc == 0)
        rc = qcow2_writable_table(q, r->at, &table, &index);
    if (rc) {
        if (!kept)
            qcow2_untake_clusters(q, host, n);
        return rc;
    }
    set_entries(q, table, index, n, host, r->at, len, unit);
    r->at += len;
    return 1;
}

static int write_in_place(struct qcow2 *q, struct disk_request *r, const struct qcow2_extent *e)
{
    struct pieces p = {.n = 0};
    uint64_t len = e->length < left(r) ? e->length : left(r);

    if (r->kind != DISK_WRITE && len > q->cluster_size)
        len = q->cluster_size;
    if (q->encrypted && len > QCOW2_CRYPT_PIECE)
        len = QCOW2_CRYPT_PIECE;
    add_data(&p, r, r->at, len);
    int rc = qcow2_start_io(q, r, DISK_IO_WRITE, e->offset, len, p.iov, p.n);
    if (rc)
        return rc;
    r->at += len;
    return 1;
}

static int write_extent(struct qcow2 *q, struct disk_request *r, const struct qcow2_extent *e)
{
    if (e->in_place)
        return write_in_place(q, r, e);
    int rc = must_wait(q);
    if (rc)
        return rc < 0 ? rc : 0;
    return write_to_new(q, r, e);
}

int qcow2_write_step(struct qcow2 *q, struct disk_request *r)
{
    struct qcow2_extent e;
    int rc = qcow2_map(q, r->at, left(r), &e);

    return rc ? rc : write_extent(q, r, &e);
}

/* ---- zeros ---- */

static bool reads_as_zeros(const struct qcow2 *q, const struct qcow2_extent *e, uint64_t at)
{
    return e->kind == QCOW2_KIND_ZEROS ||
           (e->kind == QCOW2_KIND_NONE && (!q->disk.backing || at >= q->disk.backing->size));
}

/* Changes the entry of one whole cluster: it says that there are zeros, or nothing. */
static int set_entry(struct qcow2 *q, struct disk_request *r, bool say_zeros, bool keep_cluster)
{
    uint64_t value = say_zeros && !qcow2_is_wide(q) ? QCOW2_ZERO : 0;
    struct qcow2_table *table;
    uint32_t index;
    int rc = qcow2_writable_table(q, r->at, &table, &index);

    if (rc)
        return rc;
    uint8_t *entry = qcow2_entry(q, table, index);
    uint64_t old = get_be64(entry);
    if (keep_cluster)
        value |= old;
    else
        qcow2_release_entry(q, old);
    if (!keep_cluster && qcow2_is_apart(q) && old & QCOW2_COPIED)
        qcow2_punch_data(q, r->at);
    put_be64(entry, value);
    if (qcow2_is_wide(q))
        put_be64(entry + 8, say_zeros ? QCOW2_ALL_ZEROS : 0);
    qcow2_cache_mark(&q->l2, table);
    return 0;
}

/* Whole subclusters in one cluster, which is not packed. */
static int zero_subclusters(struct qcow2 *q, struct disk_request *r, uint64_t len)
{
    uint64_t from = qcow2_in_cluster(q, r->at);
    struct qcow2_table *table;
    uint32_t index;
    int rc = must_wait(q);

    if (rc)
        return rc < 0 ? rc : 0;
    rc = qcow2_writable_table(q, r->at, &table, &index);
    if (rc)
        return rc;
    qcow2_set_subclusters(q, qcow2_entry(q, table, index), from,
                          ALIGN_UP(from + len, (uint64_t)qcow2_subcluster_size(q)), true);
    qcow2_cache_mark(&q->l2, table);
    r->at += len;
    return 1;
}

/* Of `len` bytes at r->at, those that are whole subclusters; the last one of the disk may end early. */
static uint64_t whole_subclusters(const struct qcow2 *q, const struct disk_request *r, uint64_t len)
{
    uint64_t size = qcow2_subcluster_size(q);

    if (r->at & (size - 1))
        return 0;
    return r->at + len == q->disk.size ? len : ALIGN_DOWN(len, size);
}

/* How far the subcluster at `at` goes on, of `len` bytes. */
static uint64_t in_subcluster(const struct qcow2 *q, uint64_t at, uint64_t len)
{
    uint64_t size = qcow2_subcluster_size(q), rest = size - (at & (size - 1));

    return len < rest ? len : rest;
}

/* How much of the request lies in the cluster at r->at, and whether that is all of it that is on the disk. */
static uint64_t in_this_cluster(const struct qcow2 *q, const struct disk_request *r, bool *whole)
{
    uint64_t end = ALIGN_DOWN(r->at, (uint64_t)q->cluster_size) + q->cluster_size;

    if (end > q->disk.size)
        end = q->disk.size;
    uint64_t len = end - r->at < left(r) ? end - r->at : left(r);
    *whole = !qcow2_in_cluster(q, r->at) && r->at + len == end;
    return len;
}

/* The further file shows the same as the image, so it does what is asked for. */
static int hand_on(struct qcow2 *q, struct disk_request *r, const struct qcow2_extent *e)
{
    uint64_t len = e->length < left(r) ? e->length : left(r);
    int rc = qcow2_hand_on(q, r, len);

    r->at += len;
    return rc ? rc : 1;
}

int qcow2_zero_step(struct qcow2 *q, struct disk_request *r)
{
    struct qcow2_extent e;
    bool whole;
    uint64_t len = in_this_cluster(q, r, &whole);
    int rc = qcow2_map(q, r->at, left(r), &e);

    if (rc)
        return rc;
    if (reads_as_zeros(q, &e, r->at)) {
        bool beyond = e.kind == QCOW2_KIND_ZEROS || !q->disk.backing;
        r->at += beyond || e.length < len ? e.length : len;
        return 1;
    }
    if (q->data_raw && e.kind == QCOW2_KIND_DATA)
        return hand_on(q, r, &e);
    if (!whole && qcow2_is_wide(q) && e.kind != QCOW2_KIND_PACKED) {
        uint64_t n = whole_subclusters(q, r, len);
        if (n)
            return zero_subclusters(q, r, n);
        len = in_subcluster(q, r->at, len);
    }
    if (!whole || (q->version < 3 && q->disk.backing)) {
        /* Zeros are written as data. */
        if (e.length > len)
            e.length = len;
        return write_extent(q, r, &e);
    }
    rc = must_wait(q);
    if (rc)
        return rc < 0 ? rc : 0;
    bool keep = !r->unmap && e.in_place && q->version >= 3;
    rc = set_entry(q, r, q->version >= 3, keep);
    if (rc)
        return rc;
    r->at += len;
    return 1;
}

/* The next part of it, up to where what is there changes. 1 or -errno. */
static int zero_part_now(struct qcow2 *q, struct disk_request *r)
{
    struct pieces p = {.n = 0};
    struct qcow2_extent e;
    bool whole;
    uint64_t len = in_this_cluster(q, r, &whole);
    int rc = qcow2_map(q, r->at, left(r), &e);

    if (rc)
        return rc;
    if (whole && q->version >= 3 && !q->data_raw && !reads_as_zeros(q, &e, r->at)) {
        rc = set_entry(q, r, true, false);
        r->at += len;
        return rc ? rc : 1;
    }
    if (e.length < len)
        len = e.length;
    if (!reads_as_zeros(q, &e, r->at)) {
        if (!e.in_place)
            return write_to_new(q, r, &e);
        add_zeros(&p, len);
        rc = qcow2_write_data(q, p.iov, p.n, e.offset);
    }
    r->at += len;
    return rc ? rc : 1;
}

int qcow2_zero_now(struct qcow2 *q, uint64_t at, uint64_t len)
{
    struct disk_request r = {.kind = DISK_WRITE_ZEROES, .offset = at, .length = len, .at = at};
    int rc = 1;

    while (rc > 0 && left(&r))
        rc = zero_part_now(q, &r);
    return rc < 0 ? rc : 0;
}

int qcow2_discard_step(struct qcow2 *q, struct disk_request *r)
{
    struct qcow2_extent e;
    bool whole, has_backing = q->disk.backing;
    uint64_t len = in_this_cluster(q, r, &whole);
    int rc = qcow2_map(q, r->at, left(r), &e);

    if (rc)
        return rc;
    bool holds = e.kind == QCOW2_KIND_DATA || e.kind == QCOW2_KIND_PACKED || e.entry & QCOW2_OFFSET;
    if (!holds) {
        r->at += e.length;
        return 1;
    }
    if (q->data_raw && e.kind == QCOW2_KIND_DATA)
        return hand_on(q, r, &e);
    /* Version 2 can't say "zeros", and what is behind should not come to light again. */
    if (!whole || (has_backing && q->version < 3)) {
        r->at += len;
        return 1;
    }
    rc = must_wait(q);
    if (rc)
        return rc < 0 ? rc : 0;
    rc = set_entry(q, r, has_backing, false);
    if (rc)
        return rc;
    r->at += len;
    return 1;
}

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

/* What the clusters around [at, at + len) have to keep: before it in the first half of q->copy, after it in
 * the second. */
static int read_around(struct qcow2 *q, uint64_t at, uint64_t len, uint32_t *head, uint32_t *tail)
{
    uint64_t end = at + len, disk_end = q->disk.size;
    uint64_t in_end = ALIGN_UP(end, (uint64_t)q->cluster_size);
    int rc = 0;

    *head = (uint32_t)qcow2_in_cluster(q, at);
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

/* Writes [at, at + len) of the request to the clusters at `host`, with what is around it. */
static int fill_clusters(struct qcow2 *q, const struct disk_request *r, uint64_t len, uint64_t host,
                         bool fresh)
{
    struct pieces p;
    uint32_t head, tail;
    int rc = read_around(q, r->at, len, &head, &tail);

    if (rc)
        return rc;
    p.n = 0;
    /* What was never written reads as zeros already, and need not take space. */
    bool skip_head = fresh && all_zero(q->copy, head);
    bool skip_tail = fresh && all_zero(q->copy + q->cluster_size, tail);
    if (!skip_head)
        add_piece(&p, q->copy, head);
    add_data(&p, r, r->at, len);
    if (!skip_tail)
        add_piece(&p, q->copy + q->cluster_size, tail);
    return disk_writev_at(q->disk.fd, p.iov, p.n, host + (skip_head ? head : 0));
}

/* Makes `n` entries from `index` on point to the clusters at `host`. */
static void set_entries(struct qcow2 *q, struct qcow2_table *table, uint32_t index, uint64_t n, uint64_t host)
{
    for (uint64_t i = 0; i < n; i++, host += q->cluster_size) {
        uint8_t *entry = qcow2_entry(q, table, index + (uint32_t)i);
        uint64_t old = get_be64(entry);
        /* Zeros may have kept their cluster, which is the one then. */
        if ((old & QCOW2_COMPRESSED) || (old & QCOW2_OFFSET) != host)
            qcow2_release_entry(q, old);
        put_be64(entry, host | QCOW2_COPIED);
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

static int write_to_new(struct qcow2 *q, struct disk_request *r, const struct qcow2_extent *e)
{
    struct qcow2_table *table;
    uint32_t index;
    uint64_t host, n = clusters_wanted(q, r, e);
    bool fresh = false;
    /* Zeros that have kept a cluster. */
    bool kept =
        e->kind == QCOW2_KIND_ZEROS && e->own_table && e->entry & QCOW2_COPIED && e->entry & QCOW2_OFFSET;
    int rc = qcow2_writable_table(q, r->at, &table, &index);

    if (rc)
        return rc;
    if (kept) {
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
    rc = fill_clusters(q, r, len, host, fresh);
    /* Reading what is around may have moved other tables through the cache. */
    if (rc == 0)
        rc = qcow2_writable_table(q, r->at, &table, &index);
    if (rc) {
        if (!kept)
            qcow2_untake_clusters(q, host, n);
        return rc;
    }
    set_entries(q, table, index, n, host);
    r->at += len;
    return 1;
}

static int write_in_place(struct qcow2 *q, struct disk_request *r, const struct qcow2_extent *e)
{
    struct pieces p = {.n = 0};
    uint64_t len = e->length < left(r) ? e->length : left(r);

    if (r->kind != DISK_WRITE && len > q->cluster_size)
        len = q->cluster_size;
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

/* Changes the entry of one whole cluster. */
static int set_entry(struct qcow2 *q, struct disk_request *r, uint64_t value, bool keep_cluster)
{
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
    put_be64(entry, value);
    qcow2_cache_mark(&q->l2, table);
    return 0;
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
        r->at += beyond ? e.length : len;
        return 1;
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
    rc = set_entry(q, r, q->version >= 3 ? QCOW2_ZERO : 0, keep);
    if (rc)
        return rc;
    r->at += len;
    return 1;
}

int qcow2_zero_now(struct qcow2 *q, uint64_t at, uint64_t len)
{
    struct disk_request r = {.kind = DISK_WRITE_ZEROES, .offset = at, .length = len, .at = at};
    struct pieces p = {.n = 0};
    struct qcow2_extent e;
    bool whole;
    int rc = qcow2_map(q, at, len, &e);

    if (rc || reads_as_zeros(q, &e, at))
        return rc;
    in_this_cluster(q, &r, &whole);
    if (whole && q->version >= 3)
        return set_entry(q, &r, QCOW2_ZERO, false);
    if (!e.in_place) {
        rc = write_to_new(q, &r, &e);
        return rc < 0 ? rc : 0;
    }
    add_zeros(&p, len);
    return disk_writev_at(q->disk.fd, p.iov, p.n, e.offset);
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
    /* Version 2 can't say "zeros", and what is behind should not come to light again. */
    if (!whole || (has_backing && q->version < 3)) {
        r->at += len;
        return 1;
    }
    rc = must_wait(q);
    if (rc)
        return rc < 0 ? rc : 0;
    rc = set_entry(q, r, has_backing ? QCOW2_ZERO : 0, false);
    if (rc)
        return rc;
    r->at += len;
    return 1;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writing the tables in an order that survives an end at any point (qcow2_priv.h): at once, where the cache
 * is full or the disk is closed; stage by stage, with the syncs in the background, for the guest's flushes.
 * While that goes on, requests that would change a table are held, all others are served. The disk's thread;
 * no locks.
 */
#include "disk/qcow2_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"

#include <errno.h>

#define L1_AT_ONCE 64u /* entries */

static bool l1_is_dirty(const struct qcow2 *q)
{
    return q->l1_dirty_from < q->l1_dirty_to;
}

static int write_l1(struct qcow2 *q)
{
    uint8_t bytes[8 * L1_AT_ONCE];

    while (l1_is_dirty(q)) {
        uint32_t n = q->l1_dirty_to - q->l1_dirty_from;
        if (n > L1_AT_ONCE)
            n = L1_AT_ONCE;
        for (uint32_t i = 0; i < n; i++)
            put_be64(bytes + 8 * (size_t)i, q->l1[q->l1_dirty_from + i]);
        int rc = disk_write_at(q->disk.fd, bytes, 8 * (size_t)n, q->l1_offset + 8ull * q->l1_dirty_from);
        if (rc)
            return rc;
        q->l1_dirty_from += n;
    }
    return 0;
}

int qcow2_write_tables(struct qcow2 *q)
{
    if (q->damaged)
        return -EIO;
    int rc = qcow2_cache_write(q, &q->blocks);
    if (rc == 0 && (q->l2.n_dirty || l1_is_dirty(q)))
        rc = qcow2_sync(q);
    if (rc == 0)
        rc = qcow2_cache_write(q, &q->l2);
    if (rc == 0 && l1_is_dirty(q))
        rc = qcow2_sync(q);
    return rc ? rc : write_l1(q);
}

static bool tables_are_clean(const struct qcow2 *q)
{
    return !q->blocks.n_dirty && !q->l2.n_dirty && !l1_is_dirty(q);
}

int qcow2_flush_to_close(struct qcow2 *q)
{
    int rc = qcow2_write_tables(q);

    if (rc == 0)
        rc = qcow2_sync(q);
    if (rc || !q->n_freed)
        return rc;
    qcow2_apply_releases(q);
    return qcow2_cache_write(q, &q->blocks);
}

/* ---- in the background ---- */

static void on_synced(struct disk_io_op *op, int result);

/* The clusters' file is synced: then the image itself, if that is another one. */
static void sync_image(struct qcow2 *q, struct disk_io_op *op, int result,
                       void (*done)(struct disk_io_op *op, int result))
{
    if (result || q->data_file == q->disk.file) {
        done(op, result);
        return;
    }
    op->file = q->disk.file;
    op->done = done;
    disk_io_submit(q->disk.io, op);
}

static void on_clusters_synced(struct disk_io_op *op, int result)
{
    sync_image(container_of(op, struct qcow2, sync), op, result, on_synced);
}

/* Has on_synced called with `result`, and if that is 0, after a sync. */
static void sync_then(struct qcow2 *q, enum qcow2_flush_stage stage, int result)
{
    q->stage = stage;
    q->sync = (struct disk_io_op){.kind = result ? DISK_IO_NONE : DISK_IO_SYNC,
                                  .file = q->data_file,
                                  .result = result,
                                  .done = on_clusters_synced};
    disk_io_submit(q->disk.io, &q->sync);
}

static void start(struct qcow2 *q)
{
    q->flushing = steal_ptr(q->flush_next);
    q->flush_again = false;
    int rc = q->damaged ? -EIO : qcow2_cache_write(q, &q->blocks);
    /* Without tables to write, the first sync, of the data, is also the last. */
    sync_then(q, tables_are_clean(q) ? QCOW2_SYNC_L1 : QCOW2_SYNC_REFCOUNTS, rc);
}

static void finish(struct qcow2 *q, int result)
{
    struct disk_request *done = steal_ptr(q->flushing);

    q->stage = QCOW2_IDLE;
    q->flush_error = result;
    while (done) {
        struct disk_request *next = done->next;
        done->done(done, result);
        done = next;
    }
    /* First those that have waited: they would starve where one flush follows the other. */
    qcow2_resume_held(q);
    if (q->stage == QCOW2_IDLE && (q->flush_next || q->flush_again))
        start(q);
}

static void release_and_finish(struct qcow2 *q)
{
    qcow2_apply_releases(q);
    finish(q, 0);
}

static void on_synced(struct disk_io_op *op, int result)
{
    struct qcow2 *q = container_of(op, struct qcow2, sync);

    if (result == 0 && q->damaged)
        result = -EIO;
    if (result) {
        finish(q, result);
        return;
    }
    switch (q->stage) {
    case QCOW2_SYNC_REFCOUNTS:
        result = qcow2_cache_write(q, &q->l2);
        sync_then(q, l1_is_dirty(q) ? QCOW2_SYNC_L2 : QCOW2_SYNC_L1, result);
        break;
    case QCOW2_SYNC_L2:
        result = write_l1(q);
        sync_then(q, QCOW2_SYNC_L1, result);
        break;
    case QCOW2_SYNC_L1:
        if (!q->n_freed) {
            finish(q, 0);
            break;
        }
        /* What is read or written in a cluster just now must not find it used for something else. */
        q->stage = QCOW2_WAIT_FOR_IO;
        if (!q->in_flight)
            release_and_finish(q);
        break;
    case QCOW2_IDLE:
    case QCOW2_WAIT_FOR_IO:
        break;
    }
}

void qcow2_data_done(struct qcow2 *q)
{
    if (--q->in_flight == 0 && q->stage == QCOW2_WAIT_FOR_IO)
        release_and_finish(q);
}

static void on_own_synced(struct disk_io_op *op, int result)
{
    struct disk_request *request = container_of(op, struct disk_request, op);

    sync_image(container_of(request->disk, struct qcow2, disk), op, result, disk_request_completed);
}

void qcow2_submit_flush(struct qcow2 *q, struct disk_request *request)
{
    /* Data alone: nobody has to wait. */
    if (q->stage == QCOW2_IDLE && !q->damaged && tables_are_clean(q) && !q->n_freed) {
        request->op = (struct disk_io_op){.kind = DISK_IO_SYNC, .file = q->data_file, .done = on_own_synced};
        disk_io_submit(q->disk.io, &request->op);
        return;
    }
    request->next = q->flush_next;
    q->flush_next = request;
    if (q->stage == QCOW2_IDLE)
        start(q);
}

void qcow2_flush_soon(struct qcow2 *q)
{
    q->flush_again = true;
    if (q->stage == QCOW2_IDLE)
        start(q);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The format `qcow2`, version 2 and 3: opening, reading, and how requests go on from step to step. A request
 * is cut where its clusters are no longer alike; the parts that go to io_uring do so at the same time, and it
 * is done when all are. The disk's thread; no locks.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/luks.h"
#include "disk/qcow2_priv.h"
#include "host/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define L2_CACHE_BYTES     (4u << 20)
#define BLOCKS_CACHE_BYTES (1u << 20)

/* Parts of one request that are under way at once. A guest may ask for gigabytes in one, and have its
 * clusters where it likes: it must not choose how much memory that takes. */
#define PARTS_MAX 64u
/* Of what is encrypted, each has memory of its own. */
#define PARTS_SEALED_MAX 4u

/* A part of a request that goes to the file, or to what it is based on. */
struct part {
    struct qcow2 *q;
    struct disk_request *whole;
    struct disk_io_op op;
    struct disk_request behind;
    uint8_t *sealed; /* what the file has, encrypted; NULL: what it has is plain */
    struct iovec sealed_iov;
    unsigned n;
    struct iovec iov[];
};

static struct qcow2 *qcow2_of(struct disk *disk)
{
    return container_of(disk, struct qcow2, disk);
}

int qcow2_damaged(struct qcow2 *q)
{
    uint8_t bits[8];

    if (q->damaged || q->disk.read_only)
        return -EIO;
    q->damaged = true;
    if (q->version >= 3) {
        put_be64(bits, q->incompatible | QCOW2_CORRUPT);
        /* Should that fail, the next one to open it will find out by itself. */
        disk_write_at(q->disk.fd, bits, sizeof(bits), QCOW2_AT_INCOMPATIBLE);
    }
    return -EIO;
}

/* What others keep in the file about the disk's content is true no longer. */
int qcow2_begin_change(struct qcow2 *q)
{
    uint8_t bits[8];

    if (q->damaged)
        return -EIO;
    if (q->changed)
        return 0;
    int rc = qcow2_begin_recording(q, false);
    uint64_t kept = (q->bitmaps.n ? q->autoclear & QCOW2_BITMAPS_VALID : 0) |
                    (q->data_raw ? q->autoclear & QCOW2_DATA_FILE_RAW : 0);
    if (rc == 0 && q->autoclear != kept) {
        put_be64(bits, kept);
        rc = disk_write_at(q->disk.fd, bits, sizeof(bits), QCOW2_AT_AUTOCLEAR);
        if (rc == 0)
            rc = qcow2_sync(q);
    }
    if (rc)
        return rc;
    q->autoclear = kept;
    q->changed = true;
    return 0;
}

/* ---- parts ---- */

static void put(struct disk_request *request);
static void go_on(struct qcow2 *q, struct disk_request *request);

static unsigned parts_max(const struct qcow2 *q)
{
    return q->encrypted ? PARTS_SEALED_MAX : PARTS_MAX;
}

static struct part *new_part(struct qcow2 *q, struct disk_request *request, const struct iovec *iov,
                             unsigned n)
{
    struct part *part = malloc(sizeof(*part) + n * sizeof(*iov));

    if (!part)
        return NULL;
    part->q = q;
    part->whole = request;
    part->sealed = NULL;
    part->n = n;
    if (n)
        memcpy(part->iov, iov, n * sizeof(*iov));
    return part;
}

static void end_part(struct part *part, int result)
{
    struct disk_request *request = part->whole;

    if (part->sealed)
        explicit_bzero(part->sealed, part->sealed_iov.iov_len);
    free(part->sealed);
    free(part);
    if (result && !request->result)
        request->result = result;
    if (request->paused && request->pending <= parts_max(qcow2_of(request->disk)) / 2) {
        request->paused = false;
        go_on(qcow2_of(request->disk), request);
    }
    put(request);
}

static void io_done(struct disk_io_op *op, int result)
{
    struct part *part = container_of(op, struct part, op);
    struct qcow2 *q = part->q;

    if (part->sealed && result == 0 && op->kind == DISK_IO_READ) {
        result =
            luks_cipher_run(&q->crypt->cipher, false, op->offset / LUKS_SECTOR, part->sealed, op->length);
        if (result == 0)
            disk_iov_fill(part->iov, part->n, 0, op->length, part->sealed);
    }
    end_part(part, result);
    qcow2_data_done(q);
}

/* The operation goes through memory of ours: a guest must neither see what is encrypted nor change what is
 * being encrypted. 0 or -errno. */
static int seal_part(struct part *part)
{
    struct disk_io_op *op = &part->op;

    part->sealed = malloc(op->length);
    if (!part->sealed)
        return -ENOMEM;
    part->sealed_iov = (struct iovec){part->sealed, op->length};
    op->iov = &part->sealed_iov;
    op->n_iov = 1;
    if (op->kind == DISK_IO_READ)
        return 0;
    disk_iov_gather(part->iov, part->n, 0, part->sealed, op->length);
    return luks_cipher_run(&part->q->crypt->cipher, true, op->offset / LUKS_SECTOR, part->sealed, op->length);
}

int qcow2_start_io(struct qcow2 *q, struct disk_request *request, int kind, uint64_t offset, uint64_t length,
                   const struct iovec *iov, unsigned n)
{
    int rc = qcow2_check_data(q);
    struct part *part = rc ? NULL : new_part(q, request, iov, n);

    if (!part)
        return rc ? rc : -ENOMEM;
    part->op = (struct disk_io_op){.kind = kind,
                                   .file = q->data_file,
                                   .offset = offset,
                                   .length = length,
                                   .iov = part->iov,
                                   .n_iov = n,
                                   .done = io_done};
    rc = q->encrypted ? seal_part(part) : 0;
    if (rc) {
        free(part->sealed);
        free(part);
        return rc;
    }
    request->pending++;
    q->in_flight++;
    disk_io_submit(q->disk.io, &part->op);
    return 0;
}

static void behind_done(struct disk_request *behind, int result)
{
    end_part(container_of(behind, struct part, behind), result);
}

int qcow2_hand_on(struct qcow2 *q, struct disk_request *r, uint64_t length)
{
    struct part *part = new_part(q, r, NULL, 0);

    if (!part)
        return -ENOMEM;
    part->behind = (struct disk_request){.kind = r->kind,
                                         .unmap = r->unmap,
                                         .fast = r->fast,
                                         .offset = r->at,
                                         .length = length,
                                         .disk = q->data,
                                         .done = behind_done};
    r->pending++;
    q->data->format->submit(q->data, &part->behind);
    return 0;
}

/* ---- reading ---- */

/* Reads up to *length bytes at request->at from what the image is based on; *length becomes how many. The
 * request goes to the one that has them at once, however long the way is. */
static int read_behind(struct qcow2 *q, struct disk_request *r, uint64_t *length)
{
    struct iovec iov[DISK_IOV_MAX];
    struct disk *backing = q->disk.backing;
    uint64_t skip = r->at - r->offset, there = 0;

    if (backing && r->at < backing->size) {
        there = *length < backing->size - r->at ? *length : backing->size - r->at;
        int rc = disk_find_owner(&backing, r->at, &there);
        if (rc)
            return rc;
        *length = there;
    } else {
        disk_iov_fill(r->iov, r->n_iov, skip, *length, NULL);
        return 0;
    }
    unsigned n = disk_iov_slice(r->iov, r->n_iov, skip, there, iov);
    struct part *part = new_part(q, r, iov, n);
    if (!part)
        return -ENOMEM;
    part->behind = (struct disk_request){.kind = DISK_READ,
                                         .offset = r->at,
                                         .length = there,
                                         .iov = part->iov,
                                         .n_iov = n,
                                         .done = behind_done};
    r->pending++;
    disk_submit(backing, &part->behind);
    return 0;
}

static int read_step(struct qcow2 *q, struct disk_request *r)
{
    struct iovec iov[DISK_IOV_MAX];
    struct qcow2_extent e;
    uint64_t skip = r->at - r->offset;
    int rc = qcow2_map(q, r->at, r->length - skip, &e);

    if (rc)
        return rc;
    switch (e.kind) {
    case QCOW2_KIND_NONE:
        rc = read_behind(q, r, &e.length);
        break;
    case QCOW2_KIND_ZEROS:
        disk_iov_fill(r->iov, r->n_iov, skip, e.length, NULL);
        break;
    case QCOW2_KIND_DATA:
        if (q->encrypted && e.length > QCOW2_CRYPT_PIECE)
            e.length = QCOW2_CRYPT_PIECE;
        rc = qcow2_start_io(q, r, DISK_IO_READ, e.offset, e.length, iov,
                            disk_iov_slice(r->iov, r->n_iov, skip, e.length, iov));
        break;
    case QCOW2_KIND_PACKED:
        rc = qcow2_unpack(q, e.entry);
        if (rc == 0)
            disk_iov_fill(r->iov, r->n_iov, skip, e.length, q->unpacked + qcow2_in_cluster(q, r->at));
        break;
    }
    r->at += e.length;
    return rc ? rc : 1;
}

static int read_extent(struct qcow2 *q, const struct qcow2_extent *e, uint64_t at, uint8_t *buf)
{
    int rc;

    switch (e->kind) {
    case QCOW2_KIND_NONE:
        if (q->disk.backing)
            return disk_read_now(q->disk.backing, at, buf, e->length);
        memset(buf, 0, e->length);
        return 0;
    case QCOW2_KIND_ZEROS:
        memset(buf, 0, e->length);
        return 0;
    case QCOW2_KIND_DATA:
        return qcow2_read_data(q, e->offset, buf, e->length);
    case QCOW2_KIND_PACKED:
        rc = qcow2_unpack(q, e->entry);
        if (rc == 0)
            memcpy(buf, q->unpacked + qcow2_in_cluster(q, at), e->length);
        return rc;
    }
    return -EIO;
}

int qcow2_read(struct disk *disk, uint64_t offset, void *buf, size_t len)
{
    struct qcow2 *q = qcow2_of(disk);

    for (size_t done = 0; done < len;) {
        struct qcow2_extent e;
        int rc = qcow2_map(q, offset + done, len - done, &e);
        if (rc == 0)
            rc = read_extent(q, &e, offset + done, (uint8_t *)buf + done);
        if (rc)
            return rc;
        done += e.length;
    }
    return 0;
}

static int qcow2_extent(struct disk *disk, uint64_t offset, uint64_t length, struct disk_extent *out)
{
    struct qcow2 *q = qcow2_of(disk);
    struct qcow2_extent e;
    int rc = qcow2_map(q, offset, length, &e);

    if (rc)
        return rc;
    if (e.length > length)
        e.length = length;
    if (e.kind == QCOW2_KIND_DATA)
        return qcow2_data_extent(q, e.offset, e.length, out);
    *out = (struct disk_extent){.kind = e.kind == QCOW2_KIND_PACKED ? DISK_EXTENT_PACKED : DISK_EXTENT_ZEROS,
                                .allocated = e.kind != QCOW2_KIND_NONE,
                                .disk = disk,
                                .length = e.length,
                                .entry = e.entry,
                                .skip = (uint32_t)qcow2_in_cluster(q, offset)};
    return 0;
}

/* ---- requests ---- */

static void put(struct disk_request *request)
{
    disk_request_put(request, qcow2_of(request->disk)->submitting);
}

static void hold(struct qcow2 *q, struct disk_request *request)
{
    request->next = NULL;
    *q->held_tail = request;
    q->held_tail = &request->next;
}

static int step(struct qcow2 *q, struct disk_request *request)
{
    int rc = request->kind == DISK_READ ? 0 : qcow2_begin_change(q);

    if (rc)
        return rc;
    switch (request->kind) {
    case DISK_READ:
        return read_step(q, request);
    case DISK_WRITE:
        return qcow2_write_step(q, request);
    case DISK_WRITE_ZEROES:
        return qcow2_zero_step(q, request);
    case DISK_DISCARD:
        return qcow2_discard_step(q, request);
    case DISK_FLUSH:
        break;
    }
    return -EINVAL;
}

static void go_on(struct qcow2 *q, struct disk_request *request)
{
    uint64_t end = request->offset + request->length;

    while (!request->result && request->at < end) {
        if (request->pending > parts_max(q)) {
            request->paused = true;
            return;
        }
        int rc = q->stage == QCOW2_WAIT_FOR_IO ? 0 : step(q, request);
        if (rc == 0) {
            hold(q, request);
            return;
        }
        if (rc < 0)
            request->result = rc;
    }
    put(request);
}

void qcow2_resume_held(struct qcow2 *q)
{
    struct disk_request *request = steal_ptr(q->held), *next;

    q->held_tail = &q->held;
    for (; request; request = next) {
        next = request->next;
        go_on(q, request);
    }
}

static void qcow2_submit(struct disk *disk, struct disk_request *request)
{
    struct qcow2 *q = qcow2_of(disk);
    bool before = q->submitting;

    request->at = request->offset;
    request->pending = 1;
    request->paused = false;
    request->result = 0;
    q->submitting = true;
    if (request->kind == DISK_FLUSH) {
        qcow2_submit_flush(q, request);
    } else {
        if (request->kind != DISK_READ && qcow2_begin_change(q) == 0)
            qcow2_record(q, request->offset, request->length);
        go_on(q, request);
    }
    q->submitting = before;
}

/* ---- opening and closing ---- */

static void free_qcow2(struct qcow2 *q)
{
    if (q->disk.backing)
        q->disk.backing->format->close(q->disk.backing);
    qcow2_close_data(q);
    loop_timer_free(q->freed_timer);
    qcow2_cache_free(&q->l2);
    qcow2_cache_free(&q->blocks);
    free(q->l1);
    free(q->reftable);
    free(q->freed);
    qcow2_free_bitmaps(&q->bitmaps);
    free(q->copy);
    free(q->packed);
    free(q->unpacked);
    free(q);
}

static int qcow2_close(struct disk *disk)
{
    struct qcow2 *q = qcow2_of(disk);
    int rc = disk->read_only ? 0 : qcow2_flush_to_close(q);

    if (rc == 0 && !disk->read_only)
        rc = qcow2_store_bitmaps(q);
    free_qcow2(q);
    return rc;
}

/* A table of 64-bit entries, in our byte order; what it takes is bounded by qcow2_read_header. */
static int load_table(int fd, uint64_t offset, uint32_t n, uint64_t **out)
{
    cleanup_free uint64_t *table = malloc(n * sizeof(*table));
    int rc = table ? disk_read_at(fd, table, n * sizeof(*table), offset) : -ENOMEM;

    if (rc)
        return rc;
    for (uint32_t i = 0; i < n; i++)
        table[i] = be64toh(table[i]);
    *out = steal_ptr(table);
    return 0;
}

static void set_geometry(struct qcow2 *q, const struct qcow2_header *h)
{
    q->version = h->version;
    q->cluster_bits = h->cluster_bits;
    q->refcount_order = h->refcount_order;
    q->compression = h->compression;
    q->autoclear = h->autoclear;
    q->incompatible = h->incompatible;
    q->cluster_size = 1u << h->cluster_bits;
    q->entry_bits = qcow2_entry_bits(h);
    q->table_bits = h->cluster_bits - q->entry_bits;
    q->block_bits = h->cluster_bits + 3 - h->refcount_order;
    q->behind = h->backing_offset;
    q->l1_offset = h->l1_offset;
    q->l1_entries = h->l1_size;
    q->reftable_offset = h->reftable_offset;
    q->reftable_entries = (uint32_t)(((uint64_t)h->reftable_clusters << q->cluster_bits) / 8);
    q->disk.size = h->size;
    q->disk.granularity = q->cluster_size;
    q->held_tail = &q->held;
    q->data_file = q->disk.file;
    q->data_fd = q->disk.fd;
}

static void on_freed_timer(void *opaque)
{
    qcow2_flush_soon(opaque);
    disk_io_start(((struct qcow2 *)opaque)->disk.io);
}

static int prepare_writing(struct qcow2 *q)
{
    int rc = qcow2_cache_init(&q->blocks, q->cluster_size, BLOCKS_CACHE_BYTES, QCOW2_TABLES_MIN);

    if (rc == 0)
        rc = load_table(q->disk.fd, q->reftable_offset, q->reftable_entries, &q->reftable);
    q->copy = malloc(2 * (size_t)q->cluster_size);
    q->freed = calloc(QCOW2_FREED_MAX, sizeof(*q->freed));
    if (rc == 0 && (!q->copy || !q->freed))
        rc = -ENOMEM;
    if (rc == 0 && q->disk.loop) {
        q->freed_timer = loop_timer_new(q->disk.loop, on_freed_timer, q);
        rc = q->freed_timer ? 0 : -ENOMEM;
    }
    return rc;
}

/* A long chain has few tables of each file in memory: of all together as many as of one that stands alone, or
 * one each. */
static uint32_t l2_cache_bytes(const struct disk *disk)
{
    return disk->read_only ? L2_CACHE_BYTES / disk->files->n : L2_CACHE_BYTES;
}

static int qcow2_open(struct disk **out, const struct disk *common, struct error **err)
{
    struct qcow2_header header;
    uint64_t file_end;
    int rc = qcow2_read_header(common->fd, common->read_only, &header, &file_end, err);

    if (rc)
        return rc;
    struct qcow2 *q = calloc(1, sizeof(*q));
    if (!q)
        return error_set_errno(err, ENOMEM, "opening it");
    q->disk = *common;
    q->file_end = file_end;
    set_geometry(q, &header);
    rc = qcow2_cache_init(&q->l2, q->cluster_size, l2_cache_bytes(common),
                          common->read_only ? 1 : QCOW2_TABLES_MIN);
    if (rc == 0)
        rc = load_table(common->fd, q->l1_offset, q->l1_entries, &q->l1);
    if (rc == 0 && !common->read_only)
        rc = prepare_writing(q);
    if (rc)
        error_set_errno(err, -rc, "reading its tables");
    else
        rc = disk_check_behind(&q->disk, header.backing_offset, err);
    if (rc == 0)
        rc = qcow2_open_data(q, &header, err);
    if (rc) {
        q->disk.backing = NULL; /* the caller's */
        free_qcow2(q);
        return rc;
    }
    *out = &q->disk;
    return 0;
}

const struct disk_format disk_format_qcow2 = {
    .name = "qcow2",
    .probe = qcow2_probe,
    .backing = qcow2_backing,
    .parts = qcow2_parts,
    .parts_apart = true,
    .open = qcow2_open,
    .submit = qcow2_submit,
    .read = qcow2_read,
    .close = qcow2_close,
    .extent = qcow2_extent,
    .unpack = qcow2_unpack_extent,
    .describe = qcow2_describe,
    .build = &qcow2_build,
    .check = qcow2_check,
    .resize = qcow2_resize,
    .set_backing = qcow2_set_backing,
    .empty = qcow2_empty,
    .snapshots = &qcow2_snapshot_ops,
    .bitmaps = &qcow2_bitmap_ops,
};

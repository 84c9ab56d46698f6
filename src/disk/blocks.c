/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See blocks.h. The disk's thread; no locks. */
#include "disk/blocks.h"

#include "base/bytes.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Parts of one request that are under way at once: a guest must not choose how much memory that takes. */
#define PARTS_MAX 64u

#define ZEROS 65536u
static const uint8_t zeros[ZEROS];
#define ZEROS_AT_ONCE 16u /* times these */

/* A part of a request that goes to the file. */
struct part {
    struct disk_request *whole;
    struct disk_io_op op;
    struct iovec iov[];
};

static struct blocks *blocks_of(struct disk *disk)
{
    return container_of(disk, struct blocks, disk);
}

static uint64_t left(const struct disk_request *r)
{
    return r->offset + r->length - r->at;
}

/* What of the request lies in the block at r->at. */
static uint64_t in_block(const struct blocks *b, const struct disk_request *r)
{
    uint64_t rest = b->block_size - (r->at & (b->block_size - 1));

    return rest < left(r) ? rest : left(r);
}

/* Where byte `at` is; false if it is nowhere. */
static bool place_of(const struct blocks *b, uint64_t at, uint64_t *place)
{
    uint64_t start =
        b->fixed ? at - (at & (b->block_size - 1)) : b->ops->where(b, (uint32_t)(at / b->block_size));

    *place = start + (at & (b->block_size - 1));
    return start || b->fixed;
}

int blocks_extent(struct disk *disk, uint64_t offset, uint64_t length, struct disk_extent *out)
{
    struct blocks *b = blocks_of(disk);
    uint64_t rest = b->block_size - (offset & (b->block_size - 1)), place;
    bool there = place_of(b, offset, &place), hole = false;

    if (rest < length)
        length = rest;
    if (there)
        length = disk_alike_at(disk->fd, place, length, &hole);
    *out = (struct disk_extent){.kind = there && !hole ? DISK_EXTENT_DATA : DISK_EXTENT_ZEROS,
                                .allocated = there,
                                .disk = disk,
                                .length = length,
                                .offset = place};
    return 0;
}

int blocks_read(struct disk *disk, uint64_t offset, void *buf, size_t len)
{
    struct blocks *b = blocks_of(disk);
    uint8_t *to = buf;

    while (len) {
        uint64_t place, n = b->block_size - (offset & (b->block_size - 1));
        bool there = place_of(b, offset, &place);
        if (n > len)
            n = len;
        int rc = there ? disk_read_at(disk->fd, to, n, place) : 0;
        if (rc)
            return rc;
        if (!there)
            memset(to, 0, n);
        to += n;
        offset += n;
        len -= n;
    }
    return 0;
}

/* ---- the table ---- */

int blocks_write_map(struct blocks *b)
{
    int rc = 0;

    if (b->dirty_from == b->dirty_to)
        return 0;
    rc = disk_sync_now(b->disk.io, b->disk.file);
    if (rc == 0)
        rc = b->ops->write_map(b, b->dirty_from, b->dirty_to);
    if (rc == 0)
        b->dirty_from = b->dirty_to = 0;
    return rc;
}

static void untake(struct blocks *b, uint32_t i, uint32_t before, uint64_t end)
{
    b->map[i] = before;
    b->end = end;
    b->taken = false;
    if (b->ops->untaken)
        b->ops->untaken(b);
}

/* Gives block `i` a place, with part of its content; the rest is zeros. */
static int take(struct blocks *b, uint32_t i, uint64_t at, const struct iovec *iov, unsigned n)
{
    uint32_t before = b->map[i];
    uint64_t end = b->end;

    /* What an earlier end has left there is not zeros. */
    if (!b->taken && ftruncate(b->disk.fd, (off_t)b->end) < 0)
        return -errno;
    b->taken = true;
    uint64_t place;
    int rc = b->ops->take(b, i);
    if (rc == 0 && place_of(b, at, &place))
        rc = disk_writev_at(b->disk.fd, iov, n, place);
    if (rc)
        untake(b, i, before, end);
    return rc;
}

static int touch(struct blocks *b, uint64_t at)
{
    return b->ops->touch ? b->ops->touch(b, (uint32_t)(at / b->block_size)) : 0;
}

void blocks_changed(struct blocks *b, uint32_t i)
{
    if (b->dirty_from == b->dirty_to) {
        b->dirty_from = i;
        b->dirty_to = i + 1;
    }
    if (i < b->dirty_from)
        b->dirty_from = i;
    if (i >= b->dirty_to)
        b->dirty_to = i + 1;
    if (b->ops->changed)
        b->ops->changed(b, i);
}

/* ---- parts ---- */

static void go_on(struct blocks *b, struct disk_request *r);

static void completed(struct disk_io_op *op, int result)
{
    struct disk_request *r = container_of(op, struct disk_request, op);

    r->done(r, result);
}

/* One part less. With the last one gone the request is done. */
static void put(struct disk_request *r)
{
    struct blocks *b = blocks_of(r->disk);

    if (--r->pending)
        return;
    if (!b->submitting) {
        r->done(r, r->result);
        return;
    }
    r->op = (struct disk_io_op){.kind = DISK_IO_NONE, .result = r->result, .done = completed};
    disk_io_submit(b->disk.io, &r->op);
}

static void part_done(struct disk_io_op *op, int result)
{
    struct part *part = container_of(op, struct part, op);
    struct disk_request *r = part->whole;
    struct blocks *b = blocks_of(r->disk);

    /* A file system that can't free what is not needed keeps it. */
    if (op->kind == DISK_IO_PUNCH && result != -EIO)
        result = 0;
    free(part);
    if (result && !r->result)
        r->result = result;
    if (r->paused && r->pending <= PARTS_MAX / 2) {
        r->paused = false;
        go_on(b, r);
    }
    put(r);
}

static int start(struct blocks *b, struct disk_request *r, int kind, uint64_t offset, uint64_t length,
                 const struct iovec *iov, unsigned n)
{
    struct part *part = malloc(sizeof(*part) + n * sizeof(*iov));

    if (!part)
        return -ENOMEM;
    part->whole = r;
    if (n)
        memcpy(part->iov, iov, n * sizeof(*iov));
    part->op = (struct disk_io_op){.kind = kind,
                                   .file = b->disk.file,
                                   .offset = offset,
                                   .length = length,
                                   .iov = part->iov,
                                   .n_iov = n,
                                   .done = part_done};
    r->pending++;
    disk_io_submit(b->disk.io, &part->op);
    return 0;
}

/* ---- steps: one block each ---- */

static int read_step(struct blocks *b, struct disk_request *r)
{
    struct iovec iov[DISK_IOV_MAX];
    uint64_t n = in_block(b, r), skip = r->at - r->offset, place;
    int rc = 0;

    if (place_of(b, r->at, &place))
        rc = start(b, r, DISK_IO_READ, place, n, iov, disk_iov_slice(r->iov, r->n_iov, skip, n, iov));
    else
        disk_iov_fill(r->iov, r->n_iov, skip, n, NULL);
    r->at += n;
    return rc;
}

static int write_step(struct blocks *b, struct disk_request *r)
{
    struct iovec iov[DISK_IOV_MAX];
    uint64_t n = in_block(b, r), place;
    bool there = place_of(b, r->at, &place);
    unsigned pieces = disk_iov_slice(r->iov, r->n_iov, r->at - r->offset, n, iov);
    uint32_t i = (uint32_t)(r->at / b->block_size);
    int rc = there ? touch(b, r->at) : 0;

    if (rc == 0 && there) {
        rc = start(b, r, DISK_IO_WRITE, place, n, iov, pieces);
    } else if (rc == 0) {
        rc = take(b, i, r->at, iov, pieces);
        if (rc == 0)
            blocks_changed(b, i);
    }
    r->at += n;
    return rc;
}

static int zero_step(struct blocks *b, struct disk_request *r)
{
    struct iovec iov[ZEROS_AT_ONCE];
    uint64_t n = in_block(b, r), given = 0, place;
    unsigned pieces = 0;
    bool there = place_of(b, r->at, &place);
    int rc = there ? touch(b, r->at) : 0;

    if (rc || !there) {
        r->at += n;
        return rc;
    }
    if (r->unmap &&
        fallocate(b->disk.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)place, (off_t)n) == 0) {
        r->at += n;
        return 0;
    }
    while (given < n && pieces < ZEROS_AT_ONCE) {
        uint64_t len = n - given < ZEROS ? n - given : ZEROS;
        iov[pieces++] = (struct iovec){.iov_base = (void *)(uintptr_t)zeros, .iov_len = len};
        given += len;
    }
    rc = start(b, r, DISK_IO_WRITE, place, given, iov, pieces);
    r->at += given;
    return rc;
}

static int discard_step(struct blocks *b, struct disk_request *r)
{
    uint64_t n = in_block(b, r), place;
    bool there = place_of(b, r->at, &place);
    int rc = there ? touch(b, r->at) : 0;

    if (rc == 0 && there)
        rc = start(b, r, DISK_IO_PUNCH, place, n, NULL, 0);
    r->at += n;
    return rc;
}

static int step(struct blocks *b, struct disk_request *r)
{
    switch (r->kind) {
    case DISK_READ:
        return read_step(b, r);
    case DISK_WRITE:
        return write_step(b, r);
    case DISK_WRITE_ZEROES:
        return zero_step(b, r);
    case DISK_DISCARD:
        return discard_step(b, r);
    case DISK_FLUSH:
        break;
    }
    return -EINVAL;
}

static void go_on(struct blocks *b, struct disk_request *r)
{
    while (!r->result && left(r)) {
        if (r->pending > PARTS_MAX) {
            r->paused = true;
            return;
        }
        int rc = step(b, r);
        if (rc)
            r->result = rc;
    }
}

/* With entries to be written it is done at once, in this thread. */
static void flush(struct blocks *b, struct disk_request *r)
{
    int rc = b->disk.read_only ? 0 : blocks_write_map(b);

    r->op = (struct disk_io_op){
        .kind = rc ? DISK_IO_NONE : DISK_IO_SYNC, .file = b->disk.file, .result = rc, .done = completed};
    disk_io_submit(b->disk.io, &r->op);
}

void blocks_submit(struct disk *disk, struct disk_request *r)
{
    struct blocks *b = blocks_of(disk);
    bool before = b->submitting;

    r->at = r->offset;
    r->pending = 1;
    r->paused = false;
    r->result = 0;
    if (r->kind == DISK_FLUSH) {
        flush(b, r);
        return;
    }
    b->submitting = true;
    go_on(b, r);
    put(r);
    b->submitting = before;
}

int blocks_close(struct disk *disk)
{
    struct blocks *b = blocks_of(disk);
    int rc = disk->read_only ? 0 : blocks_write_map(b);

    if (rc == 0 && !disk->read_only)
        rc = disk_sync_now(disk->io, disk->file);
    if (rc == 0 && !disk->read_only && b->ops->finish)
        rc = b->ops->finish(b);
    if (disk->backing)
        disk->backing->format->close(disk->backing);
    if (b->ops->free)
        b->ops->free(b);
    free(b->map);
    free(b);
    return rc;
}

/* ---- checking ---- */

static int compare_places(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

int blocks_check_overlap(const struct blocks *b, uint32_t extra)
{
    cleanup_free uint64_t *places = malloc(((size_t)b->n + 1) * sizeof(*places));
    uint32_t n = 0;

    if (!places)
        return -ENOMEM;
    for (uint32_t i = 0; i < b->n; i++) {
        uint64_t place = b->ops->where(b, i);
        if (place)
            places[n++] = place;
    }
    qsort(places, n, sizeof(*places), compare_places);
    for (uint32_t i = 1; i < n; i++)
        if (places[i] - places[i - 1] < (uint64_t)b->block_size + extra)
            return -EUCLEAN;
    return 0;
}

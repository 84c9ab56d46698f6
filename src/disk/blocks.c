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

/* A part of a request that goes to the file, or to what the disk is based on. */
struct part {
    struct disk_request *whole;
    struct disk_io_op op;
    struct disk_request behind;
    struct iovec iov[];
};

/* How much is copied at once where a block begins with what is behind. */
#define COPY_PIECE (1u << 20)

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

enum { BEHIND, IS_ZEROS, IN_FILE };

/* What is at byte `at`, and how far, up to *length and the block's end. -errno, or one of these. */
static int find(struct blocks *b, uint64_t at, uint64_t *length, uint64_t *place)
{
    uint64_t rest = b->block_size - (at & (b->block_size - 1));
    uint32_t i = (uint32_t)(at / b->block_size);

    if (rest < *length)
        *length = rest;
    if (!place_of(b, at, place))
        return b->differs && !(b->ops->zeros && b->ops->zeros(b, i)) ? BEHIND : IS_ZEROS;
    if (!b->differs || !b->ops->has)
        return IN_FILE;
    int rc = b->ops->has(b, at, length);
    return rc < 0 ? rc : rc ? IN_FILE : BEHIND;
}

int blocks_extent(struct disk *disk, uint64_t offset, uint64_t length, struct disk_extent *out)
{
    struct blocks *b = blocks_of(disk);
    uint64_t place;
    int what = find(b, offset, &length, &place);
    bool hole = false;

    if (what < 0)
        return what;
    if (what == IN_FILE)
        length = disk_alike_at(disk->fd, place, length, &hole);
    *out = (struct disk_extent){.kind = what == IN_FILE && !hole ? DISK_EXTENT_DATA : DISK_EXTENT_ZEROS,
                                .allocated = what == IN_FILE || (what == IS_ZEROS && b->differs),
                                .disk = disk,
                                .length = length,
                                .offset = place};
    return 0;
}

static int read_behind_now(const struct blocks *b, uint64_t at, void *buf, size_t len)
{
    if (b->disk.backing)
        return disk_read_now(b->disk.backing, b->backing_at + at, buf, len);
    memset(buf, 0, len);
    return 0;
}

int blocks_read(struct disk *disk, uint64_t offset, void *buf, size_t len)
{
    struct blocks *b = blocks_of(disk);
    uint8_t *to = buf;

    while (len) {
        uint64_t place, n = len;
        int rc = find(b, offset, &n, &place);
        if (rc == IN_FILE)
            rc = disk_read_at(disk->fd, to, n, place);
        else if (rc == BEHIND)
            rc = read_behind_now(b, offset, to, n);
        else if (rc == IS_ZEROS)
            memset(to, 0, n);
        if (rc < 0)
            return rc;
        to += n;
        offset += n;
        len -= n;
    }
    return 0;
}

/* Copies what is behind, from `from` up to `to`, to its place in the file; `fresh`: where zeros are. */
static int copy_behind(struct blocks *b, uint64_t from, uint64_t to, bool fresh)
{
    cleanup_free uint8_t *buf = from < to ? malloc(COPY_PIECE) : NULL;
    int rc = from < to && !buf ? -ENOMEM : 0;
    uint64_t place;

    for (uint64_t n; from < to && rc == 0; from += n) {
        n = to - from < COPY_PIECE ? to - from : COPY_PIECE;
        rc = read_behind_now(b, from, buf, n);
        if (rc == 0 && !(fresh && disk_is_zero(buf, n)) && place_of(b, from, &place))
            rc = disk_write_at(b->disk.fd, buf, n, place);
    }
    return rc;
}

static uint64_t end_of(const struct blocks *b, uint32_t i)
{
    uint64_t end = (uint64_t)(i + 1ull) * b->block_size;

    return end < b->disk.size ? end : b->disk.size;
}

/* Has all of block `i` in the file, of which some may be; where a sector was not, anything may lie. */
static int fill(struct blocks *b, uint32_t i)
{
    bool all = true;
    int rc = 0;

    for (uint64_t at = (uint64_t)i * b->block_size, end = end_of(b, i), n; at < end && rc == 0; at += n) {
        uint64_t place;
        n = end - at;
        int what = find(b, at, &n, &place);
        if (what < 0)
            return what;
        if (what != BEHIND)
            continue;
        all = false;
        rc = copy_behind(b, at, at + n, false);
    }
    if (rc || all)
        return rc;
    rc = disk_sync_now(b->disk.io, b->disk.file);
    return rc ? rc : b->ops->filled(b, i);
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

/* Gives block `i` a place, with `len` bytes of its content, from `at` on: `n` pieces, or zeros if there are
 * none. The rest is what it was. */
static int take(struct blocks *b, uint32_t i, uint64_t at, uint64_t len, const struct iovec *iov, unsigned n)
{
    uint32_t before = b->map[i];
    uint64_t end = b->end;

    /* What an earlier end has left there is not zeros. */
    if (!b->taken && ftruncate(b->disk.fd, (off_t)b->end) < 0)
        return -errno;
    b->taken = true;
    uint64_t place, first = (uint64_t)i * b->block_size;
    bool behind = b->differs && !(b->ops->zeros && b->ops->zeros(b, i));
    int rc = b->ops->take(b, i);
    if (rc == 0 && n && place_of(b, at, &place))
        rc = disk_writev_at(b->disk.fd, iov, n, place);
    if (rc == 0 && behind)
        rc = copy_behind(b, first, at, true);
    if (rc == 0 && behind)
        rc = copy_behind(b, at + len, end_of(b, i), true);
    if (rc)
        untake(b, i, before, end);
    return rc;
}

static int touch(struct blocks *b, uint64_t at)
{
    uint32_t i = (uint32_t)(at / b->block_size);
    int rc = b->ops->touch ? b->ops->touch(b, i) : 0;

    return rc == 0 && b->differs && b->ops->has ? fill(b, i) : rc;
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

static void put(struct disk_request *r)
{
    disk_request_put(r, blocks_of(r->disk)->submitting);
}

static void end_part(struct part *part, int result)
{
    struct disk_request *r = part->whole;
    struct blocks *b = blocks_of(r->disk);

    free(part);
    if (result && !r->result)
        r->result = result;
    if (r->paused && r->pending <= PARTS_MAX / 2) {
        r->paused = false;
        go_on(b, r);
    }
    put(r);
}

static void part_done(struct disk_io_op *op, int result)
{
    /* A file system that can't free what is not needed keeps it. */
    end_part(container_of(op, struct part, op), op->kind == DISK_IO_PUNCH && result != -EIO ? 0 : result);
}

static void behind_done(struct disk_request *behind, int result)
{
    end_part(container_of(behind, struct part, behind), result);
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

/* Reads up to *length bytes at r->at from what the disk is based on; *length becomes how many. */
static int read_behind(struct blocks *b, struct disk_request *r, uint64_t *length)
{
    struct disk *behind = b->disk.backing;
    uint64_t skip = r->at - r->offset, at = b->backing_at + r->at;

    if (!behind || at >= behind->size) {
        disk_iov_fill(r->iov, r->n_iov, skip, *length, NULL);
        return 0;
    }
    if (*length > behind->size - at)
        *length = behind->size - at;
    int rc = disk_find_owner(&behind, at, length);
    if (rc)
        return rc;
    struct part *part = malloc(sizeof(*part) + r->n_iov * sizeof(struct iovec));
    if (!part)
        return -ENOMEM;
    part->whole = r;
    part->behind = (struct disk_request){
        .kind = DISK_READ, .offset = at, .length = *length, .iov = part->iov, .done = behind_done};
    part->behind.n_iov = disk_iov_slice(r->iov, r->n_iov, skip, *length, part->iov);
    r->pending++;
    disk_submit(behind, &part->behind);
    return 0;
}

static int read_step(struct blocks *b, struct disk_request *r)
{
    struct iovec iov[DISK_IOV_MAX];
    uint64_t n = left(r), skip = r->at - r->offset, place;
    int rc = find(b, r->at, &n, &place);

    if (rc == IN_FILE)
        rc = start(b, r, DISK_IO_READ, place, n, iov, disk_iov_slice(r->iov, r->n_iov, skip, n, iov));
    else if (rc == BEHIND)
        rc = read_behind(b, r, &n);
    else if (rc == IS_ZEROS)
        disk_iov_fill(r->iov, r->n_iov, skip, n, NULL);
    r->at += n;
    return rc < 0 ? rc : 0;
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
        rc = take(b, i, r->at, n, iov, pieces);
        if (rc == 0)
            blocks_changed(b, i);
    }
    r->at += n;
    return rc;
}

/* Zeros where there is no block: they are to be in one if anything is behind. */
static int zero_nowhere(struct blocks *b, struct disk_request *r)
{
    uint64_t n = in_block(b, r), rest = n, place;
    uint32_t i = (uint32_t)(r->at / b->block_size);
    int rc = find(b, r->at, &rest, &place) == BEHIND ? take(b, i, r->at, n, NULL, 0) : 0;

    if (rc == 0 && place_of(b, r->at, &place))
        blocks_changed(b, i);
    r->at += n;
    return rc;
}

static int zero_step(struct blocks *b, struct disk_request *r)
{
    struct iovec iov[ZEROS_AT_ONCE];
    uint64_t n = in_block(b, r), given = 0, place;
    unsigned pieces = 0;
    bool there = place_of(b, r->at, &place);

    if (!there)
        return zero_nowhere(b, r);
    int rc = touch(b, r->at);
    if (rc) {
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

/* What is behind is seen where there is no block: that may be, and takes no space. */
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

    r->op = (struct disk_io_op){.kind = rc ? DISK_IO_NONE : DISK_IO_SYNC,
                                .file = b->disk.file,
                                .result = rc,
                                .done = disk_request_completed};
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

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The format `raw`: the file's bytes are the disk's. Holes stay holes: what is discarded is given back to the
 * file system, zeros are written by asking it for zeros. Files and block devices.
 */
#include "base/bytes.h"
#include "base/error.h"
#include "disk/disk_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where the file system knows no zeroing, zeros are written in pieces of this many bytes. */
#define ZEROS 65536u
static const uint8_t zeros[ZEROS];

#define GRANULARITY 4096u

static struct disk_request *request_of(struct disk_io_op *op)
{
    return container_of(op, struct disk_request, op);
}

static void raw_done(struct disk_io_op *op, int result)
{
    struct disk_request *request = request_of(op);

    request->done(request, result);
}

static bool not_supported(int result)
{
    return result == -EOPNOTSUPP || result == -ENOSYS || result == -EINVAL || result == -ENODEV ||
           result == -ENOTTY;
}

/* A file system that can't free what is not needed keeps it. */
static void raw_discarded(struct disk_io_op *op, int result)
{
    raw_done(op, not_supported(result) ? 0 : result);
}

/* Writes the next zeros of a request, from request->at on. */
static void raw_write_zeros(struct disk_io_op *op, int result)
{
    struct disk_request *request = request_of(op);
    uint64_t left = request->offset + request->length - request->at;

    if (result < 0 || !left) {
        raw_done(op, result);
        return;
    }
    request->piece =
        (struct iovec){.iov_base = (void *)(uintptr_t)zeros, .iov_len = left < ZEROS ? left : ZEROS};
    op->kind = DISK_IO_WRITE;
    op->offset = request->at;
    op->length = request->piece.iov_len;
    op->iov = &request->piece;
    op->n_iov = 1;
    op->done = raw_write_zeros;
    request->at += op->length;
    disk_io_submit(request->disk->io, op);
}

static void raw_zeroed(struct disk_io_op *op, int result)
{
    struct disk_request *request = request_of(op);

    if (!not_supported(result)) {
        raw_done(op, result);
        return;
    }
    if (request->fast) {
        raw_done(op, -EOPNOTSUPP);
        return;
    }
    request->at = request->offset;
    raw_write_zeros(op, 0);
}

static void raw_submit(struct disk *disk, struct disk_request *request)
{
    struct disk_io_op *op = &request->op;

    *op = (struct disk_io_op){.file = disk->file,
                              .offset = request->offset,
                              .length = request->length,
                              .iov = request->iov,
                              .n_iov = request->n_iov,
                              .done = raw_done};
    switch (request->kind) {
    case DISK_READ:
        op->kind = DISK_IO_READ;
        break;
    case DISK_WRITE:
        op->kind = DISK_IO_WRITE;
        break;
    case DISK_FLUSH:
        op->kind = DISK_IO_SYNC;
        break;
    case DISK_DISCARD:
        op->kind = DISK_IO_PUNCH;
        op->done = raw_discarded;
        break;
    case DISK_WRITE_ZEROES:
        op->kind = request->unmap ? DISK_IO_PUNCH : DISK_IO_ZERO;
        op->done = raw_zeroed;
        break;
    }
    disk_io_submit(disk->io, op);
}

static int raw_read(struct disk *disk, uint64_t offset, void *buf, size_t len)
{
    return disk_read_at(disk->fd, buf, len, offset);
}

static int raw_close(struct disk *disk)
{
    int rc = disk->read_only ? 0 : disk_sync_now(disk->io, disk->file);

    free(disk);
    return rc;
}

static int raw_open(struct disk **out, const struct disk *common, struct error **err)
{
    off_t end = lseek(common->fd, 0, SEEK_END);

    if (end < 0)
        return error_set_errno(err, errno, "finding out its size");
    if (end == 0)
        return error_set(err, EINVAL, "is empty: a disk has at least one sector of 512 bytes");
    if (end > INT64_MAX - GRANULARITY)
        return error_set(err, EFBIG, "is too large");
    struct disk *disk = malloc(sizeof(*disk));
    if (!disk)
        return error_set_errno(err, ENOMEM, "opening it");
    *disk = *common;
    /* The last sector may be there in part: the rest of it reads as zeros. */
    disk->size = ALIGN_UP((uint64_t)end, DISK_SECTOR);
    disk->granularity = GRANULARITY;
    *out = disk;
    return 0;
}

static int raw_extent(struct disk *disk, uint64_t offset, uint64_t length, struct disk_extent *out)
{
    bool hole;
    uint64_t alike = disk_alike_at(disk->fd, offset, length, &hole);

    *out = (struct disk_extent){.kind = hole ? DISK_EXTENT_ZEROS : DISK_EXTENT_DATA,
                                .allocated = true,
                                .disk = disk,
                                .length = alike,
                                .offset = offset};
    return 0;
}

static int raw_describe(int fd, struct disk_info *info, struct error **err)
{
    off_t end = lseek(fd, 0, SEEK_END);

    if (end < 0)
        return error_set_errno(err, errno, "finding out its size");
    info->size = ALIGN_UP((uint64_t)end, DISK_SECTOR);
    return 0;
}

/* ---- making one ---- */

static int raw_build_begin(struct disk_build *build, struct error **err)
{
    const struct disk_create *what = build->what;

    if (what->backing)
        return error_set(err, EINVAL, "a raw image can't be based on another");
    if (what->cluster_size || what->compression || what->subformat || what->compress)
        return error_set(err, EINVAL, "the format raw has no options and no compression");
    if (ftruncate(build->fd, (off_t)what->size) < 0)
        return error_set_errno(err, errno, "setting its size");
    build->unit = GRANULARITY;
    return 0;
}

static int raw_build_place(struct disk_build *build, uint64_t index, uint32_t length, bool packed,
                           uint64_t *offset)
{
    *offset = index * GRANULARITY;
    return 0;
}

static int raw_build_end(struct disk_build *build)
{
    return 0;
}

static const struct disk_build_ops raw_build = {
    .begin = raw_build_begin, .place = raw_build_place, .end = raw_build_end};

static int raw_resize(struct disk *disk, uint64_t size, struct error **err)
{
    struct stat st;

    if (fstat(disk->fd, &st) < 0)
        return error_set_errno(err, errno, "changing its size");
    if (!S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "is a block device: its size is what that has");
    if (ftruncate(disk->fd, (off_t)size) < 0)
        return error_set_errno(err, errno, "changing its size");
    disk->size = size;
    int rc = disk_sync_now(disk->io, disk->file);
    return rc ? error_set_errno(err, -rc, "changing its size") : 0;
}

const struct disk_format disk_format_raw = {
    .name = "raw",
    .open = raw_open,
    .submit = raw_submit,
    .read = raw_read,
    .close = raw_close,
    .extent = raw_extent,
    .describe = raw_describe,
    .build = &raw_build,
    .resize = raw_resize,
};

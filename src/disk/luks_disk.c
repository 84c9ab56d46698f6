/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The format `luks`: a header (luks.c), then the disk, encrypted. All of it is there: what was never written
 * reads as noise, so a new image is filled with zeros where it is made of another. What is discarded stays,
 * for holes would tell where nothing is.
 *
 * Requests go through memory of ours, a piece at a time, for neither may a guest see what is encrypted nor
 * change what is being encrypted. The disk's thread; no locks.
 */
#include "disk/luks.h"

#include "base/bytes.h"
#include "base/error.h"
#include "disk/disk_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE       (256u << 10)
#define UNIT        65536u
#define GRANULARITY 4096u

struct luks_disk {
    struct disk disk;
    struct luks luks;
};

/* A request that is under way, and its piece. */
struct work {
    struct disk_request *request;
    struct disk_io_op op;
    struct iovec iov;
    uint32_t length;
    uint8_t buf[];
};

static struct luks_disk *luks_of(const struct disk *disk)
{
    return (struct luks_disk *)(uintptr_t)container_of(disk, struct luks_disk, disk);
}

/* ---- reading at once ---- */

static int read_now(struct disk *disk, uint64_t offset, void *buf, size_t len)
{
    const struct luks_disk *l = luks_of(disk);

    return luks_read(&l->luks.cipher, disk->fd, l->luks.payload, offset, buf, len);
}

static int extent(struct disk *disk, uint64_t offset, uint64_t length, struct disk_extent *out)
{
    *out = (struct disk_extent){.kind = DISK_EXTENT_PACKED,
                                .allocated = true,
                                .encrypted = true,
                                .disk = disk,
                                .length = length,
                                .entry = offset};
    return 0;
}

static int unpack(const struct disk_extent *e, uint8_t *buf)
{
    return read_now((struct disk *)(uintptr_t)e->disk, e->entry + e->skip, buf, e->length);
}

/* ---- requests ---- */

static void piece_done(struct disk_io_op *op, int result);

/* Begins with the piece at r->at. 0 or -errno. */
static int begin_piece(struct work *w)
{
    struct disk_request *r = w->request;
    const struct luks_disk *l = luks_of(r->disk);
    uint64_t left = r->offset + r->length - r->at;
    int rc = 0;

    w->length = (uint32_t)(left < PIECE ? left : PIECE);
    if (r->kind == DISK_WRITE)
        disk_iov_gather(r->iov, r->n_iov, r->at - r->offset, w->buf, w->length);
    else if (r->kind == DISK_WRITE_ZEROES)
        memset(w->buf, 0, w->length);
    if (r->kind != DISK_READ)
        rc = luks_cipher_run(&l->luks.cipher, true, r->at / LUKS_SECTOR, w->buf, w->length);
    if (rc)
        return rc;
    w->iov = (struct iovec){w->buf, w->length};
    w->op = (struct disk_io_op){.kind = r->kind == DISK_READ ? DISK_IO_READ : DISK_IO_WRITE,
                                .file = r->disk->file,
                                .offset = l->luks.payload + r->at,
                                .length = w->length,
                                .iov = &w->iov,
                                .n_iov = 1,
                                .done = piece_done};
    disk_io_submit(r->disk->io, &w->op);
    return 0;
}

static void piece_done(struct disk_io_op *op, int result)
{
    struct work *w = container_of(op, struct work, op);
    struct disk_request *r = w->request;
    const struct luks_disk *l = luks_of(r->disk);

    if (result == 0 && r->kind == DISK_READ) {
        result = luks_cipher_run(&l->luks.cipher, false, r->at / LUKS_SECTOR, w->buf, w->length);
        if (result == 0)
            disk_iov_fill(r->iov, r->n_iov, r->at - r->offset, w->length, w->buf);
    }
    r->at += w->length;
    if (result == 0 && r->at < r->offset + r->length) {
        result = begin_piece(w);
        if (result == 0)
            return;
    }
    free(w);
    r->done(r, result);
}

static void submit(struct disk *disk, struct disk_request *r)
{
    bool moves = r->kind != DISK_FLUSH && r->kind != DISK_DISCARD;
    struct work *w = moves ? malloc(sizeof(*w) + (r->length < PIECE ? r->length : PIECE)) : NULL;
    int rc = moves && !w ? -ENOMEM : 0;

    r->at = r->offset;
    if (w) {
        w->request = r;
        rc = begin_piece(w);
        if (rc == 0)
            return;
        free(w);
    }
    r->op = (struct disk_io_op){.kind = r->kind == DISK_FLUSH ? DISK_IO_SYNC : DISK_IO_NONE,
                                .file = disk->file,
                                .result = rc,
                                .done = disk_request_completed};
    disk_io_submit(disk->io, &r->op);
}

/* ---- opening ---- */

static int content_size(int fd, uint64_t payload, uint64_t *size, struct error **err)
{
    off_t end = lseek(fd, 0, SEEK_END);

    if (end < 0)
        return error_set_errno(err, errno, "finding out its size");
    if ((uint64_t)end < payload + DISK_SECTOR)
        return error_set(err, EINVAL, "is cut off: it ends before its content");
    *size = ALIGN_DOWN((uint64_t)end - payload, (uint64_t)DISK_SECTOR);
    return 0;
}

static int close_luks(struct disk *disk)
{
    struct luks_disk *l = luks_of(disk);
    int rc = disk->read_only ? 0 : disk_sync_now(disk->io, disk->file);

    luks_close(&l->luks);
    free(l);
    return rc;
}

static int open_luks(struct disk **out, const struct disk *common, struct error **err)
{
    struct luks_disk *l = calloc(1, sizeof(*l));

    if (!l)
        return error_set_errno(err, ENOMEM, "opening it");
    l->disk = *common;
    l->disk.granularity = GRANULARITY;
    int rc = luks_open(&l->luks, common->fd, 0, common->files->secret, err);
    if (rc == 0)
        rc = content_size(common->fd, l->luks.payload, &l->disk.size, err);
    if (rc) {
        luks_close(&l->luks);
        free(l);
        return rc;
    }
    *out = &l->disk;
    return 0;
}

static int describe(int fd, struct disk_info *info, struct error **err)
{
    uint64_t payload = 0;
    int rc = luks_describe(fd, 0, info, &payload, err);

    return rc ? rc : content_size(fd, payload, &info->size, err);
}

/* ---- making one ---- */

struct builder {
    struct luks luks;
    uint8_t header[LUKS_HEADER];
};

static int begin(struct disk_build *build, struct error **err)
{
    const struct disk_create *what = build->what;

    if (what->backing)
        return error_set(err, EINVAL, "a LUKS image can't be based on another");
    if (what->cluster_size || what->compression || what->subformat || what->compress)
        return error_set(err, EINVAL,
                         "the format luks has no compression, and no options but encrypt.key-file and "
                         "encrypt.iter-time");
    if (!what->key_file)
        return error_set(err, EINVAL, "a LUKS image needs a secret: -o encrypt.key-file=FILE");
    if (what->size > INT64_MAX - LUKS_HEADER)
        return error_set(err, EFBIG, "is too large");
    struct builder *b = calloc(1, sizeof(*b));
    build->own = b;
    int rc = b ? luks_format(&b->luks, b->header, what, err) : error_set_errno(err, ENOMEM, "its header");
    build->unit = UNIT;
    build->every = true;
    build->seals = true;
    return rc;
}

static int place(struct disk_build *build, uint64_t index, uint32_t length, bool packed, uint64_t *offset)
{
    *offset = LUKS_HEADER + index * UNIT;
    return 0;
}

static int seal(const struct disk_build *build, uint8_t *bytes, size_t len, uint64_t offset)
{
    const struct builder *b = build->own;

    return luks_cipher_run(&b->luks.cipher, true, (offset - LUKS_HEADER) / LUKS_SECTOR, bytes, len);
}

static int end(struct disk_build *build)
{
    const struct builder *b = build->own;
    int rc = disk_write_at(build->fd, b->header, LUKS_HEADER, 0);

    if (rc == 0 && ftruncate(build->fd, (off_t)(LUKS_HEADER + build->what->size)) < 0)
        rc = -errno;
    return rc;
}

static void free_builder(struct disk_build *build)
{
    struct builder *b = build->own;

    if (b)
        explicit_bzero(b, sizeof(*b));
    free(b);
}

static const struct disk_build_ops luks_build = {
    .encrypts = true, .begin = begin, .place = place, .seal = seal, .end = end, .free = free_builder};

const struct disk_format disk_format_luks = {
    .name = "luks",
    .open = open_luks,
    .submit = submit,
    .read = read_now,
    .close = close_luks,
    .extent = extent,
    .unpack = unpack,
    .describe = describe,
    .build = &luks_build,
};

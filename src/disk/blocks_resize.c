/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Other sizes for images of blocks.h. Larger: the format makes room in its table and has its header say so,
 * which is one step. Smaller: first the header says so; then blocks from the file's end go to places that
 * have become free, and the file becomes shorter:
 *
 *     header | sync | content of the blocks | sync | their entries | sync | end of the file
 *
 * An end at any moment leaves the old size or the new one, and space that is lost at worst. The disk's
 * thread; no locks.
 */
#include "disk/blocks.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE (1u << 20)

/* A block of the file: where its content is, and what its entry is or was. */
struct slot {
    uint64_t at;
    uint32_t block, entry;
};

static int compare_slots(const void *a, const void *b)
{
    const struct slot *x = a, *y = b;

    return x->at < y->at ? -1 : x->at > y->at;
}

static int write_zeros(const struct blocks *b, uint64_t at, uint64_t len)
{
    if (fallocate(b->disk.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)len) == 0)
        return 0;
    cleanup_free uint8_t *zeros = calloc(1, PIECE);
    int rc = zeros ? 0 : -ENOMEM;
    while (len && rc == 0) {
        uint64_t n = len < PIECE ? len : PIECE;
        rc = disk_write_at(b->disk.fd, zeros, n, at);
        at += n;
        len -= n;
    }
    return rc;
}

/* What the last block has behind the disk's end is to be seen if the disk becomes larger. */
static int clear_rest(struct blocks *b)
{
    uint64_t skip = b->disk.size & (b->block_size - 1);
    uint32_t last = (uint32_t)(b->disk.size / b->block_size);
    uint64_t at = skip && last < b->n ? b->ops->where(b, last) : 0;
    int rc = 0;

    if (!at)
        return 0;
    if (b->ops->touch)
        rc = b->ops->touch(b, last);
    return rc ? rc : write_zeros(b, at + skip, b->block_size - skip);
}

static int grow(struct blocks *b, uint64_t size, uint32_t n, struct error **err)
{
    uint32_t *map = realloc(b->map, 4 * (size_t)n + 1);

    if (!map)
        return error_set_errno(err, ENOMEM, "changing its size");
    b->map = map;
    for (uint32_t i = b->n; i < n; i++)
        map[i] = b->ops->nowhere;
    int rc = clear_rest(b);
    if (rc == 0)
        rc = disk_sync_now(b->disk.io, b->disk.file);
    if (rc)
        return error_set_errno(err, -rc, "changing its size");
    rc = b->ops->resize(b, size, n, err);
    if (rc == 0)
        b->n = n;
    return rc;
}

/* With what the format has before it. */
static int copy_block(const struct blocks *b, uint64_t from, uint64_t to)
{
    uint64_t len = (uint64_t)b->block_size + b->before;
    cleanup_free uint8_t *piece = malloc(PIECE);
    int rc = piece ? 0 : -ENOMEM;

    for (uint64_t at = 0; at < len && rc == 0; at += PIECE) {
        uint64_t n = len - at < PIECE ? len - at : PIECE;
        rc = disk_read_at(b->disk.fd, piece, n, from - b->before + at);
        if (rc == 0)
            rc = disk_write_at(b->disk.fd, piece, n, to - b->before + at);
    }
    return rc;
}

/* Blocks from the end take the places of those that are gone. `slots`: room for all. */
static int fill_places(struct blocks *b, uint32_t before, struct slot *slots)
{
    uint32_t n_free = 0, n_used = 0;
    struct slot *used;
    int rc = 0;

    for (uint32_t i = b->n; i < before; i++)
        if (b->ops->where(b, i))
            slots[n_free++] = (struct slot){b->ops->where(b, i), i, b->map[i]};
    used = slots + n_free;
    for (uint32_t i = 0; i < b->n; i++)
        if (b->ops->where(b, i))
            used[n_used++] = (struct slot){b->ops->where(b, i), i, b->map[i]};
    qsort(slots, n_free, sizeof(*slots), compare_slots);
    qsort(used, n_used, sizeof(*used), compare_slots);
    for (uint32_t k = 0; k < n_free && n_used && slots[k].at < used[n_used - 1].at && rc == 0; k++) {
        const struct slot *moved = &used[--n_used];
        rc = copy_block(b, moved->at, slots[k].at);
        if (rc == 0) {
            b->map[moved->block] = slots[k].entry;
            blocks_changed(b, moved->block);
        }
    }
    return rc;
}

static void find_end(struct blocks *b)
{
    b->end = b->ops->own_end(b);
    for (uint32_t i = 0; i < b->n; i++) {
        uint64_t at = b->ops->where(b, i);
        if (at && at + b->block_size > b->end)
            b->end = at + b->block_size;
    }
}

static int shrink(struct blocks *b, uint64_t size, uint32_t n, struct error **err)
{
    uint32_t before = b->n;
    cleanup_free struct slot *slots = malloc(((size_t)before + 1) * sizeof(*slots));
    int rc = slots ? 0 : error_set_errno(err, ENOMEM, "changing its size");

    if (rc == 0)
        rc = b->ops->resize(b, size, n, err);
    if (rc)
        return rc;
    b->n = n;
    b->disk.size = size;
    /* The disk has its new size. Where one of these fails, only space is lost. */
    rc = clear_rest(b);
    if (rc == 0)
        rc = fill_places(b, before, slots);
    int written = blocks_write_map(b);
    if (rc || written || disk_sync_now(b->disk.io, b->disk.file))
        return written ? error_set_errno(err, -written, "writing its table") : 0;
    find_end(b);
    if (b->ops->untaken)
        b->ops->untaken(b);
    /* The same: what is behind the end is found by a check. */
    (void)!(b->ops->cut ? b->ops->cut(b, b->disk.fd) : ftruncate(b->disk.fd, (off_t)b->end));
    return 0;
}

int blocks_resize(struct disk *disk, uint64_t size, struct error **err)
{
    struct blocks *b = container_of(disk, struct blocks, disk);
    uint64_t n = size / b->block_size + (size % b->block_size != 0);

    if (b->differs)
        return error_set(err, ENOTSUP,
                         "is based on another image, and can't have another size than that: 'tabique disk "
                         "convert' makes one that can");
    int rc = blocks_write_map(b);
    if (rc)
        return error_set_errno(err, -rc, "writing its table");
    if (n > b->ops->max)
        return error_set(err, EFBIG, "a size of %" PRIu64 " bytes is too large: %" PRIu64 " at most", size,
                         (uint64_t)b->ops->max * b->block_size);
    rc = size > disk->size ? grow(b, size, (uint32_t)n, err) : shrink(b, size, (uint32_t)n, err);
    if (rc == 0)
        disk->size = size;
    /* The next block begins with what is behind the end now. */
    b->taken = false;
    return rc;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compressed clusters. They are read here; what is written to one goes to a cluster of its own. qcow2_build.c
 * makes them.
 *
 *     63  62  61..x                          x-1..0      x = 62 - (cluster_bits - 8)
 *     0   1   sectors beyond the first one   offset, of any alignment
 *
 * The disk's thread; no locks.
 */
#include "disk/qcow2_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "disk/luks.h"

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

void qcow2_packed_place(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint32_t *length)
{
    unsigned x = 62 - (q->cluster_bits - 8);
    uint64_t at = entry & ((1ull << x) - 1), sectors = ((entry & (QCOW2_COMPRESSED - 1)) >> x) + 1;

    *offset = at;
    *length = (uint32_t)(sectors * DISK_SECTOR - (at & (DISK_SECTOR - 1)));
}

static int unpack_zlib(uint8_t *packed, uint32_t length, uint8_t *out, uint32_t size)
{
    z_stream z = {.next_in = packed, .avail_in = length, .next_out = out, .avail_out = size};

    if (inflateInit2(&z, -MAX_WBITS) != Z_OK)
        return -ENOMEM;
    int rc = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    /* The data may go on with what is not ours, or end without saying so: what counts is a whole cluster. */
    return (rc == Z_STREAM_END || rc == Z_BUF_ERROR) && !z.avail_out ? 0 : -EIO;
}

/* One or more whole frames, with something else behind the last. The output is their window too, so a frame
 * can't ask for memory. */
static int unpack_zstd(const uint8_t *packed, uint32_t length, uint8_t *to, uint32_t size)
{
    ZSTD_DCtx *context = ZSTD_createDCtx();
    size_t in = 0, out = 0;

    if (!context)
        return -ENOMEM;
    while (out < size) {
        size_t frame = ZSTD_findFrameCompressedSize(packed + in, length - in);
        if (ZSTD_isError(frame))
            break;
        size_t n = ZSTD_decompressDCtx(context, to + out, size - out, packed + in, frame);
        if (ZSTD_isError(n))
            break;
        in += frame;
        out += n;
        if (in == length)
            break;
    }
    ZSTD_freeDCtx(context);
    return out == size ? 0 : -EIO;
}

/* Touches nothing of `q` that changes. `packed` has room for two clusters. */
static int unpack_to(const struct qcow2 *q, uint64_t entry, uint8_t *packed, uint8_t *out)
{
    uint64_t offset;
    uint32_t length;

    qcow2_packed_place(q, entry, &offset, &length);
    int rc = disk_read_at(q->disk.fd, packed, length, offset);
    if (rc)
        return rc;
    return q->compression == QCOW2_ZSTD ? unpack_zstd(packed, length, out, q->cluster_size)
                                        : unpack_zlib(packed, length, out, q->cluster_size);
}

int qcow2_unpack(struct qcow2 *q, uint64_t entry)
{
    if (q->unpacked_entry == entry)
        return 0;
    q->unpacked_entry = 0;
    if (!q->packed)
        q->packed = malloc(2 * (size_t)q->cluster_size);
    if (!q->unpacked)
        q->unpacked = malloc(q->cluster_size);
    if (!q->packed || !q->unpacked)
        return -ENOMEM;
    int rc = unpack_to(q, entry, q->packed, q->unpacked);
    if (rc == 0)
        q->unpacked_entry = entry;
    return rc;
}

int qcow2_unpack_extent(const struct disk_extent *e, uint8_t *buf)
{
    const struct qcow2 *q = container_of(e->disk, struct qcow2, disk);
    bool whole = !e->skip && e->length == q->cluster_size;

    if (e->encrypted)
        return luks_read(&q->crypt->cipher, q->data_fd, 0, e->entry + e->skip, buf, e->length);
    cleanup_free uint8_t *packed = malloc(2 * (size_t)q->cluster_size);
    cleanup_free uint8_t *all = whole ? NULL : malloc(q->cluster_size);

    if (!packed || (!whole && !all))
        return -ENOMEM;
    int rc = unpack_to(q, e->entry, packed, whole ? buf : all);
    if (rc == 0 && !whole)
        memcpy(buf, all + e->skip, e->length);
    return rc;
}

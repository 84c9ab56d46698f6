/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compressed clusters. They are read, never made: what is written to one goes to a cluster of its own.
 *
 *     63  62  61..x                          x-1..0      x = 62 - (cluster_bits - 8)
 *     0   1   sectors beyond the first one   offset, of any alignment
 *
 * The disk's thread; no locks.
 */
#include "disk/qcow2_priv.h"

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

static int unpack_zlib(struct qcow2 *q, uint32_t length)
{
    z_stream z = {
        .next_in = q->packed, .avail_in = length, .next_out = q->unpacked, .avail_out = q->cluster_size};

    if (inflateInit2(&z, -MAX_WBITS) != Z_OK)
        return -ENOMEM;
    int rc = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    /* The data may go on with what is not ours, or end without saying so: what counts is a whole cluster. */
    return (rc == Z_STREAM_END || rc == Z_BUF_ERROR) && !z.avail_out ? 0 : -EIO;
}

/* One or more whole frames, with something else behind the last. The output is their window too, so a frame
 * can't ask for memory. */
static int unpack_zstd(struct qcow2 *q, uint32_t length)
{
    ZSTD_DCtx *context = ZSTD_createDCtx();
    size_t in = 0, out = 0;

    if (!context)
        return -ENOMEM;
    while (out < q->cluster_size) {
        size_t frame = ZSTD_findFrameCompressedSize(q->packed + in, length - in);
        if (ZSTD_isError(frame))
            break;
        size_t n =
            ZSTD_decompressDCtx(context, q->unpacked + out, q->cluster_size - out, q->packed + in, frame);
        if (ZSTD_isError(n))
            break;
        in += frame;
        out += n;
        if (in == length)
            break;
    }
    ZSTD_freeDCtx(context);
    return out == q->cluster_size ? 0 : -EIO;
}

int qcow2_unpack(struct qcow2 *q, uint64_t entry)
{
    uint64_t offset;
    uint32_t length;

    if (q->unpacked_entry == entry)
        return 0;
    q->unpacked_entry = 0;
    qcow2_packed_place(q, entry, &offset, &length);
    if (!q->packed)
        q->packed = malloc(2 * (size_t)q->cluster_size);
    if (!q->unpacked)
        q->unpacked = malloc(q->cluster_size);
    if (!q->packed || !q->unpacked)
        return -ENOMEM;
    int rc = disk_read_at(q->disk.fd, q->packed, length, offset);
    if (rc == 0)
        rc = q->compression == QCOW2_ZSTD ? unpack_zstd(q, length) : unpack_zlib(q, length);
    if (rc == 0)
        q->unpacked_entry = entry;
    return rc;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compressing pieces of a disk for new images: what a thread needs for that, kept from one piece to the next.
 * One thread each; no locks. */
#include "disk/pack.h"

#include "base/bytes.h"

#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

struct disk_packer {
    z_stream z;
    bool has_z;
    int window;
    ZSTD_CCtx *zstd;
};

struct disk_packer *disk_packer_new(void)
{
    return calloc(1, sizeof(struct disk_packer));
}

void disk_packer_free(struct disk_packer *packer)
{
    if (!packer)
        return;
    if (packer->has_z)
        deflateEnd(&packer->z);
    ZSTD_freeCCtx(packer->zstd);
    free(packer);
}

size_t disk_pack_deflate(struct disk_packer *packer, int window, const uint8_t *from, size_t len, uint8_t *to,
                         size_t room)
{
    z_stream *z = &packer->z;

    if (packer->has_z && packer->window != window) {
        deflateEnd(z);
        packer->has_z = false;
    }
    if (!packer->has_z) {
        *z = (z_stream){0};
        if (deflateInit2(z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, window, 9, Z_DEFAULT_STRATEGY) != Z_OK)
            return 0;
        packer->has_z = true;
        packer->window = window;
    } else if (deflateReset(z) != Z_OK) {
        return 0;
    }
    z->next_in = (uint8_t *)(uintptr_t)from;
    z->avail_in = (unsigned)len;
    z->next_out = to;
    z->avail_out = (unsigned)room;
    return deflate(z, Z_FINISH) == Z_STREAM_END ? room - z->avail_out : 0;
}

size_t disk_pack_zstd(struct disk_packer *packer, const uint8_t *from, size_t len, uint8_t *to, size_t room)
{
    if (!packer->zstd)
        packer->zstd = ZSTD_createCCtx();
    if (!packer->zstd)
        return 0;
    size_t n = ZSTD_compress2(packer->zstd, to, room, from, len);
    return ZSTD_isError(n) ? 0 : n;
}

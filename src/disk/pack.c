/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compressing pieces of a disk for new images: what a thread needs for that, kept from one piece to the next.
 * One thread each; no locks. */
#include "disk/pack.h"

#include "base/bytes.h"

#include <libdeflate.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

/* As small as zlib's default makes it, in a third of the time. */
#define DEFLATE_LEVEL 5
/* One below the default: a hundredth larger, in two thirds of the time. */
#define ZSTD_LEVEL 2

struct disk_packer {
    z_stream z;
    bool has_z;
    struct libdeflate_compressor *deflate;
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
    libdeflate_free_compressor(packer->deflate);
    ZSTD_freeCCtx(packer->zstd);
    free(packer);
}

size_t disk_pack_zlib(struct disk_packer *packer, const uint8_t *from, size_t len, uint8_t *to, size_t room)
{
    if (!packer->deflate)
        packer->deflate = libdeflate_alloc_compressor(DEFLATE_LEVEL);
    return packer->deflate ? libdeflate_zlib_compress(packer->deflate, from, len, to, room) : 0;
}

size_t disk_pack_deflate_4k(struct disk_packer *packer, const uint8_t *from, size_t len, uint8_t *to,
                            size_t room)
{
    z_stream *z = &packer->z;

    if (!packer->has_z) {
        *z = (z_stream){0};
        if (deflateInit2(z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) != Z_OK)
            return 0;
        packer->has_z = true;
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
    if (!packer->zstd) {
        packer->zstd = ZSTD_createCCtx();
        if (packer->zstd)
            ZSTD_CCtx_setParameter(packer->zstd, ZSTD_c_compressionLevel, ZSTD_LEVEL);
    }
    if (!packer->zstd)
        return 0;
    size_t n = ZSTD_compress2(packer->zstd, to, room, from, len);
    return ZSTD_isError(n) ? 0 : n;
}

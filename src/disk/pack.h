/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See pack.c. */
#ifndef TABIQUE_DISK_PACK_H
#define TABIQUE_DISK_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct disk_packer;

/* NULL if there is no memory. */
struct disk_packer *disk_packer_new(void);
void disk_packer_free(struct disk_packer *packer);

/* A stream of zlib's: how many bytes it takes; 0 if that is more than `room`, or there is no memory. */
size_t disk_pack_zlib(struct disk_packer *packer, const uint8_t *from, size_t len, uint8_t *to, size_t room);
/* Without its header, for readers that look back no further than 4 KiB; in the same way. */
size_t disk_pack_deflate_4k(struct disk_packer *packer, const uint8_t *from, size_t len, uint8_t *to,
                            size_t room);
/* One frame, in the same way. */
size_t disk_pack_zstd(struct disk_packer *packer, const uint8_t *from, size_t len, uint8_t *to, size_t room);

#endif

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

/* How many bytes it takes; 0 if that is more than `room`, or there is no memory. `window`: zlib's, 9 to 15
 * with its header, -9 to -15 without. */
size_t disk_pack_deflate(struct disk_packer *packer, int window, const uint8_t *from, size_t len, uint8_t *to,
                         size_t room);
/* One frame, in the same way. */
size_t disk_pack_zstd(struct disk_packer *packer, const uint8_t *from, size_t len, uint8_t *to, size_t room);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Layout of the format vhd. Offsets are within the footer or the header; big-endian. */
#ifndef TABIQUE_DISK_VHD_PRIV_H
#define TABIQUE_DISK_VHD_PRIV_H

#include "disk/disk_priv.h"

#define VHD_FOOTER        512u
#define VHD_HEADER        1024u
#define VHD_COOKIE        "conectix"
#define VHD_HEADER_COOKIE "cxsparse"
#define VHD_NOWHERE       0xffffffffu
#define VHD_SIZE_MAX      (2040ull << 30)
#define VHD_CHS_MAX       (65535ull * 16 * 255) /* sectors */

enum { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFFERENCING = 4 };

enum {
    VHD_AT_FEATURES = 8,
    VHD_AT_VERSION = 12,
    VHD_AT_HEADER = 16,
    VHD_AT_TIME = 24,
    VHD_AT_CREATOR = 28,
    VHD_AT_CREATOR_VERSION = 32,
    VHD_AT_CREATOR_HOST = 36,
    VHD_AT_ORIGINAL_SIZE = 40,
    VHD_AT_SIZE = 48,
    VHD_AT_GEOMETRY = 56, /* cylinders (16 bits), heads, sectors */
    VHD_AT_TYPE = 60,
    VHD_AT_CHECKSUM = 64,
    VHD_AT_ID = 68,
};

enum {
    VHD_AT_NEXT = 8,
    VHD_AT_TABLE = 16,
    VHD_AT_HEADER_VERSION = 24,
    VHD_AT_BLOCKS = 28,
    VHD_AT_BLOCK_SIZE = 32,
    VHD_AT_HEADER_CHECKSUM = 36,
};

/* Of `len` bytes, without those of the checksum itself at `at`. */
uint32_t vhd_checksum(const uint8_t *bytes, size_t len, size_t at);

extern const struct disk_build_ops vhd_build;

#endif

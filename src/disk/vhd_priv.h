/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Layout of the format vhd. Offsets are within the footer or the header; big-endian. */
#ifndef TABIQUE_DISK_VHD_PRIV_H
#define TABIQUE_DISK_VHD_PRIV_H

#include "disk/blocks.h"

#define VHD_FOOTER        512u
#define VHD_HEADER        1024u
#define VHD_COOKIE        "conectix"
#define VHD_HEADER_COOKIE "cxsparse"
#define VHD_NOWHERE       0xffffffffu
#define VHD_SIZE_MAX      (2040ull << 30)
/* Who reads an image that this has made takes its size from the field for that, which is what we mean. */
#define VHD_CREATOR "win "
#define VHD_CHS_MAX (65535ull * 16 * 255) /* sectors */

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
    VHD_AT_PARENT_ID = 40,
    VHD_AT_PARENT_TIME = 56,
    VHD_AT_PARENT_NAME = 64, /* UTF-16, big-endian */
    VHD_AT_LOCATORS = 576,   /* kind (4), space (4), length (4), nothing (4), offset (8) */
};

#define VHD_PARENT_NAME  512u /* bytes */
#define VHD_LOCATORS     8u
#define VHD_LOCATOR      24u       /* bytes each */
#define VHD_LOCATOR_ROOM 4096u     /* of those that are made here */
#define VHD_YEAR_2000    946684800 /* in seconds since 1970 */

struct vhd {
    struct blocks blocks;
    uint64_t table;
    uint32_t bitmap;  /* bytes before each block's content */
    uint8_t *touched; /* a bit for each block whose bits are known to be set */
    uint8_t *bits;    /* in an image that differs: those of block `bits_of` - 1 */
    uint32_t bits_of;
    uint64_t locators; /* the end of what is said of the parent */
    uint8_t footer[VHD_FOOTER];
    bool lost; /* the footer at the end */
};

/* Of `len` bytes, without those of the checksum itself at `at`. */
uint32_t vhd_checksum(const uint8_t *bytes, size_t len, size_t at);

/* Cylinders, heads and sectors for a size, as the specification's appendix has it. */
void vhd_put_geometry(uint8_t *to, uint64_t sectors);

/* The footer at the end or, where a program was cut off while it wrote there, the one at the beginning. 0 or
 * -errno with *err. */
int vhd_find_footer(int fd, uint8_t *footer, uint64_t *file_end, struct error **err);

/* ---- vhd_parent.c: `header` is that of a differencing image ---- */

/* Its parent's path, from its own directory; to be freed. 0 or -errno with *err. */
int vhd_parent_name(int fd, const uint8_t *header, char **out, struct error **err);
/* Where all that it says of its parent ends in the file; whether that shares bytes with these. */
uint64_t vhd_locators_end(const uint8_t *header);
bool vhd_hits_locator(const uint8_t *header, uint64_t start, uint64_t end);
/* Whether the disk is its parent: 0 or -errno with *err. */
int vhd_check_parent(const uint8_t *header, const struct disk *parent, struct error **err);
/* Writes down what the new image is based on, and into `sector` (VHD_LOCATOR_ROOM bytes) what is to be at
 * byte `at` of the file. 0 or -errno with *err. */
int vhd_put_parent(const struct disk_build *build, uint8_t *header, uint64_t at, uint8_t *sector,
                   struct error **err);

/* ---- vhd_resize.c ---- */

int vhd_resize(struct disk *disk, uint64_t size, struct error **err);
/* See blocks.h. */
int vhd_resize_dynamic(struct blocks *b, uint64_t size, uint32_t n, struct error **err);

extern const struct disk_build_ops vhd_build;

#endif

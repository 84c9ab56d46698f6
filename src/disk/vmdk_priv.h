/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Layout of the format vmdk: offsets in the header, little-endian. Numbers of sectors unless said. */
#ifndef TABIQUE_DISK_VMDK_PRIV_H
#define TABIQUE_DISK_VMDK_PRIV_H

#include "disk/blocks.h"

#define VMDK_MAGIC          0x564d444bu /* "KDMV" */
#define VMDK_HEAD           512u
#define VMDK_GD_AT_END      UINT64_MAX
#define VMDK_TABLE          512u  /* entries of a grain table, of what is made here */
#define VMDK_TABLE_MAX      4096u /* of what is read */
#define VMDK_GRAIN_MAX      (1u << 20)
#define VMDK_GRAINS_MAX     (32u << 20) /* 2 TiB, of which the tables take 128 MiB of memory */
#define VMDK_DESCRIPTOR_MAX (64u << 10) /* bytes */

enum {
    VMDK_AT_VERSION = 4,
    VMDK_AT_FLAGS = 8,
    VMDK_AT_CAPACITY = 12,
    VMDK_AT_GRAIN = 20,
    VMDK_AT_DESCRIPTOR = 28,
    VMDK_AT_DESCRIPTOR_SIZE = 36,
    VMDK_AT_TABLE_ENTRIES = 44,
    VMDK_AT_SPARE_DIRECTORY = 48,
    VMDK_AT_DIRECTORY = 56,
    VMDK_AT_OVERHEAD = 64,
    VMDK_AT_UNCLEAN = 72,
    VMDK_AT_LINE_ENDS = 73, /* "\n \r\n": what changed these has damaged the rest too */
    VMDK_AT_COMPRESSION = 77,
};

#define VMDK_LINE_ENDS       "\n \r\n"
#define VMDK_LINE_ENDS_VALID (1u << 0)
#define VMDK_SPARE           (1u << 1)
#define VMDK_ZERO_GRAINS     (1u << 2)
#define VMDK_COMPRESSED      (1u << 16)
#define VMDK_MARKERS         (1u << 17)
#define VMDK_DEFLATE         1u

/* Before each compressed grain: its first sector in the disk (8 bytes), and how many bytes follow (4). */
#define VMDK_MARKER 12u
/* With no bytes behind it, it fills a sector and says what follows (4): nothing, a table, the directory, the
 * header once more. */
enum { VMDK_END = 0, VMDK_GRAIN_TABLE = 1, VMDK_GRAIN_DIRECTORY = 2, VMDK_FOOTER = 3 };

struct vmdk {
    struct blocks blocks;
    bool packed, zero_grains;
    /* Where each table is, and its spare: sectors. */
    uint32_t entries, n_tables, *tables, *spares;
    uint8_t *dirty; /* a bit for each */
    uint64_t directory, spare;
    uint64_t text, text_size; /* the descriptor, in sectors; 0: there is none */
    uint64_t id_at;           /* where that has the content's ID; 0: nowhere */
    bool changed;
};

/* vmdk_resize.c: see blocks.h. */
int vmdk_resize(struct blocks *b, uint64_t size, uint32_t n, struct error **err);

extern const struct disk_build_ops vmdk_build;

#endif

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
#define VMDK_GRAINS_MAX     (32u << 20)     /* 2 TiB, of which the tables take 128 MiB of memory */
#define VMDK_DESCRIPTOR_MAX (64u << 10)     /* bytes */
#define VMDK_EXTENTS_MAX    1024u           /* files of one image: 2 TiB in extents of 2 GiB */
#define VMDK_SPLIT          (2047ull << 20) /* bytes of VMware's own extents of "2 GB" */
#define VMDK_SECTORS_MAX    (INT64_MAX / DISK_SECTOR)
#define VMDK_NAME_MAX       255u
#define VMDK_TEXT_START     "# Disk DescriptorFile"
#define VMDK_NO_PARENT      0xffffffffu /* the ID that stands for none */

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
    uint64_t overhead;        /* sectors that no grain is to begin in */
    uint64_t text, text_size; /* the descriptor, in sectors; 0: there is none */
    uint64_t id_at;           /* where that has the content's ID; 0: nowhere */
    bool changed;
};

/* ---- vmdk.c ---- */

/* Opens a file that has content, and not one that names such files. 0 or -errno with *err. */
int vmdk_open_sparse(struct disk **out, const struct disk *common, struct error **err);
int vmdk_backing(int fd, char **name, char **format, struct error **err);
/* The descriptor of a VMDK, wherever it is; NULL if it has none. To be freed. 0 or -errno with *err. */
int vmdk_read_text(int fd, char **out, struct error **err);

/* ---- vmdk_text.c ---- */

/* Whether a file that begins so is a descriptor. */
bool vmdk_is_text(const uint8_t *head);
/* What "name=" is followed by in the text, up to the line's end and without quotes; NULL if it is not there.
 * To be freed. */
char *vmdk_text_value(const char *text, const char *name);
/* Where the line "CID=" has its digits, up to 8 (QEMU writes no zeros before them); 0: nowhere. */
size_t vmdk_text_id(const char *text);
/* The ID after "name="; VMDK_NO_PARENT if there is none. */
uint32_t vmdk_text_number(const char *text, const char *name);
/* Whether the disk is the one that an image with this text is based on: 0 or -errno with *err. */
int vmdk_check_parent(const char *text, const struct disk *disk, struct error **err);
/* Gives the content another ID, at this byte of the file; 0: it has none. 0 or -errno. */
int vmdk_change_id(int fd, uint64_t at);
/* All of a descriptor's file; to be freed. 0 or -errno with *err. */
int vmdk_text_read(int fd, char **out, struct error **err);

struct vmdk_extent {
    uint64_t sectors, skip; /* of the disk; of the file before them */
    bool flat;
    char name[VMDK_NAME_MAX + 1];
};

/* The extents that it names, in the disk's order; to be freed. 0 or -errno with *err. */
int vmdk_text_extents(const char *text, struct vmdk_extent **out, unsigned *n, struct error **err);

/* A text with this many sectors in its last extent's line, and as long as it was or longer; NULL: no memory.
 */
char *vmdk_text_with_size(const char *text, uint64_t sectors);

/* ---- vmdk_set.c: images in several files ---- */

struct vmdk_piece {
    uint64_t start, length, skip; /* of the disk; of the extent's own bytes before that */
    struct disk *disk;
};

struct vmdk_set {
    struct disk disk;
    struct vmdk_piece *pieces;
    unsigned n;
    uint64_t id_at;
    bool changed, submitting;
};

struct vmdk_set *vmdk_set_of(const struct disk *disk);
/* Before the content changes: 0 or -errno. */
int vmdk_set_touch(struct vmdk_set *set);

int vmdk_set_open(struct disk **out, const struct disk *common, struct error **err);
int vmdk_set_check(struct disk_check *check, struct error **err);

/* vmdk_set_resize.c: see struct disk_format. */
int vmdk_set_resize(struct disk *disk, uint64_t size, struct error **err);

/* vmdk_resize.c: see blocks.h. */
int vmdk_resize(struct blocks *b, uint64_t size, uint32_t n, struct error **err);

extern const struct disk_build_ops vmdk_build;

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Layout of the format vhdx: offsets in its structures, all little-endian (MS-VHDX 2.2 to 2.6); and what its
 * parts have of each other: vhdx_header.c reads the structures, vhdx_log.c has the log, vhdx.c the blocks. */
#ifndef TABIQUE_DISK_VHDX_PRIV_H
#define TABIQUE_DISK_VHDX_PRIV_H

#include "disk/blocks.h"

#define VHDX_MIB       (1u << 20)
#define VHDX_SECTOR    4096u /* what the log and its updates consist of */
#define VHDX_GUID      16u
#define VHDX_ENTRIES   (VHDX_SECTOR / 8) /* of the table, in a sector of it */
#define VHDX_SIZE_MAX  (64ull << 40)
#define VHDX_BLOCK_MAX (256u << 20)
/* How large a log may be that has to be replayed: it is in memory while the image is opened. */
#define VHDX_LOG_MAX (64u << 20)

#define VHDX_SIGNATURE          "vhdxfile"
#define VHDX_HEADER_SIGNATURE   "head"
#define VHDX_REGIONS_SIGNATURE  "regi"
#define VHDX_METADATA_SIGNATURE "metadata"

/* Where things are in the file's first mebibyte. */
enum {
    VHDX_HEADER_1 = 64 << 10,
    VHDX_HEADER_2 = 128 << 10,
    VHDX_REGIONS_1 = 192 << 10,
    VHDX_REGIONS_2 = 256 << 10,
};

enum {
    VHDX_HEADER = 4096, /* bytes */
    VHDX_AT_CHECKSUM = 4,
    VHDX_AT_SEQUENCE = 8,
    VHDX_AT_FILE_WRITE_ID = 16,
    VHDX_AT_DATA_WRITE_ID = 32,
    VHDX_AT_LOG_ID = 48,
    VHDX_AT_LOG_VERSION = 64,
    VHDX_AT_VERSION = 66,
    VHDX_AT_LOG_LENGTH = 68,
    VHDX_AT_LOG_OFFSET = 72,
};

enum {
    VHDX_REGIONS = 64 << 10, /* bytes */
    VHDX_AT_REGION_COUNT = 8,
    VHDX_AT_REGION = 16,
    VHDX_REGION = 32, /* bytes each: ID, offset (8), length (4), required (4) */
    VHDX_REGIONS_MAX = 2047,
};

enum {
    VHDX_METADATA = 64 << 10, /* bytes of its table */
    VHDX_AT_ITEM_COUNT = 10,
    VHDX_AT_ITEM = 32,
    VHDX_ITEM = 32, /* bytes each: ID, offset (4), length (4), flags (4) */
    VHDX_ITEMS_MAX = 2047,
    VHDX_ITEM_REQUIRED = 4,
    VHDX_ITEM_OF_DISK = 2,
    VHDX_FIXED = 1, /* flags of the item "file parameters" */
    VHDX_HAS_PARENT = 2,
};

/* An entry of the table of blocks: 3 bits say what it is, those from 20 on at which mebibyte. */
enum {
    VHDX_STATE = 7,
    VHDX_NOT_PRESENT = 0,
    VHDX_UNDEFINED = 1,
    VHDX_ZERO = 2,
    VHDX_UNMAPPED = 3,
    VHDX_PRESENT = 6,
    VHDX_PARTLY_PRESENT = 7,
    VHDX_PLACE_SHIFT = 20,
};

extern const uint8_t vhdx_id_table[VHDX_GUID], vhdx_id_metadata[VHDX_GUID];
extern const uint8_t vhdx_id_parameters[VHDX_GUID], vhdx_id_size[VHDX_GUID], vhdx_id_disk[VHDX_GUID],
    vhdx_id_sector[VHDX_GUID], vhdx_id_physical[VHDX_GUID], vhdx_id_parent[VHDX_GUID];

/* ---- vhdx_log.c ---- */

/* What a log that was left behind has to say: `length` bytes at `offset` are `bytes`, or zeros. */
struct vhdx_patch {
    uint64_t offset, length;
    const uint8_t *bytes; /* NULL: zeros */
};

struct vhdx_log {
    uint8_t *bytes;
    struct vhdx_patch *patches;
    uint32_t n;
    uint64_t file_end; /* the file must have at least so many bytes */
};

/* Reads and checks the log that `header` names, if that has one to be replayed. 0 or -errno with *err. */
int vhdx_log_load(struct vhdx_log *log, int fd, const uint8_t *header, uint64_t file_end, struct error **err);
void vhdx_log_free(struct vhdx_log *log);
/* Reads the file as it is with the log. */
int vhdx_log_read(const struct vhdx_log *log, int fd, void *buf, size_t len, uint64_t offset);
/* Brings the file into that state. Not synced. 0 or -errno. */
int vhdx_log_apply(const struct vhdx_log *log, int fd);

/* ---- vhdx_header.c ---- */

struct vhdx_region {
    uint64_t offset, length;
};

struct vhdx_header {
    uint8_t bytes[VHDX_HEADER]; /* the current one of the two */
    uint64_t at;                /* which that is */
    struct vhdx_region log, table, metadata;
    uint64_t end;           /* of all regions, also of those that are not known here */
    uint64_t size, size_at; /* the item that says it */
    uint32_t block_size, sector_size, physical_size, flags;
    uint8_t disk_id[VHDX_GUID];
    uint32_t n;      /* blocks */
    uint32_t ratio;  /* of so many blocks one entry for their bitmaps follows in the table */
    uint64_t parent; /* where the item is that names the parent, and its length; 0: none */
    uint32_t parent_length;
};

/* Reads and checks all but the table of blocks; with a log that was left behind as that has it. *log is to be
 * freed, also after a failure. 0 or -errno with *err. */
int vhdx_header_read(struct vhdx_header *h, struct vhdx_log *log, int fd, uint64_t *file_end,
                     struct error **err);
/* Writes `h->bytes`, with the next number, over the older one of the two headers. To be synced. */
int vhdx_header_write(struct vhdx_header *h, int fd);
/* At which place of the table block `i` is. */
uint64_t vhdx_entry_of(const struct vhdx_header *h, uint32_t i);
/* A new identifier: 0 or -errno. */
int vhdx_new_id(uint8_t id[VHDX_GUID]);

/* ---- vhdx_parent.c: of differencing images ---- */

#define VHDX_LOCATOR_ROOM 8192u /* bytes of what is made here */

/* The parent's path, from the image's own directory; to be freed. 0 or -errno with *err. */
int vhdx_parent_name(int fd, const struct vhdx_header *h, const struct vhdx_log *log, char **out,
                     struct error **err);
/* Whether the disk is the parent, with the content that it had: 0 or -errno with *err. */
int vhdx_check_parent(int fd, const struct vhdx_header *h, const struct vhdx_log *log,
                      const struct disk *parent, struct error **err);
/* What the new image is to say of its parent, into VHDX_LOCATOR_ROOM bytes of zeros. 0 or -errno with *err.
 */
int vhdx_make_locator(const struct disk_build *build, uint8_t *locator, uint32_t *length, struct error **err);

/* ---- vhdx.c ---- */

/* Where our own log is. */
struct vhdx_journal {
    uint64_t sequence;
    uint32_t next; /* bytes into the log */
    bool open;     /* the header names it */
    uint8_t id[VHDX_GUID];
};

struct vhdx {
    struct blocks blocks;
    struct vhdx_header header;
    struct vhdx_journal journal;
    uint8_t *dirty; /* a bit for each sector of the table */
    bool changed;   /* the header says that somebody writes */
    bool left;      /* there was a log to be replayed */
    uint64_t kept;  /* the end of what blocks keep that have no content */
    /* In an image that differs: a bit for each block that is zeros, and for each of which only some sectors
     * are here; of each `header.ratio` blocks the place of the bits that say which, in mebibytes; and those
     * bits of block `bits_of` - 1. */
    uint8_t *zeros, *partly;
    uint32_t *bitmaps;
    uint8_t *bits;
    uint32_t bits_of;
};

/* A sector of the file that is to change. */
struct vhdx_update {
    uint64_t offset;
    uint8_t bytes[VHDX_SECTOR];
};

/* How many fit into one entry of the log: it has one sector of descriptors, and takes at most half of the
 * smallest log, so that the entry before it is whole until it is. */
#define VHDX_UPDATES_MAX 126u

/* Writes an entry to the log. To be synced. `end`: of the file. 0 or -errno. */
int vhdx_log_write(struct vhdx_journal *j, const struct vhdx_region *log, int fd, uint64_t end,
                   const struct vhdx_update *updates, unsigned n);

/* Writes them, through the log. Before the next ones there must be a sync. 0 or -errno. */
int vhdx_write_updates(struct vhdx *v, const struct vhdx_update *updates, unsigned n);

/* ---- vhdx_resize.c: see blocks.h ---- */

int vhdx_resize(struct blocks *b, uint64_t size, uint32_t n, struct error **err);

extern const struct disk_build_ops vhdx_build;

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What formats have in common that keep a disk in blocks of one size, each anywhere in the file or nowhere,
 * by one table: VDI, VHD, VHDX. The table is in memory whole.
 *
 * New blocks go to the end of the file. Their content is written at once; the table's entry only with the
 * next flush, after a sync. So whatever an end at any moment leaves in the file, no entry points to what is
 * not there: space behind the last block may be lost, and the next block to be taken takes it back.
 */
#ifndef TABIQUE_DISK_BLOCKS_H
#define TABIQUE_DISK_BLOCKS_H

#include "disk/disk_priv.h"

/* The table takes 4 bytes each of memory. */
#define BLOCKS_MAX (16u << 20)

struct blocks {
    struct disk disk;
    const struct blocks_ops *ops;
    uint32_t block_size; /* bytes, a power of two */
    uint32_t n;
    uint32_t *map;           /* what the entries mean is the format's own */
    uint64_t end;            /* of the last block in the file */
    uint32_t before, behind; /* bytes of the format's own before each block, and behind the last one */
    bool taken;              /* a block, since the disk was opened */
    bool uneven;             /* what is in the file is of other lengths */
    bool fixed;          /* there is no table: all blocks are there, one behind the other from byte 0 on */
    bool differs;        /* what is not here is what disk.backing has, if that is open */
    uint64_t backing_at; /* from this byte on */
    uint32_t dirty_from, dirty_to;

    bool submitting; /* disk_submit has not returned yet */
};

struct blocks_ops {
    /* Where the content of block `i` begins; 0: nowhere, it is zeros. Within the file, but for its end. */
    uint64_t (*where)(const struct blocks *b, uint32_t i);
    /* Whether block `i`, which is nowhere, is zeros also where the disk is based on another. Optional. */
    bool (*zeros)(const struct blocks *b, uint32_t i);
    /* Of a block that has a place, in an image that `differs`: 1 if the sector at byte `at` of the disk is
     * there, 0 if it is not, and how far that holds, up to *length. Or -errno. Optional: all are. */
    int (*has)(struct blocks *b, uint64_t at, uint64_t *length);
    /* All sectors of block `i` are there and synced. 0 or -errno. With `has`. */
    int (*filled)(struct blocks *b, uint32_t i);
    /* Gives block `i` its place at b->end, which it moves, and its entry in the map. What is behind the old
     * end is zeros in the file. 0 or -errno. */
    int (*take)(struct blocks *b, uint32_t i);
    /* The block that was just taken is not needed: b->end and the entry are what they were. Optional. */
    void (*untaken)(struct blocks *b);
    /* Before content of block `i` is changed that has a place already. 0 or -errno. Optional. */
    int (*touch)(struct blocks *b, uint32_t i);
    /* The entry of block `i` is another: what `write_map` needs to know. Optional. */
    void (*changed)(struct blocks *b, uint32_t i);
    /* Writes the entries from `from` up to `to`, and what else has changed with them. 0 or -errno. */
    int (*write_map)(struct blocks *b, uint32_t from, uint32_t to);
    /* What is wrong that opening it to be written makes right; NULL: nothing. Optional. */
    const char *(*wrong)(const struct blocks *b);
    /* Gives back what is behind the end. 0; or -1 with errno. Optional: the file is cut there. */
    int (*cut)(struct blocks *b, int fd);
    /* All is written and synced, and the image is being closed. 0 or -errno. Optional. */
    int (*finish)(struct blocks *b);
    /* For blocks_resize: an entry that says that a block is nowhere, and how many blocks there may be. */
    uint32_t nowhere, max;
    /* Of the file, if there were no blocks. */
    uint64_t (*own_end)(const struct blocks *b);
    /* Makes the table one of `n` blocks, those that are new nowhere, and then the header say that, and
     * `size`; all synced. Has what `b` still says of them. 0 or -errno with *err: nothing has changed. */
    int (*resize)(struct blocks *b, uint64_t size, uint32_t n, struct error **err);
    /* Frees what is behind `b`. Optional. */
    void (*free)(struct blocks *b);
};

/* For the format's table. `b` is the first in the format's own structure. */
void blocks_submit(struct disk *disk, struct disk_request *request);
int blocks_read(struct disk *disk, uint64_t offset, void *buf, size_t len);
int blocks_extent(struct disk *disk, uint64_t offset, uint64_t length, struct disk_extent *out);
/* Frees `b` itself too. */
int blocks_close(struct disk *disk);

/* Writes the entries that have changed, once what they point to is there. 0 or -errno. */
int blocks_write_map(struct blocks *b);
/* The entry of a block is another. */
void blocks_changed(struct blocks *b, uint32_t i);

/* The operation `resize` of such a format; not of one that is `fixed`. */
int blocks_resize(struct disk *disk, uint64_t size, struct error **err);

/* The operation `check` of such a format. */
int blocks_check(const struct disk_format *format, struct disk_check *check, struct error **err);

/* Whether two blocks share bytes of the file: then one must not be written. 0, or -EUCLEAN, or -ENOMEM.
 * `extra`: bytes of each before its content. */
int blocks_check_overlap(const struct blocks *b, uint32_t extra);

#endif

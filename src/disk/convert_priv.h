/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copying a disk's content into a new image: what the two halves share. See convert.c. */
#ifndef TABIQUE_DISK_CONVERT_PRIV_H
#define TABIQUE_DISK_CONVERT_PRIV_H

#include "disk/disk_priv.h"
#include "disk/job.h"

#include <pthread.h>

struct convert_unit {
    bool zeros;
    size_t packed; /* bytes; 0: it stays as it is */
    uint8_t *from; /* what is written */
    uint64_t offset;
};

/* A part of the disk, from when it is read until it is written. */
struct convert_piece {
    uint8_t *buf, *packed;
    uint64_t at, number;
    uint32_t length;
    struct convert_unit *units;
    struct disk_extent *extents;
    unsigned n; /* extents */
    struct convert_piece *next;
};

struct convert {
    pthread_mutex_t lock;
    struct disk *source;
    struct disk_build build;
    const struct disk_job *job;
    uint32_t chunk;
    uint64_t at;              /* of the disk: from here on nobody has begun */
    struct disk_extent known; /* of the source, at known_at */
    uint64_t known_at;
    uint64_t next, turn; /* pieces that were taken; the first that is not placed yet */
    pthread_cond_t placed;
    struct convert_piece *spare, *full, **full_tail; /* those that wait to be written */
    unsigned n_pieces, n_spare;
    long cpus;    /* of the host */
    bool writing; /* somebody does */
    pthread_cond_t spared;
    int result;
    const char *doing; /* when that happened */

    /* Of the one that writes, without the lock. */
    bool sync;        /* the file is to be on the disk in the end */
    bool reserves;    /* the file system can */
    uint64_t written; /* bytes that nobody has told the kernel to begin with */
};

/* Finds zeros in a piece that was read, packs the rest, and finds a place for it. 0 or -errno. */
int convert_place(struct convert *c, struct convert_piece *p, struct disk_packer *packer);
/* Writes it there. One call at a time. 0 or -errno. */
int convert_write(struct convert *c, const struct convert_piece *p);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copying a disk's content into a new image: what the two halves share. See convert.c. */
#ifndef TABIQUE_DISK_CONVERT_PRIV_H
#define TABIQUE_DISK_CONVERT_PRIV_H

#include "disk/disk_priv.h"
#include "disk/job.h"

#include <pthread.h>

struct convert {
    pthread_mutex_t lock;
    struct disk *source;
    struct disk_build build;
    const struct disk_job *job;
    uint32_t chunk;
    uint64_t at;         /* of the disk: from here on nobody has begun */
    uint64_t next, turn; /* pieces that were taken; the first that is not placed yet */
    pthread_cond_t placed;
    int result;
    const char *doing; /* when that happened */

    /* Without the lock. */
    bool sync;        /* the file is to be on the disk in the end */
    bool reserves;    /* the file system can */
    uint64_t written; /* bytes that nobody has told the kernel to begin with */
};

struct convert_unit {
    bool zeros;
    size_t packed; /* bytes; 0: it stays as it is */
    uint8_t *from; /* what is written */
    uint64_t offset;
};

struct convert_worker {
    struct convert *c;
    uint8_t *buf, *packed;
    struct disk_packer *packer;
    uint64_t at, number; /* its piece */
    uint32_t length;
    struct convert_unit *units;
    struct disk_extent *extents;
    unsigned n;
};

/* Writes the piece that a worker has read. 0 or -errno. */
int convert_write(struct convert_worker *w);

#endif

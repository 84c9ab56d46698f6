/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The other end of a copy (copy.h): writes what comes to an image of its own. One thread for each; no locks.
 */
#ifndef TABIQUE_DISK_COPY_RECEIVE_H
#define TABIQUE_DISK_COPY_RECEIVE_H

#include "disk/job.h"

struct disk_copy_begun {
    uint64_t size;   /* of the disk */
    uint64_t bytes;  /* that will come, about */
    bool repeats;    /* parts may come more than once; it is of the moment at which it ends */
    bool has_bitmap; /* what changes from now on is recorded */
};

/* Waits until the copy has begun, which is the moment that it is of. 0; or -errno with *err, and the errno is
 * the sender's if that could not begin (-ENOENT: it has no such bitmap). */
int disk_copy_meet(int fd, const struct disk_job *job, struct disk_copy_begun *out, struct error **err);

/* Waits until an image that is filled (fill.h), and has begun, is based on nothing. 0 or -errno with *err. */
int disk_copy_follow(int fd, const struct disk_copy_begun *begun, const struct disk_job *job,
                     struct error **err);

struct disk_copy_target {
    const char *path;   /* a new file, a block device or a server's disk (nbd://) */
    const char *format; /* of a new file */
    /* Of a new file: the copy to which this one is the difference; NULL: it is whole. */
    const char *backing, *backing_format;
};

/*
 * Receives all the rest. A new file gets its name when it is whole and on the disk; until then nothing is to
 * be seen of it. 0 or -errno with *err.
 */
int disk_copy_receive(int fd, const struct disk_copy_begun *begun, const struct disk_copy_target *target,
                      const struct disk_job *job, struct error **err);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copying a disk that is in use. Who has the disk open reads it and sends what it has over a socket, in
 * whatever order; who is at the other end writes that to a file of its own (backup.h), and opens nothing of
 * the disk's.
 *
 * A copy is of the moment at which it began. A write to what is not copied yet waits until that has been read
 * (copy-before-write); only what is read and not yet sent is held in memory, DISK_COPY_MEMORY bytes at most.
 * A mirror is of the moment at which it ends: what is written to a part that was copied is copied again, and
 * when little is left, or it has been through the disk often enough, writes wait until that is read.
 *
 * Should the other end take nothing for DISK_COPY_PATIENCE while a write waits for it, the copy is given up,
 * not the guest. Whatever happens to the copy, the disk is as if there had been none.
 *
 * All of this is in the disk's thread; no locks.
 */
#ifndef TABIQUE_DISK_COPY_H
#define TABIQUE_DISK_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct disk;
struct error;

#define DISK_COPY_MEMORY                                                                                     \
    (8u << 20) /* of data; one bit for each 64 KiB of the disk comes on top, up to 16 MiB */
#define DISK_COPY_PATIENCE (10 * 1000000000ull) /* ns */

/* How the names of the bitmaps begin that copies leave; of these, those that a crash has spoilt go. */
#define DISK_COPY_BITMAP "backup-"

struct disk_copying {
    bool mirror;
    /* With `mirror`: when the other end has it, the disk is about to go on in it: what is written then is
     * noted, until disk_copy_take_rest or the end of the connection. */
    bool pivot;
    bool fill; /* no copy is sent, but the disk filled from behind (fill.h), at `rate` */
    /* Only what has changed by this bitmap of the image is copied, which goes when the copy is there; NULL:
     * all. */
    const char *since;
    /* A new bitmap, of what changes from then on; it stays if the copy succeeds. Where the image can't have
     * one the other end is told. NULL: none. */
    const char *bitmap;
    uint64_t rate; /* bytes a second; 0: no limit. What writes wait for does not wait for that */
    void (*ended)(void *opaque); /* from the loop, once; not from within disk_copy_begin */
    void *opaque;
};

/* Begins; no request may be pending. `fd`, a stream socket, becomes its own, and who is at its other end is
 * told of a failure too. 0 or -errno with *err; -EBUSY: the disk is being copied. */
int disk_copy_begin(struct disk *disk, int fd, const struct disk_copying *what, struct error **err);
/* Tells who is at the other end of the socket why there is no copy. Any thread. */
void disk_copy_refuse(int fd, int error, const char *text);
/* The same with an error, which is handed on to `err`. Its -errno. */
int disk_copy_refuse_for(int fd, struct error *why, struct error **err);
/* What was written to a disk since its mirror (`pivot`) was there, as it is now. */
struct disk_copy_rest {
    struct disk_copy_piece {
        uint64_t offset, length;
        uint8_t *data;
    } * list;
    size_t n;
};

#define DISK_COPY_REST_MAX (32u << 20) /* bytes, about */

/* No request may be pending. 0; or -errno: -ENODEV if there is no such mirror, -EAGAIN if that is too much.
 */
int disk_copy_take_rest(struct disk *disk, struct disk_copy_rest *out);
void disk_copy_rest_free(struct disk_copy_rest *rest);

/* Has it end soon, with `ended`; before the disk is closed, if it is not to be lost in silence. Does nothing
 * where there is none. */
void disk_copy_cancel(struct disk *disk);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Filling an image that is in use with what it is based on, until it is based on nothing: what it does not
 * have itself is read from behind it and written into it. A write to such a part waits while that is done,
 * and a part that is being written is left for later. At the end everything stands still for the moment in
 * which the header is changed. An end at any moment before leaves the image as it is, only larger.
 *
 * Or, with copy-on-read, only what is read is filled, before the read goes on. Where that can't be written,
 * as when the host has no space, reads go on without.
 *
 * All of this is in the disk's thread; no locks.
 */
#ifndef TABIQUE_DISK_FILL_H
#define TABIQUE_DISK_FILL_H

#include <stdint.h>

struct disk;
struct error;

#define DISK_FILL_MEMORY (4u << 20) /* bytes, while it goes on */

struct disk_filling {
    uint64_t rate;               /* bytes a second; 0: no limit */
    void (*ended)(void *opaque); /* from the loop, once; not from within disk_fill_begin */
    void *opaque;
};

/* Begins. Who is at the other end of `fd`, a stream socket that becomes its own, is told how far it is
 * (copy_record.h), and ends it by going. 0 or -errno with *err, which the other end is told too. */
int disk_fill_begin(struct disk *disk, int fd, const struct disk_filling *what, struct error **err);
/* From now on what is read is filled. Does nothing where the image is based on nothing, or only read. 0 or
 * -errno. */
int disk_fill_on_read(struct disk *disk);
/* Has it end soon, with `ended`. Does nothing where there is none. */
void disk_fill_cancel(struct disk *disk);

#endif

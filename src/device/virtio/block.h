/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the machine needs to know of a virtio block device: what it is made from. */
#ifndef TABIQUE_DEVICE_VIRTIO_BLOCK_H
#define TABIQUE_DEVICE_VIRTIO_BLOCK_H

#include "device/device.h"
#include "disk/throttle.h"

struct disk_copying;
struct disk_files;

#define VIRTIO_BLOCK_SERIAL_MAX 20u

/* The configuration that virtio_block_class.create takes; required. */
struct virtio_block_config {
    struct disk_files *files; /* outlive the device */
    struct disk_limits limits;
    bool copy_on_read;  /* what is read from behind the image is written into it */
    const char *serial; /* what the guest knows the disk by, VIRTIO_BLOCK_SERIAL_MAX bytes at most; or NULL */
};

extern const struct device_class virtio_block_class;

/*
 * Has the disk go on in a new file, as disk_files_push has it; or, after that, in the one before again. What
 * the guest has asked for is done before, and stays there; the image is flushed. For who has paused the
 * guest. `fd` becomes the disk's. 0 or -errno.
 */
int virtio_block_push(struct device *device, int fd, const char *name);
int virtio_block_pop(struct device *device);
/* Has the disk go on in the file of its mirror (disk_copying's `pivot`), as disk_files_replace has it: what
 * was written since is written there first. virtio_block_pop undoes that, until virtio_block_keep. 0 or
 * -errno. */
int virtio_block_replace(struct device *device, int fd, const char *name, const char *format);
int virtio_block_keep(struct device *device);
/* Gives the disk another size and tells the guest. 0 or -errno. */
int virtio_block_resize(struct device *device, uint64_t size);
/* Begins a copy of what the disk has when all is done that the guest has asked for (disk/copy.h; `ended` is
 * not called). Until it ends the disk gets no other file and no other size: -EBUSY. `fd` becomes its own. 0
 * or -errno. */
int virtio_block_copy(struct device *device, int fd, const struct disk_copying *what);
/* Any thread. */
void virtio_block_limit(struct device *device, const struct disk_limits *limits);

#endif

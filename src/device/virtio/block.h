/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the machine needs to know of a virtio block device: what it is made from. */
#ifndef TABIQUE_DEVICE_VIRTIO_BLOCK_H
#define TABIQUE_DEVICE_VIRTIO_BLOCK_H

#include "device/device.h"

struct disk_files;

#define VIRTIO_BLOCK_SERIAL_MAX 20u

/* The configuration that virtio_block_class.create takes; required. */
struct virtio_block_config {
    struct disk_files *files; /* outlive the device */
    const char *serial; /* what the guest knows the disk by, VIRTIO_BLOCK_SERIAL_MAX bytes at most; or NULL */
};

extern const struct device_class virtio_block_class;

#endif

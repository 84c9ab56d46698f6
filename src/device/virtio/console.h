/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the machine needs to know of the virtio console: what it is made from, and its window's size. */
#ifndef TABIQUE_DEVICE_VIRTIO_CONSOLE_H
#define TABIQUE_DEVICE_VIRTIO_CONSOLE_H

#include "device/device.h"

#include <stdbool.h>
#include <stdint.h>

struct char_backend;

/* The configuration that virtio_console_class.create takes; required. */
struct virtio_console_config {
    struct char_backend *backend; /* outlives the device */
    uint16_t columns, rows;       /* of the terminal; 0 if unknown */
};

extern const struct device_class virtio_console_class;

/* The terminal has another size now. Any thread. */
void virtio_console_resize(struct device *device, uint16_t columns, uint16_t rows);

/* Whether the guest has a driver for it running, so that input would be read. Any thread. */
bool virtio_console_running(struct device *device);

#endif

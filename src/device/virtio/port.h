/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the machine needs to know of the named port: what it is made from, and whether somebody is there. */
#ifndef TABIQUE_DEVICE_VIRTIO_PORT_H
#define TABIQUE_DEVICE_VIRTIO_PORT_H

#include "device/device.h"

#include <stdbool.h>

struct char_backend;

/* The configuration that virtio_port_class.create takes; required. */
struct virtio_port_config {
    struct char_backend *backend; /* outlives the device */
    const char *name;             /* /dev/virtio-ports/NAME in Linux; of static storage */
};

#define VIRTIO_PORT_NAME_MAX 64u

extern const struct device_class virtio_port_class;

/* Whether a program in the guest has the port open. Any thread. */
bool virtio_port_is_open(struct device *device);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the machine needs to know of the socket device: what it is made from. docs/vsock.md tells how to use
 * it. */
#ifndef TABIQUE_DEVICE_VIRTIO_VSOCK_H
#define TABIQUE_DEVICE_VIRTIO_VSOCK_H

#include "device/device.h"

#include <stdint.h>

#define VSOCK_CID_MIN     3u /* lower ones have a meaning of their own */
#define VSOCK_CID_MAX     0xfffffffeu
#define VSOCK_CID_DEFAULT 3u

/* The configuration that virtio_vsock_class.create takes; required. */
struct virtio_vsock_config {
    uint32_t cid;
    /* Both outlive the device, and stay the caller's. */
    int listen_fd; /* where the host's programs come to reach the guest (dial_listen) */
    int dial_fd;   /* whom to ask for connections to them (host/dial.h) */
};

extern const struct device_class virtio_vsock_class;

#endif

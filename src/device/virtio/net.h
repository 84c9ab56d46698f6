/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The virtio network card, for who puts it into a machine. */
#ifndef TABIQUE_DEVICE_VIRTIO_NET_H
#define TABIQUE_DEVICE_VIRTIO_NET_H

#include "device/device.h"
#include "net/net.h"

#include <stdbool.h>
#include <stdint.h>

struct virtio_net_config {
    struct net_backend *backend; /* opened, not started; must outlive the device, which doesn't close it */
    uint8_t mac[NET_MAC_SIZE];
    /* The link has gone down, for the backend's other side has. In the loop's thread, with the device's lock
     * held: only to be noted. Optional. */
    void (*link_down)(void *opaque);
    void *opaque;
};

extern const struct device_class virtio_net_class;

/* What has passed since the device was made. Any thread. */
void virtio_net_stats(struct device *device, struct net_stats *stats);
/* Whether the guest is told that its cable is plugged in. Any thread. */
bool virtio_net_link_up(struct device *device);

#endif

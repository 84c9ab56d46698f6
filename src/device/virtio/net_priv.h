/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the network card share: net.c moves frames, net_control.c takes the driver's commands. */
#ifndef TABIQUE_DEVICE_VIRTIO_NET_PRIV_H
#define TABIQUE_DEVICE_VIRTIO_NET_PRIV_H

#include "device/virtio/net.h"
#include "device/virtio/virtio.h"

/* Feature bits (virtio 1.2, 5.1.3). */
#define NET_F_CSUM                0
#define NET_F_GUEST_CSUM          1
#define NET_F_CTRL_GUEST_OFFLOADS 2
#define NET_F_MTU                 3
#define NET_F_MAC                 5
#define NET_F_GUEST_TSO4          7
#define NET_F_GUEST_TSO6          8
#define NET_F_GUEST_ECN           9
#define NET_F_GUEST_UFO           10
#define NET_F_HOST_TSO4           11
#define NET_F_HOST_TSO6           12
#define NET_F_HOST_ECN            13
#define NET_F_HOST_UFO            14
#define NET_F_MRG_RXBUF           15
#define NET_F_STATUS              16
#define NET_F_CTRL_VQ             17
#define NET_F_CTRL_RX             18
#define NET_F_CTRL_RX_EXTRA       20
#define NET_F_MQ                  22
#define NET_F_CTRL_MAC_ADDR       23
#define NET_F_GUEST_USO4          54
#define NET_F_GUEST_USO6          55
#define NET_F_HOST_USO            56

/* Buffers that one frame may take; a driver's are of 1.5 KiB at least. */
#define NET_CHAIN_MAX 64u

/* Addresses of either sort to be received; with more of them, all of that sort are. */
#define NET_FILTER_MAX 64u

/* A receive queue and its transmit queue. */
struct net_pair {
    /* A frame that waits for buffers, and the buffers that wait for more of them. */
    size_t frame_len; /* 0: none */
    uint8_t frame[NET_BUFFER_MAX];
    unsigned n_buffers;
    struct virtqueue_element buffers[NET_CHAIN_MAX];
    /* A frame that waits until the backend can take it. */
    bool sending;
    struct virtqueue_element output;
    bool watch_receive, watch_send;
};

/* What the driver wants to receive (5.1.6.5.1, 5.1.6.5.2). */
struct net_filter {
    bool promiscuous, all_multicast, all_unicast, no_multicast, no_unicast, no_broadcast;
    bool unicast_overflow, multicast_overflow; /* more addresses than are kept: all of the sort pass */
    unsigned n_unicast, n_multicast;
    uint8_t unicast[NET_FILTER_MAX][NET_MAC_SIZE];
    uint8_t multicast[NET_FILTER_MAX][NET_MAC_SIZE];
};

struct virtio_net {
    struct virtio_device vdev;
    struct virtio_device_class class; /* features and queues depend on the backend */
    uint16_t queue_max[2 * NET_MAX_QUEUES + 1];
    struct virtio_net_config config;
    struct net_backend *backend;
    bool connected; /* the backend is started */
    bool started;   /* the driver works with the device */
    bool link_up;
    uint8_t mac[NET_MAC_SIZE];
    unsigned max_pairs, n_pairs; /* that there are; in use */
    unsigned offloads;           /* what received frames may leave to the driver */
    struct net_filter filter;
    struct net_stats stats;
    struct net_pair *pairs;
};

static inline struct virtio_net *net_of(struct virtio_device *vdev)
{
    return container_of(vdev, struct virtio_net, vdev);
}

/* Sets what received frames may leave to the driver, NET_OFFLOAD_... Lock held. */
void net_apply_offloads(struct virtio_net *net, unsigned offloads);
/* The NET_OFFLOAD_... of feature bits of the form GUEST_... */
unsigned net_offloads_of(uint64_t features);
/* What the driver has agreed to take unfinished. Lock held. */
unsigned net_agreed_offloads(const struct virtio_net *net);
/* Uses the first `n` pairs from now on. Lock held. 0 or -errno. */
int net_use_pairs(struct virtio_net *net, unsigned n);

/* Serves the control queue. Lock held. */
void net_control(struct virtio_net *net, struct virtqueue *queue);
/* As after power-on: everything is received. */
void net_filter_reset(struct net_filter *filter);
/* Whether the driver wants a frame to this address. Lock held. */
bool net_filter_passes(const struct virtio_net *net, const uint8_t *to);

#endif

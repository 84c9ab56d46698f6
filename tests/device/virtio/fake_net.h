/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A network of no more than memory, for the tests and the fuzz target of the card: the test says what comes,
 * and sees what went. */
#ifndef TABIQUE_TESTS_DEVICE_VIRTIO_FAKE_NET_H
#define TABIQUE_TESTS_DEVICE_VIRTIO_FAKE_NET_H

#include "net/net.h"

struct fake_net {
    struct net_backend backend;
    bool started, full, gone; /* full: takes no frame now */
    bool watch_receive[NET_MAX_QUEUES], watch_send[NET_MAX_QUEUES];
    unsigned offloads, queues;
    /* The frame that waits to be received by each queue, with its header; 0 bytes: none. */
    size_t waiting_len[NET_MAX_QUEUES];
    uint8_t waiting[NET_MAX_QUEUES][NET_BUFFER_MAX];
    /* The last one that was sent. */
    unsigned n_sent, sent_queue;
    size_t sent_len;
    uint8_t sent[NET_BUFFER_MAX];
};

void fake_net_init(struct fake_net *net, const struct net_features *features);
/* A frame of `len` bytes comes for `queue`; its header says `header` (NULL: nothing of note). The card is
 * told if it wants to be. */
void fake_net_deliver(struct fake_net *net, unsigned queue, const struct net_header *header,
                      const void *frame, size_t len);
/* Tells the card, if it wants to know, that there is something for it. */
void fake_net_ready(struct fake_net *net, unsigned queue);

#endif

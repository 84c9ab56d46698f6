/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the process of the `user` backend does with a guest's frame before libslirp sees it: checks it, fills
 * in what the guest has left out, and keeps the guest from the host's own loopback. No state.
 */
#ifndef TABIQUE_NET_FRAME_H
#define TABIQUE_NET_FRAME_H

#include "net/net.h"

/* What a guest may leave to be done. */
#define FRAME_OFFLOADS (NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6)

/* A frame of `len` bytes with its header from the guest's side. False if it is to be dropped. Writes to the
 * frame, never beyond it. */
bool frame_prepare(const struct net_header *header, uint8_t *frame, size_t len);

#endif

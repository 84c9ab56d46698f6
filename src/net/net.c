/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is the same for all backends, and the way to each. No state, no locks. */
#include "net/net.h"

#include "base/error.h"
#include "net/net_priv.h"

#include <endian.h>
#include <errno.h>

int net_open(struct net_backend **out, const struct net_config *config, struct error **err)
{
    switch (config->kind) {
    case NET_NONE:
        *out = NULL;
        return 0;
    case NET_USER:
        return net_user_open(out, config, err);
    case NET_TAP:
        return net_tap_open(out, config, err);
    }
    return error_set(err, EINVAL, "no such kind of network");
}

unsigned net_descriptors(const struct net_backend *backend, int fds[NET_MAX_QUEUES])
{
    return backend->class->descriptors(backend, fds);
}

void net_release(struct net_backend *backend)
{
    if (backend)
        backend->class->release(backend);
}

void net_close(struct net_backend *backend)
{
    if (backend)
        backend->class->close(backend);
}

int net_start(struct net_backend *backend, const struct net_client *client, struct loop *loop,
              struct error **err)
{
    backend->client = *client;
    int rc = backend->class->start(backend, loop, err);
    if (rc < 0)
        return error_set_errno(err, -rc, "network %s", backend->class->name);
    return 0;
}

void net_stop(struct net_backend *backend)
{
    backend->class->stop(backend);
}

int net_set_offloads(struct net_backend *backend, unsigned offloads)
{
    if (offloads & ~backend->features.receive)
        return -EINVAL;
    return backend->class->set_offloads ? backend->class->set_offloads(backend, offloads) : 0;
}

int net_set_queues(struct net_backend *backend, unsigned n)
{
    if (n < 1 || n > backend->features.queues)
        return -EINVAL;
    return backend->class->set_queues ? backend->class->set_queues(backend, n) : 0;
}

static bool gso_valid(const struct net_header *header, size_t len, unsigned offloads)
{
    static const struct {
        uint8_t type;
        unsigned offload;
    } known[] = {
        {NET_GSO_TCPV4, NET_OFFLOAD_TSO4},
        {NET_GSO_TCPV6, NET_OFFLOAD_TSO6},
        {NET_GSO_UDP, NET_OFFLOAD_UFO},
        {NET_GSO_UDP_L4, NET_OFFLOAD_USO},
    };
    uint8_t type = header->gso_type;
    if (type == NET_GSO_NONE)
        return true;
    if (type & NET_GSO_ECN) {
        if (!(offloads & NET_OFFLOAD_ECN))
            return false;
        type &= (uint8_t)~NET_GSO_ECN;
        if (type != NET_GSO_TCPV4 && type != NET_GSO_TCPV6)
            return false;
    }
    /* Each piece needs its own checksum (5.1.6.2), and a size to be cut to. */
    if (!header->gso_size || !(header->flags & NET_NEEDS_CSUM))
        return false;
    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (known[i].type == type)
            return offloads & known[i].offload;
    return false;
}

bool net_header_valid(const struct net_header *header, size_t len, unsigned offloads)
{
    if (len < NET_ETHER_SIZE || len > NET_FRAME_MAX)
        return false;
    if (header->flags & NET_NEEDS_CSUM) {
        size_t start = le16toh(header->csum_start), at = start + le16toh(header->csum_offset);
        if (!(offloads & NET_OFFLOAD_CSUM) || start < NET_ETHER_SIZE || at + 2 > len)
            return false;
    }
    return gso_valid(header, len, offloads);
}

void net_mac_from_name(uint8_t mac[NET_MAC_SIZE], const char *name, unsigned card)
{
    /* FNV-1a, 64 bits: spreads names well; nothing depends on its being hard to invert. */
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char *p = name; *p; p++)
        hash = (hash ^ (uint8_t)*p) * 0x100000001b3u;
    /* A byte that no name has lies between it and the number. */
    hash = (hash ^ 0x100) * 0x100000001b3u;
    hash = (hash ^ card) * 0x100000001b3u;
    hash ^= hash >> 32;
    /* The lowest bit of the first byte says multicast, the next locally administered. */
    mac[0] = 0x52;
    mac[1] = 0x74;
    for (unsigned i = 2; i < NET_MAC_SIZE; i++)
        mac[i] = (uint8_t)(hash >> 8 * (i - 2));
}

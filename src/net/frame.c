/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest's frames, parsed in the process that speaks for it. Every length is checked against the frame's;
 * what is not understood is passed on as it is, for libslirp drops what it doesn't know. */
#include "net/frame.h"

#include "base/bytes.h"
#include "net/checksum.h"

#include <netinet/in.h>

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_AT   12
#define IPV4_TARGET    16
#define IPV6_TARGET    24

/*
 * Whether it goes to an address that would be the host's own in a socket of the host: one of the loopback, or
 * the unspecified one. What the host serves there is reached by the gateway's address, where that is allowed,
 * and by no other.
 */
static bool goes_to_loopback(const uint8_t *frame, size_t len)
{
    const uint8_t *ip = frame + NET_ETHER_SIZE;
    size_t ip_len = len - NET_ETHER_SIZE;
    struct in6_addr address;
    switch (get_be16(frame + ETHERTYPE_AT)) {
    case ETHERTYPE_IPV4:
        return ip_len > IPV4_TARGET && (ip[IPV4_TARGET] == 127 || ip[IPV4_TARGET] == 0);
    case ETHERTYPE_IPV6:
        if (ip_len < IPV6_TARGET + sizeof(address))
            return false;
        memcpy(&address, ip + IPV6_TARGET, sizeof(address));
        /* Of the form ::a.b.c.d are also ::1 and ::. */
        return IN6_IS_ADDR_V4MAPPED(&address) || IN6_IS_ADDR_LOOPBACK(&address) ||
               IN6_IS_ADDR_UNSPECIFIED(&address) || IN6_IS_ADDR_V4COMPAT(&address);
    default:
        return false;
    }
}

/* The field holds the sum of the pseudo-header already (virtio 1.2, 5.1.6.2). */
static void fill_in_checksum(const struct net_header *header, uint8_t *frame, size_t len)
{
    size_t start = le16toh(header->csum_start), at = start + le16toh(header->csum_offset);
    uint16_t sum = (uint16_t)~checksum_sum(frame + start, len - start);
    /* 0 would say that a UDP datagram has none; to TCP both are the same. */
    put_be16(frame + at, sum ? sum : 0xffff);
}

bool frame_prepare(const struct net_header *header, uint8_t *frame, size_t len)
{
    if (!net_header_valid(header, len, FRAME_OFFLOADS) || goes_to_loopback(frame, len))
        return false;
    /* A segment that the guest leaves to be cut needs no cutting: libslirp takes the bytes out of it, and
     * they leave through a socket of the host. */
    if (header->flags & NET_NEEDS_CSUM)
        fill_in_checksum(header, frame, len);
    return true;
}

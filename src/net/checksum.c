/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The Internet checksum, with 64 bits at a time. */
#include "net/checksum.h"

#include "base/bytes.h"

static uint16_t fold(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

uint16_t checksum_sum(const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    /* In the host's order, which only swaps the bytes of the result (RFC 1071, 2.B). Halves of words in sums
     * of their own can't overflow below 16 GiB, and leave the compiler free to use vectors. */
    uint64_t low = 0, high = 0;
    for (; len >= 8; p += 8, len -= 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        low += v & 0xffffffff;
        high += v >> 32;
    }
    uint8_t rest[8] = {0};
    memcpy(rest, p, len);
    uint64_t v;
    memcpy(&v, rest, 8);
    low += v & 0xffffffff;
    high += v >> 32;
    uint16_t sum = fold(low + high);
    return be16toh(sum);
}

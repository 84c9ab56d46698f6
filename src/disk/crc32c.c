/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The checksum CRC-32C (RFC 3720, appendix B.4), by the processor's instruction where it has one. No state.
 */
#include "disk/crc32c.h"

#include <nmmintrin.h>
#include <string.h>

#define POLYNOMIAL 0x82f63b78u /* its bits in reverse */

static uint32_t by_bits(uint32_t crc, const uint8_t *p, size_t len)
{
    while (len--) {
        crc ^= *p++;
        for (unsigned i = 0; i < 8; i++)
            crc = crc & 1 ? crc >> 1 ^ POLYNOMIAL : crc >> 1;
    }
    return crc;
}

__attribute__((target("sse4.2"))) static uint32_t by_processor(uint32_t crc, const uint8_t *p, size_t len)
{
    uint64_t wide = crc;

    for (; len >= 8; p += 8, len -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = (uint32_t)wide;
    while (len--)
        crc = _mm_crc32_u8(crc, *p++);
    return crc;
}

uint32_t crc32c(uint32_t before, const void *bytes, size_t len)
{
    uint32_t crc = ~before;

    return ~(__builtin_cpu_supports("sse4.2") ? by_processor(crc, bytes, len) : by_bits(crc, bytes, len));
}

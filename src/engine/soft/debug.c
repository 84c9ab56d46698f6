/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Breakpoints of DR0-DR3 (SDM vol. 3B 17.2.4). Called for every access while one is enabled. */
#include "engine/soft/vcpu.h"

uint64_t soft_debug_match(const struct soft_vcpu *c, uint64_t linear, unsigned len, enum soft_debug_kind kind)
{
    static const uint8_t lengths[4] = {1, 2, 8, 4};
    uint64_t hits = 0;

    for (unsigned n = 0; n < 4; n++) {
        unsigned type = (c->dr[7] >> (16 + 4 * n)) & 3;
        unsigned size = lengths[(c->dr[7] >> (18 + 4 * n)) & 3];

        if (!((c->dr[7] >> (2 * n)) & 3))
            continue;
        if (type != (unsigned)kind && !(type == DEBUG_READ && kind == DEBUG_WRITE))
            continue;
        uint64_t first = c->dr[n] & ~(uint64_t)(size - 1);
        if (linear < first + size && first < linear + len)
            hits |= 1ull << n;
    }
    return hits;
}

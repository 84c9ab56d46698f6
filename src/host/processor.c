/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host's processor: processor.h. No state. */
#include "host/processor.h"

#include <cpuid.h>
#include <string.h>

void processor_leaf(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    uint32_t max = __get_cpuid_max(leaf & 0x80000000u, NULL);

    memset(out, 0, 4 * sizeof(*out));
    if (leaf <= max)
        __cpuid_count(leaf, subleaf, out[0], out[1], out[2], out[3]);
}

uint64_t processor_xcr0(void)
{
    uint32_t out[4], low, high;

    processor_leaf(1, 0, out);
    if (!(out[2] & bit_OSXSAVE))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

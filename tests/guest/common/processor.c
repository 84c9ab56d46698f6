/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the processor says of itself. Called by test guests. */
#include "guest_priv.h"

bool processor_has(uint32_t leaf, unsigned reg, unsigned bit)
{
    uint32_t out[4];

    cpuid(leaf & 0x80000000, 0, out);
    if (out[0] < leaf)
        return false;
    cpuid(leaf, 0, out);
    return out[reg] >> bit & 1;
}

bool processor_is_tcg(void)
{
    uint32_t brand[12], out[4];

    cpuid(0x80000000, 0, out);
    if (out[0] >= 0x80000004) {
        for (unsigned i = 0; i < 3; i++)
            cpuid(0x80000002 + i, 0, brand + 4 * i);
        if (memcmp(brand, "QEMU", 4) == 0)
            return true;
    }
    /* Where KVM has not handed the name down: a K8, as TCG's largest model calls itself, that never had SMEP.
     */
    cpuid(0, 0, out);
    if (out[1] != 0x68747541) /* "Auth" */
        return false;
    cpuid(1, 0, out);
    return (out[0] & ~0xfu) == 0x60fb0 && processor_has(7, 1, 7);
}

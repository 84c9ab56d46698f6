/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ELF kernels with a PVH note. */
#include "boot_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_boot(&boot_pvh, data, size);
}

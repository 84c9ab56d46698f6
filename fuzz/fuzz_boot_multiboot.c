/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Multiboot 1 headers, in ELF files or alone. */
#include "boot_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_boot(&boot_multiboot, data, size);
}

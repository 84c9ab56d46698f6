/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A Linux bzImage: its setup header and what is made of it. */
#include "boot_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_boot(&boot_bzimage, data, size);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A VMDK file that anyone may have made: see disk_fuzz.h. */
#include "disk_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_disk("vmdk", data, size);
}

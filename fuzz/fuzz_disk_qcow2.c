/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A qcow2 file that anyone may have made: see disk_fuzz.h. */
#include "disk_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_disk("qcow2", data, size);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A LUKS file that anyone may have made: see disk_fuzz.h. */
#include "luks_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < SCRIPT + LUKS_HEAD || size > SCRIPT + FILE_MAX)
        return 0;
    int fd = file_with(data + SCRIPT, size - SCRIPT);
    fuzz_luks_prepare(fd, 0);
    fuzz_disk_file("luks", data, fd);
    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A qcow2 file that anyone may have made: see disk_fuzz.h. Where it is encrypted the secret is known. */
#include "disk/qcow2_priv.h"
#include "disk_fuzz.h"
#include "luks_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct qcow2_header header;
    uint64_t end;

    if (size < SCRIPT || size > SCRIPT + FILE_MAX)
        return 0;
    int fd = file_with(data + SCRIPT, size - SCRIPT);
    if (qcow2_read_header(fd, true, &header, &end, NULL) == 0 && header.crypt)
        fuzz_luks_prepare(fd, header.crypt_offset);
    fuzz_disk_file("qcow2", data, fd);
    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A LUKS file that anyone may have made: see disk_fuzz.h. The secret is known, and the iterations that the
 * header asks for are few, for they are only a matter of time.
 */
#include "base/bytes.h"
#include "disk_fuzz.h"

#include <string.h>

#define HEAD 592u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void few(uint8_t *iterations)
{
    put_be32(iterations, get_be32(iterations) % 16);
}

static void prepare(void)
{
    static char name[32];
    int fd = memfd_create("secret", 0);

    if (fd < 0 || write(fd, "secret", 6) != 6)
        abort();
    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    fuzz_secret = name;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t head[HEAD];

    if (size < SCRIPT + HEAD || size > SCRIPT + FILE_MAX)
        return 0;
    if (!fuzz_secret)
        prepare();
    memcpy(head, data + SCRIPT, HEAD);
    few(head + 164);
    for (unsigned i = 0; i < 8; i++)
        few(head + 212 + 48 * i);
    int fd = file_with(data + SCRIPT, size - SCRIPT);
    disk_write_at(fd, head, HEAD, 0);
    fuzz_disk_file("luks", data, fd);
    return 0;
}
